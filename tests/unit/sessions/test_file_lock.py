"""One process at a time, on a file that goes away with the lock, on file systems with locks and without."""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from understudy.sessions import file_lock
from understudy.sessions.file_lock import FileLock, claimed, take
from understudy.sessions.shard import opened
from understudy.sessions.store import Loss

FILE = "ab" * 32 + ".lock"
OPEN_FILES = Path("/proc/self/fd")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path, "ab", is_made=True) as descriptor:
        yield descriptor


def quiet(file: str, reason: str) -> None:
    raise AssertionError(f"{file} was set aside as {reason}")


def taken(folder: int) -> FileLock:
    lock = take(folder, FILE, quiet)
    assert lock is not None
    return lock


def test_a_lock_is_had_by_one_and_leaves_no_file(folder: int, tmp_path: Path) -> None:
    first = taken(folder)
    assert first.is_exclusive
    assert stat.S_IMODE((tmp_path / "ab" / FILE).stat().st_mode) == 0o600
    assert take(folder, FILE, quiet) is None
    first.free(folder)
    assert not list((tmp_path / "ab").iterdir())
    taken(folder).free(folder)


def test_a_file_that_a_killed_process_left_is_taken_over(folder: int, tmp_path: Path) -> None:
    taken(folder).drop()
    assert (tmp_path / "ab" / FILE).exists()
    taken(folder).free(folder)
    assert not (tmp_path / "ab" / FILE).exists()


def test_only_a_file_that_is_there_is_taken_where_none_is_to_be_made(folder: int, tmp_path: Path) -> None:
    assert take(folder, FILE, quiet, is_made=False) is None
    assert not list((tmp_path / "ab").iterdir())


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had the lock removes the file, and another one has made it anew, between our open and our flock."""
    real, rivals = fcntl.flock, list[FileLock]()

    def flock(fd: int, operation: int) -> None:
        if not rivals:
            monkeypatch.setattr(fcntl, "flock", real)
            os.unlink(FILE, dir_fd=folder)
            rivals.append(taken(folder))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert take(folder, FILE, quiet) is None
    rivals[0].free(folder)
    taken(folder).free(folder)


def test_a_lock_on_a_file_that_is_gone_is_taken_anew(folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        os.unlink(FILE, dir_fd=folder)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = taken(folder)
    assert os.fstat(lock.fd).st_ino == (tmp_path / "ab" / FILE).stat().st_ino
    lock.free(folder)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_one_goes_on_without(folder: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(number, "")

    monkeypatch.setattr(fcntl, "flock", flock)
    first, second = taken(folder), taken(folder)
    assert not first.is_exclusive
    first.free(folder)
    second.free(folder)


def test_other_errors_of_locking_are_errors_and_close_the_file(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(OPEN_FILES.iterdir()))

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=str(errno.EIO)):
        take(folder, FILE, quiet)
    assert len(list(OPEN_FILES.iterdir())) == before


def test_what_stands_in_the_place_of_a_lock_is_set_aside(folder: int, tmp_path: Path) -> None:
    place = tmp_path / "ab" / FILE
    noted = list[tuple[str, str]]()
    kinds: tuple[Callable[[], object], ...] = (
        place.mkdir,
        partial(os.mkfifo, place),
        partial(place.symlink_to, "/etc/passwd"),
        partial(place.symlink_to, place),
    )
    for make in kinds:
        make()
        lock = take(folder, FILE, lambda file, reason: noted.append((file, reason)))
        assert lock is not None
        lock.free(folder)
    assert noted == [(FILE, "foreign")] * 4


def test_room_is_held_and_given_back(folder: int) -> None:
    lock = taken(folder)
    assert lock.reserve(1 << 20) is None
    assert os.fstat(lock.fd).st_blocks * 512 >= 1 << 20
    lock.loosen()
    assert os.fstat(lock.fd).st_blocks == 0
    lock.free(folder)


@pytest.mark.parametrize(
    ("number", "loss"),
    [(errno.ENOSPC, Loss.FULL), (errno.EDQUOT, Loss.FULL), (errno.EOPNOTSUPP, None), (errno.EINVAL, None), (errno.EFBIG, None)],
)
def test_no_room_is_known_early_and_a_file_system_that_cannot_tell_is_none_the_worse(
    folder: int, number: int, loss: Loss | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, offset: int, length: int) -> None:
        raise OSError(number, "")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    lock = taken(folder)
    assert lock.reserve(1 << 20) is loss
    lock.free(folder)


def test_a_lock_is_given_back_without_its_folder_and_twice(folder: int, tmp_path: Path) -> None:
    lock = taken(folder)
    os.unlink(FILE, dir_fd=folder)
    lock.free(folder)
    lock.drop()


def test_one_at_a_time_has_a_claim(folder: int) -> None:
    inside = most = 0

    def write() -> None:
        nonlocal inside, most
        with claimed(folder, "claim"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.001)
            inside -= 1

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert most == 1


def test_the_claim_of_one_who_died_is_taken_away_and_ours_ends_with_an_error(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "_CLAIM_S_MAX", 0.02)
    (tmp_path / "ab" / "claim").write_text("")
    with pytest.raises(ZeroDivisionError), claimed(folder, "claim"):
        assert 1 // 0
    assert not list((tmp_path / "ab").iterdir())
