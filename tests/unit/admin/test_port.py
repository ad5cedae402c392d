"""The admin port accepts, bounds and ends its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.admin_stage import StageOperator, listener, open_admin_port
from understudy.admin import port as port_module
from understudy.admin.api import make_app
from understudy.admin.guard import Guard
from understudy.admin.port import AdminPort
from understudy.cli.admin_call import call

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def opened(operator: StageOperator) -> AsyncIterator[tuple[str, int]]:
    """Open the admin port on a free port and yield its address."""
    sock = listener()
    address: tuple[str, int] = sock.getsockname()
    port = AdminPort(make_app(operator, Guard("", "127.0.0.1")))
    await port.start(sock)
    try:
        yield address
    finally:
        await port.stop()


@asynccontextmanager
async def connected(address: tuple[str, int], head: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Connect, send `head` and yield what can be read; everything within five seconds."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head)
    try:
        async with asyncio.timeout(5):
            yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_http_1_0_without_a_host_is_answered() -> None:
    async with opened(StageOperator()) as address, connected(address, b"GET /readyz HTTP/1.0\r\n\r\n") as reader:
        assert (await reader.read()).startswith(b"HTTP/1.0 200")


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    with open_admin_port(StageOperator(), path=tmp_path / "admin.sock") as url:
        assert call(url, "GET", "/readyz").value["ready"] is True


async def test_connections_beyond_the_limit_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "CONNECTIONS_MAX", 1)
    async with opened(StageOperator()) as address, connected(address, ALIVE) as first:
        assert (await first.readline()).startswith(b"HTTP/1.1 200")
        async with connected(address, ALIVE) as second:
            with suppress(ConnectionError):
                assert await second.read() == b""


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "FIRST_BYTE_S_MAX", 0.01)
    async with opened(StageOperator()) as address, connected(address) as reader:
        assert await reader.read() == b""


async def test_stopping_ends_event_streams_within_moments() -> None:
    sock = listener()
    port = AdminPort(make_app(StageOperator(), Guard("", "127.0.0.1")))
    await port.start(sock)
    async with connected(sock.getsockname(), b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n") as reader:
        await reader.readuntil(b"retry: 2000\n\n")
        await port.stop()
        assert (await reader.read()).endswith(b"0\r\n\r\n")


async def test_a_listener_that_never_reads_is_cut_off() -> None:
    """The sockets' buffers fill, then the listener's queue, and then the feed drops it: memory stays bounded."""
    operator = StageOperator()
    head = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with opened(operator) as address, connected(address, head) as reader:
        await reader.readuntil(b"retry: 2000\n\n")
        (subscription,) = operator.feed._subscriptions
        while subscription.is_open:
            operator.feed.tell("backend.went_down", {"reason": "x" * 100_000})
            operator.feed._send()
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            while await reader.read(65536):
                continue
