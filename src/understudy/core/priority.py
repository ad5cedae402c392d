"""Whose exchange goes before others in the waiting line.

Called by dataplane.relayed for every exchange that waits. Pure. A client's word counts only when the operator trusts its key:
otherwise everybody would be first.
"""

from collections.abc import Collection
from hashlib import sha256
from hmac import compare_digest
from typing import Final

# An answer that has broken off in the middle goes before all that have not begun.
BEGUN: Final = 2
HIGH: Final = 1
NORMAL: Final = 0
LOW: Final = -1

_WORDS: Final = {b"high": HIGH, b"normal": NORMAL, b"low": LOW}


def priority_of(word: bytes, key: bytes, trusted: Collection[str]) -> int:
    """Return HIGH, NORMAL or LOW; the greater goes first.

    `word` is X-Understudy-Priority in lower case, `key` the client's key, b"" without one, `trusted` the SHA-256 of the trusted
    keys as lower-case hex. A word that is unknown, and any word of a key that is not trusted, is NORMAL.
    """
    wished = _WORDS.get(word, NORMAL)
    if wished == NORMAL or not key:
        return NORMAL
    return wished if is_trusted(key, trusted) else NORMAL


def is_trusted(key: bytes, trusted: Collection[str]) -> bool:
    """Whether the operator trusts the holder of `key`; arguments as above."""
    digest = sha256(key).hexdigest()
    # All of them, each in constant time: how long it takes tells nothing of which key is near.
    known = [compare_digest(digest, one) for one in trusted]
    return bool(key) and any(known)
