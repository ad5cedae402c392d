"""Stand in front of a session store: one exchange of a session at a time, no store asked that does not answer, counts of it all.

Made by daemon, used by dataplane.turn for exchanges and by the admin port for operators. Knows no kind of store and no wire
format; reads no message.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from understudy.core.conversation import Conversation
from understudy.sessions.circuit import Circuit
from understudy.sessions.order import Order
from understudy.sessions.store import (
    ID_BYTES_MAX,
    PAGE_MAX,
    Conflict,
    HeldElsewhere,
    Hold,
    Loss,
    Page,
    SessionStore,
    StoreError,
    Summary,
    Swept,
)

# Between two sweeps; a short ttl is swept more often.
SWEEP_S_MIN = 1.0
SWEEP_S_MAX = 300.0
# A store that hangs (a folder on a server that is gone) is waited for this long; to be gone through it may take longer.
ANSWER_S_MAX = 5.0
# Others are waited for in steps of this length, so that a store that hangs meanwhile is noticed.
STEP_S = 1.0
# A session that is just being given back is waited for, however little somebody is willing to wait.
GRACE_S = 0.25
PAGE_ANSWER_S_MAX = 60.0
SWEEP_ANSWER_S_MAX = 900.0
# How often a store that rests is looked at, and one that answers and cannot keep anything; and the session that nobody has or can
# name, by which it is tried.
LOOK_S = 0.25
LOOK_AGAIN_S = 5.0
NOBODY = "nobody" + "." * ID_BYTES_MAX

# What says something of the store, not of one session.
_OF_THE_STORE = frozenset({Loss.UNAVAILABLE, Loss.SLOW, Loss.FULL, Loss.READ_ONLY, Loss.REFUSED})

_T = TypeVar("_T")


class HeldSession:
    """A session that one exchange has to itself until `release`."""

    def __init__(self, keeper: "Keeper", session: str, hold: Hold) -> None:
        self._keeper = keeper
        self._session = session
        self._hold: Hold | None = hold
        self.conversation = hold.conversation
        self.loss = hold.loss

    async def keep(self, conversation: Conversation) -> None:
        """Write the conversation; raises Conflict and StoreError as `Hold.keep` does."""
        if self._hold is None:
            raise RuntimeError("a session is written that was let go")
        await self._keeper.write(self._hold.keep(conversation))
        self._keeper.on_kept(is_new=self.conversation is None)

    async def release(self) -> None:
        """Let others have the session; again: does nothing."""
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            await hold.release()
        finally:
            self._keeper.on_released(self._session)


class Keeper:
    """The session store as everybody else sees it. `kept`, `lost`: conversations written, and turns that were not, by reason."""

    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
    ) -> None:
        self.ttl_s = store.ttl_s
        self.kept = 0
        self.lost: Counter[str] = Counter()
        self.swept: Swept | None = None
        # Why the store does not do its work now, None while it does.
        self.loss: Loss | None = None
        self._detail = ""
        self._store = store
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self._order = Order()
        self._circuit = Circuit()
        self._writes = Circuit()
        self._grown = 0
        self._has_new_ttl = asyncio.Event()
        self._tries = 0

    # --- life

    async def open(self) -> None:
        """Get the store ready. Raises StoreError for what an operator must mend."""
        await self._store.open()

    async def run(self) -> None:
        """Sweep now and then, and try a store that rests, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_again_and_again(), name="sessions.sweep")
            tasks.create_task(self._try_again_and_again(), name="sessions.try")

    async def _sweep_again_and_again(self) -> None:
        while True:
            try:
                swept = await self.ask(self._store.sweep(), wait_s=SWEEP_ANSWER_S_MAX)
            except StoreError:
                pass  # told where it was noticed; the next sweep looks again
            else:
                self.swept, self._grown = swept, 0
                self._tell(
                    "session.swept",
                    {
                        "sessions": swept.sessions,
                        "size_bytes": swept.size_bytes,
                        "expired": swept.expired,
                        "set_aside": swept.set_aside,
                    },
                )
            self._has_new_ttl.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(SWEEP_S_MAX, max(SWEEP_S_MIN, self.ttl_s / 4))):
                    await self._has_new_ttl.wait()

    async def _try_again_and_again(self) -> None:
        tried_at_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = self._clock()
            is_due = self._circuit.is_rested(now_s) if self._circuit.is_open else now_s >= tried_at_s + LOOK_AGAIN_S
            if self.loss is not None and is_due:
                tried_at_s = now_s
                with contextlib.suppress(StoreError, HeldElsewhere):
                    await self._try()

    async def _try(self) -> None:
        """Hold a session that nobody has, which takes whatever keeping one takes."""
        # Another one each time, because a part of a cluster may be gone.
        self._tries += 1
        hold = await self._answer_of(self._store.hold(f"{NOBODY}{self._tries}", 0.0), ANSWER_S_MAX)
        try:
            if hold.loss is None and not self._writes.has_failed:
                self._recover()
        finally:
            await hold.release()

    def set_ttl(self, ttl_s: float) -> None:
        """Take another ttl after a reload."""
        self.ttl_s = self._store.ttl_s = ttl_s
        self._has_new_ttl.set()

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    # --- for exchanges

    async def hold(self, session: str, wait_s: float) -> HeldSession:
        """Have the session to oneself, waiting up to `wait_s` for others. Raises HeldElsewhere and StoreError."""
        until_s = self._clock() + wait_s
        await self._order.take(session, max(wait_s, GRACE_S))
        try:
            left_s = max(0.0, until_s - self._clock())
            while True:
                step_s = min(STEP_S, left_s)
                left_s = min(left_s - step_s, until_s - self._clock() - step_s)
                try:
                    hold = await self.ask(self._store.hold(session, step_s), wait_s=step_s + ANSWER_S_MAX)
                except HeldElsewhere:
                    if left_s <= 0:
                        raise
                else:
                    return HeldSession(self, session, hold)
        except BaseException:
            self._order.leave(session)
            raise

    async def ask(self, question: Coroutine[Any, Any, _T], wait_s: float | None = None) -> _T:
        """Await a question to the store, unless that one rests; note whether it answers. Raises what the question raises."""
        if self._circuit.is_open:
            question.close()
            raise StoreError(Loss.RESTING, self._detail)
        return await self._answer_of(question, ANSWER_S_MAX if wait_s is None else wait_s)

    async def write(self, question: Coroutine[Any, Any, None]) -> None:
        """Await a question that writes. A store that answers and does not write rests from writing alone."""
        if self._writes.is_open and not self._writes.is_rested(self._clock()):
            question.close()
            raise StoreError(Loss.RESTING, self._detail)
        try:
            await self.ask(question)
        except StoreError as error:
            self._writes.on_failure(error.loss, self._clock())
            raise
        except Conflict:
            self._writes.on_answer()
            raise
        self._writes.on_answer()

    async def _answer_of(self, question: Coroutine[Any, Any, _T], wait_s: float) -> _T:
        try:
            async with asyncio.timeout(wait_s):
                answer = await question
        except TimeoutError:
            error = StoreError(Loss.SLOW, f"no answer within {wait_s:.3g} s")
            self._note(error)
            raise error from None
        except StoreError as error:
            self._note(error)
            raise
        except (HeldElsewhere, Conflict):
            self._note(None)
            raise
        self._note(None)
        return answer

    def on_kept(self, *, is_new: bool) -> None:
        """A conversation was written."""
        self.kept += 1
        self._grown += is_new
        self._recover()

    def on_lost(self, loss: Loss) -> None:
        """A turn that its client had was not written."""
        self.lost[loss] += 1

    def on_released(self, session: str) -> None:
        """An exchange has let a session go."""
        self._order.leave(session)

    def _note(self, error: StoreError | None) -> None:
        if error is None:
            self._circuit.on_answer()
            # To be able to read says nothing of writing.
            if self.loss in (Loss.UNAVAILABLE, Loss.SLOW) and not self._writes.has_failed:
                self._recover()
            return
        self._circuit.on_failure(error.loss, self._clock())
        if error.loss not in _OF_THE_STORE:
            return
        if self.loss is None:
            self._tell("store.became_unavailable", {"reason": str(error.loss), "detail": error.detail})
        self.loss, self._detail = error.loss, error.detail

    def _recover(self) -> None:
        if self.loss is not None:
            self.loss, self._detail = None, ""
            self._tell("store.recovered", {})

    # --- for operators

    @property
    def held(self) -> int:
        """How many sessions an exchange has now."""
        return self._order.held

    @property
    def waiting(self) -> int:
        """How many exchanges wait for their session."""
        return self._order.waiting

    @property
    def sessions(self) -> int:
        """About how many sessions there are: those of the last sweep and those begun since."""
        return (self.swept.sessions if self.swept else 0) + self._grown

    def facts(self) -> dict[str, object]:
        """Return how the store is, for readiness and status."""
        if self.loss is None:
            return {"store": "up"}
        return {"store": str(self.loss), "detail": self._detail}

    async def page(self, cursor: str, count: int) -> Page:
        """List sessions; see `SessionStore.page`."""
        return await self.ask(self._store.page(cursor, count), wait_s=PAGE_ANSWER_S_MAX)

    async def show(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read one session, whoever has it."""
        return await self.ask(self._store.read(session))

    async def delete(self, session: str) -> bool:
        """Remove one session, whoever has it."""
        is_gone = await self.ask(self._store.delete(session))
        self._grown -= is_gone
        return is_gone

    async def purge(self, older_than_s: float) -> int:
        """Remove the sessions that have not changed for that long, 0: all; return how many they were."""
        count, now_unix_s = 0, self._wall()
        async for summary in self._every():
            if summary.changed_at_unix_s <= now_unix_s - older_than_s or not older_than_s:
                count += await self.delete(summary.session)
        return count

    async def put(self, session: str, conversation: Conversation) -> None:
        """Write a session as it is, in place of what there is. Raises HeldElsewhere, StoreError, Conflict."""
        held = await self.hold(session, ANSWER_S_MAX)
        try:
            revision = held.conversation.revision if held.conversation else 0
            changed_at_unix_s = conversation.changed_at_unix_s or self._wall()
            await held.keep(msgspec.structs.replace(conversation, revision=revision + 1, changed_at_unix_s=changed_at_unix_s))
        finally:
            await held.release()

    async def _every(self) -> AsyncIterator[Summary]:
        cursor = ""
        while True:
            page = await self.page(cursor, PAGE_MAX)
            for summary in page.summaries:
                yield summary
            cursor = page.cursor
            if not cursor:
                return
