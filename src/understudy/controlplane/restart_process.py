"""One process with a group of its own: started without a shell, heard without waiting for it, ended with all that it started.

Used by controlplane.restart_command and restart_child; restart_left reads /proc by it. Decides nothing about when; blocks on
nothing but fork and exec.

Popen rather than asyncio's subprocesses: uvloop gives a child a socket for its output, which /dev/stderr cannot open again, and
reads on while its reading is paused.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Final, cast

from understudy.controlplane.restart_output import Output
from understudy.telemetry.console import printable

# How long a killed group may take to go; longer means that it hangs within the kernel, such as in a driver.
KILL_S_MAX: Final = 5.0
# How long the rest of an ended process's output is waited for; a process that it left may hold the pipe for ever.
REST_S_MAX: Final = 0.5

# What is read at once, how fast on the whole, and the shortest pause between two reads: `yes` costs 1 % of a core instead of
# all of it, and the pipe holds what comes meanwhile.
_READ_BYTES_MAX: Final = 64 * 1024
_READ_BYTES_PER_S: Final = 1024 * 1024
_READ_PAUSE_S: Final = 0.01
# Where the kernel cannot tell of an end.
_LOOK_AGAIN_S: Final = 0.02
# For groups, of whose end it never tells; to look for one goes through all processes.
_LOOK_AT_GROUP_S: Final = 0.1
_LOOK_AT_GROUP_S_MAX: Final = 0.3
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
# A pid_t holds more; no kernel gives more than 2^22 (proc(5), pid_max).
_PID_DIGITS_MAX: Final = 9
# Counted from the third field of proc(5)'s stat.
_STARTED_FIELD: Final = 22 - 3
_DEAD: Final = frozenset({b"Z", b"X"})
_PROGRAM_CHARS_MAX: Final = 100
# What shells add to the number of the signal (POSIX, sh, 2.8.2), and the last of the signals that are none of real time.
_SIGNALED: Final = 128
_SIGNAL_MAX: Final = 31

# What is said to this process alone: its settings, its sockets and whom it reports to (sd_listen_fds(3), sd_notify(3)).
_OURS_ALONE: Final = ("UNDERSTUDY_", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_")


class StartError(Exception):
    """A program cannot be started; the message says which and why, in one line."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: `env` is all of its environment, `folder` "" ours. `dies_with_us`: it is told to stop when we are killed."""

    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    folder: str = ""
    dies_with_us: bool = False


def environment_of(ours: Mapping[str, str], added: tuple[tuple[str, str], ...] = ()) -> dict[str, str]:
    """Return the environment for a program that we start: ours but for what is said to us alone, and then `added`.

    Whatever else we were given is passed on, secrets for which the file says ${NAME} among them: they cannot be told apart from
    what the program needs.
    """
    return {name: value for name, value in ours.items() if not name.startswith(_OURS_ALONE)} | dict(added)


def program_of(argv: tuple[str, ...]) -> str:
    """Name a program by the first word of its argv alone: the others may hold secrets."""
    return printable(argv[0])[:_PROGRAM_CHARS_MAX] if argv else ""


def words_of(exit_status: int, *, is_unexplained: bool = False) -> str:
    """Say in words how a process ended; a negative status is the signal that ended it.

    `is_unexplained`: neither we nor, as far as is known, the kernel's want of memory ended it.
    """
    if exit_status >= 0:
        return f"ended with exit status {status_in_words(exit_status, is_unexplained=is_unexplained)}"
    if exit_status == -signal.SIGKILL and is_unexplained:
        return "was ended by SIGKILL (the kernel's for want of memory, or somebody's)"
    try:
        return f"was ended by {signal.Signals(-exit_status).name}"
    except ValueError:
        return f"was ended by signal {-exit_status}"


def status_in_words(exit_status: int, *, is_unexplained: bool = False) -> str:
    """Write an exit status of 0 or more; with the signal, where shells and containers say by 128 and its number that it was one.

    `is_unexplained` as for `words_of`.
    """
    number = exit_status - _SIGNALED
    if number == signal.SIGKILL and is_unexplained:
        return f"{exit_status} (SIGKILL, the kernel's for want of memory, or somebody's)"
    # Above these are statuses that programs end with for reasons of their own, such as 255.
    if not 0 < number <= _SIGNAL_MAX:
        return str(exit_status)
    try:
        return f"{exit_status} ({signal.Signals(number).name})"
    except ValueError:
        return str(exit_status)


def is_out_of_memory(exit_status: int, output: Output, is_kill_known: Callable[[], bool]) -> bool:
    """Tell whether a process that ended by itself did so for lack of memory: it says so, or the kernel killed it for that.

    `is_kill_known` is asked of SIGKILL alone, whether the kernel has killed; 137 is what shells and containers make of SIGKILL.
    """
    if exit_status in {-signal.SIGKILL, _SIGNALED + signal.SIGKILL} and is_kill_known():
        return True
    return exit_status != 0 and output.tells_out_of_memory


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What the kernel tells of a process. `started`: in clock ticks since the machine did. `is_dead`: awaits being asked how."""

    is_dead: bool
    parent: int
    group: int
    started: str


def seen_pids() -> list[int]:
    """List all processes that we can see, on Linux. Raises OSError."""
    return [int(name) for name in os.listdir("/proc") if is_pid(name)]  # noqa: PTH208  # hundreds of Paths would take longer


def is_pid(text: str) -> bool:
    """Tell whether a text is a number that a process may have; `isdigit` alone takes powers and the like, `int` does not."""
    return text.isascii() and text.isdigit() and len(text) <= _PID_DIGITS_MAX


def facts_of(pid: int) -> ProcessFacts | None:
    """Read /proc/PID/stat (proc(5)); None where no such process is seen. Raises OSError where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  # read of hundreds at once
            # The name may hold anything; the third field begins behind its end.
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if len(fields) <= _STARTED_FIELD:
        return None
    return ProcessFacts(fields[0] in _DEAD, int(fields[1]), int(fields[2]), fields[_STARTED_FIELD].decode())


class ProcessGroup:
    """A started program, leader of its own session, and whatever it starts that stays in its group.

    Its output goes to `output` until it is closed by all who hold it, or `release` is called. Raises StartError.
    """

    def __init__(self, launch: Launch, output: Output) -> None:
        self._loop = asyncio.get_running_loop()
        self._output = output
        self._popen = _start(launch)
        self.pid = self._popen.pid
        self._exited = asyncio.Event()
        # From then on the number may be that of a stranger's group.
        self._is_gone = False
        self._silent = asyncio.Event()
        self._reading_again: asyncio.TimerHandle | None = None
        self._stdout = cast("IO[bytes]", self._popen.stdout)
        self._pipe = self._stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._watch()

    @property
    def exit_status(self) -> int | None:
        """The leader's, negative for the signal that ended it; None while it runs."""
        return self._popen.returncode

    @property
    def is_heard(self) -> bool:
        """Whether output can still come."""
        return not self._silent.is_set()

    async def wait(self) -> int:
        """Return the leader's exit status when it has ended, whatever it leaves behind."""
        await self._exited.wait()
        return self._popen.returncode

    async def wait_silent(self, within_s: float = REST_S_MAX) -> None:
        """Return when the output is complete, or the time is up."""
        try:
            async with asyncio.timeout(within_s):
                await self._silent.wait()
        except TimeoutError:
            pass

    async def end(self, grace_s: float) -> bool:
        """End the whole group: SIGTERM, after `grace_s` SIGKILL. Returns whether it is gone; at once where it already was."""
        if self._is_gone:
            return True
        self._signal(signal.SIGTERM)
        # A stopped process gets a signal when it goes on, and so has its chance to end in order, as systemd gives it.
        self._signal(signal.SIGCONT)
        if await self._is_gone_within(grace_s):
            return True
        self.kill()
        return await self._is_gone_within(KILL_S_MAX)

    def kill(self) -> None:
        """Send SIGKILL to the whole group, without waiting for its end; to nobody where it is known to be gone."""
        self._signal(signal.SIGKILL)

    def release(self) -> None:
        """Listen no more; whoever still writes gets SIGPIPE. The end of the leader is awaited all the same."""
        if self._silent.is_set():
            return
        self._silent.set()
        if self._reading_again is not None:
            self._reading_again.cancel()
        self._loop.remove_reader(self._pipe)
        self._stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._is_gone:
            return
        # Gone, or of another user (sudo), whom only waiting can tell to be gone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _is_gone_within(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._exited.wait()
                pause_s = _LOOK_AT_GROUP_S
                while self._has_members():
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LOOK_AT_GROUP_S_MAX)
        except TimeoutError:
            return self._exited.is_set() and not self._has_members()
        return True

    def _has_members(self) -> bool:
        """Tell whether anybody of an ended leader's group is left; once nobody is, nobody ever is."""
        self._is_gone = self._is_gone or not self._finds_members()
        return not self._is_gone

    def _finds_members(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        # An ended member counts for killpg until its parent has asked how; the first process of a container may never do so.
        return sys.platform != "linux" or _has_living_member(self.pid)

    # --- its end

    def _watch(self) -> None:
        """Have the leader's end told by a pidfd, which works under every loop and needs neither SIGCHLD nor a thread."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # No Linux, or one older than 5.3.
            self._look()
        else:
            self._loop.add_reader(descriptor, self._on_end, descriptor)

    def _on_end(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._popen.wait()
        self._on_exit()

    def _look(self) -> None:
        if self._popen.poll() is None:
            self._loop.call_later(_LOOK_AGAIN_S, self._look)
        else:
            self._on_exit()

    def _on_exit(self) -> None:
        # At once, while the number cannot have gone to anybody else; the costly look at each member is not needed for that.
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            self._is_gone = True
        except PermissionError:
            pass
        self._exited.set()

    # --- its output

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.release()
            return
        self._output.feed(data)
        self._loop.remove_reader(self._pipe)
        pause_s = max(_READ_PAUSE_S, len(data) / _READ_BYTES_PER_S)
        self._reading_again = self._loop.call_later(pause_s, self._read_again)

    def _read_again(self) -> None:
        self._reading_again = None
        self._loop.add_reader(self._pipe, self._read)


def _start(launch: Launch) -> "subprocess.Popen[bytes]":
    """Start it. Raises StartError."""
    program = program_of(launch.argv)
    if not program:
        raise StartError("no program is named")
    if launch.folder and not os.path.isdir(launch.folder):  # noqa: PTH112  # a Path would take it apart first
        raise StartError(f"{program} cannot be started: there is no folder {printable(launch.folder)}")
    try:
        return subprocess.Popen(  # noqa: S603  # an argv that the operator wrote, without a shell
            launch.argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=launch.folder or None,
            env=launch.env,
            start_new_session=True,
            preexec_fn=_end_with_us() if launch.dies_with_us else None,  # noqa: PLW1509  # it makes one system call
        )
    except FileNotFoundError:
        raise StartError(f"{program} cannot be started: there is no such program") from None
    except PermissionError:
        raise StartError(f"{program} cannot be started: it is not executable by this user") from None
    except OSError as exc:
        raise StartError(f"{program} cannot be started: {exc.strerror or exc}") from None
    except (ValueError, subprocess.SubprocessError):
        # Their texts may name what they were given.
        raise StartError(f"{program} cannot be started: its arguments or environment hold what no program can get") from None


def _has_living_member(group: int) -> bool:
    """Look for a process of the group that is no zombie."""
    for pid in seen_pids():
        try:
            facts = facts_of(pid)
        except OSError:
            continue
        if facts is not None and facts.group == group and not facts.is_dead:
            return True
    return False


def _end_with_us() -> Callable[[], None] | None:
    """Return what has the child told to stop when we are killed in a way that cannot be answered; None where nothing does.

    Only the child itself is told, not what it starts; a service manager ends those.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    # Looked up before the fork: afterwards nothing must be loaded.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            # We were gone before we could be watched.
            os._exit(1)

    return ask
