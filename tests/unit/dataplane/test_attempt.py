"""Plays of single attempts: their connections, and a second one beside one that is late."""

import asyncio
from dataclasses import replace

import pytest

from support.answers import LAST_CHUNK, chunk, sse, stream_head
from support.continuing import BEGUN, QUESTIONS_MAX, answered, broken, last_request, llamas, text_of, told, until_asked
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, stream_of
from support.targets import UP, target, targets
from support.transports import settle
from understudy.core.balancer import Choice
from understudy.core.deadlines import HEDGED_BYTES_MAX
from understudy.core.record import AttemptRecord
from understudy.core.snapshot import EngineKind, FailoverRules, Model
from understudy.dataplane.attempt import RunningAttempt
from understudy.errors import FailureKind

K = FailureKind
HEDGED = FailoverRules(hedge=True)
USUAL_S = 0.5


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


def hedging(monkeypatch: pytest.MonkeyPatch, count: int = 2, *, budget: float = 0.2, samples: int = 30) -> Stage:
    """Make a stage whose gpu0 has had its first content after half a second many times."""
    stage = Stage(monkeypatch, *targets(count), failover=FailoverRules(hedge=True, budget=budget))
    for _ in range(samples):
        stage.tally.of("gpu0").pace.add(60, USUAL_S)
    return stage


# --- connections


async def test_connection_that_is_still_being_opened_is_dropped_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    stage.network.silent.add(8000)
    client = await stage.ask(chat())
    client.lose()
    await settle()
    assert not stage.relay.pool._connecting
    assert (stage.record.failure, stage.in_flight) == (K.CLIENT_GONE, 0)
    assert 8001 not in stage.network.opened


@pytest.mark.parametrize("turns", range(4))
async def test_client_that_leaves_in_the_very_moment_leaves_no_connection(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = stage.client()
    client.feed(chat())
    for _ in range(turns):
        await asyncio.sleep(0)
    client.lose()
    await settle()
    assert all(engine.is_closing() for engine in stage.network.opened.get(8000, []))
    assert stage.in_flight == 0


async def test_mistake_of_our_own_with_a_new_connection_ends_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    stage.engine(1).written.clear()

    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("understudy.dataplane.resuming.post_bytes", fail)
    stage.engine(1).feed(answered({"prompt": "x"}, Connection="close"))
    await settle()
    assert [str(error) for error in stage.errors] == ["ours"]
    assert client.is_closing()
    assert (stage.record.failure, stage.in_flight) == (K.INTERNAL, 0)
    assert all(engine.is_closing() for engine in stage.network.opened[8001])


async def test_time_to_first_content_is_measured_from_the_request_not_from_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, *targets(1))
    stage.network.failing[8000] = ConnectionRefusedError()
    await stage.ask(chat())
    await stage.pass_time(3.0)
    del stage.network.failing[8000]
    await stage.pass_time(0.3)
    await stage.pass_time(1.0)
    await stage.say(0, stream_of("a"))
    assert stage.tally.of("gpu0").ttft_ewma_s == pytest.approx(1.2, abs=0.2)


@pytest.mark.parametrize("is_loaded", [False, True])
async def test_model_that_is_not_in_memory_is_known(monkeypatch: pytest.MonkeyPatch, is_loaded: bool) -> None:
    stage = Stage(monkeypatch, target(0, replace(UP, models=(Model("qwen", is_loaded=is_loaded),))))
    await stage.ask(chat())
    (running,) = stage.relay.running
    assert running.attempt is not None
    assert running.attempt.is_loaded is is_loaded


async def test_attempt_knows_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat())
    (running,) = stage.relay.running
    choice = Choice(stage.published.current.targets[0], "qwen")
    attempt = RunningAttempt(running, choice, AttemptRecord("gpu0"), 1.0)
    assert (attempt.name, attempt.engine, attempt.is_connecting) == ("gpu0", EngineKind.VLLM, False)
    attempt.drop()
    assert not stage.engine(0).is_closing()


async def test_further_connection_of_an_attempt_has_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    await stage.pass_time(3.0)
    stage.network.silent.add(8001)
    stage.engine(1).feed(answered(told(last_request(stage, 1)), Connection="close"))
    await stage.pass_time(1.5)
    assert 8002 not in stage.network.opened
    await stage.pass_time(1.0)
    await until_asked(stage, 2)
    await stage.say(2, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.CONNECT_TIMEOUT, None]


async def test_backend_that_closes_behind_every_answer_is_asked_over_new_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not say so, and each further question on its connection is lost."""
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    for _ in range(QUESTIONS_MAX):
        request = last_request(stage, 1)
        if not request.is_question:
            break
        engine = stage.engine(1)
        engine.written.clear()
        engine.feed(answered(told(request)))
        await settle()
        if stage.engine(1) is engine and engine.written:
            engine.lose(ConnectionResetError())
            await settle()
    await stage.say(1, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert len(stage.network.opened[8001]) < QUESTIONS_MAX


# --- a second one


async def test_late_backend_gets_a_rival_and_the_first_content_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(0.4)
    assert 8001 not in stage.network.opened
    await stage.pass_time(0.8)
    assert stage.engine(1).data.startswith(b"POST /v1/chat/completions ")
    assert stage.in_flight == 2
    await stage.say(1, stream_of("a"))
    assert dechunk(client.data)[1:] == (OPENING + delta("a") + FINISH + DONE, True)
    assert b"X-Understudy-Backend: gpu1\r\nX-Understudy-Attempts: 2\r\n" in client.data
    assert stage.engine(0).is_aborted
    assert kinds(stage) == [K.HEDGE_LOST, None]
    assert stage.in_flight == 0
    assert stage.tally.of("gpu0").failures_total == 0


async def test_late_backend_that_answers_first_after_all_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[2]
    assert stage.engine(1).is_aborted
    assert kinds(stage) == [None, K.HEDGE_LOST]
    assert stage.record.backend == "gpu0"
    assert stage.in_flight == 0


async def test_signs_of_life_of_both_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    await stage.say(0, stream_head() + chunk(OPENING))
    await stage.say(1, stream_head() + chunk(OPENING))
    assert client.data == b""
    await stage.say(0, chunk(delta("a")))
    stage.engine(1).feed(chunk(delta("b")))
    await stage.say(0, chunk(FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[1:] == (OPENING + delta("a") + FINISH + DONE, True)


@pytest.mark.parametrize("loser", [0, 1])
async def test_one_of_two_may_fail(monkeypatch: pytest.MonkeyPatch, loser: int) -> None:
    stage = hedging(monkeypatch, 3)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    stage.engine(loser).lose(ConnectionResetError())
    await settle()
    assert 8002 not in stage.network.opened
    assert client.data == b""
    await stage.say(1 - loser, stream_of("a"))
    assert dechunk(client.data)[2]
    assert sorted(kinds(stage), key=str) == [None, K.LOST_BEFORE_HEAD]
    assert stage.in_flight == 0


async def test_when_both_fail_it_goes_on_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch, 3)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    for number in (0, 1):
        await stage.say(number, answered({"error": "x"}, 503))
    await stage.say(2, stream_of("a"))
    assert dechunk(client.data)[2]
    assert b"X-Understudy-Attempts: 3\r\n" in client.data
    assert (len(kinds(stage)), stage.in_flight) == (3, 0)


async def test_rival_that_cannot_be_reached_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    stage.network.failing[8001] = ConnectionRefusedError()
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[2]
    assert kinds(stage) == [None, K.REFUSED]


async def test_rival_on_a_stale_connection_is_repeated_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch, 3)
    stage.publish(target(1))
    await stage.ask(chat())
    await stage.say(1, stream_of("a"))
    stage.publish(*targets(3))
    for _ in range(30):
        stage.tally.of("gpu0").pace.add(60, USUAL_S)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    assert len(stage.network.opened[8001]) == 1
    await stage.say(0, answered({"error": "x"}, 500))
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    assert [len(stage.network.opened.get(port, [])) for port in (8000, 8001)] == [1, 2]
    await stage.say(1, stream_of("a"))
    assert dechunk(client.data)[2]


async def test_client_that_leaves_stops_both(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    client.lose(ConnectionResetError())
    assert [stage.engine(number).is_aborted for number in (0, 1)] == [True, True]
    assert (stage.in_flight, kinds(stage)) == (0, [K.CLIENT_GONE, K.CLIENT_GONE])


async def test_answer_of_the_rival_that_breaks_goes_on_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), failover=HEDGED)
    for _ in range(30):
        stage.tally.of("gpu0").pace.add(60, USUAL_S)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    await stage.say(1, BEGUN)
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    await until_asked(stage, 0)
    await stage.say(0, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.HEDGE_LOST, K.BODY_CUT, None]
    assert stage.in_flight == 0


async def test_whole_answer_of_one_of_two_ends_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat(stream=False))
    await stage.pass_time(1.2)
    await stage.say(1, answered({"choices": []}))
    assert client.data.endswith(b'{"choices": []}')
    assert stage.engine(0).is_aborted
    assert (stage.in_flight, kinds(stage)) == (0, [K.HEDGE_LOST, None])


async def test_clients_own_fault_is_told_by_whoever_finds_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    client = await stage.ask(chat())
    await stage.pass_time(1.2)
    await stage.say(1, answered({"error": {"message": "yours"}}, 400))
    assert client.data.startswith(b"HTTP/1.1 400 ")
    assert stage.engine(0).is_aborted
    assert (stage.in_flight, kinds(stage)) == (0, [K.HEDGE_LOST, None])


async def test_of_two_answers_that_are_put_together_the_first_content_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), failover=HEDGED)
    for _ in range(30):
        stage.tally.of("gpu0").pace.add(60, USUAL_S)
    client = await stage.ask(chat(stream=False, messages=[{"role": "user", "content": "x"}]))
    await stage.pass_time(1.2)
    usage = sse({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}})
    await stage.say(1, stream_head() + chunk(delta("Hel")))
    assert stage.engine(0).is_aborted
    assert client.data == b""
    await stage.say(1, chunk(delta("lo") + FINISH + usage + DONE) + LAST_CHUNK)
    assert b'"content":"Hello"' in client.data
    assert (stage.in_flight, kinds(stage)) == (0, [K.HEDGE_LOST, None])


async def test_rivals_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    while stage.relay.budget.try_spend(stage.clock.now_s):
        pass
    await stage.ask(chat())
    await stage.pass_time(1.2)
    assert 8001 not in stage.network.opened


async def test_rivals_are_a_share_of_the_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = hedging(monkeypatch)
    for _ in range(40):
        await stage.ask(chat())
    await stage.pass_time(1.2)
    assert len(stage.network.opened[8000]) == 40
    assert 3 <= len(stage.network.opened[8001]) <= 3 + 40 * 0.2


@pytest.mark.parametrize("reason", ["off", "unmeasured", "large", "alone", "begun"])
async def test_no_rival(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    if reason == "off":
        stage = Stage(monkeypatch, *targets(2))
        for _ in range(30):
            stage.tally.of("gpu0").pace.add(60, USUAL_S)
    else:
        stage = hedging(monkeypatch, 1 if reason == "alone" else 2, samples=19 if reason == "unmeasured" else 30)
    padding = "x" * (HEDGED_BYTES_MAX if reason == "large" else 1)
    await stage.ask(chat(user=padding))
    if reason == "begun":
        await stage.say(0, BEGUN)
    await stage.pass_time(1.2)
    assert 8001 not in stage.network.opened
    assert stage.in_flight == 1
