"""Read values whose kind no key tells: what stands under `defaults` goes into requests as JSON.

Called by config.validation for scalars without quotes, and by config.values for whole values. Pure. What readers of YAML
disagree about (`off`, `010`, `.5`) is refused rather than guessed. No message here contains the value itself: it may be of
the environment.
"""

import json
import re
from typing import Final

from understudy.config.quantities import Unreadable

JSON_BYTES_MAX: Final = 64 * 1024
JSON_WANTED: Final = "a number, true, false, text, a list, or keys and values"
NUMBER_WANTED: Final = "a number such as 5, 0.2 or 1e-3, or text in quotes"
WORD_WANTED: Final = "true or false, or the word in quotes"

_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}
# YAML 1.1 takes these for switches, YAML 1.2 for words.
_UNSURE: Final = frozenset({"yes", "no", "on", "off"})
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,63})(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,4})?")
_LIKE_A_NUMBER: Final = re.compile(
    r"[+-]?(\.?[0-9][0-9_]*(\.[0-9_]*)?(e[+-]?[0-9_]+)?|0x[0-9a-f_]+|0o[0-7_]+|\.?inf|\.?nan|infinity)", re.IGNORECASE
)


def read_plain(text: str) -> str | float | bool | None:
    """Return what a scalar without quotes means: true, false, nothing, a number as JSON writes it, else its text.

    Raises `Unreadable` for what is a number or a switch to some readers only, and for what no JSON holds (.nan, .inf, 1e999).
    """
    word = text.lower()
    if word in _WORDS:
        return _WORDS[word]
    if word in _UNSURE:
        raise Unreadable(WORD_WANTED)
    matched = _NUMBER.fullmatch(text)
    if matched is None:
        if _LIKE_A_NUMBER.fullmatch(text):
            raise Unreadable(NUMBER_WANTED)
        return text
    if matched[2] is None and matched[3] is None:
        return int(text)
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise Unreadable(NUMBER_WANTED)
    return number


def write_json(value: object) -> str:
    """Return the value as JSON text, keys in their order. Raises `Unreadable` when JSON has no such value, or it is too long."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError):
        raise Unreadable(JSON_WANTED, "a value that JSON does not have") from None
    if size > JSON_BYTES_MAX:
        raise Unreadable(f"at most {JSON_BYTES_MAX // 1024}KiB", f"a value of {size} bytes")
    return text
