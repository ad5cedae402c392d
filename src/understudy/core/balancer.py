"""Choose the backend for an exchange's next attempt, or say why there is none.

Called by core.exchange through dataplane.relay for every attempt. Reads one snapshot and this process's tally; writes nothing
but the tally's turn-taking (round robin, slow start). Pure otherwise: now_s (seconds, loop time) is the caller's, nothing is
random. Never waits, never counts an attempt (`Tally.begin`) and never decides a condition (core.health).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, log, pow as power

from understudy.core.ask import Ask
from understudy.core.shortlist import Candidate, Choice, Shortlist, client_models_of, is_serving
from understudy.core.snapshot import Balance, Duty, Model, RoutingSnapshot
from understudy.core.tally import BackendTally, Tally
from understudy.errors import FailureKind

__all__ = ["Choice", "NoChoice", "client_models", "has_alternative", "pick"]

# A warming backend begins with this share of what it would get, so that it is given the chance to warm at all.
_SHARE_MIN = 0.1
# A time to first content counts half after a minute without a newer one, so that one bad answer is not held against a backend
# for ever: it is tried again once the others look slower than what is left of it.
_TTFT_HALF_LIFE_S = 60.0


@dataclass(frozen=True, slots=True)
class NoChoice:
    """Nobody to send to. `until_s` is the earliest instant at which that may change by itself, 0.0 when unknown.

    `kind` is MODEL_UNKNOWN or DIALECT_UNSPOKEN where waiting cannot help, NONE_USABLE or NO_ROOM where it may.
    """

    kind: FailureKind
    until_s: float = 0.0


# A candidate with this process's counts of it.
_Counted = tuple[Candidate, BackendTally]


def pick(
    snapshot: RoutingSnapshot,
    tally: Tally,
    ask: Ask,
    *,
    tried: Collection[str],
    now_s: float,
    is_last_resort: bool = False,
) -> Choice | NoChoice:
    """Return the backend for the next attempt: primaries before backups, then as `plan.balance` says.

    Never one that was `tried`, is not UP or WARMING, is not READY, does not speak the dialect or serve the model, asked for
    rest, is full, or is ejected, unless all that remain are ejected: then the least bad one. A half-open backend is chosen as
    a trial, while no other trial runs. With `is_last_resort` condition and ejection do not matter.
    """
    shortlist = tally.shortlists.of(snapshot, ask)
    if is_last_resort:
        return _pick_last_resort(shortlist, tally, tried, now_s)
    balance = snapshot.plan.balance
    is_first_best = balance is Balance.ORDERED or (balance is Balance.SESSION and not ask.session)
    deferred: list[_Counted] = []
    for group in shortlist.groups:
        ready: list[_Counted] = []
        warming: list[_Counted] = []
        for candidate in group:
            if candidate.name in tried:
                continue
            counts = tally.of(candidate.name)
            if not _is_open(candidate, counts, now_s):
                continue
            if candidate.is_warming and not _earns_turn(candidate, counts, now_s):
                warming.append((candidate, counts))
            elif is_first_best:
                return _choose(candidate, counts)
            else:
                ready.append((candidate, counts))
        if ready:
            return _choose(*_best(balance, ready, ask.session, now_s))
        deferred = deferred or warming
    if deferred:
        # Better a warming backend that has not earned its turn than none.
        return _choose(*(deferred[0] if is_first_best else _best(balance, deferred, ask.session, now_s)))
    return _pick_ejected(shortlist, tally, tried, now_s)


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
    return tuple(
        pair
        for target in snapshot.targets
        if is_serving(target) and target.state.duty is Duty.READY
        for pair in client_models_of(target)
    )


def _is_open(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    if counts.ejected_until_s and (now_s < counts.ejected_until_s or counts.trial_held):
        return False
    return _has_room(candidate, counts, now_s)


def _has_room(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    if candidate.in_flight_max and counts.in_flight >= candidate.in_flight_max:
        return False
    return now_s >= counts.rest_until_s


def _choose(candidate: Candidate, counts: BackendTally) -> Choice:
    if candidate.is_warming:
        counts.warm_credit = max(0.0, counts.warm_credit - 1.0)
    if counts.ejected_until_s:
        return Choice(candidate.target, candidate.choice.model, is_trial=True)
    return candidate.choice


def _earns_turn(candidate: Candidate, counts: BackendTally, now_s: float) -> bool:
    """Give a warming backend its share of one turn; whether it has saved a whole one by now."""
    target = candidate.target
    elapsed_s = now_s - target.state.since_at_s
    share = max(_SHARE_MIN, min(1.0, elapsed_s / target.backend.health.slow_start_s))
    # Saved turns are capped at one: what it was not chosen for must not come back as a burst.
    counts.warm_credit = min(1.0, counts.warm_credit + share)
    return counts.warm_credit >= 1.0


def _best(balance: Balance, ready: Sequence[_Counted], session: str, now_s: float) -> _Counted:
    if len(ready) == 1:
        return ready[0]
    if balance is Balance.ROUND_ROBIN:
        return _next_turn(ready)
    if balance is Balance.SESSION:
        return max(ready, key=lambda one: _rendezvous(one[0], session))
    # These two follow load and speed, which a backend that fails at once seems to have the best of.
    trusted = [one for one in ready if one[1].suspect_until_s <= now_s] or ready
    if balance is Balance.FASTEST:
        return min(trusted, key=lambda one: (_expected_ttft_s(one[1], now_s), one[1].in_flight / one[0].weight))
    return _least_in_flight(trusted)


def _next_turn(ready: Sequence[_Counted]) -> _Counted:
    """Smooth weighted round robin: every backend gets its share, spread evenly (nginx, commit 52327e0)."""
    weights = 0
    best = ready[0]
    for one in ready:
        weight = one[0].weight
        weights += weight
        one[1].turn += weight
        if one[1].turn > best[1].turn:
            best = one
    best[1].turn -= weights
    return best


def _least_in_flight(ready: Sequence[_Counted]) -> _Counted:
    """Return the least in flight for its weight; equals take turns, or a quiet pool would use its first backend only."""
    least = min(counts.in_flight / candidate.weight for candidate, counts in ready)
    equals = [one for one in ready if one[1].in_flight / one[0].weight == least]
    return equals[0] if len(equals) == 1 else _next_turn(equals)


def _expected_ttft_s(counts: BackendTally, now_s: float) -> float:
    """Return the time to first content to reckon with; an unmeasured backend is tried, by one exchange at a time."""
    if counts.ttft_ewma_s is None:
        return inf if counts.in_flight else 0.0
    return counts.ttft_ewma_s * power(0.5, (now_s - counts.ttft_measured_at_s) / _TTFT_HALF_LIFE_S)


def _rendezvous(candidate: Candidate, session: str) -> float:
    """Weighted rendezvous: a session moves only when its backend goes, and then the others share what it had.

    Highest -weight / ln(u) with u uniform in (0, 1) from a hash of backend and session (Schindelhauer and Schomaker, 2005).
    """
    digest = candidate.seed.copy()
    digest.update(session.encode("utf-8", "surrogateescape"))
    # The middle of each step keeps u off 0 and 1, where the logarithm is lost.
    return -candidate.weight / log(((int.from_bytes(digest.digest()) >> 11) + 0.5) / 2.0**53)


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


def _no_choice(untried: Sequence[_Counted], now_s: float) -> NoChoice:
    """Tell what keeps these from being chosen, and when the first of them may be open by the passing of time alone."""
    is_full = any(one.in_flight_max and counts.in_flight >= one.in_flight_max for one, counts in untried)
    instants_s = [max(counts.ejected_until_s, counts.rest_until_s) for _, counts in untried]
    until_s = min((instant_s for instant_s in instants_s if instant_s > now_s), default=0.0)
    return NoChoice(FailureKind.NO_ROOM if is_full else FailureKind.NONE_USABLE, until_s)


def _last_success_at_s(one: _Counted) -> float:
    return one[1].last_success_at_s
