"""Read a client's request as the part of a conversation that it is, and write it with what was stored standing before that.

Called by dataplane.turn for requests that name a session. Messages are read and written by messages_openai, messages_ollama and
messages_anthropic. What is not added keeps its bytes: the other members of the body and the client's own messages. Decides
nothing about the conversation (core.conversation).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from understudy.core.ask import DialectName
from understudy.core.conversation import TEXT_GAP, Given, Merged
from understudy.core.message import Message, Part, Speaker, TextPart, spoken
from understudy.core.transcript import Shape
from understudy.dialects import messages_anthropic, messages_ollama, messages_openai
from understudy.dialects.message_parts import uncarried
from understudy.dialects.raw_json import LENIENT_BYTES_MAX, is_crowded, read_items, read_members, read_value, write
from understudy.dialects.wish import shape_of

CONVERSING_PATHS = frozenset(("/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate", "/v1/messages"))
"""The paths whose requests are turns of a conversation. /v1/responses is none: its engines keep conversations themselves."""

_Members = Mapping[str, msgspec.Raw]

_OPENAI_SHAPES = (Shape.OPENAI_CHAT, Shape.OPENAI_TEXT)
_TEXT_SHAPES = (Shape.OPENAI_TEXT, Shape.OLLAMA_TEXT)
_READ: dict[Shape, Callable[[list[Any]], tuple[Message, ...] | str]] = {
    Shape.OPENAI_CHAT: messages_openai.read_messages,
    Shape.OLLAMA_CHAT: messages_ollama.read_messages,
    Shape.ANTHROPIC: messages_anthropic.read_messages,
}
_COUNTS = ("n", "n_cmpl", "best_of")
# Text that the answer has before or behind what is generated, or a prompt that is no text.
_FORMS = {
    Shape.OPENAI_CHAT: ("echo", "input_ids", "input_embeds"),
    Shape.OPENAI_TEXT: ("echo", "suffix", "prompt_embeds", "input_ids", "input_embeds"),
    Shape.OLLAMA_TEXT: ("suffix",),
}
_NULL = msgspec.Raw(b"null")
_NOTHING = (b"null", b"false", b'""', b"0", b"[]")
_SYSTEM_ROLES = ("system", "developer")
_NO_PATH = "this path carries no conversation"
_NO_OBJECT = "the body is not a JSON object, or nested too deeply"
_TOO_LONG = "the body is not a JSON object, or not strict JSON and too long to be read leniently"
_CROWDED = "the body has too many values to keep its conversation"
_NO_PROMPT = "prompt is not a string"


class _Role(msgspec.Struct):
    """What is read of a client's own message when it is written again."""

    role: str = ""


_DECODE_ROLE = msgspec.json.Decoder(_Role).decode


def read_given(path: str, body: bytes) -> Given | str:
    """Read what a client has sent to one of `CONVERSING_PATHS`; in words why it cannot be read (for a 400). Raises nothing.

    The words quote nothing of the body. Ollama's request to load a model, without messages or a prompt, gives no messages.
    """
    shape = shape_of(path)
    return _NO_PATH if shape is None else _read(shape, body)


def unkeepable(path: str, body: bytes) -> str:
    """Return in words why the conversation of such a request cannot be kept, "" when it can or the body cannot be read.

    Several answers to one question are no conversation, and neither is text that is not generated behind its prompt. A list
    of one string is a prompt like any other.
    """
    shape = shape_of(path)
    members = _members(body)
    if isinstance(members, str) or shape is None:
        return ""
    if shape in _OPENAI_SHAPES:
        several = next((key for key in _COUNTS if _count(_value(members, key)) > 1), "")
        if not several and _value(members, "use_beam_search"):
            several = "use_beam_search"
        if several:
            return f"{several} asks for several answers"
    for key in _FORMS.get(shape, ()):
        if bytes(members.get(key, _NULL)) not in _NOTHING:
            return f"with {key} the answer is not the continuation of a text"
    return _unkeepable_prompt(members) if shape is Shape.OPENAI_TEXT else ""


def write_asked(path: str, body: bytes, merged: Merged) -> bytes | str:
    """Write the client's request with what was stored before its messages; in words what this dialect cannot carry.

    `body` itself where nothing is added. Of repeated members the last counts and is the one that stays. On the chat paths
    `merged.system`, or else the client's own system messages, come first, then `merged.before`, then the client's other
    messages. On the text paths `merged.prompt` is the prompt; Ollama's gets a system message, too, where the client gave none.
    Raises nothing.
    """
    shape = shape_of(path)
    if shape is None:
        return _NO_PATH
    if not (merged.system or (merged.prompt is not None if shape in _TEXT_SHAPES else merged.before)):
        return body
    members = _members(body)
    if isinstance(members, str):
        return members
    if shape in _TEXT_SHAPES:
        changed = _changed_text(shape, members, merged)
    elif shape is Shape.ANTHROPIC:
        changed = _changed_anthropic(members, merged)
    else:
        changed = _changed_chat(shape, members, merged)
    if isinstance(changed, str):
        return changed
    if not changed:
        return body
    return write({**members, **changed}) or "the conversation is nested too deeply to be sent"


# --- reading


def _members(body: bytes) -> dict[str, msgspec.Raw] | str:
    if is_crowded(body):
        return _CROWDED
    members = read_members(body)
    if members is None:
        return _TOO_LONG if len(body) > LENIENT_BYTES_MAX else _NO_OBJECT
    return members


def _read(shape: Shape, body: bytes) -> Given | str:
    members = _members(body)
    if isinstance(members, str):
        return members
    if shape is Shape.OPENAI_TEXT:
        return _read_completion(members)
    return _read_generate(members) if shape is Shape.OLLAMA_TEXT else _read_chat(shape, members)


def _value(members: _Members, key: str) -> Any:
    raw = members.get(key)
    return None if raw is None else read_value(raw)


def _read_chat(shape: Shape, members: _Members) -> Given | str:
    values = _value(members, "messages")
    if shape is Shape.OLLAMA_CHAT and bytes(members.get("messages", _NULL)) == b"null":
        return Given()  # the request only loads the model
    messages = _READ[shape](values) if isinstance(values, list) else "messages is not a list, or cannot be read"
    if isinstance(messages, str):
        return messages
    if shape is Shape.ANTHROPIC:
        system = messages_anthropic.read_system(_value(members, "system"))
        return system if isinstance(system, str) else Given(system, messages)
    leading = _leading(message.speaker is Speaker.SYSTEM for message in messages)
    return Given(messages[:leading], messages[leading:])


def _leading(are_system: Iterable[bool]) -> int:
    """Return how many are true before the first that is not."""
    leading = 0
    for is_system in are_system:
        if not is_system:
            break
        leading += 1
    return leading


def _read_completion(members: _Members) -> Given | str:
    prompt = _value(members, "prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        return _NO_PROMPT
    return Given(messages=(spoken(Speaker.USER, prompt, is_raw=True),), is_text=True)


def _read_generate(members: _Members) -> Given | str:
    """Read the body of /api/generate (ollama api/types.go, GenerateRequest)."""
    prompt, system = _value(members, "prompt") or "", _value(members, "system") or ""
    images = messages_ollama.read_images(_value(members, "images"))
    if not isinstance(prompt, str):
        return _NO_PROMPT
    if not isinstance(system, str):
        return "system is not a string"
    if images is None:
        return "images is not a list of strings"
    parts: tuple[Part, ...] = (TextPart(prompt), *images)
    asked = Message(Speaker.USER, parts, is_raw=_value(members, "raw") is True)
    return Given(
        system=(spoken(Speaker.SYSTEM, system),) if system else (),
        # Without a prompt the request only loads the model.
        messages=(asked,) if prompt else (),
        is_text=True,
        has_context=_has_context(members),
    )


def _has_context(members: _Members) -> bool:
    return bytes(members.get("context", _NULL)) not in _NOTHING


def _count(value: Any) -> int:
    """Read a count as engines do, which take "2" and 2.0 for 2."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        return int(value)
    except (ValueError, OverflowError):
        return 0


def _unkeepable_prompt(members: _Members) -> str:
    prompts = read_items(members.get("prompt", _NULL))
    if not prompts:
        return ""
    if any(bytes(prompt)[:1] != b'"' for prompt in prompts):
        return "a prompt of token ids is no text"
    return "several prompts ask for several answers" if len(prompts) > 1 else ""


# --- writing


def _changed_text(shape: Shape, members: _Members, merged: Merged) -> dict[str, Any] | str:
    if merged.prompt is not None and any(not isinstance(part, TextPart) for one in merged.before for part in one.parts):
        return "the stored conversation has pictures or other parts that a prompt cannot carry"
    changed: dict[str, Any] = {} if merged.prompt is None else {"prompt": merged.prompt}
    if shape is Shape.OPENAI_TEXT or not merged.system:
        return changed
    # Ollama refuses a system message beside a raw prompt, and a context has its own within it.
    if _value(members, "system") or _value(members, "raw") is True or _has_context(members):
        return changed
    wrong = uncarried(merged.system, DialectName.OLLAMA)
    if wrong:
        return wrong
    return {**changed, "system": TEXT_GAP.join(message.text for message in merged.system)}


def _changed_chat(shape: Shape, members: _Members, merged: Merged) -> dict[str, Any] | str:
    write_messages = messages_openai.write_messages if shape is Shape.OPENAI_CHAT else messages_ollama.write_messages
    own = read_items(members.get("messages", _NULL)) or []
    leading = _leading(_is_system(message) for message in own)
    system = write_messages(merged.system)
    before = write_messages(merged.before)
    if isinstance(system, str):
        return system
    if isinstance(before, str):
        return before
    return {"messages": [*(system or own[:leading]), *before, *own[leading:]]}


def _changed_anthropic(members: _Members, merged: Merged) -> dict[str, Any] | str:
    wrong = uncarried(merged.system, DialectName.ANTHROPIC)
    before = wrong or messages_anthropic.write_messages(merged.before)
    if isinstance(before, str):
        return before
    changed: dict[str, Any] = {}
    if before:
        changed["messages"] = [*before, *(read_items(members.get("messages", _NULL)) or ())]
    # The API has no place for a system message between the others.
    later = [message for message in merged.before if message.speaker is Speaker.SYSTEM]
    own = b"null" if merged.system else bytes(members.get("system", _NULL))
    if merged.system or later:
        system = messages_anthropic.write_system((*merged.system, *later), own)
        if system is not None:
            changed["system"] = system
    return changed


def _is_system(message: msgspec.Raw) -> bool:
    """Tell whether one of the client's own messages is a system message; Ollama takes roles in any case."""
    try:
        role: Any = _DECODE_ROLE(message).role
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = read_value(message)
        role = value.get("role") if isinstance(value, dict) else None
    return isinstance(role, str) and role.lower() in _SYSTEM_ROLES
