"""Put the exchanges of one session in order within this process: one at a time, first come, first served.

Used by sessions.keeper, which asks the store to keep other processes off. Holds nothing of a session but its id, while somebody
has it or waits.
"""

import asyncio
from collections import deque

from understudy.sessions.store import HeldElsewhere


class Order:
    """Who has which session, and who waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def held(self) -> int:
        """How many sessions somebody has."""
        return len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(len(line) for line in self._waiting.values())

    async def take(self, session: str, wait_s: float) -> None:
        """Return once the session is the caller's, who gives it back with `leave`. Raises HeldElsewhere after `wait_s`."""
        line = self._waiting.get(session)
        if line is None:
            self._waiting[session] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except TimeoutError:
            self._withdraw(session, turn)
            raise HeldElsewhere from None
        except asyncio.CancelledError:
            self._withdraw(session, turn)
            raise

    def leave(self, session: str) -> None:
        """Let the next one have the session."""
        line = self._waiting[session]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[session]

    def _withdraw(self, session: str, turn: asyncio.Future[None]) -> None:
        """Wait no longer; who has just been given the session hands it on."""
        if turn.done() and not turn.cancelled():
            self.leave(session)
        else:
            self._waiting[session].remove(turn)
