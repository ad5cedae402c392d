"""Blue and green: which of two sets a backend belongs to, and what both bring along.

Read by core.snapshot and everything that tells colors apart. Values only.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Color(StrEnum):
    """Which of two sets a backend belongs to; NONE serves both."""

    BLUE = "blue"
    GREEN = "green"
    NONE = "none"

    @property
    def other(self) -> "Color":
        """The other one of the two; NONE has none."""
        return _OTHERS[self]


# The two that tell something apart, by their words.
COLORS = {str(color): color for color in (Color.BLUE, Color.GREEN)}
_OTHERS = {Color.BLUE: Color.GREEN, Color.GREEN: Color.BLUE, Color.NONE: Color.NONE}


class Stick(StrEnum):
    """What keeps a conversation on the color that it began with."""

    SESSION = "session"  # its X-Session-ID
    COOKIE = "cookie"  # a signed cookie; X-Session-ID counts, too
    NONE = "none"


class SystemPlace(StrEnum):
    """Where a configured system prompt goes."""

    BEFORE = "before"  # before the client's own, in one message
    INSTEAD = "instead"  # in place of the client's own


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a backend or a color adds to requests.

    `system` "" adds none; `defaults` are (key, JSON text) and filled in where the client says nothing of that key.
    """

    system: str = field(default="", repr=False)
    place: SystemPlace = SystemPlace.BEFORE
    defaults: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing."""
        return not self.system and not self.defaults

    def under(self, own: "Prompt") -> "Prompt":
        """Return this color's prompt as a backend with its `own` has it: the backend's system and defaults go first."""
        if own.is_empty:
            return self
        kept = tuple(pair for pair in self.defaults if pair[0] not in dict(own.defaults))
        first = own if own.system else self
        return Prompt(first.system, first.place, (*own.defaults, *kept))


NO_PROMPT = Prompt()


@dataclass(frozen=True, slots=True)
class GuardRules:
    """When to roll back by itself. A bound that is None is not looked at.

    `errors` is by how much the share of failed attempts may exceed the other color's (0.02: two in a hundred more); `ttft_p95`
    and `speed` are ratios to the other color's: the 95th percentile of the time to first content, the median of characters a
    second. After a switch it watches for `watch_s`. `takes_sessions`: a rollback takes back the sessions, too.
    """

    errors: float | None = None
    ttft_p95: float | None = None
    speed: float | None = None
    window_s: float = 300.0
    exchanges_min: int = 50
    watch_s: float = 3600.0
    takes_sessions: bool = True

    @property
    def is_on(self) -> bool:
        """Whether anything is looked at."""
        return self.errors is not None or self.ttft_p95 is not None or self.speed is not None


@dataclass(frozen=True, slots=True)
class RolloutRules:
    """What the file says of blue and green. `is_on`: there are colors to tell apart.

    `shares` are those of new conversations that the inactive color gets, one step after the other, each for `every_s`; () none.
    `stick_s_max` is how long after a change conversations stay on the other color, 0.0: as long as they last. `shadow` is the
    share of exchanges that are also sent to the inactive color. `cookie_key` signs cookies, "": one that the daemon has made.
    """

    is_on: bool = False
    active: Color = Color.BLUE
    stick: Stick = Stick.SESSION
    stick_s_max: float = 24 * 3600.0
    shares: tuple[float, ...] = ()
    every_s: float = 600.0
    shadow: float = 0.0
    shadow_in_flight_max: int = 4
    preview: bool = False
    cookie_key: str = field(default="", repr=False)
    guard: GuardRules = GuardRules()
    blue: Prompt = NO_PROMPT
    green: Prompt = NO_PROMPT

    def prompt_of(self, color: Color) -> Prompt:
        """Return what a color adds to requests."""
        return self.blue if color is Color.BLUE else self.green if color is Color.GREEN else NO_PROMPT


NO_ROLLOUT_RULES = RolloutRules()
