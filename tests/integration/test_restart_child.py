"""A real llama.cpp server as a child and as a command's process: hung, killed, crashing, stubborn, its port still taken."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.alive import is_alive
from support.llama import PROGRAM, READY_TIMEOUT_S, free_port
from support.tiny_model import tiny_model
from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_means import RestartMeans
from understudy.core.snapshot import Address, Backend
from understudy.core.upkeep import RestartKind, RestartRules

LOOK = 'import sys, urllib.request as r; r.urlopen("http://127.0.0.1:" + sys.argv[1] + "/health")'


class Stage:
    """The means, and one backend for whose url a real server is started."""

    def __init__(self, model: Path) -> None:
        self.port = free_port()
        self.argv = (sys.executable, str(PROGRAM), str(model), str(self.port))
        self.exits: asyncio.Queue[MeansOutcome] = asyncio.Queue()
        self.told: list[tuple[str, dict[str, object]]] = []
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()
        self.means = RestartMeans(self._tell, lambda _name, outcome: self.exits.put_nowait(outcome), os.environ)

    def backend(self, kind: RestartKind = RestartKind.RUN, *argv: str, grace_s: float = 10.0) -> Backend:
        rules = RestartRules(kind, argv=argv or self.argv, grace_s=grace_s, timeout_s=30.0)
        return Backend("gpu0", Address("http", "127.0.0.1", self.port), restart=rules)

    @property
    def pids(self) -> list[int]:
        return [int(str(fields["pid"])) for event, fields in self.told if event == "child.started"]

    async def ready(self, count: int = 1) -> None:
        """Return when so many servers in all have said that they listen, and the last of them writes."""

        def lines() -> list[str]:
            return [str(fields["line"]) for event, fields in self.told if event == "child.said"]

        async with asyncio.timeout(READY_TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: sum(line.startswith("READY") for line in lines()) >= count)
        await self.writes()

    async def writes(self) -> None:
        """Have it write one token."""
        async with httpx.AsyncClient(trust_env=False, timeout=READY_TIMEOUT_S) as client:
            wanted = {"prompt": "good evening", "max_tokens": 1}
            answer = await client.post(f"http://127.0.0.1:{self.port}/v1/completions", json=wanted)
        assert answer.status_code == 200

    async def ended(self) -> MeansOutcome:
        async with asyncio.timeout(READY_TIMEOUT_S):
            return await self.exits.get()

    def _tell(self, event: str, fields: dict[str, object]) -> None:
        self.told.append((event, fields))
        task = asyncio.get_running_loop().create_task(self._wake())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()


@pytest.fixture
async def stage(models_folder: Path) -> AsyncIterator[Stage]:
    """Run it, and end every child that is left."""
    stage = Stage(tiny_model(models_folder))
    yield stage
    await stage.means.close()
    assert not any(is_alive(pid) for pid in stage.pids)


async def test_a_server_is_started_and_ended_with_the_daemon(stage: Stage) -> None:
    await stage.means.follow([stage.backend()])
    await stage.ready()
    await stage.means.close()
    assert not is_alive(stage.pids[0])
    assert stage.exits.empty()


async def test_a_server_that_hangs_is_killed_and_writes_again(stage: Stage) -> None:
    """SIGSTOP: its port accepts, and nothing ever comes."""
    one = stage.backend(grace_s=1.0)
    await stage.means.follow([one])
    await stage.ready()
    os.kill(stage.pids[0], signal.SIGSTOP)
    assert (await stage.means.restart(one)).is_done
    await stage.ready(2)
    assert not is_alive(stage.pids[0])


async def test_a_server_that_is_killed_from_outside_is_told_and_writes_again(stage: Stage) -> None:
    one = stage.backend()
    await stage.means.follow([one])
    await stage.ready()
    os.kill(stage.pids[0], signal.SIGKILL)
    outcome = await stage.ended()
    assert (outcome.exit_status, outcome.was_out_of_memory) == (-signal.SIGKILL, False)
    assert outcome.words.endswith("was ended by SIGKILL (the kernel's for want of memory, or somebody's)")
    assert (await stage.means.restart(one)).is_done
    await stage.ready(2)


async def test_a_server_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    stubborn = stage.backend(RestartKind.RUN, "sh", "-c", 'trap "" TERM; "$@" & wait; wait', "sh", *stage.argv, grace_s=0.5)
    await stage.means.follow([stubborn])
    await stage.ready()
    assert (await stage.means.restart(stubborn)).is_done
    await stage.ready(2)
    assert not is_alive(stage.pids[0])


async def test_a_server_whose_model_is_missing_is_told_each_time_and_never_started_by_itself(
    stage: Stage, tmp_path: Path
) -> None:
    broken = stage.backend(RestartKind.RUN, *stage.argv[:2], str(tmp_path / "none.gguf"), stage.argv[3])
    await stage.means.follow([broken])
    for count in range(1, 4):
        outcome = await stage.ended()
        assert not outcome.is_done
        assert outcome.exit_status != 0
        assert len(stage.pids) == count
        assert (await stage.means.restart(broken)).is_done
    await stage.ended()


async def test_a_server_whose_port_is_still_taken_is_not_started_and_comes_when_it_is_free(stage: Stage) -> None:
    one = stage.backend()
    with socket.create_server(("127.0.0.1", stage.port)):
        await stage.means.follow([one])
        outcome = await stage.ended()
        assert outcome == await stage.means.restart(one)
        assert (outcome.is_done, outcome.words) == (False, f"port {stage.port} is taken by another process")
        assert not stage.pids
    assert (await stage.means.restart(one)).is_done
    await stage.ready()


async def test_a_server_that_a_command_restarts_outlives_the_command(stage: Stage, tmp_path: Path) -> None:
    """As a script of an operator's does it: kill the old one, leave the new one behind, return when it listens."""
    pid = tmp_path / "pid"
    script = f"""
        [ ! -e {pid} ] || kill -9 $(cat {pid})
        "$@" & echo $! >{pid}
        until {sys.executable} -c '{LOOK}' {stage.port} 2>/dev/null; do :; done"""
    commanded = stage.backend(RestartKind.COMMAND, "sh", "-c", script, "sh", *stage.argv)
    servers = []
    try:
        for _ in range(2):
            assert (await stage.means.restart(commanded)).is_done
            await stage.writes()
            servers.append(int(pid.read_text()))
        assert [is_alive(server) for server in servers] == [False, True]
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
