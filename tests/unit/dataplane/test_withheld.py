"""Everything of an answer passes at once but for its end, which waits until its conversation is kept."""

import asyncio
from typing import Any

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, head_bytes, line, sse, stream_head
from support.session_stage import CHAT, SessionStage, head_of, later
from support.stage import DONE, FINISH, OPENING, delta, request, stream_of
from support.transports import MemoryTransport

OLLAMA_HEAD = head_bytes(200, {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"})


def said(text: str, *, done: bool = False) -> bytes:
    """Write a line of Ollama's chat."""
    return line({"model": "qwen", "created_at": "x", "message": {"role": "assistant", "content": text}, "done": done})


async def gated(stage: SessionStage, **more: Any) -> MemoryTransport:
    """Ask in a session whose store does not answer once the engine may speak."""
    client = await stage.say_to("s", "q1", **more)
    await later()
    stage.store.gate = asyncio.Event()
    return client


async def opened(stage: SessionStage) -> None:
    """Let the store answer."""
    assert stage.store.gate is not None
    stage.store.gate.set()
    await later()


async def test_pieces_before_the_end_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage)
    await stage.say(0, stream_head() + chunk(OPENING + delta("a")))
    assert client.data.endswith(chunk(OPENING + delta("a")))
    await stage.say(0, chunk(delta("b")))
    assert client.data.endswith(chunk(delta("b")))
    await stage.say(0, chunk(FINISH))
    assert client.data.endswith(chunk(FINISH))
    await stage.say(0, chunk(DONE) + LAST_CHUNK)
    assert client.data.endswith(chunk(FINISH))
    await opened(stage)
    assert client.data.endswith(chunk(DONE) + LAST_CHUNK)


async def test_a_text_that_says_done_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage)
    await stage.say(0, stream_head() + chunk(OPENING + delta("a [DONE]")))
    assert client.data.endswith(chunk(OPENING + delta("a [DONE]")))


async def test_what_follows_the_terminator_waits_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of vLLM send [DONE] after message_stop."""
    stage = SessionStage(monkeypatch)
    client = await gated(stage)
    await stage.say(0, stream_head() + chunk(OPENING + delta("a1") + FINISH + DONE), chunk(b": bye\n\n"))
    assert DONE not in client.data
    await stage.say(0, LAST_CHUNK)
    assert DONE not in client.data
    await opened(stage)
    assert client.data.endswith(chunk(DONE + b": bye\n\n") + LAST_CHUNK)


async def test_a_last_line_of_many_numbers_waits_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    body = b'{"model": "qwen", "prompt": "q1"}'
    client = await stage.ask(request("POST", "/api/generate", body, "X-Session-ID: s"))
    await later()
    text = line({"model": "qwen", "response": "a1", "done": False})
    last = line({"model": "qwen", "response": "", "done": True, "context": list(range(30_000))})
    await stage.say(0, OLLAMA_HEAD + chunk(text), *(chunk(last[at : at + 16_000]) for at in range(0, len(last), 16_000)))
    assert client.data.endswith(chunk(text))
    await stage.say(0, LAST_CHUNK)
    await later()
    assert client.data.endswith(last + b"\r\n" + LAST_CHUNK)
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_the_last_line_of_ollama_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage, path="/api/chat")
    await stage.say(0, OLLAMA_HEAD + chunk(said("a1") + said("", done=True)) + LAST_CHUNK)
    assert client.data.endswith(chunk(said("a1")))
    await opened(stage)
    assert client.data.endswith(chunk(said("", done=True)) + LAST_CHUNK)
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_the_last_event_of_anthropic_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage, path="/v1/messages", max_tokens=9)
    start = {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}}
    events = [
        sse(start),
        sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a1"}}),
        sse({"type": "content_block_stop", "index": 0}),
        sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    ]
    stop = sse({"type": "message_stop"})
    await stage.say(0, stream_head() + chunk(b"".join(events) + stop) + LAST_CHUNK)
    assert client.data.endswith(chunk(b"".join(events)))
    await opened(stage)
    assert client.data.endswith(chunk(stop) + LAST_CHUNK)
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_a_stream_that_lacks_its_last_blank_line_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage)
    await stage.say(0, stream_head() + chunk(OPENING + delta("a1") + FINISH + DONE.rstrip(b"\n")) + LAST_CHUNK)
    assert b"[DONE]" not in client.data
    await opened(stage)
    assert client.data.endswith(chunk(b"data: [DONE]") + LAST_CHUNK)


async def test_a_large_answer_that_is_no_stream_waits_with_its_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is too long to be held back whole."""
    stage = SessionStage(monkeypatch)
    client = await gated(stage, stream=False)
    body = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "%b"}}]}' % (b"x" * 400_000)
    head = head_bytes(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
    await stage.say(0, head + body[:300_000], body[300_000:])
    assert 0 < len(client.data.partition(b"\r\n\r\n")[2]) < len(body)
    await opened(stage)
    assert client.data.partition(b"\r\n\r\n")[2] == body
    assert stage.store.kept["s"].messages[-1].text == "x" * 400_000


async def test_a_whole_answer_goes_on_with_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    body = b'{"model": "qwen", "messages": [{"role": "user", "content": "q"}]}'
    client = await stage.ask(request("POST", CHAT, body, "X-Session-ID: s") * 2)
    answer = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}]}'
    for _ in range(2):
        await later()
        await stage.say(0, head_bytes(200, {"Content-Length": str(len(answer))}) + answer)
    await later()
    assert client.data.count(answer) == 2
    assert head_of(client)["x-understudy-session"] == "appended"


async def test_what_is_withheld_of_a_broken_stream_goes_before_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_head() + chunk(OPENING + delta("a [DONE]")))
    stage.engine(0).lose(ConnectionResetError())
    await later()
    assert client.data.index(b"a [DONE]") < client.data.index(b"stream_interrupted")
    assert stage.kept("s") == ["user: q1", "assistant: a [DONE] (torn)"]


async def test_a_comment_does_not_let_the_end_slip_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await gated(stage)
    await stage.say(0, stream_of("a1"))
    client.protocol.eof_received()
    await later()
    assert DONE not in client.data
    await opened(stage)
    assert client.data.endswith(chunk(DONE) + LAST_CHUNK)


async def test_bytes_are_counted_as_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_of("a1"))
    await later()
    assert stage.record.sent_bytes == len(OPENING + delta("a1") + FINISH + DONE)
