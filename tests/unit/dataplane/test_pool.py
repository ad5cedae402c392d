"""Plays of idle connections: taken newest first, closed when old or odd, and why there is no new one."""

import errno
import ssl
from dataclasses import replace

import pytest

from support.targets import target
from support.transports import MemoryNetwork, settle
from understudy.core.snapshot import Address, Backend, EngineKind
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.pool import IDLE_MAX, IDLE_S_MAX, IDLE_S_MAX_ELSE, Pool
from understudy.dataplane.resolver import Resolver
from understudy.dataplane.upstream import UpstreamConnection
from understudy.errors import FailureKind

NOW_S = 1000.0
GPU0 = target(0).backend
GPU1 = target(1).backend
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ENGINES = {"gpu0": EngineKind.VLLM, "gpu1": EngineKind.OLLAMA}


class Unread:
    """An answer that nobody reads."""

    def on_interim(self, status: int) -> None:
        """Of no matter here, as all that follows."""

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_last(self) -> None: ...

    def on_end(self, *, is_followed: bool) -> None: ...

    def on_broken(self, kind: FailureKind) -> None: ...

    def on_exception(self, error: BaseException) -> None: ...

    def on_upstream_full(self) -> None: ...


class Play:
    """A pool on a network in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = MemoryNetwork()
        self.network.install(monkeypatch)
        self.pool = Pool(Resolver(lambda event, fields: None))

    async def connect(self, backend: Backend = GPU0) -> UpstreamConnection | FailureKind:
        """Connect; what came of it."""
        outcomes: list[UpstreamConnection | FailureKind] = []
        await self.pool.connect(backend, 2.0, outcomes.append)
        return outcomes[0]

    async def used(self, backend: Backend = GPU0, answer: bytes = ANSWER) -> UpstreamConnection:
        """Connect and let one exchange pass; the connection is ready to be put."""
        self.pool.words(backend)
        connection = await self.connect(backend)
        assert isinstance(connection, UpstreamConnection)
        connection.send(Unread(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", is_head=False)
        self.network.opened[backend.address.port][-1].feed(answer)
        return connection

    async def put(self, backend: Backend = GPU0, now_s: float = NOW_S, answer: bytes = ANSWER) -> UpstreamConnection:
        """Put a connection into the pool that has carried one exchange."""
        connection = await self.used(backend, answer)
        self.pool.put(backend, connection, now_s)
        await settle()
        return connection


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The patch that a Play needs; made inside of the running loop."""
    return monkeypatch


# --- idle connections


async def test_nothing_is_idle_at_first(play: pytest.MonkeyPatch) -> None:
    assert Play(play).pool.take(GPU0) is None


async def test_connection_that_was_put_is_taken_again_once(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.put()
    assert stage.pool.take(GPU1) is None
    assert stage.pool.take(GPU0) is connection
    assert connection.is_reused
    assert stage.pool.take(GPU0) is None


async def test_newest_connection_is_taken_first(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    older, newer = await stage.used(), await stage.used()
    stage.pool.put(GPU0, older, NOW_S)
    stage.pool.put(GPU0, newer, NOW_S + 1)
    assert stage.pool.take(GPU0) is newer
    assert stage.pool.take(GPU0) is older


async def test_connection_that_the_backend_closed_is_passed_by(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    good, gone = await stage.used(), await stage.used()
    stage.pool.put(GPU0, good, NOW_S)
    stage.pool.put(GPU0, gone, NOW_S)
    stage.network.opened[8000][-1].end()
    await settle()
    assert stage.pool.take(GPU0) is good


async def test_connection_on_which_the_backend_spoke_is_passed_by(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    await stage.put()
    stage.network.opened[8000][0].feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert stage.pool.take(GPU0) is None


async def test_connection_that_cannot_serve_again_is_closed(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.put(answer=b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert stage.pool.take(GPU0) is None
    assert connection.transport is None


async def test_pool_keeps_so_many_and_no_more(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    made = [await stage.used() for _ in range(IDLE_MAX + 1)]
    for connection in made:
        stage.pool.put(GPU0, connection, NOW_S)
    await settle()
    assert [connection for connection in made if connection.transport is None] == made[IDLE_MAX:]


async def test_connections_to_an_old_address_are_not_used_for_the_new_one(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    await stage.put()
    late = await stage.used()
    moved = replace(GPU0, address=Address("http", "127.0.0.1", 9000))
    assert stage.pool.take(moved) is None
    stage.pool.put(GPU0, late, NOW_S)
    assert stage.pool.take(moved) is None
    stage.pool.close_idle(NOW_S, ENGINES)
    stage.pool.close_all()
    await settle()
    assert all(transport.is_closing() for transport in stage.network.opened[8000])


async def test_connections_outlive_a_reload_that_leaves_the_address(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.put()
    assert stage.pool.take(replace(GPU0, weight=7)) is connection


# --- growing old


@pytest.mark.parametrize(("backend", "idle_s"), [(GPU0, IDLE_S_MAX_ELSE), (GPU1, IDLE_S_MAX[EngineKind.OLLAMA])])
async def test_connection_is_closed_before_the_engine_would(play: pytest.MonkeyPatch, backend: Backend, idle_s: float) -> None:
    stage = Play(play)
    connection = await stage.put(backend)
    assert stage.pool.close_idle(NOW_S + idle_s - 0.1, ENGINES) == 1
    assert stage.pool.close_idle(NOW_S + idle_s + 0.1, ENGINES) == 0
    await settle()
    assert connection.transport is None


async def test_connections_to_a_removed_backend_are_closed(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.put()
    assert stage.pool.close_idle(NOW_S, {"gpu1": EngineKind.OLLAMA}) == 0
    await settle()
    assert connection.transport is None


async def test_connection_that_is_gone_no_longer_counts(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    await stage.put()
    stage.network.opened[8000][0].end()
    await settle()
    assert stage.pool.close_idle(NOW_S, ENGINES) == 0


async def test_everything_is_closed_at_the_end(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.put()
    stage.network.silent.add(8001)
    outcomes: list[object] = []
    task = stage.pool.connect(GPU1, 2.0, outcomes.append)
    await settle()
    stage.pool.close_all()
    await settle()
    assert connection.transport is None
    assert task.cancelled()
    assert outcomes == []


# --- new connections


async def test_new_connection_knows_its_backend(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    connection = await stage.connect()
    assert isinstance(connection, UpstreamConnection)
    assert (connection.backend, connection.is_reused) == ("gpu0", False)
    assert stage.network.asked == [("127.0.0.1", 8000)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(), FailureKind.REFUSED),
        (OSError("no route to host"), FailureKind.UNREACHABLE),
        (TimeoutError(), FailureKind.CONNECT_TIMEOUT),
        (OSError(errno.EMFILE, "too many open files"), FailureKind.NO_ROOM),
        (ConnectionResetError(), FailureKind.UNREACHABLE),
        (ssl.SSLError("handshake"), FailureKind.TLS_FAILED),
        (ssl.SSLCertVerificationError("self-signed"), FailureKind.TLS_FAILED),
    ],
)
async def test_failure_to_connect_is_told_as_what_it_is(play: pytest.MonkeyPatch, error: Exception, kind: FailureKind) -> None:
    stage = Play(play)
    stage.network.failing[8000] = error
    assert await stage.connect() is kind


async def test_attempt_to_connect_can_be_given_up(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    stage.network.silent.add(8000)
    outcomes: list[object] = []
    task = stage.pool.connect(GPU0, 2.0, outcomes.append)
    await settle()
    task.cancel()
    await settle()
    assert outcomes == []


NAMED = Backend("gpu9", Address("http", "gpu.example", 8009))


async def test_every_address_of_a_name_is_tried_in_order(play: pytest.MonkeyPatch) -> None:
    stage = Play(play)
    stage.network.names["gpu.example"] = ["192.0.2.1", "192.0.2.2"]
    stage.network.failing[8009] = OSError("no route")
    assert await stage.connect(NAMED) is FailureKind.UNREACHABLE
    assert stage.network.asked == [("192.0.2.1", 8009), ("192.0.2.2", 8009)]


async def test_name_that_does_not_resolve_is_told_as_that(play: pytest.MonkeyPatch) -> None:
    assert await Play(play).connect(NAMED) is FailureKind.NAME_UNRESOLVED


@pytest.mark.parametrize("error", [ConnectionRefusedError(), OSError("no route")])
async def test_name_is_looked_up_again_after_its_address_failed(play: pytest.MonkeyPatch, error: Exception) -> None:
    stage = Play(play)
    stage.network.names["gpu.example"] = ["192.0.2.1"]
    stage.network.failing[8009] = error
    await stage.connect(NAMED)
    stage.network.names["gpu.example"] = ["192.0.2.9"]
    del stage.network.failing[8009]
    await stage.connect(NAMED)
    await settle()
    await stage.connect(NAMED)
    assert stage.network.asked[-1] == ("192.0.2.9", 8009)
