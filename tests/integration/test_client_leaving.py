"""A client leaves, half-closes, or does not read: its backend is let go, and nothing of it stays in the daemon."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.answers import LAST_CHUNK, begun_stream, chunk, whole
from support.daemon import Daemon, backend, settings
from support.faults import ROLE, WORDS
from support.personas import openai_chat_events, openai_event
from support.scripted import ScriptedEngine
from support.steps import Answer, EngineSide, Gate, Step, answer, hang, hold, pause, repeat, send
from support.waiting import until
from support.wire import Wire, chat, request_bytes, said

GONE_S_MAX = 2.0
MIB = 1024 * 1024
ASKED = request_bytes("POST", "/v1/chat/completions", chat(stream=True))
TELLING = begun_stream([ROLE, *WORDS], repeat(chunk(WORDS[1]), gap_s=0.05))

LEAVES: dict[str, Callable[[Wire], None]] = {"in order": Wire.close, "with a reset": Wire.reset}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedEngine, Daemon]]:
    """Run one engine behind one daemon for all plays of leaving."""
    with ScriptedEngine("gpu0") as engine:
        wanted = settings(
            backend(engine),
            health={"interval": "60s", "timeout": "2s", "max_fails": 0},
            limits={"write_idle": "1s"},
            failover={"body_max": "64MiB"},
        )
        with Daemon(wanted, tmp_path_factory.mktemp("leaving")) as daemon:
            daemon.wait_condition("up")
            yield engine, daemon


@pytest.fixture
def daemon(shared: tuple[ScriptedEngine, Daemon]) -> Daemon:
    """Hand over the daemon with nothing in flight and no client connected."""
    wait_empty(shared[1])
    return shared[1]


def wait_empty(daemon: Daemon, timeout_s: float = 5.0) -> None:
    """Return once the daemon has no client, no exchange and nothing in flight."""

    def is_empty() -> bool:
        status = daemon.admin("/api/status").json()
        in_flight = sum(entry["in_flight"] for entry in status["backends"])
        return not (status["connections"] or status["running"] or status["waiting"] or in_flight)

    until(is_empty, "a daemon with nobody in it", timeout_s=timeout_s)


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("sent", [0, 1, 40, len(ASKED) - 30, len(ASKED) - 1])
def test_a_client_that_leaves_before_its_request_is_whole_reaches_no_backend(
    engine: ScriptedEngine, daemon: Daemon, leave: str, sent: int
) -> None:
    wire = Wire(daemon.port)
    wire.send(ASKED[:sent])
    LEAVES[leave](wire)
    wait_empty(daemon)
    assert not engine.seen.requests


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_before_the_answers_head_frees_its_backend(
    engine: ScriptedEngine, daemon: Daemon, leave: str, stream: bool
) -> None:
    engine.always(answer(hang()))
    wire = Wire(daemon.port)
    wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=stream)))
    engine.wait_requests(1)
    LEAVES[leave](wire)
    engine.wait_for(lambda seen: seen.peers_left == 1, GONE_S_MAX)
    wait_empty(daemon, GONE_S_MAX)


@pytest.mark.parametrize("leave", LEAVES)
def test_a_client_that_leaves_in_the_middle_of_an_answer_frees_its_backend(
    engine: ScriptedEngine, daemon: Daemon, leave: str
) -> None:
    engine.always(TELLING)
    with Wire(daemon.port) as wire:
        wire.send(ASKED)
        wire.read_until(b"evening")
        LEAVES[leave](wire)
    engine.wait_for(lambda seen: seen.peers_left == 1, GONE_S_MAX)
    wait_empty(daemon, GONE_S_MAX)


@pytest.mark.parametrize("leave", LEAVES)
def test_a_client_that_leaves_a_stream_that_is_silent_frees_its_backend(
    engine: ScriptedEngine, daemon: Daemon, leave: str
) -> None:
    """An orderly leaving looks like a half-close; only a write can tell, and the engine has nothing to write."""
    engine.always(begun_stream([ROLE, *WORDS], hang()))
    with Wire(daemon.port) as wire:
        wire.send(ASKED)
        wire.read_until(b"evening")
        LEAVES[leave](wire)
    engine.wait_for(lambda seen: seen.peers_left == 1, GONE_S_MAX)
    wait_empty(daemon, GONE_S_MAX)


def test_a_client_that_leaves_in_the_middle_of_a_whole_answer_frees_its_backend(engine: ScriptedEngine, daemon: Daemon) -> None:
    body = b'{"choices": [' + b" " * 5000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n"
    engine.always(answer(send(head + body), repeat(b" ", gap_s=0.05)))
    with Wire(daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        engine.wait_requests(1)
    engine.wait_for(lambda seen: seen.peers_left == 1, GONE_S_MAX)
    wait_empty(daemon, GONE_S_MAX)


def test_nothing_is_blamed_on_the_backend_of_a_client_that_left(engine: ScriptedEngine, daemon: Daemon) -> None:
    before = daemon.status()["gpu0"]["failures_total"]
    engine.always(answer(hang()))
    with Wire(daemon.port) as wire:
        wire.send(ASKED)
        engine.wait_requests(1)
    wait_empty(daemon, GONE_S_MAX)
    assert daemon.status()["gpu0"]["failures_total"] == before
    assert daemon.status()["gpu0"]["condition"] == "up"


def test_hundreds_that_leave_at_every_moment_take_no_descriptor_with_them(engine: ScriptedEngine, daemon: Daemon) -> None:
    engine.always(TELLING)
    open_before = daemon.open_files()
    for i in range(200):
        wire = Wire(daemon.port)
        wire.send(ASKED[: 1 + i * 7 % len(ASKED)] if i % 2 else ASKED)
        if i % 4 == 0:
            wire.read_until(b"good")
        (Wire.reset if i % 3 else Wire.close)(wire)
    wait_empty(daemon)
    until(lambda: daemon.open_files() <= open_before + 2, "descriptors back where they were")


def test_a_client_that_leaves_while_it_waits_for_a_backend_is_forgotten(tmp_path: Path) -> None:
    with ScriptedEngine("gpu0") as gone:
        gone.refuse()
        with Daemon(settings(backend(gone), failover={"hold": "60s"}), tmp_path) as daemon:
            daemon.wait_condition("down")
            for leave in LEAVES.values():
                wire = Wire(daemon.port)
                wire.send(ASKED)
                until(lambda: daemon.admin("/api/status").json()["waiting"] == 1, "one who waits")
                leave(wire)
                wait_empty(daemon, GONE_S_MAX)
            gone.listen()
            daemon.wait_condition("up")
            assert not gone.seen.requests


def test_a_half_close_alone_is_no_leaving(engine: ScriptedEngine, daemon: Daemon) -> None:
    gate = Gate()
    events = openai_chat_events("good evening")
    engine.always(begun_stream(events[:2], hold(gate), send(*map(chunk, events[2:]), LAST_CHUNK)))
    with Wire(daemon.port) as wire:
        wire.send(ASKED)
        wire.finish_sending()
        # The daemon may have asked with an interim answer whether somebody still reads.
        heads = iter(wire.read_head, None)
        head = next(head for head in heads if head.status >= 200)
        pieces = wire.read_pieces(head)
        first = next(pieces)
        gate.open()
        assert said(first + b"".join(pieces)) == "good evening"
        assert wire.is_closed_by_peer()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_half_closed_before_the_first_content_gets_its_answer(
    engine: ScriptedEngine, daemon: Daemon, stream: bool
) -> None:
    gate = Gate()
    engine.always(answer(hold(gate), *whole(200, b'{"choices": []}', {"Content-Type": "application/json"}).steps))
    with Wire(daemon.port) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=stream)))
        wire.finish_sending()
        gate.wait_reached()
        # The daemon has had time to see the half-close when it has answered somebody who came later.
        assert daemon.ask("/healthz").status == 200
        gate.open()
        reply = wire.read_reply()
        assert (reply.status, reply.json()) == (200, {"choices": []})


class Flood:
    """An answer of 200 MiB: it begins, and goes on as fast as it is taken once `ask` has read its first words."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.is_over = threading.Event()
        self._gate = Gate()

    def answer(self) -> Answer:
        """Make the answer."""
        return begun_stream([ROLE, WORDS[0]], hold(self._gate), self._step())

    def ask(self, port: int) -> Wire:
        """Ask for it over a connection that takes next to nothing by itself."""
        wire = Wire(port, receive_buffer_bytes=4096)
        wire.send(ASKED)
        wire.read_until(b"good")
        self._gate.open()
        return wire

    def _step(self) -> Step:
        piece = chunk(openai_event({"content": "x" * 16_000}))

        async def play(side: EngineSide) -> None:
            try:
                for _ in range(200 * MIB // len(piece)):
                    await side.send(piece)
                    self.sent_bytes += len(piece)
            finally:
                self.is_over.set()

        return play


def test_a_client_that_reads_nothing_costs_no_memory_and_is_cut(engine: ScriptedEngine, daemon: Daemon) -> None:
    """What the kernels hold between engine and client is theirs; the daemon keeps at most its 256 KiB a stream."""
    floods = [Flood() for _ in range(4)]
    engine.then(*(flood.answer() for flood in floods))
    before = daemon.resident_bytes()
    most = before

    def are_cut() -> bool:
        nonlocal most
        most = max(most, daemon.resident_bytes())
        return engine.seen.peers_left == len(floods)

    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(flood.ask(daemon.port)) for flood in floods]
        until(are_cut, "four engines that were let go", timeout_s=10.0)
        wait_empty(daemon)
        assert all(MIB < flood.sent_bytes < 32 * MIB for flood in floods), [flood.sent_bytes for flood in floods]
        assert most - before < 8 * MIB, f"grew by {(most - before) / MIB:.1f} MiB"
        for wire in readers:
            assert not wire.read_to_end().endswith(LAST_CHUNK)


def test_a_client_that_reads_slowly_but_reads_is_not_cut(engine: ScriptedEngine, daemon: Daemon) -> None:
    flood = Flood()
    engine.always(flood.answer())
    with flood.ask(daemon.port) as wire:
        reads = 0

        def has_read_for_long() -> bool:
            nonlocal reads
            # Three times write_idle, a little at a time.
            reads += bool(wire._socket.recv(16 * 1024))
            return reads >= 60

        until(has_read_for_long, "sixty reads", every_s=0.05)
        assert engine.seen.peers_left == 0
        assert not flood.is_over.is_set()
    engine.wait_for(lambda seen: seen.peers_left == 1, GONE_S_MAX)


def test_the_others_are_served_at_once_beside_clients_that_do_not_read(engine: ScriptedEngine, daemon: Daemon) -> None:
    floods = [Flood() for _ in range(4)]
    engine.then(*(flood.answer() for flood in floods))
    with contextlib.ExitStack() as readers:
        for flood in floods:
            readers.enter_context(flood.ask(daemon.port))
        for _ in range(20):
            assert daemon.ask(body=chat(), deadline_s=1.0).text == "good evening from gpu0"


def test_an_answer_that_is_given_but_never_taken_is_dropped_in_the_end(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Some of these sizes fill the kernel's buffers and a little more: the exchange is over and its bytes are not out."""
    sizes = [i * 100_000 for i in range(1, 61)]
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    engine.then(*(answer(send(head.format(size).encode()), pause(0.05), send(b" " * size)) for size in sizes))
    limits = {"write_idle": "500ms", "idle_timeout": "500ms"}
    with Daemon(settings(backend(engine), limits=limits), tmp_path) as daemon, contextlib.ExitStack() as readers:
        daemon.wait_condition("up")
        for _ in sizes:
            wire = readers.enter_context(Wire(daemon.port, receive_buffer_bytes=4096))
            wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        engine.wait_requests(len(sizes))
        wait_empty(daemon)
        assert not daemon.events("exchange.finished", why="head_too_large")


def test_a_small_answer_to_a_client_that_reads_late_is_whole(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port, receive_buffer_bytes=4096) as wire:
        wire.send(ASKED)
        engine.wait_requests(1)
        daemon.wait_idle()
        assert wire._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 16 * 1024
        assert wire.read_reply().text == "good evening from gpu0"
