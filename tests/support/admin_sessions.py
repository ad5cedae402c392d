"""A session store in memory, as the admin port sees one, for tests of the admin room and its callers."""

import msgspec

from support.admin_stage import StageOperator
from understudy.admin.sessions_api import SessionsOperator
from understudy.core.conversation import Conversation
from understudy.core.message import Speaker, spoken
from understudy.sessions.store import Loss, Page, StoreError, Summary

NOW_UNIX_S = 1_800_000_000.0


class StageSessions(SessionsOperator):
    """What a test says is kept. `fault` is raised by whatever is asked next and after."""

    def __init__(self, **kept: Conversation) -> None:
        self.kept = dict(kept)
        self.fault: Exception | None = None
        self.purged_s: list[float] = []

    async def page(self, cursor: str, count: int) -> Page:
        """List in the order of the ids; a cursor is a position."""
        self._fail()
        if cursor and not cursor.isdecimal():
            raise StoreError(Loss.REFUSED, "no such cursor")
        start = int(cursor or 0)
        ids = sorted(self.kept)
        summaries = tuple(self._summary(each) for each in ids[start : start + count])
        return Page(summaries, str(start + count) if start + count < len(ids) else "")

    async def show(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read one."""
        self._fail()
        return (self._summary(session), self.kept[session]) if session in self.kept else None

    async def delete(self, session: str) -> bool:
        """Remove one."""
        self._fail()
        return self.kept.pop(session, None) is not None

    async def purge(self, older_than_s: float) -> int:
        """Remove what is older, by a clock that stands at `NOW_UNIX_S`."""
        self._fail()
        self.purged_s.append(older_than_s)
        old = [each for each, one in self.kept.items() if one.changed_at_unix_s <= NOW_UNIX_S - older_than_s]
        for session in old:
            del self.kept[session]
        return len(old)

    async def put(self, session: str, conversation: Conversation) -> None:
        """Keep one."""
        self._fail()
        self.kept[session] = conversation

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _summary(self, session: str) -> Summary:
        kept = self.kept[session]
        return Summary(
            session,
            kept.revision,
            len(kept.messages),
            len(msgspec.json.encode(kept)),
            kept.changed_at_unix_s,
            kept.begun_at_unix_s,
            kept.model,
            kept.backend,
            kept.color,
        )


def conversation(*said: str, revision: int = 1, changed_at_unix_s: float = NOW_UNIX_S) -> Conversation:
    """Make a conversation of a user and an assistant who speak in turn."""
    speakers = (Speaker.USER, Speaker.ASSISTANT)
    messages = tuple(spoken(speakers[position % 2], text) for position, text in enumerate(said))
    return Conversation(revision, (), messages, "qwen2.5", "pi", changed_at_unix_s=changed_at_unix_s)


def keeping(**kept: Conversation) -> tuple[StageOperator, StageSessions]:
    """Return an operator with a store, and the store."""
    operator = StageOperator()
    operator.sessions = sessions = StageSessions(**kept)
    return operator, sessions
