"""Clients that send too slowly, too much or too many connections are refused in time, and nobody else notices."""

import contextlib
import resource
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.waiting import until
from support.wire import Reply, Wire, chat, request_bytes

KIB = 1024
BODY_MAX = 64 * KIB
LIMITS = {"head_timeout": "600ms", "body_timeout": "600ms", "idle_timeout": "30s", "write_idle": "30s"}
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedEngine, Daemon]]:
    """Run one engine behind one daemon with short deadlines for clients."""
    with ScriptedEngine("gpu0", engine="ollama") as engine:
        wanted = settings(
            backend(engine, "ollama"), health={"interval": "60s"}, limits=LIMITS, failover={"body_max": f"{BODY_MAX}"}
        )
        with Daemon(wanted, tmp_path_factory.mktemp("clients")) as daemon:
            daemon.wait_condition("up")
            yield engine, daemon


@pytest.fixture
def daemon(shared: tuple[ScriptedEngine, Daemon]) -> Daemon:
    """Hand over the daemon with no client connected."""
    until(lambda: connections(shared[1]) == 0, "a daemon without clients")
    return shared[1]


def connections(daemon: Daemon) -> int:
    """How many clients are connected, as the daemon says."""
    return int(daemon.admin("/api/status").json()["connections"])


def drip_until_answered(wires: list[Wire], daemon: Daemon) -> list[Reply]:
    """Send a byte on each wire again and again, and ask as somebody else meanwhile, until every one has its answer."""
    waiting = dict.fromkeys(wires)

    def are_answered() -> bool:
        for wire in list(waiting):
            if select.select([wire._socket], [], [], 0)[0]:
                del waiting[wire]
                continue
            with contextlib.suppress(ConnectionError):
                wire.send(b"x")
        assert daemon.ask("/healthz", deadline_s=1.0).status == 200
        return not waiting

    until(are_answered, "an answer for everyone who drips", timeout_s=8.0, every_s=0.05)
    return [wire.read_reply() for wire in wires]


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"P", id="in the method"),
        pytest.param(POST + b"X-Slow: ", id="in a field"),
        pytest.param(POST + b"Content-Length: 60000\r\n\r\n", id="before the body"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", id="in a chunk"),
    ],
)
def test_a_client_that_stops_in_the_middle_of_its_request_gets_408(engine: ScriptedEngine, daemon: Daemon, begun: bytes) -> None:
    with Wire(daemon.port) as wire:
        wire.send(begun)
        reply = wire.read_reply()
        assert (reply.status, reply.head.get("Connection")) == (408, "close")
        assert wire.is_closed_by_peer()
    assert not engine.seen.requests


def test_hundreds_that_drip_their_heads_get_408_and_nobody_else_waits(engine: ScriptedEngine, daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(daemon.port)) for _ in range(300)]
        for wire in wires:
            wire.send(POST + b"X-Slow: ")
        replies = drip_until_answered(wires, daemon)
    assert {reply.status for reply in replies} == {408}
    until(lambda: connections(daemon) == 0, "their connections closed")
    assert not engine.seen.requests


def test_hundreds_that_never_end_their_bodies_get_408_and_nobody_else_waits(engine: ScriptedEngine, daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(daemon.port)) for _ in range(300)]
        for number, wire in enumerate(wires):
            framing = b"Content-Length: 60000" if number % 2 else b"Transfer-Encoding: chunked"
            wire.send(POST + framing + b"\r\n\r\n")
            wire.send(b"5000\r\n{")
        for _ in range(10):
            assert daemon.ask(body=chat(), deadline_s=1.0).status == 200
        assert {wire.read_reply().status for wire in wires} == {408}
    until(lambda: connections(daemon) == 0, "their connections closed")
    assert len(engine.seen.requests) == 10


def test_hundreds_that_drip_their_bodies_get_408_and_nobody_else_waits(engine: ScriptedEngine, daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(daemon.port)) for _ in range(300)]
        for wire in wires:
            wire.send(POST + b"Content-Length: 60000\r\n\r\n")
        replies = drip_until_answered(wires, daemon)
    assert {reply.status for reply in replies} == {408}
    until(lambda: connections(daemon) == 0, "their connections closed")
    assert not engine.seen.requests


def test_a_request_sent_byte_by_byte_in_time_is_answered(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send_bytewise(request_bytes("POST", "/v1/chat/completions", chat()))
        assert wire.read_reply().text == "good evening from gpu0"


HUGE = {
    "one field of 64 KiB": (431, POST + b"X-Long: " + b"a" * 64 * KIB + b"\r\n\r\n"),
    "ten thousand fields": (431, POST + b"".join(b"X-%d: b\r\n" % i for i in range(10_000)) + b"\r\n"),
    "a hundred and one short fields": (431, POST + b"".join(b"X-%d: b\r\n" % i for i in range(101)) + b"\r\n"),
    "a field name of 40 KiB": (431, POST + b"a" * 40 * KIB + b": b\r\n\r\n"),
    "a head that never ends": (431, POST + b"X-More: b\r\n" * 4000),
    "a target of 9 KiB": (414, b"GET /" + b"a" * 9 * KIB + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a query of 9 KiB": (414, b"GET /v1/models?" + b"a" * 9 * KIB + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target of 64 KiB": (414, b"GET /" + b"a" * 64 * KIB + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target that never ends": (414, b"GET /" + b"a" * 64 * KIB),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_huge_head_is_refused_and_closed(engine: ScriptedEngine, daemon: Daemon, case: str) -> None:
    status, message = HUGE[case]
    with Wire(daemon.port) as wire:
        wire.send(message)
        assert wire.read_reply().status == status
        assert wire.is_closed_by_peer()
    assert not engine.seen.requests


def test_a_head_just_within_the_limits_passes(engine: ScriptedEngine, daemon: Daemon) -> None:
    fields = {f"X-{i}": "b" * 280 for i in range(95)}
    reply = daemon.ask(body=chat(), headers=fields)
    assert reply.status == 200
    assert engine.seen.requests[0].header("X-94") == "b" * 280


def test_a_body_announced_beyond_the_limit_is_refused_before_it_comes(engine: ScriptedEngine, daemon: Daemon) -> None:
    for path, keys in (("/v1/chat/completions", {"error"}), ("/api/chat", {"error"}), ("/v1/messages", {"type", "error"})):
        with Wire(daemon.port) as wire:
            wire.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), BODY_MAX + 1))
            reply = wire.read_reply()
            assert (reply.status, reply.head.get("Connection")) == (413, "close")
            assert keys <= set(reply.json())
            assert isinstance(reply.json()["error"], str if path == "/api/chat" else dict)
            assert wire.is_closed_by_peer()
    assert not engine.seen.requests


def test_a_body_that_grows_beyond_the_limit_by_chunks_is_refused_at_once(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            wire.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        wire.send(b"1\r\n \r\n")
        assert wire.read_reply().status == 413
    assert not engine.seen.requests


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_of_exactly_the_limit_passes(engine: ScriptedEngine, daemon: Daemon, framing: str) -> None:
    body = b'{"model": "tiny"}' + b" " * (BODY_MAX - 17)
    with Wire(daemon.port) as wire:
        if framing == "length":
            wire.send(POST + b"Content-Length: %d\r\n\r\n" % BODY_MAX + body)
        else:
            wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % BODY_MAX + body + b"\r\n0\r\n\r\n")
        assert wire.read_reply().status == 200
    assert len(engine.seen.requests[0].body) == BODY_MAX


def test_a_client_that_goes_on_sending_a_refused_body_still_reads_why(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(POST + b"Content-Length: 900000\r\n\r\n")
        for _ in range(90):
            wire.send(b" " * 10_000)
        assert wire.read_reply().status == 413
    assert not engine.seen.requests


def test_an_idle_connection_is_closed_after_its_time(engine: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(engine, "ollama"), limits={"idle_timeout": "400ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        with Wire(daemon.port) as wire:
            wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
            assert wire.read_reply().status == 200
            assert wire.is_closed_by_peer()


def test_thousands_of_idle_connections_cost_little_and_others_do_not_notice(engine: ScriptedEngine, daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(3000, hard // 2 - 200)
    assert count > 1500, f"{hard} open files are too few for this play"
    greeting = request_bytes("GET", "/healthz")
    try:
        with contextlib.ExitStack() as stack:
            before = daemon.resident_bytes()
            for _ in range(count):
                wire = stack.enter_context(Wire(daemon.port))
                wire.send(greeting)
                assert wire.read_reply("GET").status == 200
            assert connections(daemon) == count
            per_connection = (daemon.resident_bytes() - before) / count
            assert per_connection < 10 * KIB, f"{per_connection:.0f} bytes a connection"
            for _ in range(50):
                assert daemon.ask(body=chat(), deadline_s=0.5).text == "good evening from gpu0"
            assert wire._socket.fileno() >= 0
            wire.send(greeting)
            assert wire.read_reply("GET").status == 200
        until(lambda: connections(daemon) == 0, "all of them closed")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill(daemon: Daemon, stack: contextlib.ExitStack, count: int) -> tuple[list[Wire], set[int]]:
    """Open `count` connections and ask on each; return those that were let in, and the statuses that the others got.

    Some may be left waiting, which is no answer and no reset.
    """
    wires = [stack.enter_context(Wire(daemon.port)) for _ in range(count)]
    for wire in wires:
        with contextlib.suppress(ConnectionError):
            wire.send(request_bytes("GET", "/healthz"))
    counts: list[int] = []

    def is_settled() -> bool:
        assert daemon.admin("/readyz").status == 200
        counts.append(sum(bool(select.select([wire._socket], [], [], 0)[0]) for wire in wires))
        return counts[-1] > 0 and counts[-10:] == [counts[-1]] * 10

    until(is_settled, "all answers that come at once", every_s=0.01)
    answered = [wire for wire in wires if select.select([wire._socket], [], [], 0)[0]]
    replies = [(wire, wire.read_reply("GET").status) for wire in answered]
    return [wire for wire, status in replies if status == 200], {status for _, status in replies if status != 200}


def test_connections_beyond_the_limit_wait_for_room_and_one_event_tells_it(engine: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(engine, "ollama"), limits={"connections_max": 20}), tmp_path) as daemon:
        daemon.wait_condition("up")
        with contextlib.ExitStack() as stack:
            let_in, refused = fill(daemon, stack, 30)
            assert (len(let_in), refused) == (20, set())
            let_in[0].send(request_bytes("POST", "/v1/chat/completions", chat()))
            assert let_in[0].read_reply().status == 200
        until(lambda: daemon.ask("/healthz").status == 200, "room again")
        daemon.stop()
        assert len(daemon.events("connection.limit_reached")) == 1


def test_without_descriptors_the_admin_port_and_the_backends_are_still_reached(engine: ScriptedEngine, tmp_path: Path) -> None:
    """With 64 descriptors a reserve is kept from clients: who is in gets answers, who is not gets 503 or waits."""
    launcher = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with Daemon(settings(backend(engine, "ollama")), tmp_path, launcher=launcher) as daemon:
        daemon.wait_condition("up")
        with contextlib.ExitStack() as stack:
            let_in, refused = fill(daemon, stack, 150)
            assert 8 <= len(let_in) < 64
            assert refused <= {503}
            for wire in let_in:
                wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
            assert {wire.read_reply().text for wire in let_in} == {"good evening from gpu0"}
            assert daemon.status()["gpu0"]["condition"] == "up"
        until(lambda: daemon.ask(body=chat()).status == 200, "room again")
        daemon.stop()
        assert len(daemon.events("connection.limit_reached")) == 1


def test_connections_that_storm_in_again_and_again_leave_the_daemon_whole(engine: ScriptedEngine, tmp_path: Path) -> None:
    launcher = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with Daemon(settings(backend(engine, "ollama")), tmp_path, launcher=launcher) as daemon:
        daemon.wait_condition("up")
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(Wire(daemon.port))
                assert daemon.admin("/readyz").status == 200
            until(lambda: connections(daemon) == 0, "nobody left")
            assert daemon.ask(body=chat()).text == "good evening from gpu0"
