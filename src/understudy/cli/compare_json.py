"""Write a comparison as one JSON object, for programs.

Called by cli.compare for `--json`. ASCII only, so that no answer can speak to a terminal.
"""

import json
from dataclasses import asdict
from typing import Any

from understudy.cli.compare_pairs import COLORS, About, Judged, Pair, Totals
from understudy.cli.compare_verdict import Verdict
from understudy.core.color import Color


def json_of(pairs: list[Pair], totals: Totals, verdict: Verdict, about: About) -> str:
    """Return {"about", "sides", "models", "prompts", "totals", "verdict"}; times in seconds, shares from 0 to 1.

    `green_is_worse` is null where there is no verdict.
    """
    return json.dumps(
        {
            "about": {"at": about.at, "version": about.version, "prompts": about.prompts},
            "sides": dict(zip(map(str, COLORS), about.titles, strict=True)),
            "models": dict(zip(map(str, COLORS), about.models, strict=True)),
            "prompts": [_pair(pair) for pair in pairs],
            "totals": asdict(totals),
            "verdict": {
                "green_is_worse": None if verdict.is_interrupted else verdict.is_worse,
                "is_interrupted": verdict.is_interrupted,
                "line": verdict.line,
                "checks": [asdict(check) for check in verdict.checks],
            },
        }
    )


def _pair(pair: Pair) -> dict[str, Any]:
    judged = pair.judged
    return {
        "number": pair.entry.number,
        "name": pair.entry.name,
        "line": pair.entry.line,
        "similarity": pair.similarity,
        "better": _better(judged),
        "judge_error": "" if judged is None else judged.error,
        **{str(color): _answer(pair, color) for color in COLORS},
    }


def _better(judged: Judged | None) -> str | None:
    """Return the judge's word; null where it was not asked or could not be read."""
    if judged is None or not judged.is_readable:
        return None
    return "tie" if judged.better is Color.NONE else str(judged.better)


def _answer(pair: Pair, color: Color) -> dict[str, Any]:
    unmet = pair.unmet(color)
    return {**asdict(pair.answer(color)), "met": None if unmet is None else not unmet, "unmet": list(unmet or ())}
