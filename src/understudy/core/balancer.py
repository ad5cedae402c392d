"""Choose the backend for an exchange's next attempt, or say why there is none.

Called by core.exchange and core.resume for every attempt. Reads one snapshot and this process's tally; writes nothing
but the tally's turn-taking (round robin, slow start). Pure otherwise: now_s (seconds, loop time) is the caller's, nothing is
random. Never waits, never counts an attempt (`Tally.begin`) and never decides a condition (core.health).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from understudy.core.affinity import preferred
from understudy.core.ask import Ask
from understudy.core.preference import Counted, prefer
from understudy.core.shortlist import Candidate, Choice, Shortlist, client_models_of, is_usable
from understudy.core.snapshot import Balance, Model, RoutingSnapshot
from understudy.core.tally import BackendTally, Tally
from understudy.errors import FailureKind

__all__ = ["Choice", "NoChoice", "client_models", "has_alternative", "pick"]

# A warming backend begins with this share of what it would get, so that it is given the chance to warm at all.
_SHARE_MIN = 0.1


@dataclass(frozen=True, slots=True)
class NoChoice:
    """Nobody to send to. `until_s` is the earliest instant at which that may change by itself, 0.0 when unknown.

    `kind` is MODEL_UNKNOWN or DIALECT_UNSPOKEN where waiting cannot help, NONE_USABLE or NO_ROOM where it may.
    """

    kind: FailureKind
    until_s: float = 0.0


def pick(
    snapshot: RoutingSnapshot,
    tally: Tally,
    ask: Ask,
    *,
    tried: Collection[str],
    now_s: float,
    is_last_resort: bool = False,
) -> Choice | NoChoice:
    """Return the backend for the next attempt: primaries before backups, then the preferred one, then as `plan.balance` says.

    Those of the exchange's color come first. While one of them is in service but has no room, or none has been probed yet, there
    is nobody: to speak with another voice is worse than to wait a little, and the caller asks without a color once that has been
    enough.
    Never one that was `tried`, is not UP or WARMING, is not READY, does not speak the dialect or serve the model, asked for
    rest, is full, or is ejected, unless all that remain are ejected: then the least bad one. A half-open backend is chosen as
    a trial, while no other trial runs. With `is_last_resort` condition and ejection do not matter.
    """
    shortlist = tally.shortlists.of(snapshot, ask)
    if is_last_resort:
        return _pick_last_resort(shortlist, tally, tried, now_s)
    if ask.color:
        own = shortlist.groups_of(ask.color)
        choice = _pick_open(own, snapshot.plan.balance, tally, ask, tried, now_s)
        if choice is not None:
            return choice
        untried = [(one, tally.of(one.name)) for group in own for one in group if one.name not in tried]
        in_service = [one for one in untried if not one[1].ejected_until_s]
        if in_service:
            return _no_choice(in_service, now_s)
        if not tried and shortlist.is_unproven(ask.color):
            return NoChoice(FailureKind.NONE_USABLE)
    choice = _pick_open(shortlist.groups, snapshot.plan.balance, tally, ask, tried, now_s)
    return choice or _pick_ejected(shortlist, tally, tried, now_s)


def _pick_open(
    groups: Sequence[Sequence[Candidate]], balance: Balance, tally: Tally, ask: Ask, tried: Collection[str], now_s: float
) -> Choice | None:
    """Return the backend of the first of `groups` that has one in service with room; None when none has."""
    is_first_best = balance is Balance.ORDERED or (balance is Balance.SESSION and not ask.session)
    deferred: list[Counted] = []
    for group in groups:
        wanted = preferred(group, ask) if ask.prefer else None
        if wanted is not None and wanted.name not in tried and _is_open(wanted, tally.of(wanted.name), now_s):
            return _choose(wanted, tally.of(wanted.name))
        ready: list[Counted] = []
        warming: list[Counted] = []
        for candidate in group:
            counts = tally.of(candidate.name)
            if candidate.name in tried or not _is_open(candidate, counts, now_s):
                continue
            if candidate.is_warming and not _earns_turn(candidate, counts, now_s):
                warming.append((candidate, counts))
            elif is_first_best:
                return _choose(candidate, counts)
            else:
                ready.append((candidate, counts))
        if ready:
            return _choose(*prefer(balance, ready, ask.session, now_s))
        deferred = deferred or warming
    if deferred:
        # Better a warming backend that has not earned its turn than none.
        return _choose(*prefer(balance, deferred, ask.session, now_s))
    return None


def has_alternative(snapshot: RoutingSnapshot, tally: Tally, ask: Ask, *, name: str) -> bool:
    """Whether another backend than `name` is in service for `ask`; what `Tally.fail` needs to know before it ejects."""
    shortlist = tally.shortlists.of(snapshot, ask)
    return any(
        not tally.of(candidate.name).ejected_until_s
        for group in shortlist.groups
        for candidate in group
        if candidate.name != name
    )


def client_models(snapshot: RoutingSnapshot) -> tuple[tuple[str, Model], ...]:
    """Return the pairs (client's name, model) of every usable backend, in the plan's order, for the merged listings.

    A mapped model stands under its public name instead of the backend's. The same name may occur once per backend.
    """
    return tuple(pair for target in snapshot.targets if is_usable(target) for pair in client_models_of(target))


def _is_open(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    if counts.ejected_until_s and (now_s < counts.ejected_until_s or counts.trial_held):
        return False
    return _has_room(candidate, counts, now_s)


def _has_room(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    if candidate.in_flight_max and counts.in_flight >= candidate.in_flight_max:
        return False
    return now_s >= counts.rest_until_s


def _choose(candidate: Candidate, counts: BackendTally) -> Choice:
    if counts.ejected_until_s:
        return Choice(candidate.target, candidate.choice.model, is_trial=True)
    return candidate.choice


def _earns_turn(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    """Give a warming backend its share of one turn; True, and the turn is taken, when that makes a whole one."""
    target = candidate.target
    elapsed_s = now_s - target.state.since_at_s
    share = max(_SHARE_MIN, min(1.0, elapsed_s / target.backend.health.slow_start_s))
    counts.warm_credit += share
    if counts.warm_credit < 1.0:
        return False
    counts.warm_credit -= 1.0
    return True


def _pick_ejected(shortlist: Shortlist, tally: Tally, tried: Collection[str], now_s: float) -> Choice | NoChoice:
    """Return the least bad of the ejected when all that remain are; else why there is no choice."""
    if not shortlist.groups:
        return NoChoice(shortlist.why_none)
    untried = [(one, tally.of(one.name)) for group in shortlist.groups for one in group if one.name not in tried]
    if all(now_s < counts.ejected_until_s for _, counts in untried):
        roomy = [one for one in untried if _has_room(*one, now_s)]
        if roomy:
            return max(roomy, key=_last_success_at_s)[0].choice
    return _no_choice(untried, now_s)


def _pick_last_resort(shortlist: Shortlist, tally: Tally, tried: Collection[str], now_s: float) -> Choice | NoChoice:
    """Return the least bad of all that could serve: whoever gave an answer last. Rest and room still hold."""
    if not shortlist.last_resorts:
        return NoChoice(shortlist.why_none)
    untried = [(one, tally.of(one.name)) for one in shortlist.last_resorts if one.name not in tried]
    roomy = [one for one in untried if _has_room(*one, now_s)]
    if not roomy:
        return _no_choice(untried, now_s)
    candidate, counts = max(roomy, key=_last_success_at_s)
    is_trial = counts.is_half_open(now_s) and not counts.trial_held
    return Choice(candidate.target, candidate.choice.model, is_trial=is_trial, is_last_resort=True)


def _no_choice(untried: Sequence[Counted], now_s: float) -> NoChoice:
    """Tell what keeps these from being chosen, and when the first of them may be open by the passing of time alone."""
    is_full = any(one.in_flight_max and counts.in_flight >= one.in_flight_max for one, counts in untried)
    instants_s = [max(counts.ejected_until_s, counts.rest_until_s) for _, counts in untried]
    until_s = min((instant_s for instant_s in instants_s if instant_s > now_s), default=0.0)
    return NoChoice(FailureKind.NO_ROOM if is_full else FailureKind.NONE_USABLE, until_s)


def _last_success_at_s(one: Counted) -> float:
    return one[1].last_success_at_s
