"""Conversations for the plays of session stores, and every way of writing them."""

from collections.abc import Iterator

import msgspec

from understudy.core.conversation import Conversation
from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, Wholeness, spoken
from understudy.sessions.record import Codec, Format

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))

# Named as plays are told of in a failure.
CODECS = {
    "json": Codec(Format.JSON, None),
    "msgpack": Codec(Format.MSGPACK, None),
    "sealed json": Codec(Format.JSON, KEY),
    "sealed msgpack": Codec(Format.MSGPACK, KEY),
}
HOSTILE_IDS = (
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/b",
    "nul\x00byte",
    "\x00" * 256,
    "line\nbreak\r\n",
    "*?[a-z]{1}",
    "ünïcödé 通义千问 🎭",
    "e\u0301",
    "\u00e9",
    "x" * 256,
    ".session",
    "a.lock",
)


def conversation(revision: int, *texts: str) -> Conversation:
    """Return a conversation of that revision in which the texts are said by turns."""
    speakers = (Speaker.USER, Speaker.ASSISTANT)
    return Conversation(
        revision=revision,
        system=(spoken(Speaker.SYSTEM, "Be brief."),),
        messages=tuple(spoken(speakers[index % 2], text) for index, text in enumerate(texts)),
        model="qwen2.5",
        backend="pi",
        color="blue",
        begun_at_unix_s=1_700_000_000.5,
        changed_at_unix_s=1_700_000_100.25,
    )


def full_conversation() -> Conversation:
    """Return a conversation with everything that a message can have."""
    call = Call("look", '{"at":"sea"}', "call-1")
    answer = Message(
        Speaker.ASSISTANT,
        (TextPart("I look."),),
        reasoning="Where?",
        calls=(call,),
        mark=Wholeness.TORN,
        tokens=12,
        at_unix_s=1.5,
    )
    seen = (ImagePart("image/png", "aGk="), ImagePart(url="https://example.org/x.png"), OtherPart("openai", '{"type":"audio"}'))
    result = Message(Speaker.TOOL, (TextPart("blue \u2028 \x00"),), call_id="call-1", name="look")
    messages = (Message(Speaker.USER, seen), answer, result, Message(Speaker.USER, (TextPart("Once"),), is_raw=True))
    return msgspec.structs.replace(
        conversation(7), messages=messages, prompt_tokens=100, completion_tokens=20, fallen=3, model="m" * 1000
    )


def torn(data: bytes) -> Iterator[bytes]:
    """Yield every beginning of a record but the whole."""
    for length in range(len(data)):
        yield data[:length]


def flipped(data: bytes) -> Iterator[bytes]:
    """Yield a record with each of its bytes changed once."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :]
