"""Read where the Redis is that keeps conversations: one server, a socket, a Sentinel set or a Cluster, with TLS or without.

Called by daemon with the text of `sessions.store`, whose form config.store_address has seen; used by sessions.redis_link. Pure:
opens nothing, resolves nothing. No message and no written form of an address shows a user, a password, or anything that might
be one in the wrong place.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
HOSTS_MAX: Final = 64
REPLICAS_MAX: Final = 64

_WANTED: Final = "redis://[USER:PASSWORD@]HOST:PORT/DB"
_WANTED_SENTINEL: Final = "redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE/DB"
_WANTED_CLUSTER: Final = "redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT"
_WANTED_SOCKET: Final = "redis+unix://[USER:PASSWORD@]/PATH?db=DB"
_TLS_OPTIONS: Final = frozenset({"ca", "cert", "key", "verify"})


class Kind(StrEnum):
    """What answers at the address."""

    SERVER = "server"
    SOCKET = "socket"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


# How each kind is written, and the options that it may have besides those of TLS and `replicas`.
_FORMS: Final = {
    "redis": (Kind.SERVER, _WANTED, frozenset[str]()),
    "redis+unix": (Kind.SOCKET, _WANTED_SOCKET, frozenset({"db"})),
    "redis+sentinel": (Kind.SENTINEL, _WANTED_SENTINEL, frozenset({"sentinel_user", "sentinel_password"})),
    "redis+cluster": (Kind.CLUSTER, _WANTED_CLUSTER, frozenset[str]()),
}


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS: files of the authority ("": the system's), of our certificate and its key ("": none)."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is. `hosts`: hosts and ports; of Sentinels where `kind` says so, whose master of the name `service` is meant.

    `path` is a socket's. `replicas`: how many must have a conversation before it counts as kept; 0: the master alone.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    db: int = 0
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    service: str = ""
    sentinel_user: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    path: str = ""
    tls: Tls | None = None
    replicas: int = 0

    def __str__(self) -> str:
        """Say where it is, without users and passwords."""
        if self.kind is Kind.SOCKET:
            return self.path
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)


def read_redis_address(text: str) -> RedisAddress:
    """Read the URL of one or several Redis servers.

    Options follow a `?`: `replicas=N`; of TLS `ca=PATH`, `cert=PATH`, `key=PATH`, `verify=false`; of a Sentinel set
    `sentinel_user=` and `sentinel_password=`; of a socket `db=N`. Whatever a URL must not hold as it is (`@`, `/`, `?`, `#`, `%`)
    is written as %40 and so on. Raises ValueError with words for an operator, who has the text before him.
    """
    scheme, divider, rest = text.partition("://")
    is_tls = scheme.startswith("rediss")
    form = _FORMS.get("redis" + scheme.removeprefix("rediss" if is_tls else "redis")) if scheme.startswith("redis") else None
    if not divider or form is None or (is_tls and form[0] is Kind.SOCKET):
        raise ValueError(f"want {_WANTED} (rediss with TLS, redis+sentinel, redis+cluster, redis+unix)")
    kind, wanted, more_options = form
    if "#" in rest or not text.isprintable() or " " in text:
        raise ValueError(f"want {wanted}; a # or a space in it is written %23 or %20")
    where, _, query = rest.partition("?")
    given = _options(query, more_options | {"replicas"} | (_TLS_OPTIONS if is_tls else frozenset()), wanted)
    credentials, at, place = where.rpartition("@")
    user, password = _credentials(credentials, wanted) if at else ("", "")
    servers, slash, path = place.partition("/")
    service, db = _path(kind, path, given.get("db", ""), wanted)
    return RedisAddress(
        kind,
        hosts=_hosts(kind, servers, wanted),
        db=db,
        user=user,
        password=password,
        service=service,
        sentinel_user=given.get("sentinel_user", ""),
        sentinel_password=given.get("sentinel_password", ""),
        path=unquote(slash + path) if kind is Kind.SOCKET else "",
        tls=_tls(given) if is_tls else None,
        replicas=_number(given.get("replicas", "0"), REPLICAS_MAX, f"replicas=N with N from 0 to {REPLICAS_MAX}"),
    )


def _credentials(text: str, wanted: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon:
        raise ValueError(f"want {wanted}; a password without a user has its colon before it: :PASSWORD@")
    if "@" in password or "/" in text:
        raise ValueError(f"want {wanted}; a @ or / in a password is written %40 or %2F")
    return unquote(user), unquote(password)


def _hosts(kind: Kind, text: str, wanted: str) -> tuple[tuple[str, int], ...]:
    if kind is Kind.SOCKET:
        if text:
            raise ValueError(f"want {wanted} with an absolute path: redis+unix:///run/redis.sock")
        return ()
    hosts = tuple(_host(one, SENTINEL_PORT if kind is Kind.SENTINEL else PORT, wanted) for one in text.split(","))
    if len(hosts) > (1 if kind is Kind.SERVER else HOSTS_MAX):
        several = "several need redis+sentinel:// or redis+cluster://" if kind is Kind.SERVER else f"at most {HOSTS_MAX}"
        raise ValueError(f"want {wanted}; {several}")
    return hosts


def _host(text: str, port: int, wanted: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([\w.-]+))(?::([0-9]{1,5}))?", text, re.ASCII)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ValueError(f"want {wanted}; a port is 1 to 65535, an IPv6 address stands in brackets")
    return found[1] or found[2], int(found[3] or port)


def _path(kind: Kind, text: str, db_option: str, wanted: str) -> tuple[str, int]:
    """Return a Sentinel's name of the master and the number of the database."""
    if kind is Kind.SOCKET:
        if not text:
            raise ValueError(f"want {wanted} with an absolute path: redis+unix:///run/redis.sock")
        return "", _db(db_option, wanted)
    if kind is Kind.SERVER:
        return "", _db(text, wanted)
    if kind is Kind.CLUSTER:
        if text.strip("0"):
            raise ValueError(f"want {wanted}; a cluster has one database only")
        return "", 0
    service, _, db = text.partition("/")
    if not service:
        raise ValueError(f"want {wanted}, with the name that Sentinel has for the master")
    return unquote(service), _db(db, wanted)


def _db(text: str, wanted: str) -> int:
    return _number(text or "0", 2**31 - 1, f"{wanted}; DB is the number of a database")


def _number(text: str, most: int, wanted: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
        raise ValueError(f"want {wanted}")
    return int(text)


def _options(query: str, allowed: frozenset[str], wanted: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for one in query.split("&") if query else ():
        name, sign, value = one.partition("=")
        if name not in allowed or not sign or name in given:
            # A password may hold the ?, so that nothing of what follows it is shown.
            raise ValueError(
                f"want {wanted}; after ? may stand, once each: {', '.join(sorted(allowed))}; a ? in a password is %3F"
            )
        given[name] = unquote(value)
    return given


def _tls(given: dict[str, str]) -> Tls:
    verify = given.get("verify", "true")
    if verify not in {"true", "false"}:
        raise ValueError("want verify=true or verify=false")
    if given.get("key") and not given.get("cert"):
        raise ValueError("want cert=PATH where there is key=PATH")
    return Tls(ca=given.get("ca", ""), cert=given.get("cert", ""), key=given.get("key", ""), verify=verify == "true")
