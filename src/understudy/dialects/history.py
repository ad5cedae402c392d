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


class _Part(msgspec.Struct, gc=False):
    text: str = ""


class _Answer(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None


_DECODE_ROLES = msgspec.json.Decoder(_Roles).decode
_DECODE_MESSAGES = msgspec.json.Decoder(_Messages).decode
_DECODE_ANSWER = msgspec.json.Decoder(_Answer).decode
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class History(msgspec.Struct, frozen=True):
    """Digests of a request's messages: of all, of those before its last answer, and of those with that answer's text.

    The last two are b"" where it has no answer, or none with a text. Two conversations that begin with the same words differ in
    what they were answered.
    """

    whole: bytes
    earlier: bytes = b""
    answered: bytes = b""


def history_of(path: str, body: bytes, client: bytes) -> History | None:
    """Return the digests of a request of `client`; None where it holds no messages that could be gone on with. Raises nothing."""
    if path not in _PATHS or len(body) > HISTORY_BYTES_MAX:
        return None
    try:
        roles = [said.role for said in _DECODE_ROLES(body).messages]
        read = _DECODE_MESSAGES(body)
    except _UNREADABLE:
        return None
    if not roles:
        return None
    begin, end = _last_answer(roles)
    digest = blake2b(digest_size=_DIGEST_BYTES)
    _add(digest, client)
    _add(digest, bytes(read.system))
    earlier = answered = b""
    for at, message in enumerate(read.messages):
        if at == begin < end:
            earlier = digest.digest()
            # Of one that calls a tool several times in a row only the end is a text.
            text = _text_of(bytes(read.messages[end - 1]))
            answered = answered_digest(earlier, text) if text else b""
        _add(digest, bytes(message))
    return History(digest.digest(), earlier, answered)


def answered_digest(whole: bytes, text: str) -> bytes:
    """Return the digest of a request's messages with the text that answered them, white space around it aside."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    _add(digest, whole)
    _add(digest, text.strip().encode(errors="surrogatepass"))
    return digest.digest()


def _last_answer(roles: list[str]) -> tuple[int, int]:
    """Return where the last answer begins and ends, be it of several messages; (0, 0) without one, or with nothing before it."""
    end = max((at + 1 for at, role in enumerate(roles) if role == "assistant"), default=0)
    begin = end
    while begin and roles[begin - 1] == "assistant":
        begin -= 1
    return (begin, end) if begin else (0, 0)


def _text_of(message: bytes) -> str:
    try:
        content = _DECODE_ANSWER(message).content
    except _UNREADABLE:
        return ""
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def _add(digest: blake2b, piece: bytes) -> None:
    digest.update(b"%d:" % len(piece))
    digest.update(piece)
