"""What the three dialects' messages share: pictures inside URLs, arguments of calls, and parts that only one of them has.

Called by dialects.messages_openai, messages_ollama and messages_anthropic. Knows the parts of core.message, no wire format.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from understudy.core.ask import DialectName
from understudy.core.message import ImagePart, Message, OtherPart, Part, Speaker, TextPart
from understudy.dialects.raw_json import json_text, read_value

# How the base64 text of a picture begins, by its kind. WebP's is that of every RIFF file, which no engine takes otherwise.
_BEGINNINGS = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("Qk", "image/bmp"),
)
# Engines look into the picture themselves (llama.cpp by stb_image, vLLM and SGLang by Pillow), so that a guess does no harm.
_UNTOLD_MEDIA_TYPE = "image/png"
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^;,]*)*?;base64,", re.IGNORECASE)
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class UnreadableError(ValueError):
    """A message cannot be read; says in words why, quoting nothing of it. Never leaves the dialects."""


def read_each(values: list[Any], read: Callable[[Any], Iterable[Message]]) -> tuple[Message, ...] | str:
    """Read the items of `messages`, each with `read`, which raises UnreadableError; in words which of them cannot be read."""
    messages: list[Message] = []
    index = 0
    try:
        for index, value in enumerate(values):  # noqa: B007  the handler tells it
            messages += read(value)
    except UnreadableError as error:
        return f"messages[{index}]{error}"
    except RecursionError:
        return f"messages[{index}] is nested too deeply"
    return tuple(messages)


def read_speaker(value: Any, speakers: Mapping[str, Speaker]) -> Speaker:
    """Return who says the message `value`. Raises UnreadableError when it is no object or its role is none of `speakers`."""
    if not isinstance(value, dict):
        raise UnreadableError(" is not an object")
    role = value.get("role")
    speaker = speakers.get(role) if isinstance(role, str) else None
    if speaker is None:
        raise UnreadableError(f".role is none of {', '.join(speakers)}")
    return speaker


def read_text(value: dict[str, Any], key: str) -> str:
    """Return the string that a member is; "" when it is none."""
    text = value.get(key)
    return text if isinstance(text, str) else ""


def read_image_url(url: str) -> ImagePart | None:
    """Return the picture at a URL, one in a data: URL as its data; None for an empty URL and a data: URL without base64."""
    if url[:5].lower() != "data:":
        return ImagePart(url=url) if url else None
    begun = _DATA_URL.match(url)
    return ImagePart(media_type=begun[1].strip(), data=url[begun.end() :]) if begun else None


def image_url(part: ImagePart) -> str:
    """Return a URL of the picture, a data: URL where it has none."""
    return part.url or f"data:{media_type_of(part)};base64,{part.data}"


def media_type_of(part: ImagePart) -> str:
    """Return the kind of picture that `data` is: as it was told, else by its first bytes, else PNG."""
    if part.media_type:
        return part.media_type
    begun = (media_type for beginning, media_type in _BEGINNINGS if part.data.startswith(beginning))
    return next(begun, _UNTOLD_MEDIA_TYPE)


def other_part(dialect: DialectName, value: dict[str, Any]) -> OtherPart:
    """Keep a part that only `dialect` has, without Anthropic's cache_control, which belongs to one request."""
    kept = {key: inner for key, inner in value.items() if key != "cache_control"}
    return OtherPart(dialect, json_text(kept))


def read_arguments(value: Any) -> str:
    """Return a call's arguments as JSON text, whether they came as text or as a value; none at all are no arguments."""
    if isinstance(value, str):
        return value if value.strip() else "{}"
    return "{}" if value is None else json_text(value)


def arguments_object(arguments: str) -> dict[str, Any]:
    """Return arguments as the object that Ollama and Anthropic want.

    What is no object, or no JSON (a custom tool's input, a call that broke off), becomes the one member `arguments` of it: it
    stays readable for the model, and no engine refuses it.
    """
    value = read_value(arguments.encode())
    if isinstance(value, dict):
        return value
    return {"arguments": arguments if value is None else value}


def is_plain(parts: tuple[Part, ...]) -> bool:
    """Whether the parts are one text, or nothing."""
    return not parts or (len(parts) == 1 and isinstance(parts[0], TextPart))


def uncarried(messages: Iterable[Message], dialect: DialectName) -> str:
    """Return in words which part of `messages` a dialect cannot carry; "" when it carries all."""
    for message in messages:
        for part in message.parts:
            what = "" if isinstance(part, TextPart) else _uncarried_part(part, message.speaker, dialect)
            if what:
                return f"the stored conversation has {what} that the {dialect} API cannot carry"
    return ""


def _uncarried_part(part: ImagePart | OtherPart, speaker: Speaker, dialect: DialectName) -> str:
    if isinstance(part, OtherPart):
        return "" if part.dialect == dialect else _kind(part)
    if dialect is DialectName.OLLAMA and not part.data:
        return "an image at a URL"
    if dialect is DialectName.ANTHROPIC and speaker is Speaker.SYSTEM:
        return "an image in a system message"
    return ""


def _kind(part: OtherPart) -> str:
    """Name a part by its type, if that is a word: a client's text does not belong into a message of ours."""
    value = read_value(part.value.encode())
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        return f"a part of the {part.dialect if _KIND.fullmatch(part.dialect) else 'other'} API"
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind} part"
