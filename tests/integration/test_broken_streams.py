"""A stream breaks after its first content: the client can always tell it from an end, and nothing is repeated or invented."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import faults
from support.answers import LAST_CHUNK, begun_stream, chunk, sse
from support.daemon import Daemon, backend, settings
from support.personas import anthropic_events, openai_event, openai_role
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, close, hang, hold, pause, repeat, reset, send
from support.wire import Reply, Wire, chat, request_bytes

HEALTH = {"interval": "60s", "max_fails": 0}
TIMEOUTS = {"stall": "300ms", "first_token": "2s"}


class Stage:
    """An OpenAI-speaking engine, an Ollama, and the daemon before both."""

    def __init__(self, gpu0: ScriptedEngine, pi: ScriptedEngine, daemon: Daemon) -> None:
        self.gpu0, self.pi, self.daemon = gpu0, pi, daemon


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run one daemon for all plays of this file; its engines have different models, so none stands in for the other."""
    with ScriptedEngine("gpu0") as gpu0, ScriptedEngine("pi", engine="ollama", models=("small",)) as pi:
        wanted = settings(backend(gpu0), backend(pi, "ollama"), health=HEALTH, timeouts=TIMEOUTS, failover={"hold": "200ms"})
        with Daemon(wanted, tmp_path_factory.mktemp("stage")) as daemon:
            daemon.wait_condition("up")
            yield Stage(gpu0, pi, daemon)


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """Hand it over with empty scripts."""
    shared_stage.gpu0.fresh()
    shared_stage.pi.fresh()
    shared_stage.daemon.wait_condition("up")
    shared_stage.daemon.wait_idle()
    return shared_stage


def events_of(reply: Reply) -> list[bytes]:
    """Split a stream into its events; what stands after the last blank line must be nothing."""
    *events, rest = reply.body.split(b"\n\n")
    assert rest == b"", f"a broken event reached the client: {rest!r}"
    return [event.removeprefix(b"data: ") for event in events]


# Whose finish has come is complete but for its terminator, which the daemon writes.
FINISHED = "finish without [DONE]"


def test_a_stream_that_has_its_finish_gets_its_terminator(stage: Stage) -> None:
    stage.gpu0.then(faults.AFTER_CONTENT[FINISHED]())
    reply = stage.daemon.ask(body=chat(stream=True))
    assert [event for event in events_of(reply) if event][-1] == b"[DONE]"
    assert not reply.is_cut
    assert b"error" not in reply.body


@pytest.mark.parametrize("fault", [fault for fault in (*faults.AFTER_CONTENT, *faults.AFTER_CONTENT_TOLD) if fault != FINISHED])
def test_a_break_after_content_is_told_in_the_stream_and_the_stream_is_no_whole_one(stage: Stage, fault: str) -> None:
    stage.gpu0.then((faults.AFTER_CONTENT | faults.AFTER_CONTENT_TOLD)[fault]())
    reply = stage.daemon.ask(body=chat(stream=True))
    assert reply.status == 200
    events = [event for event in events_of(reply) if event and not event.startswith(b":")]
    assert reply.body.count(b'"good"') == 1
    errors = [event for event in events if event.startswith(b'{"error"')]
    assert len(errors) == 1, events
    assert json.loads(errors[0])["error"]["message"]
    assert errors[0] == events[-1]
    assert reply.is_cut, "a stream without its last chunk is what tells a client that looks at nothing else"
    stage.daemon.wait_idle()
    told = stage.daemon.wait_event("exchange.finished", backend="gpu0", request_id=reply.head.get("X-Request-ID"))
    assert told["why"]


@pytest.mark.parametrize("fault", faults.OLLAMA_AFTER_CONTENT)
def test_a_break_of_an_ollama_stream_ends_with_an_error_line(stage: Stage, fault: str) -> None:
    stage.pi.then(faults.OLLAMA_AFTER_CONTENT[fault]())
    reply = stage.daemon.ask("/api/chat", chat(stream=True, model="small"))
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["message"]["content"] for line in lines[:-1]] == ["good", " evening"]
    assert set(lines[-1]) == {"error"}
    assert not any(line.get("done") for line in lines)


def test_a_break_of_an_anthropic_stream_ends_with_an_error_event(stage: Stage) -> None:
    stage.gpu0.then(begun_stream(anthropic_events("good evening")[:4], reset()))
    reply = stage.daemon.ask("/v1/messages", chat(stream=True, max_tokens=9))
    last = reply.body.rstrip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error\ndata: ")
    assert json.loads(last.partition(b"data: ")[2])["type"] == "error"


def test_half_a_character_never_reaches_the_client(stage: Stage) -> None:
    event = f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{chr(0x1F600)}"}}}}]}}\n\n'.encode()
    cut = event.index(chr(0x1F600).encode()) + 2
    stage.gpu0.then(begun_stream([openai_role(), faults.WORDS[0], event[:cut]], close()))
    reply = stage.daemon.ask(body=chat(stream=True))
    assert b"\xf0\x9f" not in reply.body
    reply.body.decode()


def test_a_cut_body_of_a_whole_answer_is_never_shown_as_whole(stage: Stage) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    stage.gpu0.always(answer(send(head + b'{"choices": [{"message": {"content": "good'), close()))
    reply = stage.daemon.ask(body=chat())
    assert reply.status == 502 or reply.is_cut


def test_events_are_relayed_at_once_and_byte_for_byte(stage: Stage) -> None:
    gate = Gate()
    pieces = [openai_role(), b': a comment\r\n\r\nevent: x\nid: 7\ndata: {"odd":   1, "choices": []}\n\n', faults.WORDS[0]]
    rest = [openai_event({}, "stop"), sse("[DONE]")]
    then = send(*(chunk(event) for event in rest), LAST_CHUNK)
    stage.gpu0.then(begun_stream(pieces, hold(gate), then))
    with Wire(stage.daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        got = wire.read_pieces(wire.read_head())
        before = b""
        while len(before) < len(b"".join(pieces)):
            before += next(got)
        assert before == b"".join(pieces)
        gate.open()
        assert b"".join(got) == b"".join(rest)


def test_a_stream_that_goes_on_slowly_is_left_alone(stage: Stage) -> None:
    words = [openai_event({"content": f" {i}"}) for i in range(8)]
    slowly = [step for event in words for step in (send(chunk(event)), pause(0.1))]
    stage.gpu0.then(
        begun_stream([openai_role()], *slowly, send(chunk(openai_event({}, "stop")) + chunk(sse("[DONE]")) + LAST_CHUNK))
    )
    reply = stage.daemon.ask(body=chat(stream=True))
    assert (reply.text, reply.is_cut) == (" 0 1 2 3 4 5 6 7", False)


def test_a_client_that_leaves_in_mid_stream_frees_the_engine_at_once(stage: Stage) -> None:
    stage.gpu0.then(begun_stream([openai_role(), faults.WORDS[0]], repeat(chunk(faults.WORDS[1]), gap_s=0.02)))
    with Wire(stage.daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        next(wire.read_pieces(wire.read_head()))
    stage.gpu0.wait_for(lambda seen: seen.peers_left == 1, timeout_s=1.0)
    stage.daemon.wait_idle(timeout_s=1.0)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_before_the_answer_frees_the_engine_at_once(stage: Stage, stream: bool) -> None:
    stage.gpu0.then(answer(hang()))
    with Wire(stage.daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=stream)))
        stage.gpu0.wait_requests(1)
    stage.gpu0.wait_for(lambda seen: seen.peers_left == 1, timeout_s=1.0)
    stage.daemon.wait_idle(timeout_s=1.0)
    assert stage.daemon.status()["gpu0"]["condition"] == "up"


def test_a_client_that_only_closed_its_half_still_gets_its_answer(stage: Stage) -> None:
    with Wire(stage.daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        wire.finish_sending()
        assert wire.read_reply().text == "good evening from gpu0"


def test_the_whole_exchange_is_bounded_by_total(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    drip = repeat(chunk(faults.WORDS[1]), gap_s=0.05)
    gpu0.then(begun_stream([openai_role(), faults.WORDS[0]], drip))
    with Daemon(settings(backend(gpu0), timeouts={"total": "700ms", "stall": "300ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        reply = daemon.ask(body=chat(stream=True), deadline_s=5.0)
        assert b'"error"' in reply.body
        gpu0.wait_for(lambda seen: seen.peers_left == 1)
