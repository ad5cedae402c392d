"""Open the ports that clients connect to, accept, and stop accepting.

Called by daemon with the sockets' addresses. Every accepted connection becomes a DownstreamConnection; nothing is read here.
"""

import asyncio
import contextlib
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from understudy.dataplane.contract import Taker
from understudy.dataplane.downstream import DownstreamConnection

BACKLOG = 4096
RESUME_INTERVAL_S = 0.5
# Descriptors kept from clients: the admin port, probes, the log.
DESCRIPTORS_RESERVED = 32
BACKEND_CONNECTIONS_RECKONED = 4096


class Listener:
    """The public port's listening sockets, and what accepts from them.

    `pause` leaves new clients waiting in the kernel's queue, where they cost no descriptor, until `resume`. The sockets given are
    kept; servers work on duplicates, because closing a server is the only way to make it pause.
    """

    def __init__(self, taker: Taker, sockets: list[socket.socket]) -> None:
        self._taker = taker
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._paths = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
        self._resuming: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            if self._is_stopped:
                return
            # Python 3.13 would remove the path of a unix socket whenever its server pauses.
            kept: dict[str, Any] = (
                {"cleanup_socket": False} if sock.family == socket.AF_UNIX and sys.version_info >= (3, 13) else {}
            )
            start = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            server = await start(lambda: DownstreamConnection(self._taker), sock=sock.dup(), backlog=BACKLOG, **kept)
            if self._is_stopped:
                server.close()
            else:
                self._servers.append(server)

    def pause(self) -> None:
        """Accept no more for now."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    def resume(self) -> None:
        """Accept again, those first who have waited longest."""
        if not self._servers and not self._is_stopped and (self._resuming is None or self._resuming.done()):
            self._resuming = asyncio.get_running_loop().create_task(self._start_again(), name="listener.resume")

    async def _start_again(self) -> None:
        """Start until it works: for want of descriptors it may not, and nobody else would try again."""
        while not self._is_stopped:
            try:
                await self.start()
            except OSError:
                self.pause()
                await asyncio.sleep(RESUME_INTERVAL_S)
            else:
                return

    def stop(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._is_stopped = True
        self.pause()
        for sock in self._sockets:
            sock.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                Path(path).unlink()


def bind(host: str, port: int, path: str = "") -> socket.socket:
    """Return a bound stream socket for `host` and `port` (0: any free one), or for the unix socket `path`.

    A unix socket that nobody listens on any more is replaced. Raises OSError when it cannot be had.
    """
    if path:
        _remove_abandoned(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
        except OSError:
            sock.close()
            raise
        sock.listen(BACKLOG)
        return sock
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] serves IPv4 clients, too, as operators expect of "everywhere".
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        # Listening at once tells a port that is taken before anything else is built.
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> str:
    """Return HOST:PORT, [HOST]:PORT or unix:PATH of a bound socket."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return how many clients fit, 0 for no bound.

    As many connections to backends as clients are reckoned with, but at most `BACKEND_CONNECTIONS_RECKONED`: beyond, most
    clients are idle.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return 0
    free = soft - DESCRIPTORS_RESERVED
    return max(1, free - min(free // 2, BACKEND_CONNECTIONS_RECKONED))


def _remove_abandoned(path: str) -> None:
    if not Path(path).is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        Path(path).unlink()
    except OSError:
        return
    finally:
        probe.close()
