"""Write a session's conversation as a header and a body, and read either back, or say what is wrong with it.

Called by sessions.file_store, where they are one file, and redis_store, where they are two fields. Pure but for the nonces of
sessions.seal. Never says whether a record is the newest.

A record is one of three: a line of JSON and then JSON, which a person can read; a frame with MessagePack; a frame whose header
and body are sealed. Each tells what it is, so that a store may hold all of them and `sessions.format` may be changed at any time.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from understudy.core.conversation import Conversation
from understudy.sessions.seal import KEY_ID_BYTES, SEAL_BYTES, BrokenSeal, Purpose, Seal
from understudy.sessions.store import Summary

VERSION: Final = 1
# No header is longer; whoever has read that much of a file has it whole.
HEADER_BYTES_MAX: Final = 2048

_JSON_BEGIN: Final = b'{"understudy_session":'
# First a byte that no text begins with, as PNG does. Then follow version, kind and the length of the rest of the header.
_MAGIC: Final = b"\x89UST"
_FRAME_BYTES: Final = len(_MAGIC) + 4
_PLAIN, _SEALED = b"m"[0], b"s"[0]
_SHOWN_BYTES_MAX: Final = 128


class Format(StrEnum):
    """How records are written; all are read."""

    JSON = "json"
    MSGPACK = "msgpack"


class Reason(StrEnum):
    """What is wrong with a record; the word in logs."""

    TORN = "torn"  # it ends too early
    FOREIGN = "foreign"  # it is none of ours, or another session's
    NEWER = "newer"  # a later version has written it
    CORRUPTED = "corrupted"
    SEALED = "sealed"  # it is encrypted, and with no key or another one it stays so
    UNSEALED = "unsealed"  # it is not encrypted though a key is given: anybody may have written it


class Unreadable(Exception):  # noqa: N818  said of the record, not of a program
    """The record cannot be read. `str()` of it is the reason's word."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Header(msgspec.Struct, frozen=True):
    """What a header says. The order is that of the line in a file, whose beginning tells what the file is."""

    understudy_session: int
    format: Format
    session: str
    revision: int
    messages: int
    begun_at_unix_s: float
    changed_at_unix_s: float
    model: str
    backend: str
    color: str
    body_bytes: int
    body_sha256: str


class _VersionOnly(msgspec.Struct, frozen=True):
    understudy_session: int


_Kind = Literal["json", "plain", "sealed"]


class Codec:
    """Conversations to bytes and back. `key`: 32 bytes, None: nothing is encrypted.

    Raises ValueError where the key has another length and ImportError where `cryptography` is missing. May be used by several
    threads at once.
    """

    def __init__(self, format: Format, key: bytes | None) -> None:  # noqa: A002  the word of the setting
        self._format = format
        self._seal = None if key is None else Seal(key)
        self._json = msgspec.json.Encoder()
        self._msgpack = msgspec.msgpack.Encoder()
        self._json_body = msgspec.json.Decoder(Conversation)
        self._msgpack_body = msgspec.msgpack.Decoder(Conversation)

    def name(self, session: str) -> str:
        """Return the 64 hex digits under which a session is kept: its SHA-256, with a key its HMAC, which tells nothing."""
        return sha256(session.encode()).hexdigest() if self._seal is None else self._seal.name(session)

    def encode(self, session: str, conversation: Conversation) -> tuple[bytes, bytes]:
        """Return header and body.

        Raises ValueError where a text is no Unicode (a lone surrogate), which no dialect reads from a request.
        """
        is_json = self._format is Format.JSON
        body = self._json.encode(conversation) + b"\n" if is_json else self._msgpack.encode(conversation)
        if self._seal is not None:
            body = self._seal.seal(Purpose.BODY, body, _place(self._seal.name(session), conversation.revision))
        header = _header(session, conversation, self._format, body)
        written = self._written(header)
        if len(written) > HEADER_BYTES_MAX:
            # An id of control characters is six times as long in JSON. What is only shown makes room for it.
            written = self._written(msgspec.structs.replace(header, model="", backend="", color=""))
        return written, body

    def read_header(self, data: bytes, name: str = "") -> Summary:
        """Return what a header says, with the size of the whole record; whatever follows it in `data` is not looked at.

        `name`: under which it was found, "" where that is not known; the record of another session is foreign there. Raises
        `Unreadable`.
        """
        header, header_bytes = self._read(data)
        if name and self.name(header.session) != name:
            raise Unreadable(Reason.FOREIGN)
        return Summary(
            session=header.session,
            revision=header.revision,
            messages=header.messages,
            size_bytes=header_bytes + header.body_bytes,
            changed_at_unix_s=header.changed_at_unix_s,
            begun_at_unix_s=header.begun_at_unix_s,
            model=header.model,
            backend=header.backend,
            color=header.color,
        )

    def decode(self, header: bytes, body: bytes, name: str = "") -> Conversation:
        """Return the conversation of a header and its body, both whole. `name` as in `read_header`. Raises `Unreadable`."""
        read, _ = self._read(header)
        if name and self.name(read.session) != name:
            raise Unreadable(Reason.FOREIGN)
        if len(body) < read.body_bytes:
            raise Unreadable(Reason.TORN)
        if len(body) > read.body_bytes or sha256(body).hexdigest() != read.body_sha256:
            raise Unreadable(Reason.CORRUPTED)
        try:
            if self._seal is not None:
                body = self._seal.open(Purpose.BODY, body, _place(self._seal.name(read.session), read.revision))
            decoder = self._json_body if read.format is Format.JSON else self._msgpack_body
            conversation = decoder.decode(body)
        except (BrokenSeal, ValueError, RecursionError) as error:
            raise Unreadable(Reason.CORRUPTED) from error
        if conversation.revision != read.revision:
            raise Unreadable(Reason.CORRUPTED)
        return conversation

    def _written(self, header: _Header) -> bytes:
        if self._seal is not None:
            text = self._msgpack.encode(header)
            frame = _frame(_SEALED, KEY_ID_BYTES + SEAL_BYTES + len(text)) + self._seal.key_id
            return frame + self._seal.seal(Purpose.HEADER, text, frame)
        if self._format is Format.JSON:
            return self._json.encode(header) + b"\n"
        text = self._msgpack.encode(header)
        return _frame(_PLAIN, len(text)) + text

    def _read(self, data: bytes) -> tuple[_Header, int]:
        """Return the header and how many bytes of `data` it takes."""
        kind, size_bytes = extent(data)
        if kind == "sealed":
            text = self._opened(data[:size_bytes])
        elif self._seal is not None:
            raise Unreadable(Reason.UNSEALED)
        else:
            text = data[:size_bytes] if kind == "json" else data[_FRAME_BYTES:size_bytes]
        decode: Any = msgspec.json.decode if kind == "json" else msgspec.msgpack.decode
        try:
            header: _Header = decode(text, type=_Header)
        except (ValueError, RecursionError) as error:
            raise Unreadable(_reason_of(text, decode)) from error
        if header.understudy_session != VERSION:
            raise Unreadable(Reason.NEWER if header.understudy_session > VERSION else Reason.CORRUPTED)
        return header, size_bytes

    def _opened(self, written: bytes) -> bytes:
        frame, sealed = written[: _FRAME_BYTES + KEY_ID_BYTES], written[_FRAME_BYTES + KEY_ID_BYTES :]
        if self._seal is None or frame[_FRAME_BYTES:] != self._seal.key_id:
            raise Unreadable(Reason.SEALED)
        try:
            return self._seal.open(Purpose.HEADER, sealed, frame)
        except BrokenSeal as error:
            raise Unreadable(Reason.CORRUPTED) from error


def extent(data: bytes) -> tuple[_Kind, int]:
    """Return what kind of header `data` begins with and how many bytes it takes. Raises `Unreadable`, torn unless it is whole."""
    begin = data[: len(_JSON_BEGIN)]
    if begin == _JSON_BEGIN:
        end = data.find(b"\n", 0, HEADER_BYTES_MAX)
        if end >= 0:
            return "json", end + 1
        raise Unreadable(Reason.TORN if len(data) < HEADER_BYTES_MAX else Reason.CORRUPTED)
    if data[: len(_MAGIC)] != _MAGIC:
        raise Unreadable(Reason.TORN if _JSON_BEGIN.startswith(begin) or _MAGIC.startswith(data) else Reason.FOREIGN)
    if len(data) < _FRAME_BYTES:
        raise Unreadable(Reason.TORN)
    version, kind = data[len(_MAGIC)], data[len(_MAGIC) + 1]
    if version != VERSION:
        raise Unreadable(Reason.NEWER if version > VERSION else Reason.CORRUPTED)
    size_bytes = _FRAME_BYTES + int.from_bytes(data[_FRAME_BYTES - 2 : _FRAME_BYTES], "big")
    if kind not in {_PLAIN, _SEALED} or size_bytes > HEADER_BYTES_MAX:
        raise Unreadable(Reason.CORRUPTED)
    if len(data) < size_bytes:
        raise Unreadable(Reason.TORN)
    return "sealed" if kind == _SEALED else "plain", size_bytes


def _header(session: str, conversation: Conversation, format_: Format, body: bytes) -> _Header:
    return _Header(
        understudy_session=VERSION,
        format=format_,
        session=session,
        revision=conversation.revision,
        messages=len(conversation.messages),
        begun_at_unix_s=conversation.begun_at_unix_s,
        changed_at_unix_s=conversation.changed_at_unix_s,
        model=_cut(conversation.model),
        backend=_cut(conversation.backend),
        color=_cut(conversation.color),
        body_bytes=len(body),
        body_sha256=sha256(body).hexdigest(),
    )


def _cut(text: str) -> str:
    return text.encode()[:_SHOWN_BYTES_MAX].decode(errors="ignore")


def _frame(kind: int, rest_bytes: int) -> bytes:
    return _MAGIC + bytes((VERSION, kind)) + rest_bytes.to_bytes(2, "big")


def _place(name: str, revision: int) -> bytes:
    """Return what a sealed body is bound to; its header is bound to the body by size and checksum."""
    return f"{name} {revision}".encode()


def _reason_of(text: bytes, decode: Any) -> Reason:
    """Say why a header that came whole cannot be read: a later version may have other fields."""
    try:
        version: _VersionOnly = decode(text, type=_VersionOnly)
    except (ValueError, RecursionError):
        return Reason.CORRUPTED
    return Reason.NEWER if version.understudy_session > VERSION else Reason.CORRUPTED
