"""Read and write where conversations are kept: nowhere, in a folder of files, or in Redis.

Called by config.schema for `sessions.store`. Looks at the form only: what a Redis URL says in detail is read by
sessions.redis_address, which daemon calls with its text. Pure: opens nothing. No message and no written form of this module
contains a password.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from understudy.config.quantities import Unreadable, scalar_text

STORE_WANTED: Final = "none, file:/absolute/path or redis://HOST:PORT/DB (also rediss, redis+sentinel, redis+cluster, redis+unix)"
REDIS_PATTERN: Final = r"(rediss?(\+(sentinel|cluster))?|redis\+unix)://[\x21-\x7e]+"
STORE_PATTERN: Final = rf"none|file:(//)?/.+|{REDIS_PATTERN}"

_REDIS_LENGTH_MAX: Final = 4096
# Options that hold no secret.
_PLAIN_OPTIONS: Final = frozenset({"ca", "cert", "db", "key", "replicas", "verify"})


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A folder of files; `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """One or several Redis servers, or one's socket. `text` is the URL as written, passwords included; str() leaves them out."""

    text: str = field(repr=False)

    def __str__(self) -> str:
        scheme, _, rest = self.text.partition("://")
        user, at, servers = rest.rpartition("@")
        servers, mark, options = servers.partition("?")
        if "?" in user or "#" in rest:
            # A password may stand on either side of that @.
            return f"{scheme}://***"
        name, colon, _ = user.partition(":")
        # A name without a password may be a password that lacks its colon.
        shown = f"{name}:***" if colon else "***" if user else ""
        return f"{scheme}://{shown}{at}{servers}{mark}{'&'.join(map(_shown_option, options.split('&')))}"


StoreAddress = FileAddress | RedisUrl


def read_store(value: object) -> StoreAddress | None:
    """Read `none` (None), `file:PATH` with an absolute path, or the URL of one or several Redis servers."""
    if value is None or isinstance(value, StoreAddress):
        return value
    text = scalar_text(value, STORE_WANTED)
    if text == "none":
        return None
    if text.startswith("file:"):
        return FileAddress(_path(text.removeprefix("file:")))
    if len(text) > _REDIS_LENGTH_MAX or not re.fullmatch(REDIS_PATTERN, text):
        raise Unreadable(STORE_WANTED, "a value that is not shown" if re.search(r"[@?#]", text) else "")
    return RedisUrl(text)


def write_store(store: StoreAddress | None) -> str:
    """Write the address as it stands in the file, *** for each password in it."""
    return "none" if store is None else str(store)


def _shown_option(text: str) -> str:
    name, sign, _ = text.partition("=")
    if not text or name in _PLAIN_OPTIONS:
        return text
    return f"{name}=***" if sign else "***"


def _path(text: str) -> str:
    # file:///var/lib is how a URL writes it (RFC 8089).
    path = "/" + text.lstrip("/") if re.match(r"///(?!/)", text) else text
    steps = path.split("/")
    if not path.startswith("/") or path.startswith("//") or not path.isprintable() or ".." in steps or not path.strip("/"):
        raise Unreadable("file: and an absolute path without .., such as file:/var/lib/understudy/sessions")
    return path.rstrip("/")
