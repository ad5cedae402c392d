"""Where a stored conversation wishes to go: the color it began with, and the backend that holds its cache, within its role.

Asked by core.balancer. What is wished for stands in the `Ask`, from the session store. Pure. A wish only: whether that backend is
fit, and what becomes of the exchange otherwise, is the balancer's.
"""

from collections.abc import Sequence

from understudy.core.ask import Ask
from understudy.core.color import Color
from understudy.core.shortlist import Candidate


def of_color(groups: Sequence[Sequence[Candidate]], color: str) -> tuple[tuple[Candidate, ...], ...]:
    """Return the groups with those of `color` alone, and those of none, which serve both."""
    colors = (color, Color.NONE)
    return tuple(tuple(one for one in group if one.target.backend.color in colors) for group in groups)


def preferred(group: Sequence[Candidate], ask: Ask) -> Candidate | None:
    """Return the one of `group` (usable backends of one role) that the conversation was with; None while that one warms up.

    Primaries are asked before backups, so that a conversation leaves a backup as soon as a primary can have it.
    """
    for candidate in group:
        if candidate.name == ask.prefer:
            return None if candidate.is_warming else candidate
    return None
