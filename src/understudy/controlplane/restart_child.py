"""Children of our own: engines that this process starts, listens to, ends and starts again.

Called by controlplane.restart_means. Decides nothing about when: a child that ends by itself is told to the supervisor, which
restarts it or does not. Shows of a child's command the first word only, and nothing of its environment.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_left import LeftChildren, mark_of
from understudy.controlplane.restart_memory import MemoryKills, events_path
from understudy.controlplane.restart_output import LineShare, Output
from understudy.controlplane.restart_port import is_free
from understudy.controlplane.restart_process import (
    Launch,
    ProcessGroup,
    StartError,
    environment_of,
    is_out_of_memory,
    program_of,
    words_of,
)
from understudy.core.snapshot import Backend
from understudy.core.upkeep import RestartKind, RestartRules

# A child's lines in the log, per second; the rest is counted.
LINES_PER_S_MAX: Final = 50

Tell = Callable[[str, dict[str, object]], None]
OnExit = Callable[[str, MeansOutcome], None]


class _Child:
    """One run of a backend's child."""

    def __init__(self, name: str, rules: RestartRules, env: Mapping[str, str], tell: Tell, memory_kills: int) -> None:
        """Start it in the environment `env`; the kernel has killed so many for want of memory by now. Raises StartError."""
        loop = asyncio.get_running_loop()
        self.name = name
        self.rules = rules
        self.program = program_of(rules.argv)
        self.share = LineShare(self._tell_line, LINES_PER_S_MAX, loop.call_later)
        self.output = Output(loop.time, self.share.hear)
        self.memory_kills_before = memory_kills
        self._tell = tell
        launch = Launch(rules.argv, env, rules.folder, dies_with_us=True)
        self.group = ProcessGroup(launch, self.output)
        self.is_unwanted = False
        self.watching: asyncio.Task[None] | None = None

    def _tell_line(self, line: str, left_out: int) -> None:
        fields: dict[str, object] = {"backend": self.name, "line": line}
        self._tell("child.said", fields | {"left_out": left_out} if left_out else fields)


class _Seat:
    """A backend's place among the children: at most one runs, and one at a time changes that."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.child: _Child | None = None
        # What was started last, or could not be; None: nothing yet.
        self.tried: RestartRules | None = None
        self.is_removed = False

    def has_tried(self, rules: RestartRules) -> bool:
        """Whether the last start was by the same words."""
        tried = self.tried
        return tried is not None and (tried.argv, tried.env, tried.folder) == (rules.argv, rules.env, rules.folder)


class Children:
    """Owns the children of all backends whose restart is by RUN.

    `on_exit` hears of a child that ended by itself or could not be started by `follow`, with what it left; not of those that
    were to end. `env` is our environment: theirs is that of environment_of, with what the file adds. `kills` None: those of our
    own control group. `mark` is that of restart_left.mark_for.
    """

    def __init__(
        self, tell: Tell, on_exit: OnExit, env: Mapping[str, str], kills: MemoryKills | None = None, *, mark: str = ""
    ) -> None:
        self._tell = tell
        self._on_exit = on_exit
        self._env = env
        self._kills = kills or MemoryKills(events_path())
        self._seats: dict[str, _Seat] = {}
        self._following = asyncio.Lock()
        self._mark = mark
        self._left = LeftChildren(mark, tell)
        self._is_closed = False

    async def follow(self, backends: Collection[Backend]) -> None:
        """End what is no longer wanted or is to be started otherwise, then start all that was not yet tried so.

        For the start and for reloads. What ended by itself or could not be started was told, and is the supervisor's to restart.
        What an earlier daemon has left of backends that are none of these is ended, too; nobody waits for that.
        """
        wanted = {one.name: one.restart for one in backends if one.restart and one.restart.kind is RestartKind.RUN}
        async with self._following:
            await self._left.end_others(wanted)
            await asyncio.gather(*(self._make_room(name, wanted.get(name)) for name in tuple(self._seats)))
            await asyncio.gather(*(self._fill(one, wanted[one.name]) for one in backends if one.name in wanted))

    async def restart(self, backend: Backend, rules: RestartRules) -> MeansOutcome:
        """End the child, if it runs, and what an earlier daemon has left of it, then start it by `rules`; done means started.

        None is started while another process listens where the backend is to answer (restart_port): it would pass for it.
        """
        seat = self._seats.setdefault(backend.name, _Seat())
        async with seat.lock:
            return await self._begin_anew(backend, seat, rules)

    def is_running(self, name: str) -> bool:
        """Whether that backend's child runs."""
        seat = self._seats.get(name)
        return seat is not None and seat.child is not None and seat.child.group.exit_status is None

    async def close(self) -> None:
        """End every child, all at once; no other is started afterwards."""
        self._is_closed = True
        await self._left.close()
        await asyncio.gather(*(self._close(seat) for seat in tuple(self._seats.values())))

    async def _make_room(self, name: str, rules: RestartRules | None) -> None:
        seat = self._seats[name]
        async with seat.lock:
            if rules is None:
                seat.is_removed = True
                seat.tried = None
                if await self._empty(seat):
                    del self._seats[name]
            elif seat.child is not None and not seat.has_tried(rules):
                await self._empty(seat)

    async def _fill(self, backend: Backend, rules: RestartRules) -> None:
        seat = self._seats.setdefault(backend.name, _Seat())
        async with seat.lock:
            seat.is_removed = False
            child = seat.child
            # One that was told to stop by a restart that was given up is on its way out.
            if seat.has_tried(rules) and not (child is not None and child.is_unwanted):
                if child is not None:
                    # Its bounds may be others now.
                    child.rules = rules
                return
            outcome = await self._begin_anew(backend, seat, rules)
        if not outcome.is_done and not self._is_closed:
            self._on_exit(backend.name, outcome)

    async def _close(self, seat: _Seat) -> None:
        async with seat.lock:
            child = seat.child
            if not await self._empty(seat) and child is not None and child.watching is not None:
                # What cannot be killed is left to whoever ends us.
                child.watching.cancel()
                await asyncio.gather(child.watching, return_exceptions=True)

    async def _empty(self, seat: _Seat) -> bool:
        """End the seat's child with its whole group. Returns whether it is gone."""
        child = seat.child
        if child is None:
            return True
        child.is_unwanted = True
        if not await child.group.end(child.rules.grace_s):
            child.is_unwanted = False
            return False
        if child.watching is not None:
            await asyncio.shield(child.watching)
        seat.child = None
        return True

    async def _begin_anew(self, backend: Backend, seat: _Seat, rules: RestartRules) -> MeansOutcome:
        child = seat.child
        if await self._empty(seat):
            # It holds the port and the memory as the child before does.
            await self._left.end(backend.name, rules.grace_s)
            is_port_free = await is_free(backend.address, lambda: self._is_closed)
            return self._start(backend, seat, rules, is_port_free=is_port_free)
        program = child.program if child is not None else ""
        words = f"{program} could not be ended, not even by SIGKILL: it hangs in the kernel or belongs to another user"
        return MeansOutcome(is_done=False, words=words)

    def _start(self, backend: Backend, seat: _Seat, rules: RestartRules, *, is_port_free: bool) -> MeansOutcome:
        if self._is_closed or seat.is_removed:
            return MeansOutcome(is_done=False, words="the backend is no longer wanted")
        seat.tried = rules
        if not is_port_free:
            return MeansOutcome(is_done=False, words=f"port {backend.address.port} is taken by another process")
        name = backend.name
        try:
            env = environment_of(self._env, rules.env) | mark_of(self._mark, name)
            child = _Child(name, rules, env, self._tell, self._kills.count())
        except StartError as exc:
            return MeansOutcome(is_done=False, words=str(exc))
        seat.child = child
        self._tell("child.started", {"backend": name, "program": child.program, "pid": child.group.pid})
        child.watching = asyncio.get_running_loop().create_task(self._watch(seat, child), name=f"child.{name}")
        return MeansOutcome(is_done=True)

    async def _watch(self, seat: _Seat, child: _Child) -> None:
        """Wait for its end and tell it; then end what it left of its group, which may hold its port and its memory."""
        try:
            status = await child.group.wait()
            await child.group.wait_silent()
            child.output.end()
            child.share.flush()
            is_unwanted = child.is_unwanted
            before = child.memory_kills_before
            was_out_of_memory = not is_unwanted and is_out_of_memory(status, child.output, lambda: self._kills.claim(before))
            outcome = MeansOutcome(
                is_done=False,
                words=f"{child.program} {words_of(status, is_unexplained=not is_unwanted and not was_out_of_memory)}",
                exit_status=status,
                output=child.output.lines,
                was_out_of_memory=was_out_of_memory,
            )
            fields: dict[str, object] = {"backend": child.name, "reason": outcome.words, "asked": is_unwanted}
            self._tell("child.ended", fields | {"out_of_memory": True} if outcome.was_out_of_memory else fields)
            if not is_unwanted:
                self._on_exit(child.name, outcome)
                is_gone = await child.group.end(child.rules.grace_s)
                if is_gone and seat.child is child and not child.is_unwanted:
                    seat.child = None
        finally:
            child.group.release()
