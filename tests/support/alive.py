"""Whether a process still runs, for plays about processes that end others or stand still."""

import os
import signal
from pathlib import Path

from support.waiting import until


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that has ended and was not asked how does not."""
    return _state(Path(f"/proc/{pid}/stat")) not in {"Z", ""}


def freeze(pid: int) -> None:
    """Stop the process (SIGSTOP) and return when each of its threads stands still; before that they may go on as they did."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    until(lambda: all(_state(each) in {"T", ""} for each in tasks.glob("*/stat")), f"{pid} stands still", every_s=0.001)


def _state(stat: Path) -> str:
    """Return the letter of proc(5), "" where there is no such process any more."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
