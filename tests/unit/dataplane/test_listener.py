"""Plays of ports: bound or refused at once, accepted from, let go of."""

import asyncio
import os
import resource
import socket
from pathlib import Path

import pytest

from support.transports import settle
from understudy.core.snapshot import Limits
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import Rejection, RequestHead
from understudy.dataplane.listener import (
    BACKEND_CONNECTIONS_RECKONED,
    DESCRIPTORS_RESERVED,
    Listener,
    address_of,
    bind,
    raise_descriptor_limit,
)


def can_bind(host: str) -> bool:
    """Whether this machine has the address; containers often have no IPv6."""
    try:
        bind(host, 0).close()
    except OSError:
        return False
    return True


EVERYWHERE = "::" if can_bind("::") else "0.0.0.0"
LOOPBACKS = [("127.0.0.1", "127.0.0.1:"), *([("::1", "[::1]:")] if can_bind("::1") else [])]


class Host:
    """Takes requests and answers every one of them with `answer`."""

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"

    def __init__(self) -> None:
        self.limits = Limits()
        self.body_bytes_max = 1000
        self.is_stopping = False

    def admit(self, connection: DownstreamConnection) -> bool:
        """Let everybody in."""
        return True

    def take(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        """Answer at once."""
        connection.write(self.answer)
        connection.finish(keeps_alive=False)

    def forget(self, connection: DownstreamConnection) -> None:
        """Nothing was kept."""

    def refuse(self, rejection: Rejection, head: RequestHead | None) -> bytes:
        """Never asked in these plays."""
        raise AssertionError(rejection)

    def now_s(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()


async def asked(sock: socket.socket) -> bytes:
    """Ask over a connection of its own; the whole answer."""
    if sock.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock.getsockname())
    else:
        reader, writer = await asyncio.open_connection(*sock.getsockname()[:2])
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_clients_are_answered_on_every_port(tmp_path: Path) -> None:
    sockets = [bind("127.0.0.1", 0), bind("127.0.0.1", 0), bind("", 0, str(tmp_path / "public.sock"))]
    listener = Listener(Host(), sockets)
    await listener.start()
    assert [await asked(sock) for sock in sockets] == [Host.answer] * 3
    listener.stop()


async def test_stopped_listener_refuses_and_removes_its_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    sockets = [bind("127.0.0.1", 0), bind("", 0, str(path))]
    port = sockets[0].getsockname()[1]
    listener = Listener(Host(), sockets)
    await listener.start()
    listener.stop()
    await settle()
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_connection_that_is_open_goes_on_when_the_listener_stops() -> None:
    sock = bind("127.0.0.1", 0)
    listener = Listener(Host(), [sock])
    await listener.start()
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"GET / HTTP/1.1\r\n")
    await writer.drain()
    await settle()
    listener.stop()
    writer.write(b"Host: a\r\n\r\n")
    assert await reader.read() == Host.answer
    writer.close()
    await writer.wait_closed()


def test_port_that_is_taken_is_told_at_once() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_port_of_a_daemon_that_just_stopped_can_be_had_again() -> None:
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = first.accept()
        accepted.close()
    first.close()
    bind("127.0.0.1", port).close()


def test_everywhere_serves_clients_of_the_old_family_as_well() -> None:
    with bind(EVERYWHERE, 0) as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
        pass


@pytest.mark.parametrize(("host", "start"), LOOPBACKS)
def test_address_is_written_as_people_write_it(host: str, start: str) -> None:
    with bind(host, 0) as sock:
        assert address_of(sock) == f"{start}{sock.getsockname()[1]}"


def test_unix_socket_is_written_with_its_path(tmp_path: Path) -> None:
    with bind("", 0, str(tmp_path / "a.sock")) as sock:
        assert address_of(sock) == f"unix:{tmp_path / 'a.sock'}"


def test_unix_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    bind("", 0, path).close()
    assert os.path.exists(path)  # noqa: PTH110  # a socket's path is text here
    with bind("", 0, path) as sock:
        sock.listen()


def test_unix_socket_of_a_running_daemon_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with bind("", 0, path) as running:
        running.listen()
        with pytest.raises(OSError, match="in use"):
            bind("", 0, path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        bind("", 0, str(path))
    assert path.read_text() == "precious"


def test_descriptors_are_kept_for_connections_to_backends() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fit = raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    free = hard - DESCRIPTORS_RESERVED
    assert fit == (0 if hard == resource.RLIM_INFINITY else max(1, free - min(free // 2, BACKEND_CONNECTIONS_RECKONED)))


async def test_clients_that_come_while_it_pauses_wait_outside_and_are_let_in_afterwards() -> None:
    sock = bind("127.0.0.1", 0)
    listener = Listener(Host(), [sock])
    await listener.start()
    listener.pause()
    await settle()
    asking = asyncio.ensure_future(asked(sock))
    await settle()
    assert not asking.done()
    listener.resume()
    listener.resume()
    assert await asking == Host.answer
    assert await asked(sock) == Host.answer
    listener.stop()
    listener.resume()
    await settle()
