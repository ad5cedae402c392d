"""The daemon's own life: it stops in order, tells why it cannot start, and survives being frozen, unheard and hammered."""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from support.answers import LAST_CHUNK, begun_stream, chunk, whole
from support.daemon import Daemon, backend, seconds_since, settings
from support.personas import openai_chat_events
from support.process import end
from support.scripted import ScriptedEngine
from support.steps import Answer, Gate, answer, hang, hold, repeat, send
from support.waiting import until
from support.wire import Wire, chat, request_bytes, said

CHAT = "/v1/chat/completions"
STREAMED = request_bytes("POST", CHAT, chat(stream=True))
EVENTS = openai_chat_events("good evening from gpu0")


def held(gate: Gate) -> Answer:
    """Stream two words, and the rest when the gate opens."""
    return begun_stream(EVENTS[:3], hold(gate), send(*map(chunk, EVENTS[3:]), LAST_CHUNK))


def begin(daemon: Daemon, stack: contextlib.ExitStack) -> tuple[Wire, Iterator[bytes], bytes]:
    """Ask for a stream and read its first piece."""
    wire = stack.enter_context(Wire(daemon.port))
    wire.send(STREAMED)
    pieces = wire.read_pieces(wire.read_head())
    return wire, pieces, next(pieces)


def is_refused(port: int) -> bool:
    """Whether nobody listens at `port` any more."""
    try:
        Wire(port, deadline_s=1.0).close()
    except OSError:
        return True
    return False


# Stopping.


def test_sigterm_lets_what_runs_finish_and_takes_nothing_new(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gate = Gate()
    gpu0.always(held(gate))
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        idle = stack.enter_context(Wire(daemon.port))
        idle.send(request_bytes("GET", "/healthz"))
        idle.read_reply("GET")
        streams = [begin(daemon, stack) for _ in range(20)]
        gpu0.always(answer(hold(gate), *whole(200, {"choices": []}).steps))
        waiting = stack.enter_context(Wire(daemon.port))
        waiting.send(request_bytes("POST", CHAT, chat()))
        gpu0.wait_requests(21)
        daemon.send_signal(signal.SIGTERM)
        until(lambda: is_refused(daemon.port), "a closed listener")
        assert idle.is_closed_by_peer()
        ready = daemon.admin("/readyz")
        assert (ready.status, ready.json()["stopping"]) == (503, True)
        assert daemon.admin("/api/status").json()["running"] == 21
        gate.open()
        for wire, pieces, first in streams:
            assert said(first + b"".join(pieces)) == "good evening from gpu0"
            assert wire.is_closed_by_peer()
        reply = waiting.read_reply()
        assert (reply.status, reply.head.get("Connection")) == (200, "close")
        assert daemon.wait_ended() == 0
        assert daemon.events("daemon.stopping")[0]["running"] == 21


def test_a_second_sigterm_stops_at_once_and_tells_the_clients(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gpu0.always(begun_stream(EVENTS[:3], hang()))
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        wire, pieces, first = begin(daemon, stack)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_event("daemon.stopping")
        started_at_s = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        rest = b"".join(_until_cut(pieces))
        assert b'"error"' in first + rest
        assert b"[DONE]" not in rest
        assert daemon.wait_ended() == 0
        assert seconds_since(started_at_s) < 3.0
        assert wire.is_closed_by_peer()
    gpu0.wait_for(lambda seen: seen.connections_open == 0)


def test_what_does_not_finish_in_time_is_ended_honestly(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gpu0.always(begun_stream(EVENTS[:3], repeat(chunk(EVENTS[2]), gap_s=0.05)))
    wanted = settings(backend(gpu0), limits={"drain_s_max": "500ms"})
    with Daemon(wanted, tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        _wire, pieces, _first = begin(daemon, stack)
        daemon.send_signal(signal.SIGTERM)
        rest = b"".join(_until_cut(pieces))
        assert b'"error"' in rest
        assert b"[DONE]" not in rest
        assert daemon.wait_ended() == 0


def test_it_stops_within_a_moment_when_nothing_runs(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        for _ in range(5):
            stack.enter_context(Wire(daemon.port))
            stack.enter_context(Wire(daemon.admin_port))
        started_at_s = time.monotonic()
        assert daemon.stop() == 0
        assert seconds_since(started_at_s) < 3.0
        assert [event["event"] for event in daemon.events()][-1] == "daemon.stopped"


def _until_cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces; a cut end is an end."""
    from support.wire import CutShortError

    with contextlib.suppress(CutShortError, ConnectionError):
        yield from pieces


# Starting.


def serve(folder: Path, wanted: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to end by itself."""
    file = folder / "refused.yaml"
    file.write_text(yaml.safe_dump(wanted))
    command = [sys.executable, "-m", "understudy", "serve", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)


def test_a_port_that_is_taken_is_told_in_one_line(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for wanted in (settings(backend(gpu0), listen=address), settings(backend(gpu0), admin={"listen": address})):
            ended = serve(tmp_path, wanted)
            assert ended.returncode == 1
            (line,) = ended.stderr.splitlines()
            assert address in line


UNSTARTABLE: dict[str, tuple[dict[str, Any], str]] = {
    "a socket in no folder": ({"listen": "unix:/no/such/folder/u.sock"}, "/no/such/folder/u.sock"),
    "an address of another machine": ({"listen": "192.0.2.1:0"}, "192.0.2.1"),
    "an admin port for everybody without a token": ({"admin": {"listen": "0.0.0.0:0"}}, "token"),
    "an unknown key": ({"balanse": "ordered"}, "balance"),
}


@pytest.mark.parametrize("case", UNSTARTABLE)
def test_what_keeps_it_from_starting_is_told_in_one_line(gpu0: ScriptedEngine, tmp_path: Path, case: str) -> None:
    sections, word = UNSTARTABLE[case]
    ended = serve(tmp_path, settings(backend(gpu0), **sections))
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert word in line


def test_a_socket_left_behind_by_a_killed_daemon_is_taken_over(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = settings(backend(gpu0), listen=["127.0.0.1:0", f"unix:{folder}/u.sock"])
        with Daemon(wanted, tmp_path) as daemon:
            daemon.send_signal(signal.SIGKILL)
            assert daemon.wait_ended() == -signal.SIGKILL
        assert Path(folder, "u.sock").exists()
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            with httpx.Client(transport=httpx.HTTPTransport(uds=f"{folder}/u.sock")) as client:
                assert client.get("http://unix/healthz").text == "OK\n"


# Frozen.


def test_a_daemon_that_was_frozen_blames_nobody_and_its_streams_go_on(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    """The engine spoke in time; it was the daemon that did not listen for longer than every deadline."""
    begun, silent = Gate(), Gate()
    gpu0.then(held(begun), answer(hold(silent), *held(begun).steps))
    wanted = settings(
        backend(gpu0),
        backend(gpu1),
        health={"interval": "300ms", "timeout": "500ms", "fall": 1, "max_fails": 1},
        timeouts={"first_token": "2s", "stall": "2s"},
    )
    with Daemon(wanted, tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        _wire, pieces, first = begin(daemon, stack)
        waiting = stack.enter_context(Wire(daemon.port))
        waiting.send(STREAMED)
        silent.wait_reached()
        daemon.send_signal(signal.SIGSTOP)
        frozen_at_s = time.monotonic()
        begun.open()
        silent.open()
        until(lambda: seconds_since(frozen_at_s) > 4.0, "four seconds")
        daemon.send_signal(signal.SIGCONT)
        assert said(first + b"".join(pieces)) == "good evening from gpu0"
        reply = waiting.read_reply()
        assert (reply.text, reply.backend, reply.attempts) == ("good evening from gpu0", "gpu0", 1)
        probes = len(gpu0.seen.probes) + len(gpu1.seen.probes)
        until(lambda: len(gpu0.seen.probes) + len(gpu1.seen.probes) > probes + 6, "some more probes")
        assert not daemon.events("backend.went_down")
        assert not daemon.events("backend.was_ejected")
        assert {entry["failures_total"] for entry in daemon.status().values()} == {0}


def test_a_daemon_that_is_frozen_again_and_again_keeps_its_backends(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(gpu0), health={"interval": "200ms", "timeout": "1s", "fall": 1})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        for _ in range(2):
            daemon.send_signal(signal.SIGSTOP)
            frozen_at_s = time.monotonic()
            until(lambda at_s=frozen_at_s: seconds_since(at_s) > 1.4, "more than a second")  # type: ignore[misc]  # a loop's value bound as a default
            daemon.send_signal(signal.SIGCONT)
            assert daemon.ask(body=chat()).status == 200
        assert not daemon.events("backend.went_down")


# Nobody reads its log.


class Unheard:
    """A daemon whose standard error is what the play made of it, reached over unix sockets because it cannot tell its ports."""

    def __init__(self, engine: ScriptedEngine, folder: Path, stderr: int | None) -> None:
        self._sockets = tempfile.TemporaryDirectory()
        file = folder / "unheard.yaml"
        listen = {"listen": f"unix:{self._sockets.name}/public", "admin": {"listen": f"unix:{self._sockets.name}/admin"}}
        file.write_text(yaml.safe_dump(settings(backend(engine)) | listen))
        command = [sys.executable, "-m", "understudy", "serve", "-c", str(file)]
        if stderr is None:
            command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        self.public = httpx.Client(transport=httpx.HTTPTransport(uds=f"{self._sockets.name}/public"), base_url="http://unix")
        self.admin = httpx.Client(transport=httpx.HTTPTransport(uds=f"{self._sockets.name}/admin"), base_url="http://unix")

    def __enter__(self) -> Self:
        until(self.is_ready, "a daemon that is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.public.close()
        self.admin.close()
        end(self.process)
        self._sockets.cleanup()

    def is_ready(self) -> bool:
        """Whether it can answer."""
        for name in ("admin", "public"):
            with socket.socket(socket.AF_UNIX) as caller:
                if caller.connect_ex(f"{self._sockets.name}/{name}"):
                    return False
        return self.admin.get("/readyz").status_code == 200

    def ask_often(self, count: int) -> float:
        """Ask `count` times; return how long the slowest answer took."""
        slowest_s = 0.0
        for _ in range(count):
            started_at_s = time.monotonic()
            assert self.public.post(CHAT, json=chat()).status_code == 200
            slowest_s = max(slowest_s, seconds_since(started_at_s))
        return slowest_s

    def stop(self) -> int:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10.0)


def test_a_daemon_without_standard_error_works(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Unheard(gpu0, tmp_path, None) as daemon:
        assert daemon.ask_often(50) < 1.0
        assert daemon.stop() == 0


def test_a_log_whose_reader_has_left_harms_nobody(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with Unheard(gpu0, tmp_path, writes) as daemon:
        os.close(writes)
        os.close(reads)
        assert daemon.ask_often(100) < 1.0
        assert daemon.stop() == 0


def test_a_log_that_nobody_reads_drops_lines_and_counts_them(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as log, Unheard(gpu0, tmp_path, writes) as daemon:
        os.close(writes)
        until(lambda: daemon.ask_often(200) < 1.0 and _dropped(daemon) > 0, "lines that are dropped", timeout_s=20.0)
        # As soon as somebody reads again, the log goes on and tells what is missing.
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(log))
        reader.start()
        until(lambda: any(b'"log.dropped"' in line for line in lines), "how many were dropped")
        assert daemon.stop() == 0
        reader.join(10.0)
        assert all(json.loads(line)["event"] for line in lines)
        assert json.loads(lines[-1])["event"] == "daemon.stopped"


def _dropped(daemon: Unheard) -> float:
    for line in daemon.admin.get("/metrics").text.splitlines():
        if line.startswith("understudy_log_lines_dropped_total"):
            return float(line.rpartition(" ")[2])
    return 0.0


# Hammered.


def test_a_hammered_admin_port_does_not_slow_the_data_path(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    is_over = threading.Event()

    def hammer(port: int, target: str) -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError, AssertionError), Wire(port, deadline_s=1.0) as wire:
                while not is_over.is_set():
                    wire.send(request_bytes("GET", target))
                    wire.read_reply("GET")

    def ask_often(daemon: Daemon) -> list[float]:
        took_s = []
        for _ in range(200):
            started_at_s = time.monotonic()
            assert daemon.ask(body=chat(), deadline_s=2.0).status == 200
            took_s.append(seconds_since(started_at_s))
        return took_s

    with Daemon(settings(backend(gpu0)), tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_condition("up")
        calm_s = statistics.median(ask_often(daemon))
        for _ in range(90):
            listener = stack.enter_context(Wire(daemon.admin_port))
            listener.send(request_bytes("GET", "/api/events"))
        targets = ("/metrics", "/api/status", "/", "/api/openapi.json")
        hammers = [threading.Thread(target=hammer, args=(daemon.admin_port, target)) for target in targets]
        for thread in hammers:
            thread.start()
        hammered_s = statistics.median(ask_often(daemon))
        is_over.set()
        for thread in hammers:
            thread.join(10.0)
        # Generous, because the hammers share this machine's two cores; unbounded work would be a hundred times as slow.
        assert hammered_s < 10 * calm_s + 0.02, (calm_s, hammered_s)
        until(lambda: daemon.admin("/readyz").status == 200, "an admin port that answers")
