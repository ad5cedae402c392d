"""What a session store is: hold one session, keep its conversation, list, delete, sweep; and how it fails.

Implemented by sessions.file_store and redis_store, used through sessions.keeper. A store puts nothing in order within this
process (keeper does) but keeps other processes off a session that is held. Session ids are any text of up to `ID_BYTES_MAX`
bytes in UTF-8; none ever becomes a path or a pattern.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from understudy.core.conversation import Conversation

ID_BYTES_MAX = 256
# Most sessions in one page of a listing.
PAGE_MAX = 1000


class Loss(StrEnum):
    """Why a store could not do what it was asked; the word in headers, logs and metrics."""

    UNAVAILABLE = "unavailable"  # it cannot be reached, or answers with an error that may pass
    SLOW = "slow"  # it did not answer in time
    RESTING = "resting"  # it failed just now and is not asked again yet
    FULL = "full"  # no space, no quota, out of memory
    READ_ONLY = "read_only"
    REFUSED = "refused"  # permission, password, wrong type at the key: an operator must look
    TOO_LARGE = "too_large"  # one turn alone is larger than what may be kept
    UNREADABLE = "unreadable"  # what was kept cannot be read (and was set aside), or the answer could not be
    RACED = "raced"  # others changed the session again and again meanwhile
    FAILED = "failed"  # a mistake of ours; the log has it
    NOT_KEPT = "not_kept"  # the request cannot be kept: several choices, a prompt of token ids


class StoreError(Exception):
    """The store could not do it. `detail` is one line for the operator, without a session's id or content."""

    def __init__(self, loss: Loss, detail: str = "") -> None:
        super().__init__(f"{loss}: {detail}" if detail else str(loss))
        self.loss = loss
        self.detail = detail


class HeldElsewhere(Exception):  # noqa: N818  an outcome of waiting, no fault
    """Another process has held the session all the time that one was willing to wait."""


class Conflict(Exception):  # noqa: N818  an outcome of keeping, no fault
    """The session has another revision than the one that was held: somebody else has written. `current` is what is there now."""

    def __init__(self, current: Conversation | None) -> None:
        super().__init__("the session was changed meanwhile")
        self.current = current


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of a session without reading its messages. `size_bytes` is what it takes in the store."""

    session: str
    revision: int
    messages: int
    size_bytes: int
    changed_at_unix_s: float
    begun_at_unix_s: float = 0.0
    model: str = ""
    backend: str = ""
    color: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `cursor` gets the next one, "" when there is none. A session may be missing that is written now."""

    summaries: tuple[Summary, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has found: sessions left, their bytes, how many had expired, how many files were set aside as unreadable."""

    sessions: int
    size_bytes: int
    expired: int
    set_aside: int = 0


class Hold(Protocol):
    """One session, held against other processes. Ends with `release`, which is called once, whatever happened."""

    @property
    def conversation(self) -> Conversation | None:
        """What was kept when the session was held; None: nothing, or what had expired or could not be read."""
        ...

    @property
    def loss(self) -> Loss | None:
        """Why `keep` will most likely fail (full, read-only), UNREADABLE where what was kept was set aside; None: all is well."""
        ...

    async def keep(self, conversation: Conversation, *, is_last: bool = True) -> None:
        """Write the conversation, durably before this returns, and give it the store's ttl anew.

        `is_last`: nothing else follows, so that a store may let others have the session in the same breath (`release` is called
        all the same). The conversation's `revision` is one more than what is there; else raises `Conflict`, after which the hold
        goes on and may be asked again. Raises `StoreError`; then the old or the new conversation is there, whole.
        """
        ...

    async def release(self) -> None:
        """Let others have the session. Raises nothing."""
        ...


class SessionStore(Protocol):
    """Where conversations are kept. All methods may raise `StoreError`; none blocks the event loop.

    What has not changed for `ttl_s` is as good as gone; it may be set at any time.
    """

    ttl_s: float

    async def open(self) -> None:
        """Get ready without reading sessions. Raises `StoreError` where an operator's mistake shows (a path that is a file)."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads. Raises nothing."""
        ...

    async def hold(self, session: str, wait_s: float) -> Hold:
        """Hold the session and read it, waiting at most `wait_s` for other processes. Raises `HeldElsewhere`."""
        ...

    async def read(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read a session without holding it; None: there is none, or it has expired."""
        ...

    async def delete(self, session: str) -> bool:
        """Remove a session, held or not; False when there was none."""
        ...

    async def page(self, cursor: str, count: int) -> Page:
        """List up to `count` sessions (1 to PAGE_MAX, some more or fewer are allowed) from `cursor` on ("": from the start)."""
        ...

    async def sweep(self) -> Swept:
        """Remove what has expired and count what is left, slowly: others' work goes on meanwhile."""
        ...
