"""Make the session store that the file names.

Called by daemon. What a store needs (Redis' client, encryption) is imported with it, so that a daemon without loads none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from understudy.sessions.record import Codec, Format
from understudy.sessions.store import Loss, SessionStore, StoreError


@dataclass(frozen=True, slots=True)
class StoreRules:
    """What the file says of the store. `address` is file:PATH or a Redis URL, `key` 32 bytes as hexadecimal digits or ""."""

    address: str = field(repr=False)
    format: str = "json"
    key: str = field(default="", repr=False)
    ttl_s: float = 24 * 3600.0
    timeout_s: float = 1.0
    prefix: str = "understudy:"


def make_store(rules: StoreRules, report: Callable[[str, dict[str, object]], None]) -> SessionStore:
    """Return the store, not yet open. Raises StoreError(REFUSED) for what an operator must mend."""
    try:
        codec = Codec(Format(rules.format), bytes.fromhex(rules.key) or None)
    except ImportError as error:
        detail = "sessions.key needs the package cryptography: pip install 'understudy[encryption]'"
        raise StoreError(Loss.REFUSED, detail) from error
    scheme, _, rest = rules.address.partition(":")
    if scheme == "file":
        from understudy.sessions.file_store import FileStore

        return FileStore(Path(rest), codec, ttl_s=rules.ttl_s, report=report)
    from understudy.sessions.redis_address import read_redis_address
    from understudy.sessions.redis_store import RedisStore

    try:
        address = read_redis_address(rules.address)
    except ValueError as error:
        raise StoreError(Loss.REFUSED, str(error)) from error
    return RedisStore(address, codec, ttl_s=rules.ttl_s, timeout_s=rules.timeout_s, prefix=rules.prefix, report=report)
