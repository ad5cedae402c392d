"""Schemas of what the admin port tells of upkeep: restarts, warmth, waking, promises, alerts.

Part of admin.openapi. Data only; tests compare it with what is really answered.
"""

from typing import Any

from understudy.core.ailment import Cause
from understudy.core.restart import Phase

_TEXT, _NUMBER, _WHOLE, _FLAG = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, schema]}


def upkeep_schemas() -> dict[str, Any]:
    """Return the schemas by name."""
    course = {
        "phase": {"enum": [each.value for each in Phase]},
        "cause": _or_null({"enum": [each.value for each in Cause]}),
        "since_s": _NUMBER,
        "reason": _TEXT,
        "nth": _or_null(_WHOLE),
        "times": _WHOLE,
        "times_max": _WHOLE,
        "window_s": _NUMBER,
        "next_in_s": _or_null(_NUMBER),
        "waits_for": _TEXT,
    }
    model = _object({"is_warm": _FLAG, "is_loading": _FLAG, "reason": _TEXT})
    objective = {
        "objective": _TEXT,
        "value": _or_null(_NUMBER),
        "bound": _NUMBER,
        "window_s": _NUMBER,
        "broken": _FLAG,
        "broken_for_s": _NUMBER,
        "samples": _WHOLE,
        "backend": _TEXT,
    }
    channel = {
        "name": _TEXT,
        "sent": _WHOLE,
        "failed": _WHOLE,
        "pending": _WHOLE,
        "last_error": _TEXT,
        "next_try_in_s": _or_null(_NUMBER),
    }
    tested = _object({"name": _TEXT, "ok": _FLAG, "words": _TEXT})
    return {
        "RestartCourse": _object(course),
        "Warmth": _object({"is_warm": _FLAG, "models": {"type": "object", "additionalProperties": model}}),
        "Waking": _object({"tries": _WHOLE, "reason": _TEXT}),
        "Objective": _object(objective),
        "AlertChannel": _object(channel),
        "AlertTest": _object({"channels": {"type": "array", "items": tested}}),
    }
