"""Write a kept conversation as a person reads it.

Called by cli.sessions. What clients and models wrote stands as printable characters, every line of it but the first indented, so
that it can neither speak to the terminal nor pass for another speaker's.
"""

from collections.abc import Iterator
from typing import Any

from understudy.cli.status import duration
from understudy.telemetry.console import printable

_MARKS = {
    "torn": "[torn: the answer broke and could not go on]",
    "abandoned": "[abandoned: the client left before the end]",
}
_INDENT = "  "


def transcript(record: dict[str, Any], now_unix_s: float) -> Iterator[str]:
    """Yield the lines of a record as GET /api/sessions?id=ID gives it; anything in it may be missing."""
    yield _heading(record, now_unix_s)
    fallen = record.get("fallen")
    if fallen:
        yield f"{_word(fallen)} earlier messages have fallen off"
    yield ""
    for message in (*_dicts(record.get("system")), *_dicts(record.get("messages"))):
        yield from _message(message)


def ago(at_unix_s: float, now_unix_s: float) -> str:
    """Say how long ago that was; - for a time that was never told."""
    return f"{duration(max(0.0, now_unix_s - at_unix_s))} ago" if at_unix_s else "-"


def size(size_bytes: float) -> str:
    """Say how large that is: 812 B, 1.5 KiB, 3.0 MiB."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    return f"{size_bytes / 1024:.1f} KiB" if size_bytes < 1024**2 else f"{size_bytes / 1024**2:.1f} MiB"


def _heading(record: dict[str, Any], now_unix_s: float) -> str:
    facts = [f"{len(_dicts(record.get('messages')))} messages", size(_number(record.get("bytes")))]
    if changed_at := _number(record.get("changed_at_unix_s")):
        facts.append(f"changed {ago(changed_at, now_unix_s)}")
    if model := _word(record.get("model")):
        facts.append(model)
    if backend := _word(record.get("backend")):
        facts.append(f"last answered by {backend}")
    return f"{_word(record.get('id'))}: {', '.join(facts)}"


def _message(message: dict[str, Any]) -> Iterator[str]:
    name = f" {_word(message['name'])}" if message.get("name") else ""
    lead = f"{_word(message.get('speaker'))}{name}: "
    lines = list(_content(message))
    first = next(iter(lines), "")
    yield (lead + first).rstrip()
    yield from ((_INDENT + line).rstrip() for line in lines[1:])


def _content(message: dict[str, Any]) -> Iterator[str]:
    """Yield what was said line by line, the thought before it, the calls and the mark after it."""
    if message.get("reasoning"):
        yield from _lines(f"[thought: {message['reasoning']}]")
    for part in _dicts(message.get("parts")):
        yield from _part(part)
    for call in _dicts(message.get("calls")):
        yield f"[calls {_word(call.get('name'))} {_word(call.get('arguments', '{}'))}]"
    if mark := _MARKS.get(str(message.get("mark"))):
        yield mark


def _part(part: dict[str, Any]) -> Iterator[str]:
    kind = part.get("kind")
    if kind == "text":
        yield from _lines(part.get("text"))
    elif kind == "image":
        where = _word(part.get("url")) or size(len(str(part.get("data") or "")) * 3 // 4)
        yield f"[image {' '.join(word for word in (_word(part.get('media_type')), where) if word)}]"
    else:
        whose = _word(part.get("dialect")) or "one dialect"
        yield f"[something that only {whose} has, {size(len(str(part.get('value') or '')))}]"


def _lines(text: object) -> Iterator[str]:
    # Only what a terminal takes for a line's end too; the others are printed as escapes.
    return (printable(line) for line in str(text or "").replace("\r\n", "\n").split("\n"))


def _word(value: object) -> str:
    return "" if value is None else printable(str(value))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
