"""Every kind of restart finds its means."""

import os
from pathlib import Path

from support.alive import is_alive
from support.asked import AskedServer, reply
from understudy.controlplane.means import Means, MeansOutcome
from understudy.controlplane.restart_means import RestartMeans
from understudy.core.snapshot import Address, Backend
from understudy.core.upkeep import RestartKind, RestartRules

ENV = {"PATH": os.environ["PATH"]}


def backend(rules: RestartRules | None) -> Backend:
    return Backend("gpu0", Address("http", "127.0.0.1", 1), restart=rules)


async def restarted(rules: RestartRules | None, env: dict[str, str] = ENV) -> MeansOutcome:
    means: Means = RestartMeans(lambda _event, _fields: None, lambda _name, _outcome: None, env)
    try:
        return await means.restart(backend(rules))
    finally:
        await means.close()


async def test_a_backend_without_means_says_so() -> None:
    outcome = await restarted(None)
    assert outcome.words == "the file names no means of restarting it; want a restart: under the backend"


async def test_a_command_is_run() -> None:
    outcome = await restarted(RestartRules(RestartKind.COMMAND, argv=("echo", "restarted")))
    assert (outcome.is_done, outcome.output) == (True, ("restarted",))


async def test_a_unit_is_given_to_systemctl(tmp_path: Path) -> None:
    outcome = await restarted(RestartRules(RestartKind.SYSTEMD, subject="ollama"), {"PATH": str(tmp_path)})
    assert outcome.words == "systemctl cannot be started: there is no such program"


async def test_a_container_is_given_to_docker(tmp_path: Path) -> None:
    env = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    outcome = await restarted(RestartRules(RestartKind.DOCKER, subject="vllm-1"), env)
    assert outcome.words.startswith("docker's socket does not exist")


async def test_a_hook_is_posted_to() -> None:
    async with AskedServer({"/hook": reply()}) as server:
        outcome = await restarted(RestartRules(RestartKind.HTTP, subject=f"http://127.0.0.1:{server.port}/hook"))
    assert outcome.is_done
    assert server.heads[0].startswith(b"POST /hook ")


async def test_a_child_is_followed_restarted_and_ended() -> None:
    pids: list[int] = []

    def tell(event: str, fields: dict[str, object]) -> None:
        if event == "child.started":
            pids.append(int(str(fields["pid"])))

    means = RestartMeans(tell, lambda _name, _outcome: None, ENV)
    child = backend(RestartRules(RestartKind.RUN, argv=("sleep", "1000")))
    assert not means.is_running(child)
    await means.follow([child])
    assert means.is_running(child)
    assert (await means.restart(child)).is_done
    assert [is_alive(pid) for pid in pids] == [False, True]
    await means.close()
    assert not means.is_running(child)
    assert means.is_running(backend(RestartRules(RestartKind.COMMAND, argv=("true",))))
    assert means.is_running(backend(None))
    assert [is_alive(pid) for pid in pids] == [False, False]
