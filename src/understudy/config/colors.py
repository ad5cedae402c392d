"""What the colors of a file allow together: which of them has backends, and what of `rollout` that rules out.

Called by config.validation (mistakes), config.compile and cli.check. Pure. A file in which a rollout is being prepared is
no mistake as long as nothing in it would go to a color that is not there.
"""

from collections.abc import Iterator
from typing import NamedTuple

from understudy.config.quantities import write_share
from understudy.config.schema import Settings
from understudy.core.color import Color


class ColorClash(NamedTuple):
    """A key that asks for what the colors do not give. `written` is its value, for where the file does not have it."""

    location: tuple[str, ...]
    written: str
    fault: str
    want: str


def tells_colors_apart(settings: Settings) -> bool:
    """Whether there is a rollout at all: a backend has a color, or a color brings a prompt."""
    return any(backend.color is not Color.NONE for backend in settings.backends) or _has_prompts(settings)


def is_there(settings: Settings, color: Color) -> bool:
    """Whether colors are told apart and `color` has a backend, be it one without a color, which serves both."""
    return tells_colors_apart(settings) and any(backend.color in {color, Color.NONE} for backend in settings.backends)


def color_clashes(settings: Settings) -> Iterator[ColorClash]:
    """Find what would go to a color that no backend has."""
    rollout = settings.rollout
    active, other = rollout.active, rollout.active.other
    # Blue is the default: no mistake where nothing is said of it, and none where there are no colors at all.
    is_chosen = "active" in rollout.model_fields_set and (active is Color.GREEN or tells_colors_apart(settings))
    if is_chosen and not is_there(settings, active):
        fault = f"and no backend is {active}"
        yield ColorClash(("rollout", "active"), active.value, fault, f"a backend with color: {active}, or active: {other}")
    if is_there(settings, other):
        return
    fault, want = f"and no backend is {other}", f"a backend with color: {other}, or 0%"
    if rollout.canary:
        yield ColorClash(("rollout", "canary"), write_share(rollout.canary[0]), fault, want)
    if rollout.shadow:
        yield ColorClash(("rollout", "shadow"), write_share(rollout.shadow), fault, want)


def color_notes(settings: Settings) -> Iterator[str]:
    """Say what an operator may not expect, though nothing is wrong with it."""
    rollout = settings.rollout
    if not tells_colors_apart(settings):
        if rollout.model_fields_set:
            yield "no backend has a color and no color has a prompt, so rollout does nothing yet"
        return
    active, other = rollout.active, rollout.active.other
    if not is_there(settings, active):
        yield f"no backend is {active}, which is active; want rollout.active: {other}"
    elif not is_there(settings, other):
        yield f"no backend is {other} yet, so there is nothing to switch to"
    shared = [backend.name for backend in settings.backends if backend.color is Color.NONE]
    if shared and any(backend.color is not Color.NONE for backend in settings.backends):
        yield f"{', '.join(shared)} {'has no color and serves' if len(shared) == 1 else 'have no color and serve'} blue and green"
    if not settings.access.trusted:
        yield "access.trusted is empty, so every client may choose with X-Understudy-Color"


def _has_prompts(settings: Settings) -> bool:
    rollout = settings.rollout
    return any(prompt.system or prompt.defaults for prompt in (rollout.blue, rollout.green))
