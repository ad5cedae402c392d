"""Plays of children that were left: real small processes that bear the marks of daemons that are gone, or are not."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.alive import is_alive
from understudy.controlplane.restart_left import MARK, Left, end_left, find_left, mark_for, mark_of

# Of this run alone: others on the machine look for theirs.
FILE = f"{os.getpid():012}"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
READY = "echo ready; exec sleep 1000"


class Stage:
    """Processes, and what is told of their end."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, mark: str | None, script: str = READY) -> int:
        """Start one that has said that it is ready; returns its pid. `mark` None: it has none."""
        env = {"PATH": os.environ["PATH"]} | ({MARK: mark} if mark is not None else {})
        one = subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE)
        self._processes.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        return one.pid

    async def end(self, mark: str | None = None, **grace_s: float) -> None:
        await end_left(mark_for(FILE) if mark is None else mark, grace_s, lambda event, fields: self.told.append((event, fields)))

    def clear(self) -> None:
        for one in self._processes:
            one.kill()
            with one:
                pass


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    play = Stage()
    try:
        yield play
    finally:
        play.clear()


def daemon_that_is_gone() -> str:
    """Return the mark that a daemon gave, whose process is no more."""
    one = subprocess.Popen("true")
    one.wait()
    return f"{FILE}:{one.pid}:1:gpu0"


async def test_a_child_of_a_daemon_that_is_gone_is_ended_and_told() -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        await play.end(gpu0=10.0)
        assert not is_alive(pid)
        assert play.told == [("child.was_left", {"backend": "gpu0", "pid": pid, "ended": True})]
        await play.end(gpu0=10.0)
        assert len(play.told) == 1


async def test_what_a_child_has_started_is_ended_too_also_in_a_group_of_its_own() -> None:
    async with stage() as play:
        play.begin(daemon_that_is_gone(), "setsid sh -c 'echo ready; exec sleep 1000' & wait")
        assert len(find_left(mark_for(FILE))) == 2
        await play.end(gpu0=10.0)
        assert len(play.told) == 2
        assert find_left(mark_for(FILE)) == []


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone(), STUBBORN)
        await play.end(gpu0=0.05)
        assert not is_alive(pid)
        assert {"backend": "gpu0", "pid": pid, "ended": True} in [fields for _, fields in play.told]


async def test_a_child_that_is_stopped_is_ended_in_order() -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        os.kill(pid, signal.SIGSTOP)
        await play.end(gpu0=10.0)
        assert not is_alive(pid)


async def test_children_of_a_daemon_that_lives_of_other_files_and_of_nobody_are_left_alone() -> None:
    async with stage() as play:
        of_ours = mark_for(FILE)
        foreign = (daemon_that_is_gone()).replace(FILE, "ba9876543210")
        marks = [f"{of_ours}:gpu0", foreign, "", FILE, f"{FILE}:x:1:gpu0", None]
        pids = [play.begin(mark) for mark in marks]
        await play.end()
        assert all(map(is_alive, pids))
        assert play.told == []


async def test_a_daemon_whose_number_somebody_else_has_now_is_gone() -> None:
    async with stage() as play:
        _, own_pid, started = mark_for(FILE).split(":")
        pid = play.begin(f"{FILE}:{own_pid}:{int(started) + 1}:gpu0")
        assert find_left(mark_for(FILE)) == [Left(pid, "gpu0")]


async def test_a_daemon_without_a_file_has_no_mark_and_looks_for_nobody() -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        assert (mark_for(""), mark_of("", "gpu0")) == ("", {})
        await play.end(mark="")
        assert is_alive(pid)


def test_the_mark_names_the_file_the_daemon_and_the_backend() -> None:
    (found,) = mark_of(mark_for(FILE), "gpu0").items()
    assert found == (MARK, f"{mark_for(FILE)}:gpu0")
    assert found[1].split(":")[:2] == [FILE, str(os.getpid())]
