"""Plays of containers, with an engine on a unix socket that answers as the Docker Engine API documents it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_docker import restart_container

RUNNING: dict[str, Any] = {"Status": "running", "Running": True, "Restarting": False, "OOMKilled": False, "ExitCode": 0}
ENDED = {**RUNNING, "Status": "exited", "Running": False, "ExitCode": 1}
KILLED = {**ENDED, "OOMKilled": True, "ExitCode": 137}


class Engine:
    """One container named vllm-1, which is in state `before` and, once restarted, in `after`."""

    def __init__(self, before: dict[str, Any], after: dict[str, Any], answer: web.Response | None = None) -> None:
        self._state = before
        self._after = after
        self._answer = answer
        self.asked: list[str] = []
        self.hanging = asyncio.Event()
        self.hanging.set()

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """ContainerRestart: 204, 404 or 500; `t` in whole seconds."""
        self.asked.append(f"{request.method} {request.path_qs}")
        await self.hanging.wait()
        assert request.query["t"].isdigit()
        if self._answer is not None:
            return self._answer
        if request.match_info["name"] != "vllm-1":
            return web.json_response({"message": f"No such container: {request.match_info['name']}"}, status=404)
        self._state = self._after
        return web.Response(status=204)

    async def inspect(self, request: web.Request) -> web.StreamResponse:
        """ContainerInspect: 200 with State, or 404."""
        self.asked.append(f"{request.method} {request.path_qs}")
        if request.match_info["name"] != "vllm-1":
            return web.json_response({"message": "No such container"}, status=404)
        return web.json_response({"Id": "aa", "Name": "/vllm-1", "State": self._state, "Config": {"Env": ["KEY=secret"]}})


@asynccontextmanager
async def serving(engine: Engine, path: Path) -> AsyncIterator[dict[str, str]]:
    """Serve it on a socket; gives the environment that names it."""
    app = web.Application()
    app.router.add_post("/containers/{name}/restart", engine.restart)
    app.router.add_get("/containers/{name}/json", engine.inspect)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield {"DOCKER_HOST": f"unix://{path}"}
    finally:
        await runner.cleanup()


async def restarted(engine: Engine, folder: Path, name: str = "vllm-1", *, timeout_s: float = 10.0) -> MeansOutcome:
    async with serving(engine, folder / "docker.sock") as env:
        return await restart_container(name, 9.5, timeout_s, env)


async def test_a_container_is_restarted_with_its_grace_in_whole_seconds(tmp_path: Path) -> None:
    engine = Engine(ENDED, RUNNING)
    assert await restarted(engine, tmp_path) == MeansOutcome(is_done=True)
    assert engine.asked == [
        "GET /containers/vllm-1/json",
        "POST /containers/vllm-1/restart?t=10",
        "GET /containers/vllm-1/json",
    ]


async def test_a_container_that_memory_ran_out_for_is_restarted_and_that_is_said(tmp_path: Path) -> None:
    outcome = await restarted(Engine(KILLED, RUNNING), tmp_path)
    assert (outcome.is_done, outcome.was_out_of_memory) == (True, True)


async def test_a_container_that_ends_at_once_is_not_done(tmp_path: Path) -> None:
    outcome = await restarted(Engine(RUNNING, KILLED), tmp_path)
    assert not outcome.is_done
    assert outcome.words == "the container was started and ended at once; its exit status is 137 (SIGKILL)"
    assert (outcome.exit_status, outcome.was_out_of_memory) == (137, True)
    outcome = await restarted(Engine(RUNNING, {**KILLED, "OOMKilled": False}), tmp_path)
    assert outcome.words.endswith("its exit status is 137 (SIGKILL, the kernel's for want of memory, or somebody's)")


async def test_a_container_that_the_engine_starts_again_by_itself_is_done(tmp_path: Path) -> None:
    assert (await restarted(Engine(ENDED, {**ENDED, "Restarting": True}), tmp_path)).is_done


async def test_a_container_that_does_not_exist_is_said_to_be_so(tmp_path: Path) -> None:
    outcome = await restarted(Engine(RUNNING, RUNNING), tmp_path, "other")
    assert outcome.words == "docker has no container other"


async def test_an_engine_that_fails_is_heard(tmp_path: Path) -> None:
    broken = web.json_response({"message": "Cannot restart container vllm-1: driver failed\nbadly"}, status=500)
    outcome = await restarted(Engine(ENDED, RUNNING, broken), tmp_path)
    assert outcome.words == "docker answered 500: badly"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"message": 3}', b"[" * 100_000])
async def test_an_answer_of_another_form_is_only_its_status(body: bytes, tmp_path: Path) -> None:
    outcome = await restarted(Engine(RUNNING, RUNNING, web.Response(status=500, body=body)), tmp_path)
    assert outcome.words == "docker answered 500"


async def test_an_engine_that_hangs_is_given_up(tmp_path: Path) -> None:
    engine = Engine(RUNNING, RUNNING)
    engine.hanging.clear()
    outcome = await restarted(engine, tmp_path, timeout_s=0.3)
    assert outcome.words == "docker gave no answer within 0.3s"


async def test_a_socket_that_is_not_there_or_that_nobody_listens_at_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    env = {"DOCKER_HOST": f"unix://{path}"}
    outcome = await restart_container("vllm-1", 1.0, 10.0, env)
    assert outcome.words == "docker's socket does not exist; is the engine running, and is DOCKER_HOST right?"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        outcome = await restart_container("vllm-1", 1.0, 10.0, env)
    assert outcome.words == "docker refused the connection"


@pytest.mark.parametrize("host", ["tcp://secret:2375", "ssh://secret", "/run/docker.sock", "unix://relative"])
async def test_another_way_than_a_unix_socket_is_refused(host: str) -> None:
    outcome = await restart_container("vllm-1", 1.0, 10.0, {"DOCKER_HOST": host})
    assert "want unix:///PATH" in outcome.words
    assert "secret" not in outcome.words


@pytest.mark.parametrize("name", ["", "-f", "../x", "a/b", "a?t=0", "a b", "a\n", ".", "x" * 256])
async def test_what_is_no_name_of_a_container_is_sent_to_nobody(name: str, tmp_path: Path) -> None:
    engine = Engine(RUNNING, RUNNING)
    outcome = await restarted(engine, tmp_path, name)
    assert "is no name of a container; want one such as vllm-1" in outcome.words
    assert outcome.words.isprintable()
    assert not engine.asked


async def test_no_connection_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all that is wanted
    await restarted(Engine(RUNNING, RUNNING), tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # as above, the count
