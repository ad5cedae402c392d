"""Where the state lies, what it says, and that it is there whole or not at all."""

import asyncio
import errno
import json
import os
import stat
from pathlib import Path

import pytest

from support.rollout_play import HeldFile
from understudy.controlplane import state_file
from understudy.controlplane.state_file import (
    STATE_BYTES_MAX,
    State,
    StateFile,
    StateKeeper,
    StateUnreadableError,
    decode_state,
    encode_state,
    state_path,
)
from understudy.core.color import Color
from understudy.core.rollout import Rollout, Word

SECRET = "0123456789abcdef" * 4
GREEN = State(Rollout(active=Color.GREEN, word=Word.COMMAND, previous=Color.BLUE, shares=(0.05, 1.0), step=1), SECRET)
BLUE = State(Rollout(), SECRET)


# --- Where it lies


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/understudy", "HOME": "/home/pi"}, "/var/lib/understudy"),
        ({"STATE_DIRECTORY": "/var/lib/understudy:/var/lib/other"}, "/var/lib/understudy"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/pi"}, "/state/understudy"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "relative", "HOME": "/home/pi"}, "/home/pi/.local/state/understudy"),
    ],
    ids=["systemd", "systemd has several", "xdg", "home"],
)
def test_folder_is_systemd_s_else_the_user_s(env: dict[str, str], folder: str) -> None:
    path = state_path(env, Path("/etc/understudy/understudy.yaml"))
    assert path is not None
    assert str(path.parent) == folder


def test_without_a_folder_or_a_file_there_is_no_place() -> None:
    assert state_path({}, Path("/etc/understudy/understudy.yaml")) is None
    assert state_path({"HOME": "relative"}, Path("/etc/understudy/understudy.yaml")) is None
    assert state_path({"HOME": "/home/pi"}, None) is None


def test_each_file_has_its_own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"HOME": "/home/pi"}
    assert state_path(env, Path("a.yaml")) == state_path(env, tmp_path / "a.yaml")
    assert state_path(env, Path("b.yaml")) != state_path(env, Path("a.yaml"))


def test_a_link_that_leads_to_another_file_keeps_its_state(tmp_path: Path) -> None:
    """As a mounted ConfigMap or a folder of releases does with every update."""
    env = {"HOME": "/home/pi"}
    (tmp_path / "current.yaml").symlink_to("1.yaml")
    before = state_path(env, tmp_path / "current.yaml")
    (tmp_path / "current.yaml").unlink()
    (tmp_path / "current.yaml").symlink_to("2.yaml")
    assert state_path(env, tmp_path / "current.yaml") == before


# --- What it says


def test_state_is_read_as_it_was_written() -> None:
    assert decode_state(encode_state(GREEN)) == GREEN


def test_later_fields_of_this_version_do_not_harm() -> None:
    facts = json.loads(encode_state(GREEN)) | {"later": 1}
    facts["rollout"]["later"] = 2
    assert decode_state(json.dumps(facts).encode()) == GREEN


def test_another_version_says_so() -> None:
    facts = json.loads(encode_state(GREEN)) | {"version": 2, "rollout": "who knows"}
    with pytest.raises(StateUnreadableError, match="found version 2; want 1"):
        decode_state(json.dumps(facts).encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"active": "none"},
        {"active": "red"},
        {"file_active": "none"},
        {"step": 2},
        {"step": -1},
        {"step": 0.5},
        {"shares": [0.5, 1.5]},
        {"shares": [], "step": 1},
        {"file_shares": [-0.1]},
        {"step_at_unix_s": "now"},
    ],
    ids=str,
)
def test_rollout_that_cannot_be_is_not_taken(changed: dict[str, object]) -> None:
    facts = json.loads(encode_state(GREEN))
    facts["rollout"] |= changed
    with pytest.raises(StateUnreadableError):
        decode_state(json.dumps(facts).encode())


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"[]", b"{}", b"\xff\xfe", b"[" * 60_000, b'{"version": 1}', b"1e999"])
def test_what_is_no_state_says_so(content: bytes) -> None:
    with pytest.raises(StateUnreadableError, match="found what is no state"):
        decode_state(content)


def test_secret_that_is_none_is_not_taken() -> None:
    with pytest.raises(StateUnreadableError, match="cookie_secret"):
        decode_state(encode_state(State(BLUE.rollout, "guess")))


def test_repr_does_not_tell_the_secret() -> None:
    assert SECRET not in repr(GREEN)


# --- The file


def test_first_write_makes_the_folders_and_nobody_else_may_look(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state" / "understudy" / "rollout-1.json")
    assert file.read() is None
    file.write(b"one")
    file.write(b"two")
    assert file.read() == b"two"
    assert file.path is not None
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file.path, file.path.parent, file.path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert [each.name for each in file.path.parent.iterdir()] == ["rollout-1.json"]


def test_write_goes_neither_through_a_link_nor_through_what_was_left_of_another(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    file = StateFile(tmp_path / "state.json")
    (tmp_path / "state.json").symlink_to(victim)
    (tmp_path / f"state.json.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="found a link; want a file"):
        file.read()
    file.write(b"state")
    assert (victim.read_bytes(), file.read()) == (b"precious", b"state")


def test_folder_may_be_a_link_as_systemd_makes_them(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "understudy").symlink_to("private")
    StateFile(tmp_path / "understudy" / "state.json").write(b"state")
    assert (tmp_path / "private" / "state.json").read_bytes() == b"state"


def test_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        StateFile(tmp_path / "state.json").write(b"state")
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_pipe_a_folder_and_too_much_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"x" * (STATE_BYTES_MAX + 1))
    for name, words in (("pipe", "not a regular file"), (".", "[Dd]irectory|regular"), ("long", "longer than")):
        with pytest.raises(OSError, match=words):
            StateFile(tmp_path / name).read()


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="longer than"):
        StateFile(tmp_path / "state.json").write(b"x" * (STATE_BYTES_MAX + 1))
    with pytest.raises(OSError, match="no state folder"):
        StateFile(None).write(b"state")


# --- Keeping


class Play:
    """A keeper in a folder, and what it told."""

    def __init__(self, path: Path | None, file: StateFile | None = None) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []
        self.file = file or StateFile(path)
        self.keeper = StateKeeper(self.file, lambda event, fields: self.told.append((event, fields)))


async def test_state_is_kept_and_read_by_the_next(tmp_path: Path) -> None:
    play = Play(tmp_path / "state.json")
    assert play.keeper.read() is None
    assert not play.keeper.is_kept
    play.keeper.put(GREEN)
    assert await play.keeper.settle()
    again = Play(tmp_path / "state.json")
    assert again.keeper.read() == GREEN
    assert again.keeper.is_kept
    assert await again.keeper.settle()
    assert (play.told, again.told) == ([], [])


def test_state_of_the_start_is_kept_before_there_is_a_loop(tmp_path: Path) -> None:
    play = Play(tmp_path / "state.json")
    play.keeper.put_now(BLUE)
    assert play.keeper.is_kept
    assert Play(tmp_path / "state.json").keeper.read() == BLUE


async def test_of_several_words_that_wait_for_the_disk_the_last_wins(tmp_path: Path) -> None:
    disk = HeldFile(tmp_path / "state.json")
    play = Play(None, disk)
    play.keeper.put(BLUE)
    await asyncio.to_thread(disk.has_begun.wait, 30)
    for state in [GREEN, BLUE] * 50 + [GREEN]:
        play.keeper.put(state)
    assert not play.keeper.is_kept
    disk.is_let.set()
    assert await play.keeper.settle()
    assert disk.writes == [encode_state(BLUE), encode_state(GREEN)]


async def test_disk_that_hangs_is_not_waited_for_and_still_has_the_last_word_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "KEEP_S_MAX", 0.01)
    disk = HeldFile(tmp_path / "state.json")
    play = Play(None, disk)
    play.keeper.put(GREEN)
    assert not await play.keeper.settle()
    assert [(event, fields["reason"]) for event, fields in play.told] == [
        ("state.not_kept", "the disk has not answered for 0.01 s")
    ]
    monkeypatch.setattr(state_file, "KEEP_S_MAX", 30.0)
    disk.is_let.set()
    assert await play.keeper.settle()


async def test_disk_that_fails_is_told_with_file_and_reason_and_tried_again_with_the_next_word(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"in the way")
    play = Play(tmp_path / "folder" / "state.json")
    play.keeper.put(GREEN)
    assert not await play.keeper.settle()
    ((event, fields),) = play.told
    assert (event, fields["file"]) == ("state.not_kept", str(tmp_path / "folder" / "state.json"))
    assert os.strerror(errno.ENOTDIR) in str(fields["reason"])
    (tmp_path / "folder").unlink()
    play.keeper.put(GREEN)
    assert await play.keeper.settle()


@pytest.mark.parametrize("below", ["state.json", "understudy/state.json"])
def test_folder_that_is_a_file_has_kept_nothing(below: str, tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"in the way")
    play = Play(tmp_path / "folder" / below)
    assert play.keeper.read() is None
    assert play.told == []
    play.keeper.put_now(GREEN)
    ((event, fields),) = play.told
    assert (event, fields["file"]) == ("state.not_kept", str(tmp_path / "folder" / below))
    (tmp_path / "folder").unlink()
    play.keeper.put_now(GREEN)
    assert play.keeper.is_kept


async def test_without_a_place_every_word_is_told_as_not_kept() -> None:
    play = Play(None)
    assert play.keeper.read() is None
    play.keeper.put(GREEN)
    assert not await play.keeper.settle()
    assert [(event, fields["file"]) for event, fields in play.told] == [("state.not_kept", None)]


def test_unreadable_state_is_told_put_aside_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"torn")
    play = Play(tmp_path / "state.json")
    assert play.keeper.read() is None
    assert [(event, fields["file"]) for event, fields in play.told] == [("state.unreadable", str(tmp_path / "state.json"))]
    play.keeper.put_now(BLUE)
    assert (tmp_path / "state.json.corrupt").read_bytes() == b"torn"
    assert Play(tmp_path / "state.json").keeper.read() == BLUE


def test_unreadable_state_that_cannot_be_put_aside_stays(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"torn")
    (tmp_path / "state.json.corrupt").mkdir()
    play = Play(tmp_path / "state.json")
    assert play.keeper.read() is None
    play.keeper.put_now(BLUE)
    assert (tmp_path / "state.json").read_bytes() == b"torn"
    assert [event for event, _ in play.told] == ["state.unreadable", "state.not_kept"]
    assert play.told[1][1]["reason"] == f"what was kept can neither be read nor be put aside: {os.strerror(errno.EISDIR)}"


def test_file_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    play = Play(tmp_path / "state.json")
    assert play.keeper.read() is None
    assert play.told == [("state.unreadable", {"file": str(tmp_path / "state.json"), "reason": "not a regular file"})]
