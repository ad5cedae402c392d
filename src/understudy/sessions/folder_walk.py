"""List the sessions of one folder of the file store, or sweep it: one job each, so that others come in between.

Called by sessions.file_store in threads. A listing reads headers, at most as many as are asked for; a sweep reads nothing and
goes by size and age alone, so that what cannot be read is noticed by whoever reads it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from understudy.sessions import file_lock
from understudy.sessions.record import Reason, Unreadable
from understudy.sessions.session_files import SessionFiles
from understudy.sessions.shard import CLAIM, CORRUPT, LOCK, OURS, SESSION, TMP, loss_of, opened, remove
from understudy.sessions.store import Loss, Summary, Swept

# What a process has left behind that was killed: no write and no wait takes that long.
LEFT_S: Final = 3600.0
# How long an operator has to look at what was set aside.
SET_ASIDE_S_MIN: Final = 7 * 24 * 3600.0

# Kept with another key, or before there was one: these come back with their key, and expire without.
_ANOTHER_KEY: Final = frozenset({Reason.SEALED, Reason.UNSEALED})


def list_folder(files: SessionFiles, shard: str, after: str, count: int, ttl_s: float) -> tuple[list[Summary], str]:
    """Return up to `count` summaries of sessions whose names follow `after`, and the last name if there may be more."""
    found: list[Summary] = []
    with contextlib.suppress(FileNotFoundError), opened(files.root, shard) as folder:
        names = sorted(file.removesuffix(SESSION) for file in _files(folder) if file.endswith(SESSION))
        for name in names:
            if name <= after:
                continue
            with _one_of_many():
                summary = _glance(files, folder, name, ttl_s)
                if summary is not None:
                    found.append(summary)
                    if len(found) == count:
                        return found, name
    return found, ""


def sweep_folder(files: SessionFiles, shard: str, ttl_s: float) -> Swept:
    """Remove from a folder what has expired or was left behind, and count what is left."""
    sessions = size_bytes = expired = set_aside = 0
    now_s = files.clock()
    with contextlib.suppress(FileNotFoundError), opened(files.root, shard) as folder:
        for file in _files(folder):
            with _one_of_many():
                status = os.stat(file, dir_fd=folder, follow_symlinks=False)
                age_s = now_s - status.st_mtime
                if file.endswith(SESSION):
                    if age_s <= ttl_s:
                        sessions += 1
                        size_bytes += status.st_size
                    elif stat.S_ISREG(status.st_mode):
                        expired += _expire(files, folder, file.removesuffix(SESSION), ttl_s)
                elif file.endswith(CORRUPT):
                    # To rename a file changes its ctime alone.
                    is_old = now_s - max(status.st_mtime, status.st_ctime) > max(ttl_s, SET_ASIDE_S_MIN)
                    set_aside += not (is_old and _discard(folder, file, status))
                elif file.endswith(LOCK) and age_s > LEFT_S:
                    _unlock(files, folder, file)
                elif file.endswith((TMP, CLAIM)) and age_s > LEFT_S:
                    remove(folder, file)
    return Swept(sessions, size_bytes, expired, set_aside)


@contextlib.contextmanager
def _one_of_many() -> Iterator[None]:
    """Go on with the next file where this one is gone, or where permission is missing for it or the disk is read-only."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        if loss_of(error) not in {Loss.READ_ONLY, Loss.REFUSED}:
            raise


def _files(folder: int) -> Iterator[str]:
    """Yield the names of the store's own files in a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if OURS.fullmatch(entry.name):
                yield entry.name


def _glance(files: SessionFiles, folder: int, name: str, ttl_s: float) -> Summary | None:
    try:
        return files.glance(folder, name, ttl_s)
    except Unreadable as error:
        if error.reason in _ANOTHER_KEY:
            return None
        found = files.look_again(folder, name, ttl_s)
        return found[0] if found is not None else None


def _expire(files: SessionFiles, folder: int, name: str, ttl_s: float) -> bool:
    """Remove a session that has expired, unless somebody has it or has just written it."""
    lock = None
    try:
        lock = file_lock.take(folder, name + LOCK, files.note)
        if lock is None:
            return False
    except OSError as error:
        # A disk so full that it has no room for a lock is made room on without one.
        if loss_of(error) is not Loss.FULL:
            raise
    try:
        age_s = files.clock() - os.stat(name + SESSION, dir_fd=folder, follow_symlinks=False).st_mtime
        return age_s > ttl_s and remove(folder, name + SESSION)
    finally:
        if lock is not None:
            lock.free(folder)


def _discard(folder: int, file: str, status: os.stat_result) -> bool:
    """Remove what was set aside long ago; a folder only if it is empty, for what is in it is not ours."""
    if not stat.S_ISDIR(status.st_mode):
        return remove(folder, file)
    with contextlib.suppress(OSError):
        os.rmdir(file, dir_fd=folder)
        return True
    return False


def _unlock(files: SessionFiles, folder: int, file: str) -> None:
    """Remove the file of a lock that nobody holds."""
    lock = file_lock.take(folder, file, files.note, is_made=False)
    if lock is not None:
        lock.free(folder)
