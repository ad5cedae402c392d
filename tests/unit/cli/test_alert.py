"""`understudy alert test` prints what came of each channel's message."""

from collections.abc import Sequence

import pytest

from support.admin_stage import StageOperator, open_admin_port
from understudy.cli.main import main


class StageAlerts:
    def __init__(self, *tested: tuple[str, bool, str]) -> None:
        self.tested = tested

    async def test(self) -> Sequence[tuple[str, bool, str]]:
        return self.tested


def alerting(*tested: tuple[str, bool, str]) -> StageOperator:
    operator = StageOperator()
    operator.alerts = StageAlerts(*tested)
    return operator


def test_channels_that_took_it_are_lines_and_0(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(alerting(("dingtalk", True, ""), ("mailto: example.org", True, ""))) as url:
        assert main(["alert", "test", "--admin", url]) == 0
    assert capsys.readouterr().out == "sent    dingtalk\nsent    mailto: example.org\n"


def test_one_that_did_not_is_1_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(alerting(("dingtalk", False, "sign not match\x1b[2J"), ("slack", True, ""))) as url:
        assert main(["alert", "test", "--admin", url]) == 1
    assert capsys.readouterr().out == "failed  dingtalk: sign not match\\x1b[2J\nsent    slack\n"


def test_without_channels_it_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["alert", "test", "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: no alerts are configured: name a channel under alerts in the file\n"


def test_an_action_is_asked_for() -> None:
    with pytest.raises(SystemExit) as left:
        main(["alert"])
    assert left.value.code == 2
