"""Take, keep, read and delete one session's file: written beside it, synced, compared, renamed, and the folder synced.

Called by sessions.file_store in threads that may block; raises what the system raises. A file is never changed in place, so that
whoever reads without a lock reads one whole revision. Never waits for another process, lists nothing.
"""

import contextlib
import itertools
import math
import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from understudy.core.conversation import Conversation
from understudy.sessions import file_lock
from understudy.sessions.file_lock import FileLock
from understudy.sessions.record import Codec, Reason, Unreadable, extent
from understudy.sessions.shard import CLAIM, CORRUPT, FOREIGN, LOCK, SESSION, TMP, loss_of, opened, remove, set_aside, sync
from understudy.sessions.store import Conflict, Loss, StoreError, Summary

# As much as is read of a file to know its header, which is shorter.
HEAD_BYTES: Final = 4096
# Held at once for a conversation that grows. Measured on ext4: 50 microseconds of the 500 that hold and keep cost.
ROOM_BYTES: Final = 64 * 1024

# What keeps a session from being written, but not from being read.
_UNWRITABLE: Final = frozenset({Loss.FULL, Loss.READ_ONLY, Loss.REFUSED})


class Taken:
    """A session that this process has, with what was there. `lock` None: the disk is full or may not be written.

    A write whose caller has stopped waiting goes on in its thread. The lock is then given back by that thread, not before: else
    another process could write, and the late write would undo it.
    """

    __slots__ = ("_is_busy", "_is_over", "_mutex", "conversation", "lock", "loss", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock: FileLock | None = None
        self.conversation: Conversation | None = None
        self.loss: Loss | None = None
        self._mutex = threading.Lock()
        self._is_busy = False
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the session was given back."""
        return self._is_over

    def begin(self) -> bool:
        """Begin to write; False: another write goes on, or the session was given back."""
        with self._mutex:
            is_free = not self._is_busy and not self._is_over
            self._is_busy |= is_free
            return is_free

    def end(self, *, is_last: bool) -> bool:
        """End a write; True: the caller gives the session back, as the last write or because that was asked for meanwhile."""
        with self._mutex:
            self._is_busy = False
            self._is_over |= is_last
            return self._is_over

    def leave(self) -> bool:
        """Ask to give the session back; True: the caller does so, once."""
        with self._mutex:
            was_over, self._is_over = self._is_over, True
            return not was_over and not self._is_busy


class SessionFiles:
    """The files below `root`. `note` is called in threads, with the name of a file that was set aside and the reason."""

    def __init__(self, root: Path, codec: Codec, clock: Callable[[], float], note: Callable[[str, str], None]) -> None:
        self.root = root
        self.codec = codec
        self.clock = clock
        self.note = note
        self._counter = itertools.count()
        # Two hosts that share a folder may have processes of one number.
        self._token = secrets.token_hex(4)

    # --- one job each

    def take(self, name: str, ttl_s: float) -> Taken | None:
        """Lock a session and read it; None: another process has it. A disk that is full or read-only shows in `loss`."""
        taken = Taken(name)
        try:
            with opened(self.root, name[:2], is_made=True) as folder:
                taken.lock = file_lock.take(folder, name + LOCK, self.note)
                if taken.lock is None:
                    return None
                try:
                    self._read_taken(folder, taken, ttl_s)
                except BaseException:
                    taken.lock.free(folder)
                    raise
                return taken
        except OSError as error:
            loss = loss_of(error)
            if loss not in _UNWRITABLE:
                raise
        found = self.read(name, ttl_s)
        taken.lock, taken.loss, taken.conversation = None, loss, found[1] if found is not None else None
        return taken

    def keep(self, taken: Taken, session: str, conversation: Conversation, ttl_s: float, *, is_last: bool) -> None:
        """Write a taken session, and give it back if `is_last`. Raises Conflict and StoreError, too, and is then not the last."""
        if not taken.begin():
            raise StoreError(Loss.SLOW, f"{self.root}: an earlier write has not ended")
        is_kept = False
        try:
            with opened(self.root, taken.name[:2], is_made=True) as folder:
                if taken.lock is None:
                    taken.lock = file_lock.take(folder, taken.name + LOCK, self.note)
                    if taken.lock is None:
                        raise StoreError(Loss.RACED, f"{self.root}: another process has the session")
                taken.lock.loosen()
                self._write(folder, taken, b"".join(self._encoded(session, conversation)), conversation.revision - 1, ttl_s)
                is_kept = True
                if taken.end(is_last=is_last):
                    taken.lock.free(folder)
        finally:
            if not is_kept and taken.end(is_last=False):
                self._free(taken)

    def leave(self, taken: Taken) -> None:
        """Give a session back, unless that was done or a write that still goes on does it. Raises nothing."""
        if taken.leave():
            self._free(taken)

    def read(self, name: str, ttl_s: float) -> tuple[Summary, Conversation] | None:
        """Read a session that anybody may have; what cannot be read is set aside and not there."""
        try:
            with opened(self.root, name[:2]) as folder:
                try:
                    return self.load(folder, name, ttl_s)
                except Unreadable:
                    return self.look_again(folder, name, ttl_s)
        except FileNotFoundError:
            return None

    def delete(self, name: str, ttl_s: float) -> bool:
        """Remove a session, and what was set aside of it; False: there was none, or it had expired."""
        with contextlib.suppress(FileNotFoundError), opened(self.root, name[:2]) as folder:
            try:
                fd, _ = self._opened(folder, name, ttl_s)
                os.close(fd)
                is_there = True
            except (FileNotFoundError, Unreadable):
                is_there = False
            is_gone = False
            for file in (name + SESSION, name + CORRUPT):
                with contextlib.suppress(IsADirectoryError):
                    is_gone |= remove(folder, file)
            if is_gone:
                sync(folder)
            return is_there
        return False

    # --- parts of jobs, in an open folder

    def load(self, folder: int, name: str, ttl_s: float) -> tuple[Summary, Conversation] | None:
        """Read a session's file; None: there is none, or it has expired. Raises Unreadable."""
        try:
            fd, status = self._opened(folder, name, ttl_s)
        except FileNotFoundError:
            return None
        try:
            data = _read(fd, HEAD_BYTES)
            summary = self._summary(data, name, status)
            data += _read(fd, summary.size_bytes - len(data))
        finally:
            os.close(fd)
        _, header_bytes = extent(data)
        return summary, self.codec.decode(data[:header_bytes], data[header_bytes:], name)

    def glance(self, folder: int, name: str, ttl_s: float) -> Summary | None:
        """Read a session's header; None: there is none, or it has expired. Raises Unreadable."""
        try:
            fd, status = self._opened(folder, name, ttl_s)
        except FileNotFoundError:
            return None
        try:
            return self._summary(_read(fd, HEAD_BYTES), name, status)
        finally:
            os.close(fd)

    def look_again(self, folder: int, name: str, ttl_s: float) -> tuple[Summary, Conversation] | None:
        """Read what could not be read once more, under the lock, and set it aside if it is no better.

        Where another process has the session, that one is left to it; where nothing can be written, all stays as it is.
        """
        lock = None
        with contextlib.suppress(OSError):
            lock = file_lock.take(folder, name + LOCK, self.note)
        if lock is None:
            return None
        try:
            return self.load(folder, name, ttl_s)
        except Unreadable as error:
            self.set_aside(folder, name, error.reason)
            return None
        finally:
            lock.free(folder)

    def set_aside(self, folder: int, name: str, reason: Reason) -> None:
        """Set a file aside that cannot be read, and say so. Where that cannot be done it stays, to be written over."""
        with contextlib.suppress(OSError):
            set_aside(folder, name + SESSION)
            self.note(name + SESSION, str(reason))

    def _read_taken(self, folder: int, taken: Taken, ttl_s: float) -> None:
        """Fill in what is there of a session that was locked, and hold room for more."""
        assert taken.lock is not None  # noqa: S101  the caller has locked it
        size_bytes = 0
        try:
            found = self.load(folder, taken.name, ttl_s)
        except Unreadable as error:
            self.set_aside(folder, taken.name, error.reason)
            taken.loss = Loss.UNREADABLE
        else:
            if found is not None:
                size_bytes, taken.conversation = found[0].size_bytes, found[1]
        taken.loss = taken.lock.reserve(size_bytes + ROOM_BYTES) or taken.loss

    def _write(self, folder: int, taken: Taken, data: bytes, wanted: int, ttl_s: float) -> None:
        """Put a file in the place of revision `wanted`, 0: of none. Raises Conflict where there is another, and OSError."""
        tmp = f"{taken.name}.{os.getpid()}-{self._token}.{next(self._counter)}{TMP}"
        file = taken.name + SESSION
        try:
            self._write_tmp(folder, tmp, data)
            is_exclusive = taken.lock is not None and taken.lock.is_exclusive
            with contextlib.nullcontext() if is_exclusive else file_lock.claimed(folder, taken.name + CLAIM):
                # As late as can be, because a session may be deleted by anybody at any time.
                self._compare(folder, taken.name, wanted, ttl_s)
                os.rename(tmp, file, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(folder, tmp)
            raise
        sync(folder)

    def _write_tmp(self, folder: int, tmp: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(tmp, flags, 0o600, dir_fd=folder)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            # Age is told by one clock, ours: that of a file server may be another.
            now_s = self.clock()
            os.utime(fd, (now_s, now_s))
            os.fsync(fd)
        finally:
            # Over NFS this may be what says that there is no room.
            os.close(fd)

    def _compare(self, folder: int, name: str, wanted: int, ttl_s: float) -> None:
        """Raise Conflict unless the file has revision `wanted`; one that has expired under the hold still counts as itself."""
        with contextlib.suppress(Unreadable):
            summary = self.glance(folder, name, math.inf)
            if (summary.revision if summary is not None else 0) == wanted:
                return
        current = None
        try:
            found = self.load(folder, name, ttl_s)
            current = found[1] if found is not None else None
        except Unreadable as error:
            self.set_aside(folder, name, error.reason)
        if current is not None or wanted:
            raise Conflict(current)

    def _opened(self, folder: int, name: str, ttl_s: float) -> tuple[int, os.stat_result]:
        """Open a session's file. Raises FileNotFoundError, also where it has expired, and Unreadable where it is no file."""
        try:
            fd = os.open(name + SESSION, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in FOREIGN:
                raise Unreadable(Reason.FOREIGN) from error
            raise
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and self.clock() - status.st_mtime <= ttl_s:
            return fd, status
        os.close(fd)
        if stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        raise Unreadable(Reason.FOREIGN)

    def _summary(self, head: bytes, name: str, status: os.stat_result) -> Summary:
        summary = self.codec.read_header(head, name)
        if status.st_size != summary.size_bytes:
            raise Unreadable(Reason.TORN if status.st_size < summary.size_bytes else Reason.CORRUPTED)
        return summary

    def _encoded(self, session: str, conversation: Conversation) -> tuple[bytes, bytes]:
        try:
            return self.codec.encode(session, conversation)
        except ValueError as error:
            raise StoreError(Loss.NOT_KEPT, "a text in it is no Unicode") from error

    def _free(self, taken: Taken) -> None:
        lock = taken.lock
        if lock is None:
            return
        try:
            with opened(self.root, taken.name[:2]) as folder:
                lock.free(folder)
        except OSError:
            lock.drop()


def _read(fd: int, size_bytes: int) -> bytes:
    """Read that much, less at the end of the file; a network file system may give it in pieces."""
    data = b""
    while len(data) < size_bytes and (more := os.read(fd, size_bytes - len(data))):
        data = data + more if data else more
    return data
