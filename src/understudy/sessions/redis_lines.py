"""Reach Redis: one server, the one that Sentinels name, or a Cluster, each over connections that are made anew when in doubt.

Used by sessions.redis_link, which bounds the time and says what an error means. Sends what it is given, knows no session, and
asks nothing twice; sends the library's errors on as they are.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Connection, ConnectionPool, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from understudy.sessions.redis_address import Kind, RedisAddress
from understudy.sessions.redis_scripts import Command

# Most connections to one server, and most questions at once to one address; others wait, within the bound of their own.
CONNECTIONS_MAX: Final = 64
CLIENT_NAME: Final = "understudy"
# How often the Sentinels are asked whether the master is still the one that we talk to.
WATCH_S: Final = 1.0

_T = TypeVar("_T")


class Broke(Exception):  # noqa: N818  what happened to a connection, told to redis_link
    """A connection broke after it had been made. Its cause is the library's error."""


class Line(Protocol):
    """How to reach one kind of Redis."""

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:
        """Send the commands in one go: to `node`, to the server that has `key`, or each to the one that has its own key.

        Error replies stand among the replies.
        """
        ...

    async def nodes(self) -> list[Any]:
        """Return every server that keys are spread over, always in the same order."""
        ...

    def doubt(self) -> None:
        """Have every connection made anew when it is next used."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


async def heed(question: Awaitable[_T]) -> _T:
    """Await a question, and heed a cancellation that was swallowed on the way.

    The library writes under asyncio.wait_for, which before Python 3.12 forgets that its task was cancelled when the write ends in
    the same moment (cpython#86296). Seen here: of twelve tasks that were cancelled while they wrote, one went on nearly always.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await question
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


class ServerLine:
    """One server, the one that Sentinels name as a master, or a socket."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._master_pool: _MasterPool | None = None
        # When each connection was made, as the number of times that all had become doubtful; the pool keeps all that it makes.
        self._made: dict[Any, int] = {}
        self._generation = 0
        self._watching: asyncio.Task[None] | None = None
        # No timeout of the library's own: `attempt` bounds the whole, and a question costs a fifth less CPU time.
        settings: dict[str, Any] = {
            **_settings(address),
            "db": address.db,
            "socket_timeout": None,
            "socket_connect_timeout": timeout_s,
            "max_connections": CONNECTIONS_MAX,
        }
        if address.kind is Kind.SENTINEL:
            sentinels = _Sentinels(address, timeout_s)
            self._pool: ConnectionPool = _MasterPool(address, sentinels, self._grow_older, settings)
            self._master_pool = self._pool
        elif address.kind is Kind.SOCKET:
            self._pool = ConnectionPool(UnixDomainSocketConnection, path=address.path, **settings)
        else:
            host, port = address.hosts[0]
            self._pool = ConnectionPool(SSLConnection if address.tls else Connection, host=host, port=port, **settings)

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:  # noqa: ARG002  one server has all keys
        """See `Line`."""
        if is_fresh:
            self.doubt()
        if self._master_pool is not None and self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._master_pool), name="sessions.redis.watch")
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
                        self._made.pop(connection, None)
                    await self._pool.release(connection)
        except (TimeoutError, RedisTimeoutError):
            self.doubt()
            raise

    def doubt(self) -> None:
        """See `Line`.

        A connection that hangs tells that the host is gone or, of a Sentinel set, that another one is the master, so that the
        idle ones would hang as well, one question after the other.
        """
        self._grow_older()
        if self._master_pool is not None:
            self._master_pool.sentinels.turn()

    def _grow_older(self) -> None:
        self._generation += 1

    async def _watch(self, pool: "_MasterPool") -> None:
        """Notice that the master is another one while the old one lives: until it is told so it takes what will then be lost."""
        while True:
            await asyncio.sleep(WATCH_S)
            # Whoever asks next is told why there is no answer.
            with suppress(RedisError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    await heed(pool.get_master_address())

    async def nodes(self) -> list[Any]:
        """See `Line`."""
        return [None]

    async def close(self) -> None:
        """See `Line`."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._pool.aclose()
        if self._master_pool is not None:
            await self._master_pool.sentinels.aclose()


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
            raise Broke from error
        raise
    return replies


class _MasterPool(SentinelConnectionPool):
    """Connections to the master. Calls `on_moved` when the Sentinels name another one.

    The library's own pool closes idle connections then, some of which others have taken by the time that they are closed.
    """

    def __init__(
        self, address: RedisAddress, sentinels: "_Sentinels", on_moved: Callable[[], None], settings: dict[str, Any]
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # the library is half typed
            address.service, sentinels, ssl=address.tls is not None, **settings
        )
        self.sentinels = sentinels
        self._on_moved = on_moved
        self._master: tuple[str, int] | None = None

    async def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels; called for each new connection."""
        known, self._master = self._master, await self.sentinels.discover_master(self.service_name)
        if known not in (None, self._master):
            self._on_moved()
        return self._master


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
        for sentinel in tuple(self.sentinels):
            try:
                found: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
            except (AuthenticationError, NoPermissionError) as error:
                refusal = error
                continue
            except (RedisConnectionError, RedisTimeoutError, ResponseError):
                continue
            if found:
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                host, port = found
                return host.decode() if isinstance(host, bytes) else host, int(port)
        raise refusal or MasterNotFoundError(f"no Sentinel that answers knows a master of the name {service_name}")


class ClusterLine:
    """A Cluster; which server has a key, and where keys move to, is the client library's business."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client: RedisCluster | None = None
        self._users: Counter[RedisCluster] = Counter()

    async def attempt(self, commands: Sequence[Command], key: str, node: Any, *, is_fresh: bool) -> list[Any]:
        """See `Line`. New connections are made by the library itself."""
        client = self._take()
        try:
            await client.initialize()
            target = _known(client, node) if node else client.get_node_from_key(key) if key else None
            if len(commands) > 1:
                return await _replies(client, commands, target)
            return [await _reply(client, commands[0], target if node else None)]
        except RedisClusterException:
            self._forget(client)
            raise
        except (RedisConnectionError, RedisTimeoutError) as error:
            is_broken = type(error) is RedisConnectionError
            # Only single commands about keys make the library look for the servers again. A node is asked once more before.
            if len(commands) > 1 if node is None else (is_fresh or not is_broken):
                self._forget(client)
            if is_broken:
                raise Broke from error
            raise
        except AttributeError as error:
            # When the servers' roles change, the library closes connections that are in use, and then writes to None.
            raise Broke from error
        finally:
            await self._put(client)

    async def nodes(self) -> list[Any]:
        """See `Line`: the names of the primaries."""
        client = self._take()
        try:
            await client.initialize()
            return sorted(node.name for node in client.get_primaries())
        except RedisClusterException:
            self._forget(client)
            raise
        finally:
            await self._put(client)

    def doubt(self) -> None:
        """See `Line`. A Cluster's servers tell by themselves who has a key."""

    async def close(self) -> None:
        """See `Line`."""
        client, self._client = self._client, None
        if client is not None and not self._users[client]:
            await _close(client)

    def _take(self) -> RedisCluster:
        """Return the client, to be given back by `_put`.

        A new one begins with the servers that the operator has named, whose addresses may have changed.
        """
        if self._client is None:
            settings = {**_settings(self._address), "ssl": self._address.tls is not None}
            self._client = RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in self._address.hosts],
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                max_connections=CONNECTIONS_MAX,
                **settings,
            )
        self._users[self._client] += 1
        return self._client

    async def _put(self, client: RedisCluster) -> None:
        """Close a client that was forgotten once nobody uses it: whoever does would open its connections again."""
        self._users[client] -= 1
        if not self._users[client]:
            del self._users[client]
            if client is not self._client:
                await _close(client)

    def _forget(self, client: RedisCluster) -> None:
        if self._client is client:
            self._client = None


async def _close(client: RedisCluster) -> None:
    """Close all connections of a client, which by itself closes none while it means to look for the servers again."""
    with suppress(RedisError, OSError):
        await client.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await client.nodes_manager.aclose(nodes)


def _known(client: RedisCluster, name: str) -> ClusterNode:
    node = client.get_node(node_name=name)
    if node is None:
        raise RedisClusterException(f"the cluster has no {name} any more")
    return node


async def _reply(client: RedisCluster, command: Command, node: ClusterNode | None) -> Any:
    try:
        # What is meant for one server is not sent on to another, and its reply not put together with others'.
        return await (client if node is None else node).execute_command(*command)
    except ResponseError as error:
        return error


async def _replies(client: RedisCluster, commands: Sequence[Command], node: ClusterNode | None) -> list[Any]:
    pipeline = client.pipeline()
    for command in commands:
        pipeline.execute_command(*command, **({} if node is None else {"target_nodes": node}))
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisConnectionError | RedisTimeoutError):
            raise reply
    return replies


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
