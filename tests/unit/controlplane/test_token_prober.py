"""Plays of engines that answer their health check: who is asked for a token and when, and what follows from none."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from support.asked import AskedServer, Reply, reply
from support.token_play import CHAT, GOOD, RULES, TOKEN, Stage, answering, asking, condition_of, hang, said
from understudy.controlplane import token_prober
from understudy.controlplane.means import Proof
from understudy.controlplane.token_prober import BARREN
from understudy.core.health import Seen
from understudy.core.snapshot import Condition, Duty, EngineKind, HealthRules, Model, RoutingPlan, Target, Timeouts
from understudy.core.upkeep import GenerateRules, GenerateWhen, RestartKind, RestartRules, WarmRules
from understudy.engines import Finding

EVERY = GenerateRules(GenerateWhen.EVERY, every_s=60.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look without pause, and wait for nothing that takes real time."""
    for name, value in {"LOOK_S": 0.001, "NOTED_S": 0.001, "PROGRESS_INTERVAL_S": 0.001}.items():
        monkeypatch.setattr(token_prober, name, value)


def noted(stage: Stage) -> list[tuple[float, tuple[str, ...]]]:
    """Return, as they come, how long each question may take and what may be loaded for it."""
    asked: list[tuple[float, tuple[str, ...]]] = []
    fetch = stage.prober._fetch

    async def noting(target: Target, spent: Mapping[str, str], bound_s: float, loadable: tuple[str, ...] = ()) -> Any:
        asked.append((bound_s, loadable))
        return await fetch(target, spent, bound_s, loadable)

    stage.prober._fetch = noting  # type: ignore[method-assign]  # notes, and fetches as before
    return asked


# --- suspicious


async def test_one_whose_traffic_is_well_is_not_asked() -> None:
    async with answering() as server, asking(server) as stage:
        await stage.pass_time(3600.0)
        assert server.asked == []


async def test_one_whose_traffic_fails_is_asked_once_and_a_token_is_the_end_of_it() -> None:
    async with answering() as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await server.wait_asked(1)
        await stage.pass_time(600.0)
        assert server.asked == [CHAT]
        assert (stage.state.condition, stage.told, stage.barren) == (Condition.UP, [], [])


async def test_one_that_generates_nothing_goes_down_after_fall_and_comes_back_by_a_token_only() -> None:
    async with answering({"error": {"message": "CUDA error"}}, 500) as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: bool(stage.barren))
        assert stage.told == [("backend.failed_generation", {"backend": "b", "reason": "answered 500: CUDA error"})]
        assert stage.barren == [("b", "answered 500: CUDA error")]
        assert stage.state.condition is Condition.UP
        stage.probe(2)
        assert (stage.state.condition, stage.state.reason) == (Condition.DOWN, f"{BARREN}: answered 500: CUDA error")
        assert stage.state.models == GOOD.models
        stage.probe(20)
        await stage.pass_time(10.0)
        await server.wait_asked(2)
        stage.probe(20)
        assert condition_of(stage) is Condition.DOWN
        server.answers[CHAT] = said(TOKEN)
        await stage.pass_time(100.0)
        await server.wait_asked(3)
        await stage.until(lambda: stage.prober._watches["b"].barren_at_s == 0.0)
        stage.probe(2)
        assert condition_of(stage) is Condition.UP
        # One incident is told once.
        assert [event for event, _ in stage.told if event == "backend.failed_generation"] == ["backend.failed_generation"]


async def test_one_that_hangs_is_given_its_time_to_the_first_token() -> None:
    async with AskedServer({CHAT: hang}) as server, asking(server, timeouts=Timeouts(first_token_s=0.1)) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: bool(stage.barren))
        assert stage.barren == [("b", "no token within 0.1s")]


async def test_an_answer_to_a_client_ends_it_as_well() -> None:
    async with answering({}, 500) as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: bool(stage.barren))
        stage.tally.succeed("b", 0.1, stage.now_s() + 1.0)
        stage.probe(5)
        assert stage.state.condition is Condition.UP


async def test_a_listener_that_closes_ends_what_hung() -> None:
    """Whatever comes after it is another process."""
    async with answering({}, 500) as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: bool(stage.barren))
        server.answers[CHAT] = said(TOKEN)
        for _ in range(3):
            stage.prober.on_finding("b", Finding(Seen.BAD, reason="refused the connection", is_refusing=True))
        assert (stage.state.condition, stage.prober.health_of("b").condition) == (Condition.DOWN, Condition.DOWN)
        stage.probe(2)
        assert stage.state.condition is not Condition.DOWN


@pytest.mark.parametrize("way", ["maintenance", "draining", "restarting", "down", "unknown"])
async def test_one_that_is_taken_out_or_down_anyway_is_not_asked(way: str) -> None:
    async with answering() as server, asking(server) as stage:
        await stage.look_often()
        if way == "maintenance":
            stage.publisher.set_duty("b", Duty.MAINTENANCE)
        elif way == "draining":
            stage.publisher.set_duty("b", Duty.DRAINING)
        elif way == "restarting":
            stage.publisher.set_upkeep("b", is_restarting=True)
        elif way == "down":
            for _ in range(3):
                stage.prober.on_finding("b", Finding(Seen.BAD, reason="refused the connection"))
        else:
            stage.publisher.set_plan(RoutingPlan((replace(stage.published.current.plan.backends[0], name="other"),)))
        stage.fail()
        await stage.pass_time(600.0)
        assert server.asked == []


async def test_one_in_doubt_is_left_to_its_health_check() -> None:
    async with answering() as server, asking(server) as stage:
        await stage.look_often()
        stage.prober.on_finding("b", Finding(Seen.BAD, reason="no answer within 3s"))
        stage.fail()
        await stage.pass_time(600.0)
        assert server.asked == []
        stage.probe()
        await server.wait_asked(1)


async def test_one_that_works_on_streams_is_not_asked_until_they_stand_still() -> None:
    async with answering() as server, asking(server) as stage:
        await stage.look_often()
        stage.tally.begin("b", is_trial=False)
        stage.tally.evidence_of("b").on_moved(stage.now_s())
        stage.fail()
        await stage.look_often()
        assert server.asked == []
        await stage.pass_time(6.0)
        await server.wait_asked(1)


async def test_a_full_or_resting_backend_is_not_asked_for_more() -> None:
    async with answering() as server, asking(server, in_flight_max=1) as stage:
        await stage.look_often()
        stage.tally.begin("b", is_trial=False)
        stage.fail()
        await stage.pass_time(6.0)
        assert server.asked == []
        stage.tally.end("b", is_trial=False)
        stage.tally.rest("b", stage.now_s() + 60.0)
        await stage.look_often()
        assert server.asked == []


@pytest.mark.parametrize("way", ["stream", "figures"])
async def test_one_that_works_for_others_meanwhile_is_only_busy(way: str) -> None:
    metrics = iter(range(1000))

    async def counting(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b"sglang:generation_tokens_total{} %d\n" % next(metrics)))

    answers: dict[str, Reply] = {CHAT: hang, "/metrics": counting if way == "figures" else reply(b"")}
    busy, timeouts = replace(GOOD, engine=EngineKind.SGLANG), Timeouts(first_token_s=0.1)
    async with AskedServer(answers) as server, asking(server, busy, timeouts=timeouts) as stage:
        await stage.look_often()
        stage.fail()
        await server.wait_asked(1)
        if way == "stream":
            stage.tally.evidence_of("b").on_moved(stage.now_s() + 0.05)
        await stage.until(lambda: stage.prober._watches["b"].task is None)
        assert stage.barren == []


async def test_where_nobody_listens_the_health_check_tells() -> None:
    async with AskedServer() as server:
        port = server.port
    server.port = port
    async with asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: stage.prober._watches["b"].asks == 1 and stage.prober._watches["b"].task is None)
        assert (stage.barren, stage.told) == ([], [])


async def test_an_answer_that_came_while_the_daemon_stood_still_says_nothing() -> None:
    async with AskedServer({CHAT: hang}) as server, asking(server, timeouts=Timeouts(first_token_s=0.2)) as stage:
        await stage.look_often()
        stage.fail()
        await server.wait_asked(1)
        stage.ahead_s += 300.0
        await stage.until(lambda: stage.prober._watches["b"].task is None)
        assert stage.barren == []


# --- every


QUIET = replace(RULES, generate=EVERY)


async def test_a_quiet_one_is_asked_every_so_often() -> None:
    async with answering() as server, asking(server, health=QUIET) as stage:
        await stage.pass_time(50.0)
        assert server.asked == []
        for count in (1, 2, 3):
            await stage.pass_time(61.0)
            await server.wait_asked(count)
            await stage.until(lambda: stage.prober._watches["b"].task is None)
        stage.tally.succeed("b", 0.1, stage.now_s() + 30.0)
        await stage.pass_time(61.0)
        assert len(server.asked) == 3


async def test_one_question_that_failed_is_asked_again_before_it_counts() -> None:
    async with answering({}, 500) as server, asking(server, health=QUIET) as stage:
        await stage.look_often()
        await stage.pass_time(61.0)
        await stage.until(lambda: stage.prober._watches["b"].misses == 1)
        assert stage.barren == []
        await stage.pass_time(2.0)
        await stage.until(lambda: bool(stage.barren))
        assert len(server.asked) == 2


async def test_one_failure_between_two_tokens_is_nothing() -> None:
    async with answering({}, 500) as server, asking(server, health=QUIET) as stage:
        await stage.look_often()
        await stage.pass_time(61.0)
        await stage.until(lambda: stage.prober._watches["b"].misses == 1)
        server.answers[CHAT] = said(TOKEN)
        await stage.pass_time(2.0)
        await stage.until(lambda: stage.prober._watches["b"].misses == 0)
        assert stage.barren == []


async def test_a_llamacpp_that_nobody_uses_is_asked_ever_more_rarely() -> None:
    """So that its own time to fall asleep is over once in between."""
    finding = replace(GOOD, engine=EngineKind.LLAMACPP)
    async with answering() as server, asking(server, finding, QUIET) as stage:
        await stage.look_often()
        for passed_s, asked in ((61.0, 1), (61.0, 1), (61.0, 2), (121.0, 2), (121.0, 3)):
            await stage.pass_time(passed_s)
            await stage.until(lambda asked=asked: server.asked.count(CHAT) == asked)  # type: ignore[misc]  # bound for this turn
            await stage.until(lambda: stage.prober._watches["b"].task is None)


@pytest.mark.parametrize(
    ("engine", "own", "chat"), [(EngineKind.LLAMACPP, "m", CHAT), (EngineKind.OLLAMA, "m:latest", "/api/chat")]
)
async def test_a_model_that_is_kept_for_ever_anyway_is_asked_every_time(engine: EngineKind, own: str, chat: str) -> None:
    running = reply({"models": [{"name": "m:latest", "expires_at": "2026-10-19T12:05:00.1Z"}]})
    answers = {"/api/ps": running, "/api/chat": said({"message": {"content": "Yes"}, "eval_count": 1}), CHAT: said(TOKEN)}
    finding = replace(GOOD, engine=engine, models=(Model(own),))
    async with AskedServer(answers) as server, asking(server, finding, QUIET, warm=WarmRules(("m",), idle_s=0.0)) as stage:
        await stage.look_often()
        for asked in (1, 2, 3):
            await stage.pass_time(61.0)
            await stage.until(lambda: stage.prober._watches["b"].task is None)
            assert server.asked.count(chat) == asked


async def test_an_ollama_that_nobody_uses_is_not_kept_in_memory_by_questions() -> None:
    expires = ["2026-10-19T12:05:00.1Z"]

    async def ps(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply({"models": [{"name": "m:latest", "expires_at": expires[-1]}]}))

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert "keep_alive" not in json.loads(await reader.read(4096))
        expires.append(f"2026-10-19T12:{len(expires):02d}:30.1Z")
        writer.write(reply({"message": {"content": "Yes"}, "done": True, "eval_count": 1}))

    finding = replace(GOOD, engine=EngineKind.OLLAMA)
    async with AskedServer({"/api/ps": ps, "/api/chat": chat}) as server, asking(server, finding, QUIET) as stage:
        await stage.look_often()
        for _ in range(4):
            await stage.pass_time(61.0)
            await stage.until(lambda: stage.prober._watches["b"].task is None)
        assert server.asked.count("/api/chat") == 1
        expires.append("2026-10-19T12:59:59.1Z")  # a client has used it
        for _ in range(3):
            await stage.pass_time(61.0)
            await stage.until(lambda: stage.prober._watches["b"].task is None)
        assert server.asked.count("/api/chat") == 2
        proof = await stage.prober.try_token("b")
        assert (proof.is_good, proof.first_content_s, server.asked.count("/api/chat")) == (True, 0.0, 2)
        assert (await stage.prober.prove("b")).first_content_s > 0.0
        stage.publisher.set_plan(RoutingPlan(()))
        await stage.look_often()
        assert stage.prober._spent == {}


async def test_a_reload_that_turns_it_off_ends_what_was_held_against_a_backend() -> None:
    async with AskedServer({CHAT: hang}) as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await server.wait_asked(1)
        off = replace(stage.published.current.plan.backends[0], health=HealthRules())
        stage.publisher.set_plan(RoutingPlan((off,)))
        await stage.look_often()
        stage.probe(10)
        assert (stage.state.condition, stage.prober._watches) == (Condition.UP, {})


# --- proofs


async def test_a_proof_is_a_token_and_how_long_it_took() -> None:
    off = replace(RULES, generate=GenerateRules())
    async with answering() as server, asking(server, health=off) as stage:
        proof = await stage.prober.prove("b")
        assert (proof.is_good, proof.words) == (True, "")
        assert 0.0 < proof.first_content_s < 10.0
        assert (await stage.prober.try_token("b")).is_good
        assert await stage.prober.prove("nobody") == Proof(is_good=False, words="there is no such backend")
        assert await stage.prober.try_token("nobody") == Proof(is_good=False, words="there is no such backend")


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ({"error": {"message": "CUDA error"}}, 500, "answered 500: CUDA error"),
        ({"error": {"message": "Loading model"}}, 503, "answered 503: Loading model"),
    ],
)
async def test_one_that_gives_no_token_or_not_yet_is_not_proven(value: object, status: int, words: str) -> None:
    async with answering(value, status) as server, asking(server) as stage:
        assert await stage.prober.prove("b") == Proof(is_good=False, words=words)


async def test_where_nothing_can_be_asked_for_good_probes_must_do() -> None:
    finding = replace(GOOD, models=(Model("m", is_loaded=False),))
    async with answering() as server, asking(server, finding) as stage:
        assert await stage.prober.prove("b") == Proof(is_good=True, words="no model is loaded")
        assert server.asked == []


async def test_a_proof_loads_what_is_kept_warm_else_what_was_loaded_before_in_a_restarts_time() -> None:
    finding = replace(GOOD, engine=EngineKind.LLAMACPP, models=(Model("m", is_loaded=False), Model("n", is_loaded=False)))
    restart = RestartRules(RestartKind.COMMAND, ("true",), ready_s=300.0)
    async with answering() as server, asking(server, finding, restart=restart, warm=WarmRules(("m",))) as stage:
        asked = noted(stage)
        assert (await stage.prober.prove("b", ["n"])).first_content_s > 0.0
        assert asked.pop() == (300.0, ("m", "n"))
        assert not (await stage.prober.try_token("b")).first_content_s
        assert asked.pop() == (120.0, ()), "only a restart may load"
        stage.finding = replace(finding, models=(Model("m"), Model("n", is_loaded=False)))
        stage.probe()
        assert (await stage.prober.prove("b", ["n"])).is_good
        assert asked.pop() == (120.0, ()), "what is in memory is asked"


async def test_a_proof_ends_what_was_held_against_a_backend() -> None:
    async with answering({}, 500) as server, asking(server) as stage:
        await stage.look_often()
        stage.fail()
        await stage.until(lambda: bool(stage.barren))
        server.answers[CHAT] = said(TOKEN)
        assert (await stage.prober.prove("b")).is_good
        stage.probe(5)
        assert stage.state.condition is Condition.UP


async def test_a_suspicious_one_is_waited_for_some_times_as_long_as_it_usually_takes() -> None:
    async with answering() as server, asking(server) as stage:
        await stage.look_often()
        for _ in range(20):
            stage.tally.of("b").pace.add(100, 4.0)
        asked = noted(stage)
        stage.fail()
        await stage.until(lambda: bool(asked))
        assert [bound_s for bound_s, _ in asked] == [20.0]
