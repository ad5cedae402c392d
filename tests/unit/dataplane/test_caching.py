"""Plays of answers that are kept on their way to the client, and of exact repeats that are answered from what was kept."""

import json
from typing import Any

import pytest

from support.answers import LAST_CHUNK
from support.caching_play import EVENTS, SIZE_BYTES, STREAM, WHOLE, CachingPlay, body_of, fixed, playing
from support.stage import DONE, FINISH, OPENING, chat, dechunk, delta, request
from understudy.core.commands import Abort
from understudy.core.record import AttemptRecord
from understudy.core.snapshot import CacheWhen
from understudy.dataplane import caching
from understudy.dataplane.outlet import COPY_BYTES_MAX, Outlet
from understudy.dataplane.relayed import RelayedExchange
from understudy.dialects.contract import StreamKind
from understudy.errors import MEANING, FailureKind

K = FailureKind
NONE_USABLE = Abort(K.NONE_USABLE, 503, 1.0)


# --- always


async def test_exact_repeat_is_answered_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), OPENING, delta("Hel") + delta("lo"), FINISH + DONE, fields=STREAM | {"Server": "vllm", "X-A": "1"})
    play.stage.clock.now_s += 12.9
    assert play.knows(fixed())
    assert dechunk(play.clients[0].data)[1:] == (EVENTS, True)
    assert body_of(play.clients[1]) == EVENTS
    assert play.head == {
        "content-type": "text/event-stream",
        "server": "vllm",
        "x-a": "1",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "x-understudy-cache": "hit",
        "age": "12",
        "x-understudy-backend": "gpu0",
        "x-understudy-attempts": "0",
        "x-request-id": "id-2",
        "content-length": str(len(EVENTS)),
    }
    assert not play.clients[1].is_closing()


async def test_record_tells_that_nobody_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed())
    assert play.knows(fixed())
    first, second = play.stage.records
    assert (first.cached, second.cached, second.attempts) == ("", "hit", [])
    assert (second.status, second.failure, second.backend, second.sent_bytes) == (200, None, "gpu0", len(EVENTS))
    assert not play.stage.relay.running


async def test_whole_answer_is_kept_with_its_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(stream=False), fields=WHOLE, kind=None, whole=b"{}", has_body=True)
    assert play.knows(fixed(stream=False))
    assert body_of(play.clients[-1]) == b"{}"
    assert (play.head["content-type"], "cache-control" in play.head) == ("application/json", False)


async def test_answer_that_was_put_together_here_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), fields={}, kind=None, whole=b"{}", lines=b"Content-Type: application/json\r\n")
    assert play.knows(fixed())
    assert (body_of(play.clients[-1]), play.head["content-type"]) == (b"{}", "application/json")


async def test_long_answer_is_written_as_the_bytes_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    piece = delta("x" * 2 * COPY_BYTES_MAX)
    play.learn(fixed(), piece, DONE)
    assert play.knows(fixed())
    assert play.clients[-1].written[-1] == piece + DONE


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", (), None),
        ("1.1", ("Connection: close",), "close"),
        ("1.0", (), "close"),
        ("1.0", ("Connection: keep-alive",), "keep-alive"),
    ],
)
async def test_head_tells_whether_the_connection_stays(
    monkeypatch: pytest.MonkeyPatch, version: str, fields: tuple[str, ...], expected: str | None
) -> None:
    play = playing(monkeypatch)
    play.learn(fixed())
    assert play.knows(fixed(*fields, version=version))
    assert (play.head.get("connection"), play.head["content-length"]) == (expected, str(len(EVENTS)))
    assert play.clients[-1].is_closing() == (expected == "close")


async def test_client_that_reads_no_answers_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch, size_bytes=8 * SIZE_BYTES)
    play.learn(fixed(), *[delta("x" * 200_000)] * 2)
    exchange = play.exchange(fixed())
    play.clients[-1].is_stuck = True
    assert caching.send_known(exchange, play.answers)
    assert play.clients[-1].is_paused
    play.clients[-1].drain()
    assert not play.clients[-1].is_paused


async def test_field_for_the_first_client_alone_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), fields=STREAM | {"Set-Cookie": "lb=7"})
    assert b"Set-Cookie" in play.clients[-1].data
    assert play.knows(fixed())
    assert b"set-cookie" not in play.clients[-1].data.lower()


async def test_backends_own_word_on_caching_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), fields=STREAM | {"Cache-Control": "no-store", "X-Accel-Buffering": "yes"})
    assert play.knows(fixed())
    assert (play.head["cache-control"], play.head["x-accel-buffering"]) == ("no-store", "yes")


async def test_comments_are_no_part_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    exchange, _ = play.ask(fixed())
    exchange.outlet.open_early(exchange)
    exchange.outlet.write_comment()
    attempt = play.say(exchange, OPENING, delta("Hello"))
    exchange.outlet.write_comment()
    exchange.outlet.write(FINISH + DONE)
    play.finish(exchange, attempt)
    assert dechunk(play.clients[0].data)[1].count(b":\n\n") == 2
    assert play.knows(fixed())
    assert body_of(play.clients[1]) == OPENING + delta("Hello") + FINISH + DONE
    assert play.head["content-type"] == "text/event-stream"


# --- what is no exact repeat


@pytest.mark.parametrize(
    "other",
    [
        fixed(model="other"),
        fixed(stream=False),
        fixed("Authorization: Bearer b"),
        fixed("Authorization: Basic YTpi"),
        fixed("X-API-Key: b"),
        fixed("Cookie: session=b"),
        fixed("OpenAI-Project: b"),
        fixed("Accept: text/plain"),
        fixed().replace(b"/v1/chat/completions", b"/v1/chat/completions?a=b"),
        fixed().replace(b"/v1/chat/completions", b"/v1/completions"),
        chat(seed=7),
    ],
)
async def test_other_question_or_client_gets_an_answer_of_its_own(monkeypatch: pytest.MonkeyPatch, other: bytes) -> None:
    play = playing(monkeypatch)
    play.learn(fixed())
    assert not play.knows(other)
    play.learn(other)
    assert play.knows(other)


@pytest.mark.parametrize("field", ["User-Agent: other", "traceparent: 00-1-2-01", "X-Request-ID: mine", "X-Session-ID: s"])
async def test_fields_that_change_no_answer_make_no_other_question(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    play = playing(monkeypatch)
    play.learn(fixed("Authorization: Bearer a"))
    assert play.knows(fixed(field, "authorization:  Bearer a"))


async def test_answer_that_depends_on_chance_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    exchange, _ = play.ask(chat())
    assert type(exchange.outlet) is Outlet
    play.finish(exchange, play.say(exchange, EVENTS))
    assert not play.knows(chat())


async def test_client_that_wants_a_new_answer_has_it_kept_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed())
    play.learn(fixed("Cache-Control: no-cache"), delta("new") + DONE)
    assert play.knows(fixed())
    assert body_of(play.clients[-1]) == delta("new") + DONE


async def test_client_that_wants_no_traces_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed("Cache-Control: no-cache, no-store"))
    assert not play.knows(fixed())


async def test_old_answer_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch, ttl_s=60.0)
    play.learn(fixed())
    play.stage.clock.now_s += 60.0
    assert not play.knows(fixed())


# --- what is not kept


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 201},
        {"status": 400, "fields": WHOLE, "kind": None},
        {"fields": STREAM | {"Content-Encoding": "gzip"}, "kind": None},
        {"fields": STREAM | {"Age": "7"}},
        {"fields": STREAM | {"X-Understudy-Cache": "stale"}},
        {"fields": {"Content-Type": "application/json"}, "kind": None},
    ],
    ids=["created", "an error", "compressed", "with an age", "another cache's", "maybe cut"],
)
async def test_answer_that_is_no_whole_success_is_not_kept(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), b"{}", **answer)
    assert not play.knows(fixed())
    assert play.answers._recorded_bytes == 0


async def test_empty_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    play.learn(fixed(), b"", fields=WHOLE | {"Content-Length": "0"}, kind=None, whole=b"")
    assert not play.knows(fixed())


async def test_answer_that_broke_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    exchange, _ = play.ask(fixed())
    play.say(exchange, OPENING, delta("Hel"))
    exchange.outlet.write_last(b"data: {}\n\n")
    caching.let_go(exchange)
    exchange.close_record()
    assert (len(play.answers), play.answers._recorded_bytes) == (0, 0)


async def test_answer_that_was_continued_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch)
    exchange, _ = play.ask(fixed())
    attempt = play.say(exchange, EVENTS)
    attempt.is_resume = True
    play.finish(exchange, attempt)
    assert (len(play.answers), play.answers._recorded_bytes) == (0, 0)


async def test_large_answer_passes_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch, size_bytes=8 * 4096)
    exchange, _ = play.ask(fixed())
    attempt = play.say(exchange, *[delta("x" * 1000)] * 5)
    assert play.answers._recorded_bytes == 0
    play.finish(exchange, attempt)
    assert len(dechunk(play.clients[0].data)[1]) > 5000
    assert len(play.answers) == 0


async def test_answers_that_come_in_at_once_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    play = playing(monkeypatch, size_bytes=8 * 4096)
    running = [play.ask(fixed(user=str(i)))[0] for i in range(4)]
    attempts = [play.say(exchange, delta("x" * 3000)) for exchange in running]
    assert play.answers._recorded_bytes <= 8 * 1024
    for exchange, attempt in zip(running, attempts, strict=True):
        play.finish(exchange, attempt)
    assert (len(play.answers), play.answers._recorded_bytes) == (2, 0)


# --- when no backend can answer


def failing(play: CachingPlay, raw: bytes, command: Abort = NONE_USABLE, *, failed: int = 1) -> tuple[RelayedExchange, bool]:
    """Let a request come to that end; whether it was answered all the same."""
    exchange, was_answered = play.ask(raw)
    assert not was_answered
    for _ in range(failed):
        record = AttemptRecord("gpu1")
        record.failure = K.REFUSED
        exchange.record.attempts.append(record)
        exchange.exchange.attempts += 1
    return exchange, caching.send_stale(exchange, command)


def no_backend(monkeypatch: pytest.MonkeyPatch) -> CachingPlay:
    """Make a play in which only one who gets nothing else is answered from what is kept."""
    return playing(monkeypatch, when=CacheWhen.NO_BACKEND)


async def test_repeat_asks_a_backend_as_long_as_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    play.learn(fixed(), delta("new") + DONE)
    assert failing(play, fixed())[1]
    assert body_of(play.clients[-1]) == delta("new") + DONE


async def test_kept_answer_stands_in_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    play.stage.clock.now_s += 30.0
    exchange, was_answered = failing(play, fixed())
    assert was_answered
    assert play.clients[-1].data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body_of(play.clients[-1]) == EVENTS
    told = {name: value for name, value in play.head.items() if name.startswith("x-understudy") or name == "age"}
    assert told == {"x-understudy-cache": "stale", "age": "30", "x-understudy-backend": "gpu0", "x-understudy-attempts": "1"}
    record = exchange.record
    assert (record.cached, record.status, record.failure, record.backend) == ("stale", 200, None, "gpu0")
    assert [attempt.failure for attempt in record.attempts] == [K.REFUSED]
    assert (len(play.answers), play.answers._recorded_bytes) == (1, 0)


@pytest.mark.parametrize("when", list(CacheWhen))
@pytest.mark.parametrize("kind", [K.NO_ROOM, K.BUSY, K.SERVER_ERROR, K.FIRST_TOKEN_TIMEOUT, K.TOTAL_TIMEOUT, K.STALLED])
async def test_every_failure_of_the_backends_can_be_answered(
    monkeypatch: pytest.MonkeyPatch, kind: FailureKind, when: CacheWhen
) -> None:
    play = playing(monkeypatch, when=when)
    exchange, _ = play.ask(fixed())
    play.learn(fixed())
    assert caching.send_stale(exchange, Abort(kind, 429 if kind is K.BUSY else MEANING[kind].status))


@pytest.mark.parametrize(
    "command",
    [
        Abort(K.MODEL_UNKNOWN, 404),
        Abort(K.MODEL_MISSING, 404, is_passed_on=True),
        Abort(K.UNSUPPORTED, 501, is_passed_on=True),
        Abort(K.INTERNAL, 500),
        Abort(K.STOPPING, 503),
    ],
)
async def test_what_no_backend_is_to_blame_for_is_told(monkeypatch: pytest.MonkeyPatch, command: Abort) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    exchange, was_answered = failing(play, fixed(), command)
    assert not was_answered
    assert exchange.is_running


async def test_nothing_is_answered_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    assert not failing(play, fixed(user="other"))[1]
    assert not failing(play, chat())[1]
    assert not failing(play, fixed("Cache-Control: no-cache"))[1]
    play.stage.clock.now_s += 60.0
    assert not failing(play, fixed())[1]


async def test_answer_that_the_client_has_a_part_of_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    exchange, _ = play.ask(fixed())
    play.say(exchange, OPENING, delta("Hel"))
    exchange.is_committed = True
    assert not caching.send_stale(exchange, Abort(K.BODY_CUT, 502))


async def test_client_that_was_let_wait_gets_the_events_behind_its_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed())
    exchange, _ = play.ask(fixed())
    exchange.outlet.open_early(exchange)
    exchange.outlet.write_comment()
    play.stage.clock.now_s += 5.0
    assert caching.send_stale(exchange, NONE_USABLE)
    body, is_whole = dechunk(play.clients[-1].data)[1:]
    assert (body, is_whole) == (b":\n\n: understudy cache stale, age 5\n\n" + EVENTS, True)
    assert play.clients[-1].data.endswith(LAST_CHUNK)
    assert (exchange.record.cached, exchange.record.status, exchange.is_running) == ("stale", 200, False)


async def test_whole_answer_does_not_follow_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    play.learn(fixed(), fields=WHOLE, kind=None, whole=b"{}")
    exchange, _ = play.ask(fixed())
    exchange.outlet.open_early(exchange)
    assert not caching.send_stale(exchange, NONE_USABLE)


async def test_ollamas_lines_are_kept_as_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    play = no_backend(monkeypatch)
    body = {"model": "qwen", "prompt": "x", "options": {"seed": 7}}
    ask = request("POST", "/api/generate", json.dumps(body).encode())
    lines = b'{"response":"a","done":false}\n{"response":"","done":true}\n'
    play.learn(ask, lines, fields={"Content-Type": "application/x-ndjson"}, kind=StreamKind.NDJSON)
    assert failing(play, ask)[1]
    assert (body_of(play.clients[-1]), play.head["content-type"]) == (lines, "application/x-ndjson")
