"""Plays of commands: what they come to, whatever they do."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from support.alive import is_alive
from support.running import eventually
from understudy.controlplane.restart_command import Commands
from understudy.controlplane.restart_memory import MemoryKills
from understudy.controlplane.restart_output import LINES_KEPT_MAX

ENV = {"PATH": os.environ["PATH"], "UNDERSTUDY_ADMIN_TOKEN": "token"}


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script, "secret")


async def test_a_command_that_ends_well_is_done() -> None:
    outcome = await Commands(ENV).run(sh("echo restarted"), 10.0)
    assert (outcome.is_done, outcome.words, outcome.exit_status, outcome.output) == (True, "", 0, ("restarted",))


async def test_a_command_that_fails_says_its_status_and_its_last_lines_and_none_of_its_arguments() -> None:
    outcome = await Commands(ENV).run(sh("seq 100; echo no route to host >&2; exit 255"), 10.0)
    assert not outcome.is_done
    assert outcome.words == "sh ended with exit status 255"
    assert outcome.exit_status == 255
    assert outcome.output == (*(str(i) for i in range(102 - LINES_KEPT_MAX, 101)), "no route to host")
    assert not outcome.was_out_of_memory


async def test_no_shell_reads_the_words() -> None:
    outcome = await Commands(ENV).run(("echo", "$(id); rm -rf *", "&&"), 10.0)
    assert outcome.output == ("$(id); rm -rf * &&",)


async def test_a_command_does_not_get_our_settings_and_waits_for_no_input() -> None:
    outcome = await Commands(ENV).run(sh("cat; echo [$UNDERSTUDY_ADMIN_TOKEN]"), 10.0)
    assert outcome.output == ("[]",)


async def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $$ $! >{pids}; echo begun; while :; do sleep 0.02; done"
    outcome = await Commands(ENV).run(sh(script), 0.5, grace_s=0.1)
    assert not outcome.is_done
    assert outcome.words == "sh did not end within 0.5s and was ended"
    assert outcome.exit_status == -signal.SIGKILL
    assert outcome.output == ("begun",)
    assert not outcome.was_out_of_memory, "we killed it, not the kernel"
    for pid in pids.read_text().split():
        assert not is_alive(int(pid))


async def test_a_flood_is_cut_and_ended_in_time() -> None:
    outcome = await Commands(ENV).run(("yes", "x" * 1000), 0.3)
    assert outcome.words == "yes did not end within 0.3s and was ended"
    assert outcome.output == ("x" * 300,) * LINES_KEPT_MAX


@pytest.mark.parametrize("script", ["kill -KILL $$", "exit 137", "echo CUDA out of memory; exit 1"])
async def test_a_command_that_dies_of_missing_memory_is_known(script: str, tmp_path: Path) -> None:
    kills = tmp_path / "memory.events"
    outcome = await Commands(ENV, MemoryKills(kills)).run(sh(f"echo oom_kill 1 >{kills}; {script}"), 10.0)
    assert outcome.was_out_of_memory


async def test_a_command_that_somebody_killed_did_not_run_out_of_memory() -> None:
    outcome = await Commands(ENV, MemoryKills(None)).run(sh("kill -KILL $$"), 10.0)
    assert not outcome.was_out_of_memory
    assert outcome.words == "sh was ended by SIGKILL (the kernel's for want of memory, or somebody's)"


async def test_a_command_that_is_not_there_is_said_to_be_so() -> None:
    outcome = await Commands(ENV).run(("understudy-no-such-program", "secret"), 10.0)
    assert outcome.words == "understudy-no-such-program cannot be started: there is no such program"
    assert outcome.exit_status is None


async def test_a_server_that_a_command_leaves_goes_on_and_may_write(tmp_path: Path) -> None:
    """As `nohup llama-server &` in a script: the next word of a server whose pipe was closed would be its last."""
    commands = Commands(ENV)
    counter = tmp_path / "counter"
    script = f"(while echo alive; do echo -n . >>{counter}; sleep 0.01; done) &"
    async with asyncio.timeout(10.0):
        outcome = await commands.run(sh(script), 10.0)
    assert outcome.is_done
    (left,) = commands._left
    read = counter.read_text
    heard = len(read())
    await eventually(lambda: len(read()) > heard + 3, "more of its words, each written where nobody listens")
    await left.end(0.0)
    commands.close()
    assert not left.is_heard


async def test_all_that_is_left_alive_is_heard_and_what_ended_is_forgotten() -> None:
    """However many there are: to stop listening would end a server that is well."""
    commands = Commands(ENV)
    await asyncio.gather(*(commands.run(sh("sleep 1000 & exit 0"), 10.0) for _ in range(20)))
    left = tuple(commands._left)
    assert len(left) == 20
    assert all(one.is_heard for one in left)
    await asyncio.gather(*(one.end(0.0) for one in left))
    await asyncio.gather(*(one.wait_silent(10.0) for one in left))
    await commands.run(sh("exit 0"), 10.0)
    assert len(commands._left) == 1
    commands.close()


async def test_a_command_whose_wait_is_given_up_is_killed(tmp_path: Path) -> None:
    commands = Commands(ENV)
    pid = tmp_path / "pid"
    running = asyncio.ensure_future(commands.run(sh(f"echo $$ >{pid}; sleep 1000"), 1000.0))
    await eventually(lambda: pid.exists() and pid.read_text(), "its start")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(int(pid.read_text()))
