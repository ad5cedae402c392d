"""Listing reads headers only and in order; sweeping removes what has had its time, and nothing that somebody has."""

import errno
import os
import time
from pathlib import Path

import pytest

from support.session_folder import TTL_S, Folder, refuse_to_make
from support.stored import CODECS, KEY, OTHER_KEY
from understudy.sessions.folder_walk import LEFT_S, SET_ASIDE_S_MIN, list_folder, sweep_folder
from understudy.sessions.record import Codec, Format
from understudy.sessions.store import Swept

# All in one folder.
SESSIONS = [f"s{index}" for index in range(3000) if CODECS["json"].name(f"s{index}").startswith("ab")]


class OneFolder(Folder):
    """One of the folders of a store."""

    def listed(self, after: str = "", count: int = 1000) -> tuple[list[str], str]:
        found, last = list_folder(self.files, "ab", after, count, TTL_S)
        return [summary.session for summary in found], last

    def sweep(self) -> Swept:
        return sweep_folder(self.files, "ab", TTL_S)

    def left(self) -> set[str]:
        return {path.name for path in (self.path / "ab").iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> OneFolder:
    folder = OneFolder(tmp_path)
    for session in SESSIONS[:5]:
        folder.put(1, "Hi", session=session)
    return folder


def old(path: Path, age_s: float, text: str = "") -> Path:
    path.write_text(text)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_a_listing_goes_by_name_from_page_to_page(folder: OneFolder) -> None:
    by_name = sorted(SESSIONS[:5], key=folder.codec.name)
    assert folder.listed() == (by_name, "")
    pages, after = list[list[str]](), ""
    while True:
        page, after = folder.listed(after, 2)
        pages.append(page)
        if not after:
            break
    assert pages == [by_name[:2], by_name[2:4], by_name[4:]]


def test_a_folder_that_is_not_there_is_empty(folder: OneFolder) -> None:
    assert list_folder(folder.files, "ff", "", 10, TTL_S) == ([], "")
    assert sweep_folder(folder.files, "ff", TTL_S) == Swept(0, 0, 0)


def test_a_listing_reads_no_bodies(folder: OneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.file(SESSIONS[0]).unlink()
    folder.put(1, "x" * 1_000_000, session=SESSIONS[0])
    sizes, read = list[int](), os.read

    def counted(fd: int, size: int) -> bytes:
        data = read(fd, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "read", counted)
    assert len(folder.listed()[0]) == 5
    assert max(sizes) == 4096


def test_what_has_expired_is_not_listed_and_others_files_are_left_alone(folder: OneFolder) -> None:
    old(folder.file(SESSIONS[0]), TTL_S + 60)
    for name in (
        "README",
        ".nfs000000",
        "ab.session",
        "ab" * 32 + ".session.bak",
        "ab" * 32 + ".x.session",
        "AB" * 32 + ".session",
    ):
        old(folder.path / "ab" / name, 10 * SET_ASIDE_S_MIN)
    before = folder.left()
    assert set(folder.listed()[0]) == set(SESSIONS[1:5])
    assert folder.sweep().sessions == 4
    assert before - folder.left() == {folder.file(SESSIONS[0]).name}


def test_what_cannot_be_read_is_set_aside_by_a_listing_and_the_rest_listed(folder: OneFolder) -> None:
    folder.file(SESSIONS[0]).write_bytes(b"junk")
    folder.file(SESSIONS[1]).write_bytes(folder.file(SESSIONS[1]).read_bytes()[:-1])
    folder.file(SESSIONS[2]).unlink()
    folder.file(SESSIONS[2]).mkdir()
    assert set(folder.listed()[0]) == set(SESSIONS[3:5])
    reasons = {
        folder.file(session).name: reason for session, reason in zip(SESSIONS, ("foreign", "torn", "foreign"), strict=False)
    }
    assert dict(folder.noted) == reasons
    assert folder.sweep().set_aside == 3


def test_a_sweep_reads_nothing_and_leaves_what_cannot_be_read(folder: OneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.file(SESSIONS[0]).write_bytes(b"junk")
    monkeypatch.setattr(os, "read", lambda fd, size: pytest.fail("a file was read"))
    assert folder.sweep().sessions == 5
    assert not folder.noted


def test_what_another_key_has_sealed_is_neither_listed_nor_set_aside(tmp_path: Path) -> None:
    """An operator who starts with the wrong key, or with one for the first time, loses nothing by looking."""
    codecs = (CODECS["json"], Codec(Format.JSON, KEY), Codec(Format.MSGPACK, OTHER_KEY))
    shards = set()
    for codec in codecs:
        Folder(tmp_path, codec).put(1, "Hi")
        shards.add(codec.name("ada")[:2])
    for codec in codecs:
        folder = Folder(tmp_path, codec)
        found = [summary.session for shard in shards for summary in list_folder(folder.files, shard, "", 10, TTL_S)[0]]
        assert found == ["ada"]
        assert not folder.noted
    assert len(list(tmp_path.rglob("*.session"))) == 3


def test_a_sweep_counts_what_is_left_and_removes_what_has_expired(folder: OneFolder) -> None:
    for session in SESSIONS[:2]:
        old(folder.file(session), TTL_S + 60)
    size_bytes = sum(folder.file(session).stat().st_size for session in SESSIONS[2:5])
    assert folder.sweep() == Swept(sessions=3, size_bytes=size_bytes, expired=2)
    assert folder.sweep() == Swept(sessions=3, size_bytes=size_bytes, expired=0)
    assert len(folder.left()) == 3


def test_what_somebody_has_or_has_just_written_is_not_swept(folder: OneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old(folder.file(SESSIONS[0]), TTL_S + 60)
    taken = folder.take(SESSIONS[0])
    assert folder.sweep().expired == 0
    folder.files.leave(taken)
    # It is written between the look at its age and the lock.
    monkeypatch.setattr("fcntl.flock", lambda fd, operation: os.utime(folder.file(SESSIONS[0])))
    assert folder.sweep().expired == 0
    monkeypatch.undo()
    assert folder.sweep().sessions == 5


def test_what_killed_processes_left_is_swept_after_an_hour(folder: OneFolder) -> None:
    before = folder.left()
    session = SESSIONS[0]
    for suffix in (".lock", ".1-0123abcd.0.tmp", ".claim"):
        old(folder.file(session, suffix), LEFT_S - 60)
    folder.sweep()
    assert len(folder.left()) == len(before) + 3
    for suffix in (".lock", ".1-0123abcd.0.tmp", ".claim"):
        old(folder.file(session, suffix), LEFT_S + 60)
    folder.sweep()
    assert folder.left() == before


def test_a_lock_that_is_held_for_long_is_left(folder: OneFolder) -> None:
    taken = folder.take(SESSIONS[0])
    folder.turned_s = LEFT_S + 60
    folder.sweep()
    assert folder.file(SESSIONS[0], ".lock").exists()
    folder.files.leave(taken)


def test_what_was_set_aside_is_kept_for_a_week_or_the_ttl(folder: OneFolder) -> None:
    folder.file(SESSIONS[0]).write_bytes(b"junk")
    old(folder.file(SESSIONS[1], ".corrupt"), 0)
    folder.listed()
    folder.file(SESSIONS[2], ".0123abcd.corrupt").mkdir()
    (folder.file(SESSIONS[3], ".corrupt") / "full").mkdir(parents=True)
    assert folder.sweep().set_aside == 4
    folder.turned_s = SET_ASIDE_S_MIN - 60
    assert folder.sweep().set_aside == 4
    folder.turned_s = SET_ASIDE_S_MIN + 60
    assert sweep_folder(folder.files, "ab", 2 * SET_ASIDE_S_MIN).set_aside == 4
    # What is in a folder is not ours.
    assert folder.sweep().set_aside == 1
    assert folder.file(SESSIONS[3], ".corrupt").is_dir()


def test_a_full_disk_is_made_room_on_even_if_there_is_none_for_a_lock(folder: OneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old(folder.file(SESSIONS[0]), TTL_S + 60)
    refuse_to_make(monkeypatch, errno.ENOSPC)
    assert folder.sweep().expired == 1
    assert not folder.file(SESSIONS[0]).exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_disk_that_may_not_be_written_is_counted_all_the_same(
    folder: OneFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(folder.file(SESSIONS[0]), TTL_S + 60)
    refuse_to_make(monkeypatch, number)
    swept = folder.sweep()
    assert (swept.sessions, swept.expired) == (4, 0)


def test_a_disk_that_fails_is_an_error(folder: OneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old(folder.file(SESSIONS[0]), TTL_S + 60)
    refuse_to_make(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=str(errno.EIO)):
        folder.sweep()
