"""What the scripts answer, asked of a real Redis without the store."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from support.redis_server import RedisServer
from understudy.sessions.redis_scripts import EXTEND, HELD, HOLD, KEEP, RELEASE, SET_ASIDE, Script, loss_of_reply
from understudy.sessions.store import Loss

SESSION, LOCK = "u:{n}:s", "u:{n}:l"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    redis_server.ask("FLUSHALL")
    return redis_server


def run(redis: RedisServer, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
    return redis.ask("EVAL", script.text, len(keys), *keys, *arguments)


def hold(redis: RedisServer, store: str, number: int, *, takes_over: bool = False) -> Any:
    return run(redis, HOLD, (SESSION, LOCK), store, number, 10_000, int(takes_over))


def keep(redis: RedisServer, revision: int, body: str, *, token: str = "a.1", write: int = 1, first: int = 0) -> Any:
    arguments = (revision - 1, revision, "head", body, 60_000, token, write, first or write, 0)
    return run(redis, KEEP, (SESSION, LOCK), *arguments)


def test_the_digest_is_the_one_that_redis_has(redis: RedisServer) -> None:
    for script in (HOLD, KEEP, RELEASE, EXTEND, SET_ASIDE):
        assert redis.ask("SCRIPT LOAD", script.text) == script.digest


def test_a_lock_is_had_by_one_and_let_go_by_that_one_only(redis: RedisServer) -> None:
    assert hold(redis, "a", 1) == [HELD, b"", None, None, None]
    assert hold(redis, "b", 1) == [0]
    assert run(redis, RELEASE, (LOCK,), "b.1") == 0
    assert run(redis, EXTEND, (LOCK,), "b.1", 99_000) == 0
    assert run(redis, EXTEND, (LOCK,), "a.1", 99_000) == 1
    assert redis.ask("PTTL", LOCK) > 90_000
    assert run(redis, RELEASE, (LOCK,), "a.1") == 1
    assert hold(redis, "b", 1)[0] == HELD


def test_what_an_earlier_hold_of_the_same_store_left_is_taken_over_but_nothing_newer(redis: RedisServer) -> None:
    hold(redis, "a", 9)
    assert hold(redis, "a", 10) == [0]
    assert hold(redis, "aa", 10, takes_over=True) == [0]
    assert hold(redis, "a", 8, takes_over=True) == [0], "one that comes late takes nothing over"
    assert hold(redis, "a", 9)[0] == HELD, "the same one, asked again"
    assert hold(redis, "a", 10, takes_over=True)[0] == HELD
    assert redis.ask("GET", LOCK) == b"a.10"
    redis.ask("SET", LOCK, "a.somebody")
    assert hold(redis, "a", 11, takes_over=True) == [0]


def test_a_keep_follows_the_revision_that_is_there(redis: RedisServer) -> None:
    assert keep(redis, 2, "early") == [None, None, None]
    assert keep(redis, 1, "first") == 1
    assert 0 < redis.ask("PTTL", SESSION) <= 60_000
    assert keep(redis, 1, "other", token="b.1") == [b"1", b"head", b"first"]
    assert keep(redis, 2, "second", token="b.1") == 1
    assert redis.ask("HGET", SESSION, "b") == b"second"


def test_a_write_that_may_have_arrived_is_written_over_by_its_own_hold_alone(redis: RedisServer) -> None:
    keep(redis, 1, "lost answer", write=1)
    assert keep(redis, 1, "lost answer", write=1) == 1, "sent again over a new connection"
    assert keep(redis, 1, "other", token="a.2", write=2, first=1)[0] == b"1"
    assert keep(redis, 1, "again", write=3, first=1) == 1
    assert keep(redis, 1, "late", write=2, first=1)[2] == b"again", "one that comes late writes over nothing newer"
    assert keep(redis, 1, "not ours to doubt", write=4, first=4)[2] == b"again"


def test_errors_keep_their_code(redis: RedisServer) -> None:
    redis.ask("SET", SESSION, "no hash")
    with pytest.raises(ResponseError, match=r"^WRONGTYPE"):
        hold(redis, "a", 1)
    with pytest.raises(ResponseError, match=r"^WRONGTYPE"):
        keep(redis, 1, "body")
    assert redis.ask("EXISTS", LOCK) == 0, "a session that cannot be read is not locked"


def test_what_is_set_aside_makes_room_and_runs_out(redis: RedisServer) -> None:
    assert run(redis, SET_ASIDE, (SESSION, "u:{n}:corrupt"), 60_000) == 0
    for body in ("older", "newer"):
        keep(redis, 1, body)
        assert run(redis, SET_ASIDE, (SESSION, "u:{n}:corrupt"), 60_000) == 1
    assert redis.ask("HGET", "u:{n}:corrupt", "b") == b"newer"
    assert redis.ask("PTTL", "u:{n}:corrupt") > 0
    assert redis.ask("EXISTS", SESSION) == 0


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", Loss.FULL),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Loss.FULL),
        ("@user_script: 10: -READONLY You can't write against a read only replica.", Loss.READ_ONLY),
        ("READONLY You can't write against a read only replica.", Loss.READ_ONLY),
        ("MISCONF Errors writing to the AOF file: No space left on device", Loss.READ_ONLY),
        ("NOREPLICAS Not enough good replicas to write.", Loss.READ_ONLY),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Loss.REFUSED),
        ("NOPERM this user has no permissions", Loss.REFUSED),
        ("ERR unknown command 'EVALSHA'", Loss.REFUSED),
        ("BUSY Redis is busy running a script.", Loss.SLOW),
        ("SOMETHING new", Loss.UNAVAILABLE),
        ("", Loss.UNAVAILABLE),
    ],
)
def test_an_error_means_what_its_code_says(text: str, loss: Loss) -> None:
    assert loss_of_reply(text) is loss
