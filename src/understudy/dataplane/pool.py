"""Idle connections per backend, and new ones where none is idle.

Called by dataplane.relay. The most recently used connection is taken first; one that has been idle for too long, or on which the
backend has said anything, is closed. Never chooses a backend.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable

from understudy.core.snapshot import Backend, EngineKind
from understudy.dataplane.heads import BackendWords
from understudy.dataplane.resolver import Resolver, is_literal
from understudy.dataplane.upstream import UpstreamConnection
from understudy.errors import FailureKind

# Below the engine's own limit, so that it is not the engine that closes: uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) keep
# idle connections for 5 s, Go's server (Ollama) without a bound (faults.md, pool; llm-d #1564, kserve #5446).
IDLE_S_MAX = {EngineKind.OLLAMA: 60.0}
IDLE_S_MAX_ELSE = 4.0
IDLE_MAX = 512

Connected = Callable[[UpstreamConnection | FailureKind], None]


class _Side:
    """What the pool keeps of one backend: its idle connections, and the words that every request to it has in common."""

    __slots__ = ("backend", "idle", "words")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.words = BackendWords(backend)
        self.idle: list[UpstreamConnection] = []


class Pool:
    """Idle upstream connections by the backend's name; a changed address or key begins anew."""

    def __init__(self, resolver: Resolver, idle_max: int = IDLE_MAX) -> None:
        self._resolver = resolver
        self._idle_max = idle_max
        self._sides: dict[str, _Side] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def words(self, backend: Backend) -> BackendWords:
        """Return what every request to `backend` has in common."""
        return self._side(backend).words

    def take(self, backend: Backend) -> UpstreamConnection | None:
        """Return an idle connection that looks alive, None when there is none."""
        idle = self._side(backend).idle
        while idle:
            connection = idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def put(self, backend: Backend, connection: UpstreamConnection, now_s: float) -> None:
        """Keep a connection whose exchange is over, or close it when it cannot serve again."""
        side = self._sides.get(backend.name)
        if (
            not connection.release()
            or side is None
            or (side.backend is not backend and side.backend.address != backend.address)
            or len(side.idle) * len(self._sides) >= self._idle_max
        ):
            connection.close()
            return
        connection.idle_since_s = now_s
        side.idle.append(connection)

    def _side(self, backend: Backend) -> _Side:
        side = self._sides.get(backend.name)
        if side is None or side.backend is not backend:
            known, side = side, _Side(backend)
            self._sides[backend.name] = side
            if known is not None and known.backend.address == backend.address:
                side.idle = known.idle
            elif known is not None:
                _close(known.idle)
        return side

    def connect(self, backend: Backend, connect_s: float, on_connected: Connected) -> asyncio.Task[None]:
        """Open a connection and hand it, or why there is none, to `on_connected`; cancel the task to stop trying.

        `connect_s` is shared out among the addresses of a name, so that a dead one leaves time for the next.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._connect(backend, connect_s, on_connected), name=f"connect {backend.name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    def close_idle(self, now_s: float, engines: dict[str, EngineKind]) -> int:
        """Close what has been idle for too long; `engines` names what each backend runs now. Returns how many are left."""
        left = 0
        for name, side in list(self._sides.items()):
            if name not in engines:
                _close(side.idle)
                del self._sides[name]
                continue
            oldest_s = now_s - IDLE_S_MAX.get(engines[name], IDLE_S_MAX_ELSE)
            _close([connection for connection in side.idle if connection.idle_since_s < oldest_s])
            side.idle = [connection for connection in side.idle if connection.is_reusable and connection.transport is not None]
            left += len(side.idle)
        return left

    def close_all(self) -> None:
        """Close every idle connection and stop connecting."""
        for side in self._sides.values():
            _close(side.idle)
            side.idle = []
        for task in self._connecting:
            task.cancel()

    async def _connect(self, backend: Backend, connect_s: float, on_connected: Connected) -> None:
        try:
            connection = await self._open(backend, connect_s)
        except (TimeoutError, asyncio.CancelledError) as error:
            self._resolver.expire(backend.address.host)
            if isinstance(error, asyncio.CancelledError):
                raise
            on_connected(FailureKind.CONNECT_TIMEOUT)
        except ssl.SSLError:
            on_connected(FailureKind.TLS_FAILED)
        except ConnectionRefusedError:
            self._resolver.expire(backend.address.host)
            on_connected(FailureKind.REFUSED)
        except _UnresolvedError:
            on_connected(FailureKind.NAME_UNRESOLVED)
        except OSError as error:
            self._resolver.expire(backend.address.host)
            # Without a descriptor left it is us, and no backend, that cannot go on.
            on_connected(FailureKind.NO_ROOM if error.errno in (errno.EMFILE, errno.ENFILE) else FailureKind.UNREACHABLE)
        else:
            on_connected(connection)

    async def _open(self, backend: Backend, connect_s: float) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        address = backend.address
        tls = self._tls_context() if address.scheme == "https" else None
        hosts: tuple[str, ...] = (address.host,)
        if not is_literal(address.host):
            try:
                hosts = await self._resolver.resolve(address.host)
            except OSError as error:
                raise _UnresolvedError(address.host) from error
        last: OSError | None = None
        for host in hosts:
            try:
                async with asyncio.timeout(connect_s / len(hosts) if len(hosts) > 1 else None):
                    _, connection = await loop.create_connection(
                        lambda: UpstreamConnection(backend.name),
                        host,
                        address.port,
                        ssl=tls,
                        server_hostname=address.host if tls else None,
                    )
            except ssl.SSLError:
                raise
            except OSError as error:
                last = error
            else:
                return connection
        raise last or OSError(f"{address.host} has no address")

    def _tls_context(self) -> ssl.SSLContext:
        # Loading the system's certificates costs megabytes, so only those pay who have an https backend.
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _close(connections: list[UpstreamConnection]) -> None:
    for connection in connections:
        connection.close()


class _UnresolvedError(OSError):
    """The name of a backend does not resolve and never has."""
