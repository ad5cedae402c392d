"""One message of a conversation in a form that none of the three dialects owns and each of them can write.

Made by dialects from requests and answers, kept by sessions, compared by core.conversation and trimmed by core.trimming. Pure
values; knows no wire format.
"""

import json
from enum import StrEnum
from typing import Any

import msgspec


class Speaker(StrEnum):
    """Who says a message. OpenAI's "developer" is SYSTEM, its older "function" is TOOL."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Wholeness(StrEnum):
    """How much of an answer its client received."""

    WHOLE = "whole"
    TORN = "torn"  # it broke and could not go on
    ABANDONED = "abandoned"  # the client left before its end


class TextPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="text"):
    """Plain text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="image"):
    """A picture: either `data` in base64 with its `media_type` ("" where the dialect tells none), or a `url` (no data: URL)."""

    media_type: str = ""
    data: str = ""
    url: str = ""


class OtherPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="other"):
    """What only one dialect has (audio, files, documents, ...): `value` is its JSON text as that dialect wrote it."""

    dialect: str
    value: str


Part = TextPart | ImagePart | OtherPart


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """The assistant's call of a tool. `arguments` is a JSON text; `id` is "" where the dialect gives none (older Ollama)."""

    name: str
    arguments: str = "{}"
    id: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message.

    `reasoning` is what the model thought before its text. `calls` are an assistant's. Of a tool's result `call_id` names the call
    it answers and `name` the tool, "" where the dialect tells only the other. `is_raw`: text of a completion, to which the next
    text is joined as it stands. `tokens` is what the turn that ends with this answer has cost, 0 where no engine told.
    `at_unix_s` is the wall clock's time at which it was stored.
    """

    speaker: Speaker
    parts: tuple[Part, ...] = ()
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    name: str = ""
    mark: Wholeness = Wholeness.WHOLE
    is_raw: bool = False
    tokens: int = 0
    at_unix_s: float = 0.0

    @property
    def text(self) -> str:
        """All text of the message in one piece."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


def spoken(speaker: Speaker, text: str, **more: Any) -> Message:
    """Return a message of plain text; without parts where the text is empty."""
    return Message(speaker, (TextPart(text),) if text else (), **more)


def identity(message: Message) -> tuple[object, ...]:
    """Return what two copies of one message have in common, whatever else their clients keep or drop.

    Left out are ids of calls, reasoning, names and marks; text counts however it is cut into parts, an assistant's without white
    space around it and without a thought that stands in it as <think>; arguments count as JSON, not as text.
    """
    text = message.text
    if message.speaker is Speaker.ASSISTANT:
        text = _without_thought(text).strip()
    others = tuple(_part_identity(part) for part in message.parts if not isinstance(part, TextPart))
    calls = tuple((call.name, _canonical(call.arguments)) for call in message.calls)
    return message.speaker, text, others, calls


def _without_thought(text: str) -> str:
    begun = text.lstrip()
    if not begun.startswith("<think>"):
        return text
    _, closed, rest = begun.partition("</think>")
    return rest if closed else text


def _part_identity(part: Part) -> tuple[str, ...]:
    if isinstance(part, ImagePart):
        return ("image", part.data or part.url)
    return ("other", _canonical(part.value)) if isinstance(part, OtherPart) else ("text", part.text)


def _canonical(text: str) -> str:
    """Return a JSON text in one spelling; as it stands where it is no JSON."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
