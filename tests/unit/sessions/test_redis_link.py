"""Plays of questions that get no answer, a wrong one or half of one: what Redis and the network between do, and what is told."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from support.redis_server import RedisServer, free_port
from support.redis_stage import SESSION, is_lost, linked, opened, said, say, silent_server, soon, texts_in
from understudy.sessions.redis_address import read_redis_address
from understudy.sessions.redis_lines import CONNECTIONS_MAX
from understudy.sessions.redis_link import Link, loss_of, store_error
from understudy.sessions.redis_scripts import RELEASE
from understudy.sessions.store import Loss, StoreError

CLUSTER_EXCEPTION = exceptions.RedisClusterException
# As the library reads it.
ERR = exceptions.ResponseError("DB index is out of range", status_code="ERR")


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(is_tcp=True) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    redis_server.ask("FLUSHALL")
    return redis_server


def wrapped(error: Exception, below: BaseException) -> Exception:
    """Return the error as the library raises it over another one."""
    error.__context__ = below
    return error


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (exceptions.TimeoutError("Timeout reading from h:1"), Loss.SLOW),
        (TimeoutError(), Loss.SLOW),
        (exceptions.ConnectionError("Error 111 connecting to h:1"), Loss.UNAVAILABLE),
        (ConnectionResetError(), Loss.UNAVAILABLE),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), Loss.UNAVAILABLE),
        (exceptions.MasterDownError("Link with MASTER is down"), Loss.UNAVAILABLE),
        (exceptions.ClusterDownError("Hash slot not served"), Loss.UNAVAILABLE),
        (exceptions.InvalidResponse("Protocol Error"), Loss.UNAVAILABLE),
        (exceptions.AuthenticationError("invalid username-password pair"), Loss.REFUSED),
        (exceptions.NoPermissionError("no permissions"), Loss.REFUSED),
        (exceptions.OutOfMemoryError("command not allowed"), Loss.FULL),
        (exceptions.ReadOnlyError("You can't write"), Loss.READ_ONLY),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), Loss.REFUSED),
        (exceptions.ResponseError("MISCONF Errors writing"), Loss.READ_ONLY),
        (wrapped(exceptions.ConnectionError("x"), ssl.SSLCertVerificationError("x")), Loss.REFUSED),
        (wrapped(exceptions.ConnectionError("x"), ssl.SSLError("x")), Loss.REFUSED),
        (wrapped(exceptions.ConnectionError("x"), ssl.SSLEOFError("x")), Loss.UNAVAILABLE),
        (wrapped(exceptions.ConnectionError("x"), PermissionError("x")), Loss.REFUSED),
        (wrapped(exceptions.ConnectionError("x"), ConnectionRefusedError("x")), Loss.UNAVAILABLE),
        (CLUSTER_EXCEPTION("All slots are not covered"), Loss.UNAVAILABLE),
        (wrapped(CLUSTER_EXCEPTION("x"), exceptions.AuthenticationError("x")), Loss.REFUSED),
        (wrapped(CLUSTER_EXCEPTION("x"), wrapped(CLUSTER_EXCEPTION("x"), ERR)), Loss.REFUSED),
        (ERR, Loss.REFUSED),
    ],
)
def test_an_error_of_the_library_means_a_loss(error: Exception, loss: Loss) -> None:
    assert loss_of(error) is loss


def test_a_detail_is_one_line_of_bounded_length() -> None:
    assert store_error(TimeoutError()).detail == "no answer in time"
    assert store_error(exceptions.ResponseError("ERR a\r\n  b")).detail == "ERR a b"
    assert len(store_error(exceptions.ResponseError("ERR " + "x" * 9999)).detail) == 300


# --- down and slow


async def test_a_refused_connection_is_unavailable_at_once() -> None:
    async with linked(f"redis://127.0.0.1:{free_port()}", timeout_s=5.0) as link:
        await is_lost(Loss.UNAVAILABLE, link.ask([("PING",)]), within_s=2.0)


async def test_a_server_that_takes_connections_and_says_nothing_is_slow_in_time() -> None:
    async with silent_server() as port:
        for url in (f"redis://127.0.0.1:{port}", f"redis+sentinel://127.0.0.1:{port}/m", f"redis+cluster://127.0.0.1:{port}"):
            async with linked(url, timeout_s=0.2) as link:
                wanted = Loss.UNAVAILABLE if "sentinel" in url else Loss.SLOW
                await is_lost(wanted, link.ask([("GET", "k")], key="k"), within_s=1.0)


async def test_connections_that_a_restart_has_broken_are_made_anew_without_an_error() -> None:
    with RedisServer(is_tcp=True) as server:
        async with linked(server.url) as link:
            await asyncio.gather(*(link.ask([("PING",)]) for _ in range(8)))
            server.kill()
            server.start()
            replies = await asyncio.gather(*(link.ask([("PING",)]) for _ in range(8)))
            assert replies == [[b"PONG"]] * 8


async def test_more_questions_than_connections_wait_their_turn(redis: RedisServer) -> None:
    async with linked(redis.url, timeout_s=20.0) as link:
        before = redis.ask("INFO", "clients")["connected_clients"]
        names = [f"list {number}" for number in range(2 * CONNECTIONS_MAX)]
        questions = asyncio.gather(*(link.ask([("BLPOP", name, 0)]) for name in names))
        await soon(lambda: redis.ask("INFO", "clients")["blocked_clients"] == CONNECTIONS_MAX, "all connections are in use")
        assert redis.ask("INFO", "clients")["connected_clients"] <= before + CONNECTIONS_MAX
        for name in names:
            redis.ask("RPUSH", name, "x")
        assert await questions == [[[name.encode(), b"x"]] for name in names]


async def test_a_question_that_is_given_up_leaves_its_answer_to_nobody_else(redis: RedisServer) -> None:
    async with linked(redis.url, timeout_s=5.0) as link:
        question = asyncio.ensure_future(link.ask([("BLPOP", "list", 5)]))
        await soon(lambda: redis.ask("INFO", "clients")["blocked_clients"] == 1, "it was asked")
        question.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await question
        redis.ask("RPUSH", "list", "late")
        assert await link.ask([("PING",)]) == [b"PONG"]


async def test_a_keep_whose_answer_was_lost_is_asked_again_and_is_no_conflict_with_itself(redis: RedisServer) -> None:
    async with relay(redis.port) as gate, opened(f"redis://127.0.0.1:{gate.port}") as store:
        await say(store, "one")
        hold = await store.hold(SESSION, 0)
        gate.cut_answers = 1
        await hold.keep(said("one", "two"))
        assert gate.cut_answers == 0
        await hold.release()
        gate.cut_answers = 1
        again = await store.hold(SESSION, 0)
        assert again.conversation == said("one", "two")
        await again.release()
        assert await texts_in(store) == ["one", "two"]


async def test_a_connection_that_breaks_twice_is_unavailable(redis: RedisServer) -> None:
    async with relay(redis.port) as gate, opened(f"redis://127.0.0.1:{gate.port}") as store:
        hold = await store.hold(SESSION, 0)
        gate.cut_answers = 9
        await is_lost(Loss.UNAVAILABLE, hold.keep(said("one")))
        gate.cut_answers = 0
        await hold.keep(said("one"))
        await hold.release()
        assert await texts_in(store) == ["one"]


async def test_a_server_that_has_forgotten_a_script_is_taught_it_again(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        assert await link.run(RELEASE, ("k",), ("t",), then=[("PING",)]) == [0, b"PONG"]
        redis.ask("SCRIPT FLUSH")
        assert await link.run(RELEASE, ("k",), ("t",), then=[("PING",)]) == [0, b"PONG"]


# --- refused


async def test_a_password_is_needed_wrong_or_right() -> None:
    with RedisServer({"requirepass": "right"}, is_tcp=True) as server:
        server.ask("ACL SETUSER", "reader", "on", ">pw", "~*", "+get")
        place = f"127.0.0.1:{server.port}"
        for wrong in ("", ":wrong@", "nobody:right@"):
            async with linked(f"redis://{wrong}{place}") as link:
                error = await is_lost(Loss.REFUSED, link.ask([("GET", "k")]))
                assert "right" not in error.detail
        async with linked(f"redis://:right@{place}/3") as link:
            assert await link.ask([("SET", "k", "v"), ("GET", "k")]) == [b"OK", b"v"]
            assert server.ask("INFO", "keyspace")["db3"]["keys"] == 1
        async with linked(f"redis://reader:pw@{place}") as link:
            with pytest.raises(StoreError) as raised:
                await link.run(RELEASE, ("k",), ("t",))
            assert raised.value.loss is Loss.REFUSED
        async with linked(f"redis://:right@{place}/99") as link:
            await is_lost(Loss.REFUSED, link.ask([("GET", "k")]))


async def test_files_of_tls_that_cannot_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    for option in ("ca", "cert"):
        for name in ("missing", "junk"):
            with pytest.raises(StoreError) as raised:
                Link(read_redis_address(f"rediss://h?{option}={tmp_path / name}"), 1.0)
            assert (raised.value.loss, raised.value.detail.startswith(f"{option}={tmp_path / name}")) == (Loss.REFUSED, True)


class Gate:
    """A relay before Redis that, as often as a play says, cuts a connection in place of passing a script's answer on."""

    def __init__(self) -> None:
        self.port = 0
        self.cut_answers = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        """Serve one connection until either side ends it."""
        there, back = await asyncio.open_connection("127.0.0.1", target)
        with contextlib.suppress(OSError):
            while question := await reader.read(65536):
                back.write(question)
                answer = await there.read(65536)
                if self.cut_answers and b"EVAL" in question:
                    self.cut_answers -= 1
                    break
                writer.write(answer)
        for one in (back, writer):
            one.transport.abort()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Gate]:
    """Run a gate before a port."""
    gate = Gate()
    tasks: set[asyncio.Task[Any]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(gate.pass_on(reader, writer, target)))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
