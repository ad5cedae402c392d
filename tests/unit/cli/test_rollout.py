"""The commands on blue and green, given to a made-up rollout behind a real admin port."""

import pytest

from support.admin_rollout import StageRollout, rolling
from support.admin_stage import StageOperator, open_admin_port
from understudy.cli.main import main
from understudy.core.color import Color

STEPS = (0.05, 0.25, 1.0)
NOT_KEPT = "not kept across a restart: it could not be written to the state folder"


def told(operator: StageOperator, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it wrote to standard output and to standard error."""
    with open_admin_port(operator) as url:
        code = main([*argv, "--admin", url])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


# --- switch


def test_switch_says_who_takes_the_new_conversations(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    assert told(operator, capsys, "switch", "green") == (0, "green takes the new conversations (was blue)\n", "")
    assert rollout.rollout.active is Color.GREEN
    assert told(operator, capsys, "switch", "green") == (0, "green was active already\n", "")


def test_switch_to_the_active_color_ends_the_canary(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS)
    assert told(operator, capsys, "switch", "blue") == (0, "blue was active already; the canary is over\n", "")


def test_refused_switch_is_a_line_with_the_way_out_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.refusal = "no backend of green is usable: gpu1 (down, \x1b[2J)"
    said = "understudy: no backend of green is usable: gpu1 (down, \\x1b[2J); --force does it all the same\n"
    assert told(operator, capsys, "switch", "green") == (1, "", said)
    assert rollout.rollout.active is Color.BLUE
    assert told(operator, capsys, "switch", "green", "--force")[:2] == (0, "green takes the new conversations (was blue)\n")


def test_switch_that_even_force_cannot_do_names_no_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    said = "understudy: no backend has a color; set backends[].color\n"
    assert told(StageOperator(), capsys, "switch", "green") == (1, "", said)
    assert told(StageOperator(), capsys, "switch", "green", "--force") == (1, "", said)


@pytest.mark.parametrize("argv", [("switch", "green"), ("rollback",), ("canary", "5%")])
def test_what_a_restart_forgets_is_said(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.begin(previous=Color.GREEN)
    rollout.is_kept = False
    code, out, err = told(operator, capsys, *argv)
    assert (code, out.splitlines()[1:], err) == (0, [NOT_KEPT], "")


# --- rollback


def test_rollback_says_who_takes_the_conversations_again(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling(Color.GREEN)
    rollout.begin(previous=Color.BLUE)
    assert told(operator, capsys, "rollback") == (0, "blue takes the new conversations again (was green)\n", "")
    assert rollout.recalls == [False]


def test_rollback_of_sessions_says_that_they_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling(Color.GREEN)
    rollout.begin(previous=Color.BLUE)
    code, out, _ = told(operator, capsys, "rollback", "--sessions")
    assert (code, out.splitlines()) == (
        0,
        ["blue takes the new conversations again (was green)", "the conversations that began on green go to blue, too"],
    )
    assert rollout.recalls == [True]


def test_rollback_of_a_canary_says_that_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS)
    code, out, _ = told(operator, capsys, "rollback", "--sessions")
    assert (code, out.splitlines()) == (
        0,
        ["the canary is over: blue takes all new conversations", "the conversations that began on green go to blue, too"],
    )


def test_nothing_to_take_back_is_a_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    said = "understudy: there is no switch and no canary to take back\n"
    assert told(rolling()[0], capsys, "rollback") == (1, "", said)


def test_help_of_rollback_says_whose_conversations_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rollback", "--help"])
    assert "the conversations that began on the color that is left" in " ".join(capsys.readouterr().out.split())


# --- canary


@pytest.mark.parametrize(
    ("share", "shares", "words"),
    [
        ("10%", (0.1,), "10% of the new conversations go to green"),
        ("0.1", (0.1,), "10% of the new conversations go to green"),
        (" 10% ", (0.1,), "10% of the new conversations go to green"),
        ("5%,25%,100%", STEPS, "5% of the new conversations go to green, next step 25% in 10m 0s"),
        ("5%, 25%, 100%", STEPS, "5% of the new conversations go to green, next step 25% in 10m 0s"),
        ("file", (0.02, 0.5), "2% of the new conversations go to green, next step 50% in 10m 0s"),
    ],
)
def test_canary_says_its_share_and_what_is_next(
    share: str, shares: tuple[float, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, rollout = rolling(file_shares=(0.02, 0.5))
    assert told(operator, capsys, "canary", share) == (0, f"{words}\n", "")
    assert rollout.rollout.shares == shares


@pytest.mark.parametrize("share", ["off", "0%", "0"])
def test_canary_ends(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS)
    assert told(operator, capsys, "canary", share) == (0, "the canary is over: blue takes all new conversations\n", "")
    assert told(operator, capsys, "canary", share) == (0, "there was no canary: blue takes all new conversations\n", "")


def test_file_without_a_canary_is_a_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.begin(shares=STEPS)
    assert told(operator, capsys, "canary", "file") == (1, "", "understudy: the file has no canary\n")
    assert rollout.rollout.shares == STEPS


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("1", "found a canary that begins with 100%; want a smaller share, or else a switch"),
        ("25%,5%", "steps: found 5% after 25%; want each larger than the one before: 5%, 25%, 100%"),
        ("0%,5%", "steps: found 0% as the first step; want more than 0%, such as 5%, 25%, 100%"),
    ],
)
def test_canary_that_the_daemon_cannot_take_is_a_line_and_1(share: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(rolling()[0], capsys, "canary", share) == (1, "", f"understudy: {said}\n")


def test_refused_canary_is_a_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    operator, rollout = rolling()
    rollout.refusal = "green has no qwen2.5, which blue serves"
    assert told(operator, capsys, "canary", "5%") == (1, "", "understudy: green has no qwen2.5, which blue serves\n")


# --- whatever the command


@pytest.mark.parametrize(
    "argv",
    [
        ("switch",),
        ("switch", "red"),
        ("switch", "none"),
        ("switch", "green", "blue"),
        ("rollback", "green"),
        ("canary",),
        ("canary", ""),
        ("canary", "ten"),
        ("canary", "10"),
        ("canary", "5%,"),
        ("canary", "5%, , 25%"),
        ("canary", "5% 25%"),
        ("canary", "5%,file"),
        ("canary", "-5%"),
        ("canary", "5%", "25%"),
    ],
)
def test_wrong_usage_is_2(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--admin", "unix:/none"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: understudy ")


def test_share_that_is_none_is_told_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["canary", "ten"])
    said = capsys.readouterr().err
    assert said.endswith("want a share such as 10%, steps such as 5%,25%,100%, off, or file\n")


@pytest.mark.parametrize("argv", [("switch", "green"), ("rollback",), ("canary", "off")])
def test_no_daemon_is_a_line_and_1(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, "--admin", "unix:/none"]) == 1
    assert capsys.readouterr().err == "understudy: no daemon answers at unix:/none: no such file or directory\n"


@pytest.mark.parametrize("argv", [("switch", "green"), ("rollback",), ("canary", "5%")])
def test_token_is_asked_for(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    operator, rollout = rolling()
    rollout.begin(previous=Color.GREEN)
    with open_admin_port(operator, "s3cret") as url:
        monkeypatch.delenv("UNDERSTUDY_ADMIN_TOKEN", raising=False)
        assert main([*argv, "--admin", url]) == 1
        assert "UNDERSTUDY_ADMIN_TOKEN is not set" in capsys.readouterr().err
        monkeypatch.setenv("UNDERSTUDY_ADMIN_TOKEN", "s3cret")
        assert main([*argv, "--admin", url]) == 0
    assert isinstance(rollout, StageRollout)
