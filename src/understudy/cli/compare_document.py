"""Turn the bytes of a prompts file, YAML or lines of JSON, into nodes that know their line.

Called by cli.compare_prompts. Never looks at what the keys mean. Differs from config.document in what it is for: ten times the
size, values with JSON's types (`0.2`, `true`), and lines of JSON. A scalar keeps how it was written, so that the label `no` stays
a word; only true, false, null and JSON's numbers have a type (as in YAML 1.2.2, 10.2, and unlike YAML 1.1).
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import yaml

FILE_BYTES_MAX: Final = 10 * 1024 * 1024
# 10 000 prompts with ten values each, five times; aliases count as often as they are used.
NODES_MAX: Final = 500_000
DEPTH_MAX: Final = 64

_CONSTANTS: Final[dict[str, Any]] = {"": None, "~": None, "null": None, "true": True, "false": False}
# Engines keep whole numbers in 64 bits, with a sign or without.
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,3})?")
_ANY_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class PromptsError(Exception):
    """The prompts cannot be used: `lines` says each mistake with its place, for the operator."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Node:
    """One value and the line that it begins on. `text` is a scalar as it was written, `is_plain` without quotes.

    `items` are a list's values, `fields` a mapping's; both are None for a scalar, one of them is.
    """

    __slots__ = ("fields", "is_plain", "items", "key_lines", "line", "size", "text")

    def __init__(self, line: int, text: str = "", *, is_plain: bool = False) -> None:
        self.line = line
        self.text = text
        self.is_plain = is_plain
        self.items: list[Node] | None = None
        self.fields: dict[str, Node] | None = None
        self.key_lines: dict[str, int] = {}
        self.size = 1

    @property
    def is_scalar(self) -> bool:
        """Whether it is neither a list nor a mapping."""
        return self.items is None and self.fields is None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was written, or null."""
        return self.is_scalar and self.is_plain and self.text in ("", "~", "null")

    @property
    def is_out_of_range(self) -> bool:
        """Whether it is a number that is not passed on as one: too large or too long."""
        is_number = self.is_scalar and self.is_plain and _ANY_NUMBER.fullmatch(self.text) is not None
        return is_number and isinstance(_typed(self.text), str)

    def value(self) -> Any:
        """Return what JSON would hold in its place."""
        if self.items is not None:
            return [item.value() for item in self.items]
        if self.fields is not None:
            return {key: field.value() for key, field in self.fields.items()}
        return _typed(self.text) if self.is_plain else self.text


def _typed(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        whole = int(text)
        return whole if _INTEGER_MIN <= whole <= _INTEGER_MAX else text
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def read_nodes(content: bytes, file: str) -> list[Node]:
    """Return the entries of a YAML list, or of lines of JSON (a name in .jsonl or .ndjson, or a text that begins with `{`).

    Raises `PromptsError`; `file` is the name that it carries.
    """
    if len(content) > FILE_BYTES_MAX:
        raise PromptsError(f"{file}: found more than {FILE_BYTES_MAX} bytes; want at most {FILE_BYTES_MAX // 1024**2} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"the byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise PromptsError(f"{file}:{line}: found {found}; want text in UTF-8") from error
    if file.lower().endswith((".jsonl", ".ndjson")) or text.lstrip().startswith("{"):
        return list(_json_lines(text, file))
    root = _Yaml(file).read(text)
    if root is None or root.items is None:
        where = f"{file}:{root.line}" if root else file
        found = "nothing" if root is None or root.is_nothing else "a single value" if root.is_scalar else "keys and values"
        raise PromptsError(f"{where}: found {found}; want a list of prompts, each beginning with -")
    return root.items


# --- lines of JSON


def _json_lines(text: str, file: str) -> Iterator[Node]:
    nodes = 0
    # Not splitlines(): it also ends lines at characters that stand inside of JSON's texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = _JSON.decode(line.strip())
            node = _from_json(value, number, 0)
        except json.JSONDecodeError as error:
            found = f"no JSON ({error.msg.lower()} in column {error.colno})"
            raise PromptsError(f"{file}:{number}: found {found}; want one JSON object a line") from error
        except (ValueError, RecursionError) as error:
            found = str(error) if isinstance(error, ValueError) else f"more than {DEPTH_MAX} levels"
            raise PromptsError(f"{file}:{number}: found {found}; want JSON that engines take") from error
        nodes += node.size
        if nodes > NODES_MAX:
            raise PromptsError(f"{file}:{number}: found more than {NODES_MAX} values; want a smaller file")
        yield node


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key twice in one object")
    return fields


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word}, which is not JSON")


def _whole(text: str) -> int:
    if len(text) > len(str(_INTEGER_MIN)) or not _INTEGER_MIN <= (whole := int(text)) <= _INTEGER_MAX:
        raise ValueError(f"the number {shown(text)}, which has more than 64 bits")
    return whole


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {shown(text)}, which is too large")
    return number


_JSON: Final = json.JSONDecoder(object_pairs_hook=_fields, parse_constant=_no_constant, parse_int=_whole, parse_float=_number)


def _from_json(value: Any, line: int, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise ValueError(f"more than {DEPTH_MAX} levels")
    if isinstance(value, str):
        return Node(line, value)
    node = Node(line)
    if isinstance(value, dict):
        node.fields = {key: _from_json(field, line, depth + 1) for key, field in value.items()}
        node.key_lines = dict.fromkeys(node.fields, line)
        node.size += sum(field.size for field in node.fields.values())
    elif isinstance(value, list):
        node.items = [_from_json(item, line, depth + 1) for item in value]
        node.size += sum(item.size for item in node.items)
    else:
        node.text, node.is_plain = json.dumps(value), True
    return node


# --- YAML


class _Yaml:
    """Grows the tree from PyYAML's events: no tag can make an object, no depth costs stack, no alias grows without bound."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._root: Node | None = None
        # Each unfinished list or mapping with its anchor and, in a mapping, the key that waits for its value.
        self._levels: list[tuple[Node, str | None]] = []
        self._keys: list[str | None] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._documents = 0

    def read(self, text: str) -> Node | None:
        """Return the root, None for an empty file. Raises `PromptsError`."""
        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self._file}:{mark.line + 1}" if mark else self._file
            told = ", ".join(part for part in (error.problem, error.context) if part)
            raise PromptsError(f"{where}: found YAML that cannot be read ({told}); want valid YAML") from error
        except yaml.YAMLError as error:
            # Neither of PyYAML's readers says on which line it was.
            strange = yaml.reader.Reader.NON_PRINTABLE.search(text)
            line = text.count("\n", 0, strange.start()) + 1 if strange else 1
            what = f" (U+{ord(strange[0]):04X})" if strange else ""
            raise PromptsError(
                f"{self._file}:{line}: found a character that YAML does not have{what}; want valid YAML"
            ) from error
        except RecursionError as error:
            raise PromptsError(f"{self._file}: found too many levels; want valid YAML") from error
        return self._root

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._open(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            node, anchor = self._levels.pop()
            self._keys.pop()
            if anchor:
                self._anchors[anchor] = node
            self._put(node)
        elif isinstance(event, yaml.AliasEvent):
            target = self._anchors.get(event.anchor or "")
            if target is None or self._wants_key():
                self._stop(event, "an alias (*) without a finished anchor (&)", "a value; one that begins with * in quotes")
            self._grow(event, target.size)
            self._put(target)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "a second document", "one list in one file: no --- after the first entry")

    def _wants_key(self) -> bool:
        return bool(self._levels) and self._levels[-1][0].fields is not None and self._keys[-1] is None

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        node = self._new(event)
        node.text, node.is_plain = event.value, bool(event.implicit[0])
        if not self._wants_key():
            if event.anchor:
                self._anchors[event.anchor] = node
            self._put(node)
            return
        above = self._levels[-1][0]
        if event.value in above.key_lines:
            self._stop(event, f"the key {shown(event.value)} a second time", "each key once")
        above.key_lines[event.value] = node.line
        self._keys[-1] = event.value

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        if self._wants_key():
            self._stop(event, "a list or a mapping as a key", "a plain key")
        if len(self._levels) >= DEPTH_MAX:
            self._stop(event, f"more than {DEPTH_MAX} levels", "fewer levels")
        node = self._new(event)
        if isinstance(event, yaml.MappingStartEvent):
            node.fields = {}
        else:
            node.items = []
        if event.anchor:
            # Until it is finished, an alias to it would make it contain itself.
            self._anchors.pop(event.anchor, None)
        self._levels.append((node, event.anchor))
        self._keys.append(None)

    def _put(self, node: Node) -> None:
        if not self._levels:
            self._root = node
            return
        above = self._levels[-1][0]
        above.size += node.size
        key = self._keys[-1]
        if above.items is not None:
            above.items.append(node)
        elif above.fields is not None and key is not None:
            above.fields[key] = node
            self._keys[-1] = None

    def _new(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> Node:
        if event.tag is not None:
            self._stop(event, "a tag (!)", "the value alone; one that begins with ! in quotes")
        self._grow(event, 1)
        return Node(_line_of(event))

    def _grow(self, event: yaml.Event, size: int) -> None:
        self._nodes += size
        if self._nodes > NODES_MAX:
            self._stop(event, f"more than {NODES_MAX} values, aliases counted as often as they are used", "a smaller file")

    def _stop(self, event: yaml.Event, found: str, want: str) -> NoReturn:
        raise PromptsError(f"{self._file}:{_line_of(event)}: found {found}; want {want}")


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def shown(text: str) -> str:
    """Write a value as a message shows it: on one line, at most 60 characters."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return short if short and short.isprintable() and short == short.strip() else ascii(short)
