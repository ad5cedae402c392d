"""The keys of `rollout`: which color takes the conversations, who tries the other, and when to go back.

Part of config.schema, which says what holds for all keys. What concerns several keys at once is in config.colors.
"""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from understudy.config.quantities import Unreadable, write_share
from understudy.config.section import Section
from understudy.config.values import (
    ActiveColor,
    AtLeastAsMuch,
    AtMostAsMuch,
    CookieKey,
    Defaults,
    Duration,
    PositiveDuration,
    Share,
    ShareOrOff,
    Steps,
    Switch,
    SystemText,
    WholeFromOne,
    nothing_is_empty,
)
from understudy.core.color import Color, GuardRules, RolloutRules, Stick, SystemPlace

_ROLLOUT, _GUARD = RolloutRules(), GuardRules()


class PromptSettings(Section):
    """What a color adds to the requests that go to it."""

    system: SystemText = Field(
        default="", repr=False, description="A system prompt for every conversation; empty: the client's own stays as it is."
    )
    system_place: SystemPlace = Field(
        default=SystemPlace.BEFORE, description="Where it goes: before the client's own, in one message, or instead of it."
    )
    defaults: Defaults = Field(
        default_factory=dict, description="Settings such as temperature, filled in where a request says nothing of them."
    )


class GuardSettings(Section):
    """When to roll back by itself: how much worse than the other color the new one may be."""

    errors: ShareOrOff = Field(
        default=_GUARD.errors, description="By how much its share of failed attempts may exceed the other color's, such as 2%."
    )
    ttft_p95: AtLeastAsMuch = Field(
        default=_GUARD.ttft_p95,
        description="How many times as long as the other color's its first content may take (95th percentile), such as 1.5x.",
    )
    speed: AtMostAsMuch = Field(
        default=_GUARD.speed,
        description="How slow it may be beside the other color (median of characters a second), such as 0.7x.",
    )
    window: PositiveDuration = Field(default=_GUARD.window_s, description="The last exchanges of this long are compared.")
    min_exchanges: WholeFromOne = Field(
        default=_GUARD.exchanges_min, description="With fewer exchanges of either color in the window, nothing is decided."
    )
    watch: Duration = Field(
        default=_GUARD.watch_s, description="How long the guard watches after a switch; 0s: it watches a canary only."
    )
    sessions: Switch = Field(
        default=_GUARD.takes_sessions, description="A rollback takes back the conversations that began on the new color, too."
    )


class RolloutSettings(Section):
    """Blue and green: one takes the conversations, the other can be tried, given a share, switched to and back."""

    active: ActiveColor = Field(
        default=Color.BLUE, description="The color that takes new conversations. Whichever word is later wins, this or a command."
    )
    stick: Stick = Field(
        default=_ROLLOUT.stick,
        description="What keeps a conversation on the color it began with: its X-Session-ID, a signed cookie, too, or none.",
    )
    stick_max: Duration = Field(
        default=_ROLLOUT.stick_s_max,
        description="After a change, conversations stay on the other color this long; 0s: as long as they last.",
    )
    canary: Steps = Field(
        default=_ROLLOUT.shares,
        description="Share of new conversations for the other color, less than all; a list of growing shares: one step after the "
        "other, of which the last may be all.",
    )
    every: PositiveDuration = Field(default=_ROLLOUT.every_s, description="Time between two steps of a canary.")
    shadow: Share = Field(
        default=_ROLLOUT.shadow,
        description="Share of exchanges that are also sent to the other color; the answer is compared and dropped.",
    )
    shadow_in_flight_max: WholeFromOne = Field(
        default=_ROLLOUT.shadow_in_flight_max, description="Most of these at once; beyond it none is sent."
    )
    preview: Switch = Field(
        default=_ROLLOUT.preview, description="/switch/green and /switch/blue on the public port let a browser choose its color."
    )
    cookie_key: CookieKey = Field(
        default="",
        repr=False,
        description="Signs cookies; empty: a key that is made once and kept in the state folder. Daemons behind one address need "
        "the same.",
    )
    guard: Annotated[GuardSettings, nothing_is_empty(dict)] = Field(default_factory=GuardSettings.model_construct)
    blue: Annotated[PromptSettings, nothing_is_empty(dict)] = Field(
        default_factory=PromptSettings.model_construct,
        description="What blue adds to requests: system, system_place and defaults.",
    )
    green: Annotated[PromptSettings, nothing_is_empty(dict)] = Field(
        default_factory=PromptSettings.model_construct,
        description="What green adds to requests: system, system_place and defaults.",
    )

    @field_validator("canary")
    @classmethod
    def _begins_with_a_part(cls, shares: tuple[float, ...], read: ValidationInfo) -> tuple[float, ...]:
        """Refuse a canary that begins with all conversations: it would never become a switch.

        Who writes 1 may also mean one in a hundred.
        """
        if shares and shares[0] >= 1.0:
            other = read.data.get("active", Color.BLUE).other
            raise Unreadable(f"a smaller share, or active: {other}", f"{write_share(shares[0])} as the first step")
        return shares
