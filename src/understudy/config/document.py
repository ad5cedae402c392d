"""Turn the bytes of a YAML file into a tree of nodes, each of which knows its line and column.

Called by config.load. Builds the tree from PyYAML's safe event stream, so that no tag can make an object, every bound is
checked as the text is read, and scalars stay exactly as they were written: `on`, `010` and `1.10` mean what their key says.
Never looks at what the keys mean.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NoReturn

import yaml

from understudy.errors import Mistake

FILE_BYTES_MAX: Final = 1024 * 1024
# A file of 50 backends with every key has about 3 000 nodes, aliases counted as often as they are used.
NODES_MAX: Final = 50_000
DEPTH_MAX: Final = 32

_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL"})
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")


class Kind(Enum):
    """What a node is; the value is the words for it in a message."""

    TEXT = "a single value"
    NOTHING = "nothing"
    LIST = "a list"
    MAPPING = "keys and values"


class Node:
    """One value of the file. `line` and `column` count from 1.

    `text` is a scalar as it was written, `is_plain` whether it stood without quotes; `items` are a list's; `fields` a
    mapping's, with each key's place in `key_places`. `is_broken` marks what already has its mistake, so that nothing else is
    said about it. `size` counts nodes, itself included.
    """

    __slots__ = ("column", "fields", "is_broken", "is_plain", "items", "key_places", "kind", "line", "size", "text")

    def __init__(self, kind: Kind, line: int, column: int) -> None:
        self.kind = kind
        self.line = line
        self.column = column
        self.text = ""
        self.is_plain = False
        self.items: list[Node] = []
        self.fields: dict[str, Node] = {}
        self.key_places: dict[str, tuple[int, int]] = {}
        self.is_broken = False
        self.size = 1


class _Stop(Exception):  # noqa: N818  control flow inside this module
    """Reading cannot go on; the mistake is already noted."""


class _Level:
    """An unfinished list or mapping. `key` is the mapping's key that waits for its value, None between pairs."""

    __slots__ = ("anchor", "key", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None


def read_document(content: bytes, file: str) -> tuple[Node | None, list[Mistake]]:
    """Return the file's one document, and every mistake in its form; no node when it could not be read to its end."""
    mistakes: list[Mistake] = []
    text = _decode(content, file, mistakes)
    if text is None:
        return None, mistakes
    reader = _Reader(file, mistakes)
    try:
        for event in _events(text):
            reader.take(event)
    except _Stop:
        return None, mistakes
    except yaml.MarkedYAMLError as error:
        mistakes.append(_syntax_mistake(error, text, file))
        return None, mistakes
    except yaml.YAMLError as error:
        mistakes.append(Mistake("", f"YAML that cannot be read ({type(error).__name__})", "valid YAML", file, 1, 1))
        return None, mistakes
    return reader.root, mistakes


def _decode(content: bytes, file: str, mistakes: list[Mistake]) -> str | None:
    if len(content) > FILE_BYTES_MAX:
        want = f"at most {FILE_BYTES_MAX // 1024**2} MiB"
        mistakes.append(Mistake("", f"a file of more than {FILE_BYTES_MAX} bytes", want, file, 1, 1))
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(content[: error.start].decode("utf-8", "replace"))
        mistakes.append(
            Mistake("", f"the byte 0x{content[error.start]:02x}, which is not UTF-8", "text in UTF-8", file, line, column)
        )
        return None
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line, column = _place(text[: unprintable.start()])
        found = f"the control character U+{ord(unprintable[0]):04X}"
        mistakes.append(Mistake("", found, "a text file (this one may be binary)", file, line, column))
        return None
    return text


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _events(text: str) -> Iterator[yaml.Event]:
    # libyaml's scanner is ten times as fast; a platform without it gets PyYAML's own, with other words for some mistakes.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=loader)
    return events


def _syntax_mistake(error: yaml.MarkedYAMLError, text: str, file: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    indentation = written[: len(written) - len(written.lstrip())]
    if "\t" in indentation:
        return Mistake("", "a tab", "spaces for indentation", file, line, indentation.index("\t") + 1)
    # PyYAML's own scanner quotes what it met, and that may be part of a password; punctuation is safe to show.
    problem = re.sub(r"'([^']*)'", lambda quoted: quoted[0] if _is_punctuation(quoted[1]) else "...", error.problem or "")
    context = f", {error.context}" if error.context and "'" not in error.context else ""
    want = "valid YAML (a value that begins with one of *&!%@`{[|> stands in quotes)"
    if "${" in written and "flow" in context:
        want = "valid YAML (between { } or [ ] a ${NAME} stands in quotes)"
    return Mistake("", f"YAML that cannot be read: {problem or 'something else'}{context}", want, file, line, column)


def _is_punctuation(text: str) -> bool:
    return not any(letter.isalnum() for letter in text)


class _Reader:
    """Takes events one by one and grows the tree; no recursion, so depth costs no stack."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.root: Node | None = None
        self._file = file
        self._mistakes = mistakes
        self._levels: list[_Level] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event. Raises `_Stop` when going on would make no sense."""
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            level = self._levels.pop()
            if level.anchor:
                self._anchors[level.anchor] = level.node
            self._put(level.node)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "a second document", "one document in one file: no --- after the first key")

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        level = self._levels[-1] if self._levels else None
        if level is not None and level.node.kind is Kind.MAPPING and level.key is None:
            self._take_key(event, level)
            return
        node = self._new(event, Kind.NOTHING if event.implicit[0] and event.value in _NOTHING else Kind.TEXT)
        node.text = event.value
        node.is_plain = event.implicit[0]
        if event.anchor:
            self._anchors[event.anchor] = node
        self._put(node)

    def _take_key(self, event: yaml.ScalarEvent, level: _Level) -> None:
        node = self._new(event, Kind.TEXT)
        place = level.node.key_places.get(event.value)
        if place is not None:
            found = f"the key {shown(event.value)} a second time (first on line {place[0]})"
            self._note(node.line, node.column, found, "each key once")
        else:
            level.node.key_places[event.value] = (node.line, node.column)
        level.key = event.value

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if self._levels and self._levels[-1].node.kind is Kind.MAPPING and self._levels[-1].key is None:
            self._stop(event, "a list or a mapping as a key", "a plain key")
        if len(self._levels) >= DEPTH_MAX:
            self._stop(event, f"more than {DEPTH_MAX} levels", "fewer levels")
        kind = Kind.MAPPING if isinstance(event, yaml.MappingStartEvent) else Kind.LIST
        if event.anchor:
            # Until it is finished, an alias to it would make it contain itself.
            self._anchors.pop(event.anchor, None)
        self._levels.append(_Level(self._new(event, kind), event.anchor))

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        level = self._levels[-1] if self._levels else None
        if level is not None and level.node.kind is Kind.MAPPING and level.key is None:
            self._stop(event, "an alias as a key", "a plain key")
        target = self._anchors.get(event.anchor or "")
        if target is None:
            self._stop(event, "an alias (*) without a finished anchor (&)", "a value; one that begins with * stands in quotes")
        self._grow(event, target.size)
        self._put(target)

    def _put(self, node: Node) -> None:
        """Give a finished node to the list or mapping that it stands in."""
        if not self._levels:
            self.root = node
            return
        level = self._levels[-1]
        level.node.size += node.size
        if level.node.kind is Kind.LIST:
            level.node.items.append(node)
            return
        assert level.key is not None, "keys are taken by _take_key"  # noqa: S101  an invariant of this class
        level.node.fields.setdefault(level.key, node)
        level.key = None

    def _new(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, kind: Kind) -> Node:
        self._grow(event, 1)
        node = Node(kind, *_started_at(event))
        if event.tag is not None:
            self._note(node.line, node.column, "a tag (!)", "the value alone; one that begins with ! stands in quotes")
            node.is_broken = True
        return node

    def _grow(self, event: yaml.Event, size: int) -> None:
        self._nodes += size
        if self._nodes > NODES_MAX:
            self._stop(event, f"more than {NODES_MAX} values, aliases counted as often as they are used", "a smaller file")

    def _note(self, line: int, column: int, found: str, want: str) -> None:
        self._mistakes.append(Mistake("", found, want, self._file, line, column))

    def _stop(self, event: yaml.Event, found: str, want: str) -> NoReturn:
        self._note(*_started_at(event), found, want)
        raise _Stop


def _started_at(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def shown(text: str) -> str:
    """Write a scalar as a message shows it: on one line, at most 60 characters, quoted when it would not stand out."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return short if short.isprintable() and short and short == short.strip() else repr(short)
