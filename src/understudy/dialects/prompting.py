"""Add a configured prompt to a client's request: its system prompt in the one place that each API has for it, and its defaults.

Called by dataplane for each body that is sent to a backend that has a prompt; the defaults' part is prompting_defaults. What is
not changed keeps its bytes: values are passed on as they stand in the body, and of repeated members the last counts. Pure.
Never takes away what a client has said but for the system prompt that `SystemPlace.INSTEAD` replaces, never judges what an
engine would, and does not notice that a body has been through here before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from understudy.core.color import Prompt, SystemPlace
from understudy.dialects.prompting_defaults import (
    ANTHROPIC,
    DEFAULTS_REFUSED,
    NULL,
    OLLAMA,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    OPENAI_TEXT,
    Changes,
    Members,
    Naming,
    filled,
    kind_of,
)
from understudy.dialects.raw_json import is_crowded, read_items, read_members, read_value, write

__all__ = ["DEFAULTS_REFUSED", "with_prompt"]

# A blank line. It also ends a part or block of ours, because vLLM, llama.cpp and Ollama put Anthropic's blocks together without
# anything, and so do chat templates with OpenAI's parts.
_GAP = "\n\n"
_EMPTY = msgspec.Raw(b'""')
_NOTHING = (NULL, _EMPTY)
_TRUE = msgspec.Raw(b"true")
_SYSTEM_ROLES = ("system", "developer")


def with_prompt(path: str, body: bytes, prompt: Prompt) -> bytes:
    """Return the body of a POST to `path` with `prompt` in it; `body` itself where nothing changes. Raises nothing.

    Unchanged are an empty prompt, a path that generates no text, and a body that cannot be read: not JSON, not an object, with
    messages that are no list or a system prompt that is no text, or too large for raw_json to read it. A request of Ollama's that
    only loads a model gets no system prompt, but the defaults, so that it loads the model that the next one needs.
    """
    form = None if prompt.is_empty else _FORMS.get(path.partition("?")[0])
    if form is None or is_crowded(body):
        return body
    members = read_members(body)
    if members is None or (form.has_messages and kind_of(members.get("messages", NULL)) not in (b"[", b"n")):
        return body
    changes = form.place(members, prompt) if prompt.system else {}
    if changes is None:
        return body
    changes |= filled(form.naming, members, prompt.defaults)
    return (write({**members, **changes}) or body) if changes else body


# --- where a system prompt stands


def _in_messages(members: Members, prompt: Prompt) -> Changes | None:
    """Among the messages. Without any, Ollama loads its model and the others refuse, and both are to stay so."""
    own = read_items(members.get("messages", NULL))
    return _led("messages", own, prompt, "text") if own else {}


def _in_instructions(members: Members, prompt: Prompt) -> Changes | None:
    """In the instructions of /v1/responses, or in the leading system messages of its input where a client has put its own there.

    Both become system messages, of which a chat template takes one.
    """
    told = members.get("instructions", NULL)
    own = read_items(members.get("input", NULL)) or []
    leading = _leading(own)
    if leading and told in _NOTHING:
        return _led("input", own, prompt, "input_text")
    changes = _beside(members, "instructions", prompt)
    if changes and leading and prompt.place is SystemPlace.INSTEAD:
        changes["input"] = own[leading:]
    return changes


def _in_system(members: Members, prompt: Prompt) -> Changes | None:
    """In Anthropic's `system`, a text or a list of blocks."""
    return _beside(members, "system", prompt)


def _in_generate(members: Members, prompt: Prompt) -> Changes | None:
    """In the `system` of /api/generate.

    Also beside a `context`, with which the engine would else take its model file's own. It refuses one beside a raw prompt, and
    without a prompt it only loads the model (ollama server/routes.go, GenerateHandler).
    """
    if members.get("raw", NULL) == _TRUE or members.get("prompt", NULL) in _NOTHING:
        return {}
    return _beside(members, "system", prompt)


def _nowhere(_members: Members, _prompt: Prompt) -> Changes | None:
    """In no place: /v1/completions is a text, not a conversation."""
    return {}


def _beside(members: Members, key: str, prompt: Prompt) -> Changes | None:
    if prompt.place is SystemPlace.INSTEAD:
        return {key: prompt.system}
    content = _joined(prompt.system, members.get(key, NULL), "text")
    return None if content is None else {key: content}


def _led(key: str, own: list[msgspec.Raw], prompt: Prompt, part_type: str) -> Changes | None:
    """Return the messages `own` with ours in their first one, in front of them, or in place of the leading system messages."""
    ours = {"role": "system", "content": prompt.system}
    if prompt.place is SystemPlace.INSTEAD:
        return {key: [ours, *own[_leading(own) :]]}
    first = read_members(own[0])
    if first is None or not _is_system(first):
        return {key: [ours, *own]}
    content = _joined(prompt.system, first.get("content", NULL), part_type)
    return None if content is None else {key: [{**first, "content": content}, *own[1:]]}


def _joined(system: str, own: msgspec.Raw, part_type: str) -> Any:
    """Return `system` and after it the client's own text or parts as they stand in its body; None when they are neither."""
    kind = kind_of(own)
    if kind == b"n" or own == _EMPTY:
        return system
    if kind == b'"':
        ours = write(system + _GAP)
        # The texts are joined as JSON: what the client's says with escapes, or with bytes that are no text, stays.
        return None if ours is None else msgspec.Raw(b"".join((ours[:-1], memoryview(own)[1:])))
    parts = read_items(own)
    if parts is None:
        return None
    return [{"type": part_type, "text": system + _GAP}, *parts] if parts else system


def _leading(messages: list[msgspec.Raw]) -> int:
    """Return how many system messages stand before the first other one."""
    for index, message in enumerate(messages):
        members = read_members(message)
        if members is None or not _is_system(members):
            return index
    return len(messages)


def _is_system(members: Members) -> bool:
    """Whether a message is a system message; Ollama takes roles in any case."""
    role = read_value(members.get("role", NULL))
    return isinstance(role, str) and role.lower() in _SYSTEM_ROLES


@dataclass(frozen=True, slots=True)
class _Form:
    """What the body of a path is like. `place` returns what changes for a system prompt, None when the body cannot be read."""

    place: Callable[[Members, Prompt], Changes | None]
    naming: Naming
    has_messages: bool = False


_FORMS = {
    "/v1/chat/completions": _Form(_in_messages, OPENAI_CHAT, has_messages=True),
    "/v1/completions": _Form(_nowhere, OPENAI_TEXT),
    "/v1/responses": _Form(_in_instructions, OPENAI_RESPONSES),
    "/v1/messages": _Form(_in_system, ANTHROPIC, has_messages=True),
    "/api/chat": _Form(_in_messages, OLLAMA, has_messages=True),
    "/api/generate": _Form(_in_generate, OLLAMA),
}
