"""Plays of how exchanges end for their client: errors in its dialect, before and inside an answer."""

import json
from dataclasses import replace
from typing import Any

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, line, sse, stream_head
from support.continuing import BEGUN, answered, broken, events_of, last_request, llamas
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request
from support.targets import UP, target, targets
from support.transports import MemoryTransport, settle
from understudy.core.snapshot import EngineKind, FailoverRules, ResumeRule, Timeouts
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind

K = FailureKind
MESSAGES = [{"role": "user", "content": "x"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
OFF = FailoverRules(resume=ResumeRule.OFF)
OLLAMA_ASK = request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}')
ANTHROPIC_ASK = request("POST", "/v1/messages", b'{"model": "qwen", "stream": true, "max_tokens": 9, "messages": []}')


def whole(client: MemoryTransport) -> tuple[int, Any]:
    """Return status and JSON of a whole answer."""
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert client.data.count(b"HTTP/1.1 ") == 1
    return int(head.split(b" ")[1]), json.loads(body)


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


# --- errors before an answer


@pytest.mark.parametrize(
    ("ask", "path"), [(chat(), ("error", "message")), (OLLAMA_ASK, ("error",)), (ANTHROPIC_ASK, ("error", "message"))]
)
async def test_error_has_the_shape_of_its_dialect(monkeypatch: pytest.MonkeyPatch, ask: bytes, path: tuple[str, ...]) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(ask)
    await stage.say(0, answered({}, 500))
    status, error = whole(client)
    for key in path:
        error = error[key]
    assert (status, error) == (502, "the attempt failed: gpu0 answered with a server error (500)")
    assert b"X-Understudy-Backend: gpu0\r\nX-Understudy-Attempts: 1\r\nX-Request-ID: play-" in client.data
    assert not client.is_closing()


@pytest.mark.parametrize(("retry_after", "told"), [("7", b"7"), ("0", b"1")])
async def test_client_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch, retry_after: str, told: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=FailoverRules(hold_s=0.0))
    client = await stage.ask(chat())
    await stage.say(0, answered({}, 429, Retry_After=retry_after))
    assert client.data.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: %b\r\n" % told in client.data


async def test_engines_own_words_are_passed_on_where_they_say_it_best(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, answered({"error": {"message": "first"}}, 404))
    await stage.say(1, answered({"error": {"message": "second"}}, 404))
    assert whole(client) == (404, {"error": {"message": "second"}})


# --- errors inside an answer


async def test_stream_of_events_ends_with_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=OFF)
    client = await broken(stage)
    error = events_of(dechunk(client.data)[1])[-1]["error"]
    assert (error["code"], error["type"]) == ("stream_interrupted", "server_error")
    assert error["message"] == ("the answer broke off: gpu0 broke off in the middle of its answer; continuing is turned off")
    assert client.is_closing()


async def test_stream_of_lines_ends_with_an_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=OFF)
    client = await stage.ask(OLLAMA_ASK)
    await stage.say(0, stream_head(NDJSON) + chunk(line({"response": "Hel", "done": False})))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    _, body, is_whole = dechunk(client.data)
    assert "gpu0 broke off" in json.loads(body.splitlines()[-1])["error"]
    assert (is_whole, client.is_closing(), b'"done": true' in body) == (False, True, False)


async def test_stream_of_anthropic_ends_with_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=OFF)
    client = await stage.ask(ANTHROPIC_ASK)
    start = b'event: message_start\ndata: {"type": "message_start", "message": {}}\n\n'
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}
    await stage.say(0, stream_head() + chunk(start + b"event: content_block_delta\n" + sse(piece)))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    _, body, is_whole = dechunk(client.data)
    last = body.rstrip(b"\n").rpartition(b"\n\n")[2]
    assert last.startswith(b"event: error\n")
    assert json.loads(last.partition(b"data: ")[2])["type"] == "error"
    assert (is_whole, client.is_closing()) == (False, True)


async def test_body_that_is_no_stream_is_cut_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("GET", "/v1/files/1"))
    await stage.say(0, stream_head("a/b") + chunk(b"half"))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert client.is_aborted
    assert client.data.endswith(chunk(b"half"))


async def test_answer_that_was_whole_but_for_the_end_of_its_body_is_no_failure_at_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN + chunk(FINISH + DONE))
    stage.relay.stop()
    await settle()
    assert dechunk(client.data)[1:] == (OPENING + delta("Hel") + FINISH + DONE, True)
    assert stage.record.failure is None
    assert stage.in_flight == 0


async def test_error_behind_an_early_head_names_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(keepalive_s=1.0, first_token_s=5.0))
    client = await stage.ask(chat())
    await stage.pass_time(5.6)
    error = events_of(dechunk(client.data)[1])[-1]["error"]
    assert (error["code"], error["message"]) == ("first_token_timeout", "the attempt failed: gpu0 sent no content in time")
    assert client.is_closing()
    assert stage.record.not_resumed is None


async def test_error_that_is_told_behind_an_early_head_says_what_the_engine_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(keepalive_s=1.0))
    client = await stage.ask(chat())
    await stage.pass_time(1.6)
    await stage.say(0, answered({"error": {"message": "too many tokens"}}, 400))
    error = events_of(dechunk(client.data)[1])[-1]["error"]
    assert (error["code"], error["message"]) == ("rejected", "gpu0 answered 400: too many tokens")
    assert stage.engine(0).is_closing()


async def test_refusal_of_a_broken_answer_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1), failover=OFF)
    await broken(stage)
    assert (stage.record.not_resumed, stage.record.status, stage.record.failure) == (Refusal.TURNED_OFF, 200, K.BODY_CUT)


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_repetition_that_ollama_stopped_is_not_carried_on(monkeypatch: pytest.MonkeyPatch, is_stopped: bool) -> None:
    """It ends the stream cleanly and without a finish; a stream that breaks is another thing."""
    ollama = replace(UP, engine=EngineKind.OLLAMA)
    stage = Stage(monkeypatch, target(0, ollama), target(1, ollama))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN + b"".join(chunk(delta(" a")) for _ in range(30)) + (LAST_CHUNK if is_stopped else b""))
    if is_stopped:
        assert b"endless repetition" in client.data
        assert stage.record.not_resumed is Refusal.REPEATING
    else:
        stage.engine(0).lose(ConnectionResetError())
        await settle()
        assert last_request(stage, 1).is_question
