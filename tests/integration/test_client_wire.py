"""What a client may rely on: order, framing, old versions, every way to connect, and its body left as it is."""

import json
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.answers import chunk, head_bytes, stream_head, whole
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat_events
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, close, hold, send
from support.wire import Wire, chat, request_bytes

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedEngine, Daemon]]:
    """Run one engine of all dialects behind one daemon."""
    with ScriptedEngine("gpu0", engine="ollama") as engine:
        wanted = settings(backend(engine, "ollama"), health={"interval": "60s", "max_fails": 0})
        with Daemon(wanted, tmp_path_factory.mktemp("wire")) as daemon:
            daemon.wait_condition("up")
            yield engine, daemon


@pytest.fixture
def daemon(shared: tuple[ScriptedEngine, Daemon]) -> Daemon:
    """Hand over the daemon with nothing in flight."""
    shared[1].wait_idle()
    return shared[1]


# Order and framing.


def numbered(number: int) -> bytes:
    """Write a chat request that says its number; every third comes in chunks."""
    body = json.dumps(chat(str(number))).encode()
    if number % 3:
        return request_bytes("POST", CHAT, body)
    head = request_bytes("POST", CHAT, b"", {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
    return head + chunk(body[:20]) + chunk(body[20:]) + b"0\r\n\r\n"


@pytest.mark.parametrize("bytewise", [False, True], ids=["in one piece", "byte by byte"])
def test_pipelined_requests_are_answered_in_order(engine: ScriptedEngine, daemon: Daemon, bytewise: bool) -> None:
    engine.then(*(whole(200, {"number": number}, JSON) for number in range(9)))
    with Wire(daemon.port) as wire:
        (wire.send_bytewise if bytewise else wire.send)(b"".join(numbered(number) for number in range(9)))
        assert [wire.read_reply().json()["number"] for _ in range(9)] == list(range(9))
    assert [request.json()["messages"][0]["content"] for request in engine.seen.requests] == [str(n) for n in range(9)]


def test_a_quick_answer_waits_for_the_slow_one_before_it(engine: ScriptedEngine, daemon: Daemon) -> None:
    gate = Gate()
    engine.then(answer(hold(gate), *whole(200, {"number": 0}, JSON).steps))
    with Wire(daemon.port) as wire:
        wire.send(numbered(0) + request_bytes("GET", "/healthz") + request_bytes("POST", CHAT, b"{") + numbered(1))
        gate.wait_reached()
        assert daemon.ask("/healthz").status == 200
        assert len(engine.seen.requests) == 1
        gate.open()
        assert wire.read_reply().json() == {"number": 0}
        assert wire.read_reply().body == b"OK\n"
        assert wire.read_reply().status == 400
        assert wire.read_reply().text == "good evening from gpu0"


def test_more_pipelined_than_is_kept_waits_in_the_kernel(engine: ScriptedEngine, daemon: Daemon) -> None:
    gate = Gate()
    engine.then(answer(hold(gate), *whole(200, {"number": 0}, JSON).steps))
    big = request_bytes("POST", CHAT, chat("x" * 30_000))
    with Wire(daemon.port) as wire:
        wire.send(numbered(0) + big * 8)
        gate.wait_reached()
        gate.open()
        assert [wire.read_reply().status for _ in range(9)] == [200] * 9


def test_an_answer_without_an_end_of_its_own_ends_with_the_connection(engine: ScriptedEngine, daemon: Daemon) -> None:
    engine.then(answer(send(head_bytes(200, JSON) + b'{"number": 7}'), close()))
    with Wire(daemon.port) as wire:
        wire.send(numbered(1) + numbered(2))
        reply = wire.read_reply()
        assert (reply.json(), reply.is_cut) == ({"number": 7}, False)
        if reply.head.get("Content-Length") or reply.head.get("Transfer-Encoding"):
            assert wire.read_reply().status == 200


def test_large_answers_arrive_whole_however_they_come(engine: ScriptedEngine, daemon: Daemon) -> None:
    for size in (60_000, 70_000, 300_000, 3_000_000):
        engine.then(whole(200, b" " * size, JSON))
        reply = daemon.ask(body=chat())
        assert (reply.status, len(reply.body), reply.attempts) == (200, size, 1)


def test_a_head_and_a_large_body_that_are_read_at_once_are_no_large_head(engine: ScriptedEngine, daemon: Daemon) -> None:
    """A backend answers faster than the daemon reads: everything is there when it looks."""
    begin, sent = Gate(), Gate()
    whole_answer = head_bytes(200, JSON | {"Content-Length": "150000"}) + b" " * 150_000
    engine.then(answer(hold(begin), send(whole_answer), hold(sent)))
    with Wire(daemon.port) as wire:
        wire.send(numbered(1))
        begin.wait_reached()
        daemon.send_signal(signal.SIGSTOP)
        begin.open()
        sent.wait_reached()
        daemon.send_signal(signal.SIGCONT)
        reply = wire.read_reply()
        sent.open()
        assert (reply.status, len(reply.body)) == (200, 150_000)


def test_pieces_of_a_stream_pass_at_once_and_unchanged(engine: ScriptedEngine, daemon: Daemon) -> None:
    events = [*openai_chat_events("one two three", engine="ollama")]
    gates = [Gate() for _ in events]
    steps = [step for event, gate in zip(events, gates, strict=True) for step in (hold(gate), send(chunk(event)))]
    engine.then(answer(send(stream_head()), *steps, send(b"0\r\n\r\n")))
    with Wire(daemon.port) as wire:
        wire.send(request_bytes("POST", CHAT, chat(stream=True)))
        gates[0].open()
        pieces = wire.read_pieces(wire.read_head())
        for event, gate in zip(events, [*gates[1:], Gate()], strict=True):
            # The engine is held at the next event, so this one has come by itself.
            assert next(pieces) == event
            gate.open()
        assert list(pieces) == []


def test_expect_continue_is_answered_before_the_body_comes(engine: ScriptedEngine, daemon: Daemon) -> None:
    asked = request_bytes("POST", CHAT, chat(), {"Expect": "100-continue"})
    at = asked.index(b"\r\n\r\n") + 4
    with Wire(daemon.port) as wire:
        wire.send(asked[:at])
        assert wire.read_head().status == 100
        wire.send(asked[at:])
        assert wire.read_reply().text == "good evening from gpu0"
    assert not engine.seen.requests[0].header("Expect")


def test_expect_continue_of_a_body_too_large_is_refused_at_once(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n" % CHAT.encode())
        reply = wire.read_reply()
        assert (reply.status, reply.interim) == (413, ())
    assert not engine.seen.requests


def test_head_is_answered_like_get_without_a_body(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        for path in ("/healthz", "/v1/models", "/api/tags", "/v1/nothing"):
            replies = []
            for method in ("GET", "HEAD"):
                if method == "HEAD":
                    engine.always(answer(send(head_bytes(404, {"Content-Length": "18"}))))
                wire.send(request_bytes(method, path))
                replies.append(wire.read_reply(method))
                engine.always(None)
            assert replies[0].status == replies[1].status
            assert replies[0].head.get("Content-Length") == replies[1].head.get("Content-Length"), path
            assert replies[1].body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_leave_the_connection_in_order(engine: ScriptedEngine, daemon: Daemon, status: int) -> None:
    engine.on("/v1/files", answer(send(head_bytes(status, {"ETag": '"a"'}))))
    with Wire(daemon.port) as wire:
        for _ in range(2):
            wire.send(request_bytes("GET", "/v1/files"))
            assert wire.read_reply("GET").status == status
        wire.send(numbered(1))
        assert wire.read_reply().text == "good evening from gpu0"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_of_http_1_0_gets_its_answer_without_chunks(engine: ScriptedEngine, daemon: Daemon, stream: bool) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request_bytes("POST", CHAT, chat(stream=stream)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        reply = wire.read_reply()
        assert (reply.status, reply.text, reply.is_cut) == (200, "good evening from gpu0", False)
        assert not reply.head.get("Transfer-Encoding")
        assert wire.is_closed_by_peer()


def test_a_client_of_http_1_0_needs_no_host(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.read_reply("GET").body == b"OK\n"
        assert wire.is_closed_by_peer()


def test_a_client_that_asks_to_close_is_closed(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request_bytes("POST", CHAT, chat(stream=True), {"Connection": "close"}) + numbered(1))
        assert wire.read_reply().text == "good evening from gpu0"
        assert wire.is_closed_by_peer()
    assert len(engine.seen.requests) == 1


# Ways to connect.


def test_clients_connect_over_every_listener(engine: ScriptedEngine, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # short: a unix socket's path has at most 107 bytes
        path = f"{folder}/u.sock"
        listen = ["127.0.0.1:0", *(["[::1]:0"] if _has_ipv6() else []), f"unix:{path}"]
        with Daemon(settings(backend(engine, "ollama"), listen=listen), tmp_path) as daemon:
            daemon.wait_condition("up")
            addresses = daemon.events("daemon.started")[0]["listen"]
            assert len(addresses) == len(listen)
            for address in addresses:
                is_unix = address.startswith("unix:")
                url = "http://unix" if is_unix else f"http://{address}"
                with httpx.Client(transport=httpx.HTTPTransport(uds=path if is_unix else None)) as client:
                    for _ in range(3):
                        response = client.post(f"{url}{CHAT}", json=chat())
                        assert response.json()["choices"][0]["message"]["content"] == "good evening from gpu0"
            came_from = {request.header("X-Forwarded-For") for request in engine.seen.requests}
            assert came_from == {"127.0.0.1", ""} | ({"::1"} if _has_ipv6() else set())
            assert daemon.stop() == 0
        assert not Path(path).exists()


def test_a_client_that_leaves_over_a_unix_socket_frees_its_backend(engine: ScriptedEngine, tmp_path: Path) -> None:
    gate = Gate()
    engine.always(answer(hold(gate), send(stream_head())))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/u.sock"
        with Daemon(settings(backend(engine, "ollama"), listen=["127.0.0.1:0", f"unix:{path}"]), tmp_path) as daemon:
            daemon.wait_condition("up")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(request_bytes("POST", CHAT, chat(stream=True)))
                gate.wait_reached()
            daemon.wait_idle(timeout_s=2.0)
            gate.open()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# Bodies.

UNREADABLE = {
    "empty": b"",
    "half an object": b'{"model": "tiny"',
    "no JSON": b"model=tiny",
    "an array": b'["tiny"]',
    "a text": b'"tiny"',
    "nothing": b"null",
    "a model that is a number": b'{"model": 5}',
    "a model that is an object": b'{"model": {"name": "tiny"}}',
    "a model that is no valid text": b'{"model": "ti\xffny"}',
    "a model of half a surrogate pair": b'{"model": "\\ud800"}',
    "a very long model": json.dumps({"model": "x" * 5000}).encode(),
    "two objects": b'{"model": "tiny"} {"model": "tiny"}',
    "zeros": bytes(100),
}
ERROR_SHAPES: dict[str, Any] = {
    CHAT: lambda error: error["error"]["message"] and error["error"]["type"] == "invalid_request_error",
    "/api/chat": lambda error: isinstance(error["error"], str),
    "/v1/messages": lambda error: error["type"] == "error" and error["error"]["type"] == "invalid_request_error",
}


@pytest.mark.parametrize("path", ERROR_SHAPES)
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_body_whose_model_cannot_be_read_gets_400_in_its_dialect(
    engine: ScriptedEngine, daemon: Daemon, case: str, path: str
) -> None:
    reply = daemon.ask(path, UNREADABLE[case], method="POST")
    assert reply.status == 400
    assert ERROR_SHAPES[path](reply.json())
    assert reply.head.get("Content-Type") == "application/json"
    assert not engine.seen.requests


ENGINES_BUSINESS = {
    "wrong types elsewhere": b'{"model": "tiny", "messages": 7, "temperature": "hot"}',
    "huge numbers": b'{"model": "tiny", "seed": 1' + b"0" * 5000 + b', "top_p": 1e999999}',
    "no number at all": b'{"model": "tiny", "top_p": NaN, "min_p": -Infinity}',
    "the model twice": b'{"model": "tiny", "a": 1, "model": "tiny"}',
    "another key twice": b'{"model": "tiny", "seed": 1, "seed": 2}',
    "invalid UTF-8": b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "half a surrogate pair": b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "an escaped model": b'{"mod\\u0065l": "t\\u0069ny"}',
    "spaces and line ends": b' \r\n{ "model"\t:\n"tiny" }\r\n ',
    "nested": b'{"model": "tiny", "a": ' + b"[" * 200 + b"]" * 200 + b"}",
    "a stream that is no boolean": b'{"model": "tiny", "stream": "false"}',
}


@pytest.mark.parametrize("case", ENGINES_BUSINESS)
def test_what_is_the_engines_business_reaches_it_byte_for_byte(engine: ScriptedEngine, daemon: Daemon, case: str) -> None:
    engine.always(whole(422, {"error": {"message": "not like this"}}))
    reply = daemon.ask(CHAT, ENGINES_BUSINESS[case])
    assert (reply.status, reply.attempts) == (422, 1)
    assert engine.seen.requests[0].body == ENGINES_BUSINESS[case]


def test_a_body_nested_without_end_is_answered_and_harms_nobody(engine: ScriptedEngine, daemon: Daemon) -> None:
    engine.always(whole(422, {"error": {"message": "not like this"}}))
    for body in (b'{"model": "tiny", "a": ' + b"[" * 500_000, b'{"model": ' * 100_000, b"[" * 1_000_000):
        assert daemon.ask(CHAT, body).status in (400, 422)
    engine.always(None)
    assert daemon.ask(body=chat(), deadline_s=1.0).status == 200
