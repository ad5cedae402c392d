"""Keep what is counted of restarts while it changes, so that it survives the daemon.

Driven by controlplane.supervisor. What is kept is core.restart_kept's to say, how it is written controlplane.state_file's.
"""

from collections.abc import Callable, Mapping
from typing import Final

from understudy.controlplane.state_file import RestartsKeeper
from understudy.core.restart import Phase, Restart
from understudy.core.restart_kept import kept, remembered
from understudy.core.upkeep import RestartRules

# What is kept is by the wall clock: it is written anew when that was set by more than this.
WALL_JUMP_S_MIN: Final = 60.0


class RestartCounts:
    """The counts of all backends. `clock` gives loop time and `wall` the wall clock's, in seconds."""

    def __init__(self, keeper: RestartsKeeper, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._wall = wall
        # What was kept last, by loop time, and how far the wall clock was from that.
        self._kept: dict[str, tuple[tuple[float, ...], bool, bool]] = {}
        self._offset_s = 0.0

    def read(self) -> dict[str, Restart]:
        """Return where the daemon before this one has left them, by the backends' names."""
        now_s, now_unix_s = self._clock(), self._wall()
        return {name: remembered(one, now_s, now_unix_s) for name, one in (self._keeper.read() or {}).items()}

    def keep(self, restarts: Mapping[str, tuple[Restart, RestartRules]]) -> None:
        """Begin to write them, where they or the wall clock's distance from loop time are others than were kept."""
        marks = {
            name: (restart.begun_at_s, has_given_up, has_given_up and restart.is_out)
            for name, (restart, _) in restarts.items()
            if (has_given_up := restart.phase is Phase.GAVE_UP) or restart.begun_at_s
        }
        now_s, now_unix_s = self._clock(), self._wall()
        was_set = abs(now_unix_s - now_s - self._offset_s) > WALL_JUMP_S_MIN
        if marks == self._kept and not (marks and was_set):
            return
        self._kept, self._offset_s = marks, now_unix_s - now_s
        self._keeper.put({name: kept(*restarts[name], now_s, now_unix_s) for name in marks})

    async def settle(self) -> None:
        """Wait until what is counted is kept, for a few seconds at most; what cannot be is told by the keeper."""
        if self._kept:
            await self._keeper.settle()
