"""One session's file: whole or not at all, in its turn, and set aside when it is none."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from support.file_store_child import answer_of
from support.session_folder import SPOILT, TTL_S, Folder, refuse_to_make, write_junk
from support.stored import CODECS, HOSTILE_IDS, conversation, torn
from understudy.sessions.record import Codec
from understudy.sessions.session_files import ROOM_BYTES
from understudy.sessions.store import Conflict, Loss, StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "sessions")


def test_what_is_kept_is_one_file_for_its_owner_alone(folder: Folder) -> None:
    taken = folder.take()
    assert (taken.conversation, taken.loss) == (None, None)
    folder.keep(taken, 1, "Hi")
    assert folder.everything() == [folder.file().name]
    assert stat.S_IMODE(folder.file().stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder.path, folder.file().parent)} == {0o700}
    assert folder.texts() == ["Hi"]
    again = folder.take()
    assert again.conversation == conversation(1, "Hi")
    folder.files.leave(again)
    assert folder.everything() == [folder.file().name]


def test_a_summary_tells_what_the_file_takes(folder: Folder) -> None:
    folder.put(1, "Hi")
    found = folder.files.read(folder.codec.name("ada"), TTL_S)
    assert found is not None
    assert found[0].size_bytes == folder.file().stat().st_size


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_no_id_leads_out_of_the_folder(tmp_path: Path, codec: Codec) -> None:
    folder = Folder(tmp_path / "sessions", codec)
    for session in HOSTILE_IDS:
        folder.put(1, session, session=session)
    assert [folder.texts(session) for session in HOSTILE_IDS] == [[session] for session in HOSTILE_IDS]
    assert {path.parent.parent for path in tmp_path.rglob("*.*")} == {folder.path}
    assert len(folder.everything()) == len(HOSTILE_IDS)


def test_a_session_is_had_by_one_until_its_last_write_or_its_leaving(folder: Folder) -> None:
    name = folder.codec.name("ada")
    taken = folder.take()
    assert folder.files.take(name, TTL_S) is None
    folder.keep(taken, 1, "Hi", is_last=False)
    assert folder.files.take(name, TTL_S) is None
    folder.keep(taken, 2, "Hi", "Hello!")
    later = folder.take()
    folder.files.leave(taken)
    assert folder.files.take(name, TTL_S) is None
    folder.files.leave(later)
    folder.files.leave(folder.take())
    with pytest.raises(StoreError):
        folder.keep(taken, 3, "late")


def test_another_revision_is_a_conflict_and_the_hold_goes_on(folder: Folder) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    for revision in (1, 3):
        with pytest.raises(Conflict) as caught:
            folder.keep(taken, revision, "lost")
        assert caught.value.current == conversation(1, "Hi")
    assert folder.texts() == ["Hi"]
    folder.keep(taken, 2, "Hi", "Hello!")
    assert folder.everything() == [folder.file().name]


def test_what_was_deleted_meanwhile_is_a_conflict_with_nothing(folder: Folder) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    assert folder.files.delete(folder.codec.name("ada"), TTL_S)
    with pytest.raises(Conflict) as caught:
        folder.keep(taken, 2, "Hi", "Hello!")
    assert caught.value.current is None
    folder.keep(taken, 1, "again")
    assert folder.texts() == ["again"]


def test_a_session_is_deleted_once_with_what_was_set_aside_of_it(folder: Folder) -> None:
    name = folder.codec.name("ada")
    assert not folder.files.delete(name, TTL_S)
    folder.put(1, "Hi")
    folder.file().write_bytes(b"junk")
    folder.put(1, "Hi again")
    assert folder.file(suffix=".corrupt").exists()
    assert folder.files.delete(name, TTL_S)
    assert not folder.files.delete(name, TTL_S)
    assert folder.everything() == []


def test_what_has_expired_is_not_there_and_written_over(folder: Folder) -> None:
    for revision in (1, 2, 3):
        folder.put(revision, "old")
    folder.turned_s = TTL_S + 1
    assert folder.texts() is None
    taken = folder.take()
    assert taken.conversation is None
    folder.keep(taken, 1, "new")
    assert folder.texts() == ["new"]
    folder.turned_s *= 2
    assert not folder.files.delete(folder.codec.name("ada"), TTL_S)


def test_what_expires_under_a_hold_is_not_lost(folder: Folder) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    folder.turned_s = TTL_S + 1
    folder.keep(taken, 2, "Hi", "Hello!")
    assert folder.texts() == ["Hi", "Hello!"]


def test_a_clock_that_is_turned_back_loses_nothing(folder: Folder) -> None:
    folder.put(1, "Hi")
    folder.turned_s = -2 * TTL_S
    assert folder.texts() == ["Hi"]
    folder.put(2, "Hi", "Hello!")
    assert folder.texts() == ["Hi", "Hello!"]


@pytest.mark.parametrize("codec", [CODECS["json"], CODECS["sealed msgpack"]], ids=["json", "sealed msgpack"])
def test_a_file_torn_at_any_length_is_set_aside_and_the_session_begins_anew(tmp_path: Path, codec: Codec) -> None:
    folder = Folder(tmp_path, codec)
    folder.put(1, "Hi")
    parts = list(torn(folder.file().read_bytes()))
    for count, part in enumerate(parts):
        folder.file().write_bytes(part)
        if count % 2:
            assert folder.texts() is None
        else:
            taken = folder.take()
            assert (taken.conversation, taken.loss) == (None, Loss.UNREADABLE)
            folder.files.leave(taken)
        assert not folder.file().exists()
        assert folder.file(suffix=".corrupt").read_bytes() == part
    assert folder.noted == [(folder.file().name, "torn")] * len(parts)
    folder.put(1, "Hi again")
    assert folder.texts() == ["Hi again"]


@pytest.mark.parametrize("way", ["read", "take", "keep"])
@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT.keys())
def test_what_cannot_be_read_is_set_aside_and_gone_on_without(
    folder: Folder, spoil: Callable[[Path], None], reason: str, way: str
) -> None:
    folder.put(1, "Hi")
    taken = folder.take() if way == "keep" else None
    spoil(folder.file())
    if way == "read":
        assert folder.texts() is None
    elif taken is None:
        taken = folder.take()
        assert (taken.conversation, taken.loss) == (None, Loss.UNREADABLE)
    else:
        with pytest.raises(Conflict) as caught:
            folder.keep(taken, 3, "Hi", "Hello!")
        assert caught.value.current is None
    assert folder.noted == [(folder.file().name, reason)]
    folder.keep(taken or folder.take(), 1, "anew")
    assert folder.texts() == ["anew"]
    assert [name.rpartition(".")[2] for name in folder.everything()] == ["corrupt", "session"]


def test_what_another_process_has_is_left_to_it(folder: Folder) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    write_junk(folder.file())
    assert folder.texts() is None
    assert not folder.noted
    assert folder.file().exists()
    folder.files.leave(taken)


def test_what_is_whole_again_under_the_lock_is_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has written between our reading and our locking."""
    folder.put(1, "Hi")
    whole = folder.file().read_bytes()
    write_junk(folder.file())
    monkeypatch.setattr("fcntl.flock", lambda fd, operation: folder.file().write_bytes(whole))
    assert folder.texts() == ["Hi"]
    assert not folder.noted


def test_a_write_is_synced_before_its_name_and_its_name_before_the_return(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(1, "Hi")
    calls = list[str]()
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        calls.append(f"sync {target.suffix or target.name}")
        real_fsync(fd)

    def rename(source: str, target: str, **where: int) -> None:
        calls.append(f"rename {Path(target).suffix}")
        real_rename(source, target, **where)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    folder.put(2, "Hi", "Hello!")
    assert calls == ["sync .tmp", "rename .session", f"sync {folder.file().parent.name}"]


@pytest.mark.parametrize(
    ("number", "loss"), [(errno.ENOSPC, Loss.FULL), (errno.EDQUOT, Loss.FULL), (errno.EIO, None), (errno.ESTALE, None)]
)
@pytest.mark.parametrize("call", ["write", "fsync", "close", "rename", "utime"])
def test_a_write_that_fails_leaves_the_old_and_nothing_else(
    folder: Folder, call: str, number: int, loss: Loss | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    real = getattr(os, call)

    def fail(*arguments: object, **more: object) -> None:
        monkeypatch.setattr(os, call, real)
        if call == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    if call == "close":
        # The first file that is closed is the one that was written.
        monkeypatch.setattr(os, "fsync", lambda fd: monkeypatch.setattr(os, "close", fail))
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=str(number)):
        folder.keep(taken, 2, "Hi", "Hello!")
    monkeypatch.undo()
    assert folder.texts() == ["Hi"]
    assert [Path(name).suffix for name in folder.everything()] == [".lock", ".session"]
    folder.keep(taken, 2, "Hi", "Hello!")
    assert folder.texts() == ["Hi", "Hello!"]


def test_a_folder_that_is_not_synced_is_a_failure_with_the_new_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put(1, "Hi")
    taken = folder.take()

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=str(errno.EIO)):
        folder.keep(taken, 2, "Hi", "Hello!")
    monkeypatch.undo()
    assert folder.texts() == ["Hi", "Hello!"]
    folder.files.leave(taken)


def test_a_disk_that_takes_and_gives_little_at_once_is_gotten_along_with(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.write, os.read
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, min(size, 5)))
    folder.put(1, "Hi")
    assert folder.texts() == ["Hi"]
    assert not folder.noted


def test_a_text_that_is_no_unicode_is_not_kept(folder: Folder) -> None:
    taken = folder.take()
    with pytest.raises(StoreError) as caught:
        folder.files.keep(taken, "ada", msgspec.structs.replace(conversation(1), model="\ud800"), TTL_S, is_last=True)
    assert caught.value.loss is Loss.NOT_KEPT
    folder.keep(taken, 1, "Hi")


def test_a_store_whose_folder_was_removed_makes_it_anew(folder: Folder) -> None:
    folder.put(1, "Hi")
    taken = folder.take()
    for path in sorted(folder.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.path.rmdir()
    assert folder.texts() is None
    with pytest.raises(Conflict):
        folder.keep(taken, 2, "Hi", "Hello!")
    folder.keep(taken, 1, "Hi")
    assert folder.texts() == ["Hi"]


def test_room_is_held_from_the_hold_to_the_write(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put(1, "x" * 10_000)
    taken = folder.take()
    lock = folder.file(suffix=".lock")
    assert lock.stat().st_size == folder.file().stat().st_size + ROOM_BYTES
    write, sizes = os.write, list[int]()

    def look(fd: int, data: bytes) -> int:
        sizes.append(lock.stat().st_size)
        return write(fd, data)

    monkeypatch.setattr(os, "write", look)
    folder.keep(taken, 2, "Hi", "Hello!")
    assert sizes == [0]


def test_a_delete_is_on_the_disk_before_it_returns(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put(1, "Hi")
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    assert folder.files.delete(folder.codec.name("ada"), TTL_S)
    assert synced == [folder.file().parent.stat().st_ino]


@pytest.mark.parametrize(
    ("number", "loss"), [(errno.ENOSPC, Loss.FULL), (errno.EROFS, Loss.READ_ONLY), (errno.EACCES, Loss.REFUSED)]
)
def test_where_no_lock_can_be_made_a_session_is_read_and_locked_for_its_write(
    folder: Folder, number: int, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(1, "Hi")
    refuse_to_make(monkeypatch, number)
    taken, late = folder.take(), folder.take()
    assert (taken.loss, taken.conversation) == (loss, conversation(1, "Hi"))
    assert folder.take("never seen").conversation is None
    with pytest.raises(OSError, match=str(number)):
        folder.keep(taken, 2, "Hi", "Hello!")
    monkeypatch.undo()
    folder.keep(taken, 2, "Hi", "Hello!", is_last=False)
    with pytest.raises(StoreError) as caught:
        folder.keep(late, 2, "lost")
    assert caught.value.loss is Loss.RACED
    folder.files.leave(taken)
    with pytest.raises(Conflict):
        folder.keep(late, 2, "lost")
    folder.files.leave(late)
    assert folder.everything() == [folder.file().name]


def test_a_disk_that_fails_is_an_error_and_holds_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put(1, "Hi")
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda fd, size: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        with pytest.raises(OSError, match=str(errno.EIO)):
            folder.take()
    folder.files.leave(folder.take())
    refuse_to_make(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=str(errno.EIO)):
        folder.take()


def test_killed_at_any_step_of_a_write_the_old_or_the_new_is_there(tmp_path: Path) -> None:
    steps = answer_of("die", tmp_path / "die")
    assert [step["is_killed"] for step in steps] == [True] * (len(steps) - 1) + [False]
    found = [step["found"] for step in steps]
    assert found == ["old"] * found.count("old") + ["new"] * found.count("new")
    assert found.count("old") > 10
    assert found.count("new") > 2
    assert all(step["is_free"] for step in steps)
    assert [step for step in steps if ".tmp" in step["left"]]
    assert {".corrupt"}.isdisjoint(suffix for step in steps for suffix in step["left"])
