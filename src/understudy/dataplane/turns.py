"""The turns of all exchanges that have a stored conversation: which has one, what its head says of it, who owns its work.

Made by daemon where the file names a session store, asked by dataplane.relay. Tasks of turns are kept here, so that the daemon
waits for what is being written before it ends.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from understudy.core.conversation import Mode
from understudy.core.snapshot import OnError, Published, SessionRules
from understudy.dataplane.heads import RequestHead
from understudy.dataplane.turn import SessionWords, Turn
from understudy.dialects.given import CONVERSING_PATHS
from understudy.sessions.keeper import Keeper
from understudy.sessions.store import ID_BYTES_MAX, HeldElsewhere, Loss, StoreError

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# How long the daemon waits for conversations that are being written when it stops.
CLOSE_S_MAX = 5.0

_MODES = {mode.encode(): mode for mode in Mode}
_ON_ERROR = {rule.encode(): rule for rule in OnError}


class Turns:
    """`wall` is the wall clock; `tell` hears of lost turns, `report` of our own mistakes outside of an exchange."""

    def __init__(
        self,
        keeper: Keeper,
        published: Published,
        *,
        wall: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self.keeper = keeper
        self.wall = wall
        self._published = published
        self._tell = tell
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def rules(self) -> SessionRules:
        """The settings in force."""
        return self._published.current.plan.sessions

    def words_of(self, head: RequestHead, path: str) -> SessionWords | str | None:
        """Return what a generating request says of its session; None: it has none; a text: what is wrong with it."""
        if path not in CONVERSING_PATHS:
            return None
        mode = _MODES.get(head.session_mode.lower())
        if wrong := _wrong_with(head):
            return wrong
        if mode is Mode.OFF:
            return None
        on_error = _ON_ERROR.get(head.session_on_error.lower())
        return SessionWords(head.session.decode(), mode or Mode.AUTO, is_reset=head.session_reset == b"1", on_error=on_error)

    def turn(self, exchange: "RelayedExchange", words: SessionWords) -> Turn:
        """Give an exchange its turn."""
        return Turn(self, exchange, words)

    def is_crowded(self) -> bool:
        """Whether as many wait for their sessions as may wait for a backend."""
        return self.keeper.waiting >= max(1, self._published.current.plan.limits.waiting_max)

    def run(self, work: Coroutine[Any, Any, object], exchange: "RelayedExchange") -> asyncio.Task[None]:
        """Own the work of a turn; a mistake of ours ends its exchange, if that still waits for it."""
        task = asyncio.get_running_loop().create_task(self._run(work, exchange), name="turn")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, work: Coroutine[Any, Any, object], exchange: "RelayedExchange") -> None:
        try:
            await work
        except (StoreError, HeldElsewhere):
            pass  # counted and told where it was noticed
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            if exchange.is_running:
                exchange.on_exception(error)
            else:
                self.on_mistake(error, exchange)

    def on_mistake(self, error: BaseException, exchange: "RelayedExchange") -> None:
        """Our own code raised where no exchange is to be ended for it."""
        self._report(error, exchange.record.request_id)

    def on_lost(self, exchange: "RelayedExchange", loss: Loss) -> None:
        """A turn that its client had was not kept."""
        self.keeper.on_lost(loss)
        exchange.record.session_loss = str(loss)
        record = exchange.record
        self._tell("session.lost", {"reason": str(loss), "request_id": record.request_id, "backend": record.backend})

    async def close(self) -> None:
        """Wait for what is being written, but not for ever."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S_MAX)
        left = [*self._tasks]
        for task in left:
            task.cancel()
        if left:
            # Each still gives its client the end of the answer.
            await asyncio.wait(left, timeout=CLOSE_S_MAX)


def _wrong_with(head: RequestHead) -> str:
    """Return what is wrong with the fields about a session, "" where nothing is."""
    if head.session_mode and head.session_mode.lower() not in _MODES:
        return f"X-Session-Mode is {_shown(head.session_mode)}; want {', '.join(Mode)}"
    if head.session_on_error and head.session_on_error.lower() not in _ON_ERROR:
        return f"X-Session-On-Error is {_shown(head.session_on_error)}; want {' or '.join(OnError)}"
    if head.session_reset not in (b"", b"0", b"1"):
        return f"X-Session-Reset is {_shown(head.session_reset)}; want 1"
    if head.has_two_sessions:
        return "X-Session-ID stands twice, with different values"
    if len(head.session) > ID_BYTES_MAX:
        return f"X-Session-ID is longer than {ID_BYTES_MAX} bytes"
    return "" if _is_utf8(head.session) else "X-Session-ID is not UTF-8"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(value: bytes) -> str:
    return repr(value[:40].decode("latin-1"))
