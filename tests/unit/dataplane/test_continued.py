"""Plays of an answer that goes on elsewhere: one stream for the client, whatever the backends do in the middle of it."""

import json

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, head_bytes, line, sse, stream_head
from support.continuing import (
    BEGUN,
    LLAMA,
    OLLAMA,
    answered,
    broken,
    events_of,
    llamas,
    seam,
    text_of,
    until_asked,
)
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import DOWN, UP, target
from support.transports import settle
from understudy.core.snapshot import BackendState, Timeouts
from understudy.core.transcript import Refusal
from understudy.dialects.splice import Splice
from understudy.errors import FailureKind

K = FailureKind
REST = stream_of("lo")
ERROR = sse({"error": {"message": "CUDA error"}})


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


@pytest.mark.parametrize("state", [UP, LLAMA], ids=["vllm", "llamacpp"])
@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (chunk(ERROR), K.ERROR_EVENT),
        (chunk(b'data: {"choices": [{"index": 0, "del\n\n' + FINISH + DONE) + LAST_CHUNK, K.EVENT_MALFORMED),
        (LAST_CHUNK, K.UNFINISHED),
        (chunk(b'data: {"choices": [{"del') + LAST_CHUNK, K.UNFINISHED),
        (b"x\r\n", K.BODY_MALFORMED),
        (b"", K.BODY_CUT),
        (chunk(b'data: {"choices": [{"del'), K.BODY_CUT),
        (chunk(delta("\U0001f600")[:-12]), K.BODY_CUT),
        (b"1", K.BODY_CUT),
    ],
)
async def test_stream_goes_on_elsewhere_whatever_broke_it(
    monkeypatch: pytest.MonkeyPatch, then: bytes, kind: FailureKind, state: BackendState
) -> None:
    stage = Stage(monkeypatch, *(target(number, state) for number in range(2)))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN, then)
    stage.engine(0).end()
    await settle()
    asked = await until_asked(stage, 1)
    assert asked.partial == "Hel"
    await stage.say(1, REST)
    head, body, is_whole = dechunk(client.data)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert is_whole
    assert body.startswith(OPENING + delta("Hel"))
    assert seam(1, 3) in body
    assert body.count(b"role") == 1
    assert (text_of(body), body.count(DONE)) == ("Hello", 1)
    assert body.endswith(DONE)
    assert not client.is_closing()
    assert kinds(stage) == [kind, None]
    assert (stage.record.failure, stage.record.resumed_on, stage.record.backend) == (None, ("gpu1",), "gpu0")
    assert stage.in_flight == 0
    assert not stage.errors


async def test_stream_that_falls_silent_goes_on_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), timeouts=Timeouts(stall_s=10.0))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    await stage.pass_time(10.6)
    assert stage.engine(0).is_aborted
    await until_asked(stage, 1)
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.STALLED, None]


async def test_content_that_came_with_the_error_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN, chunk(delta("l") + ERROR + delta("!")))
    assert (await until_asked(stage, 1)).partial == "Hell"
    await stage.say(1, stream_of("o"))
    assert text_of(dechunk(client.data)[1]) == "Hello"


async def test_several_breaks_leave_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    assert (await until_asked(stage, 1)).partial == "Hel"
    await stage.say(1, stream_head() + chunk(OPENING + delta("lo, ")))
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    # Who has not broken this answer comes first.
    assert (await until_asked(stage, 2)).partial == "Hello, "
    await stage.say(2, stream_head() + chunk(delta("wor")), chunk(ERROR))
    assert (await until_asked(stage, 0)).partial == "Hello, wor"
    await stage.say(0, stream_of("ld"))
    body = dechunk(client.data)[1]
    assert text_of(body) == "Hello, world"
    assert [mark in body for mark in (seam(1, 3), seam(2, 7), seam(0, 10))] == [True, True, True]
    assert (stage.record.resumed_on, kinds(stage)) == (("gpu1", "gpu2", "gpu0"), [K.BODY_CUT, K.BODY_CUT, K.ERROR_EVENT, None])
    assert stage.in_flight == 0


async def test_connection_that_went_stale_is_replaced_at_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    stage.publish(target(0, DOWN), target(1, LLAMA))
    await stage.ask(chat())
    await stage.say(1, REST)
    stage.publish(*llamas(2))
    client = await broken(stage)
    assert len(stage.network.opened[8001]) == 1
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    await until_asked(stage, 1)
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert [attempt.failure for attempt in stage.records[-1].attempts] == [K.BODY_CUT, None]
    assert stage.tally.of("gpu1").failures_total == 0
    assert stage.in_flight == 0


async def test_rest_may_come_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)
    wire = stream_head() + chunk(OPENING) + chunk(delta("l\u00f6")) + chunk(b": ping\n\n") + chunk(FINISH + DONE) + LAST_CHUNK
    for at in range(len(wire)):
        stage.engine(1).feed(wire[at : at + 1])
        body = dechunk(client.data)[1]
        assert body.endswith(b"\n\n")
    await settle()
    assert text_of(dechunk(client.data)[1]) == "Hell\u00f6"
    assert dechunk(client.data)[2]


async def test_bytes_behind_the_terminator_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta("lo") + FINISH + DONE + delta("!")) + chunk(delta("!")))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert dechunk(client.data)[2]
    # The rest of the body has not come, so this connection carries nothing else.
    assert stage.engine(1).is_closing()


@pytest.mark.parametrize("ends_with_reset", [True, False])
async def test_finish_without_its_terminator_is_an_end(monkeypatch: pytest.MonkeyPatch, ends_with_reset: bool) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta("lo") + FINISH))
    assert not dechunk(client.data)[2]
    stage.engine(1).lose(ConnectionResetError()) if ends_with_reset else stage.engine(1).feed(LAST_CHUNK)
    await settle()
    assert dechunk(client.data)[1].endswith(DONE)
    assert dechunk(client.data)[2]
    assert (stage.record.failure, stage.in_flight) == (None, 0)


@pytest.mark.parametrize(
    "wire",
    [
        stream_head() + chunk(OPENING) + LAST_CHUNK,
        stream_head() + chunk(ERROR) + LAST_CHUNK,
        stream_head() + chunk(b"data: {half\n\n") + LAST_CHUNK,
        answered({"error": {"message": "no memory"}}, 500),
        b"not http at all\r\n\r\n",
    ],
)
async def test_backends_that_go_on_with_nothing_are_asked_twice_and_no_more(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    """A request that kills its backends is not carried through all of them."""
    stage = Stage(monkeypatch, *llamas(4))
    client = await broken(stage)
    for number in (1, 2):
        await until_asked(stage, number)
        await stage.say(number, wire)
    _, body, is_whole = dechunk(client.data)
    assert not is_whole
    assert events_of(body)[-1]["error"]["code"] == "stream_interrupted"
    assert client.is_closing()
    assert 8003 not in stage.network.opened
    assert stage.in_flight == 0


NO_STREAMS = [
    answered({"choices": [{"message": {"content": "lo"}, "finish_reason": "stop"}]}),
    head_bytes(200, {"Content-Type": "text/event-stream", "Content-Length": "0"}),
    head_bytes(200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip", "Content-Length": "3"}) + b"abc",
    head_bytes(204),
]


@pytest.mark.parametrize("wire", NO_STREAMS)
async def test_answer_that_is_no_stream_of_events_is_no_continuation(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    for path in ("/v1/chat/completions", "/v1/completions"):
        # Neither way goes on here, so the next backend is asked.
        assert (await until_asked(stage, 1)).path == path
        await stage.say(1, wire)
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"


@pytest.mark.parametrize("status", [400, 422, 501])
async def test_way_that_is_refused_is_followed_by_another_way(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    assert (await until_asked(stage, 1)).path == "/v1/chat/completions"
    await stage.say(1, answered({"error": {"message": "Cannot continue"}}, status))
    asked = await until_asked(stage, 1)
    assert (asked.path, asked.body["prompt"]) == ("/v1/completions", "<assistant>Hel")
    text = sse({"choices": [{"index": 0, "text": "lo", "finish_reason": None}]})
    end = sse({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    await stage.say(1, stream_head() + chunk(text) + chunk(end + DONE) + LAST_CHUNK)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, None]
    assert stage.engine(1, 0).is_closing()


async def test_backend_without_the_model_is_not_asked_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, answered({"error": {"message": "model not found"}}, 404))
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.MODEL_MISSING, None]


async def test_backend_without_another_way_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    for _ in range(2):
        await until_asked(stage, 1)
        await stage.say(1, answered({"error": {"message": "Cannot continue"}}, 400))
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.RESUME_REFUSED, None]
    assert stage.tally.of("gpu1").failures_total == 0


async def test_answer_that_nobody_can_go_on_with_ends_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    for _ in range(2):
        await until_asked(stage, 1)
        await stage.say(1, answered({"error": {"message": "Cannot continue"}}, 400))
    await until_asked(stage, 0)
    for _ in range(2):
        await stage.pass_time(0.3)
        await until_asked(stage, 0)
        await stage.say(0, answered({"error": {"message": "Cannot continue"}}, 400))
    _, body, is_whole = dechunk(client.data)
    error = events_of(body)[-1]["error"]
    assert (error["code"], is_whole, DONE in body, client.is_closing()) == ("stream_interrupted", False, False, True)
    assert "no backend can continue a text of this model" in error["message"]
    assert stage.record.not_resumed is Refusal.NO_MEANS
    assert stage.in_flight == 0


async def test_busy_backend_is_not_asked_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, answered({"error": {"message": "busy"}}, 429, Retry_After="7"))
    assert stage.tally.of("gpu1").rest_until_s == stage.clock.now_s + 7.0
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"


async def test_client_is_told_the_usage_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, stream_options={"include_usage": True})
    await until_asked(stage, 1)
    usage = sse({"choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 2, "total_tokens": 15}})
    await stage.say(1, stream_head() + chunk(delta("l") + delta("o") + FINISH + usage + DONE) + LAST_CHUNK)
    usages = [event["usage"] for event in events_of(dechunk(client.data)[1]) if event.get("usage")]
    assert usages == [{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}]
    assert stage.record.prefilled_tokens == 13


def said(text: str, **more: object) -> bytes:
    """Write a line of /api/generate."""
    return line({"model": "qwen", "created_at": "t", "response": text, "done": False, **more})


async def test_lines_of_ollama_go_on_without_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, OLLAMA), target(1, OLLAMA))
    client = await stage.ask(request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}'))
    await stage.say(0, stream_head(NDJSON) + chunk(said("Hel")) + chunk(b'{"model": "q'))
    stage.engine(0).end()
    await settle()
    asked = await until_asked(stage, 1)
    assert (asked.path, asked.body["prompt"], asked.body["raw"]) == ("/api/generate", "xHel", True)
    rest = said("lo") + said("", done=True, done_reason="stop", prompt_eval_count=4, eval_count=1)
    await stage.say(1, stream_head(NDJSON) + chunk(rest) + LAST_CHUNK)
    _, body, is_whole = dechunk(client.data)
    lines = [json.loads(one) for one in body.splitlines()]
    assert is_whole
    assert [one["response"] for one in lines] == ["Hel", "lo", ""]
    assert lines[1]["understudy_resumed"] == {"backend": "gpu1", "after_characters": 3}
    assert (lines[2]["prompt_eval_count"], lines[2]["eval_count"]) == (3, 2)


async def test_stop_string_over_the_seam_ends_the_answer_and_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, stop=["Hello"])
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta("lo there")))
    _, body, is_whole = dechunk(client.data)
    assert (text_of(body), is_whole, body.endswith(DONE)) == ("Hel", True, True)
    assert stage.engine(1).is_aborted
    assert (stage.record.failure, stage.in_flight) == (None, 0)


async def test_comments_of_the_engine_are_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3), timeouts=Timeouts(stall_s=5.0))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta("l")))
    for _ in range(6):
        await stage.pass_time(1.0)
        stage.engine(1).feed(chunk(b": ping\n\n"))
    await settle()
    assert stage.engine(1).is_aborted
    assert (await until_asked(stage, 2)).partial == "Hell"
    await stage.say(2, stream_of("o"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.STALLED, None]


async def test_mistake_of_our_own_in_the_middle_ends_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)

    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Splice, "feed", fail)
    await stage.say(1, REST)
    assert [str(error) for error in stage.errors] == ["ours"]
    assert events_of(dechunk(client.data)[1])[-1]["error"]["code"] == "stream_interrupted"
    assert client.is_closing()
    assert stage.engine(1).is_aborted
    assert (stage.record.failure, stage.in_flight) == (K.INTERNAL, 0)


async def test_next_request_on_the_connection_is_answered_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)
    client.feed(request("GET", "/healthz"))
    await stage.say(1, REST)
    assert client.data.endswith(b"\r\n\r\nOK\n")
    assert not client.is_closing()


async def test_answer_goes_on_while_the_daemon_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    stage.relay.stop_taking()
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await until_asked(stage, 1)
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert client.is_closing()
