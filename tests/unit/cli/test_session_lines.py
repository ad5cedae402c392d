"""Kept conversations on their way to a file and back."""

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from support.admin_sessions import StageSessions, conversation, keeping
from support.admin_stage import open_admin_port
from understudy.admin import sessions_api
from understudy.cli import session_lines
from understudy.cli import sessions as sessions_module
from understudy.cli.main import main
from understudy.core.conversation import Conversation
from understudy.sessions.store import HeldElsewhere, Loss, Page, StoreError, Summary

HELLO = conversation("hello", "good evening")
ODD = conversation('"quoted"\n\x00 ü ☕ \U0001f600', "yes", revision=9)
KEPT = {"a": HELLO, "../b/ü\n": ODD, "c%2F?#": HELLO}


def line(session: object, kept: Conversation = HELLO) -> str:
    return json.dumps({"id": session, **msgspec.to_builtins(kept)})


def test_what_was_exported_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions_module, "_PAGE", 2)
    file = tmp_path / "kept.jsonl"
    with open_admin_port(keeping(**KEPT)[0]) as url:
        assert main(["sessions", "export", str(file), "--admin", url]) == 0
    assert file.read_bytes().isascii()
    assert len(file.read_text(encoding="ascii").splitlines()) == 3
    operator, sessions = keeping(a=conversation("other"))
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", str(file), "--admin", url]) == 0
    assert sessions.kept == KEPT
    assert capsys.readouterr().out == f"3 exported to {file}\n3 imported\n"


def test_standard_streams_are_the_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(keeping(**KEPT)[0]) as url:
        assert main(["sessions", "export", "--admin", url]) == 0
    exported = capsys.readouterr().out
    assert len(exported.splitlines()) == 3
    operator, sessions = keeping()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(exported.encode())))
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", "--admin", url]) == 0
    assert sessions.kept == KEPT


def test_nobody_else_may_read_what_was_exported(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("open to all, and longer than what will be exported" * 100, encoding="utf-8")
    old.chmod(0o644)
    with open_admin_port(keeping(a=HELLO)[0]) as url:
        for file in (new, old):
            assert main(["sessions", "export", str(file), "--admin", url]) == 0
            assert file.stat().st_mode & 0o777 == 0o600
            assert json.loads(file.read_text(encoding="ascii"))["id"] == "a"


def test_a_file_is_not_emptied_for_an_export_that_cannot_begin(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("yesterday's", encoding="utf-8")
    assert main(["sessions", "export", str(file), "--admin", f"unix:{tmp_path}/none"]) == 1
    assert file.read_text(encoding="utf-8") == "yesterday's"


def test_an_export_goes_to_a_device_too() -> None:
    with open_admin_port(keeping(a=HELLO)[0]) as url:
        assert main(["sessions", "export", "/dev/null", "--admin", url]) == 0
    assert Path("/dev/null").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_file_that_cannot_be_opened_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(keeping(a=HELLO)[0]) as url:
        assert main(["sessions", command, f"{tmp_path}/none/x", "--admin", url]) == 1
    assert capsys.readouterr().err == f"understudy: {tmp_path}/none/x: no such file or directory\n"


class Vanishing(StageSessions):
    """Of its sessions, `gone` has expired since it was listed and `bad` cannot be read."""

    async def page(self, cursor: str, count: int) -> Page:
        return Page(tuple(Summary(each, 1, 2, 3, 4.0) for each in ("a", "bad", "gone", "z")), "")

    async def show(self, session: str) -> tuple[Summary, Conversation] | None:
        if session == "bad":
            raise StoreError(Loss.UNREADABLE, "a record is torn")
        return await super().show(session)


def test_an_export_goes_on_past_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    operator, _ = keeping()
    operator.sessions = Vanishing(a=HELLO, z=HELLO)
    with open_admin_port(operator) as url:
        assert main(["sessions", "export", "--admin", url]) == 1
    printed = capsys.readouterr()
    assert [json.loads(each)["id"] for each in printed.out.splitlines()] == ["a", "z"]
    assert printed.err == "understudy: bad: a record is torn\n"


class Failing(StageSessions):
    """The store is lost when `z` is asked for."""

    async def show(self, session: str) -> tuple[Summary, Conversation] | None:
        if session == "z":
            raise StoreError(Loss.UNAVAILABLE, "connection refused")
        return await super().show(session)


def test_an_export_that_ends_early_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    operator, _ = keeping()
    operator.sessions = Failing(a=HELLO, z=HELLO)
    with open_admin_port(operator) as url:
        assert main(["sessions", "export", "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: ended after 1 conversations: connection refused\n"


def test_every_bad_line_is_told_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_lines, "LINE_BYTES_MAX", 2000)
    file = tmp_path / "lines"
    lines = [
        line("first"),
        "{",
        "",
        "[]",
        line(7),
        '{"id": "x", "messages": [{"speaker": "nobody"}]}',
        line(""),
        line("half \ud800"),
        line("long", conversation("x" * 5000)),
        "\ufeff" + line("z"),
        "[" * 1900,
        line("last"),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    operator, sessions = keeping()
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", str(file), "--admin", url]) == 1
    printed = capsys.readouterr()
    told = [each.removeprefix(f"understudy: {file}:").partition(": ") for each in printed.err.splitlines()]
    assert [number for number, _, _ in told] == ["2", "4", "5", "6", "7", "8", "9", "11"]
    assert all(words.startswith("found ") and "; want " in words for _, _, words in told)
    assert printed.out == "3 imported, 8 not\n"
    assert list(sessions.kept) == ["first", "z", "last"]


def test_a_line_that_the_daemon_finds_too_large_is_one_bad_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions_api, "RECORD_BYTES_MAX", 10_000)
    file = tmp_path / "lines"
    file.write_text(line("large", conversation("x" * 3_000_000)) + "\n" + line("small"), encoding="utf-8")
    operator, sessions = keeping()
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", str(file), "--admin", url]) == 1
    assert capsys.readouterr().err.startswith(f"understudy: {file}:1: found a record of more than 10000 bytes; want ")
    assert list(sessions.kept) == ["small"]


def test_a_session_that_others_change_is_one_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines"
    file.write_text(line("a") + "\n" + line("b"), encoding="utf-8")
    operator, sessions = keeping()
    sessions.fault = HeldElsewhere()
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", str(file), "--admin", url]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_an_import_ends_when_the_store_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines"
    file.write_text("{\n" + line("a") + "\n" + line("b"), encoding="utf-8")
    operator, sessions = keeping()
    sessions.fault = StoreError(Loss.FULL, "no space left")
    with open_admin_port(operator) as url:
        assert main(["sessions", "import", str(file), "--admin", url]) == 1
    _, ending = capsys.readouterr().err.splitlines()
    assert ending == f"understudy: {file}:2: no space left; 0 were imported"


def test_a_line_that_is_too_long_is_read_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_lines, "LINE_BYTES_MAX", 4)
    assert list(session_lines._lines(io.BytesIO(b"ab\n123456789012\nabcd\ncd"))) == [b"ab\n", b"12345", b"abcd\n", b"cd"]
