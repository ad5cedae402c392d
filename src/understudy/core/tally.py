"""This process's own live counts per backend: what is in flight, what failed, who is ejected or resting.

Written by dataplane.relayed and observations and controlplane.figures_reader through `Tally`, read by core.balancer, core.status
and telemetry. Created once and kept through reloads. Pure: the caller passes now_s (seconds, loop time). Never probes and never
decides a condition (core.health): traffic and probes are separate evidence, and only live success or time ends an ejection.
"""

from collections import deque
from collections.abc import Collection

from understudy.core.evidence import Evidence
from understudy.core.pace import Pace
from understudy.core.shortlist import Shortlists
from understudy.core.snapshot import HealthRules

# Weight of the newest time to first content in its moving average: about the last five answers matter.
_TTFT_NEWEST = 0.3
# Ejections grow to at most this long, unless the operator's fail_timeout is longer.
_EJECTION_S_MAX = 60.0
_EJECTIONS_MAX = 32
_GOOD_MINUTE_S = 60.0


class BackendTally:
    """The counts of one backend. Anyone may read them; only `Tally` and the balancer's turn-taking write them.

    `evidence` is written by controlplane.prober and dataplane.vigil: what speaks for its being alive, newer than its condition.

    `ejected_until_s` is 0.0 while in service and stays set after that time until a success: half-open. `suspect_until_s` is
    how long a failure keeps balances from preferring the backend. `turn` and `warm_credit` are the balancer's: the place in
    the round robin, and what a warming backend has saved towards its next one. `ttft_ewma_s` is None until first measured,
    `pace` holds the same times by the prompt's size, some of them: the last at `paced_at_s`. `queued_elsewhere` are the requests
    that the backend itself told of and that are not ours, `queued` those of all that wait in it; both 0 while it tells nothing.
    """

    __slots__ = (
        "attempts_total",
        "ejected_until_s",
        "ejections",
        "evidence",
        "failures_at_s",
        "failures_total",
        "good_since_s",
        "in_flight",
        "last_success_at_s",
        "pace",
        "paced_at_s",
        "queued",
        "queued_elsewhere",
        "rest_until_s",
        "suspect_until_s",
        "trial_held",
        "ttft_ewma_s",
        "ttft_measured_at_s",
        "turn",
        "warm_credit",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.attempts_total = 0
        self.failures_total = 0
        self.trial_held = False
        self.clear_verdicts()

    def clear_verdicts(self) -> None:
        """Forget everything learnt of the backend; counts of what is in flight and totals stay."""
        self.failures_at_s: deque[float] = deque()
        self.ejected_until_s = 0.0
        self.ejections = 0
        self.good_since_s = 0.0
        self.suspect_until_s = 0.0
        self.rest_until_s = 0.0
        self.ttft_ewma_s: float | None = None
        self.ttft_measured_at_s = 0.0
        self.last_success_at_s = 0.0
        self.pace = Pace()
        self.paced_at_s = 0.0
        self.evidence = Evidence()
        self.queued_elsewhere = 0
        self.queued = 0
        self.turn = 0
        self.warm_credit = 0.0

    def is_half_open(self, now_s: float) -> bool:
        """Whether the ejection's time is over and no success has come yet."""
        return 0.0 < self.ejected_until_s <= now_s


class Tally:
    """All counts of this process, by backend name, and the memo of shortlists that they are applied to."""

    __slots__ = ("_by_name", "shortlists")

    def __init__(self) -> None:
        self._by_name: dict[str, BackendTally] = {}
        self.shortlists = Shortlists()

    def of(self, name: str) -> BackendTally:
        """Return the counts of one backend; made when first asked for."""
        one = self._by_name.get(name)
        if one is None:
            one = self._by_name[name] = BackendTally()
        return one

    def evidence_of(self, name: str) -> Evidence:
        """Return what speaks for one backend's being alive, to be written by who probes it and by who reads its answers."""
        return self.of(name).evidence

    def retain(self, names: Collection[str]) -> None:
        """Forget the backends that are not in `names` and have nothing in flight. To be called after a reload."""
        for name in [name for name, one in self._by_name.items() if name not in names and not one.in_flight]:
            del self._by_name[name]

    def renew(self, name: str) -> None:
        """Begin anew with a backend whose address changed: verdicts go, what is in flight still counts."""
        self.of(name).clear_verdicts()

    def begin(self, name: str, *, is_trial: bool) -> None:
        """Count an attempt as in flight; a trial holds the half-open permit until `end`."""
        one = self.of(name)
        one.in_flight += 1
        one.attempts_total += 1
        if is_trial:
            one.trial_held = True

    def end(self, name: str, *, is_trial: bool) -> None:
        """Count an attempt as over, however it ended; releases the permit of a trial. Raises RuntimeError without a begin."""
        one = self.of(name)
        if not one.in_flight:
            raise RuntimeError(f"an attempt ended at {name} that never began")
        one.in_flight -= 1
        if is_trial:
            one.trial_held = False

    def succeed(self, name: str, ttft_s: float | None, now_s: float) -> bool:
        """Count an answer; True when it ended an ejection. `ttft_s` is None where no first content was timed.

        Failures of the window stay counted, as in nginx: a backend that fails every other exchange is to be ejected, too.
        """
        one = self.of(name)
        one.last_success_at_s = now_s
        one.suspect_until_s = 0.0
        if ttft_s is not None:
            ewma_s = one.ttft_ewma_s
            one.ttft_ewma_s = ttft_s if ewma_s is None else ewma_s + _TTFT_NEWEST * (ttft_s - ewma_s)
            one.ttft_measured_at_s = now_s
        if one.ejected_until_s:
            one.ejected_until_s = 0.0
            one.good_since_s = now_s
            return True
        if one.ejections:
            minutes = int((now_s - one.good_since_s) / _GOOD_MINUTE_S)
            one.ejections = max(0, one.ejections - minutes)
            one.good_since_s += minutes * _GOOD_MINUTE_S
        return False

    def fail(self, name: str, rules: HealthRules, now_s: float, *, has_alternative: bool) -> bool:
        """Count a failure that is the backend's own; True when this one ejected it.

        `max_fails` failures within `fail_timeout_s` eject it (nginx; 0: never), as does one while half-open. The first
        ejection lasts `fail_timeout_s`, each further one twice as long. Without an alternative it stays in service.
        """
        one = self.of(name)
        one.failures_total += 1
        one.good_since_s = now_s
        # A part of the window, so that a backend that goes on failing is ejected by its last permitted failure and not only
        # passed over, a failure at a time, for ever.
        one.suspect_until_s = max(one.suspect_until_s, now_s + rules.fail_timeout_s / max(1, rules.max_fails))
        if rules.max_fails == 0:
            one.ejected_until_s = 0.0
            return False
        if now_s < one.ejected_until_s:
            # An ejection's end is fixed when it begins: stragglers must not prolong it (agbero #7).
            return False
        failures_at_s = one.failures_at_s
        failures_at_s.append(now_s)
        while (failures_at_s and failures_at_s[0] <= now_s - rules.fail_timeout_s) or len(failures_at_s) > rules.max_fails:
            failures_at_s.popleft()
        if not has_alternative or (not one.ejected_until_s and len(failures_at_s) < rules.max_fails):
            return False
        longest_s = max(_EJECTION_S_MAX, rules.fail_timeout_s)
        one.ejected_until_s = now_s + min(longest_s, rules.fail_timeout_s * 2.0**one.ejections)
        one.ejections = min(one.ejections + 1, _EJECTIONS_MAX)
        failures_at_s.clear()
        return True

    def rest(self, name: str, until_s: float) -> None:
        """Send nothing to a backend that said it is busy before `until_s`; the caller caps how long that is."""
        one = self.of(name)
        one.rest_until_s = max(one.rest_until_s, until_s)

    def doubt(self, name: str, until_s: float) -> None:
        """Prefer other backends until `until_s`, without blame: for failures that are fast and nobody's fault."""
        one = self.of(name)
        one.suspect_until_s = max(one.suspect_until_s, until_s)

    def learn_load(self, name: str, load: int, queued: int, in_flight: int) -> None:
        """Take what a backend told of its own load: all requests there, and how many of them wait.

        `in_flight` is how many were ours when it was asked. The more of then and now counts as ours, or those that come or go
        meanwhile would look like others'. Kept is the others' part alone, so that it stays right while ours change.
        """
        one = self.of(name)
        one.queued_elsewhere = max(0, load - max(in_flight, one.in_flight))
        one.queued = queued

    def forget_load(self, name: str) -> None:
        """Forget what a backend told of its own load: it is too old."""
        one = self._by_name.get(name)
        if one is not None:
            one.queued_elsewhere = one.queued = 0
