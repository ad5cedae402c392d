"""One folder of the file store: opened, listed, synced, and a file in it set aside; and what an error of the system means.

Called by sessions.file_lock, session_files and folder_walk in threads that may block. A folder's name is the first two digits of
the names in it. Follows no link below the store's own path: everything goes by the open folder. Reads no content.
"""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from understudy.sessions.store import Loss

SESSION: Final = ".session"
LOCK: Final = ".lock"
CLAIM: Final = ".claim"
CORRUPT: Final = ".corrupt"
TMP: Final = ".tmp"

# The store's own files; all else in a folder is somebody else's and left alone.
OURS: Final = re.compile(
    r"[0-9a-f]{64}(\.session|\.lock|\.claim|(\.[0-9a-f]{8})?\.corrupt|\.[0-9]+-[0-9a-f]{8}\.[0-9]+\.tmp)",
)
_SHARD: Final = re.compile(r"[0-9a-f]{2}")

_LOSSES: Final = {
    errno.ENOSPC: Loss.FULL,
    errno.EDQUOT: Loss.FULL,
    errno.EROFS: Loss.READ_ONLY,
    errno.EACCES: Loss.REFUSED,
    errno.EPERM: Loss.REFUSED,
    # A file or a link where a folder should be: an operator must look, and the rest of the store is well.
    errno.ENOTDIR: Loss.REFUSED,
    errno.ELOOP: Loss.REFUSED,
}
# What open() says of a link, a folder that is to be written, and a socket.
FOREIGN: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
# FUSE and some network file systems cannot sync a folder, and need not.
_UNSYNCABLE: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def loss_of(error: OSError) -> Loss:
    """Return what an error of the system means for the store."""
    return _LOSSES.get(error.errno or 0, Loss.UNAVAILABLE)


@contextlib.contextmanager
def opened(root: Path, shard: str, *, is_made: bool = False) -> Iterator[int]:
    """Give the descriptor of a folder of the store. Raises FileNotFoundError where there is none, unless it is to be made."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    path = root / shard
    try:
        folder = os.open(path, flags)
    except FileNotFoundError:
        if not is_made:
            raise
        # The root, too, may have been removed under us.
        make(root, path)
        folder = os.open(path, flags)
    try:
        yield folder
    finally:
        os.close(folder)


def make(*paths: Path) -> None:
    """Make folders that are not there, outermost first, so that they survive a loss of power."""
    for each in paths:
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:
            continue
        parent = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync(parent)
        finally:
            os.close(parent)


def shards(root: Path) -> list[str]:
    """List the folders of a store in order; those that are not there have never been needed."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _SHARD.fullmatch(entry.name))


def sync(folder: int) -> None:
    """Have what was renamed or removed in a folder on the disk before this returns."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise


def set_aside(folder: int, file: str) -> None:
    """Rename a file out of the way, in place of what was set aside under its name before. Raises OSError."""
    name = file.partition(".")[0]
    try:
        os.rename(file, name + CORRUPT, src_dir_fd=folder, dst_dir_fd=folder)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
    else:
        return
    # A folder and a file do not take each other's place.
    os.rename(file, f"{name}.{secrets.token_hex(4)}{CORRUPT}", src_dir_fd=folder, dst_dir_fd=folder)


def remove(folder: int, file: str) -> bool:
    """Remove a file; False: there was none. Raises OSError."""
    try:
        os.unlink(file, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
