"""Plays of one answer on its way: held back until its first content, then passed on in whole events, and ended honestly."""

import json

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, head_bytes, line, sse, stream_head
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import targets
from support.transports import settle
from understudy.core.snapshot import FailoverRules, ResumeRule
from understudy.dataplane.answer import ERROR_BYTES_MAX, HELD_BYTES_MAX
from understudy.errors import FailureKind

K = FailureKind
JSON_HEAD = "Content-Type: application/json"
EVENTS = OPENING + delta("Hel") + delta("lo") + FINISH + DONE
WHOLE = json.dumps({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}).encode()


def whole_answer(body: bytes = WHOLE, status: int = 200, **fields: str) -> bytes:
    """Write an answer with a length."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return head_bytes(status, {"Content-Type": "application/json", **more, "Content-Length": str(len(body))}) + body


def fields_of(head: bytes) -> list[bytes]:
    """Return the field lines of a head in lower case."""
    return [field.lower() for field in head.split(b"\r\n")[1:]]


# --- streams


async def test_stream_reaches_the_client_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, stream_of("Hel", "lo"))
    head, body, is_whole = dechunk(client.data)
    assert (body, is_whole) == (EVENTS, True)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not client.is_closing()
    assert (stage.record.status, stage.record.failure, stage.in_flight) == (200, None, 0)


async def test_stream_may_be_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = stream_of("Hel", "lo")
    stage = Stage(monkeypatch, *targets(1))
    for cut in range(1, len(wire)):
        client = await stage.ask(chat())
        stage.engine(0).feed(wire[:cut])
        # Between two pieces the client never holds a part of an event.
        passed = dechunk(client.data)[1]
        assert EVENTS.startswith(passed)
        assert passed == b"" or passed.endswith(b"\n\n")
        stage.engine(0).feed(wire[cut:])
        assert dechunk(client.data)[1:] == (EVENTS, True), cut
        client.lose()


async def test_stream_may_come_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    stage.engine(0).feed_bytewise(stream_of("Hel", "lo"))
    assert dechunk(client.data)[1:] == (EVENTS, True)


async def test_stream_is_marked_for_proxies_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat("X-Request-ID: mine"))
    await stage.say(0, stream_of("a"))
    fields = fields_of(dechunk(client.data)[0])
    assert sorted(fields) == [
        b"cache-control: no-cache",
        b"content-type: text/event-stream",
        b"transfer-encoding: chunked",
        b"x-accel-buffering: no",
        b"x-request-id: mine",
        b"x-understudy-attempts: 1",
        b"x-understudy-backend: gpu0",
    ]


async def test_engines_own_marks_are_kept_and_its_connection_fields_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    own = {"Cache-Control": "private", "X-Accel-Buffering": "yes", "Keep-Alive": "timeout=5", "Connection": "x-hop", "X-Hop": "1"}
    await stage.say(0, stream_head(headers={**own, "X-Request-ID": "engine", "Server": "e"}) + chunk(EVENTS) + LAST_CHUNK)
    fields = fields_of(dechunk(client.data)[0])
    assert {b"cache-control: private", b"x-accel-buffering: yes", b"server: e"} <= set(fields)
    assert not any(field.startswith((b"keep-alive", b"x-hop", b"connection", b"x-request-id: engine")) for field in fields)
    assert b"cache-control: no-cache" not in fields


async def test_nothing_reaches_the_client_before_the_first_content(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(OPENING) + chunk(b": ping\n\n") + chunk(delta("")))
    assert client.data == b""
    await stage.say(0, chunk(delta("Hello")))
    assert dechunk(client.data)[1] == OPENING + b": ping\n\n" + delta("") + delta("Hello")


async def test_old_client_gets_the_stream_until_the_connection_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(version="1.0"))
    await stage.say(0, stream_of("Hel", "lo"))
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert body == EVENTS
    assert b"connection: close" in fields_of(head)
    assert not any(field.startswith(b"transfer-encoding") for field in fields_of(head))
    assert client.is_closing()


async def test_stream_that_the_engine_ends_by_closing_is_framed_for_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, head_bytes(200, {"Content-Type": "text/event-stream"}) + EVENTS)
    stage.engine(0).end()
    assert dechunk(client.data)[1:] == (EVENTS, True)


async def test_event_with_a_large_content_goes_on_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    large = delta("x" * 100_000)
    wire = stream_head() + chunk(large) + chunk(FINISH + DONE) + LAST_CHUNK
    await stage.say(0, *(wire[at : at + 1000] for at in range(0, len(wire), 1000)))
    assert dechunk(client.data)[1:] == (large + FINISH + DONE, True)


async def test_lines_of_ollama_go_on_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}'))
    lines = line({"response": "Hello", "done": False}) + line({"response": "", "done": True, "done_reason": "stop"})
    await stage.say(0, stream_head(NDJSON) + chunk(lines[:-5]))
    assert dechunk(client.data)[1] == line({"response": "Hello", "done": False})
    await stage.say(0, chunk(lines[-5:]) + LAST_CHUNK)
    assert dechunk(client.data)[1:] == (lines, True)


# --- streams that break before their first content


@pytest.mark.parametrize(
    "wire",
    [
        stream_head() + chunk(OPENING) + chunk(sse({"error": {"message": "CUDA error"}})),
        stream_head() + chunk(OPENING) + LAST_CHUNK,
        stream_head() + chunk(OPENING) + b"x\r\n",
        stream_head(),
    ],
)
async def test_stream_that_breaks_before_its_first_content_is_replaced(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, wire)
    stage.engine(0).end()
    await settle()
    await stage.say(1, stream_of("Hel", "lo"))
    head, body, is_whole = dechunk(client.data)
    assert (body, is_whole) == (EVENTS, True)
    assert {b"x-understudy-backend: gpu1", b"x-understudy-attempts: 2"} <= set(fields_of(head))


# --- streams that break after it


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (chunk(sse({"error": {"message": "CUDA error"}})), K.ERROR_EVENT),
        (chunk(delta("lo") + sse({"error": {"message": "CUDA error"}}) + delta("!")), K.ERROR_EVENT),
        (LAST_CHUNK, K.UNFINISHED),
        (chunk(FINISH) + LAST_CHUNK, K.UNFINISHED),
        (b"x\r\n", K.BODY_MALFORMED),
        (b"", K.BODY_CUT),
        (chunk(b'data: {"choices": [{"del'), K.BODY_CUT),
    ],
)
async def test_stream_that_breaks_and_may_not_go_on_ends_in_an_error_event(
    monkeypatch: pytest.MonkeyPatch, then: bytes, kind: FailureKind
) -> None:
    stage = Stage(monkeypatch, *targets(2), failover=FailoverRules(resume=ResumeRule.OFF))
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(OPENING + delta("Hel")))
    await stage.say(0, then)
    stage.engine(0).end()
    await settle()
    _, body, is_whole = dechunk(client.data)
    assert body.startswith(OPENING + delta("Hel"))
    assert not is_whole
    assert b"CUDA" not in body
    last = body.rstrip(b"\n").split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    assert all(event.startswith(b"data: {") and event.endswith(b"}") for event in body.rstrip(b"\n").split(b"\n\n"))
    assert client.is_closing()
    assert (stage.record.failure, stage.record.status, len(stage.record.attempts)) == (kind, 200, 1)
    assert 8001 not in stage.network.opened


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_content_before_an_error_in_the_same_bytes_is_not_lost(monkeypatch: pytest.MonkeyPatch, line_end: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    events = [one.replace(b"\n", line_end) for one in (delta("Hel"), delta("lo"), sse({"error": {"message": "x"}}), delta("!"))]
    await stage.say(0, stream_head() + chunk(events[0]))
    await stage.say(0, chunk(b"".join(events[1:])))
    body = dechunk(client.data)[1]
    assert body.startswith(events[0] + events[1])
    assert events[3] not in body


async def test_content_that_comes_with_a_comment_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(delta("a")))
    for _ in range(5):
        await stage.pass_time(20.0)
        assert not client.is_closing()
        await stage.say(0, chunk(b": ping\n\n" + delta("b")))
    assert not client.is_closing()


async def test_model_that_writes_about_errors_is_not_mistaken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    talk = delta('{"error": "no"}') + delta('"error"')
    await stage.say(0, stream_head() + chunk(delta("a")) + chunk(talk) + chunk(FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[1:] == (delta("a") + talk + FINISH + DONE, True)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_finished_stream_is_complete_however_its_connection_ends(monkeypatch: pytest.MonkeyPatch, is_reset: bool) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(EVENTS))
    if is_reset:
        stage.engine(0).lose(ConnectionResetError())
    else:
        stage.engine(0).end()
    assert dechunk(client.data)[1:] == (EVENTS, True)
    assert (stage.record.failure, stage.in_flight) == (None, 0)


# --- whole answers


async def test_whole_answer_goes_on_with_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = whole_answer()
    stage = Stage(monkeypatch, *targets(1))
    for cut in range(1, len(wire)):
        client = await stage.ask(chat(stream=False))
        stage.engine(0).feed(wire[:cut])
        assert client.data == b""
        stage.engine(0).feed(wire[cut:])
        head, _, body = client.data.partition(b"\r\n\r\n")
        assert body == WHOLE
        assert b"content-length: %d" % len(WHOLE) in fields_of(head)
        client.lose()


async def test_whole_answer_in_chunks_goes_on_with_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(stream=False))
    await stage.say(0, stream_head("application/json") + chunk(WHOLE[:9]) + chunk(WHOLE[9:]) + LAST_CHUNK)
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert (body, b"content-length: %d" % len(WHOLE) in fields_of(head)) == (WHOLE, True)


async def test_whole_answer_that_is_cut_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat(stream=False))
    await stage.say(0, whole_answer()[:-3])
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await stage.say(1, whole_answer())
    assert client.data.count(b"HTTP/1.1") == 1
    assert client.data.endswith(b"\r\n\r\n" + WHOLE)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_answer_too_large_to_be_held_is_passed_on(monkeypatch: pytest.MonkeyPatch, is_chunked: bool) -> None:
    body = b"x" * (2 * HELD_BYTES_MAX)
    wire = stream_head("application/json") + chunk(body) + LAST_CHUNK if is_chunked else whole_answer(body)
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(stream=False))
    await stage.say(0, *(wire[at : at + 50_000] for at in range(0, len(wire), 50_000)))
    received = dechunk(client.data)[1] if is_chunked else client.data.partition(b"\r\n\r\n")[2]
    assert received == body
    assert stage.record.sent_bytes == len(body)


async def test_compressed_answer_goes_on_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    wire = (
        head_bytes(200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip", "Content-Length": "3"})
        + b"\x1f\x8b\x08"
    )
    await stage.say(0, wire)
    assert client.data.endswith(b"\r\n\r\n\x1f\x8b\x08")


# --- answers that are no success


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
async def test_clients_own_fault_is_passed_on_as_it_came(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, whole_answer(b'{"error": "yours"}', status, X_Own="1"))
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == b'{"error": "yours"}'
    assert b"x-own: 1" in fields_of(head)
    assert stage.observed == []
    assert stage.tally.of("gpu0").failures_total == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_error_of_the_engine_is_tried_elsewhere(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, whole_answer(b"{}", status))
    await stage.say(1, stream_of("Hel", "lo"))
    assert dechunk(client.data)[1] == EVENTS


async def test_endless_error_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    await stage.ask(chat())
    await stage.say(0, stream_head("text/plain", 500) + chunk(b"x" * (ERROR_BYTES_MAX + 1)))
    assert 8001 in stage.network.opened
    assert stage.engine(0).is_aborted


# --- requests that do not generate


@pytest.mark.parametrize(
    ("method", "wire", "ending"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        ("GET", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        ("DELETE", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    ],
)
async def test_plain_answer_goes_on_at_once(monkeypatch: pytest.MonkeyPatch, method: str, wire: bytes, ending: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request(method, "/v1/files/1"))
    await stage.say(0, wire)
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert body == ending
    assert head.split(b" ")[1] == wire.split(b" ")[1]
    assert not client.is_closing()
    assert not stage.relay.running


async def test_length_of_what_head_leaves_out_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("HEAD", "/v1/files/1"))
    await stage.say(0, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert b"Content-Length: 5\r\n" in client.data


@pytest.mark.parametrize("has_length", [True, False])
async def test_plain_answer_that_is_cut_is_seen_as_cut(monkeypatch: pytest.MonkeyPatch, has_length: bool) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(request("GET", "/v1/files/1"))
    await stage.say(0, whole_answer()[:-3] if has_length else stream_head("a/b") + chunk(b"half"))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert client.is_aborted
    assert LAST_CHUNK not in client.data
    assert stage.record.failure is K.BODY_CUT


async def test_interim_answer_goes_on_but_for_the_one_we_gave_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("GET", "/v1/files/1"))
    await stage.say(0, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert client.data.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n")


async def test_two_answers_for_one_request_are_not_both_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("GET", "/v1/files/1"))
    await stage.say(0, whole_answer(b"mine") + whole_answer(b"somebody else's"))
    assert client.data.endswith(b"\r\n\r\nmine")
    assert stage.engine(0).is_closing()
