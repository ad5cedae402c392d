"""Read OpenAI's chat messages into neutral ones and write neutral ones as OpenAI's.

Called by dialects.given. Source: OpenAI's API reference, chat completions, `messages`; what engines add to it (vLLM's
`reasoning`, llama.cpp's `reasoning_content`) as their clients send it back. Changes no message of a client's.
"""

import re
from collections.abc import Sequence
from typing import Any

from understudy.core.ask import DialectName
from understudy.core.message import Call, ImagePart, Message, Part, Speaker, TextPart
from understudy.dialects.call_ids import with_ids
from understudy.dialects.message_parts import (
    UnreadableError,
    image_url,
    is_plain,
    other_part,
    read_arguments,
    read_each,
    read_image_url,
    read_speaker,
    read_text,
    uncarried,
)
from understudy.dialects.raw_json import json_text, read_value

_SPEAKERS = {
    "system": Speaker.SYSTEM,
    "developer": Speaker.SYSTEM,
    "user": Speaker.USER,
    "assistant": Speaker.ASSISTANT,
    "tool": Speaker.TOOL,
    "function": Speaker.TOOL,
}
# Ollama's /v1 tells the role in every event (golden/ollama/v1_chat.sse), and openai's helper for streams joins what it is told.
_REPEATED = re.compile(r"(assistant){2,}")
_TEXT_KINDS = ("text", "input_text", "output_text")
_IMAGE_KINDS = ("image_url", "input_image")
_THOUGHT_KINDS = ("thinking", "reasoning")
_REASONINGS = ("reasoning_content", "reasoning", "thinking")


def read_messages(values: list[Any]) -> tuple[Message, ...] | str:
    """Read the items of `messages`; in words which of them cannot be read, never quoting it. Raises nothing.

    `content` is a string, null, absent or a list of parts. Of an image only its URL is kept, not its `detail`; a part that is
    neither text nor image is kept as it is, for this dialect alone. A custom tool's call is kept as one whose arguments are the
    JSON string of its input. Dropped is an assistant's `audio`, which refers to what OpenAI holds for an hour.
    """
    return read_each(values, _read_message)


def read_content(content: Any) -> tuple[tuple[Part, ...], str]:
    """Return a message's parts and the thoughts that stand among them. Raises UnreadableError."""
    if isinstance(content, str):
        return ((TextPart(content),) if content else ()), ""
    if content is None:
        return (), ""
    if not isinstance(content, list):
        raise UnreadableError(".content is neither text nor a list of parts")
    parts: list[Part] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            parts.append(TextPart(part))
        elif not isinstance(part, dict):
            raise UnreadableError(".content has a part that is not an object")
        elif part.get("type") in _THOUGHT_KINDS:
            thoughts.append(_thought(part))
        elif (read := _read_part(part)) is not None:
            parts.append(read)
    return tuple(part for part in parts if not isinstance(part, TextPart) or part.text), "".join(thoughts)


def read_reasoning(value: dict[str, Any]) -> str:
    """Return what a message tells of the model's thoughts, under any of the names that engines have for it."""
    found = (value.get(key) for key in _REASONINGS)
    return next((text for text in found if isinstance(text, str) and text), "")


def read_calls(value: dict[str, Any]) -> tuple[Call, ...]:
    """Return the tool calls of an assistant's message, or the one of its older `function_call`. Raises UnreadableError."""
    called = value.get("tool_calls")
    if not called:
        older = value.get("function_call")
        called = [{"function": older}] if isinstance(older, dict) else []
    if not isinstance(called, list):
        raise UnreadableError(".tool_calls is not a list")
    return tuple(_read_call(one) for one in called)


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]] | str:
    """Return `messages` as items of OpenAI's `messages`; in words which part of them it cannot carry.

    Content is a string where it is one text, null beside calls without text, else a list of parts. Thoughts and the media type
    of a picture at a URL are not written. A picture whose kind is not told is told by its first bytes.
    """
    wrong = uncarried(messages, DialectName.OPENAI)
    if wrong:
        return wrong
    completed = with_ids(messages, bool)
    return [_write_message(message, told.name) for message, told in zip(completed, messages, strict=True)]


def _read_message(value: Any) -> tuple[Message]:
    if isinstance(value, dict) and isinstance(role := value.get("role"), str) and _REPEATED.fullmatch(role):
        value = {**value, "role": "assistant"}
    speaker = read_speaker(value, _SPEAKERS)
    parts, thought = read_content(value.get("content"))
    name = read_text(value, "name")
    if speaker is Speaker.TOOL:
        return (Message(speaker, parts, call_id=read_text(value, "tool_call_id"), name=name),)
    if speaker is not Speaker.ASSISTANT:
        return (Message(speaker, parts, name=name),)
    refusal = read_text(value, "refusal")
    if refusal and not parts:
        parts = (TextPart(refusal),)
    reasoning = read_reasoning(value) or thought
    return (Message(speaker, parts, reasoning=reasoning, calls=read_calls(value), name=name),)


def _read_part(part: dict[str, Any]) -> Part | None:
    """Return a part of a list; None for one without text. One that tells no type is what its members say, as vLLM reads it."""
    kind = part.get("type")
    if kind is None:
        kind = "image_url" if "image_url" in part else "text" if "text" in part else None
    if kind in _TEXT_KINDS or kind == "refusal":
        text = part.get("refusal" if kind == "refusal" else "text")
        if text is None:
            return None
        if isinstance(text, str):
            return TextPart(text)
    elif kind in _IMAGE_KINDS:
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        read = read_image_url(url) if isinstance(url, str) else None
        if read is not None:
            return read
    return other_part(DialectName.OPENAI, part)


def _thought(part: dict[str, Any]) -> str:
    """Return the text of a thought among the parts: a string, or Mistral's list of texts."""
    thought = part.get("thinking", part.get("text"))
    texts = thought if isinstance(thought, list) else [thought]
    found = (text.get("text") if isinstance(text, dict) else text for text in texts)
    return "".join(text for text in found if isinstance(text, str))


def _read_call(value: Any) -> Call:
    value = value if isinstance(value, dict) else {}
    called, custom = value.get("function"), value.get("custom")
    if isinstance(called, dict) and isinstance(called.get("name"), str):
        return Call(called["name"], read_arguments(called.get("arguments")), read_text(value, "id"))
    if isinstance(custom, dict) and isinstance(custom.get("name"), str):
        return Call(custom["name"], json_text(custom.get("input")), read_text(value, "id"))
    raise UnreadableError(".tool_calls has one that names no tool")


def _write_message(message: Message, name: str) -> dict[str, Any]:
    written: dict[str, Any] = {"role": str(message.speaker), "content": _write_content(message)}
    if message.speaker is Speaker.TOOL:
        written["tool_call_id"] = message.call_id
    if name:
        written["name"] = name
    if message.calls:
        written["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    return written


def _write_content(message: Message) -> Any:
    if is_plain(message.parts):
        return message.text or (None if message.calls else "")
    return [_write_part(part) for part in message.parts]


def _write_part(part: Part) -> Any:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": image_url(part)}}
    return read_value(part.value.encode())
