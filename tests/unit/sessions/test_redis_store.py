"""Plays of conversations in a real Redis: who has a session, what is kept, and what becomes of it when things go wrong."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from support.redis_server import RedisServer
from support.redis_stage import CODEC, SESSION, Reports, is_lost, made, opened, recovered, said, say, soon, texts_in, texts_of
from understudy.sessions.record import Codec, Format
from understudy.sessions.redis_store import POLL_S_MAX, RedisStore
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, SessionStore, StoreError

NAME = CODEC.name(SESSION)
KEY, LOCK, CORRUPT = (f"understudy:{{{NAME}}}:{kind}" for kind in ("s", "l", "corrupt"))


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    redis_server.ask("FLUSHALL")
    return redis_server


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    async with opened(redis.url) as one:
        yield one


# --- kept and read


async def test_what_is_kept_is_there_for_the_next_hold_and_for_a_reader(store: RedisStore, redis: RedisServer) -> None:
    contract: SessionStore = store
    hold = await contract.hold(SESSION, 0)
    assert (hold.conversation, hold.loss) == (None, None)
    assert await store.read(SESSION) is None
    await hold.keep(said("one"), is_last=False)
    await hold.keep(said("one", "two"))
    await hold.release()
    found = await store.read(SESSION)
    assert found is not None
    summary, conversation = found
    assert conversation == said("one", "two")
    assert (summary.session, summary.revision, summary.messages) == (SESSION, 2, 2)
    assert summary.size_bytes == redis.ask("HSTRLEN", KEY, "h") + redis.ask("HSTRLEN", KEY, "b")
    again = await store.hold(SESSION, 0)
    assert again.conversation == conversation
    await again.release()
    assert redis.ask("KEYS", "*") == [KEY.encode()]


async def test_an_exchange_costs_one_round_trip_to_hold_and_one_to_keep_and_let_go(store: RedisStore, redis: RedisServer) -> None:
    await say(store, "the scripts are known from here on")
    redis.ask("CONFIG RESETSTAT")
    await say(store, "again")
    calls = redis.calls()
    assert calls["evalsha"] == 2
    # What is called within the scripts; all else would be a round trip.
    within = {"get", "hmget", "set", "hset", "pexpire", "del", "evalsha"}
    assert set(calls) - within <= {"config|resetstat", "info"}


async def test_a_conversation_that_has_not_changed_for_its_ttl_is_gone(redis: RedisServer) -> None:
    async with opened(redis.url, ttl_s=0.3) as store:
        await say(store, "soon forgotten")
        await soon(lambda: not redis.ask("EXISTS", KEY), "the session has expired")
        assert await store.read(SESSION) is None
        store.ttl_s = 5000.0
        await say(store, "kept longer")
        assert redis.ask("PTTL", KEY) > 4_000_000


async def test_a_deleted_session_is_gone_and_its_holder_meets_a_conflict_with_nothing(store: RedisStore) -> None:
    await say(store, "one")
    hold = await store.hold(SESSION, 0)
    assert await store.delete(SESSION)
    assert not await store.delete(SESSION)
    with pytest.raises(Conflict) as raised:
        await hold.keep(said("one", "two"))
    assert raised.value.current is None
    await hold.keep(said("anew"))
    await hold.release()
    assert await texts_in(store) == ["anew"]


async def test_what_somebody_else_has_written_is_a_conflict_and_the_hold_goes_on(store: RedisStore) -> None:
    hold = await store.hold(SESSION, 0)
    await hold.keep(said("one"), is_last=False)
    for revision in (1, 3):
        with pytest.raises(Conflict) as raised:
            await hold.keep(said("other", revision=revision))
        assert texts_of(raised.value.current) == ["one"]
    await hold.keep(said("one", "two"))
    await hold.release()


# --- one at a time


async def test_another_store_waits_for_its_turn_and_gets_it(store: RedisStore, redis: RedisServer) -> None:
    async with opened(redis.url) as other:
        hold = await store.hold(SESSION, 0)
        with pytest.raises(HeldElsewhere):
            await other.hold(SESSION, 0)
        with pytest.raises(HeldElsewhere):
            await other.hold(SESSION, 0.05)
        waiting = asyncio.ensure_future(other.hold(SESSION, 10.0))
        await hold.keep(said("one"))
        theirs = await asyncio.wait_for(waiting, 10 * POLL_S_MAX)
        assert texts_of(theirs.conversation) == ["one"], "the last keep lets others have it"
        await hold.release()
        assert redis.ask("EXISTS", LOCK), "a hold that ends takes away nobody else's lock"
        await theirs.release()
        assert not redis.ask("EXISTS", LOCK)


async def test_two_holds_of_one_store_keep_each_other_off_as_well(store: RedisStore) -> None:
    hold = await store.hold(SESSION, 0)
    with pytest.raises(HeldElsewhere):
        await store.hold(SESSION, 0)
    await hold.release()
    await (await store.hold(SESSION, 0)).release()


async def test_many_writers_in_two_stores_lose_nothing_and_double_nothing(store: RedisStore, redis: RedisServer) -> None:
    async with opened(redis.url) as other:
        texts = [f"text {number}" for number in range(12)]
        await asyncio.gather(*(say((store, other)[number % 2], text) for number, text in enumerate(texts)))
    assert sorted(await texts_in(store)) == sorted(texts)


async def test_the_lock_of_a_long_answer_is_extended(redis: RedisServer) -> None:
    async with opened(redis.url, lease_s=0.6) as store:
        hold = await store.hold(SESSION, 0)
        left_ms = [redis.ask("PTTL", LOCK)]

        def is_extended() -> bool:
            left_ms.append(int(redis.ask("PTTL", LOCK)))
            rises = [after for before, after in pairwise(left_ms) if after > before]
            return len(rises) >= 3

        await soon(is_extended, "the lock was extended three times")
        assert min(left_ms) > 0
        await hold.release()


async def test_the_lock_of_a_holder_that_is_gone_runs_out(store: RedisStore, redis: RedisServer) -> None:
    async with opened(redis.url, lease_s=0.3) as gone:
        await gone.hold(SESSION, 0)
    with pytest.raises(HeldElsewhere):
        await store.hold(SESSION, 0)
    await (await store.hold(SESSION, 5.0)).release()


async def test_a_hold_whose_lock_was_lost_goes_on_and_the_revision_guards_the_session(redis: RedisServer) -> None:
    async with opened(redis.url, lease_s=0.3) as store, opened(redis.url) as other:
        hold = await store.hold(SESSION, 0)
        redis.ask("DEL", LOCK)
        theirs = await other.hold(SESSION, 0)
        await soon(lambda: not store._locked, "the store has noticed")
        await theirs.keep(said("theirs"))
        with pytest.raises(Conflict):
            await hold.keep(said("ours"))
        await hold.keep(said("theirs", "ours"))
        await asyncio.gather(hold.release(), theirs.release())
        assert await texts_in(store) == ["theirs", "ours"]


async def test_a_hold_that_is_given_up_while_it_waits_leaves_nothing_behind(store: RedisStore, redis: RedisServer) -> None:
    async with opened(redis.url) as other:
        hold = await other.hold(SESSION, 0)
        redis.ask("CONFIG RESETSTAT")
        waiting = asyncio.ensure_future(store.hold(SESSION, 30.0))
        await soon(lambda: redis.calls().get("evalsha") or redis.calls().get("eval"), "it has asked")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await hold.release()
        assert not store._claims
        assert not redis.ask("EXISTS", LOCK)


# --- what is in the way


async def test_a_lock_whose_release_was_lost_is_no_obstacle_to_its_own_store(redis: RedisServer) -> None:
    async with opened(redis.url, timeout_s=0.2) as store, opened(redis.url) as other:
        hold = await store.hold(SESSION, 0)
        redis.freeze()
        await hold.release()
        redis.thaw()
        redis.ask("SET", LOCK, hold.token, "PX", 60_000)
        with pytest.raises(HeldElsewhere):
            await other.hold(SESSION, 0)
        await (await recovered(store)).release()


async def test_a_redis_that_hangs_is_slow_in_time_and_a_keep_that_it_heard_is_no_conflict_afterwards(redis: RedisServer) -> None:
    async with opened(redis.url, timeout_s=0.3) as store:
        hold = await store.hold(SESSION, 0)
        await hold.keep(said("one"), is_last=False)
        redis.freeze()
        await is_lost(Loss.SLOW, hold.keep(said("one", "two"), is_last=False), within_s=0.9)
        await is_lost(Loss.SLOW, store.hold("another", 0), within_s=0.9)
        redis.thaw()
        await soon(lambda: redis.ask("HGET", KEY, "r") == b"2", "Redis has written what it was sent while it hung")
        await hold.keep(said("one", "two", "and a half", revision=2))
        await hold.release()
        assert await texts_in(store) == ["one", "two", "and a half"]


async def test_a_redis_out_of_memory_is_full_and_still_read(redis: RedisServer, store: RedisStore) -> None:
    await say(store, "one")
    redis.ask("CONFIG SET", "maxmemory", 1)
    hold = await store.hold(SESSION, 0)
    assert (texts_of(hold.conversation), hold.loss) == (["one"], Loss.FULL)
    await is_lost(Loss.FULL, hold.keep(said("one", "two")))
    await hold.release()
    redis.ask("CONFIG SET", "maxmemory", 0)
    await say(store, "two")
    assert await texts_in(store) == ["one", "two"]


async def test_a_replica_is_read_only_and_without_its_master_unavailable_where_it_is_told_so(
    redis: RedisServer, store: RedisStore
) -> None:
    await say(store, "one")
    try:
        redis.ask("REPLICAOF", "127.0.0.1", 1)
        hold = await store.hold(SESSION, 0)
        assert (texts_of(hold.conversation), hold.loss) == (["one"], Loss.READ_ONLY)
        await is_lost(Loss.READ_ONLY, hold.keep(said("one", "two")))
        await hold.release()
        await is_lost(Loss.READ_ONLY, store.delete(SESSION))
        redis.ask("CONFIG SET", "replica-serve-stale-data", "no")
        await is_lost(Loss.UNAVAILABLE, store.hold(SESSION, 0))
    finally:
        redis.ask("REPLICAOF", "NO", "ONE")
        redis.ask("CONFIG SET", "replica-serve-stale-data", "yes")


async def test_another_type_at_the_key_is_for_an_operator(store: RedisStore, redis: RedisServer) -> None:
    redis.ask("SET", KEY, "somebody else's")
    for doing in (store.hold(SESSION, 0), store.read(SESSION)):
        assert "WRONGTYPE" in (await is_lost(Loss.REFUSED, doing)).detail
    assert redis.ask("GET", KEY) == b"somebody else's"
    assert not redis.ask("EXISTS", LOCK)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (("b", '{"messages":[]}'), "torn"),
        (("h", "junk"), "foreign"),
        (("r", "7"), "corrupted"),
        (("r", "x"), "corrupted"),
    ],
)
async def test_a_record_that_cannot_be_read_is_set_aside(redis: RedisServer, fields: tuple[str, str], reason: str) -> None:
    reports: Reports = []
    async with opened(redis.url, reports) as store:
        await say(store, "one")
        redis.ask("HSET", KEY, *fields)
        await is_lost(Loss.UNREADABLE, store.read(SESSION))
        assert (await store.page("", 10)).summaries == () or fields[0] != "h"
        hold = await store.hold(SESSION, 0)
        assert (hold.conversation, hold.loss) == (None, Loss.UNREADABLE)
        assert reports == [("session.set_aside", {"file": NAME[:12], "reason": reason})]
        await hold.keep(said("anew"))
        await hold.release()
        assert await texts_in(store) == ["anew"]
        assert redis.ask("PTTL", CORRUPT) > 0
        assert (await store.sweep()).set_aside == 1


async def test_what_a_user_of_redis_may_not_do_is_for_an_operator(redis: RedisServer) -> None:
    redis.ask("ACL SETUSER", "no-set", "on", ">pw", "~*", "+@all", "-set")
    redis.ask("ACL SETUSER", "no-rename", "on", ">pw", "~*", "+@all", "-rename")
    reports: Reports = []
    async with opened(redis.url.replace("//", "//no-set:pw@")) as store:
        assert "can't run this command" in (await is_lost(Loss.REFUSED, store.hold(SESSION, 0))).detail
    redis.ask("HSET", KEY, "r", 1, "h", "junk", "b", "junk")
    async with opened(redis.url.replace("//", "//no-rename:pw@"), reports) as store:
        await is_lost(Loss.REFUSED, store.hold(SESSION, 0))
        assert (reports, redis.ask("EXISTS", LOCK), store._claims) == ([], 0, {})
        redis.ask("DEL", KEY)
        hold = await store.hold(SESSION, 0)
        redis.ask("HSET", KEY, "r", 7, "h", "junk", "b", "junk")
        await is_lost(Loss.UNREADABLE, hold.keep(said("one")))
        await hold.release()


async def test_too_few_replicas_are_told_though_the_master_has_it(redis: RedisServer) -> None:
    async with opened(redis.url + "?replicas=1", timeout_s=0.6) as store:
        hold = await store.hold(SESSION, 0)
        assert "replicas" in (await is_lost(Loss.UNAVAILABLE, hold.keep(said("one")))).detail
        await is_lost(Loss.UNAVAILABLE, hold.keep(said("one")))
        await hold.release()
        assert await texts_in(store) == ["one"]


async def test_a_redis_that_is_not_there_yet_does_not_keep_the_store_from_opening() -> None:
    with RedisServer() as server:
        server.kill()
        async with opened(server.url) as store:
            await is_lost(Loss.UNAVAILABLE, store.hold(SESSION, 5.0), within_s=1.0)
            server.start()
            await say(store, "one")
            assert await texts_in(store) == ["one"]
        await is_lost(Loss.UNAVAILABLE, store.hold(SESSION, 0))


async def test_without_the_package_an_operator_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis_link", "redis_lines"):
        monkeypatch.delitem(sys.modules, f"understudy.sessions.{name}")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(StoreError, match=r"^refused: redis is not installed: pip install 'understudy\[redis\]'$"):
        await made("redis://127.0.0.1:1").open()


# --- all sessions


async def test_a_listing_has_every_session_and_nothing_else(redis: RedisServer) -> None:
    opening = opened(redis.url, prefix="u*[s]?:", timeout_s=10.0), opened(redis.url, prefix="users:", timeout_s=10.0)
    async with opening[0] as store, opening[1] as other:
        wanted = {f"session {number}" for number in range(120)}
        await asyncio.gather(*(say(store, "hello", session) for session in wanted), say(other, "hello", "not ours"))
        for number in range(500):
            redis.ask("SET", f"foreign {number}", "x")
        hold = await store.hold("session 1", 0)
        found: list[str] = []
        cursor, pages = "", 0
        while cursor or not pages:
            page = await store.page(cursor, 20)
            found += [summary.session for summary in page.summaries]
            cursor, pages = page.cursor, pages + 1
        assert pages > 2
        assert set(found) == wanted
        assert len((await store.page("", 1000)).summaries) == 120
        for nonsense in ("x", "1", "9.0", "0.x", "../..", "0.99999999999999999999999"):
            assert (await store.page(nonsense, 20)).cursor == ""
        await hold.release()
        await asyncio.gather(*(store.delete(session) for session in wanted))
        assert (await store.page("", 1)).summaries == ()


async def test_a_sweep_counts_what_is_there(store: RedisStore, redis: RedisServer) -> None:
    for number in range(30):
        await say(store, "hello", f"session {number}")
    page = await store.page("", 1000)
    swept = await store.sweep()
    assert (swept.sessions, swept.expired, swept.set_aside) == (30, 0, 0)
    assert swept.size_bytes == sum(summary.size_bytes for summary in page.summaries)


async def test_an_encrypted_conversation_shows_neither_its_text_nor_its_session(redis: RedisServer) -> None:
    async with opened(redis.url, codec=Codec(Format.MSGPACK, b"k" * 32)) as store:
        await say(store, "a secret text", "secret session")
        (key,) = redis.ask("KEYS", "*")
        written = key + b"".join(redis.ask("HVALS", key))
        assert b"secret" not in written
        assert NAME.encode() not in written
        assert [one.session for one in (await store.page("", 10)).summaries] == ["secret session"]
