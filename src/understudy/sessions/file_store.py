"""Keep conversations in files below one folder: what the event loop sees of it.

Used through sessions.keeper. Each operation is one job in a thread (sessions.disk_threads), done by sessions.session_files or
folder_walk; this file waits for them and for other processes, and says what the system's errors mean. Touches no file itself.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from understudy.core.conversation import Conversation
from understudy.sessions.disk_threads import DiskThreads
from understudy.sessions.folder_walk import list_folder, sweep_folder
from understudy.sessions.record import Codec
from understudy.sessions.session_files import SessionFiles, Taken
from understudy.sessions.shard import loss_of, make, shards
from understudy.sessions.store import PAGE_MAX, HeldElsewhere, Loss, Page, StoreError, Summary, Swept

# How often another process is asked for a session that it has: soon at first, because most answers are short.
_LOOK_S_MIN: Final = 0.01
_LOOK_S_MAX: Final = 0.1
# Between two folders of a sweep, which are at most 256.
_SWEEP_PAUSE_S: Final = 0.01
# Whoever gives a session back does not wait longer for a disk that hangs; it is given back all the same.
_RELEASE_S_MAX: Final = 1.0

T = TypeVar("T")


class FileStore:
    """Sessions in files below `path`, which expire `ttl_s` after their last change; `ttl_s` may be changed at any time.

    `report` is called in the event loop's thread with "session.set_aside" and the fields `file` and `reason`. `clock` is the
    wall clock.
    """

    def __init__(
        self,
        path: Path,
        codec: Codec,
        *,
        ttl_s: float,
        report: Callable[[str, dict[str, object]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = ttl_s
        self._path = path
        self._codec = codec
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files = SessionFiles(path, codec, clock, self._note)
        self._threads = DiskThreads("sessions")

    async def open(self) -> None:
        """Make the folder if there is none. Raises `StoreError` for what is none, or may not be entered or written.

        A disk that is read-only or full is no reason: conversations that are there are read until it is mended.
        """
        await self._run(partial(_open, self._path))

    async def close(self) -> None:
        """Let what is being written be written, for a while, and leave threads that are stuck to the end of the process."""
        await self._threads.close()

    async def hold(self, session: str, wait_s: float) -> "FileHold":
        """Lock the session against other processes and read it, waiting at most `wait_s`. Raises `HeldElsewhere`."""
        loop = asyncio.get_running_loop()
        name = self._codec.name(session)
        until_s, look_s = loop.time() + wait_s, _LOOK_S_MIN
        while True:
            taken = await self._run(partial(self._files.take, name, self.ttl_s), undo=self._undo)
            if taken is not None:
                return FileHold(self, session, taken)
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise HeldElsewhere
            await asyncio.sleep(min(look_s, left_s))
            look_s = min(look_s * 1.5, _LOOK_S_MAX)

    async def read(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read a session without holding it; None: there is none, or it has expired or could not be read."""
        return await self._run(partial(self._files.read, self._codec.name(session), self.ttl_s))

    async def delete(self, session: str) -> bool:
        """Remove a session, held or not, and what was set aside of it; False when there was none."""
        return await self._run(partial(self._files.delete, self._codec.name(session), self.ttl_s))

    async def page(self, cursor: str, count: int) -> Page:
        """List up to `count` sessions from `cursor` on, in the order of their names, which is none that means anything."""
        count = max(1, min(count, PAGE_MAX))
        found: list[Summary] = []
        for shard in await self._run(partial(shards, self._path)):
            if shard < cursor[:2]:
                continue
            more, last = await self._run(partial(list_folder, self._files, shard, cursor, count - len(found), self.ttl_s))
            found += more
            if last:
                return Page(tuple(found), last)
        return Page(tuple(found), "")

    async def sweep(self) -> Swept:
        """Remove what has expired and what killed processes have left, and count the rest; `set_aside`: files that lie there."""
        total = Swept(0, 0, 0)
        for shard in await self._run(partial(shards, self._path)):
            part = await self._run(partial(sweep_folder, self._files, shard, self.ttl_s))
            total = Swept(
                sessions=total.sessions + part.sessions,
                size_bytes=total.size_bytes + part.size_bytes,
                expired=total.expired + part.expired,
                set_aside=total.set_aside + part.set_aside,
            )
            await asyncio.sleep(_SWEEP_PAUSE_S)
        return total

    async def keep(self, session: str, taken: Taken, conversation: Conversation, *, is_last: bool) -> None:
        """Write a session that is held; see `FileHold.keep`."""
        await self._run(partial(self._files.keep, taken, session, conversation, self.ttl_s, is_last=is_last))

    async def leave(self, taken: Taken) -> None:
        """Give a session back; see `FileHold.release`."""
        if not taken.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RELEASE_S_MAX):
                    await self._threads.finish(partial(self._files.leave, taken))

    async def _run(self, job: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        self._loop = asyncio.get_running_loop()
        try:
            return await self._threads.run(job, undo)
        except OSError as error:
            raise StoreError(loss_of(error), f"{self._path}: {error.strerror or 'gone'}") from error

    def _undo(self, taken: Taken | None) -> None:
        if taken is not None:
            self._files.leave(taken)

    def _note(self, file: str, reason: str) -> None:
        """Report from a thread; a loop that has ended hears nothing any more."""
        fields: dict[str, object] = {"file": file, "reason": reason}
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._report, "session.set_aside", fields)


class FileHold:
    """One session that this process has; made by `FileStore.hold`."""

    __slots__ = ("_session", "_store", "_taken")

    def __init__(self, store: FileStore, session: str, taken: Taken) -> None:
        self._store = store
        self._session = session
        self._taken = taken

    @property
    def conversation(self) -> Conversation | None:
        """What was kept; None: nothing, or what had expired or could not be read."""
        return self._taken.conversation

    @property
    def loss(self) -> Loss | None:
        """Why `keep` will most likely fail, or UNREADABLE; None: all is well."""
        return self._taken.loss

    async def keep(self, conversation: Conversation, *, is_last: bool = True) -> None:
        """Write the conversation and sync it; raises `Conflict` and `StoreError`.

        Cancelled, the write goes on, and the session is given back once it has ended, however soon `release` is called.
        """
        await self._store.keep(self._session, self._taken, conversation, is_last=is_last)

    async def release(self) -> None:
        """Let other processes have the session, if the last `keep` has not done so. Raises nothing."""
        await self._store.leave(self._taken)


def _open(path: Path) -> None:
    """Make a store's folder and what leads to it, and look whether it may be read and written. Raises OSError."""
    make(*reversed([each for each in (path, *path.parents) if not os.path.lexists(each)]))
    with os.scandir(path) as entries:
        next(entries, None)
    is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    mode, by_effective_ids = os.R_OK | os.W_OK | os.X_OK, os.access in os.supports_effective_ids
    if not is_read_only and not os.access(path, mode, effective_ids=by_effective_ids):
        raise PermissionError(13, "may not be written")
