"""Ask Redis within bounds, and say honestly why there is no answer.

Used by sessions.redis_store, which imports this file only when it opens, since the package `redis` is optional. Knows no session.
Asks a second time in one case only: a connection broke after it had been made, as those do whose server was restarted meanwhile.
So whoever asks must bear that the first question has been heard.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

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
from redis.exceptions import TimeoutError as RedisTimeoutError

from understudy.sessions.redis_address import Kind, RedisAddress, Tls
from understudy.sessions.redis_lines import CONNECTIONS_MAX, Broke, ClusterLine, Line, ServerLine, heed
from understudy.sessions.redis_scripts import Command, Script, loss_of_reply
from understudy.sessions.store import Loss, StoreError

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


class Link:
    """Questions to one Redis address, each bounded by about twice `timeout_s`. Raises StoreError where a TLS file is unusable."""

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        _check_files(address.tls)
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        is_cluster = address.kind is Kind.CLUSTER
        self._line: Line = ClusterLine(address, timeout_s) if is_cluster else ServerLine(address, timeout_s)

    async def ask(self, commands: Sequence[Command], *, key: str = "", node: Any = None, is_fresh: bool = False) -> list[Any]:
        """Send commands in one go and return their replies, ResponseErrors among them. Raises StoreError.

        They go to `node`, one of `nodes()`, or to the server that has `key`, or each to the one that has its own key. `is_fresh`:
        over a new connection.
        """
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._room:
                try:
                    return await heed(self._line.attempt(commands, key, node, is_fresh=is_fresh))
                except Broke:
                    return await heed(self._line.attempt(commands, key, node, is_fresh=True))
        except Broke as broke:
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
            error = store_error(replies[0])
            if error.loss is Loss.READ_ONLY:
                self.doubt()
            raise error from replies[0]
        return replies

    def doubt(self) -> None:
        """Whoever answers may not be the right server any more: find out before the next question."""
        self._line.doubt()

    async def nodes(self) -> list[Any]:
        """Return every server that keys are spread over, always in the same order. Raises StoreError."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await heed(self._line.nodes())
        except (RedisError, RedisClusterException, OSError) as error:
            raise store_error(error) from error

    async def close(self) -> None:
        """Close all connections. Raises nothing."""
        with suppress(RedisError, RedisClusterException, OSError):
            async with asyncio.timeout(self._timeout_s):
                await self._line.close()


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
