"""docs/events.md and the closed list of events are in step, and nobody tells an event that is not on it."""

import ast
import re

import msgspec

from tidy.source_tree import TOP, python_files
from understudy.telemetry.events import EVENTS
from understudy.telemetry.exchange_line import ExchangeLine

PAGE = (TOP / "docs" / "events.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z.]+\.[a-z_]+)` \| (\w+) \|", re.MULTILINE)
TELLERS = {"tell", "info", "warning", "error", "report", "_tell", "_on_event", "on_event"}


def told_events() -> set[str]:
    """List the event names that stand in the source as the first argument of a call that tells one."""
    found = set()
    for path in python_files("src"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and getattr(node.func, "attr", "") in TELLERS:
                texts = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z]+\.[a-z_]+", text)}
    return found


def test_every_event_has_its_row_with_its_level() -> None:
    assert dict(ROW.findall(PAGE)) == {str(event): str(level) for event, level in EVENTS.items()}


def test_the_rows_stand_in_the_order_of_the_list() -> None:
    assert [name for name, _ in ROW.findall(PAGE)] == [str(event) for event in EVENTS]


def test_every_event_that_is_told_is_on_the_list() -> None:
    assert told_events() <= {str(event) for event in EVENTS}


def test_every_field_of_the_exchange_line_is_explained() -> None:
    section = PAGE.partition("## `exchange.finished`")[2].partition("\n## ")[0]
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))))
    fields = {field.name for field in msgspec.structs.fields(ExchangeLine)} - {"timestamp", "level", "event"}
    assert explained == fields
