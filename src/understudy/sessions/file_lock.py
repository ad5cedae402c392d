"""Keep other processes off one session by an flock on a file beside it, which also holds room on the disk for the next write.

Called by sessions.session_files and folder_walk in threads; never waits for a lock. It belongs to the open file, so that the
system frees it when a process dies, however it dies. Over NFS it is the server's, unless the mount says `nolock` or `local_lock`;
where there are no locks at all, `is_exclusive` is False and a claim covers the moment of the write.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from understudy.sessions.shard import FOREIGN, remove, set_aside
from understudy.sessions.store import Loss

# The file of a lock that was just given back is removed by who had it: then it is made anew.
_TRIES_MAX: Final = 20
_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# Who compares and renames without a lock takes milliseconds; the claim of one who has died is taken away after this.
_CLAIM_S_MAX: Final = 2.0
_CLAIM_LOOK_S: Final = 0.01


class FileLock:
    """A lock that is held. `is_exclusive` False: the file system has no locks, so this only holds room."""

    __slots__ = ("fd", "file", "is_exclusive")

    def __init__(self, fd: int, file: str, *, is_exclusive: bool) -> None:
        self.fd = fd
        self.file = file
        self.is_exclusive = is_exclusive

    def reserve(self, size_bytes: int) -> Loss | None:
        """Hold that much room on the disk, FULL where there is none left; a file system that cannot is none the worse."""
        try:
            os.posix_fallocate(self.fd, 0, size_bytes)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self.loosen()
                return Loss.FULL
        return None

    def loosen(self) -> None:
        """Give the room back, for the file that is written next."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)

    def free(self, folder: int) -> None:
        """Let others have the session. The file goes first, while it is still ours; who waits on it notices. Raises nothing."""
        with contextlib.suppress(OSError):
            os.unlink(self.file, dir_fd=folder)
        self.drop()

    def drop(self) -> None:
        """Let others have the session without its folder; the file stays, as after a crash. Raises nothing."""
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)


def take(folder: int, file: str, note: Callable[[str, str], None], *, is_made: bool = True) -> FileLock | None:
    """Lock a session; None: another process has it, or there is no such file and it is not to be made.

    What stands in the place of the file and is none is set aside, and `note` called with its name and "foreign". Raises OSError.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if is_made else 0)
    for _ in range(_TRIES_MAX):
        try:
            fd = os.open(file, flags, 0o600, dir_fd=folder)
        except FileNotFoundError:
            if is_made:
                raise
            return None
        except OSError as error:
            if error.errno not in FOREIGN:
                raise
        else:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                lock, is_held = _locked(folder, file, fd)
                if lock is not None or is_held:
                    return lock
                continue
            os.close(fd)
        set_aside(folder, file)
        note(file, "foreign")
    return None


def _locked(folder: int, file: str, fd: int) -> tuple[FileLock | None, bool]:
    """Return the lock on an open file; without one, whether somebody holds it (else the file was removed meanwhile)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None, True
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return FileLock(fd, file, is_exclusive=False), False
        os.close(fd)
        # The server has forgotten a file that another client has removed.
        if error.errno == errno.ESTALE:
            return None, False
        raise
    try:
        ours = os.fstat(fd)
        there = os.stat(file, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        os.close(fd)
        if error.errno in {errno.ENOENT, errno.ESTALE}:
            return None, False
        raise
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino) or not ours.st_nlink:
        os.close(fd)
        return None, False
    return FileLock(fd, file, is_exclusive=True), False


@contextlib.contextmanager
def claimed(folder: int, file: str) -> Iterator[None]:
    """Be the only one that compares and renames, on a file system without locks: by a file that only one can make.

    Waits in this thread for others, at most two seconds for each. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    seen, since_s = (0, 0), time.monotonic()
    while True:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, flags, 0o600, dir_fd=folder))
            break
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(file, dir_fd=folder, follow_symlinks=False)
            # Not its age by the clock: that of a server may be another.
            if (status.st_ino, status.st_ctime_ns) != seen:
                seen, since_s = (status.st_ino, status.st_ctime_ns), time.monotonic()
            elif time.monotonic() - since_s > _CLAIM_S_MAX:
                remove(folder, file)
        time.sleep(_CLAIM_LOOK_S)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            remove(folder, file)
