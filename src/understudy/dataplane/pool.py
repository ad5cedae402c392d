"""Idle connections per backend, and new ones where none is idle.

Called by dataplane.relay. The most recently used connection is taken first; one that has been idle for too long, or on which the
backend has said anything, is closed. Never chooses a backend.
"""

import asyncio
import ssl
from collections.abc import Callable

from understudy.core.snapshot import Address, Backend, EngineKind
from understudy.dataplane.resolver import Resolver, is_literal
from understudy.dataplane.upstream import UpstreamConnection
from understudy.errors import FailureKind

# Below the engine's own limit, so that it is not the engine that closes: uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) keep
# idle connections for 5 s, Go's server (Ollama) without a bound (faults.md, pool; llm-d #1564, kserve #5446).
IDLE_S_MAX = {EngineKind.OLLAMA: 60.0}
IDLE_S_MAX_ELSE = 4.0
IDLE_MAX = 256

Connected = Callable[[UpstreamConnection | FailureKind], None]


class Pool:
    """Idle upstream connections, keyed by the backend's address and its name."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._idle: dict[tuple[str, Address], list[UpstreamConnection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def take(self, backend: Backend) -> UpstreamConnection | None:
        """Return an idle connection that looks alive, None when there is none."""
        idle = self._idle.get((backend.name, backend.address))
        while idle:
            connection = idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def put(self, backend: Backend, connection: UpstreamConnection, now_s: float) -> None:
        """Keep a connection whose exchange is over, or close it when it cannot serve again."""
        idle = self._idle.setdefault((backend.name, backend.address), [])
        if not connection.release() or len(idle) >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since_s = now_s
        idle.append(connection)

    def connect(self, backend: Backend, on_connected: Connected) -> asyncio.Task[None]:
        """Open a connection and hand it, or why there is none, to `on_connected`; cancel the task to stop trying."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._connect(backend, on_connected), name=f"connect {backend.name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    def close_idle(self, now_s: float, engines: dict[str, EngineKind]) -> int:
        """Close what has been idle for too long; `engines` names what each backend runs now. Returns how many are left."""
        left = 0
        for (name, _), idle in self._idle.items():
            oldest_s = now_s - IDLE_S_MAX.get(engines.get(name, EngineKind.AUTO), IDLE_S_MAX_ELSE)
            kept = []
            for connection in idle:
                if connection.transport is None or connection.idle_since_s < oldest_s or name not in engines:
                    connection.close()
                else:
                    kept.append(connection)
            idle[:] = kept
            left += len(kept)
        for key in [key for key, idle in self._idle.items() if not idle]:
            del self._idle[key]
        return left

    def close_all(self) -> None:
        """Close every idle connection and stop connecting."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        for task in self._connecting:
            task.cancel()

    async def _connect(self, backend: Backend, on_connected: Connected) -> None:
        try:
            connection = await self._open(backend)
        except ssl.SSLError:
            on_connected(FailureKind.TLS_FAILED)
        except ConnectionRefusedError:
            self._resolver.expire(backend.address.host)
            on_connected(FailureKind.REFUSED)
        except _UnresolvedError:
            on_connected(FailureKind.NAME_UNRESOLVED)
        except OSError:
            self._resolver.expire(backend.address.host)
            on_connected(FailureKind.UNREACHABLE)
        else:
            on_connected(connection)

    async def _open(self, backend: Backend) -> UpstreamConnection:
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


class _UnresolvedError(OSError):
    """The name of a backend does not resolve and never has."""
