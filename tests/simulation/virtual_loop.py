"""An event loop whose clock jumps to the next timer: minutes of faults pass in milliseconds, the same for the same seed.

Used by every play of the simulation. It waits for nothing real: when there is no timer left and still somebody waits, the play
has come to a standstill, which is a mistake and raised as one.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

# So many turns of the loop without time passing are somebody calling himself again and again.
TURNS_AT_ONE_INSTANT_MAX = 100_000


class StandstillError(AssertionError):
    """Somebody waits for what will never come, or turns without end."""


class Connecting(Protocol):
    """Who opens connections in place of the operating system."""

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open a connection as `loop.create_connection` does; raises OSError as that does."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a name; raises OSError when there are none."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits for no file; time passes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.on_turn: Callable[[], None] | None = None
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.on_turn is not None:
            self.on_turn()
        if timeout is None:
            raise StandstillError("nothing is due and somebody still waits")
        if timeout > 0:
            self.now_s += timeout
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > TURNS_AT_ONE_INSTANT_MAX:
                raise StandstillError("time stands still while the loop turns")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. `network` opens its connections; `mistakes` are the exceptions that nobody caught."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._jumping = _JumpingSelector()
        self._jumping.now_s = start_s
        super().__init__(self._jumping)
        self.network: Connecting | None = None
        self.mistakes: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.mistakes.append(context))

    def at_turns(self, on_turn: Callable[[], None] | None) -> None:
        """Call `on_turn` between any two turns of the loop, or nobody any more."""
        self._jumping.on_turn = on_turn

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now_s

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_given: Any) -> Any:
        """Open a connection in memory."""
        assert self.network is not None
        return await self.network.connect(protocol_factory, host, port)

    async def getaddrinfo(self, host: Any, port: Any, **_given: Any) -> Any:
        """Resolve a name in memory."""
        assert self.network is not None
        return [(0, 0, 0, "", (address, port or 0)) for address in await self.network.resolve(host)]


def run_virtual(loop: VirtualLoop, main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end and close the loop. Every task that is left is cancelled without being waited for long."""
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
