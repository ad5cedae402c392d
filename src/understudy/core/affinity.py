"""Where a conversation wishes to go: the color it began with, and the backend that holds its cache, within its role.

Asked by core.balancer, and by dataplane.coloring for every request while there are two colors. What is wished for stands in the
`Ask`. Pure, but for the memory that it keeps. A wish only: whether that backend is fit, and what becomes of the exchange
otherwise, is the balancer's; which color is active is core.rollout's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from understudy.core.ask import Ask
from understudy.core.color import Color, RolloutRules
from understudy.core.rollout import Rollout
from understudy.core.shortlist import Candidate

# An entry takes 170 bytes (CPython 3.11).
CONVERSATIONS_MAX: Final = 32_768
REMEMBERED_S_MAX: Final = 24 * 3600.0


def assigned(rollout: Rollout, key: bytes) -> Color:
    """Return the color of a new conversation; `key` tells it apart from others, and the same one gets the same color.

    A share that grows keeps the conversations that it had.
    """
    share = rollout.share
    if not share:
        return rollout.active
    return rollout.inactive if position_of(key, rollout.inactive) < share else rollout.active


def position_of(key: bytes, color: Color) -> float:
    """Return where a conversation stands among all of them, from 0.0 to below 1.0, evenly; another order for each color."""
    return int.from_bytes(blake2b(key, digest_size=8, person=color.encode()).digest()) / 2**64


def stays(rollout: Rollout, rules: RolloutRules, color: Color, *, since_unix_s: float, now_unix_s: float) -> bool:
    """Whether a conversation that is on `color` since then stays there; else it begins anew.

    It leaves when that color was recalled since, and some time after another one has become active, or after it has begun where
    another one is.
    """
    if color is Color.NONE or since_unix_s < rollout.recalled_unix_s(color):
        return False
    if color is rollout.active or not rules.stick_s_max:
        return True
    return now_unix_s < max(since_unix_s, rollout.changed_at_unix_s) + rules.stick_s_max


class Conversations:
    """Which color conversations are on, by a digest of what tells each apart: bounded, the one unheard of longest goes first.

    For those that no session store remembers. Times are the wall clock's, as those of recalls are.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[Color, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: bytes, now_unix_s: float) -> tuple[Color, float]:
        """Return its color and since when it has that; (NONE, 0.0) for one that is unknown. It counts as heard of."""
        known = self._known.get(key)
        if known is None:
            return Color.NONE, 0.0
        color, since_unix_s, heard_at_unix_s = known
        if now_unix_s - heard_at_unix_s > REMEMBERED_S_MAX:
            del self._known[key]
            return Color.NONE, 0.0
        self._known[key] = (color, since_unix_s, now_unix_s)
        self._known.move_to_end(key)
        return color, since_unix_s

    def put(self, key: bytes, color: Color, now_unix_s: float, since_unix_s: float = 0.0) -> None:
        """Note the color of a conversation, on it since then (0.0: since now)."""
        self._known[key] = (color, since_unix_s or now_unix_s, now_unix_s)
        self._known.move_to_end(key)
        if len(self._known) > CONVERSATIONS_MAX:
            self._known.popitem(last=False)


def preferred(group: Sequence[Candidate], ask: Ask) -> Candidate | None:
    """Return the one of `group` (usable backends of one role) that the conversation was with; None while that one warms up.

    Primaries are asked before backups, so that a conversation leaves a backup as soon as a primary can have it.
    """
    for candidate in group:
        if candidate.name == ask.prefer:
            return None if candidate.is_warming else candidate
    return None
