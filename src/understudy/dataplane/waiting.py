"""Who waits for a backend or for room at one, in the order in which they came.

Called by dataplane.relay. Keeps the line and wakes it; whether a wake leads to an attempt is decided by core.exchange. Bounded by
`limits.waiting_max`: whoever does not fit is refused by the relay.
"""

from typing import Protocol


class Waiter(Protocol):
    """Somebody in the line."""

    wake_at_s: float

    def on_wake(self) -> None:
        """Something changed, or the time to wait is over."""


class WaitingLine:
    """The line, first come first served."""

    def __init__(self) -> None:
        self._line: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._line

    def add(self, waiter: Waiter) -> None:
        """Go to the end of the line; one who is in it already keeps the place."""
        self._line.setdefault(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Leave the line without a trace."""
        self._line.pop(waiter, None)

    def wake_all(self) -> None:
        """Let everybody look again, in order: the backends have changed."""
        for waiter in list(self._line):
            if waiter in self._line:
                waiter.on_wake()

    def wake_first(self) -> None:
        """Let them look again in order until one has left the line: there is room for one more."""
        for waiter in list(self._line):
            if waiter not in self._line:
                continue
            waiter.on_wake()
            if waiter not in self._line:
                return

    def wake_due(self, now_s: float) -> None:
        """Let those look again whose time has come."""
        for waiter in [waiter for waiter in self._line if waiter.wake_at_s <= now_s]:
            if waiter in self._line:
                waiter.on_wake()
