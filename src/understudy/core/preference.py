"""Choose among backends that are all equally usable: the five balances.

Called by core.balancer with the candidates that are open for an exchange, all of one role. Reads their counts and keeps the
round robin's place in them. Pure otherwise: now_s (seconds, loop time) is the caller's, nothing is random. Never decides who is
usable.
"""

from collections.abc import Sequence
from math import inf, log
from math import pow as power

from understudy.core.shortlist import Candidate
from understudy.core.snapshot import Balance
from understudy.core.tally import BackendTally

# A time to first content counts half after a minute without a newer one, so that one bad answer is not held against a backend
# for ever: it is tried again once the others look slower than what is left of it.
_TTFT_HALF_LIFE_S = 60.0

# A candidate with this process's counts of it.
Counted = tuple[Candidate, BackendTally]


def prefer(balance: Balance, ready: Sequence[Counted], session: str, now_s: float) -> Counted:
    """Return the one of `ready` (never empty, in the order of preference) that `balance` wants; ordered wants the first.

    `session` is the conversation's key, "" when there is none: then the session balance is ordered.
    """
    if len(ready) == 1 or balance is Balance.ORDERED or (balance is Balance.SESSION and not session):
        return ready[0]
    if balance is Balance.ROUND_ROBIN:
        return _next_turn(ready)
    if balance is Balance.SESSION:
        return max(ready, key=lambda one: _rendezvous(one[0], session))
    # These two follow load and speed, which a backend that fails at once seems to have the best of.
    trusted = [one for one in ready if one[1].suspect_until_s <= now_s] or ready
    if balance is Balance.FASTEST:
        return min(
            trusted,
            key=lambda one: (_expected_ttft_s(one[1], now_s), (one[1].in_flight + one[1].queued_elsewhere) / one[0].weight),
        )
    return _least_in_flight(trusted)


def _next_turn(ready: Sequence[Counted]) -> Counted:
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


def _least_in_flight(ready: Sequence[Counted]) -> Counted:
    """Return the least in flight for its weight, what goes past us included as far as the backends tell.

    Equals take turns, or a quiet pool would use its first backend only.
    """
    least = inf
    equals: list[Counted] = []
    for one in ready:
        candidate, counts = one
        load = (counts.in_flight + counts.queued_elsewhere) / candidate.weight
        if load < least:
            least, equals = load, [one]
        elif load == least:
            equals.append(one)
    return equals[0] if len(equals) == 1 else _next_turn(equals)


def _expected_ttft_s(counts: BackendTally, now_s: float) -> float:
    """Return the time to first content to reckon with; an unmeasured backend is tried, by one exchange at a time.

    Each request that waits in the engine comes first and takes about as long once more.
    """
    if counts.ttft_ewma_s is None:
        return inf if counts.in_flight else 0.0
    decay = power(0.5, (now_s - counts.ttft_measured_at_s) / _TTFT_HALF_LIFE_S)
    return counts.ttft_ewma_s * decay * (1 + counts.queued)


def _rendezvous(candidate: Candidate, session: str) -> float:
    """Weighted rendezvous: a session moves only when its backend goes, and then the others share what it had.

    Highest -weight / ln(u) with u uniform in (0, 1) from a hash of backend and session (Schindelhauer and Schomaker, 2005).
    """
    digest = candidate.seed.copy()
    digest.update(session.encode("utf-8", "surrogatepass"))
    # The middle of each step keeps u off 0 and 1, where the logarithm is lost.
    return -candidate.weight / log(((int.from_bytes(digest.digest()) >> 11) + 0.5) / 2.0**53)
