"""Say in one line, or as many as it takes, what is in force of blue and green, and in a few words what the canary does.

Called by cli.status and cli.rollout with what GET /api/rollout gives. Whatever is missing there is left out here; asks nothing.
"""

from collections.abc import Collection
from typing import Any

from understudy.cli.status import duration
from understudy.telemetry.console import printable

_OTHERS = {"blue": "green", "green": "blue"}
_NEXT_LINE = "  "
_WORDS = {"file": "the file", "canary": "the canary", "guard": "the guard"}


def rollout_lines(rollout: dict[str, Any], now_unix_s: float, colors: Collection[str], width: int = 0) -> list[str]:
    """Return which color is active, by whose word and since when, with the canary, the guard and the shadow where they are on.

    `colors` are those of the configured backends; that none of them can be the active one is said. It is one line; where that
    has more than `width` characters (0: no bound) it goes on below, after a semicolon.
    """
    lines: list[str] = []
    for clause in _clauses(rollout, now_unix_s, colors):
        # As if another semicolon followed.
        if lines and (not width or len(lines[-1]) + len(clause) + 3 <= width):
            lines[-1] += f"; {clause}"
        elif lines:
            lines[-1] += ";"
            lines.append(_NEXT_LINE + clause)
        else:
            lines.append(clause)
    return lines


def _clauses(rollout: dict[str, Any], now_unix_s: float, colors: Collection[str]) -> list[str]:
    active = _text(rollout.get("active"))
    parts = [f"{active} is active ({_word(rollout, now_unix_s)})"]
    if active not in colors and "none" not in colors:
        parts.append(f"no backend is {active}")
        if (other := other_color(active)) in colors:
            parts.append(f"{other} answers")
    if isinstance(canary := rollout.get("canary"), dict):
        parts.append(f"canary: {canary_words(canary, active)}")
    if isinstance(guard := rollout.get("guard"), dict):
        parts.append(f"guard: {_guard_words(guard)}")
    if isinstance(shadow := rollout.get("shadow"), dict):
        parts.append(f"shadow: {_shadow_words(shadow, active)}")
    if reason := _text(rollout.get("reason")):
        parts.append(f"last change: {reason}")
    if rollout.get("kept") is False:
        parts.append("not kept across a restart")
    return parts


def canary_words(canary: dict[str, Any], active: str, of: str = "") -> str:
    """Return the canary's share and its next step: `5% to green, next step 25% in 8m 0s`; `of` says of what it is a share."""
    steps, step = canary.get("steps"), canary.get("step")
    words = f"{_share(canary.get('share'))}{of} to {other_color(active)}"
    if not isinstance(steps, list) or not isinstance(step, int) or len(steps) < 2:
        return words
    if not 0 < step < len(steps):
        return f"{words}, the last step"
    left_s, waits_for = _number(canary.get("next_step_in_s")), _text(canary.get("waits_for"))
    when = f" in {duration(left_s)}" if left_s > 0 else f" waits ({waits_for})" if waits_for else " now"
    # Steps are counted from 1.
    return f"{words}, next step {_share(steps[step])}{when}"


def other_color(active: str) -> str:
    """Return the color that is not active."""
    return _OTHERS.get(active, "the other color")


def _word(rollout: dict[str, Any], now_unix_s: float) -> str:
    word, since_unix_s = _text(rollout.get("word")), _number(rollout.get("since"))
    if word == "file" and not since_unix_s:
        return "as the file says"
    ago = f", {duration(max(0.0, now_unix_s - since_unix_s))} ago" if since_unix_s else ""
    file_active = _text(rollout.get("file_active"))
    file_says = "" if word == "file" or file_active == _text(rollout.get("active")) else f"; the file says {file_active}"
    return f"by {_WORDS.get(word, word)}{ago}{file_says}"


def _guard_words(guard: dict[str, Any]) -> str:
    verdict, reason = _text(guard.get("verdict")), _text(guard.get("reason"))
    if verdict == "too_few" and guard.get("figures") is None:
        return "has not looked yet"
    # While it holds, the numbers are for --json.
    return verdict if verdict == "holds" or not reason else f"{verdict.replace('_', ' ')} ({reason})"


def _shadow_words(shadow: dict[str, Any], active: str) -> str:
    words = f"{_share(shadow.get('share'))} to {other_color(active)}"
    words += f", {_number(shadow.get('answered')):.0f} of {_number(shadow.get('sent')):.0f} answered"
    likeness = shadow.get("likeness_mean")
    return words if likeness is None else f"{words}, likeness {_number(likeness):.2f}"


def _share(share: object) -> str:
    return f"{_number(share) * 100:.4g}%"


def _text(value: object) -> str:
    return "" if value is None else printable(str(value))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
