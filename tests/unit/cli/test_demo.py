"""The command `demo` and its exit codes; what it shows is played in tests/integration."""

import argparse
import signal
from collections.abc import Iterator

import pytest

from understudy.cli import demo
from understudy.demo import show
from understudy.demo.children import DemoError


@pytest.fixture(autouse=True)
def _own_signal() -> Iterator[None]:
    """Give SIGTERM back its meaning after the play."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*arguments: str) -> int:
    """Run the command with these arguments."""
    parser = argparse.ArgumentParser()
    demo.add(parser.add_subparsers())
    args = parser.parse_args(["demo", *arguments])
    return int(args.run(args))


def test_a_demo_that_went_well_is_0_and_stays_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[bool] = []

    def play(say: show.Say, *, is_staying: bool) -> None:
        say("hello")
        played.append(is_staying)

    monkeypatch.setattr(show, "run", play)
    assert (run(), run("--stay"), played) == (0, 0, [False, True])
    assert capsys.readouterr().out == "hello\nhello\n"


@pytest.mark.parametrize("error", [DemoError("the moon is out"), OSError(28, "the moon is out")])
def test_a_demo_that_went_wrong_is_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def play(say: show.Say, *, is_staying: bool) -> None:
        raise error

    monkeypatch.setattr(show, "run", play)
    assert run() == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the moon is out" in told


def test_a_demo_that_is_told_to_end_cleans_up_as_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(say: show.Say, *, is_staying: bool) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(show, "run", play)
    with pytest.raises(KeyboardInterrupt):
        run()


def test_a_reader_that_left_is_not_a_failed_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(say: show.Say, *, is_staying: bool) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(show, "run", play)
    with pytest.raises(BrokenPipeError):
        run()
