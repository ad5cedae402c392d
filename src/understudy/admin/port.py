"""Hold the admin port open: accept its connections, bound them, and close them when the daemon stops.

Built and owned by daemon, which binds the socket. Never looks at a request; admin.api answers.
"""

import asyncio
import socket

from aiohttp import web

CONNECTIONS_MAX = 256
# A connection that says nothing for this long holds a place for nothing.
FIRST_BYTE_S_MAX = 10.0
_KEEPALIVE_S = 15.0
_STOP_S_MAX = 1.0


class AdminPort:
    """The listening side of the admin API."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S_MAX)
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on `listener`, a bound TCP or unix stream socket, which this takes over."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        if listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._accept, sock=listener, backlog=64)
        else:
            self._server = await loop.create_server(self._accept, sock=listener, backlog=64)

    async def stop(self) -> None:
        """Stop listening, end event streams, finish what is being answered within a second."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            return _Refused()
        return _Connection(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEPALIVE_S,
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
        )


class _Connection(web.RequestHandler):
    """aiohttp's connection, closed when its first byte does not come: aiohttp itself bounds only later silences."""

    __slots__ = ("_silence",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._silence = asyncio.get_running_loop().call_later(FIRST_BYTE_S_MAX, transport.close)

    def data_received(self, data: bytes) -> None:
        self._silence.cancel()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._silence.cancel()
        super().connection_lost(exc)


class _Refused(asyncio.Protocol):
    """A connection beyond the limit, ended at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
