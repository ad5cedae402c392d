"""The commands on kept conversations, given to a made-up daemon behind a real admin port."""

import io
import json
import sys
import time

import pytest

from support.admin_sessions import conversation, keeping
from support.admin_stage import StageOperator, open_admin_port
from understudy.cli import sessions as sessions_module
from understudy.cli.main import main
from understudy.sessions.store import Loss, StoreError

HELLO = conversation("hello", "good evening")


class Terminal(io.StringIO):
    """Standard input at which a person answers."""

    def isatty(self) -> bool:
        return True


def test_what_is_kept_is_a_table_with_the_last_changed_first(capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    old, new = (conversation("hello", "yes", changed_at_unix_s=now - age_s) for age_s in (7300, 20))
    operator, _ = keeping(**{"old": old, "new\x1b[2J": new})
    with open_admin_port(operator) as url:
        assert main(["sessions", "list", "--admin", url]) == 0
    printed = capsys.readouterr()
    header, first, second = printed.out.splitlines()
    assert header.split() == ["SESSION", "MESSAGES", "CHANGED", "SIZE", "MODEL", "BACKEND"]
    assert first.startswith("new\\x1b[2J  2         20s ago ")
    assert first.endswith("qwen2.5  pi")
    assert second.startswith("old         2         2h 1m ago ")
    assert printed.err == ""


def test_nothing_kept_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(keeping()[0]) as url:
        assert main(["sessions", "list", "--admin", url]) == 0
    assert capsys.readouterr().out == "no conversation is kept\n"


def test_a_list_is_fetched_page_by_page_up_to_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions_module, "_PAGE", 2)
    operator, _ = keeping(**{f"s{number}": HELLO for number in range(5)})
    with open_admin_port(operator) as url:
        assert main(["sessions", "list", "--json", "--admin", url]) == 0
        everything = json.loads(capsys.readouterr().out)
        assert ([each["id"] for each in everything["sessions"]], everything["more"]) == (["s0", "s1", "s2", "s3", "s4"], False)
        assert main(["sessions", "list", "--limit", "3", "--admin", url]) == 0
        printed = capsys.readouterr()
        assert len(printed.out.splitlines()) == 4
        assert printed.err == "... and more than these 3; --limit says how many\n"
        assert main(["sessions", "list", "--limit", "3", "--json", "--admin", url]) == 0
        assert json.loads(capsys.readouterr().out)["more"] is True


def test_one_conversation_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    operator, _ = keeping(**{"../a b/ü": HELLO})
    with open_admin_port(operator) as url:
        assert main(["sessions", "show", "../a b/ü", "--admin", url]) == 0
        heading, _, *said = capsys.readouterr().out.splitlines()
        assert heading.startswith("../a b/ü: 2 messages, ")
        assert said == ["user: hello", "assistant: good evening"]
        assert main(["sessions", "show", "../a b/ü", "--json", "--admin", url]) == 0
        line = capsys.readouterr().out
    assert line.isascii()
    assert json.loads(line)["messages"][0]["speaker"] == "user"


def test_one_conversation_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    operator, sessions = keeping(a=HELLO, b=HELLO)
    with open_admin_port(operator) as url:
        assert main(["sessions", "delete", "a", "--admin", url]) == 0
        assert capsys.readouterr().out == "a is forgotten\n"
        assert main(["sessions", "delete", "a", "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: there is no such session\n"
    assert list(sessions.kept) == ["b"]


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_a_purge_asks_first(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    operator, sessions = keeping(a=HELLO, b=HELLO)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with open_admin_port(operator) as url:
        assert main(["sessions", "purge", "--admin", url]) == 0
    assert capsys.readouterr().out == "Forget every conversation? [y/N] 2 forgotten\n"
    assert sessions.kept == {}


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", "yess\n", ""])
def test_a_purge_that_is_not_confirmed_forgets_nothing(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, sessions = keeping(a=HELLO)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with open_admin_port(operator) as url:
        assert main(["sessions", "purge", "--older-than", "36h", "--admin", url]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("Forget every conversation that has not changed for 36h? [y/N] ")
    assert printed.err == "understudy: nothing was forgotten\n"
    assert list(sessions.kept) == ["a"]


def test_a_purge_that_can_ask_nobody_wants_to_be_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, sessions = keeping(a=HELLO)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with open_admin_port(operator) as url:
        assert main(["sessions", "purge", "--admin", url]) == 1
        assert "--yes is needed" in capsys.readouterr().err
        assert list(sessions.kept) == ["a"]
        assert main(["sessions", "purge", "--older-than", "1.5h", "--yes", "--admin", url]) == 0
    assert sessions.purged_s == [5400.0]


@pytest.mark.parametrize(
    "argv",
    [
        ["sessions"],
        ["sessions", "find"],
        ["sessions", "show"],
        ["sessions", "delete"],
        ["sessions", "list", "--limit", "0"],
        ["sessions", "list", "--limit", "x"],
        ["sessions", "purge", "--older-than", "yesterday"],
    ],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: understudy sessions")


@pytest.mark.parametrize("command", [["list"], ["show", "a"], ["delete", "a"], ["purge", "--yes"], ["export"]])
def test_what_the_daemon_cannot_do_is_one_line_and_1(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["sessions", *command, "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: no conversations are kept: sessions.store is none\n"
    operator, sessions = keeping(a=HELLO)
    sessions.fault = StoreError(Loss.UNAVAILABLE, "cache:6379: connection refused")
    with open_admin_port(operator) as url:
        assert main(["sessions", *command, "--admin", url]) == 1
    printed = capsys.readouterr()
    assert printed.err == "understudy: cache:6379: connection refused\n"
    assert printed.out == ""


def test_an_id_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "show", "a\udcff", "--admin", "unix:/none"]) == 1
    assert capsys.readouterr().err.startswith("understudy: found an id that is not UTF-8; want one")


@pytest.mark.parametrize("command", ["list", "show", "delete", "purge", "export", "import"])
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["sessions", command, "--help"])
    assert left.value.code == 0
    assert f"understudy sessions {command}" in capsys.readouterr().out
