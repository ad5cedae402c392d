"""The operator's orders reach the daemon and what came of them is printed."""

import pytest

from support.admin_stage import REFUSED, StageOperator, open_admin_port
from understudy.cli.main import main
from understudy.config.reload import ReloadResult
from understudy.core.snapshot import Duty


@pytest.mark.parametrize(
    ("verb", "duty", "words"),
    [
        ("drain", Duty.DRAINING, "pi takes no new exchange\n"),
        ("ready", Duty.READY, "pi takes exchanges\n"),
        ("maintenance", Duty.MAINTENANCE, "pi gets neither exchanges nor probes\n"),
    ],
)
def test_a_duty_is_set(verb: str, duty: Duty, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    operator = StageOperator()
    with open_admin_port(operator) as url:
        assert main([verb, "pi", "--admin", url]) == 0
    assert operator.duties == {"pi": duty}
    assert capsys.readouterr().out == words


def test_an_unknown_backend_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["drain", "a/b ü", "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: no backend is named 'a/b ü'\n"


def test_a_reload_prints_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    operator = StageOperator()
    operator.result = ReloadResult(ok=True, changed=("balance: fastest", "backends: + gpu"), needs_restart=("listen",))
    with open_admin_port(operator) as url:
        assert main(["reload", "--admin", url]) == 0
    assert capsys.readouterr().out == "reloaded\n  balance: fastest\n  backends: + gpu\nas before until a restart: listen\n"


def test_a_reload_of_the_same_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with open_admin_port(StageOperator()) as url:
        assert main(["reload", "--admin", url]) == 0
    assert capsys.readouterr().out == "reloaded: nothing changed\n"


def test_a_refused_reload_is_a_line_with_its_place_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    operator = StageOperator()
    operator.result = REFUSED
    with open_admin_port(operator) as url:
        assert main(["reload", "--admin", url]) == 1
    assert capsys.readouterr().err == "understudy: refused: understudy.yaml:7:5: backends[1].url: found gpu1; want a URL\n"


def test_a_name_is_asked_for() -> None:
    with pytest.raises(SystemExit) as left:
        main(["drain"])
    assert left.value.code == 2


def test_a_restart_begins_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    operator = StageOperator()
    with open_admin_port(operator) as url:
        assert main(["restart", "pi", "--admin", url]) == 0
        assert operator.restarted == ["pi"]
        assert capsys.readouterr().out == "pi is being restarted; understudy status says how it goes\n"
        operator.restart_refusal = "the file has no restart for pi"
        assert main(["restart", "pi", "--admin", url]) == 1
        assert capsys.readouterr().err == "understudy: the file has no restart for pi\n"
        assert main(["restart", "nobody", "--admin", url]) == 1
    assert operator.restarted == ["pi"]
