"""How far it is: told on a terminal from the first moment on, and nowhere else."""

import io
import sys

import pytest

from understudy.cli.compare_progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_stage_begins_with_nothing_done_and_is_wiped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress()
    progress.begin("asking", "prompts", 2)
    progress.step()
    assert progress.words == "1 of 2 prompts"
    progress.begin("judging", "pairs judged", 3)
    progress.clear()
    shown = terminal.getvalue().split("\r\x1b[K")
    assert shown == ["", "asking 0/2", "asking 1/2", "judging 0/3", ""]


def test_where_there_is_no_terminal_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress()
    progress.begin("asking", "prompts", 2)
    progress.step()
    progress.clear()
    assert stream.getvalue() == ""
    assert progress.words == "1 of 2 prompts"
