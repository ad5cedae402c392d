"""What plays about conversations in Redis share: stores over real servers, and conversations that grow by one text at a time."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.talk import kept, user
from understudy.core.conversation import Conversation
from understudy.sessions.record import Codec, Format
from understudy.sessions.redis_address import read_redis_address
from understudy.sessions.redis_link import Link
from understudy.sessions.redis_store import RedisHold, RedisStore
from understudy.sessions.store import Conflict, Loss, StoreError

CODEC = Codec(Format.JSON, None)
SESSION = "a session"
Reports = list[tuple[str, dict[str, object]]]


def made(url: str, reports: Reports | None = None, **more: Any) -> RedisStore:
    """Make a store as the daemon does, for a quick play."""
    settings: dict[str, Any] = {"ttl_s": 60.0, "timeout_s": 1.0, "prefix": "understudy:", **more}
    told: Reports = [] if reports is None else reports
    return RedisStore(
        read_redis_address(url), settings.pop("codec", CODEC), report=lambda event, facts: told.append((event, facts)), **settings
    )


@asynccontextmanager
async def opened(url: str, reports: Reports | None = None, **more: Any) -> AsyncIterator[RedisStore]:
    """Open a store, and close it when its play is over."""
    store = made(url, reports, **more)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def said(*texts: str, revision: int | None = None) -> Conversation:
    """A conversation of these texts; its revision is their number, as if each had been kept."""
    return kept(*map(user, texts), revision=len(texts) if revision is None else revision)


def texts_of(conversation: Conversation | None) -> list[str]:
    """What has been said."""
    return [message.text for message in conversation.messages] if conversation else []


async def texts_in(store: RedisStore, session: str = SESSION) -> list[str]:
    """What the store has of a session."""
    found = await store.read(session)
    return texts_of(found[1]) if found else []


async def say(store: RedisStore, text: str, session: str = SESSION, wait_s: float = 10.0) -> None:
    """Add a text as an exchange does: hold, read, keep; after a conflict with what is there then."""
    hold = await store.hold(session, wait_s)
    try:
        current = hold.conversation
        while True:
            try:
                await hold.keep(said(*texts_of(current), text))
            except Conflict as conflict:
                current = conflict.current
            else:
                return
    finally:
        await hold.release()


async def is_lost(loss: Loss, doing: Any, within_s: float = 5.0) -> StoreError:
    """Await what must fail with this loss, in time; return the error."""
    begun_s = time.monotonic()
    with pytest.raises(StoreError) as raised:
        await doing
    assert raised.value.loss is loss, raised.value
    assert time.monotonic() - begun_s < within_s
    return raised.value


async def soon(is_so: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    """Ask again and again, with the loop free in between, until what `is_so` returns is true; return that."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        # What blocks is not asked on the loop: a server may be frozen.
        found = await (is_so() if inspect.iscoroutinefunction(is_so) else asyncio.to_thread(is_so))
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


async def recovered(store: RedisStore, timeout_s: float = 10.0) -> RedisHold:
    """Hold the session as soon as the store can again."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return await store.hold(SESSION, 5.0)
        except StoreError:
            assert time.monotonic() < deadline_s, "the store has not recovered by itself"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def linked(url: str, timeout_s: float = 0.5) -> AsyncIterator[Link]:
    """Make a link, and close it when its play is over."""
    link = Link(read_redis_address(url), timeout_s)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Take connections, say nothing."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in taken:
            writer.transport.abort()
