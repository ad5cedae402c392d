"""What is written is read again by whoever may, and nothing else passes for it."""

import json
from hashlib import sha256

import msgspec
import pytest

from support.stored import CODECS, HOSTILE_IDS, KEY, OTHER_KEY, conversation, flipped, full_conversation, torn
from understudy.core.conversation import Conversation
from understudy.core.message import Speaker, spoken
from understudy.sessions.record import HEADER_BYTES_MAX, Codec, Format, Reason, Unreadable, extent
from understudy.sessions.store import Summary

SHORT = conversation(3, "Hi", "Hello!")
every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def read(codec: Codec, data: bytes, name: str = "") -> Conversation:
    """Read a record as a file is read: the header tells where the body begins."""
    _, header_bytes = extent(data)
    codec.read_header(data, name)
    return codec.decode(data[:header_bytes], data[header_bytes:], name)


def reason_of(codec: Codec, data: bytes, name: str = "") -> Reason:
    with pytest.raises(Unreadable) as caught:
        read(codec, data, name)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


@every_codec
def test_a_conversation_comes_back_as_it_was(codec: Codec) -> None:
    whole = full_conversation()
    header, body = codec.encode("kitchen-7", whole)
    assert codec.decode(header, body) == whole
    assert codec.decode(header, body, codec.name("kitchen-7")) == whole


@every_codec
def test_a_header_tells_of_a_session_without_its_body(codec: Codec) -> None:
    header, body = codec.encode("kitchen-7", SHORT)
    expected = Summary("kitchen-7", 3, 2, len(header + body), 1_700_000_100.25, 1_700_000_000.5, "qwen2.5", "pi", "blue")
    assert codec.read_header(header) == expected
    assert codec.read_header(header + body[:5], codec.name("kitchen-7")) == expected
    assert extent(header + body)[1] == len(header)


@pytest.mark.parametrize("session", HOSTILE_IDS)
@every_codec
def test_any_id_is_a_name_of_hex_and_a_short_header(codec: Codec, session: str) -> None:
    large = msgspec.structs.replace(SHORT, model="\x01" * 9999, backend="ü" * 9999, color="\n" * 9999)
    header, body = codec.encode(session, large)
    assert len(header) <= HEADER_BYTES_MAX
    assert codec.read_header(header, codec.name(session)).session == session
    assert codec.decode(header, body, codec.name(session)) == large
    assert len(codec.name(session)) == 64
    assert set(codec.name(session)) <= set("0123456789abcdef")


def test_what_is_shown_is_cut_between_characters() -> None:
    codec = CODECS["json"]
    header, _ = codec.encode("s", msgspec.structs.replace(SHORT, model="x" + "ü" * 100))
    assert codec.read_header(header).model == "x" + "ü" * 63


def test_every_id_has_a_name_of_its_own() -> None:
    for codec in CODECS.values():
        assert len({codec.name(session) for session in HOSTILE_IDS}) == len(HOSTILE_IDS)
    assert CODECS["json"].name("a") == sha256(b"a").hexdigest()
    assert len({Codec(Format.JSON, key).name("a") for key in (None, KEY, OTHER_KEY)}) == 3


def test_a_record_in_json_is_readable_by_a_person() -> None:
    header, body = CODECS["json"].encode("kitchen-7", SHORT)
    first, second = (header + body).decode().splitlines()
    assert first.startswith('{"understudy_session":1,"format":"json","session":"kitchen-7","revision":3,"messages":2,')
    assert json.loads(first)["body_sha256"] == sha256(body).hexdigest()
    assert json.loads(second)["messages"][1] == {"speaker": "assistant", "parts": [{"kind": "text", "text": "Hello!"}]}


@every_codec
def test_a_record_torn_at_any_length_is_torn(codec: Codec) -> None:
    data = b"".join(codec.encode("kitchen-7", SHORT))
    assert {reason_of(codec, part) for part in torn(data)} == {Reason.TORN}


@every_codec
def test_a_changed_byte_is_noticed_or_touches_no_message(codec: Codec) -> None:
    name = codec.name("kitchen-7")
    reasons = set()
    for data in flipped(b"".join(codec.encode("kitchen-7", SHORT))):
        try:
            assert read(codec, data, name) == SHORT
        except Unreadable as error:
            reasons.add(error.reason)
    assert Reason.CORRUPTED in reasons


def test_a_changed_byte_of_a_sealed_record_is_always_noticed() -> None:
    codec = CODECS["sealed msgpack"]
    data = b"".join(codec.encode("kitchen-7", SHORT))
    assert sum(1 for other in flipped(data) if reason_of(codec, other)) == len(data)


@every_codec
def test_more_than_was_written_is_corrupted(codec: Codec) -> None:
    assert reason_of(codec, b"".join(codec.encode("s", SHORT)) + b"x") is Reason.CORRUPTED


@every_codec
@pytest.mark.parametrize("junk", [b"hello\n", b"\x00" * 5000, b'{"messages": []}\n', b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 4096])
def test_what_is_none_of_ours_is_foreign(codec: Codec, junk: bytes) -> None:
    assert reason_of(codec, junk) is Reason.FOREIGN


@pytest.mark.parametrize(
    "junk",
    [
        b'{"understudy_session":1}\n',
        b'{"understudy_session":"one"}\n',
        b'{"understudy_session":-1,"x":2}\n',
        b'{"understudy_session":' + b"[" * 1500 + b"\n",
        b'{"understudy_session":1,' + b" " * 5000,
        b"\x89UST\x01m\x00\x01\xc1",
        b"\x89UST\x01x\x00\x01\xc1",
        b"\x89UST\x01m\xff\xff" + b"x" * 70000,
        b"\x89UST\x00m\x00\x01\xc1",
        b"\x89UST\x01s\x00\x01\xc1",
    ],
)
def test_a_header_of_junk_is_unreadable(junk: bytes) -> None:
    for codec in CODECS.values():
        assert reason_of(codec, junk) in {Reason.CORRUPTED, Reason.SEALED, Reason.UNSEALED}


def test_a_later_version_is_newer_whatever_else_it_has() -> None:
    plain, sealed = CODECS["json"], CODECS["sealed json"]
    header, body = plain.encode("s", SHORT)
    assert reason_of(plain, header.replace(b'session":1,', b'session":2,') + body) is Reason.NEWER
    assert reason_of(plain, b'{"understudy_session":9,"all":"else"}\n') is Reason.NEWER
    header, body = sealed.encode("s", SHORT)
    assert reason_of(sealed, header[:4] + b"\x02" + header[5:] + body) is Reason.NEWER
    assert reason_of(plain, header[:4] + b"\x02" + header[5:] + body) is Reason.NEWER
    header, _ = CODECS["msgpack"].encode("s", SHORT)
    assert reason_of(plain, header.replace(b"understudy_session\x01", b"understudy_session\x02")) is Reason.NEWER


def test_each_format_is_read_whichever_is_written() -> None:
    for writer, reader in (("json", "msgpack"), ("msgpack", "json"), ("sealed json", "sealed msgpack")):
        assert read(CODECS[reader], b"".join(CODECS[writer].encode("s", SHORT))) == SHORT
        assert read(CODECS[writer], b"".join(CODECS[reader].encode("s", SHORT))) == SHORT


def test_a_sealed_record_opens_with_its_key_alone() -> None:
    data = b"".join(CODECS["sealed json"].encode("s", SHORT))
    assert reason_of(CODECS["json"], data) is Reason.SEALED
    assert reason_of(Codec(Format.JSON, OTHER_KEY), data) is Reason.SEALED
    assert read(Codec(Format.MSGPACK, KEY), data) == SHORT


def test_with_a_key_what_anybody_may_have_written_is_not_read() -> None:
    for plain in ("json", "msgpack"):
        assert reason_of(CODECS["sealed json"], b"".join(CODECS[plain].encode("s", SHORT))) is Reason.UNSEALED


def test_a_sealed_record_shows_nothing_of_session_or_content() -> None:
    secret = conversation(1, "The code is 4711.")
    data = b"".join(CODECS["sealed json"].encode("ada@example.org", secret))
    assert not [word for word in (b"ada", b"4711", b"qwen2.5", b"messages", b"session") if word in data]
    assert CODECS["sealed json"].encode("ada@example.org", secret)[1] not in data


@every_codec
def test_a_record_under_another_sessions_name_is_foreign(codec: Codec) -> None:
    header, body = codec.encode("ada", SHORT)
    assert reason_of(codec, header + body, codec.name("eve")) is Reason.FOREIGN
    with pytest.raises(Unreadable, match="foreign"):
        codec.decode(header, body, codec.name("eve"))


@every_codec
def test_a_body_goes_with_its_own_header_only(codec: Codec) -> None:
    earlier, later = (codec.encode("ada", msgspec.structs.replace(SHORT, revision=revision)) for revision in (3, 4))
    elses = codec.encode("eve", SHORT)
    for header, body in ((earlier[0], later[1]), (later[0], earlier[1])):
        assert reason_of(codec, header + body) is Reason.CORRUPTED
    if codec in (CODECS["sealed json"], CODECS["sealed msgpack"]):
        assert reason_of(codec, earlier[0] + elses[1]) is Reason.CORRUPTED


def test_a_header_that_tells_another_revision_than_the_body_is_corrupted() -> None:
    header, body = CODECS["json"].encode("s", SHORT)
    assert reason_of(CODECS["json"], header.replace(b'"revision":3', b'"revision":4') + body) is Reason.CORRUPTED


def test_a_body_with_a_true_checksum_that_is_no_conversation_is_corrupted() -> None:
    codec = CODECS["json"]
    header, body = codec.encode("s", SHORT)
    for other in (b"[]\n", b"x" * 9, b'{"revision":"three"}', b"[" * 100_000):
        line = json.loads(header) | {"body_bytes": len(other), "body_sha256": sha256(other).hexdigest()}
        forged = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        assert reason_of(codec, forged + other) is Reason.CORRUPTED, body


@every_codec
def test_a_text_that_is_no_unicode_is_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        codec.encode("s", msgspec.structs.replace(SHORT, messages=(spoken(Speaker.USER, "\ud800"),)))


@pytest.mark.parametrize("key", [b"", b"x" * 16, b"x" * 33])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Codec(Format.JSON, key)
