"""A folder is opened without following anything, and what an error means is one table."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from understudy.sessions.shard import loss_of, make, opened, remove, set_aside, shards, sync
from understudy.sessions.store import Loss

FILE = "ab" * 32 + ".session"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path, "ab", is_made=True) as descriptor:
        yield descriptor


@pytest.mark.parametrize(
    ("number", "loss"),
    [
        (errno.ENOSPC, Loss.FULL),
        (errno.EDQUOT, Loss.FULL),
        (errno.EROFS, Loss.READ_ONLY),
        (errno.EACCES, Loss.REFUSED),
        (errno.EPERM, Loss.REFUSED),
        (errno.ENOTDIR, Loss.REFUSED),
        (errno.ELOOP, Loss.REFUSED),
        (errno.EIO, Loss.UNAVAILABLE),
        (errno.ESTALE, Loss.UNAVAILABLE),
        (errno.ETIMEDOUT, Loss.UNAVAILABLE),
        (errno.EMFILE, Loss.UNAVAILABLE),
    ],
)
def test_each_error_is_a_loss(number: int, loss: Loss) -> None:
    assert loss_of(OSError(number, "")) is loss


def test_an_error_without_a_number_may_pass() -> None:
    assert loss_of(FileNotFoundError()) is Loss.UNAVAILABLE


def test_a_folder_is_made_for_its_owner_alone_and_its_parent_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError), opened(root, "ab"):
        pass
    with opened(root, "ab", is_made=True) as folder:
        assert stat.S_IMODE(os.fstat(folder).st_mode) == 0o700
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert synced == [tmp_path.stat().st_ino, root.stat().st_ino]
    make(root)
    assert len(synced) == 2


def test_a_link_or_a_file_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "aa").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ab").write_text("")
    for shard in ("aa", "ab"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links") as caught, opened(tmp_path, shard, is_made=True):
            pass
        assert loss_of(caught.value) is Loss.REFUSED


def test_only_the_stores_own_folders_are_listed(tmp_path: Path) -> None:
    for name in ("ff", "00", "AB", "abc", "a", "lost+found", "zz"):
        (tmp_path / name).mkdir()
    assert shards(tmp_path) == ["00", "ff"]


def test_what_is_set_aside_takes_the_place_of_what_was_before(folder: int, tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "ab" / FILE).write_text(text)
        set_aside(folder, FILE)
    assert [path.read_text() for path in (tmp_path / "ab").iterdir()] == ["second"]
    assert (tmp_path / "ab" / FILE).with_suffix(".corrupt").read_text() == "second"


def test_a_folder_and_a_file_are_set_aside_beside_each_other(folder: int, tmp_path: Path) -> None:
    place = tmp_path / "ab" / FILE
    for is_folder in (True, False, True, False):
        if is_folder:
            place.mkdir()
            (place / "full").write_text("")
        else:
            place.write_text("")
        set_aside(folder, FILE)
        assert not place.exists()
    left = list((tmp_path / "ab").iterdir())
    assert len(left) == 4
    assert {path.suffix for path in left} == {".corrupt"}


def test_what_cannot_be_set_aside_is_an_error(folder: int) -> None:
    with pytest.raises(FileNotFoundError):
        set_aside(folder, FILE)


def test_a_file_is_removed_once(folder: int, tmp_path: Path) -> None:
    (tmp_path / "ab" / FILE).write_text("")
    assert remove(folder, FILE)
    assert not remove(folder, FILE)


def test_a_folder_that_cannot_be_synced_is_none_the_worse(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(number, "")))
        sync(folder)

    fail(errno.EINVAL)
    with pytest.raises(OSError, match=str(errno.EIO)):
        fail(errno.EIO)
