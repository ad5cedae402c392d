"""Plays of servers that are not the ones they were: hung, of another kind, named by Sentinels that do not help."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from support.redis_server import MASTER_NAME, RedisServer, Sentinel, free_port
from support.redis_stage import is_lost, linked, silent_server
from understudy.sessions.redis_lines import heed
from understudy.sessions.store import Loss


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(is_tcp=True) as server:
        yield server


async def test_after_one_connection_has_hung_no_other_one_is_tried_as_it_is() -> None:
    """A host that is gone closes nothing; without this each idle connection would cost one question its time."""
    with RedisServer(is_tcp=True) as server:
        async with linked(server.url, timeout_s=0.3) as link:
            await asyncio.gather(*(link.ask([("PING",)]) for _ in range(5)))
            server.freeze()
            await is_lost(Loss.SLOW, link.ask([("PING",)]))
            server.thaw()
            before = server.ask("INFO", "stats")["total_connections_received"]
            for _ in range(5):
                await link.ask([("PING",)])
            used = server.ask("INFO", "stats")["total_connections_received"] - before
            assert used == 2, "one for the first question, which the others used again, and this one"


async def test_a_server_that_is_no_cluster_is_for_an_operator(redis: RedisServer) -> None:
    async with linked(f"redis+cluster://127.0.0.1:{redis.port}") as link:
        await is_lost(Loss.REFUSED, link.ask([("GET", "k")], key="k"))
        await is_lost(Loss.REFUSED, link.nodes())


async def test_a_sentinel_that_hangs_or_is_gone_does_not_hide_one_that_answers(redis: RedisServer) -> None:
    async with silent_server() as silent:
        with Sentinel(redis.port) as sentinel:
            hosts = f"127.0.0.1:{silent},127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
            async with linked(f"redis+sentinel://{hosts}/{MASTER_NAME}", timeout_s=0.8) as link:
                assert await link.ask([("PING",)]) == [b"PONG"]
            async with linked(f"redis+sentinel://{hosts}/another") as link:
                assert "another" in (await is_lost(Loss.UNAVAILABLE, link.ask([("PING",)]))).detail


async def test_a_sentinel_that_wants_a_password_is_for_an_operator(redis: RedisServer) -> None:
    with Sentinel(redis.port) as sentinel:
        sentinel.ask("ACL SETUSER", "watcher", "on", ">seen", "+@all")
        sentinel.ask("ACL SETUSER", "default", "-@all", "+client|setname")
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER_NAME}"
        async with linked(url) as link:
            await is_lost(Loss.REFUSED, link.ask([("PING",)]))
        async with linked(f"{url}?sentinel_user=watcher&sentinel_password=seen") as link:
            assert await link.ask([("PING",)]) == [b"PONG"]


async def test_a_cancellation_that_the_library_swallows_isheeded() -> None:
    async def write() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "written"

    task = asyncio.ensure_future(heed(write()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await heed(asyncio.sleep(0, "read")) == "read"
