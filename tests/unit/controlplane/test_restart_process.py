"""Plays of real processes in groups of their own: how they start, are heard and end."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from support.alive import is_alive
from support.running import eventually
from support.waiting import until
from understudy.controlplane.restart_output import Output
from understudy.controlplane.restart_process import (
    Launch,
    ProcessGroup,
    StartError,
    environment_of,
    facts_of,
    is_out_of_memory,
    is_pid,
    program_of,
    seen_pids,
    status_in_words,
    words_of,
)

ENV = {"PATH": os.environ["PATH"]}
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def start(script: str, *, output: Output | None = None, dies_with_us: bool = False) -> ProcessGroup:
    launch = Launch(("sh", "-c", script), ENV, dies_with_us=dies_with_us)
    return ProcessGroup(launch, output or Output(asyncio.get_running_loop().time))


def hearing() -> Output:
    return Output(asyncio.get_running_loop().time)


async def test_a_program_runs_in_a_session_of_its_own_hears_nothing_and_is_heard_on_both_channels() -> None:
    output = hearing()
    group = start("cat; echo out; echo err >/dev/stderr; ps -o sid= -p $$ | tr -d ' '; exit 3", output=output)
    assert await group.wait() == 3
    await group.wait_silent(10.0)
    assert output.lines == ("out", "err", str(group.pid))
    assert not group.is_heard


async def test_a_signal_that_ended_it_is_a_negative_status() -> None:
    group = start("kill -SEGV $$")
    assert await group.wait() == -signal.SIGSEGV
    group.release()


async def test_a_program_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    output = hearing()
    group = start(STUBBORN, output=output)
    await eventually(lambda: output.lines, "ready")
    assert await group.end(0.05)
    assert group.exit_status == -signal.SIGKILL
    group.release()


async def test_a_program_that_heeds_sigterm_has_its_time() -> None:
    output = hearing()
    group = start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done", output=output)
    await eventually(lambda: output.lines, "ready")
    assert await group.end(10.0)
    await group.wait_silent()
    assert group.exit_status == 0
    assert output.lines[-1] == "bye"


async def test_a_stopped_program_goes_on_to_end_in_order() -> None:
    output = hearing()
    group = start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done", output=output)
    await eventually(lambda: output.lines, "ready")
    os.kill(group.pid, signal.SIGSTOP)
    assert await group.end(10.0)
    await group.wait_silent()
    assert output.lines[-1] == "bye"


@pytest.mark.parametrize("ignoring", ["", "trap '' TERM; "])
async def test_all_that_a_program_started_ends_with_it(ignoring: str) -> None:
    output = hearing()
    group = start(f"(sh -c '{ignoring}echo $$; while :; do sleep 0.05; done' &) ; exec sleep 1000", output=output)
    await eventually(lambda: output.lines, "the grandchild's pid")
    grandchild = int(output.lines[0])
    assert is_alive(grandchild)
    assert await group.end(0.2)
    assert not is_alive(grandchild)
    group.release()


async def test_what_an_ended_program_left_can_still_be_ended() -> None:
    output = hearing()
    group = start("sleep 1000 & echo $!", output=output)
    assert await group.wait() == 0
    await eventually(lambda: output.lines, "the pid")
    assert is_alive(int(output.lines[0]))
    assert await group.end(10.0)
    assert not is_alive(int(output.lines[0]))
    group.release()


async def test_a_grandchild_that_holds_the_pipe_keeps_nobody_waiting() -> None:
    group = start("sleep 1000 & exit 0")
    async with asyncio.timeout(5.0):
        assert await group.wait() == 0
        await group.wait_silent(0.05)
    assert group.is_heard
    await group.end(0.0)
    group.release()


async def test_to_end_an_ended_one_takes_no_time() -> None:
    group = start("exit 0")
    await group.wait()
    async with asyncio.timeout(5.0):
        assert await group.end(1000.0)
    group.release()


@pytest.mark.parametrize("has_pidfd", [True, False])
async def test_nobody_gets_a_signal_under_the_number_of_a_group_that_is_gone(
    has_pidfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives the number to somebody else, sooner or later."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    stranger = start("exec sleep 1000")
    try:
        unaided = start("exit 0")
        await unaided.wait()
        ended = start("sleep 1000 & exec sleep 1000")
        assert await ended.end(10.0)
        for gone in (unaided, ended):
            gone.pid = stranger.pid
            gone.kill()
            assert await gone.end(0.0)
            gone.release()
        assert is_alive(stranger.pid)
        assert stranger.exit_status is None
    finally:
        assert await stranger.end(0.0)
        stranger.release()


async def test_a_flood_is_read_slowly_and_costs_next_to_nothing() -> None:
    output = hearing()
    group = start("exec yes", output=output)
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun_at_s = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() - begun_at_s > 0.5, "half a second")
    after = resource.getrusage(resource.RUSAGE_SELF)
    # `eventually` itself looks every 5 ms; without a bound this takes all of the half second.
    assert after.ru_utime - before.ru_utime < 0.25
    assert output.lines[-1] == "y"
    assert await group.end(10.0)
    group.release()


@pytest.mark.parametrize(
    ("argv", "folder", "words"),
    [
        ((), "", "no program is named"),
        (("",), "", "no program is named"),
        (("understudy-no-such-program", "secret"), "", "there is no such program"),
        ((__file__, "secret"), "", "it is not executable by this user"),
        (("/", "secret"), "", "it is not executable by this user"),
        (("sleep", "secret"), "/no/such/folder", "there is no folder /no/such/folder"),
        (("sleep", "sec\0ret"), "", "hold what no program can get"),
    ],
)
async def test_what_cannot_be_started_says_why_and_shows_no_argument(argv: tuple[str, ...], folder: str, words: str) -> None:
    with pytest.raises(StartError) as caught:
        ProcessGroup(Launch(argv, ENV, folder), hearing())
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_file_that_is_no_program_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_bytes(b"\0\0\0\0")
    program.chmod(0o755)
    with pytest.raises(StartError, match="Exec format error"):
        ProcessGroup(Launch((str(program),), ENV), hearing())


async def test_the_folder_and_the_environment_are_those_given(tmp_path: Path) -> None:
    output = hearing()
    group = ProcessGroup(Launch(("sh", "-c", "pwd; echo $COLOR"), ENV | {"COLOR": "green"}, str(tmp_path)), output)
    await group.wait()
    await group.wait_silent(10.0)
    assert output.lines == (str(tmp_path), "green")


async def test_where_the_kernel_cannot_tell_of_an_end_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    group = start("read x; exit 4")
    assert await group.wait() == 4
    group.release()


async def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all that is wanted

    before = count()
    for _ in range(3):
        group = start("echo a; exit 0")
        await group.wait()
        await group.wait_silent(10.0)
    assert count() == before


def test_all_of_this_holds_under_uvloop() -> None:
    async def play() -> None:
        output = hearing()
        quick = start("echo a >/dev/stderr; exit 5", output=output, dies_with_us=True)
        assert await quick.wait() == 5
        await quick.wait_silent(10.0)
        assert output.lines == ("a",)
        heard = hearing()
        group = start(STUBBORN, output=heard)
        await eventually(lambda: heard.lines, "ready")
        assert await group.end(0.05)
        assert group.exit_status == -signal.SIGKILL
        group.release()
        flood = start("exec yes")
        assert await flood.end(10.0)
        assert flood.exit_status == -signal.SIGTERM
        flood.release()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


KILLED_PARENT = """
import asyncio, os, signal
from understudy.controlplane.restart_output import Output
from understudy.controlplane.restart_process import Launch, ProcessGroup

async def main():
    group = ProcessGroup(Launch(("sleep", "1000"), dict(os.environ), dies_with_us=True), Output(lambda: 0.0))
    print(group.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.run([sys.executable, "-c", KILLED_PARENT], stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    until(lambda: not is_alive(int(parent.stdout)), "the child's end")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1", True),
        ("4194304", True),
        ("", False),
        ("self", False),
        ("-1", False),
        ("\u00b2", False),
        ("\u0662", False),
        ("9" * 5000, False),
    ],
)
def test_a_process_has_a_number_of_plain_digits_and_few_of_them(text: str, is_one: bool) -> None:
    assert is_pid(text) is is_one


def test_the_kernel_tells_of_a_process_whose_it_is_and_whether_it_is_dead() -> None:
    assert os.getpid() in seen_pids()
    ours = facts_of(os.getpid())
    assert ours is not None
    assert (ours.is_dead, ours.parent, ours.group) == (False, os.getppid(), os.getpgid(0))
    with subprocess.Popen(["sh", "-c", "exit 0"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        dead = facts_of(child.pid)
        assert dead is not None
        assert (dead.is_dead, dead.parent) == (True, os.getpid())
        assert int(dead.started) >= int(ours.started)
    assert facts_of(child.pid) is None


def test_a_program_gets_our_environment_but_for_what_is_said_to_us_alone() -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/h",
        "UNDERSTUDY_ADMIN_TOKEN": "s",
        "NOTIFY_SOCKET": "n",
        "LISTEN_FDS": "1",
        "WATCHDOG_USEC": "1",
    }
    assert environment_of(ours) == {"PATH": "/bin", "HOME": "/h"}
    assert environment_of(ours, (("HOME", "/x"), ("UNDERSTUDY_ADMIN", "u"))) == {
        "PATH": "/bin",
        "HOME": "/x",
        "UNDERSTUDY_ADMIN": "u",
    }


def test_a_program_is_named_by_its_first_word() -> None:
    assert program_of(("llama-server", "--api-key", "secret")) == "llama-server"
    assert program_of(("a\nb" * 100,)).isprintable()
    assert program_of(()) == ""


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit status 0"),
        (-9, "was ended by SIGKILL"),
        (-63, "was ended by signal 63"),
        (128, "ended with exit status 128"),
        (137, "ended with exit status 137 (SIGKILL)"),
        (139, "ended with exit status 139 (SIGSEGV)"),
        (203, "ended with exit status 203"),
        (255, "ended with exit status 255"),
    ],
)
def test_an_end_is_said_in_words(status: int, words: str) -> None:
    assert words_of(status) == words


def test_a_sigkill_that_nothing_explains_leaves_open_whose_it_was() -> None:
    assert words_of(-9, is_unexplained=True) == "was ended by SIGKILL (the kernel's for want of memory, or somebody's)"
    assert words_of(-15, is_unexplained=True) == "was ended by SIGTERM"
    unexplained = "137 (SIGKILL, the kernel's for want of memory, or somebody's)"
    assert words_of(137, is_unexplained=True) == f"ended with exit status {unexplained}"
    assert status_in_words(137, is_unexplained=True) == unexplained
    assert status_in_words(143, is_unexplained=True) == "143 (SIGTERM)"


@pytest.mark.parametrize(
    ("status", "line", "is_kill_known", "is_it"),
    [
        (-9, b"", True, True),
        (137, b"", True, True),
        (-9, b"", False, False),
        (137, b"", False, False),
        (-9, b"CUDA out of memory\n", False, True),
        (1, b"CUDA out of memory\n", False, True),
        (0, b"CUDA out of memory\n", False, False),
        (1, b"x\n", True, False),
        (-15, b"", True, False),
    ],
)
def test_lack_of_memory_is_told_by_the_kernel_or_by_the_words(status: int, line: bytes, is_kill_known: bool, is_it: bool) -> None:
    output = Output(lambda: 0.0)
    output.feed(line)
    assert is_out_of_memory(status, output, lambda: is_kill_known) is is_it
