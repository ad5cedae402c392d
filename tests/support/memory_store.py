"""A session store in memory that fails as a play tells it to."""

import asyncio

from understudy.core.conversation import Conversation
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, Page, StoreError, Summary, Swept


def summary_of(session: str, conversation: Conversation) -> Summary:
    """Return what a listing says of a conversation."""
    count = len(conversation.messages)
    return Summary(session, conversation.revision, count, 100 * count, conversation.changed_at_unix_s)


class MemoryHold:
    """One held session."""

    def __init__(self, store: "MemoryStore", session: str) -> None:
        self._store = store
        self._session = session
        self.conversation = store.kept.get(session)
        self.loss: Loss | None = store.foreseen

    async def keep(self, conversation: Conversation, *, is_last: bool = True) -> None:
        """Write, or fail as told."""
        await self._store.answer("keep")
        current = self._store.kept.get(self._session)
        if conversation.revision != (current.revision if current else 0) + 1:
            raise Conflict(current)
        self._store.kept[self._session] = conversation
        self._store.writes += 1

    async def release(self) -> None:
        """Let go."""
        self._store.holders.remove(self._session)


class MemoryStore:
    """`kept` by session. `fails` maps what is asked (hold, keep, read, delete, page, sweep) to the error it gets.

    `gate` is waited for before each answer where there is one. `elsewhere` are sessions that another process has.
    """

    def __init__(self) -> None:
        self.ttl_s = 60.0
        self.kept: dict[str, Conversation] = {}
        self.holders: list[str] = []
        self.elsewhere: set[str] = set()
        self.fails: dict[str, StoreError] = {}
        self.foreseen: Loss | None = None
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self.writes = 0
        self.is_open = False

    async def answer(self, question: str) -> None:
        """Take the time and the outcome that the play wants."""
        self.asked.append(question)
        if self.gate is not None:
            await self.gate.wait()
        if question in self.fails:
            raise self.fails[question]

    async def open(self) -> None:
        """Get ready."""
        await self.answer("open")
        self.is_open = True

    async def close(self) -> None:
        """Be done."""
        self.is_open = False

    async def hold(self, session: str, wait_s: float) -> MemoryHold:
        """Hold a session."""
        await self.answer("hold")
        if session in self.elsewhere:
            raise HeldElsewhere
        assert session not in self.holders, "two exchanges have one session"
        self.holders.append(session)
        return MemoryHold(self, session)

    async def read(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read a session."""
        await self.answer("read")
        conversation = self.kept.get(session)
        return (summary_of(session, conversation), conversation) if conversation else None

    async def delete(self, session: str) -> bool:
        """Remove a session."""
        await self.answer("delete")
        return self.kept.pop(session, None) is not None

    async def page(self, cursor: str, count: int) -> Page:
        """List by name; the cursor is the last name seen."""
        await self.answer("page")
        names = sorted(name for name in self.kept if name > cursor)
        shown = names[:count]
        return Page(tuple(summary_of(name, self.kept[name]) for name in shown), shown[-1] if len(names) > len(shown) else "")

    async def sweep(self) -> Swept:
        """Count."""
        await self.answer("sweep")
        return Swept(len(self.kept), 100 * len(self.kept), 0)
