"""The clients' connections: how many there may be, and which of them, and of the idle ones to backends, have become late.

Kept by dataplane.relay. At the limit further clients are left waiting outside. Never looks at what runs on a connection.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from understudy.core.snapshot import Limits, Published
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.pool import Pool

CONNECTIONS_INTERVAL_S = 1.0
INTERVAL_S_MIN = 0.05
# A sweep that is later than this was kept from running: by SIGSTOP, a suspended machine, a frozen container.
LATE_S_MAX = 1.0
# Connections must have fallen under this share of their limit before reaching it is told again.
FULL_SHARE_TOLD_AGAIN = 0.8


class Gate(Protocol):
    """What lets clients in: the listener."""

    def pause(self) -> None:
        """Let nobody in for now."""

    def resume(self) -> None:
        """Let clients in again."""


class Clients:
    """Every open connection of a client. `own_max` bounds them beside `limits.connections_max`; 0 for no such bound."""

    def __init__(
        self, published: Published, pool: Pool, clock: Callable[[], float], tell: Callable[[str, dict[str, object]], None]
    ) -> None:
        self.connections: set[DownstreamConnection] = set()
        self.own_max = 0
        self.gate: Gate | None = None
        self._published = published
        self._pool = pool
        self._now_s = clock
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at_s = 0.0
        self._is_full = False
        self._is_full_told = False

    def admit(self, connection: DownstreamConnection) -> bool:
        """Count a new connection; False when there is no room for it. At the limit further clients are left waiting outside."""
        most = self._most()
        has_room = len(self.connections) < most
        self.connections.add(connection)
        if len(self.connections) >= most and not self._is_full:
            self._is_full = True
            if self.gate is not None:
                self.gate.pause()
            if not self._is_full_told:
                self._is_full_told = True
                self._tell("connection.limit_reached", {"connections": len(self.connections), "connections_max": most})
        if self._timer is None:
            self._sweep()
        return has_room

    def _most(self) -> int:
        return min(self._limits.connections_max, self.own_max or self._limits.connections_max)

    def forget(self, connection: DownstreamConnection) -> None:
        """A connection is closed."""
        self.connections.discard(connection)
        if self._is_full:
            self._is_full = False
            if self.gate is not None:
                self.gate.resume()
        elif self._is_full_told and len(self.connections) < self._most() * FULL_SHARE_TOLD_AGAIN:
            self._is_full_told = False

    def _sweep(self) -> None:
        """Close what is late or idle: clients' connections and pooled ones."""
        now_s = self._now_s()
        late_s = now_s - self._due_at_s if self._timer is not None else 0.0
        for connection in list(self.connections):
            if late_s > LATE_S_MAX and connection.deadline_at_s:
                connection.deadline_at_s += late_s
            if 0.0 < connection.deadline_at_s <= now_s and connection.running is None:
                connection.on_deadline(now_s)
        engines = {target.backend.name: target.state.engine for target in self._published.current.targets}
        idle = self._pool.close_idle(now_s, engines)
        limits = self._limits
        interval_s = min(CONNECTIONS_INTERVAL_S, limits.head_timeout_s / 4, limits.body_timeout_s / 4, limits.idle_timeout_s / 4)
        if self.connections or idle:
            interval_s = max(interval_s, INTERVAL_S_MIN)
            self._due_at_s = now_s + interval_s
            self._timer = self._loop.call_later(interval_s, self._sweep)
        else:
            self._timer = None

    @property
    def _limits(self) -> Limits:
        return self._published.current.plan.limits

    def close_idle(self) -> None:
        """Close the connections on which nothing is being read or answered."""
        for connection in list(self.connections):
            if connection.is_idle():
                connection.close()

    def close_all(self) -> None:
        """Close every connection; nothing is swept any more."""
        for connection in list(self.connections):
            connection.close()
        if self._timer is not None:
            self._timer.cancel()
