"""One client request as core.exchange sees it, played: what happens is told to it, what it commands is kept.

Pure; the clock is a number. Never decides anything itself.
"""

from collections.abc import Sequence
from dataclasses import replace

from support.targets import CHAT, UP, snapshot_of, target
from understudy.core.ask import Ask
from understudy.core.commands import Abort, Attempt, Command, Wait
from understudy.core.exchange import BREAKING, BROKEN_MAX, Exchange
from understudy.core.retry import AGAIN_INTERVAL_S, UNHURT, UNREACHED, RetryBudget
from understudy.core.snapshot import FailoverRules, Target
from understudy.core.tally import Tally
from understudy.errors import Failure, FailureKind

START_S = 1000.0
TURNS_MAX = 400


class Play:
    """An exchange with a clock, a snapshot and a tally; what it commands is kept in `command`."""

    def __init__(self, *pool: Target, ask: Ask = CHAT, failover: FailoverRules = FailoverRules(), spent: bool = False) -> None:  # noqa: B008  # frozen
        self.snapshot = snapshot_of(*pool, failover=failover)
        self.tally = Tally()
        self.budget = RetryBudget(0.2)
        self.now_s = START_S
        if spent:
            while self.budget.try_spend(self.now_s):
                pass
        self.exchange = Exchange(ask, self.budget)
        self.command: Command = self.exchange.begin(self.snapshot, self.tally, self.now_s)

    @property
    def attempt(self) -> Attempt:
        """The command, which must be an attempt."""
        assert isinstance(self.command, Attempt), self.command
        return self.command

    @property
    def wait(self) -> Wait:
        """The command, which must be a wait."""
        assert isinstance(self.command, Wait), self.command
        return self.command

    @property
    def abort(self) -> Abort:
        """The command, which must be an abort."""
        assert isinstance(self.command, Abort), self.command
        return self.command

    @property
    def name(self) -> str:
        """Who gets the attempt."""
        return self.attempt.choice.target.backend.name

    def fail(self, kind: FailureKind, *, status: int = 0, retry_after_s: float = 0.0, after_s: float = 0.0) -> None:
        """Let the running attempt fail; asking for rest is told to the tally as the relay does it."""
        name = self.name
        self.now_s += after_s
        if retry_after_s:
            self.tally.rest(name, self.now_s + retry_after_s)
        failure = Failure(kind, name, was_sent=kind not in UNREACHED, status=status, retry_after_s=retry_after_s)
        self.command = self.exchange.on_failure(failure, self.snapshot, self.tally, self.now_s)

    def wake(self, at_s: float | None = None) -> None:
        """Wake it at the time that it asked for, or earlier."""
        self.now_s = self.wait.until_s if at_s is None else at_s
        self.command = self.exchange.on_wake(self.snapshot, self.tally, self.now_s)

    def wake_without_budget(self) -> None:
        """Wake it when it asked for that, while others have spent whatever was free again."""
        while self.budget.try_spend(self.wait.until_s):
            pass
        self.wake()

    def publish(self, *pool: Target) -> None:
        """Replace the snapshot; its plan's rules stay."""
        self.snapshot = replace(snapshot_of(*pool, failover=self.snapshot.plan.failover), generation=2)

    def came_up(self, number: int, at_s: float) -> Target:
        """Return gpuN as it is after it came back at `at_s`."""
        return target(number, replace(UP, since_at_s=at_s))


def run_out(play: Play, events: Sequence[tuple[FailureKind, float, float]]) -> None:
    """Let attempts fail as `events` say, again and again, until the exchange aborts; AssertionError when it breaks a rule.

    An event is (what goes wrong, how long it takes to, the rest that a busy backend asks for).
    """
    last: tuple[str, FailureKind, float] | None = None
    broken = sent = turn = 0
    while not isinstance(play.command, Abort):
        assert turn < TURNS_MAX, "it does not end"
        kind, after_s, retry_after_s = events[turn % len(events)]
        turn += 1
        if isinstance(play.command, Wait):
            assert play.command.until_s > play.now_s
            play.wake()
            continue
        name = play.name
        if last is not None and name == last[0]:
            assert last[1] in UNREACHED | UNHURT | BREAKING, "a backend is tried twice in a row"
            assert play.now_s >= last[2] + AGAIN_INTERVAL_S - 1e-6, "reconnecting faster than its pace"
        assert broken < BROKEN_MAX
        assert play.exchange.ask.is_generating or not sent
        is_unhurt = kind in UNHURT
        play.fail(kind, status=503 * is_unhurt, retry_after_s=retry_after_s * is_unhurt, after_s=after_s)
        last = (name, kind, play.now_s)
        broken += kind in (FailureKind.LOST_BEFORE_HEAD, FailureKind.BODY_CUT)
        sent += kind not in UNREACHED
    tries = play.snapshot.plan.failover.tries
    assert not tries or play.exchange.attempts <= tries
    assert 400 <= play.abort.status < 600
