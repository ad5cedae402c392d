"""The command: what it takes, what it prints, how it ends."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.answers import whole
from support.scripted import ScriptedEngine
from understudy.cli import compare, compare_expectations
from understudy.cli.interruptible import run_interruptible
from understudy.cli.main import main

PROMPTS = "- {prompt: Who is there?, expect: {contains: gpu0}}\n- Again?\n"


@pytest.fixture
def gpu0() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as engine:
        yield engine


@pytest.fixture
def gpu1() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu1") as engine:
        yield engine


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.yaml"
    file.write_text(PROMPTS, encoding="utf-8")
    return str(file)


def run(blue: ScriptedEngine, green: ScriptedEngine, *more: str) -> int:
    return main(["compare", "--blue", blue.url, "--green", green.url, *more])


def test_an_equal_green_is_no_worse(gpu0: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gpu0, gpu0, prompts) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("\n\ngreen is no worse\n")
    assert "\x1b" not in printed.out
    assert printed.err == ""


def test_a_worse_green_is_exit_1_with_the_threshold_in_words(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gpu0, gpu1, prompts) == 1
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "green is worse: green met 0% of the expectations, blue 100% (--max-unmet 0%)"
    assert run(gpu0, gpu1, "--max-unmet", "100%", prompts) == 0


def test_a_dead_green_is_an_error_of_every_prompt(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu1.refuse()
    assert run(gpu0, gpu1, "--model", "tiny", "--parallel", "2", "--timeout", "5s", prompts) == 1
    printed = capsys.readouterr()
    assert printed.out.count("error: refused the connection") == 2
    assert "green failed 100%, blue 0% (--max-errors 0%)" in printed.out
    assert printed.err == ""


def test_a_green_that_is_never_there_is_not_asked_for_ever(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu1.refuse()
    file = tmp_path / "many.yaml"
    file.write_text("- a\n" * 9, encoding="utf-8")
    assert run(gpu0, gpu1, "--model", "tiny", "--max-errors", "100%", "--judge", "m", "--judge-url", gpu1.url, str(file)) == 1
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "stopped after 3 of 9 prompts: green refused the connection 3 times in a row"
    assert len(gpu0.seen.requests) == 3


def test_a_judge_that_is_not_there_opens_no_gate(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedEngine() as judge:
        judge.refuse()
        judged = ("--judge", "wise", "--judge-url", judge.url, "--max-unmet", "100%")
        assert run(gpu0, gpu1, *judged, prompts) == 0
        printed = capsys.readouterr().out
        assert "The judge could not be asked in 2: refused the connection." in printed
        assert "tie" not in printed
        assert run(gpu0, gpu1, *judged, "--max-judged-worse", "100%", prompts) == 1
    assert "the judge gave its word on 0 of 2 pairs, under half (--max-judged-worse 100%)" in capsys.readouterr().out


def test_a_threshold_on_expectations_needs_some(gpu0: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text("- a\n", encoding="utf-8")
    assert run(gpu0, gpu0, str(file)) == 0
    assert "--max-unmet" not in capsys.readouterr().out
    assert run(gpu0, gpu0, "--max-unmet", "2%", str(file)) == 1
    assert capsys.readouterr().out.endswith("\ngreen is worse: nothing was expected of any prompt (--max-unmet 2%)\n")


def test_json_and_the_page_are_written(
    gpu0: ScriptedEngine, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert run(gpu0, gpu0, "--json", "--html", str(page), prompts) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["verdict"]["line"] == "green is no worse"
    assert value["models"] == {"blue": "tiny", "green": "tiny"}
    told = page.read_text(encoding="utf-8")
    assert "good evening from gpu0" in told
    assert f"{value['about']['at']} · prompts: {prompts} · understudy {value['about']['version']}" in told


def test_a_page_without_room_keeps_no_answer_back(gpu0: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gpu0, gpu0, "--html", "/dev/full", prompts) == 1
    printed = capsys.readouterr()
    assert printed.out.endswith("\n\ngreen is no worse\n")
    assert printed.err == "understudy: /dev/full: no space left on device\n"


def test_standard_output_without_room_keeps_no_page_back(
    gpu0: ScriptedEngine,
    tmp_path: Path,
    prompts: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "report.html"
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  # the play needs a stream
        monkeypatch.setattr(sys, "stdout", full)
        assert run(gpu0, gpu0, "--html", str(page), prompts) == 1
    assert capsys.readouterr().err == "understudy: standard output: no space left on device\n"
    assert "green is no worse" in page.read_text(encoding="utf-8")


def test_a_reader_who_leaves_early_keeps_no_page_back(
    gpu0: ScriptedEngine, tmp_path: Path, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.html"
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), open(writing, "w", encoding="utf-8") as pipe:  # noqa: PTH123  # the play needs a stream
        monkeypatch.setattr(sys, "stdout", pipe)
        # The process's own output would be turned away for good, and it is the test's.
        monkeypatch.setattr(os, "dup2", lambda *_: None)
        assert run(gpu0, gpu0, "--html", str(page), prompts) == 1
    assert "green is no worse" in page.read_text(encoding="utf-8")


def test_a_run_that_fails_makes_no_page_and_leaves_an_older_one(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path, prompts: str
) -> None:
    page, older = tmp_path / "report.html", tmp_path / "older.html"
    older.write_text("older", encoding="utf-8")
    gpu1.refuse()
    for file in (page, older):
        assert run(gpu0, gpu1, "--html", str(file), prompts) == 1
    assert (page.exists(), older.read_text(encoding="utf-8")) == (False, "older")


def test_a_page_in_place_of_what_is_read_is_wrong_usage(tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link.html"
    link.symlink_to(prompts)
    settings = tmp_path / "u.yaml"
    settings.touch()
    for page, more, what in ((link, [], "the prompts"), (settings, ["-c", str(settings)], "the configuration")):
        with pytest.raises(SystemExit) as left:
            main(["compare", "--html", str(page), *more, prompts])
        assert left.value.code == 2
        assert f"--html {page} would overwrite {what}" in capsys.readouterr().err
    assert Path(prompts).read_text(encoding="utf-8") == PROMPTS


def test_the_judge_is_asked_when_one_is_named(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedEngine(say="TIE") as judge:
        assert run(gpu0, gpu1, "--judge", "wise", "--judge-url", judge.url, "--max-unmet", "100%", prompts) == 0
        assert len(judge.seen.requests) == 4
    assert "The judge found blue better in 0, green better in 0, 2 ties." in capsys.readouterr().out


def test_prompts_may_come_from_standard_input(gpu0: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a"}\n')))
    assert run(gpu0, gpu0, "-") == 0
    assert len(gpu0.seen.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--blue", "http://127.0.0.1:1", "--green", "http://127.0.0.1:1"],
            "understudy: http://127.0.0.1:1 refused the connection; want",
        ),
        (["--blue", "gpu", "--green", "http://a", "-c", "/gone.yaml"], "/gone.yaml: found no such file or directory; want"),
        (["--blue", "ftp://a", "--green", "http://a"], "understudy: --blue: found 'ftp://a'; want a URL"),
        (["--admin", "unix:/none"], "understudy: no daemon answers at unix:/none: no such file or directory"),
        (["--url", "http://127.0.0.1:1", "--model", "m", "--html", "/gone/r.html"], "understudy: /gone/r.html: no such file"),
        (["--blue", "127.0.0.1:9", "--green", "http://a"], "understudy: --blue: found 127.0.0.1:9; want a URL such as http://"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], told: str, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments, prompts]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(told)
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_mistakes_in_the_prompts_are_told_before_anything_is_sent(
    gpu0: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("- {}\n- {prompt: a, expct: b}\n", encoding="utf-8")
    assert run(gpu0, gpu0, str(file)) == 1
    assert [line.rpartition("; ")[2] for line in capsys.readouterr().err.splitlines()] == ["want one of them", "want expect"]
    assert main(["compare", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err == f"understudy: {tmp_path}/gone: no such file or directory\n"
    assert gpu0.seen.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-judged-worse", "10%"],
        ["--judge-url", "http://a"],
        ["--ttft", "fast"],
        ["--speed", "0x"],
        ["--max-unmet", "2"],
        ["--parallel", "0"],
        ["--parallel", "65"],
        ["--timeout", "0s"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", *arguments, prompts])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: understudy compare")


def test_an_interrupt_shows_what_there_is_without_a_verdict(
    gpu0: ScriptedEngine, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = compare._Course.take

    def interrupt(course: compare._Course, answered: Any) -> None:
        take(course, answered)
        raise KeyboardInterrupt

    monkeypatch.setattr(compare._Course, "take", interrupt)
    page = tmp_path / "report.html"
    assert run(gpu0, gpu0, "--html", str(page), prompts) == 130
    printed = capsys.readouterr()
    assert printed.err == "understudy: interrupted after 1 of 2 prompts\n"
    assert "1. Who is there?" in printed.out
    assert "2. Again?" not in printed.out
    assert printed.out.endswith("\n\ninterrupted after 1 of 2 prompts: no verdict\n")
    assert "interrupted after 1 of 2 prompts: no verdict" in page.read_text(encoding="utf-8")
    assert run(gpu0, gpu0, "--json", prompts) == 130
    assert json.loads(capsys.readouterr().out)["verdict"]["green_is_worse"] is None


def test_an_interrupt_before_the_first_answer_is_one_line(
    gpu0: ScriptedEngine, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(work: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "run_interruptible", interrupted)
    page = tmp_path / "report.html"
    assert run(gpu0, gpu0, "--html", str(page), prompts) == 130
    assert capsys.readouterr() == ("", "understudy: interrupted before the first answer\n")
    assert not page.exists()


def test_an_interrupt_while_answers_are_checked_keeps_them_all(
    gpu0: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = iter((False, False, True))
    unmet = compare_expectations.Expectation.unmet

    def interrupted(expectation: compare_expectations.Expectation, text: str) -> tuple[str, ...]:
        if next(checks):
            raise KeyboardInterrupt
        return unmet(expectation, text)

    monkeypatch.setattr(compare_expectations.Expectation, "unmet", interrupted)
    file = tmp_path / "expecting.yaml"
    file.write_text("- {prompt: Who?, expect: {contains: gpu0}}\n" * 3, encoding="utf-8")
    assert run(gpu0, gpu0, str(file)) == 130
    printed = capsys.readouterr()
    assert printed.err == "understudy: interrupted after 1 of 3 prompts checked\n"
    assert (printed.out.count("good evening from gpu0"), printed.out.count("as expected  ")) == (6, 2)
    assert printed.out.endswith("\n\ninterrupted after 1 of 3 prompts checked: no verdict\n")


def test_an_interrupt_while_it_is_judged_shows_the_answers(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter((run_interruptible, run_interruptible, None))

    def interrupted(work: Any) -> Any:
        begin = next(calls)
        if begin is None:
            work.close()
            raise KeyboardInterrupt
        return begin(work)

    monkeypatch.setattr(compare, "run_interruptible", interrupted)
    assert run(gpu0, gpu1, "--judge", "wise", "--judge-url", gpu0.url, prompts) == 130
    assert "2. Again?" in capsys.readouterr().out


def test_on_a_terminal_the_progress_is_told_and_wiped(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, screen = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(gpu0, gpu1, "--max-unmet", "100%", "--judge", "wise", "--judge-url", gpu0.url, prompts) == 0
    assert [text for text in terminal.getvalue().split("\r\x1b[K") if text] == [
        *("asking 0/2", "asking 1/2", "asking 2/2"),
        *("checking 0/2", "checking 1/2", "checking 2/2"),
        *("judging 0/2", "judging 1/2", "judging 2/2"),
    ]
    assert "\x1b[32mgreen is no worse" in screen.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    screen.truncate(0)
    assert run(gpu0, gpu0, prompts) == 0
    assert "\x1b" not in screen.getvalue()


def test_an_error_of_both_gates_nothing(gpu0: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpu0.always(whole(503))
    assert run(gpu0, gpu0, "--model", "tiny", prompts) == 1
    assert capsys.readouterr().out.endswith("nothing could be compared: no prompt was answered by both\n")
