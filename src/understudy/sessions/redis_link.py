"""Ask Redis within bounds: connections to a server, a Sentinel set or a Cluster, and an honest `StoreError` where they fail.

Used by sessions.redis_store, which imports this file only when it opens, since the package `redis` is optional. Knows no session.
Asks a second time in one case only: a connection broke after it had been made, as those do whose server was restarted meanwhile.
So whoever asks must bear that the first question has been heard.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from redis.asyncio import Connection, ConnectionPool, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from understudy.sessions.redis_address import Kind, RedisAddress, Tls
from understudy.sessions.redis_scripts import Command, Script, loss_of_reply
from understudy.sessions.store import Loss, StoreError

# Most questions at once to one address; others wait, within the bound of their own.
CONNECTIONS_MAX: Final = 64
CLIENT_NAME: Final = "understudy"
_DETAIL_MAX: Final = 300

# Errors whose code the client library has turned into a class; the first that fits.
_OF_CLASS: Final[tuple[tuple[type[BaseException], Loss], ...]] = (
    (RedisTimeoutError, Loss.SLOW),
    (TimeoutError, Loss.SLOW),
    (AuthenticationError, Loss.REFUSED),
    (AuthenticationWrongNumberOfArgsError, Loss.REFUSED),
    (AuthorizationError, Loss.REFUSED),
    (NoPermissionError, Loss.REFUSED),
    (OutOfMemoryError, Loss.FULL),
    (ReadOnlyError, Loss.READ_ONLY),
)


def loss_of(error: BaseException) -> Loss:
    """Say what an error of the client library means."""
    for kind, loss in _OF_CLASS:
        if isinstance(error, kind):
            return loss
    if type(error) is ResponseError:
        # The library takes the codes that it knows off the text.
        return loss_of_reply(getattr(error, "status_code", None) or str(error))
    # The library wraps what lies below without passing it on.
    below = error.__cause__ or error.__context__
    if isinstance(error, RedisClusterException) and below is not None:
        return loss_of(below)
    is_broken_off = isinstance(below, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    is_refused = isinstance(below, ssl.SSLError | PermissionError) and not is_broken_off
    return Loss.REFUSED if is_refused else Loss.UNAVAILABLE


def store_error(error: BaseException) -> StoreError:
    """Make what a store raises of an error of the client library."""
    text = " ".join(str(error).split()) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return StoreError(loss_of(error), text[:_DETAIL_MAX])


class _Broke(Exception):  # noqa: N818  what happened to a connection, told within this file
    """A connection broke after it had been made. Its cause is the library's error."""


class _Line(Protocol):
    """How to reach one kind of Redis."""

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:
        """Send the commands in one go: to `node`, to the server that has `key`, or each to the one that has its own key.

        Error replies stand among the replies.
        """
        ...

    async def nodes(self) -> list[Any]:
        """Return every server that keys are spread over, always in the same order."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Link:
    """Questions to one Redis address, each bounded by about twice `timeout_s`. Raises StoreError where a TLS file is unusable."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        _check_files(address.tls)
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        is_cluster = address.kind is Kind.CLUSTER
        self._line: _Line = _ClusterLine(address, timeout_s) if is_cluster else _ServerLine(address, timeout_s)

    async def ask(self, commands: Sequence[Command], *, key: str = "", node: Any = None, is_fresh: bool = False) -> list[Any]:
        """Send commands in one go and return their replies, ResponseErrors among them. Raises StoreError.

        They go to `node`, one of `nodes()`, or to the server that has `key`, or each to the one that has its own key. `is_fresh`:
        over a new connection.
        """
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._room:
                try:
                    return await self._line.attempt(commands, key, node, is_fresh=is_fresh)
                except _Broke:
                    return await self._line.attempt(commands, key, node, is_fresh=True)
        except _Broke as broke:
            error = broke.__cause__ or broke
            raise store_error(error) from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise store_error(error) from error

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Command, *, then: Sequence[Command] = (), is_fresh: bool = False
    ) -> list[Any]:
        """Run a script and in the same go the commands `then`; return their replies. Raises StoreError, the script's as well."""
        rest = (len(keys), *keys, *arguments)
        replies = await self.ask([("EVALSHA", script.digest, *rest), *then], key=keys[0], is_fresh=is_fresh)
        if isinstance(replies[0], NoScriptError):
            # A server that was restarted, or another one, has yet to learn it.
            replies = await self.ask([("EVAL", script.text, *rest), *then], key=keys[0], is_fresh=is_fresh)
        if isinstance(replies[0], RedisError):
            raise store_error(replies[0]) from replies[0]
        return replies

    async def nodes(self) -> list[Any]:
        """Return every server that keys are spread over, always in the same order. Raises StoreError."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await self._line.nodes()
        except (RedisError, RedisClusterException, OSError) as error:
            raise store_error(error) from error

    async def close(self) -> None:
        """Close all connections. Raises nothing."""
        with suppress(RedisError, RedisClusterException, OSError):
            async with asyncio.timeout(self._timeout_s):
                await self._line.close()


class _ServerLine:
    """One server, the one that Sentinels name as a master, or a socket."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._sentinels: _Sentinels | None = None
        # When each connection was made, as the number of times that all had become doubtful; the pool keeps all that it makes.
        self._made: dict[Any, int] = {}
        self._generation = 0
        # No timeout of the library's own: `attempt` bounds the whole, which costs a fifth less and, before Python 3.12, is safer,
        # since its asyncio.wait_for around each write may swallow a cancellation (cpython#86296).
        settings: dict[str, Any] = {
            **_settings(address),
            "db": address.db,
            "socket_timeout": None,
            "socket_connect_timeout": timeout_s,
            "max_connections": CONNECTIONS_MAX,
        }
        if address.kind is Kind.SENTINEL:
            self._sentinels = _Sentinels(address, timeout_s)
            self._pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # the library is half typed
                address.service, self._sentinels, ssl=address.tls is not None, **settings
            )
        elif address.kind is Kind.SOCKET:
            self._pool = ConnectionPool(UnixDomainSocketConnection, path=address.path, **settings)
        else:
            host, port = address.hosts[0]
            self._pool = ConnectionPool(SSLConnection if address.tls else Connection, host=host, port=port, **settings)

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:  # noqa: ARG002  one server has all keys
        if is_fresh:
            self._distrust()
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # the library is half typed
                try:
                    made = self._made.get(connection, self._generation)
                    self._made[connection] = self._generation
                    if made != self._generation:
                        await connection.disconnect(nowait=True)
                        await connection.connect()
                    return await _exchange(connection, commands)
                finally:
                    if not connection.is_connected:
                        del self._made[connection]
                    await self._pool.release(connection)
        except (TimeoutError, RedisTimeoutError):
            self._distrust()
            raise

    def _distrust(self) -> None:
        """Have every connection made anew when it is next used.

        One that hangs tells that the host is gone or, of a Sentinel set, that another one is the master, so that the idle ones
        would hang as well, one question after the other.
        """
        self._generation += 1
        if self._sentinels is not None:
            self._sentinels.turn()

    async def nodes(self) -> list[Any]:
        return [None]

    async def close(self) -> None:
        await self._pool.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()


async def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    replies: list[Any] = []
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
    except RedisConnectionError as error:
        # Its subclasses are answers: a wrong password, a server that is loading.
        if type(error) is RedisConnectionError:
            raise _Broke from error
        raise
    return replies


class _Sentinels(Sentinel):
    """Who knows the master. Each is asked for a share of the time only, so that one that hangs does not hide the others."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        share_s = timeout_s / (len(address.hosts) + 1)
        settings = {
            **_settings(address),
            "username": address.sentinel_user or None,
            "password": address.sentinel_password or None,
            "ssl": address.tls is not None,
            "socket_timeout": share_s,
            "socket_connect_timeout": share_s,
        }
        super().__init__(list(address.hosts), sentinel_kwargs=settings)  # type: ignore[no-untyped-call]  # the library is half typed

    def turn(self) -> None:
        """Ask another one first: this one may be cut off from the others and name a master of the past."""
        self.sentinels.append(self.sentinels.pop(0))

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master as the first Sentinel that answers has them.

        Raises MasterNotFoundError; AuthenticationError where that is why, which the library's own method does not tell.
        Source: redis.io, "Redis Sentinel client spec".
        """
        refusal: RedisError | None = None
        for number, sentinel in enumerate(self.sentinels):
            try:
                found: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
            except (AuthenticationError, NoPermissionError) as error:
                refusal = error
                continue
            except (RedisConnectionError, RedisTimeoutError, ResponseError):
                continue
            if found:
                self.sentinels.insert(0, self.sentinels.pop(number))
                host, port = found
                return host.decode() if isinstance(host, bytes) else host, int(port)
        raise refusal or MasterNotFoundError(f"no Sentinel that answers knows a master of the name {service_name}")


class _ClusterLine:
    """A Cluster; which server has a key, and where keys move to, is the client library's business."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client: RedisCluster | None = None

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:  # noqa: ARG002  the library makes new connections by itself
        client = self._made()
        try:
            await client.initialize()
            if len(commands) == 1:
                return [await _reply(client, commands[0], node)]
            target = node or (client.get_node_from_key(key) if key else None)
            pipeline = client.pipeline()
            for command in commands:
                pipeline.execute_command(*command, **({} if target is None else {"target_nodes": target}))
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except RedisClusterException:
            await self._forget(client)
            raise
        except RedisConnectionError as error:
            if type(error) is RedisConnectionError:
                raise _Broke from error
            raise
        broken = next((one for one in replies if isinstance(one, RedisConnectionError | RedisTimeoutError)), None)
        if broken is not None:
            # A pipeline does not make the library look for the servers again.
            await self._forget(client)
            raise _Broke from broken
        return replies

    async def nodes(self) -> list[Any]:
        client = self._made()
        try:
            await client.initialize()
        except RedisClusterException:
            await self._forget(client)
            raise
        return sorted(client.get_primaries(), key=lambda node: str(node.name))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _made(self) -> RedisCluster:
        """Return the client; a new one begins with the servers that the operator has named, whose addresses may have changed."""
        if self._client is None:
            settings = {**_settings(self._address), "ssl": self._address.tls is not None}
            self._client = RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in self._address.hosts],
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                max_connections=CONNECTIONS_MAX,
                **settings,
            )
        return self._client

    async def _forget(self, client: RedisCluster) -> None:
        if self._client is client:
            self._client = None
        with suppress(RedisError, OSError):
            await client.aclose()


async def _reply(client: RedisCluster, command: Command, node: ClusterNode | None) -> Any:
    try:
        # What is meant for one server is not sent on to another, and its reply not put together with others'.
        return await (client if node is None else node).execute_command(*command)
    except ResponseError as error:
        return error


def _settings(address: RedisAddress) -> dict[str, Any]:
    """Return what is the same for every connection: who we are, TLS, and that the library asks nothing twice.

    RESP 2, because RESP 3 begins with one more round trip.
    """
    settings: dict[str, Any] = {
        "username": address.user or None,
        "password": address.password or None,
        "client_name": CLIENT_NAME,
        "driver_info": None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.tls is not None:
        settings |= {
            "ssl_ca_certs": address.tls.ca or None,
            "ssl_certfile": address.tls.cert or None,
            "ssl_keyfile": address.tls.key or None,
            "ssl_cert_reqs": "required" if address.tls.verify else "none",
            "ssl_check_hostname": address.tls.verify,
        }
    return settings


def _check_files(tls: Tls | None) -> None:
    """Raise StoreError where a file of TLS cannot be used, which an operator should learn at the start."""
    if tls is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, path in (("ca", tls.ca), ("cert", tls.cert)):
        try:
            if path and option == "ca":
                context.load_verify_locations(path)
            elif path:
                # A password, though an empty one, keeps OpenSSL from asking for one at the terminal.
                context.load_cert_chain(path, tls.key or None, password="")
        except OSError as error:
            raise StoreError(Loss.REFUSED, f"{option}={path}: {error.strerror or 'not usable'}") from error
