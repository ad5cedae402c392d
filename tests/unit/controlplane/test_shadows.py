"""Plays of shadows over real sockets: measured, compared, dropped; and a green that does everything wrong."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from support.answers import SSE, begun_stream, chunk, head_bytes, whole
from support.faults import AFTER_CONTENT, BEFORE_CONTENT, NOTHING_YET, SILENCE
from support.personas import openai_chat_events, openai_event, tell
from support.scripted import ScriptedEngine
from support.steps import Answer, Gate, answer, close, hang, hold, repeat, send
from support.targets import CHAT_PATH, UP, target
from understudy.controlplane.shadow_answer import ShadowAnswer
from understudy.controlplane.shadows import Shadow, Shadows, _rest_s, _Run
from understudy.core.ask import DialectName
from understudy.core.color import Color, Prompt, RolloutRules
from understudy.core.shadowing import ShadowAsk
from understudy.core.snapshot import Address, EngineKind, Model, Published, RoutingPlan, RoutingSnapshot, Target, Timeouts
from understudy.core.tally import Tally
from understudy.dialects import match
from understudy.telemetry.shadow_counts import ShadowCounts

WORDS = "good evening from green"
BODY = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"a secret prompt"}]}'
ASKED = ShadowAsk(Color.GREEN, CHAT_PATH, BODY, "tiny", DialectName.OPENAI, is_streaming=True, request_id=b"id-1")
PATIENT = Timeouts()
HASTY = Timeouts(first_token_s=0.15, stall_s=0.15)


class Play:
    """Shadows over a plan of one green engine, and what they told."""

    def __init__(self, *targets: Target, places: int = 4, total_s_max: float = 60.0) -> None:
        rules = RolloutRules(is_on=True, shadow=1.0, shadow_in_flight_max=places, green=Prompt("Be brief."))
        plan = RoutingPlan(tuple(one.backend for one in targets), rollout=rules)
        self.published = Published(RoutingSnapshot(1, plan, targets))
        self.tally = Tally()
        self.told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.counts = ShadowCounts()
        self.shadows = Shadows(
            self.published,
            self.tally,
            self.counts,
            clock=time.monotonic,
            tell=lambda event, fields: self.told.put_nowait((event, fields)),
            total_s_max=total_s_max,
        )

    def begin(self, asked: ShadowAsk = ASKED) -> Shadow:
        shadow = self.shadows.begin(asked)
        assert shadow is not None
        return shadow

    async def finished(self) -> dict[str, Any]:
        """Return the fields of the next event."""
        event, fields = await self.told.get()
        assert event == "shadow.finished"
        return fields

    def has_counted(self, name: str) -> bool:
        """Whether anything stands in the tally of a backend."""
        one = self.tally.of(name)
        return bool(one.in_flight or one.attempts_total or one.failures_total or one.ejected_until_s or one.last_success_at_s)


def green(port: int, timeouts: Timeouts = PATIENT, **more: object) -> Target:
    one = target(1, replace(UP, models=(Model("tiny"),)))
    address = Address("http", "127.0.0.1", port)
    return replace(one, backend=replace(one.backend, address=address, color=Color.GREEN, timeouts=timeouts, **more))  # type: ignore[arg-type]  # a play's own fields


@contextlib.asynccontextmanager
async def played(
    *answers: Answer, timeouts: Timeouts = PATIENT, places: int = 4, total_s_max: float = 60.0
) -> AsyncIterator[tuple[Play, ScriptedEngine]]:
    """Play with one green engine that gives these answers; afterwards every shadow is gone."""
    with ScriptedEngine(say=WORDS) as engine:
        engine.then(*answers)
        play = Play(green(engine.port, timeouts), places=places, total_s_max=total_s_max)
        try:
            yield play, engine
        finally:
            await play.shadows.close()
        assert play.shadows.in_flight == 0
        assert not play.has_counted("gpu1")


# --- answered and compared


async def test_a_shadow_is_measured_compared_and_told_in_one_event() -> None:
    async with played() as (play, engine):
        play.begin().on_client_done(WORDS, 0.25, 1.5)
        fields = await play.finished()
        sent = engine.seen.requests[0]
    assert sent.header("x-request-id") == "id-1-shadow"
    assert sent.json()["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (fields["backend"], fields["color"], fields["outcome"], fields["status"]) == ("gpu1", "green", "answered", 200)
    assert (fields["likeness"], fields["client_ttft_s"], fields["client_duration_s"]) == (1.0, 0.25, 1.5)
    assert (fields["request_id"], fields["failure"], fields["characters"]) == ("id-1", None, len(WORDS))
    assert 0.0 <= fields["ttft_s"] <= fields["duration_s"]
    assert play.told.empty()


async def test_no_text_and_no_key_is_told() -> None:
    async with played() as (play, _):
        asked = replace(ASKED, fields=((b"authorization", b"Bearer theirs"),))
        play.begin(asked).on_client_done("what the client got", 0.25, 1.5)
        told = json.dumps([await play.finished(), play.shadows.facts()])
        assert not [word for word in ("secret", "evening", "client got", "theirs") if word in told]


async def test_the_comparison_waits_for_the_clients_answer_and_keeps_its_place_meanwhile() -> None:
    async with played(places=1) as (play, engine):
        shadow = play.begin()
        await asyncio.to_thread(engine.wait_for, lambda seen: seen.connections_total == 1 and seen.connections_open == 0)
        assert play.shadows.in_flight == 1
        assert play.shadows.begin(ASKED) is None
        shadow.on_client_done("good evening from blue", 0.1, 0.2)
        assert (await play.finished())["likeness"] == 0.75
        await play.shadows.close()


async def test_a_client_that_left_leaves_what_was_measured() -> None:
    gate = Gate()
    async with played(answer(hold(gate), *tell(CHAT_PATH, {"stream": True}, WORDS, engine="vllm").steps)) as (play, _):
        shadow = play.begin()
        shadow.on_client_left()
        gate.open()
        fields = await play.finished()
        assert (fields["outcome"], fields["characters"]) == ("answered", len(WORDS))
        assert (fields["likeness"], fields["client_ttft_s"], fields["client_duration_s"]) == (None, None, None)


@pytest.mark.parametrize("text", [None, ""])
async def test_what_cannot_be_compared_is_not(text: str | None) -> None:
    async with played() as (play, _):
        play.begin().on_client_done(text, 0.1, 0.2)
        assert (await play.finished())["likeness"] == (None if text is None else 0.0)


async def test_a_whole_answer_has_no_first_content_of_its_own() -> None:
    async with played() as (play, _):
        asked = replace(ASKED, body=BODY.replace(b"true", b"false"), is_streaming=False)
        play.begin(asked).on_client_done(WORDS, 0.1, 0.2)
        fields = await play.finished()
        assert (fields["outcome"], fields["likeness"], fields["ttft_s"], fields["speed"]) == ("answered", 1.0, None, None)


async def test_the_speed_is_that_of_the_text_after_its_first_content_and_rests_grow_with_the_time_since() -> None:
    route = match(b"POST", CHAT_PATH.encode())
    assert route.dialect is not None
    read = ShadowAnswer(route.dialect, CHAT_PATH, EngineKind.VLLM)
    read.characters = 100
    run = _Run(Shadow(), ASKED, green(1), route.dialect, read, until_at_s=99.0, began_at_s=10.0)
    assert (run.ttft_s, run.speed, _rest_s(run, 100)) == (None, None, 0.0)
    run.content_at_s = run.last_at_s = 12.0
    assert (run.ttft_s, run.speed, _rest_s(run, 100), _rest_s(run, 16384)) == (2.0, None, 0.01, 0.002)
    run.last_at_s = 14.0
    assert (run.ttft_s, run.speed, _rest_s(run, 100)) == (2.0, 50.0, 0.1)


async def test_a_status_tells_counts_and_means_of_the_inactive_color() -> None:
    async with played(whole(500, {"error": "no"})) as (play, _):
        for _ in range(2):
            play.begin().on_client_done(WORDS, 0.1, 0.2)
            await play.finished()
        facts = play.shadows.facts()
        assert {**facts, "ttft_mean_s": 0.0, "in_flight": 0} == {
            "share": 1.0,
            "in_flight": 0,
            "sent": 2,
            "answered": 1,
            "failed": 1,
            "dropped": 0,
            "likeness_mean": 1.0,
            "ttft_mean_s": 0.0,
        }


# --- a green that is none


# aiohttp reads the last two of these as an answer.
ELSEWHERE = ("huge head", "endless head", "endless interim answers", "bare LF in the head", "folded field")


@pytest.mark.parametrize("name", [name for name in BEFORE_CONTENT if name not in ELSEWHERE])
async def test_a_failure_before_the_first_content_is_told_as_one(name: str) -> None:
    async with played(BEFORE_CONTENT[name](), timeouts=HASTY) as (play, _):
        play.begin()
        fields = await play.finished()
        assert fields["outcome"] in ("failed", "hung"), fields
        assert fields["ttft_s"] is None


ENDINGS = {
    "reset": "body_cut",
    "closed without the last chunk": "body_cut",
    "clean end without a finish": "unfinished",
    "finish without [DONE]": "unfinished",
    "malformed chunk": "body_cut",
    "cut inside an event": "body_cut",
    "cut inside a chunk header": "body_cut",
    "silence": "stalled",
    "comments only": "stalled",
}


@pytest.mark.parametrize("name", AFTER_CONTENT)
async def test_a_failure_after_the_first_content_is_told_with_what_was_measured(name: str) -> None:
    async with played(AFTER_CONTENT[name](), timeouts=Timeouts(stall_s=0.15)) as (play, _):
        play.begin()
        fields = await play.finished()
        # What comes in one piece with the head spoils it; and a reset may overtake what came before it.
        is_early = name in ("malformed chunk", "reset") and fields["ttft_s"] is None
        assert is_early or fields["ttft_s"] is not None
        assert is_early or fields["failure"] == ENDINGS[name]
        assert fields["outcome"] == ("hung" if ENDINGS[name] == "stalled" else "failed")


@pytest.mark.parametrize("name", SILENCE)
async def test_silence_ends_with_the_time_for_the_first_content(name: str) -> None:
    async with played(SILENCE[name](), timeouts=HASTY) as (play, _):
        play.begin()
        fields = await play.finished()
        assert (fields["outcome"], fields["failure"]) == ("hung", "first_token_timeout"), NOTHING_YET


async def test_a_green_that_drips_for_ever_ends_with_the_time_for_all_of_it() -> None:
    drip = repeat(chunk(openai_event({"content": "more "})), gap_s=0.01)
    async with played(begun_stream([], drip), total_s_max=0.3) as (play, _):
        play.begin()
        fields = await play.finished()
        assert (fields["outcome"], fields["failure"]) == ("hung", "total_timeout")


async def test_a_client_that_is_never_done_does_not_keep_a_place_for_ever() -> None:
    async with played(total_s_max=0.2) as (play, _):
        play.begin()
        fields = await play.finished()
        assert (fields["outcome"], fields["likeness"]) == ("answered", None)


def received_until_reset(peer: socket.socket) -> int:
    """Read as a server that has taken its time; return how many bytes came before the reset."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := peer.recv(1 << 20):
            count += len(data)
        pytest.fail("the connection ended in order, after all that was to be sent")
    return count


async def test_a_request_that_is_not_even_read_ends_in_time_and_its_connection_with_it() -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x" * 1_000_000}]}).encode()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        play = Play(green(listener.getsockname()[1], HASTY))
        play.begin(replace(ASKED, body=body))
        assert (await play.finished())["failure"] == "first_token_timeout"
        await play.shadows.close()
        peer, _ = listener.accept()
        with peer:
            assert await asyncio.to_thread(received_until_reset, peer) < len(body)


@pytest.mark.parametrize("content_type", [SSE, "application/json"])
async def test_a_huge_answer_is_let_go(content_type: str) -> None:
    head = head_bytes(200, {"Content-Type": content_type})
    async with played(answer(send(head), repeat(b"x" * 262_144, gap_s=0.0))) as (play, engine):
        play.begin()
        fields = await play.finished()
        assert (fields["outcome"], fields["failure"], fields["likeness"]) == ("too_large", None, None)
        await asyncio.to_thread(engine.wait_for, lambda seen: seen.connections_open == 0)


@pytest.mark.parametrize("name", ELSEWHERE[:3])
async def test_an_endless_head_ends_too(name: str) -> None:
    async with played(BEFORE_CONTENT[name](), timeouts=HASTY) as (play, _):
        play.begin()
        assert (await play.finished())["outcome"] in ("failed", "hung")


async def test_a_refusal_to_answer_is_a_failure_though_the_engine_is_well() -> None:
    async with played(whole(400, {"error": {"message": "a secret prompt is not liked"}})) as (play, _):
        play.begin()
        fields = await play.finished()
        assert (fields["outcome"], fields["status"], fields["failure"]) == ("failed", 400, None)
        assert "secret" not in json.dumps(fields)


async def test_a_green_that_is_not_there_is_a_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        play = Play(green(unused.getsockname()[1]))
        play.begin().on_client_done(WORDS, 0.1, 0.2)
        fields = await play.finished()
    assert (fields["outcome"], fields["failure"], fields["status"]) == ("failed", "refused", 0)
    await play.shadows.close()


# --- bounds


async def test_beyond_the_bound_shadows_are_dropped_and_never_queued() -> None:
    async with played(answer(hang()), answer(hang()), places=2) as (play, engine):
        begun = [play.shadows.begin(ASKED) for _ in range(5)]
        assert [one is not None for one in begun] == [True, True, False, False, False]
        await asyncio.to_thread(engine.wait_requests, 2)
        facts = play.shadows.facts()
        assert (facts["in_flight"], facts["sent"], facts["dropped"]) == (2, 2, 3)
        await play.shadows.close()
        assert len(engine.seen.requests) == 2


async def test_a_hanging_green_gives_its_places_back_when_its_time_is_up() -> None:
    async with played(answer(hang()), timeouts=Timeouts(first_token_s=0.5), places=1) as (play, _):
        play.begin()
        assert play.shadows.begin(ASKED) is None
        assert (await play.finished())["outcome"] == "hung"
        await asyncio.sleep(0)
        play.begin().on_client_left()
        assert (await play.finished())["outcome"] == "answered"


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, color=Color.BLUE),
        replace(ASKED, dialect=None, path="/v1/files"),
        replace(ASKED, body=b"x" * (1024 * 1024 + 1)),
    ],
)
async def test_what_no_backend_of_that_color_can_take_has_no_shadow(asked: ShadowAsk) -> None:
    async with played() as (play, engine):
        assert play.shadows.begin(asked) is None
        assert play.shadows.in_flight == 0
    assert not engine.seen.requests


async def test_a_backend_with_a_bound_takes_shadows_up_to_half_of_it() -> None:
    with ScriptedEngine() as engine:
        engine.always(answer(hang()))
        play = Play(green(engine.port, in_flight_max=4))
        assert [play.shadows.begin(ASKED) is not None for _ in range(3)] == [True, True, False]
        await play.shadows.close()


async def test_closing_cancels_every_shadow_and_begins_no_more() -> None:
    async with played(answer(hang()), begun_stream(openai_chat_events(WORDS)[:3], hang())) as (play, engine):
        play.begin()
        play.begin()
        await asyncio.to_thread(engine.wait_requests, 2)
        await play.shadows.close()
        assert play.shadows.in_flight == 0
        assert play.shadows.begin(ASKED) is None
        await asyncio.to_thread(engine.wait_for, lambda seen: seen.peers_left == 2)
        assert play.told.empty()


async def test_what_comes_after_the_end_is_not_kept() -> None:
    async with played(answer(close())) as (play, _):
        shadow = play.begin()
        await play.finished()
        shadow.on_client_done("text", 0.1, 0.2)
        shadow.on_client_left()
        assert shadow.client is None


async def test_the_first_word_about_the_client_counts() -> None:
    async with played() as (play, _):
        shadow = play.begin()
        shadow.on_client_left()
        shadow.on_client_done(WORDS, 0.1, 0.2)
        assert (await play.finished())["likeness"] is None


async def test_our_own_mistake_is_told_and_frees_the_place() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with played() as (play, _):
        play.begin(replace(ASKED, fields=((b"x-api-key",),)))  # type: ignore[arg-type]  # what no caller should hand over
        fields = await play.finished()
        assert (fields["outcome"], fields["failure"]) == ("failed", "internal")
    assert [type(one["exception"]) for one in complaints] == [ValueError]
