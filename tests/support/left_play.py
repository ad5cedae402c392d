"""Plays of children that were left: real small processes that bear the marks of daemons that are gone, or are not."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from understudy.controlplane.restart_left import MARK, LeftChildren, find_left, mark_for

# Of this run alone: others on the machine look for theirs.
FILE = f"{os.getpid():012}"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
READY = "echo ready; exec sleep 1000"


def descriptors() -> int:
    """Count those that this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Stage:
    """Processes, and what is told of their end."""

    def __init__(self, mark: str | None = None) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []
        mark = mark_for(FILE) if mark is None else mark
        self.left = LeftChildren(mark, lambda event, fields: self.told.append((event, fields)))
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, mark: str | None, script: str = READY) -> int:
        """Start one that has said that it is ready; returns its pid. `mark` None: it has none."""
        env = {"PATH": os.environ["PATH"]} | ({MARK: mark} if mark is not None else {})
        one = subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE)
        self._processes.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        return one.pid

    def outcome(self, pid: int) -> object:
        return next((fields["ended"] for _, fields in self.told if fields["pid"] == pid), None)

    def clear(self) -> None:
        for one in self._processes:
            one.kill()
            with one:
                pass


@asynccontextmanager
async def stage(mark: str | None = None) -> AsyncIterator[Stage]:
    play = Stage(mark)
    try:
        yield play
    finally:
        await play.left.close()
        play.clear()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def number_of_nobody() -> int:
    one = subprocess.Popen("true")
    one.wait()
    return one.pid


def daemon_that_is_gone(backend: str = "gpu0", namespace: str = "") -> str:
    """Return the mark that a daemon gave, whose process is no more; `namespace` "" is ours."""
    return f"{FILE}:{namespace or mark_for(FILE).split(':')[1]}:{number_of_nobody()}:1:{backend}"


def found_pids() -> list[int]:
    found = find_left(mark_for(FILE))
    for left in found:
        left.close()
    return [left.pid for left in found]
