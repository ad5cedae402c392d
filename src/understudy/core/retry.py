"""Decide whether one more attempt may be spent: the retry budget.

Asked by core.exchange before every attempt beyond the first, told by it of every exchange. Pure: the caller passes now_s
(seconds, loop time). Never counts free repeats on a stale connection and never chooses a backend (balancer).
"""

from understudy.errors import FailureKind

# Nothing of the request reached the backend, so trying it again costs it nothing; while there is no other backend it is
# asked again at this pace until `hold` is over (a restart of the only backend takes seconds, and may go unseen by probes).
AGAIN_INTERVAL_S = 0.2

UNREACHED = frozenset(
    {
        FailureKind.REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.NAME_UNRESOLVED,
        FailureKind.TLS_FAILED,
    }
)
UNHURT = frozenset({FailureKind.BUSY, FailureKind.LOADING})
# Failures that cost the backend nothing.
FREE = UNREACHED | UNHURT | {FailureKind.MODEL_MISSING, FailureKind.UNSUPPORTED}

_SLOTS = 10


class RetryBudget:
    """Attempts beyond the first that led to nothing, as a share of the exchanges of the last `window_s` seconds.

    Never fewer than `floor`. What led to content is given back, so that the loss of a backend with many exchanges in flight costs
    none of them its answer, while attempts that fail, too, stay spent.

    Without it a failing backend multiplies its load by the number of tries just when it can bear it least (Envoy's retry
    budget; Fastllm-proxy #19). The window slides in tenths, so every call costs the same whatever the traffic.
    """

    __slots__ = ("_exchanges", "_exchanges_sum", "_floor", "_head", "_share", "_slot_s", "_spent", "_spent_sum")

    def __init__(self, share: float, floor: int = 3, window_s: float = 10.0) -> None:
        self._share = share
        self._floor = floor
        self._slot_s = window_s / _SLOTS
        # Counts per slot of the window; _head is the number of the newest slot since time 0.
        self._head = 0
        self._exchanges = [0] * _SLOTS
        self._spent = [0] * _SLOTS
        self._exchanges_sum = 0
        self._spent_sum = 0

    def on_exchange(self, now_s: float) -> None:
        """Count one exchange, at its first attempt."""
        self._slide(now_s)
        self._exchanges[self._head % _SLOTS] += 1
        self._exchanges_sum += 1

    def try_spend(self, now_s: float) -> bool:
        """Take one attempt out of the budget; False, and nothing taken, when it is spent."""
        self._slide(now_s)
        if not self._has_rest():
            return False
        self._spent[self._head % _SLOTS] += 1
        self._spent_sum += 1
        return True

    def give_back(self, attempts: int) -> None:
        """Put back what attempts took that led to content: a failover that works is no storm, and others may follow it."""
        for age in range(_SLOTS):
            slot = (self._head - age) % _SLOTS
            back = min(attempts, self._spent[slot])
            self._spent[slot] -= back
            self._spent_sum -= back
            attempts -= back

    def until_s(self, now_s: float) -> float:
        """Return the earliest instant at which `try_spend` may say yes without new exchanges; `now_s` when it would at once."""
        self._slide(now_s)
        if self._has_rest():
            return now_s
        for age in range(_SLOTS - 1, -1, -1):
            if self._spent[(self._head - age) % _SLOTS]:
                return (self._head - age + _SLOTS) * self._slot_s
        # Nothing is spent and still there is no rest: share and floor are 0, which no passing of time changes.
        return 0.0

    def _has_rest(self) -> bool:
        return self._spent_sum < max(self._floor, int(self._share * self._exchanges_sum))

    def _slide(self, now_s: float) -> None:
        head = int(now_s / self._slot_s)
        if head <= self._head:
            return
        for number in range(max(self._head + 1, head - _SLOTS + 1), head + 1):
            slot = number % _SLOTS
            self._exchanges_sum -= self._exchanges[slot]
            self._spent_sum -= self._spent[slot]
            self._exchanges[slot] = 0
            self._spent[slot] = 0
        self._head = head
