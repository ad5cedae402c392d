"""Who waits for a backend or for room at one, and who is woken when there is some.

Called by dataplane.relay. Keeps the line (its order is core.fair_line's) and wakes it; whether a wake leads to an attempt is
decided by core.exchange. Bounded by `limits.waiting_max`: who does not fit is handed back to the relay, which refuses them.
"""

from typing import Protocol

from understudy.core.fair_line import FairLine


class Waiter(Protocol):
    """Somebody in the line. Only `wake_at_s` may change while they stand in it; see core.fair_line for the order."""

    client: bytes
    priority: int
    started_at_s: float
    wake_at_s: float
    is_running: bool

    def on_wake(self) -> None:
        """Something changed, or the time to wait is over."""

    def on_displaced(self) -> None:
        """There is no room in the line for this one, who is out of it already."""


class WaitingLine:
    """The line. A waiter who was woken and has left has had the turn of their client."""

    def __init__(self) -> None:
        self._line: FairLine[Waiter] = FairLine()
        # How many wait, as a number: every exchange that ends looks at it, and a call costs more than that look.
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._line

    def add(self, waiter: Waiter, *, most: int) -> Waiter | None:
        """Stand in line; return who has to go, and is out of it, when more than `most` would wait: perhaps `waiter`.

        That is the newest of the client with the most in line, of the lowest priority. One who is in it keeps the place.
        """
        if waiter in self._line:
            return None
        self._line.add(waiter)
        displaced = None
        if len(self._line) > most:
            displaced = self._line.last()
            self._line.remove(displaced)
        self.count = len(self._line)
        return displaced

    def remove(self, waiter: Waiter) -> None:
        """Leave the line without a trace."""
        self._line.remove(waiter)
        self.count = len(self._line)

    def wake_all(self) -> None:
        """Let everybody look again, in turn: the backends have changed."""
        for waiter in list(self._line.in_turn()):
            self._wake(waiter)

    def wake_first(self) -> None:
        """Let them look again in turn until one has left the line: there is room for one more."""
        for waiter in self._line.in_turn():
            if self._wake(waiter):
                return

    def wake_due(self, now_s: float) -> None:
        """Let those look again whose time has come, in turn."""
        if any(waiter.wake_at_s <= now_s for waiter in self._line):
            for waiter in [waiter for waiter in self._line.in_turn() if waiter.wake_at_s <= now_s]:
                self._wake(waiter)

    def _wake(self, waiter: Waiter) -> bool:
        """Wake one who is still there; True when that gave them their turn. One whose time is over leaves without one."""
        if waiter not in self._line:
            return False
        waiter.on_wake()
        if waiter in self._line or not waiter.is_running:
            return False
        self._line.end_turn(waiter)
        return True
