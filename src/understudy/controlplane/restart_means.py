"""Restart a backend by the means that its `restart` names. The one implementation of controlplane.means.Means.

Built by daemon, called by controlplane.supervisor. Decides neither whether nor when; never raises for what an operator or a
machine can cause, but says in the outcome why it could not be done.
"""

from collections.abc import Collection, Mapping
from typing import assert_never

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_child import Children, OnExit, Tell
from understudy.controlplane.restart_command import Commands
from understudy.controlplane.restart_left import mark_for
from understudy.controlplane.restart_memory import MemoryKills, events_path
from understudy.controlplane.restart_systemd import restart_unit
from understudy.core.snapshot import Backend
from understudy.core.upkeep import RestartKind


class RestartMeans:
    """All means of restarting, and the children among the backends.

    `tell` gets an event's name (telemetry.events) and its fields. `on_exit` hears the name of a backend whose child ended by
    itself, or could not be started by `follow`, and what became of it; it is called on the loop and must not wait. `env` is this
    process's environment. `file_id` tells this daemon's children from others', "": what is left of them is not found again.
    """

    def __init__(self, tell: Tell, on_exit: OnExit, env: Mapping[str, str], file_id: str = "") -> None:
        self._env = env
        kills = MemoryKills(events_path())
        self._commands = Commands(env, kills)
        self._children = Children(tell, on_exit, env, kills, mark=mark_for(file_id))

    async def restart(self, backend: Backend) -> MeansOutcome:
        """End and begin the backend anew, within its rules' bounds. Raises nothing but CancelledError."""
        rules = backend.restart
        if rules is None:
            return MeansOutcome(
                is_done=False, words="the file names no means of restarting it; want a restart: under the backend"
            )
        match rules.kind:
            case RestartKind.COMMAND:
                return await self._commands.run(rules.argv, rules.timeout_s)
            case RestartKind.SYSTEMD:
                return await restart_unit(self._commands, rules.subject, rules.timeout_s)
            case RestartKind.DOCKER:
                # Loaded where it is used, as the hook's.
                from understudy.controlplane.restart_docker import restart_container

                return await restart_container(rules.subject, rules.grace_s, rules.timeout_s, self._env)
            case RestartKind.HTTP:
                from understudy.controlplane.restart_http import restart_by_hook

                return await restart_by_hook(rules.subject, backend.name, rules.timeout_s)
            case RestartKind.RUN:
                return await self._children.restart(backend, rules)
        assert_never(rules.kind)

    def is_running(self, backend: Backend) -> bool:
        """Whether the backend's child runs; True where it is none of ours."""
        rules = backend.restart
        return rules is None or rules.kind is not RestartKind.RUN or self._children.is_running(backend.name)

    async def follow(self, backends: Collection[Backend]) -> None:
        """Start the children that these have and that were never started; end those that are no longer among them.

        What an earlier daemon has left of a child is ended before that one starts, here and by `restart`.
        One whose command, environment or folder is another now is ended and started anew. One that ended by itself is left to
        the supervisor.
        """
        await self._children.follow(backends)

    async def close(self) -> None:
        """End every child, as a restart would, all at once."""
        self._commands.close()
        await self._children.close()
