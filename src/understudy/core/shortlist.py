"""Which backends can serve an ask at all, and under which model name: the part of choosing that one snapshot fixes.

Read by core.balancer (through the memo in core.tally) and core.status. Pure. Never looks at live counts: who is full, ejected
or resting changes within a snapshot and is the balancer's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from understudy.core.ask import Ask, DialectName
from understudy.core.color import Color
from understudy.core.snapshot import Condition, Duty, EngineKind, Model, Role, RoutingSnapshot, Target
from understudy.errors import FailureKind

_SHORTLISTS_MAX = 256
# Longer model names come from nobody's list, and a memo must not hold what a client makes up.
_MODEL_CHARS_MAX = 256
_SERVING = frozenset({Condition.UP, Condition.WARMING})
_ANY_TAG = ":latest"


@dataclass(frozen=True, slots=True)
class Choice:
    """Send the exchange to `target`, asking for `model` ("" when the client named none).

    `is_trial` says that the attempt takes the half-open permit: hand it to `Tally.begin` and `Tally.end` as it is.
    """

    target: Target
    model: str
    is_trial: bool = False
    is_last_resort: bool = False


class Candidate:
    """A backend that can serve an ask, with what the balancer reads of it for every exchange."""

    __slots__ = ("choice", "in_flight_max", "is_warming", "name", "seed", "target", "weight")

    def __init__(self, target: Target, model: str) -> None:
        backend = target.backend
        self.target = target
        self.name = backend.name
        self.weight = backend.weight
        self.in_flight_max = backend.in_flight_max
        self.is_warming = target.state.condition is Condition.WARMING and backend.health.slow_start_s > 0
        # Made beforehand: nearly every exchange gets this one.
        self.choice = Choice(target, model)
        # The backend's half of the rendezvous hash, absorbed once.
        self.seed = blake2b(b"%d:%s" % (len(self.name), self.name.encode()), digest_size=8)


class Shortlist:
    """The candidates for one kind of ask, each in the plan's order.

    `groups` holds those usable by condition and duty: primaries, then backups, then those of both that are about to load the
    model while another one has it, then those that are degraded; no group is empty. `last_resorts` holds every backend that may
    be able to serve, that does not sleep, and that neither the operator nor a restart has taken out. `why_none` is the failure
    when `groups` is empty.
    """

    __slots__ = ("_by_color", "_usable", "groups", "last_resorts", "why_none")

    def __init__(self, snapshot: RoutingSnapshot, ask: Ask) -> None:
        able = [
            Candidate(target, model)
            for role in (Role.PRIMARY, Role.BACKUP)
            for target in snapshot.targets
            if target.backend.role is role
            and (not target.state.dialects or speaks(target, ask.dialect))
            and (model := own_name(target, ask.model)) is not None
        ]
        self.last_resorts = tuple(one for one in able if is_wanted(one.target) and not one.target.state.is_asleep)
        self._usable = [one for one in self.last_resorts if is_serving(one.target) and speaks(one.target, ask.dialect)]
        self.groups = _groups(self._usable)
        self.why_none = FailureKind.NONE_USABLE if able else _why_unable(snapshot, ask)
        self._by_color: dict[str, tuple[tuple[Candidate, ...], ...]] = {}

    def is_unproven(self, color: str) -> bool:
        """Whether nobody knows yet of any backend of `color` that may serve whether it can: none has been probed so far."""
        own = [one for one in self.last_resorts if one.target.backend.color == color]
        return bool(own) and all(one.target.state.condition is Condition.UNKNOWN for one in own)

    def groups_of(self, color: str) -> tuple[tuple[Candidate, ...], ...]:
        """Return the groups of those of `color` alone, and of none, which serve both."""
        found = self._by_color.get(color)
        if found is None:
            colors = (color, Color.NONE)
            found = self._by_color[color] = _groups([one for one in self._usable if one.target.backend.color in colors])
        return found


def _groups(usable: list[Candidate]) -> tuple[tuple[Candidate, ...], ...]:
    sound = [one for one in usable if not one.target.state.is_degraded]
    cold = _cold(sound)
    ready = [one for one in sound if one not in cold] if cold else sound
    primaries = tuple(one for one in ready if one.target.backend.role is Role.PRIMARY)
    backups = tuple(one for one in ready if one.target.backend.role is Role.BACKUP)
    degraded = tuple(one for one in usable if one.target.state.is_degraded)
    return tuple(group for group in (primaries, backups, cold, degraded) if group)


def _cold(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Return those that are about to load what is asked for while another one has it, which plays until then."""
    cold = tuple(one for one in candidates if is_awaited(one.target, one.choice.model))
    return cold if any(has_in_memory(one.target, one.choice.model) for one in candidates) else ()


def _why_unable(snapshot: RoutingSnapshot, ask: Ask) -> FailureKind:
    """Why no backend, whatever its condition, can serve the ask: an unknown list would have counted as able, so this is final."""
    if any(not target.state.dialects or speaks(target, ask.dialect) for target in snapshot.targets):
        return FailureKind.MODEL_UNKNOWN
    return FailureKind.DIALECT_UNSPOKEN if snapshot.targets else FailureKind.NONE_USABLE


class Shortlists:
    """The shortlists of the newest snapshot by dialect and model, at most `_SHORTLISTS_MAX`; forgotten with the snapshot."""

    __slots__ = ("_by_model", "_count", "_snapshot")

    def __init__(self) -> None:
        self._snapshot: RoutingSnapshot | None = None
        self._by_model: dict[str, dict[DialectName | None, Shortlist]] = {}
        self._count = 0

    def of(self, snapshot: RoutingSnapshot, ask: Ask) -> Shortlist:
        """Return the shortlist for `ask` in `snapshot`."""
        if snapshot is not self._snapshot or self._count >= _SHORTLISTS_MAX:
            self._snapshot = snapshot
            self._by_model.clear()
            self._count = 0
        by_dialect = self._by_model.get(ask.model)
        found = by_dialect.get(ask.dialect) if by_dialect else None
        if found is None:
            found = Shortlist(snapshot, ask)
            if len(ask.model) <= _MODEL_CHARS_MAX:
                self._by_model.setdefault(ask.model, {})[ask.dialect] = found
                self._count += 1
        return found


def is_serving(target: Target) -> bool:
    """Whether the backend's condition lets it serve."""
    return target.state.condition in _SERVING


def is_wanted(target: Target) -> bool:
    """Whether the operator lets the backend serve, and it is not being restarted."""
    return target.state.duty is Duty.READY and not target.state.is_restarting


def is_usable(target: Target) -> bool:
    """Whether the backend can serve and is wanted to."""
    return target.state.condition in _SERVING and is_wanted(target)


def speaks(target: Target, dialect: DialectName | None) -> bool:
    """Whether the backend is known to speak `dialect`; None asks for none in particular."""
    return dialect is None or dialect in target.state.dialects


def own_name(target: Target, model: str) -> str | None:
    """Return what the backend calls the client's `model`, None when it does not serve it. An unknown list serves any."""
    if not model:
        return ""
    tag = _tag(target)
    wanted = model.removesuffix(tag)
    own = next((own for public, own in target.backend.models if public.removesuffix(tag) == wanted), model)
    if target.state.models is None:
        return own
    return own if any(True for _ in _listed(target, own)) else None


def has_in_memory(target: Target, own: str) -> bool:
    """Whether the backend has its model `own` in memory, as far as its lists tell; one that tells nothing has it."""
    return target.state.models is None or any(one.is_loaded for one in _listed(target, own))


def is_awaited(target: Target, own: str) -> bool:
    """Whether the backend is about to load its model `own`, which its `warm` names."""
    named = (model for model in target.backend.warm.models if model not in target.state.left_cold)
    tag = _tag(target)
    is_named = any((own_name(target, model) or "").removesuffix(tag) == own.removesuffix(tag) for model in named)
    return is_named and bool(own) and not has_in_memory(target, own)


def _listed(target: Target, own: str) -> Iterator[Model]:
    tag = _tag(target)
    return (one for one in target.state.models or () if one.name.removesuffix(tag) == own.removesuffix(tag))


def client_models_of(target: Target) -> Iterator[tuple[str, Model]]:
    """Yield the pairs (client's name, model) of one backend: mapped models under their public names only."""
    tag = _tag(target)
    publics_by_own: dict[str, list[str]] = {}
    for public, own in target.backend.models:
        publics_by_own.setdefault(own.removesuffix(tag), []).append(public)
    taken = {public.removesuffix(tag) for public, _ in target.backend.models}
    for model in target.state.models or ():
        name = model.name.removesuffix(tag)
        if name in publics_by_own:
            for public in publics_by_own[name]:
                yield public, model
        elif name not in taken:
            # A name that the operator gave to another model of this backend leads there, not here.
            yield model.name, model


def _tag(target: Target) -> str:
    # Ollama takes a name with and without ":latest" for the same model; removesuffix("") changes nothing.
    return _ANY_TAG if target.state.engine is EngineKind.OLLAMA else ""
