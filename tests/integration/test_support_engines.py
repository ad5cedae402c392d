"""The scripted engines, the raw client and the real llama.cpp servers do what the other plays rely on."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import faults
from support.answers import begun_stream, chunk, whole
from support.llama import LlamaServer
from support.personas import PERSONAS, openai_role
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hang, hold, reset, send
from support.tiny_model import tiny_model
from support.wire import CutShortError, Reply, Wire, ask, chat, request_bytes


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as scripted:
        yield scripted


@pytest.mark.parametrize("kind", PERSONAS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate", "/v1/messages"])
def test_every_persona_says_its_words_in_every_dialect(kind: str, path: str, stream: bool) -> None:
    with ScriptedEngine("gpu0", engine=kind, say="good evening to you") as engine:
        reply = ask(engine.port, path, chat(stream=stream))
    if path != "/v1/completions" or stream:
        assert reply.text == "good evening to you"
    assert (reply.status, reply.is_cut) == (200, False)


def test_requests_are_kept_byte_for_byte_and_probes_apart(engine: ScriptedEngine) -> None:
    raw = request_bytes("POST", "/v1/chat/completions?a=b", b'{"model": "tiny"}', {"X-Odd": "Value"})
    with Wire(engine.port) as wire:
        wire.send_bytewise(raw)
        assert wire.read_reply().status == 200
    assert ask(engine.port, "/health").json() == {"status": "ok"}
    (request,) = engine.seen.requests
    assert (request.raw, request.path, request.is_whole) == (raw, "/v1/chat/completions", True)
    assert [probe.path for probe in engine.seen.probes] == ["/health"]


def test_chunked_requests_are_read_to_their_end(engine: ScriptedEngine) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(engine.port) as wire:
        wire.send(head + chunk(b'{"model":') + chunk(b' "tiny"}') + b"0\r\n\r\n")
        assert wire.read_reply().status == 200
    assert engine.seen.requests[0].json() == {"model": "tiny"}


def test_answers_are_given_in_the_order_of_the_script(engine: ScriptedEngine) -> None:
    engine.always(whole(500))
    engine.then(whole(404), whole(418))
    assert [ask(engine.port, body=chat()).status for _ in range(3)] == [404, 418, 500]
    engine.fresh()
    assert ask(engine.port, body=chat()).text == "good evening from gpu0"


def test_a_refusing_engine_keeps_its_port_and_its_open_connections(engine: ScriptedEngine) -> None:
    with Wire(engine.port) as wire:
        wire.send(request_bytes("GET", "/health"))
        assert wire.read_reply().status == 200
        engine.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask(engine.port, "/health")
        wire.send(request_bytes("GET", "/health"))
        assert wire.read_reply().status == 200
    engine.listen()
    assert ask(engine.port, "/health").status == 200


def test_a_swallowing_engine_lets_connections_hang_until_it_listens_again(engine: ScriptedEngine) -> None:
    engine.swallow()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", engine.port), timeout=0.3)
    engine.listen()
    assert ask(engine.port, "/health").status == 200


def test_a_gate_holds_an_answer_and_a_peer_that_leaves_is_counted(engine: ScriptedEngine) -> None:
    gate = Gate()
    engine.then(begun_stream([openai_role()], hold(gate), send(b"0\r\n\r\n")), answer(hang()))
    with Wire(engine.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        pieces = wire.read_pieces(wire.read_head())
        assert next(pieces) == openai_role()
        gate.wait_reached()
        gate.open()
        assert list(pieces) == []
        wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        engine.wait_requests(2)
    engine.wait_for(lambda seen: seen.peers_left == 1 and seen.connections_open == 0)


def test_a_reset_is_told_from_an_end(engine: ScriptedEngine) -> None:
    engine.then(answer(reset()))
    with Wire(engine.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        with pytest.raises(CutShortError, match="reset"):
            wire.read_head()


def test_a_reused_connection_can_be_dropped_and_an_idle_one_closed(engine: ScriptedEngine) -> None:
    engine.closes_reused = True
    with Wire(engine.port) as wire:
        wire.send(request_bytes("GET", "/health"))
        wire.read_reply()
        wire.send(request_bytes("GET", "/health"))
        assert wire.is_closed_by_peer()
    engine.fresh()
    engine.idle_s = 0.05
    with Wire(engine.port) as wire:
        assert wire.is_closed_by_peer()


@pytest.mark.parametrize("fault", [*faults.BEFORE_CONTENT, *faults.AFTER_CONTENT])
def test_no_fault_looks_like_a_good_answer(engine: ScriptedEngine, fault: str) -> None:
    engine.then((faults.BEFORE_CONTENT | faults.AFTER_CONTENT)[fault]())
    with Wire(engine.port, deadline_s=0.3) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        try:
            reply = wire.read_reply()
        except (CutShortError, TimeoutError, AssertionError, ValueError):
            return
        assert not _is_good(reply)


def _is_good(reply: Reply) -> bool:
    finished = b'"finish_reason": "stop"' in reply.body and b"data: [DONE]" in reply.body
    is_malformed = len(reply.head.get("Content-Length").split(",")) > 1 or " " in "".join(name for name, _ in reply.head.fields)
    return reply.status == 200 and finished and not reply.is_cut and not is_malformed


def test_two_real_servers_write_the_same_text_and_one_comes_back_on_its_port(models_folder: Path) -> None:
    model = tiny_model(models_folder)
    with LlamaServer(model, "a") as a, LlamaServer(model, "b") as b:
        asked = chat("good evening", max_tokens=60, temperature=0)
        texts = {ask(server.port, body=asked | {"stream": stream}).text for server in (a, b) for stream in (True, False)}
        assert len(texts) == 1
        a.freeze()
        with pytest.raises(TimeoutError):
            ask(a.port, "/health", deadline_s=0.3)
        a.thaw()
        assert ask(a.port, "/health").status == 200
        a.kill()
        with pytest.raises(ConnectionRefusedError):
            ask(a.port, "/health")
        a.start()
        assert ask(a.port, body=asked).text in texts


def test_the_model_is_the_same_file_whenever_it_is_made(tmp_path: Path, models_folder: Path) -> None:
    assert tiny_model(tmp_path).read_bytes() == tiny_model(models_folder).read_bytes()
