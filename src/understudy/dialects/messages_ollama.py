"""Read Ollama's chat messages into neutral ones and write neutral ones as Ollama's.

Called by dialects.given. Source: ollama api/types.go, Message, ToolCall and ImageData; its server lowers roles. Changes no
message of a client's.
"""

from collections.abc import Sequence
from typing import Any

from understudy.core.ask import DialectName
from understudy.core.message import Call, ImagePart, Message, Speaker
from understudy.dialects.call_ids import with_ids
from understudy.dialects.message_parts import UnreadableError, arguments_object, read_each, read_speaker, read_text, uncarried
from understudy.dialects.messages_openai import read_calls, read_content, read_reasoning

_SPEAKERS = {
    "system": Speaker.SYSTEM,
    "user": Speaker.USER,
    "assistant": Speaker.ASSISTANT,
    "tool": Speaker.TOOL,
}


def read_messages(values: list[Any]) -> tuple[Message, ...] | str:
    """Read the items of `messages`; in words which of them cannot be read, never quoting it. Raises nothing.

    `images` are base64 texts whose kind is not told. A list as `content` is read as OpenAI's parts, because llama.cpp answers
    this path with OpenAI's chat.
    """
    return read_each(values, _read_message)


def read_images(images: Any) -> tuple[ImagePart, ...] | None:
    """Return the pictures of a message or a prompt, base64 texts; None when `images` is no list of strings."""
    if images is None:
        return ()
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        return None
    return tuple(ImagePart(data=image) for image in images)


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]] | str:
    """Return `messages` as items of Ollama's `messages`; in words which part of them it cannot carry.

    All text of a message is one string and its pictures stand beside it. Ids of calls are written where they were told, a
    tool's name always where it can be found. Arguments are an object (see `arguments_object`). Thoughts are not written.
    """
    wrong = uncarried(messages, DialectName.OLLAMA)
    if wrong:
        return wrong
    completed = with_ids(messages, bool)
    return [_write_message(message, named.name) for message, named in zip(messages, completed, strict=True)]


def _read_message(value: Any) -> tuple[Message]:
    if isinstance(value, dict) and isinstance(role := value.get("role"), str):
        value = {**value, "role": role.lower()}
    speaker = read_speaker(value, _SPEAKERS)
    parts, thought = read_content(value.get("content"))
    images = read_images(value.get("images"))
    if images is None:
        raise UnreadableError(".images is not a list of strings")
    parts += images
    if speaker is Speaker.TOOL:
        name = read_text(value, "tool_name") or read_text(value, "name")
        return (Message(speaker, parts, call_id=read_text(value, "tool_call_id"), name=name),)
    if speaker is not Speaker.ASSISTANT:
        return (Message(speaker, parts),)
    return (Message(speaker, parts, reasoning=read_reasoning(value) or thought, calls=read_calls(value)),)


def _write_message(message: Message, name: str) -> dict[str, Any]:
    written: dict[str, Any] = {"role": str(message.speaker), "content": message.text}
    images = [part.data for part in message.parts if isinstance(part, ImagePart)]
    if images:
        written["images"] = images
    if message.calls:
        written["tool_calls"] = [_write_call(call) for call in message.calls]
    if message.speaker is Speaker.TOOL:
        if name:
            written["tool_name"] = name
        if message.call_id:
            written["tool_call_id"] = message.call_id
    return written


def _write_call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_object(call.arguments)}
    return {"id": call.id, "function": function} if call.id else {"function": function}
