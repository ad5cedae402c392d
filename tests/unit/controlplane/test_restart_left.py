"""Children that were left are found, ended and told; whoever is not ours to end is left alone."""

import asyncio
import builtins
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop

from support.alive import is_alive
from support.left_play import FILE, READY, STUBBORN, Stage, daemon_that_is_gone, descriptors, found_pids, stage
from support.running import eventually
from understudy.controlplane import restart_left
from understudy.controlplane.restart_left import MARK, mark_for, mark_of
from understudy.controlplane.restart_process import facts_of


class Turnstile:
    """Holds up whoever opens a descriptor of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.let = threading.Event()
        self._open = os.pidfd_open
        monkeypatch.setattr(os, "pidfd_open", self._pass)

    def _pass(self, pid: int) -> int:
        self.is_reached.set()
        assert self.let.wait(10.0)
        return self._open(pid)


async def test_a_child_of_a_daemon_that_is_gone_is_ended_and_told() -> None:
    before = descriptors()
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        await play.left.end("gpu0", 10.0)
        assert not is_alive(pid)
        assert play.told == [("child.was_left", {"backend": "gpu0", "pid": pid, "ended": True})]
        await play.left.end("gpu0", 10.0)
        assert len(play.told) == 1
    assert descriptors() == before


async def test_a_child_whose_program_is_just_being_replaced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of execve(2) a process is read as one without an environment."""
    async with stage() as play:
        pid, reads = play.begin(daemon_that_is_gone()), 0
        really_open = builtins.open

        def open_mostly(path: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal reads
            reads += path == f"/proc/{pid}/environ"
            return really_open(os.devnull if path == f"/proc/{pid}/environ" and reads < 4 else path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", open_mostly)
        assert found_pids() == [pid]


async def test_who_has_ended_or_has_no_environment_is_nobody() -> None:
    async with stage() as play:
        ended = play.begin(daemon_that_is_gone(), "echo ready")
        await eventually(lambda: not is_alive(ended), "its end")
        play.begin(None, "echo ready; exec env -i sleep 1000")
        assert found_pids() == []


async def test_what_a_child_has_started_is_ended_too_also_in_a_group_of_its_own() -> None:
    async with stage() as play:
        play.begin(daemon_that_is_gone(), "setsid sh -c 'echo ready; exec sleep 1000' & wait")
        assert len(found_pids()) == 2
        await play.left.end("gpu0", 10.0)
        assert len(play.told) == 2
        assert found_pids() == []


@pytest.mark.parametrize(("script", "grace_s"), [(STUBBORN, 0.05), (READY, 10.0)])
async def test_a_child_that_is_stopped_is_ended_in_order_and_killed_after_its_grace(script: str, grace_s: float) -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone(), script)
        os.kill(pid, signal.SIGSTOP)
        await play.left.end("gpu0", grace_s)
        assert not is_alive(pid)
        assert play.outcome(pid) is True


async def test_children_of_a_daemon_that_lives_of_other_files_and_of_nobody_are_left_alone() -> None:
    async with stage() as play:
        of_ours = mark_for(FILE)
        foreign = daemon_that_is_gone().replace(FILE, "ba9876543210")
        _, namespace, _, started = of_ours.split(":")
        numbers = [f"{FILE}:{namespace}:{number}:{started}:gpu0" for number in ("x", "\u00b2", "-1", "", "9" * 10, "9" * 5000)]
        marks = [f"{of_ours}:gpu0", foreign, "", FILE, *numbers, None]
        pids = [play.begin(mark) for mark in marks]
        await play.left.end("gpu0", 10.0)
        await play.left.end_others([])
        assert all(map(is_alive, pids))
        assert play.told == []


async def test_children_of_another_pid_namespace_are_left_alone() -> None:
    """Their daemon's number is somebody else's here, or nobody's: it may well live in its container."""
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone(namespace="1"))
        await play.left.end("gpu0", 10.0)
        assert (is_alive(pid), play.told) == (True, [])


ENDS_WHAT_WAS_LEFT = """
import asyncio, os, subprocess, sys
from understudy.controlplane.restart_left import LeftChildren, mark_for

async def main():
    sibling = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    left = LeftChildren(mark_for(sys.argv[1]), lambda _event, fields: print(fields["pid"] == sibling.pid, fields["ended"]))
    await left.end("gpu0", 10.0)
    sibling.wait()

asyncio.run(main())
"""


def test_a_daemon_that_a_left_child_has_started_ends_neither_itself_nor_those_whom_it_descends_from() -> None:
    env = {"PATH": os.environ["PATH"], MARK: daemon_that_is_gone()}
    script = 'sh -c \'"$@"; echo parent\' sh "$@"; echo grandparent'
    ran = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", ENDS_WHAT_WAS_LEFT, FILE], env=env, stdout=subprocess.PIPE, check=False
    )
    assert ran.returncode == 0
    assert ran.stdout.decode().splitlines() == ["True True", "parent", "grandparent"]


async def test_a_daemon_whose_number_somebody_else_has_now_is_gone() -> None:
    async with stage() as play:
        *ours, started = mark_for(FILE).split(":")
        pid = play.begin(":".join([*ours, str(int(started) + 1), "gpu0"]))
        assert found_pids() == [pid]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EMFILE])
async def test_a_daemon_of_which_nothing_can_be_read_is_not_taken_for_gone(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as another user's, which /proc may hide."""
    async with stage() as play:
        daemon = play.begin(None)
        facts = facts_of(daemon)
        assert facts is not None
        file_id, namespace, *_ = mark_for(FILE).split(":")
        pid = play.begin(f"{file_id}:{namespace}:{daemon}:{facts.started}:gpu0")
        really_open = builtins.open

        def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
            if path == f"/proc/{daemon}/stat":
                raise OSError(number, "refused")
            return really_open(path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", refuse)
        await play.left.end("gpu0", 10.0)
        monkeypatch.undo()
        assert (is_alive(pid), play.told) == (True, [])


async def test_a_child_is_waited_for_by_its_own_name_alone() -> None:
    async with stage() as play:
        slow = play.begin(daemon_that_is_gone("slow"), STUBBORN)
        quick = play.begin(daemon_that_is_gone("quick"))
        waiting = asyncio.ensure_future(play.left.end("slow", 1000.0))
        await play.left.end("quick", 10.0)
        assert (is_alive(quick), is_alive(slow)) == (False, True)
        assert not waiting.done()
        await play.left.close()
        await waiting


async def test_those_of_backends_that_are_wanted_no_longer_are_ended_without_anybody_waiting() -> None:
    async with stage() as play:
        wanted, unwanted = play.begin(daemon_that_is_gone("gpu0")), play.begin(daemon_that_is_gone("gpu9"))
        await play.left.end_others(["gpu0"])
        assert is_alive(unwanted)
        await eventually(lambda: play.outcome(unwanted), "its end")
        assert (is_alive(unwanted), is_alive(wanted)) == (False, True)


async def test_who_waits_may_give_up_and_others_wait_on() -> None:
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone(), STUBBORN)
        first, second = (asyncio.ensure_future(play.left.end("gpu0", 0.3)) for _ in range(2))
        await eventually(lambda: play.left._ending, "the signal")
        first.cancel()
        await second
        assert first.cancelled()
        assert not is_alive(pid)
        assert play.outcome(pid) is True


async def test_to_close_ends_all_waiting_at_once_and_tells_whom_it_leaves() -> None:
    before = descriptors()
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone(), STUBBORN)
        held = play.begin(daemon_that_is_gone("gpu9"))
        waiting = asyncio.ensure_future(play.left.end("gpu0", 1000.0))
        await eventually(lambda: f"left.gpu0.{pid}" in {task.get_name() for task in asyncio.all_tasks()}, "its end's beginning")
        await asyncio.sleep(0)
        async with asyncio.timeout(5.0):
            await play.left.close()
            await waiting
            await play.left.end("gpu9", 1000.0)
        assert (is_alive(pid), is_alive(held)) == (True, True)
        assert (play.outcome(pid), play.outcome(held)) == (False, None)
    assert descriptors() == before


async def close_during_the_look(play: Stage, turnstile: Turnstile) -> None:
    waiting = asyncio.ensure_future(play.left.end("gpu0", 10.0))
    await eventually(turnstile.is_reached.is_set, "the look")
    async with asyncio.timeout(5.0):
        await play.left.close()
        await waiting


async def test_to_close_does_not_wait_for_a_look_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    before, turnstile = descriptors(), Turnstile(monkeypatch)
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        await close_during_the_look(play, turnstile)
        turnstile.let.set()
        await eventually(play.left._has_looked.is_set, "the look's end")
        assert (is_alive(pid), play.told) == (True, [])
    assert descriptors() == before


async def test_a_look_that_hangs_holds_nobody_up_and_whom_it_finds_late_the_next_restart_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restart_left, "LOOK_S_MAX", 0.01)
    turnstile = Turnstile(monkeypatch)
    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        async with asyncio.timeout(5.0):
            await play.left.end("gpu0", 10.0)
        assert is_alive(pid)
        turnstile.let.set()
        await eventually(play.left._has_looked.is_set, "the look's end")
        await play.left.end("gpu0", 10.0)
        assert not is_alive(pid)


def test_a_look_that_outlives_the_loop_keeps_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before, turnstile, play = descriptors(), Turnstile(monkeypatch), Stage()
    play.begin(daemon_that_is_gone())
    asyncio.run(close_during_the_look(play, turnstile))
    turnstile.let.set()
    for thread in threading.enumerate():
        if thread.name == "children":
            thread.join(10.0)
    play.clear()
    assert descriptors() == before


async def test_without_another_thread_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            await play.left.end("gpu0", 10.0)
        assert [looking.exception() for looking in (play.left._looking,) if looking] == [None]
        assert (is_alive(pid), play.told) == (True, [])


@pytest.mark.parametrize("missing", ["descriptors", "pidfd_open", "permission"])
async def test_a_process_that_cannot_be_ended_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: int) -> int:
        raise OSError(errno.EPERM if missing == "permission" else errno.EMFILE, "refused")

    async with stage() as play:
        pid = play.begin(daemon_that_is_gone())
        match missing:
            case "permission":
                monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
            case "descriptors":
                monkeypatch.setattr(os, "pidfd_open", refuse)
            case "pidfd_open":
                monkeypatch.delattr(os, "pidfd_open")
        await play.left.end("gpu0", 10.0)
        assert is_alive(pid)
        assert play.told == [("child.was_left", {"backend": "gpu0", "pid": pid, "ended": False})]


async def test_a_process_that_ends_while_it_is_found_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another's by then."""
    really_open = os.pidfd_open

    def open_and_end(pid: int) -> int:
        descriptor = really_open(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return descriptor

    async with stage() as play:
        play.begin(daemon_that_is_gone())
        before = descriptors()
        monkeypatch.setattr(os, "pidfd_open", open_and_end)
        assert found_pids() == []
        assert descriptors() == before


async def test_a_daemon_without_a_file_has_no_mark_and_looks_for_nobody() -> None:
    async with stage(mark="") as play:
        pid = play.begin(daemon_that_is_gone())
        assert (mark_for(""), mark_of("", "gpu0")) == ("", {})
        await play.left.end("gpu0", 10.0)
        await play.left.end_others([])
        assert is_alive(pid)


@pytest.mark.parametrize("case", ["/proc/self", "/proc/self/ns/pid", "another's /proc"])
def test_there_is_no_mark_where_the_namespace_cannot_be_told(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as in a new PID namespace with the /proc of the old one, which numbers processes otherwise."""
    really_read = Path.readlink

    def read(path: Path) -> Path:
        if str(path) == case:
            raise PermissionError(errno.EACCES, "not permitted")
        return Path("1") if str(path) == "/proc/self" else really_read(path)

    monkeypatch.setattr(Path, "readlink", read)
    assert mark_for(FILE) == ""


def test_the_mark_names_the_file_the_namespace_the_daemon_and_the_backend() -> None:
    (found,) = mark_of(mark_for(FILE), "gpu0").items()
    assert found == (MARK, f"{mark_for(FILE)}:gpu0")
    file_id, namespace, pid, started, _ = found[1].split(":")
    assert (file_id, pid) == (FILE, str(os.getpid()))
    assert Path("/proc/self/ns/pid").readlink().name == f"pid:[{namespace}]"
    assert int(started) > 0


def test_what_was_left_is_ended_under_uvloop() -> None:
    async def play_all() -> None:
        async with stage() as play:
            pid = play.begin(daemon_that_is_gone(), STUBBORN)
            await play.left.end("gpu0", 0.05)
            assert play.outcome(pid) is True

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play_all())
