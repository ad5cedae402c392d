"""Read the prompts of `understudy compare`: what is asked, and what the answer is expected to be.

Called by cli.compare. Every mistake is found before anything is sent and told with its file, line and entry; an unknown key with
the nearest known one. Sends nothing.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from understudy.cli.compare_document import Node, PromptsError, read_nodes, shown
from understudy.cli.compare_expectations import Expectation, Validate, compile_regex, compile_schema

_T = TypeVar("_T")

ENTRIES_MAX: Final = 10_000
MISTAKES_MAX: Final = 20

# Fields of a request that may stand in an entry as they are; all others stand under `with`.
_NUMBER: Final = "a number"
_WHOLE: Final = "a whole number"
_STOPS: Final = "a text or a list of texts"
_FORMAT: Final = "keys and values, such as {type: json_object}"
REQUEST_KEYS: Final = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_k": _WHOLE,
    "max_tokens": _WHOLE,
    "max_completion_tokens": _WHOLE,
    "seed": _WHOLE,
    "stop": _STOPS,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "response_format": _FORMAT,
}
ENTRY_KEYS: Final = ("name", "prompt", "messages", "model", "expect", "with", *REQUEST_KEYS)
ROLES: Final = ("system", "user", "assistant", "tool", "developer")
EXPECT_KEYS: Final = ("contains", "regex", "json_schema", "equals", "label", "labels")
# What the comparison itself decides.
_OURS: Final = {
    "model": "model: in the entry itself",
    "messages": "messages: or prompt: in the entry itself",
    "stream": "nothing: every answer is streamed",
    "stream_options": "nothing: the usage is always asked for",
    "n": "one answer to each prompt: no n",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt. `number` counts from 1; `model` "" is the default; `fields` are put into the request as they are.

    Its repr leaves out what is asked.
    """

    number: int
    line: int
    messages: list[Any] = field(repr=False)
    name: str = ""
    model: str = ""
    fields: dict[str, Any] = field(default_factory=dict, repr=False)
    expect: Expectation | None = None

    @property
    def wants_json(self) -> bool:
        """Whether an answer that is not JSON has the wrong form, whatever it says."""
        asked = self.fields.get("response_format")
        is_asked = isinstance(asked, dict) and asked.get("type") in ("json_object", "json_schema")
        return is_asked or (self.expect is not None and self.expect.validate is not None)

    @property
    def question(self) -> str:
        """What is asked, as a person reads it: the last message's text."""
        content = self.messages[-1].get("content")
        if isinstance(content, list):
            return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
        return content if isinstance(content, str) else ""


class _Mistake(Exception):  # noqa: N818  a verdict on a value, told to the operator with its place
    """What was found at `node`, and what is wanted."""

    def __init__(self, line: int, key: str, found: str, want: str) -> None:
        super().__init__(f"{key}: found {found}; want {want}" if key else f"found {found}; want {want}")
        self.line = line


def read_prompts(content: bytes, file: str) -> list[Entry]:
    """Return the entries of a file of prompts. Raises `PromptsError` with the first `MISTAKES_MAX` mistakes."""
    nodes = read_nodes(content, file)
    if not nodes:
        raise PromptsError(f"{file}: found no prompt; want at least one")
    if len(nodes) > ENTRIES_MAX:
        raise PromptsError(f"{file}: found {len(nodes)} prompts; want at most {ENTRIES_MAX}")
    entries: list[Entry] = []
    mistakes: list[str] = []
    for number, node in enumerate(nodes, start=1):
        try:
            entries.append(_entry(node, number))
        except _Mistake as mistake:
            mistakes.append(f"{file}:{mistake.line}: entry {number}: {mistake}")
            if len(mistakes) >= MISTAKES_MAX:
                break
    if mistakes:
        raise PromptsError(*mistakes)
    return entries


def _entry(node: Node, number: int) -> Entry:
    if node.is_scalar:
        return Entry(number, node.line, _asked(_text(node, "")))
    fields = _mapping(node, "", ENTRY_KEYS, "a prompt, or a mapping with prompt: or messages:")
    if ("prompt" in fields) == ("messages" in fields):
        found = "prompt and messages" if "prompt" in fields else "neither prompt nor messages"
        raise _Mistake(node.line, "", found, "one of them")
    messages = _asked(_text(fields["prompt"], "prompt")) if "prompt" in fields else _messages(fields["messages"])
    return Entry(
        number,
        node.line,
        messages,
        name=_given(fields, "name", _text) or "",
        model=_given(fields, "model", _text) or "",
        fields=_request_fields(fields),
        expect=_given(fields, "expect", _expectation),
    )


def _asked(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def _messages(node: Node) -> list[Any]:
    want = "a list of messages, each with role: and content:"
    if not node.items:
        raise _Mistake(node.line, "messages", "an empty list" if node.items is not None else "no list", want)
    for item in node.items:
        if item.fields is None or "role" not in item.fields:
            raise _Mistake(item.line, "messages", "a message without a role", want)
        _check_message(item, item.fields, want)
    messages = [item.value() for item in node.items]
    for message, item in zip(messages, node.items, strict=True):
        content = (item.fields or {}).get("content")
        if content is not None and content.is_scalar and not content.is_nothing:
            # What YAML takes for a number is a text here.
            message["content"] = content.text
    return messages


def _check_message(item: Node, fields: dict[str, Node], want: str) -> None:
    role = _text(fields["role"], "messages.role")
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=1, cutoff=0.6)
        raise _Mistake(fields["role"].line, "messages.role", shown(role), near[0] if near else f"one of {', '.join(ROLES)}")
    content = fields.get("content")
    if (content is None or content.is_nothing) and not {"tool_calls", "function_call"} & set(fields):
        raise _Mistake(item.line, "messages", "a message without content", want)
    if content is not None and (content.fields is not None or any(part.fields is None for part in content.items or ())):
        found = "keys and values" if content.fields is not None else "a part that is no mapping"
        raise _Mistake(content.line, "messages.content", found, "a text, or a list of parts such as {type: text, text: ...}")
    for key, node in fields.items():
        if key != "content" or not node.is_scalar:
            _check_numbers(node, f"messages.{key}")


def _check_numbers(node: Node, where: str) -> None:
    """Refuse numbers that would not be passed on as numbers."""
    if node.is_out_of_range:
        raise _Mistake(node.line, where, shown(node.text), "a number of at most 64 bits and 25 places, or it in quotes")
    for item in node.items or ():
        _check_numbers(item, where)
    for key, inner in (node.fields or {}).items():
        _check_numbers(inner, f"{where}.{key}")


def _request_value(node: Node, where: str, want: str) -> Any:
    """Return the value of a field of the request; `want` says what it is to be, "" anything."""
    _check_numbers(node, where)
    value = node.value()
    is_fine = {
        _NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
        _WHOLE: isinstance(value, int) and not isinstance(value, bool),
        _STOPS: isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value)),
        _FORMAT: isinstance(value, dict),
    }
    if not is_fine.get(want, True):
        raise _Mistake(node.line, where, _seen(node, value), want)
    return value


def _seen(node: Node, value: Any) -> str:
    if node.is_nothing:
        return "nothing"
    if not node.is_scalar:
        return "a list" if node.items is not None else "keys and values"
    return f"the text {shown(node.text)}" if isinstance(value, str) else shown(node.text)


def _request_fields(fields: dict[str, Node]) -> dict[str, Any]:
    found: dict[str, Any] = {key: _request_value(fields[key], key, want) for key, want in REQUEST_KEYS.items() if key in fields}
    if "with" not in fields:
        return found
    node = fields["with"]
    if node.fields is None:
        raise _Mistake(node.line, "with", "no mapping", "fields of the request, such as {top_p: 0.9}")
    for key, value in node.fields.items():
        if key in _OURS:
            raise _Mistake(node.key_lines[key], f"with.{key}", shown(value.text) if value.is_scalar else "a value", _OURS[key])
        if key in found:
            raise _Mistake(node.key_lines[key], f"with.{key}", "a field that stands in the entry, too", "it once")
        found[key] = _request_value(value, f"with.{key}", REQUEST_KEYS.get(key, ""))
    return found


# --- expectations


def _expectation(node: Node, key: str) -> Expectation:
    fields = _mapping(node, key, EXPECT_KEYS, f"one or more of {', '.join(EXPECT_KEYS)}")
    if not fields:
        raise _Mistake(node.line, key, "nothing", f"one or more of {', '.join(EXPECT_KEYS)}")
    labels = _given(fields, "expect.labels", _texts) or ()
    label = _given(fields, "expect.label", _text) or ""
    if labels and not label:
        raise _Mistake(fields["labels"].line, "expect.labels", "labels without label", "the one that is right under label:")
    if labels and label.casefold() not in {each.casefold() for each in labels}:
        raise _Mistake(fields["label"].line, "expect.label", shown(label), f"one of labels: {', '.join(map(shown, labels))}")
    return Expectation(
        contains=_given(fields, "expect.contains", _texts) or (),
        regex=_compiled(fields, "regex", lambda found: compile_regex(_text(found, "expect.regex"))),
        validate=_compiled(fields, "json_schema", _schema),
        equals=_given(fields, "expect.equals", lambda found, where: _text(found, where, may_be_empty=True)),
        label=label,
        labels=labels,
    )


def _schema(node: Node) -> Validate:
    _check_numbers(node, "expect.json_schema")
    return compile_schema(node.value())


def _compiled(fields: dict[str, Node], key: str, compiled: Callable[[Node], _T]) -> _T | None:
    if key not in fields:
        return None
    node = fields[key]
    try:
        return compiled(node)
    except ValueError as error:
        want = "a regular expression of Python's re" if key == "regex" else "a JSON Schema that is whole in itself"
        found = f"{shown(node.text)} ({error})" if node.is_scalar else f"a schema that cannot be used ({error})"
        raise _Mistake(node.line, f"expect.{key}", found, want) from error


# --- single values


def _mapping(node: Node, where: str, known: Iterable[str], want: str) -> dict[str, Node]:
    """Return the fields of a mapping that has no key but the known ones."""
    if node.fields is None:
        raise _Mistake(node.line, where, "a list" if node.items is not None else shown(node.text), want)
    names = list(known)
    for key in node.fields:
        if key not in names:
            path = f"{where}.{key}" if where else key
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
            wanted = near[0] if near else f"one of {', '.join(names)}"
            if not near and not where:
                wanted += ", or it under with:"
            raise _Mistake(node.key_lines[key], shown(path), "an unknown key", wanted)
    return node.fields


def _given(fields: dict[str, Node], path: str, read: Callable[[Node, str], _T]) -> _T | None:
    """Read the field that `path` ends with; None where it is absent."""
    key = path.rpartition(".")[2]
    return read(fields[key], path) if key in fields else None


def _text(node: Node, where: str, *, may_be_empty: bool = False) -> str:
    """Return a text as it was written: 3.10 stays 3.10."""
    if not node.is_scalar:
        raise _Mistake(node.line, where, "a list" if node.items is not None else "keys and values", "a text")
    if not may_be_empty and (node.is_nothing or not node.text.strip()):
        raise _Mistake(node.line, where, "nothing", "a text")
    return node.text


def _texts(node: Node, where: str) -> tuple[str, ...]:
    if node.items is None:
        return (_text(node, where),)
    if not node.items:
        raise _Mistake(node.line, where, "an empty list", "at least one text")
    return tuple(_text(item, where) for item in node.items)
