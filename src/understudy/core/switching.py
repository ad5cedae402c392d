"""Whether the new conversations may be given to a color: who of it could serve them, and what would be missing there.

Asked by controlplane.rollout_driver before a switch, a canary's step and a rollback, and on a reload. Pure. Never flips anything
(core.rollout) and never compares how well the colors answer (core.guard).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from understudy.core.color import Color
from understudy.core.rollout import Rollout
from understudy.core.shortlist import client_models_of, is_usable, own_name
from understudy.core.snapshot import BackendState, Duty, RoutingPlan, RoutingSnapshot, Target

# What is named in a refusal: it is to be read, not to be filled.
NAMED_MAX = 4
NAME_CHARACTERS_MAX = 100

NO_COLORS = "no backend has a color; set backends[].color"

_EJECTED = "ejected after failures"


@dataclass(frozen=True, slots=True)
class SwitchOutcome:
    """What came of an order. With a `refusal` nothing was changed.

    `is_changed`: it was not so already. `is_kept`: what is in force now is in the state folder and survives a restart.
    """

    rollout: Rollout
    refusal: str = ""
    is_changed: bool = True
    is_kept: bool = True


def refusal(snapshot: RoutingSnapshot, to: Color, ejected: Collection[str] = ()) -> str:
    """Return why the new conversations must not be given to `to`, "" where they may. `ejected` are names of backends.

    A backend whose list of models is unknown serves any; one without a color serves whatever it has to both colors.
    """
    why = unusable(snapshot, to, ejected)
    if why:
        return why
    usable = [target for target in snapshot.targets if _is_in_service(target, ejected)]
    takers = [target for target in usable if target.backend.color in (to, Color.NONE)]
    missing: dict[str, None] = {}
    for target in _serving(usable, to.other):
        for name, _ in client_models_of(target):
            if all(own_name(taker, name) is None for taker in takers):
                missing[name] = None
    return f"{to} has no {_listed(missing)}, which {to.other} serves" if missing else ""


def unusable(snapshot: RoutingSnapshot, to: Color, ejected: Collection[str] = ()) -> str:
    """Return why no backend of `to` can answer, "" where one can. Those without a color count where no other is of that color."""
    if to is Color.NONE:
        return "none is no color to switch to; want blue or green"
    if not snapshot.plan.rollout.is_on:
        return NO_COLORS
    serving = _serving(snapshot.targets, to)
    if not serving:
        return f"no backend of {to} is configured"
    if any(_is_in_service(target, ejected) for target in serving):
        return ""
    return f"no backend of {to} is usable: {_listed(_state_words(target, ejected) for target in serving)}"


def foreseen(snapshot: RoutingSnapshot, plan: RoutingPlan) -> RoutingSnapshot:
    """Return the snapshot as another plan would make it: what is known of a backend at its address stays, others are unknown."""
    known = {target.backend.name: target for target in snapshot.targets}
    targets = []
    for backend in plan.backends:
        was = known.get(backend.name)
        is_same = was is not None and (was.backend.address, was.backend.engine) == (backend.address, backend.engine)
        state = was.state if was is not None and is_same else BackendState(reason="not probed yet")
        targets.append(Target(backend, state))
    return replace(snapshot, plan=plan, targets=tuple(targets))


def _serving(targets: Iterable[Target], color: Color) -> list[Target]:
    targets = list(targets)
    own = [target for target in targets if target.backend.color is color]
    return own or [target for target in targets if target.backend.color is Color.NONE]


def _is_in_service(target: Target, ejected: Collection[str]) -> bool:
    return is_usable(target) and target.backend.name not in ejected


def _state_words(target: Target, ejected: Collection[str]) -> str:
    state = target.state
    words = [_EJECTED] if is_usable(target) and target.backend.name in ejected else [str(state.condition)]
    if state.duty is not Duty.READY:
        words.append(str(state.duty))
    if state.reason:
        words.append(state.reason)
    return f"{target.backend.name} ({', '.join(words)})"


def _listed(names: Iterable[str]) -> str:
    all_names = list(names)
    shown = [_cut(name) for name in all_names[:NAMED_MAX]]
    rest = len(all_names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[:NAME_CHARACTERS_MAX]}..."
