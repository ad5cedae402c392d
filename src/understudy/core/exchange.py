"""Decide, for one client request, what to do next: an attempt, a wait, or an honest end.

Called by dataplane.relayed with what happened and when; answers with one command. Pure: it reads the snapshot and the tally it
is handed and never opens, sends or sleeps. It does not choose among backends (core.balancer) and knows no bytes.
"""

from msgspec.structs import replace

from understudy.core.ask import Ask
from understudy.core.balancer import Choice, NoChoice, pick
from understudy.core.color import Color
from understudy.core.commands import Abort, Attempt, Command, Resume, Wait
from understudy.core.resume import Resumption
from understudy.core.retry import AGAIN_INTERVAL_S, FREE, UNHURT, UNREACHED, RetryBudget
from understudy.core.snapshot import Condition, Duty, RoutingSnapshot
from understudy.core.tally import Tally
from understudy.errors import MEANING, Again, Failure, FailureKind

# A request that broke this many backends after they had all of it is not given to another one (poison).
BROKEN_MAX = 2

# What a client is told to wait where waiting helps and no backend named a time.
RETRY_AFTER_S = 1.0

_SERVING = frozenset({Condition.UP, Condition.WARMING})
# A backend that went away under a request, as one does that is restarted.
BREAKING = frozenset({FailureKind.LOST_BEFORE_HEAD, FailureKind.BODY_CUT})
_HELD_FOR = UNREACHED | UNHURT | BREAKING
PASSED_ON = frozenset({FailureKind.MODEL_MISSING, FailureKind.UNSUPPORTED})


class Exchange:
    """One client request as a state machine: `begin`, then `on_failure`, `on_break`, `on_wake` until it is answered or aborted.

    Once `on_commit` was called a failure is an Abort: the client has received a part. Where that part can be continued the caller
    tells it as `on_break`; from then on failures are those of going on.
    """

    attempts = 0
    _choice: Choice | None = None
    _hold_from_s = 0.0
    _room_from_s = 0.0
    _budget_until_s = 0.0
    _spent = 0
    _broken = 0
    _is_committed = False
    _is_last_chance = False
    _last_resort_is_spent = False
    _owes_budget = False
    _resumption: Resumption | None = None

    def __init__(self, ask: Ask, budget: RetryBudget) -> None:
        self.ask = ask
        self.failures: list[Failure] = []
        self._budget = budget
        self._tried: dict[str, float] = {}  # backend -> when it failed (loop time)

    def begin(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return the first command; counts the exchange in the retry budget."""
        self._budget.on_exchange(now_s)
        choice = pick(snapshot, tally, self.ask, tried=(), now_s=now_s)
        if isinstance(choice, Choice):
            return self._attempt(choice, is_fresh=not self.ask.is_generating)
        return self._without_choice(choice, snapshot, tally, now_s)

    def on_commit(self) -> bool:
        """Note that the client receives the first part of its answer; True when that put attempts back into the budget."""
        self._is_committed = True
        return self._spent > 0 and self.on_content()

    def on_content(self) -> bool:
        """Note that an attempt has led to content; True when that put attempts back into the budget."""
        spent, self._spent = self._spent, 0
        if spent:
            self._budget.give_back(spent)
        return spent > 0

    def on_failure(self, failure: Failure, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after the running attempt failed."""
        if self._resumption is not None:
            if failure.kind is FailureKind.STALE_REUSE:
                self.attempts -= 1
            else:
                self.failures.append(failure)
            return self._counted(self._resumption.on_failure(failure, snapshot, tally, now_s))
        again = failure.meaning.again
        if again is Again.SAME_BACKEND and not self._is_committed and self._choice is not None:
            # The attempt never reached an engine, so it is taken back and repeated (RFC 9110, 9.2.2).
            self.attempts -= 1
            if _is_still_in_service(self._choice, snapshot):
                return self._attempt(self._choice, is_fresh=True)
            return self._next(snapshot, tally, now_s)
        self.failures.append(failure)
        return self._after(failure, snapshot, tally, now_s)

    def _after(self, failure: Failure, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        again = failure.meaning.again
        if self._is_final(failure, again, snapshot.plan.failover.tries):
            return self._abort(failure.kind)
        self._tried[failure.backend] = now_s
        self._owes_budget = failure.was_sent and failure.kind not in FREE
        self._is_last_chance = self._is_last_chance or again is Again.ONCE_ELSEWHERE
        return self._next(snapshot, tally, now_s)

    def on_wake(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after a wait: something changed, or its time is over."""
        if self._resumption is not None:
            return self._counted(self._resumption.on_wake(snapshot, tally, now_s))
        return self._next(snapshot, tally, now_s)

    def on_break(self, failure: Failure, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after an answer broke that had content, and that may be continued: a Resume, a Wait or an Abort."""
        self.failures.append(failure)
        if self._resumption is None:
            self._resumption = Resumption(replace(self.ask, color=self._begun_color()))
        return self._counted(self._resumption.on_break(failure, snapshot, tally, now_s))

    def _begun_color(self) -> str:
        """Return the color that the answer was begun in, by whoever that was; "" for none in particular."""
        own = self._choice.target.backend.color if self._choice is not None else Color.NONE
        return self.ask.color if own is Color.NONE else str(own)

    def on_resumed(self) -> None:
        """Note that the answer goes on: the continuation has yielded content."""
        if self._resumption is not None:
            self._resumption.on_content()

    @property
    def has_refusal(self) -> bool:
        """Whether a backend that could be asked anew has refused to continue the answer."""
        return self._resumption is not None and self._resumption.has_refusal

    def begin_anew(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows when an answer that the client has nothing of cannot be continued: it is asked for once more.

        To have refused to continue it says nothing against a backend.
        """
        self._resumption = None
        failures = [failure for failure in self.failures if failure.kind is not FailureKind.RESUME_REFUSED]
        self._tried |= {failure.backend: now_s for failure in failures[:-1]}
        return self._after(failures[-1], snapshot, tally, now_s)

    def again(self, choice: Choice | None, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return the attempt that repeats the last one, at `choice`, which went well but cannot be used; nobody failed."""
        self._resumption = None
        self._choice = choice or self._choice
        if self._choice is not None and _is_still_in_service(self._choice, snapshot):
            return self._attempt(self._choice, is_fresh=False)
        return self._next(snapshot, tally, now_s)

    def give_up(self, failure: Failure) -> Abort:
        """Return the end of an answer that broke and cannot be continued."""
        self.failures.append(failure)
        return self._abort(failure.kind)

    def on_late(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Attempt | None:
        """Return a second attempt to run beside the one that is late, where there is a backend and the budget for it."""
        if self._choice is None or self._is_committed or self._resumption is not None:
            return None
        tried = (*self._still_tried(snapshot), self._choice.target.backend.name)
        choice = pick(snapshot, tally, self.ask, tried=tried, now_s=now_s)
        if isinstance(choice, NoChoice) or _is_of_other(choice, self.ask.color) or not self._budget.try_spend(now_s):
            return None
        self.attempts += 1
        return Attempt(choice, is_fresh=False)

    def on_hedge_failed(self, failure: Failure, left: Choice, now_s: float) -> None:
        """Note that one of two attempts failed; the other, at `left`, goes on alone."""
        self._choice = left
        if failure.kind is FailureKind.STALE_REUSE:
            self.attempts -= 1
            return
        self.failures.append(failure)
        self._tried[failure.backend] = now_s

    def _counted(self, command: Command) -> Command:
        if isinstance(command, Resume):
            self.attempts += 1
            self._choice = command.choice
        return command

    def _is_final(self, failure: Failure, again: Again, tries: int) -> bool:
        if self._is_committed or again is Again.NEVER or self._is_last_chance:
            return True
        if failure.was_sent and not self.ask.is_generating:
            return True
        if failure.was_sent and failure.kind in BREAKING:
            self._broken += 1
        return self._broken >= BROKEN_MAX or 0 < tries <= self.attempts

    def _next(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        tried = self._still_tried(snapshot)
        choice = pick(snapshot, tally, self.ask, tried=tried, now_s=now_s)
        if isinstance(choice, NoChoice):
            return self._without_choice(choice, snapshot, tally, now_s)
        return self._attempt_within_budget(choice, snapshot, now_s)

    def _attempt_within_budget(self, choice: Choice, snapshot: RoutingSnapshot, now_s: float) -> Command:
        if self._owes_budget:
            if not self._budget.try_spend(now_s):
                return self._wait_for_budget(snapshot, now_s)
            self._owes_budget = False
            self._spent += 1
        return self._attempt(choice, is_fresh=not self.ask.is_generating)

    def _wait_for_budget(self, snapshot: RoutingSnapshot, now_s: float) -> Command:
        """There is a backend to go on with, so the client is let wait as long as it would for a first content."""
        kind = self.failures[-1].kind
        if not self._budget_until_s:
            self._budget_until_s = now_s + snapshot.plan.timeouts.first_token_s
        if now_s >= self._budget_until_s:
            return self._abort(kind)
        until_s = self._budget.until_s(now_s)
        return Wait(min(until_s, self._budget_until_s) if until_s > now_s else self._budget_until_s, kind)

    def _still_tried(self, snapshot: RoutingSnapshot) -> tuple[str, ...]:
        """Return the backends that had their chance; one that went down and came back since is another one."""
        if not self._tried:
            return ()
        since_s = {target.backend.name: target.state.since_at_s for target in snapshot.targets}
        return tuple(name for name, failed_at_s in self._tried.items() if since_s.get(name, 0.0) <= failed_at_s)

    def _again_at_s(self, tally: Tally) -> dict[str, float]:
        """Return when each backend that was not reached, or that sent us away unhurt, may be asked again while we hold."""
        last = {failure.backend: failure.kind for failure in self.failures}
        return {
            name: max(tally.of(name).rest_until_s, failed_at_s + AGAIN_INTERVAL_S)
            for name, failed_at_s in self._tried.items()
            if last.get(name) in _HELD_FOR
        }

    def _without_choice(self, none: NoChoice, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        if none.kind in (FailureKind.MODEL_UNKNOWN, FailureKind.DIALECT_UNSPOKEN):
            return self._abort(none.kind)
        if self.ask.color and (self.failures or now_s >= self._until_s(none.kind, snapshot, now_s)):
            # Another voice rather than none.
            self.ask = replace(self.ask, color="")
            return self._next(snapshot, tally, now_s)
        kinds = {failure.kind for failure in self.failures}
        if kinds and (kinds - FREE - BREAKING or kinds <= PASSED_ON):
            return self._abort(self.failures[-1].kind)
        if now_s >= self._until_s(none.kind, snapshot, now_s):
            return self._last_resort(none, snapshot, tally, now_s)
        again_at_s = self._again_at_s(tally)
        free = {name for name, at_s in again_at_s.items() if at_s <= now_s}
        if free:
            tried = tuple(name for name in self._still_tried(snapshot) if name not in free)
            choice = pick(snapshot, tally, self.ask, tried=tried, now_s=now_s)
            if isinstance(choice, Choice):
                return self._attempt_within_budget(choice, snapshot, now_s)
        instants_s = [at_s for at_s in (none.until_s, *again_at_s.values()) if at_s > now_s]
        return self._wait(min(instants_s, default=0.0), none.kind, snapshot, now_s)

    def _until_s(self, kind: FailureKind, snapshot: RoutingSnapshot, now_s: float) -> float:
        """Return until when this exchange may wait: for a backend `hold`, for room at one as long as the file says."""
        plan = snapshot.plan
        if kind is FailureKind.NO_ROOM and plan.limits.waiting_s_max:
            self._room_from_s = self._room_from_s or now_s
            # There is a backend, so one that goes later is held for from then on.
            self._hold_from_s = 0.0
            return self._room_from_s + plan.limits.waiting_s_max
        self._hold_from_s = self._hold_from_s or now_s
        return self._hold_from_s + plan.failover.hold_s

    def _wait(self, until_s: float, kind: FailureKind, snapshot: RoutingSnapshot, now_s: float) -> Command:
        latest_s = self._until_s(kind, snapshot, now_s)
        if now_s >= latest_s:
            return self._abort(kind)
        return Wait(min(until_s, latest_s) if until_s > now_s else latest_s, kind)

    def _last_resort(self, none: NoChoice, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """After `hold` the least bad backend is still tried once, rather than refusing without having looked."""
        if none.kind is FailureKind.NONE_USABLE and not self.failures and not self._last_resort_is_spent:
            self._last_resort_is_spent = True
            choice = pick(snapshot, tally, self.ask, tried=(), now_s=now_s, is_last_resort=True)
            if isinstance(choice, Choice):
                return self._attempt(choice, is_fresh=True)
        if {failure.kind for failure in self.failures} <= UNREACHED and not _has_one_up(snapshot):
            return Abort(FailureKind.NONE_USABLE, 503, RETRY_AFTER_S)
        return self._abort(self.failures[-1].kind if self.failures else none.kind)

    def _attempt(self, choice: Choice, *, is_fresh: bool) -> Attempt:
        self._choice = choice
        self.attempts += 1
        return Attempt(choice, is_fresh=is_fresh)

    def _abort(self, kind: FailureKind) -> Abort:
        """Word the end: what all attempts had in common, else what became of the last one."""
        kinds = {failure.kind for failure in self.failures}
        last = self.failures[-1] if self.failures else Failure(kind)
        if kinds and kinds <= UNHURT:
            retry_after_s = max(RETRY_AFTER_S, *(failure.retry_after_s for failure in self.failures))
            return Abort(kind, 429 if last.status == 429 else 503, retry_after_s)
        status = MEANING[kind].status
        return Abort(kind, status, RETRY_AFTER_S if status == 503 else 0.0, is_passed_on=kind in PASSED_ON and last.kind is kind)


def _is_of_other(choice: Choice, color: str) -> bool:
    """Whether the backend belongs to the other color only."""
    return bool(color) and choice.target.backend.color not in (color, Color.NONE)


def _is_still_in_service(choice: Choice, snapshot: RoutingSnapshot) -> bool:
    """Whether the operator and the probes have left the backend where it was when it was chosen."""
    state = next((target.state for target in snapshot.targets if target.backend == choice.target.backend), None)
    return state is not None and state.duty is Duty.READY and (choice.is_last_resort or state.condition in _SERVING)


def _has_one_up(snapshot: RoutingSnapshot) -> bool:
    return any(target.state.condition in _SERVING for target in snapshot.targets)
