"""Reduce an event to what is understood of it: leave out of its deltas what says nothing, or what no one here knows.

Called by dialects.pieces for the rare events that its decoders refuse. Reads JSON values of any kind; changes none.
"""

from collections.abc import Callable, Collection
from typing import Any

_Keeps = Callable[[str, Any], bool]


def without_empty(value: Any) -> Any:
    """Return an event without the fields of its deltas and messages that say nothing.

    The content of a message stays, for Anthropic's first event has an empty one that belongs to it.
    """
    is_chunk = isinstance(value, dict) and "choices" in value
    return _reduced(value, lambda key, part: bool(part) or (key == "content" and not is_chunk))


def without_unknown(value: Any, fields: Collection[str]) -> Any:
    """Return an event whose deltas, or whose message, have no other than `fields`."""
    return _reduced(value, lambda key, _: key in fields)


def _reduced(value: Any, keeps: _Keeps) -> Any:
    if not isinstance(value, dict):
        return value
    choices, message = value.get("choices"), value.get("message")
    if isinstance(choices, list):
        return {**value, "choices": [_reduced_choice(choice, keeps) for choice in choices]}
    if isinstance(message, dict) and "choices" not in value:
        return {**value, "message": _kept(message, keeps)}
    return value


def _reduced_choice(choice: Any, keeps: _Keeps) -> Any:
    if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
        return choice
    return {**choice, "delta": _kept(choice["delta"], keeps)}


def _kept(fields: dict[str, Any], keeps: _Keeps) -> dict[str, Any]:
    return {key: part for key, part in fields.items() if keeps(key, part)}
