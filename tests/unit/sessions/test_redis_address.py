"""What an operator writes for Redis, and what of it is told."""

from typing import Any

import pytest

from understudy.sessions.redis_address import Kind, RedisAddress, Tls, read_redis_address

MANY = ",".join(f"host{number}" for number in range(65))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("redis://localhost", {"hosts": (("localhost", 6379),)}),
        ("redis://10.0.0.7:7000/3", {"hosts": (("10.0.0.7", 7000),), "db": 3}),
        ("redis://[fe80::1%eth0]:7000", {"hosts": (("fe80::1%eth0", 7000),)}),
        ("redis://redis_1.internal", {"hosts": (("redis_1.internal", 6379),)}),
        ("redis://:s%40c%2Fret@h/", {"hosts": (("h", 6379),), "password": "s@c/ret"}),
        ("redis://us%65r:a:b@h", {"hosts": (("h", 6379),), "user": "user", "password": "a:b"}),
        ("redis://h?replicas=2", {"hosts": (("h", 6379),), "replicas": 2}),
        ("rediss://h", {"hosts": (("h", 6379),), "tls": Tls()}),
        ("rediss://h?ca=/a%20b&verify=false", {"hosts": (("h", 6379),), "tls": Tls(ca="/a b", verify=False)}),
        ("rediss://h?cert=/c&key=/k", {"hosts": (("h", 6379),), "tls": Tls(cert="/c", key="/k")}),
        ("redis+unix:///run/redis.sock", {"kind": Kind.SOCKET, "path": "/run/redis.sock"}),
        ("redis+unix://u:p@/run/s?db=2", {"kind": Kind.SOCKET, "path": "/run/s", "user": "u", "password": "p", "db": 2}),
        ("redis+sentinel://a/main", {"kind": Kind.SENTINEL, "hosts": (("a", 26379),), "service": "main"}),
        (
            "rediss+sentinel://u:p@a:1,b/main/4?sentinel_user=s&sentinel_password=t%3F&ca=/ca",
            {
                "kind": Kind.SENTINEL,
                "hosts": (("a", 1), ("b", 26379)),
                "service": "main",
                "db": 4,
                "user": "u",
                "password": "p",
                "sentinel_user": "s",
                "sentinel_password": "t?",
                "tls": Tls(ca="/ca"),
            },
        ),
        ("redis+cluster://a,[::1]:2,c:3/0", {"kind": Kind.CLUSTER, "hosts": (("a", 6379), ("::1", 2), ("c", 3))}),
        ("rediss+cluster://a", {"kind": Kind.CLUSTER, "hosts": (("a", 6379),), "tls": Tls()}),
    ],
)
def test_an_address_is_read(text: str, wanted: dict[str, Any]) -> None:
    assert read_redis_address(text) == RedisAddress(**{"kind": Kind.SERVER, **wanted})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis:/h", "want redis://"),
        ("http://h", "want redis://"),
        ("redis+http://h", "want redis://"),
        ("rediss+unix:///run/s", "want redis://"),
        ("redis://", "want redis://"),
        ("redis://h:0", "a port is 1 to 65535"),
        ("redis://h:65536", "a port is 1 to 65535"),
        ("redis://h:6379x", "a port is 1 to 65535"),
        ("redis://::1", "an IPv6 address stands in brackets"),
        ("redis://h:\u0661", "a port is 1 to 65535"),
        ("redis://h/x", "DB is the number of a database"),
        ("redis://h/-1", "DB is the number of a database"),
        ("redis://h/99999999999", "DB is the number of a database"),
        ("redis://a,b", "redis+sentinel:// or redis+cluster://"),
        ("redis+cluster://a/1", "a cluster has one database only"),
        (f"redis+cluster://{MANY}", "at most 64"),
        ("redis+sentinel://a", "the name that Sentinel has for the master"),
        ("redis+sentinel://a//2", "the name that Sentinel has for the master"),
        ("redis+unix://run/redis.sock", "an absolute path"),
        ("redis+unix://", "an absolute path"),
        ("redis://h#0", "written %23"),
        ("redis://h /0", "written %23 or %20"),
        ("redis://secret@h", ":PASSWORD@"),
        ("redis://u:se@cret@h", "written %40"),
        ("redis://u:se/cret@h", "written %40 or %2F"),
        ("redis://u:se?cret@h", "a ? in a password is %3F"),
        ("redis://h?secret=1", "after ? may stand"),
        ("redis://h?ca=/ca", "after ? may stand"),
        ("rediss://h?ca=/a&ca=/b", "once each"),
        ("rediss://h?verify=no", "verify=true or verify=false"),
        ("rediss://h?key=/k", "cert=PATH"),
        ("redis://h?replicas=-1", "replicas=N"),
        ("redis://h?replicas=65", "from 0 to 64"),
        ("redis://h?sentinel_password=secret", "after ? may stand"),
    ],
)
def test_a_mistake_is_told_without_what_may_be_a_secret(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="want ") as raised:
        read_redis_address(text)
    assert told in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "cret" not in str(raised.value)


def test_no_written_form_has_users_and_passwords() -> None:
    address = read_redis_address("redis+sentinel://mallory:hush@[::1],b:1/main?sentinel_user=eve&sentinel_password=quiet")
    for text in (str(address), repr(address), f"{address}"):
        assert not any(word in text for word in ("mallory", "hush", "eve", "quiet"))
    assert str(address) == "[::1]:26379,b:1"
    assert str(read_redis_address("redis+unix://u:p@/run/s")) == "/run/s"
