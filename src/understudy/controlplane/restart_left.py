"""Children that an earlier daemon has left: found by a mark in their environment, and ended before others take their place.

Called by controlplane.restart_child before its first start. A daemon that is killed outright ends nobody, and a child that stays
keeps its port and its memory. Linux only (proc(5), pidfd_open(2)); elsewhere nobody is found. Leaves alone whatever belongs to a
daemon that lives, and whoever has no mark of this very file.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from understudy.controlplane.restart_process import KILL_S_MAX

# Given to every child and passed on to what it starts: MARK=FILE:PID:STARTED:BACKEND, the daemon's process and when it began.
MARK: Final = "UNDERSTUDY_CHILD"
# To read of a process that hangs in the kernel may take for ever.
LOOK_S_MAX: Final = 5.0
# Of a backend that is no longer in the file.
GRACE_S_DEFAULT: Final = 10.0

_MARK_BYTES: Final = MARK.encode() + b"="
_ENVIRONMENT_BYTES_MAX: Final = 2 * 1024 * 1024
# The fields of proc(5)'s stat are counted from behind the name, whose end is the third field's start.
_STARTED_FIELD: Final = 22 - 3
_STATE_FIELD: Final = 3 - 3
_DEAD: Final = frozenset({b"Z", b"X"})


@dataclass(frozen=True, slots=True)
class Left:
    """A process that was left, by the name of its backend."""

    pid: int
    backend: str


def mark_for(file_id: str) -> str:
    """Return the mark of this daemon, which runs by the file of that id; "" where a mark could not be found again."""
    started = _started(os.getpid())
    return f"{file_id}:{os.getpid()}:{started}" if file_id and started else ""


def mark_of(mark: str, backend: str) -> dict[str, str]:
    """Return what a backend's child gets to its environment."""
    return {MARK: f"{mark}:{backend}"} if mark else {}


async def end_left(mark: str, grace_s: Mapping[str, float], tell: Callable[[str, dict[str, object]], None]) -> None:
    """End what daemons before this one have left: SIGTERM, SIGKILL after the backend's `grace_s`; tell `child.was_left` of each.

    Returns when they are gone, or are known not to go. Raises nothing for what a machine can cause.
    """
    if not mark:
        return
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            found = await _look(mark)
    except TimeoutError:
        return
    await asyncio.gather(*(_end(left, mark, grace_s.get(left.backend, GRACE_S_DEFAULT), tell) for left in found))


def _look(mark: str) -> "asyncio.Future[list[Left]]":
    """Find in a thread that nobody waits for at the end, as those of an executor would be."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Left]] = loop.create_future()

    def give(left: list[Left]) -> None:
        if not found.done():
            found.set_result(left)

    def look() -> None:
        left = find_left(mark)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(give, left)

    threading.Thread(target=look, name="children", daemon=True).start()
    return found


def find_left(mark: str) -> list[Left]:
    """Look through all processes for those that bear the mark of this file and of a daemon that is gone. Blocks."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208  # hundreds of Paths would take longer than the reading
    except OSError:
        return []
    return [left for name in names if name.isdigit() and (left := _left(int(name), mark)) is not None]


def _left(pid: int, mark: str) -> Left | None:
    parts = tuple(_mark_in(pid).split(":", 3))
    match parts:
        case (file_id, daemon_pid, started, backend) if file_id == mark.partition(":")[0] and daemon_pid.isdigit():
            return Left(pid, backend) if _started(int(daemon_pid)) != started else None
    return None


async def _end(left: Left, mark: str, grace_s: float, tell: Callable[[str, dict[str, object]], None]) -> None:
    try:
        descriptor = os.pidfd_open(left.pid)
    except (AttributeError, OSError):
        # It has ended by itself, or the kernel is older than 5.3.
        return
    try:
        # Its number may be another's since it was found; from now on the descriptor stands for one process.
        if _left(left.pid, mark) != left:
            return
        is_gone = await _signalled(descriptor, signal.SIGTERM, grace_s) or await _signalled(
            descriptor, signal.SIGKILL, KILL_S_MAX
        )
    finally:
        os.close(descriptor)
    tell("child.was_left", {"backend": left.backend, "pid": left.pid, "ended": is_gone})


async def _signalled(descriptor: int, number: signal.Signals, within_s: float) -> bool:
    """Send a signal and wait; returns whether the process is gone."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        signal.pidfd_send_signal(descriptor, number)
        # One that is stopped hears it when it goes on.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        async with asyncio.timeout(within_s):
            await gone.wait()
    except ProcessLookupError:
        return True
    except (PermissionError, TimeoutError):
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _mark_in(pid: int) -> str:
    """Return the mark that a process was given, "" where it has none, is not ours to read, or is gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:  # noqa: PTH123  # as restart_process reads stat
            content = environ.read(_ENVIRONMENT_BYTES_MAX)
    except OSError:
        return ""
    found = next((each for each in content.split(b"\0") if each.startswith(_MARK_BYTES)), b"")
    return found.removeprefix(_MARK_BYTES).decode(errors="replace")


def _started(pid: int) -> str:
    """Return when a living process began, in clock ticks since the machine did; "" where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  # as above
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if len(fields) <= _STARTED_FIELD or fields[_STATE_FIELD] in _DEAD else fields[_STARTED_FIELD].decode()
