"""Write an event as one line for a person at a terminal: time, level, name, then name=value pairs.

Called by telemetry.logs. Whatever a client or a backend wrote comes out as printable characters only, so that it can neither
begin a line of its own nor speak to the terminal.
"""

from collections.abc import Mapping
from typing import Any

_COLORS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_LEAD_FIELDS = ("timestamp", "level", "event", "exception")


def printable(text: str) -> str:
    r"""Return `text` with every control, format and surrogate character written as its escape, such as `\n` or `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(_value(item) for item in value) or "-"
    text = printable(str(value))
    return f'"{text}"' if not text or " " in text else text


def console_line(fields: Mapping[str, Any], *, is_colored: bool) -> str:
    """Return `fields` as one line with its newline; an `exception` follows on lines of its own, indented."""
    level = str(fields["level"])
    time = str(fields["timestamp"]).replace("T", " ")
    lead = f"{time} {level:<7} {fields['event']}"
    if is_colored:
        lead = f"{_DIM}{time}{_RESET} {_COLORS.get(level, '')}{level:<7}{_RESET} {fields['event']}"
    pairs = [f"{name}={_value(value)}" for name, value in fields.items() if name not in _LEAD_FIELDS]
    lines = ["  ".join([lead, " ".join(pairs)]) if pairs else lead]
    lines += [f"    {printable(line)}" for line in str(fields.get("exception") or "").split("\n") if line]
    return "\n".join(lines) + "\n"
