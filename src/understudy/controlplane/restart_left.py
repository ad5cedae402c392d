"""Children that an earlier daemon has left: found by a mark in their environment, and ended before others take their place.

Called by controlplane.restart_child before it starts a child. A daemon that is killed outright ends nobody, and a child that
stays keeps its port and its memory. Linux only (proc(5), pidfd_open(2)); elsewhere nobody is found. Leaves alone whatever belongs
to a daemon that lives or to another PID namespace, whoever has no mark of this very file, and those whom we descend from.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from understudy.controlplane.restart_process import KILL_S_MAX, facts_of, is_pid, seen_pids

# Given to every child and passed on to what it starts: MARK=FILE:NAMESPACE:PID:STARTED:BACKEND, the daemon's process, when it
# began, and the PID namespace in which that number is its own: the same number is another process in a container.
MARK: Final = "UNDERSTUDY_CHILD"
# To read of a process that hangs in the kernel may take for ever.
LOOK_S_MAX: Final = 5.0
# Of a backend that is no longer in the file.
GRACE_S_DEFAULT: Final = 10.0

_MARK_BYTES: Final = MARK.encode() + b"="
_ENVIRONMENT_BYTES_MAX: Final = 2 * 1024 * 1024
# How often, and after how long, a process is read again whose program is just being replaced.
_READS_MAX: Final = 20
_READ_AGAIN_S: Final = 0.01

Tell = Callable[[str, dict[str, object]], None]


def mark_for(file_id: str) -> str:
    """Return the mark of this daemon, which runs by the file of that id; "" where a mark could not be found again."""
    try:
        # What is mounted there may number processes otherwise than the system calls do: every number would be a stranger's.
        is_ours = Path("/proc/self").readlink().name == str(os.getpid())
        # pid:[4026531836], user_namespaces(7).
        namespace = Path("/proc/self/ns/pid").readlink().name.partition("[")[2].rstrip("]")
        facts = facts_of(os.getpid())
    except OSError:
        return ""
    return f"{file_id}:{namespace}:{os.getpid()}:{facts.started}" if file_id and namespace and is_ours and facts else ""


def mark_of(mark: str, backend: str) -> dict[str, str]:
    """Return what a backend's child gets to its environment."""
    return {MARK: f"{mark}:{backend}"} if mark else {}


@dataclass(frozen=True, slots=True)
class Left:
    """A process that was left, by the name of its backend.

    `descriptor` stands for it alone, whoever has its number later; to be closed. -1: none could be had (no descriptors, an old
    kernel), and it cannot be ended.
    """

    pid: int
    backend: str
    descriptor: int = -1

    def close(self) -> None:
        """Give the descriptor back; once."""
        if self.descriptor >= 0:
            os.close(self.descriptor)


class LeftChildren:
    """What daemons before this one have left: looked for once, each backend's ended when its place is wanted.

    `mark` is that of `mark_for`. Tells `child.was_left` of every process that it has begun to end.
    Raises nothing for what a machine can cause.
    """

    def __init__(self, mark: str, tell: Tell) -> None:
        self._mark = mark
        self._tell = tell
        self._looking: asyncio.Task[None] | None = None
        self._has_looked = asyncio.Event()
        # Those whose end is yet to come, by backend, and the tasks that end others'.
        self._found: dict[str, list[Left]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    async def end(self, backend: str, grace_s: float) -> None:
        """End a backend's: SIGTERM, SIGKILL after `grace_s`. Returns when they are gone, are known not to go, or at `close`."""
        await self._look()
        self._begin_end(backend, grace_s)
        if ending := self._ending.get(backend):
            # Neither ends the other: who waits may give up, and the task may be cancelled.
            await asyncio.wait({ending})

    async def end_others(self, backends: Collection[str]) -> None:
        """Begin to end those that are none of these backends'; returns when they are found."""
        await self._look()
        for backend in self._found.keys() - set(backends):
            self._begin_end(backend, GRACE_S_DEFAULT)

    async def close(self) -> None:
        """Look and wait no more, whoever waits for either. What has not ended by now is left to the next daemon."""
        self._is_closed = True
        found = [left for of_one in self._found.values() for left in of_one]
        self._found.clear()
        for left in found:
            left.close()
        tasks = {*self._ending.values(), *([self._looking] if self._looking else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _look(self) -> None:
        if not self._mark or self._is_closed:
            return
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._find(), name="left.look")
        if not self._looking.done():
            await asyncio.wait({self._looking})

    async def _find(self) -> None:
        """Find in a thread that nobody waits for at the end, as those of an executor would be.

        Silent where that cannot be done or takes too long: nobody is known of whom to tell. A child whose port is taken for that
        reason says so itself, and what is found too late is ended when that child is restarted.
        """
        loop = asyncio.get_running_loop()

        def look() -> None:
            found = find_left(self._mark)
            try:
                loop.call_soon_threadsafe(self._take, found)
            except RuntimeError:
                # The loop is no more.
                for left in found:
                    left.close()

        try:
            threading.Thread(target=look, name="children", daemon=True).start()
        except RuntimeError:
            # No more threads are to be had.
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S_MAX):
                await self._has_looked.wait()

    def _take(self, found: list[Left]) -> None:
        for left in found:
            if self._is_closed:
                left.close()
            else:
                self._found.setdefault(left.backend, []).append(left)
        self._has_looked.set()

    def _begin_end(self, backend: str, grace_s: float) -> None:
        found = self._found.pop(backend, [])
        if not found:
            return

        def forget(_task: "asyncio.Task[None]") -> None:
            # Here, for a task that is cancelled before its first step has no way out of its own.
            del self._ending[backend]
            for left in found:
                left.close()

        task = asyncio.get_running_loop().create_task(self._end(found, grace_s), name=f"left.{backend}")
        self._ending[backend] = task
        task.add_done_callback(forget)

    async def _end(self, found: list[Left], grace_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for left in found:
                tasks.create_task(self._end_one(left, grace_s), name=f"left.{left.backend}.{left.pid}")

    async def _end_one(self, left: Left, grace_s: float) -> None:
        is_gone = False
        try:
            is_gone = await _is_ended(left.descriptor, signal.SIGTERM, grace_s) or await _is_ended(
                left.descriptor, signal.SIGKILL, KILL_S_MAX
            )
        finally:
            self._tell("child.was_left", {"backend": left.backend, "pid": left.pid, "ended": is_gone})


def find_left(mark: str) -> list[Left]:
    """Look through all processes for those that bear the mark of this file and of a daemon that is gone. Blocks.

    Raises nothing: nobody is found where that cannot be told.
    """
    try:
        ours = _own_line()
        pids = seen_pids()
    except OSError:
        return []
    return [left for pid in pids if pid not in ours and (left := _hold(pid, mark)) is not None]


def _own_line() -> set[int]:
    """Return ourselves and those whom we descend from: a marked child of a daemon that is gone may have started us."""
    line, pid = set[int](), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        facts = facts_of(pid)
        pid = facts.parent if facts else 0
    return line


def _hold(pid: int, mark: str) -> Left | None:
    """Return a process that was left, with a descriptor of it; None where it is none, or is gone."""
    backend = _backend_of(pid, mark)
    if backend is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except (AttributeError, OSError):
        return Left(pid, backend)
    left = Left(pid, backend, descriptor)
    # Its number may have become another's; from now on the descriptor stands for one process.
    if _backend_of(pid, mark) == backend:
        return left
    left.close()
    return None


def _backend_of(pid: int, mark: str) -> str | None:
    """Return whose child it is, where a daemon of our file and namespace has left it."""
    ours = mark.split(":")[:2]
    parts = tuple(_mark_in(pid).split(":", 4))
    match parts:
        case (file_id, namespace, daemon, started, backend) if [file_id, namespace] == ours and is_pid(daemon):
            return backend if _is_gone(int(daemon), started) else None
    return None


def _is_gone(pid: int, started: str) -> bool:
    """Tell whether the process that began then is gone; False where it cannot be told."""
    try:
        facts = facts_of(pid)
        if facts is None:
            # /proc may hide the processes of other users (hidepid of proc(5)); the kernel still knows them.
            os.kill(pid, 0)
            return False
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return facts.is_dead or facts.started != started


async def _is_ended(descriptor: int, number: signal.Signals, within_s: float) -> bool:
    """Send a signal and wait; returns whether the process is gone."""
    if descriptor < 0:
        return False
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, gone.set)
        signal.pidfd_send_signal(descriptor, number)
        # One that is stopped hears it when it goes on.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        async with asyncio.timeout(within_s):
            await gone.wait()
    except ProcessLookupError:
        return True
    except OSError:
        # Of another user (sudo), or the time is up.
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _mark_in(pid: int) -> str:
    """Return the mark that a process was given, "" where it has none, is not ours to read, or is gone."""
    content = b""
    try:
        for _ in range(_READS_MAX):
            with open(f"/proc/{pid}/environ", "rb") as environ:  # noqa: PTH123  # as restart_process reads stat
                content = environ.read(_ENVIRONMENT_BYTES_MAX)
            if content:
                break
            # In the midst of execve(2) the environment is read as empty. Of who has ended and of the kernel's own threads it is
            # so for good: they have no program, which raises.
            Path(f"/proc/{pid}/exe").readlink()
            time.sleep(_READ_AGAIN_S)
    except OSError:
        return ""
    found = next((each for each in content.split(b"\0") if each.startswith(_MARK_BYTES)), b"")
    return found.removeprefix(_MARK_BYTES).decode(errors="replace")
