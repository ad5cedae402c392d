"""Everything an engine can do wrong, by name: before its first content, in the middle of a stream, and to the framing.

Each entry makes a fresh answer. Used by parametrised plays, which say for a whole group what must come of it. Pure.
"""

from collections.abc import Callable

from support.answers import LAST_CHUNK, NDJSON, begun_stream, chunk, head_bytes, line, sse, stream_head, whole
from support.personas import ollama_line, openai_event, openai_role
from support.steps import Answer, Step, answer, close, drip, hang, repeat, reset, send

ENGINE_DEAD = {
    "error": {
        "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
}
OVERLOADED = {
    "error": {
        "message": "The engine is currently busy and cannot accept new requests. "
        "Please try again later or on a different instance.",
        "type": "Service Unavailable",
        "param": None,
        "code": 503,
    }
}
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
QUEUE_FULL = {"error": "server busy, please try again.  maximum pending requests exceeded"}
OUT_OF_MEMORY = {"error": "llama-server process has terminated: CUDA error: out of memory"}
SERVER_ERROR = {"error": {"message": "something broke", "type": "server_error", "code": 500}}
NOTHING_YET = "first-content deadline"

ROLE = openai_role()
WORDS = (openai_event({"content": "good"}), openai_event({"content": " evening"}))


def _whole_head(length: int) -> bytes:
    return head_bytes(200, {"Content-Type": "application/json", "Content-Length": str(length)})


def _begun_head(*steps: Step) -> Answer:
    return answer(send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event"), *steps)


# Before the first content: the client must not notice, as long as another backend is there.
BEFORE_CONTENT: dict[str, Callable[[], Answer]] = {
    "reset before the head": lambda: answer(reset()),
    "closed before the head": lambda: answer(close()),
    "reset in the middle of the head": lambda: _begun_head(reset()),
    "closed in the middle of the head": lambda: _begun_head(close()),
    "head of junk": lambda: answer(send(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n"), close()),
    "status line without a number": lambda: answer(send(b"HTTP/1.1 OK fine\r\n\r\n"), close()),
    "bare LF in the head": lambda: answer(send(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), close()),
    "field name with a space": lambda: answer(send(b"HTTP/1.1 200 OK\r\nContent Length: 2\r\n\r\n{}"), close()),
    "folded field": lambda: answer(send(b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}"), close()),
    "huge head": lambda: answer(send(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000 + b"\r\nContent-Length: 0\r\n\r\n"), hang()),
    "endless head": lambda: answer(send(b"HTTP/1.1 200 OK\r\n"), repeat(b"X-More: " + b"a" * 4000 + b"\r\n", gap_s=0.0)),
    "endless interim answers": lambda: answer(repeat(b"HTTP/1.1 100 Continue\r\n\r\n", gap_s=0.001)),
    "error in the body of a 200": lambda: whole(200, {"error": {"message": "core is dead", "type": "server_error", "code": 500}}),
    "unasked switch of protocols": lambda: answer(send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), close()),
    "length and chunked at once": lambda: answer(
        send(head_bytes(200, {"Content-Length": "4", "Transfer-Encoding": "chunked"}) + chunk(b"{}") + LAST_CHUNK), close()
    ),
    "two unequal lengths": lambda: answer(
        send(head_bytes(200, [("Content-Length", "2"), ("Content-Length", "3")]) + b"{} "), close()
    ),
    "negative length": lambda: answer(send(head_bytes(200, {"Content-Length": "-2"}) + b"{}"), close()),
    "first chunk malformed": lambda: answer(send(stream_head() + b"zz\r\nnot a size\r\n"), close()),
    "underscored chunk size": lambda: answer(send(stream_head() + b"0_2\r\n{}\r\n0\r\n\r\n"), close()),
    "body cut at once": lambda: answer(send(_whole_head(500)), close()),
    "body reset at once": lambda: answer(send(_whole_head(500)), reset()),
    "500": lambda: whole(500, SERVER_ERROR),
    "502": lambda: whole(502, "<html>bad gateway</html>", {"Content-Type": "text/html"}),
    "503 of a dying engine": lambda: whole(503, b""),
    "504": lambda: whole(504, "upstream timed out"),
    "stream of nothing": lambda: begun_stream([], send(LAST_CHUNK)),
    "role event, then the end": lambda: begun_stream([ROLE], send(LAST_CHUNK)),
    "role event, then a cut": lambda: begun_stream([ROLE], reset()),
    "role event, then an error event": lambda: begun_stream([ROLE, sse(SERVER_ERROR)], send(LAST_CHUNK)),
    "error event, then [DONE]": lambda: begun_stream([ROLE, sse(ENGINE_DEAD), sse("[DONE]")], send(LAST_CHUNK)),
    "error event alone": lambda: begun_stream([sse(SERVER_ERROR)], send(LAST_CHUNK)),
    "half of the first event": lambda: begun_stream([ROLE, WORDS[0][:30]], close()),
}

# Those that only an event stream can have, so only a client that asked for one.
IN_EVENTS = frozenset(
    {
        "stream of nothing",
        "role event, then the end",
        "role event, then an error event",
        "error event, then [DONE]",
        "error event alone",
    }
)

# The client's answer comes from elsewhere, and nobody is blamed.
BUSY: dict[str, Callable[[], Answer]] = {
    "429": lambda: whole(429, {"error": {"message": "slow down", "type": "rate_limit_error"}}),
    "503 of a full queue at vLLM": lambda: whole(503, OVERLOADED),
    "503 of a full queue at Ollama": lambda: whole(503, QUEUE_FULL),
    "503 while loading": lambda: whole(503, LOADING),
}

# Silence in different disguises; needs a short `timeouts.first_token`.
SILENCE: dict[str, Callable[[], Answer]] = {
    "no head": lambda: answer(hang()),
    "head byte by byte": lambda: answer(
        drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Slow: " + b"a" * 500, gap_s=0.1)
    ),
    "head, then nothing": lambda: begun_stream([], hang()),
    "role event, then nothing": lambda: begun_stream([ROLE], hang()),
    "comments only": lambda: begun_stream([ROLE], repeat(chunk(b":\n\n"), gap_s=0.05)),
    "interim answers, then nothing": lambda: answer(send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), hang()),
}

# The client's own fault: passed on as it is.
CLIENTS_FAULT: dict[str, Callable[[], Answer]] = {
    str(status): lambda status=status: whole(status, {"error": {"message": "not like this", "type": "invalid_request_error"}})  # type: ignore[misc]  # a loop's value bound as a default
    for status in (400, 401, 403, 405, 413, 415, 422)
}

# After content: the client has words already, so the stream must end in an error it can tell from an end.
AFTER_CONTENT: dict[str, Callable[[], Answer]] = {
    "reset": lambda: begun_stream([ROLE, *WORDS], reset()),
    "closed without the last chunk": lambda: begun_stream([ROLE, *WORDS], close()),
    "clean end without a finish": lambda: begun_stream([ROLE, *WORDS], send(LAST_CHUNK)),
    "finish without [DONE]": lambda: begun_stream([ROLE, *WORDS, openai_event({}, "stop")], send(LAST_CHUNK)),
    "malformed chunk": lambda: begun_stream([ROLE, *WORDS], send(b"xyz\r\nnot a size\r\n"), close()),
    "cut inside an event": lambda: begun_stream([ROLE, *WORDS, WORDS[1][:40]], close()),
    "cut inside a chunk header": lambda: begun_stream([ROLE, *WORDS], send(b"4"), close()),
    "silence": lambda: begun_stream([ROLE, *WORDS], hang()),
    "comments only": lambda: begun_stream([ROLE, *WORDS], repeat(chunk(b": keep-alive\n\n"), gap_s=0.05)),
}

# The engine says itself that it broke; the event reaches the client, and nothing that looks like an end after it.
AFTER_CONTENT_TOLD: dict[str, Callable[[], Answer]] = {
    "error event": lambda: begun_stream([ROLE, *WORDS, sse(SERVER_ERROR)], send(LAST_CHUNK)),
    "[DONE] after an error event": lambda: begun_stream([ROLE, *WORDS, sse(ENGINE_DEAD), sse("[DONE]")], send(LAST_CHUNK)),
}

OLLAMA_LINES = (line(ollama_line("good")), line(ollama_line(" evening")))
OLLAMA_AFTER_CONTENT: dict[str, Callable[[], Answer]] = {
    "reset": lambda: begun_stream(OLLAMA_LINES, reset(), content_type=NDJSON),
    "clean end without done": lambda: begun_stream(OLLAMA_LINES, send(LAST_CHUNK), content_type=NDJSON),
    "cut inside a line": lambda: begun_stream([*OLLAMA_LINES, OLLAMA_LINES[1][:30]], close(), content_type=NDJSON),
    "silence": lambda: begun_stream(OLLAMA_LINES, hang(), content_type=NDJSON),
}
