"""The command: what it takes, what it prints, how it ends."""

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.answers import whole
from support.scripted import ScriptedEngine
from understudy.cli import compare
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
    assert told == "green is worse: expectations met 0% against 100% (--max-unmet 0%)"
    assert run(gpu0, gpu1, "--max-unmet", "100%", prompts) == 0


def test_a_dead_green_is_an_error_of_every_prompt(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu1.refuse()
    assert run(gpu0, gpu1, "--model", "tiny", "--parallel", "2", "--timeout", "5s", prompts) == 1
    printed = capsys.readouterr()
    assert printed.out.count("error: refused the connection") == 2
    assert "failed 100% against 0% (--max-errors 0%)" in printed.out
    assert printed.err == ""


def test_json_and_the_page_are_written(
    gpu0: ScriptedEngine, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert run(gpu0, gpu0, "--json", "--html", str(page), prompts) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["verdict"]["line"] == "green is no worse"
    assert "good evening from gpu0" in page.read_text(encoding="utf-8")


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


def test_an_interrupt_shows_what_there_is(
    gpu0: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(progress: compare._Progress, answered: object) -> None:
        progress.answered.append(answered)  # type: ignore[arg-type]  # handed on as it came
        raise KeyboardInterrupt

    monkeypatch.setattr(compare._Progress, "take", interrupt)
    assert run(gpu0, gpu0, prompts) == 130
    printed = capsys.readouterr()
    assert printed.err == "understudy: interrupted after 1 of 2 prompts\n"
    assert "1. Who is there?" in printed.out
    assert "2. Again?" not in printed.out


def test_an_interrupt_while_it_is_judged_shows_the_answers(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter((asyncio.run, asyncio.run, None))

    def interrupted(work: object) -> object:
        begin = next(calls)
        if begin is None:
            work.close()  # type: ignore[attr-defined]  # a coroutine that nobody awaits
            raise KeyboardInterrupt
        return begin(work)  # type: ignore[arg-type]  # a coroutine

    monkeypatch.setattr(asyncio, "run", interrupted)
    assert run(gpu0, gpu1, "--judge", "wise", "--judge-url", gpu0.url, prompts) == 130
    assert "2. Again?" in capsys.readouterr().out


def test_on_a_terminal_the_progress_is_told_and_wiped(
    gpu0: ScriptedEngine, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, screen = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(gpu0, gpu0, prompts) == 0
    assert terminal.getvalue() == "\r1/2\r2/2\r\x1b[K"
    assert "\x1b[32mgreen is no worse" in screen.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    screen.truncate(0)
    assert run(gpu0, gpu0, prompts) == 0
    assert "\x1b" not in screen.getvalue()


def test_an_error_of_both_gates_nothing(gpu0: ScriptedEngine, prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpu0.always(whole(503))
    assert run(gpu0, gpu0, "--model", "tiny", prompts) == 1
    assert capsys.readouterr().out.endswith("nothing could be compared: no prompt was answered by both\n")
