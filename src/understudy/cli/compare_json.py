"""Write a comparison as one JSON object, for programs.

Called by cli.compare for `--json`. ASCII only, so that no answer can speak to a terminal.
"""

import json
from dataclasses import asdict
from typing import Any

from understudy.cli.compare_pairs import COLORS, Pair, Totals
from understudy.cli.compare_verdict import Verdict
from understudy.core.color import Color


def json_of(pairs: list[Pair], totals: Totals, verdict: Verdict, titles: tuple[str, str]) -> str:
    """Return {"sides", "prompts", "totals", "verdict"}; times in seconds, shares from 0 to 1."""
    return json.dumps(
        {
            "sides": dict(zip(map(str, COLORS), titles, strict=True)),
            "prompts": [_pair(pair) for pair in pairs],
            "totals": asdict(totals),
            "verdict": {"green_is_worse": verdict.is_worse, "line": verdict.line, "checks": [asdict(c) for c in verdict.checks]},
        }
    )


def _pair(pair: Pair) -> dict[str, Any]:
    judged = pair.judged
    return {
        "number": pair.entry.number,
        "name": pair.entry.name,
        "line": pair.entry.line,
        "similarity": pair.similarity,
        "better": None if judged is None else "tie" if judged.better is Color.NONE else str(judged.better),
        **{str(color): _answer(pair, color) for color in COLORS},
    }


def _answer(pair: Pair, color: Color) -> dict[str, Any]:
    unmet = pair.unmet(color)
    return {**asdict(pair.answer(color)), "met": None if unmet is None else not unmet, "unmet": list(unmet or ())}
