"""Read Anthropic's messages and its system prompt into neutral messages and write neutral ones as Anthropic's.

Called by dialects.given. Source: Anthropic's API reference, messages, `messages` and `system`. Changes no message of a client's.
"""

import re
from collections.abc import Sequence
from typing import Any

from understudy.core.ask import DialectName
from understudy.core.message import Call, ImagePart, Message, OtherPart, Part, Speaker, TextPart
from understudy.dialects.call_ids import with_ids
from understudy.dialects.message_parts import (
    UnreadableError,
    arguments_object,
    media_type_of,
    other_part,
    read_arguments,
    read_each,
    read_image_url,
    read_speaker,
    read_text,
    uncarried,
)
from understudy.dialects.raw_json import read_items, read_value

# The API knows the first two; clients put what came up later between the messages, and vLLM takes it (inline_system.py).
_SPEAKERS = {"user": Speaker.USER, "assistant": Speaker.ASSISTANT, "system": Speaker.SYSTEM}
# What the API wants an id to be.
_ID = re.compile(r"[a-zA-Z0-9_-]+")
# What stands between system messages, because vLLM, llama.cpp and Ollama put the blocks of `system` together without anything.
_GAP = "\n\n"


def read_system(value: Any) -> tuple[Message, ...] | str:
    """Read the top-level `system`, a string or a list of blocks, into at most one message; in words what is wrong."""
    try:
        parts = _read_parts(value)
    except UnreadableError as error:
        return str(error).replace(".content", "system", 1)
    except RecursionError:
        return "system is nested too deeply"
    return (Message(Speaker.SYSTEM, parts),) if parts else ()


def read_messages(values: list[Any]) -> tuple[Message, ...] | str:
    """Read the items of `messages`; in words which of them cannot be read, never quoting it. Raises nothing.

    Results of tools become messages of their own, before what else the user's message holds. Thoughts lose their signature,
    redacted ones are dropped, so are cache_control, citations and a result's is_error, which no engine heeds (vLLM and Ollama
    pass on its text only). Any other block is kept as it is, for this dialect alone.
    """
    return read_each(values, _read_message)


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]] | str:
    """Return `messages` as items of Anthropic's `messages`; in words which part of them it cannot carry.

    System messages are left out: `write_system` writes them. Results of tools that follow each other and a user's message
    right behind them are one message. Text without any letter is left out, which the API refuses ("text content blocks must
    contain non-whitespace text"), and so is a message without anything. Thoughts are not written: they would want signatures.
    """
    wrong = uncarried(messages, DialectName.ANTHROPIC)
    if wrong:
        return wrong
    written: list[dict[str, Any]] = []
    results: list[Any] = []
    for message in with_ids([one for one in messages if one.speaker is not Speaker.SYSTEM], _ID.fullmatch):
        if message.speaker is Speaker.TOOL:
            results.append(_write_result(message))
            continue
        blocks = _write_parts(message.parts)
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call.arguments)}
            for call in message.calls
        ]
        if message.speaker is Speaker.USER:
            blocks = results + blocks
        elif results:
            written.append({"role": "user", "content": results})
        results = []
        if blocks:
            written.append({"role": str(message.speaker), "content": _shortest(blocks)})
    if results:
        written.append({"role": "user", "content": results})
    return written


def write_system(messages: Sequence[Message], own: bytes = b"null") -> Any:
    """Return the top-level `system`: `own`, the client's as it stands in its body, and after it `messages`.

    A string where it is one text, else a list in which the client's own blocks keep their bytes; None where there is nothing.
    For messages in which `write_messages` found nothing wrong.
    """
    told = read_value(own)
    blocks: list[Any] = _write_parts((TextPart(told),)) if isinstance(told, str) else [*(read_items(own) or ())]
    for message in messages:
        is_first = not blocks
        for block in _write_parts(message.parts):
            # The gap stands once, before the message's first text.
            if block.get("type") == "text" and not is_first:
                block["text"] = _GAP + block["text"]
            is_first = True
            blocks.append(block)
    return _shortest(blocks) if blocks else None


def _read_message(value: Any) -> list[Message]:
    """Return a message as the messages that it is: results of tools, and what else it says."""
    speaker = read_speaker(value, _SPEAKERS)
    content = value.get("content")
    if speaker is Speaker.ASSISTANT and isinstance(content, list):
        return [_read_answer(content)]
    messages: list[Message] = []
    if speaker is Speaker.USER and isinstance(content, list):
        others: list[Any] = []
        for block in content:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                call_id = read_text(block, "tool_use_id")
                messages.append(Message(Speaker.TOOL, _read_parts(block.get("content")), call_id=call_id))
            else:
                others.append(block)
        content = others
    if content or not messages:
        messages.append(Message(speaker, _read_parts(content)))
    return messages


def _read_answer(blocks: list[Any]) -> Message:
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[Call] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use":
            if not isinstance(block.get("name"), str):
                raise UnreadableError(".content has a tool_use that names no tool")
            calls.append(Call(block["name"], read_arguments(block.get("input")), read_text(block, "id")))
        elif kind == "thinking":
            thoughts.append(read_text(block, "thinking"))
        elif kind != "redacted_thinking" and (part := _read_block(block)) is not None:
            parts.append(part)
    return Message(Speaker.ASSISTANT, tuple(parts), reasoning="".join(thoughts), calls=tuple(calls))


def _read_parts(content: Any) -> tuple[Part, ...]:
    """Return the parts of a string or a list of blocks. Raises UnreadableError."""
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if content is None:
        return ()
    if not isinstance(content, list):
        raise UnreadableError(".content is neither text nor a list of blocks")
    return tuple(part for block in content if (part := _read_block(block)) is not None)


def _read_block(block: Any) -> Part | None:
    """Return a block as a part; None for a text without anything in it. Raises UnreadableError."""
    if not isinstance(block, dict):
        raise UnreadableError(".content has a block that is not an object")
    kind = block.get("type")
    if kind == "text":
        text = block.get("text")
        if isinstance(text, str):
            return TextPart(text) if text else None
    elif kind == "image" and isinstance(source := block.get("source"), dict):
        image = _read_image(source)
        if image is not None:
            return image
    return other_part(DialectName.ANTHROPIC, block)


def _read_image(source: dict[str, Any]) -> ImagePart | None:
    """Return a picture in base64 or at a URL; None for one that is a file the API holds."""
    kind, data, url = source.get("type"), source.get("data"), source.get("url")
    if kind == "base64" and isinstance(data, str) and data:
        return ImagePart(media_type=read_text(source, "media_type"), data=data)
    return read_image_url(url) if kind == "url" and isinstance(url, str) else None


def _write_result(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.call_id}
    blocks = _write_parts(message.parts)
    if blocks:
        written["content"] = _shortest(blocks)
    return written


def _write_parts(parts: Sequence[Part]) -> list[Any]:
    """Return parts as blocks; white space that is a part of its own goes into the text beside it."""
    blocks: list[Any] = []
    space = ""
    for position, part in enumerate(parts):
        if not isinstance(part, TextPart):
            blocks.append(_write_part(part))
        elif part.text.strip():
            blocks.append({"type": "text", "text": space + part.text})
            space = ""
        elif blocks and isinstance(parts[position - 1], TextPart):
            blocks[-1]["text"] += part.text
        else:
            space += part.text
    return blocks


def _write_part(part: ImagePart | OtherPart) -> Any:
    if isinstance(part, OtherPart):
        return read_value(part.value.encode())
    if part.data:
        source = {"type": "base64", "media_type": media_type_of(part), "data": part.data}
    else:
        source = {"type": "url", "url": part.url}
    return {"type": "image", "source": source}


def _shortest(blocks: list[Any]) -> Any:
    """Return blocks as a string where they are one text."""
    only = blocks[0] if len(blocks) == 1 else None
    return only["text"] if isinstance(only, dict) and only.get("type") == "text" else blocks
