"""Restart by a command: an argv without a shell, bounded in time and output.

Called by controlplane.restart_means and restart_systemd. Never shows more of the argv than its first word.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_memory import MemoryKills, events_path
from understudy.controlplane.restart_output import Output
from understudy.controlplane.restart_process import (
    Launch,
    ProcessGroup,
    StartError,
    environment_of,
    is_out_of_memory,
    program_of,
    words_of,
)

# How long a command that takes too long has to end in order.
COMMAND_GRACE_S: Final = 2.0


class Commands:
    """Runs commands with the environment `env` but for what is said to this process alone.

    A command may leave a server behind that holds its output. That is read on and dropped, for to close the pipe would end the
    server at its next word (SIGPIPE). For that reason they have no bound of their own: each is a server that lives, and who has
    ended is forgotten. `kills` None: those of our own control group.
    """

    def __init__(self, env: Mapping[str, str], kills: MemoryKills | None = None) -> None:
        self._env = environment_of(env)
        self._kills = kills or MemoryKills(events_path())
        self._left: list[ProcessGroup] = []

    async def run(self, argv: tuple[str, ...], timeout_s: float, *, grace_s: float = COMMAND_GRACE_S) -> MeansOutcome:
        """Run it and say what became of it; after `timeout_s` its group gets SIGTERM and `grace_s` later SIGKILL."""
        program = program_of(argv)
        output = Output(asyncio.get_running_loop().time)
        kills_before = self._kills.count()
        try:
            group = ProcessGroup(Launch(argv, self._env), output)
        except StartError as exc:
            return MeansOutcome(is_done=False, words=str(exc))
        try:
            async with asyncio.timeout(timeout_s):
                await group.wait()
        except TimeoutError:
            words = await _end(group, grace_s)
            output.end()
            return MeansOutcome(
                is_done=False,
                words=f"{program} did not end within {timeout_s:g}s and {words}",
                exit_status=group.exit_status,
                output=output.lines,
                was_out_of_memory=output.tells_out_of_memory,
            )
        except asyncio.CancelledError:
            await _kill(group)
            raise
        await self._hear_out(group)
        output.end()
        status = await group.wait()
        was_out_of_memory = is_out_of_memory(status, output, lambda: self._kills.claim(kills_before))
        return MeansOutcome(
            is_done=status == 0,
            words="" if status == 0 else f"{program} {words_of(status, is_unexplained=not was_out_of_memory)}",
            exit_status=status,
            output=output.lines,
            was_out_of_memory=was_out_of_memory,
        )

    def close(self) -> None:
        """Listen no more to what commands left behind."""
        for group in self._left:
            group.release()
        self._left.clear()

    async def _hear_out(self, group: ProcessGroup) -> None:
        """Take the rest of its output, and keep listening where somebody holds the pipe."""
        self._left = [one for one in self._left if one.is_heard]
        self._left.append(group)
        await group.wait_silent()


async def _end(group: ProcessGroup, grace_s: float) -> str:
    """End a command that took too long; says how that went."""
    try:
        is_gone = await group.end(grace_s)
        if is_gone:
            await group.wait_silent()
    except asyncio.CancelledError:
        await _kill(group)
        raise
    finally:
        group.release()
    return "was ended" if is_gone else "could not be ended"


async def _kill(group: ProcessGroup) -> None:
    """Kill it, and return when it is gone or is known not to go: who waits for us may end this process next."""
    group.kill()
    group.release()
    # By a task of its own: within one that is cancelled a timeout of Python 3.11.2 never becomes a TimeoutError.
    ending = asyncio.get_running_loop().create_task(group.end(0.0), name="command.end")
    try:
        await asyncio.wait({ending})
    finally:
        ending.cancel()
