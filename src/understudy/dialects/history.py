"""Recognise that a request goes on with a conversation, where its client sends all of it each time and no session's name.

Called by dataplane.coloring while there are two colors. A request that goes on holds what the one before it held, then an answer,
then what is new; so the digest of what stands before the last answer is that of the request before. Pure; nothing is kept here.
"""

from hashlib import blake2b
from typing import Final

import msgspec

HISTORY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Larger requests are not read for this: it takes about 3 ms for each MiB."""

_PATHS: Final = frozenset({"/v1/chat/completions", "/api/chat", "/v1/messages"})
_DIGEST_BYTES: Final = 16


class _Said(msgspec.Struct, gc=False):
    role: str = ""


class _Roles(msgspec.Struct, gc=False):
    messages: list[_Said] = []


class _Messages(msgspec.Struct, gc=False):
    messages: list[msgspec.Raw] = []
    system: msgspec.Raw = msgspec.Raw(b"")


_DECODE_ROLES = msgspec.json.Decoder(_Roles).decode
_DECODE_MESSAGES = msgspec.json.Decoder(_Messages).decode


class History(msgspec.Struct, frozen=True):
    """Digests of a request's messages: of all, and of those before its last answer, b"" where it has none."""

    whole: bytes
    earlier: bytes = b""


def history_of(path: str, body: bytes, client: bytes) -> History | None:
    """Return the digests of a request of `client`; None where it holds no messages that could be gone on with. Raises nothing."""
    if path not in _PATHS or len(body) > HISTORY_BYTES_MAX:
        return None
    try:
        roles = [said.role for said in _DECODE_ROLES(body).messages]
        read = _DECODE_MESSAGES(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not roles:
        return None
    last_answer = _last_answer(roles)
    digest = blake2b(digest_size=_DIGEST_BYTES)
    _add(digest, client)
    _add(digest, bytes(read.system))
    earlier = b""
    for at, message in enumerate(read.messages):
        if at == last_answer and at:
            earlier = digest.digest()
        _add(digest, bytes(message))
    return History(digest.digest(), earlier)


def _last_answer(roles: list[str]) -> int:
    """Return where the last answer begins, be it of several messages; 0 without one."""
    at = max((at for at, role in enumerate(roles) if role == "assistant"), default=0)
    while at and roles[at - 1] == "assistant":
        at -= 1
    return at


def _add(digest: blake2b, piece: bytes) -> None:
    digest.update(b"%d:" % len(piece))
    digest.update(piece)
