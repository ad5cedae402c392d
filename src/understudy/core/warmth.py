"""Decide which model is loaded next, which is kept loaded and which is let go, so that failover is not a cold start.

Driven by controlplane.warmer, which asks the engines (engines.warming) and calls back with what came of it. Pure: facts and now_s
(seconds, loop time) in, commands out. Never unloads a model: what nobody asks for expires by itself. Never wakes a machine
(core.waking) and never decides whether a backend may serve: one that is not warm yet may, because a cold answer is better than
none.

The memory of an engine is not told by any of them; what Ollama tells is what each loaded model takes. So a load is begun only

- where nothing else is loaded: nobody can be pushed out, and Ollama refuses by itself what does not fit;
- or where what is loaded and what is to be loaded come to no more than was once seen loaded together;
- or where all else that is loaded is named in the same file, unless two of them have been seen to push each other out: then only
  the one that stands first is kept.

Else it waits until the others are gone. An engine that tells no sizes is not held to this (engines.warming asks a llama.cpp
router for room itself).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from understudy.core.upkeep import WarmRules

# Long enough that a renewal still comes in time after a load of somebody else, which may take LOAD_S_MAX, has held it up.
KEEP_S: Final = 1200.0
KEEP_S_MIN: Final = 60.0
LOAD_S_MAX: Final = 600.0

BACKOFF_S: Final = 10.0
BACKOFF_S_MAX: Final = 600.0
_DOUBLINGS_MAX: Final = 6

# A file says what the weights take; context and buffers come on top. An allowance, until the model has been seen loaded.
ON_TOP: Final = 1.25

_NOT_LISTED: Final = "is not among the models that it lists"
_WAS_UNLOADED: Final = "was unloaded by something else before its time"


@dataclass(frozen=True, slots=True)
class Footprint:
    """One model of a backend as its lists tell it, under the backend's own name. Sizes are 0 where they are not told."""

    name: str
    is_loaded: bool
    loaded_bytes: int = 0
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """One model that the file names: what clients call it, what it is (None: not listed), and when it was last asked for."""

    model: str
    footprint: Footprint | None
    exchange_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WarmFacts:
    """One backend whose file names warm models.

    `can_load`: it answers, the operator lets it serve, and it is not being restarted. `loaded` are all models that its lists show
    as loaded, named or not. `lets_go`: the engine unloads what was not asked for lately. `settle_s` is how long its lists may
    lag behind what it does.
    """

    backend: str
    rules: WarmRules
    can_load: bool
    in_flight: int
    named: tuple[Named, ...]
    loaded: tuple[Footprint, ...] = ()
    lets_go: bool = False
    settle_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Load:
    """Ask `backend` to load `own_name`, which clients call `model`, and to keep it for `keep_s`.

    `is_renewal`: it is loaded, and only its time is to be prolonged. `beside` are the others that were loaded when this was
    decided: with any other one it would have been another decision.
    """

    backend: str
    model: str
    own_name: str
    keep_s: float
    is_renewal: bool = False
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that should be loaded and is not, and why; told once until the reason changes."""

    backend: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: at most one `load`, and what there is to tell."""

    load: Load | None = None
    refused: tuple[Refused, ...] = ()


@dataclass(slots=True)
class _Held:
    """What is known of one named model. Instants are loop time, 0.0: not at all.

    `believed_until_s`: loaded by us, whatever the lists say until then. `lasts_until_s` is when the engine lets go of it, as far
    as we have asked. `beside` are the others that were loaded when its load began, until it is seen what became of them.
    `is_left_cold`: it is not loaded and not about to be.
    """

    is_warm: bool = False
    believed_until_s: float = 0.0
    loaded_at_s: float = 0.0
    lasts_until_s: float = 0.0
    beside: frozenset[str] = frozenset()
    seen_bytes: int = 0
    failures: int = 0
    retry_at_s: float = 0.0
    reason: str = ""
    is_left_cold: bool = False


@dataclass(slots=True)
class _Place:
    """What is known of one backend. `warm_from_s` is when it began to be able to load, `most_bytes` the most seen loaded at once.

    `apart` holds pairs of own names of which one has pushed out the other.
    """

    can_load: bool = False
    warm_from_s: float = 0.0
    most_bytes: int = 0
    apart: set[frozenset[str]] = field(default_factory=set)
    held: dict[str, _Held] = field(default_factory=dict)


class Warmth:
    """The one decider of a daemon; one load or renewal at a time over all backends."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def decide(self, facts: Sequence[WarmFacts], now_s: float, *, is_busy: bool) -> Decision:
        """Take the facts on every backend with warm models, in the plan's order. `is_busy`: a load is under way."""
        names = {one.backend for one in facts}
        self._places = {name: place for name, place in self._places.items() if name in names}
        refused: list[Refused] = []
        for one in facts:
            refused.extend(self._follow(one, now_s))
        # A renewal takes no time, and comes too late after a load that takes minutes.
        load = None if is_busy else next(self._renewals(facts, now_s), None) or self._next_load(facts, now_s, refused)
        for one in facts:
            self._leave(one, now_s)
        return Decision(load, tuple(refused))

    def on_warmed(self, load: Load, settle_s: float, lasts_s: float, now_s: float) -> bool:
        """Take that the load succeeded and that the engine keeps it for `lasts_s`; returns whether that is to be told.

        `settle_s` is that of the facts.
        """
        held = self._held(load.backend, load.model)
        if held is None:
            return False
        held.is_warm = True
        held.lasts_until_s = now_s + lasts_s
        held.reason = ""
        if load.is_renewal:
            return False
        held.loaded_at_s = now_s
        held.believed_until_s = now_s + settle_s
        held.beside = load.beside
        return True

    def on_failed(self, load: Load, reason: str, now_s: float) -> bool:
        """Take that the load failed; the next try waits, longer each time. Returns whether that is to be told."""
        held = self._held(load.backend, load.model)
        return held is not None and _fail(held, reason, now_s)

    def is_warm(self, backend: str, model: str) -> bool:
        """Whether that named model is loaded, as far as is known."""
        held = self._held(backend, model)
        return held is not None and held.is_warm

    def reason(self, backend: str, model: str) -> str:
        """Why that named model is not loaded, "" where it is, or is about to be."""
        held = self._held(backend, model)
        return held.reason if held is not None and not held.is_warm else ""

    def left_cold(self, backend: str) -> tuple[str, ...]:
        """Name the models of that backend that are not about to be loaded: waiting for them would be in vain."""
        place = self._places.get(backend)
        return tuple(model for model, held in place.held.items() if held.is_left_cold) if place is not None else ()

    def _held(self, backend: str, model: str) -> _Held | None:
        place = self._places.get(backend)
        return place.held.get(model) if place is not None else None

    # --- what the facts say of what was known

    def _follow(self, one: WarmFacts, now_s: float) -> Iterator[Refused]:
        place = self._places.setdefault(one.backend, _Place())
        models = {named.model for named in one.named}
        place.held = {model: held for model, held in place.held.items() if model in models}
        if one.can_load and not place.can_load:
            place.warm_from_s = now_s
            # What pushed out what may have had to do with what else ran there.
            place.apart.clear()
        place.can_load = one.can_load
        place.most_bytes = max(place.most_bytes, sum(other.loaded_bytes for other in one.loaded))
        for named in one.named:
            held = place.held.setdefault(named.model, _Held())
            if not one.can_load:
                # It comes back with nothing loaded, and its failures were those of what it was.
                place.held[named.model] = _Held(seen_bytes=held.seen_bytes)
            elif named.footprint is None:
                held.is_warm = False
                yield from _refuse(held, one, named, _NOT_LISTED)
            elif named.footprint.is_loaded or now_s < held.believed_until_s:
                _on_loaded(place, held, one, named.footprint, now_s)
            elif held.is_warm:
                held.is_warm = False
                if now_s < held.lasts_until_s:
                    if now_s - held.loaded_at_s >= BACKOFF_S_MAX:
                        held.failures = 0
                    is_new = _fail(held, _WAS_UNLOADED, now_s)
                    _part(place, one, named.footprint)
                    yield from (Refused(one.backend, named.model, held.reason),) if is_new else ()
                held.lasts_until_s = 0.0

    def _leave(self, one: WarmFacts, now_s: float) -> None:
        place = self._places[one.backend]
        for named in one.named:
            held = place.held[named.model]
            is_due = not held.reason and now_s < self._wanted_until_s(one, named)
            # One that others keep from being loaded, by asking there all the time, is not waited for for ever.
            is_late = now_s >= place.warm_from_s + LOAD_S_MAX
            held.is_left_cold = one.can_load and not held.is_warm and (is_late or not is_due)

    # --- what is due

    def _renewals(self, facts: Sequence[WarmFacts], now_s: float) -> Iterator[Load]:
        for one, named, held in self._usable(facts, now_s):
            wanted_until_s = min(self._wanted_until_s(one, named), now_s + KEEP_S)
            if not one.lets_go or not held.is_warm or not named.footprint or not named.footprint.is_loaded:
                continue
            if wanted_until_s > held.lasts_until_s and held.lasts_until_s - now_s <= KEEP_S / 2:
                yield self._load(one, named, named.footprint, now_s, is_renewal=True)

    def _next_load(self, facts: Sequence[WarmFacts], now_s: float, refused: list[Refused]) -> Load | None:
        for one, named, held in self._usable(facts, now_s):
            if held.is_warm or named.footprint is None or one.in_flight or self._is_unsettled(one, now_s):
                # While somebody is answered there, a load would make everybody wait for it (ollama, server/sched.go).
                continue
            why = _crowded(self._places[one.backend], held, one, named.footprint)
            if not why:
                return self._load(one, named, named.footprint, now_s)
            refused.extend(_refuse(held, one, named, why))
        return None

    def _is_unsettled(self, one: WarmFacts, now_s: float) -> bool:
        """Whether the lists do not show yet what was loaded last, and so not what is loaded beside it."""
        held = self._places[one.backend].held
        unseen = [named for named in one.named if named.footprint is not None and not named.footprint.is_loaded]
        return any(now_s < held[named.model].believed_until_s for named in unseen)

    def _usable(self, facts: Sequence[WarmFacts], now_s: float) -> Iterator[tuple[WarmFacts, Named, _Held]]:
        """Yield the models that may be asked for now: the backend can, they are wanted, and no failure was too short ago."""
        for one in facts:
            for named in one.named if one.can_load else ():
                held = self._places[one.backend].held[named.model]
                if now_s >= held.retry_at_s and now_s < self._wanted_until_s(one, named):
                    yield one, named, held

    def _wanted_until_s(self, one: WarmFacts, named: Named) -> float:
        if one.rules.idle_s <= 0.0:
            return float("inf")
        return max(named.exchange_at_s, self._places[one.backend].warm_from_s) + one.rules.idle_s

    def _load(self, one: WarmFacts, named: Named, footprint: Footprint, now_s: float, *, is_renewal: bool = False) -> Load:
        keep_s = max(KEEP_S_MIN, min(KEEP_S, self._wanted_until_s(one, named) - now_s))
        beside = frozenset(other.name for other in one.loaded if other.name != footprint.name)
        return Load(one.backend, named.model, footprint.name, keep_s, is_renewal, beside)


def _on_loaded(place: _Place, held: _Held, one: WarmFacts, footprint: Footprint, now_s: float) -> None:
    held.is_warm = True
    held.reason = ""
    held.seen_bytes = footprint.loaded_bytes or held.seen_bytes
    if held.beside and now_s >= held.believed_until_s:
        gone = held.beside - {other.name for other in one.loaded}
        place.apart |= {frozenset((footprint.name, name)) for name in gone}
        held.beside = frozenset()


def _part(place: _Place, one: WarmFacts, lost: Footprint) -> None:
    """Take that `lost` has gone before its time: whoever was loaded beside it since has pushed it out."""
    for named in one.named:
        held = place.held.get(named.model)
        if named.footprint is not None and held is not None and lost.name in held.beside:
            place.apart.add(frozenset((lost.name, named.footprint.name)))


def _crowded(place: _Place, held: _Held, one: WarmFacts, footprint: Footprint) -> str:
    """Return why memory is not known to suffice for one more model, "" where it is or where the engine tells nothing of it."""
    others = [other for other in one.loaded if other.name != footprint.name]
    if not any(other.loaded_bytes for other in others):
        return ""
    order = [named.footprint.name for named in one.named if named.footprint is not None]
    behind = set(order[order.index(footprint.name) + 1 :])
    apart = {other.name for other in others if frozenset((other.name, footprint.name)) in place.apart}
    if apart:
        # It has been seen; nothing that was seen of other models says more. Those behind it in the file may be pushed out.
        return "" if {other.name for other in others} <= behind else crowded_by(apart - behind or apart)
    need_bytes = held.seen_bytes or footprint.file_bytes * ON_TOP
    if need_bytes and sum(other.loaded_bytes for other in others) + need_bytes <= place.most_bytes:
        return ""
    strangers = {other.name for other in others} - set(order)
    return crowded_by(strangers) if strangers else ""


def crowded_by(names: Collection[str]) -> str:
    """Say why a model is not loaded beside those."""
    return f"memory is not known to hold it beside {', '.join(sorted(names))}"


def _fail(held: _Held, reason: str, now_s: float) -> bool:
    is_new = reason != held.reason
    held.retry_at_s = now_s + min(BACKOFF_S_MAX, BACKOFF_S * 2.0**held.failures)
    held.failures = min(held.failures + 1, _DOUBLINGS_MAX)
    held.reason = reason
    return is_new


def _refuse(held: _Held, one: WarmFacts, named: Named, reason: str) -> Iterator[Refused]:
    if held.reason != reason:
        held.reason = reason
        yield Refused(one.backend, named.model, reason)
