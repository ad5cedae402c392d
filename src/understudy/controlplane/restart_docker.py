"""Restart by Docker's or Podman's socket: `POST /containers/NAME/restart`, and what the engine knows of the container's end.

Called by controlplane.restart_means. Source: the Docker Engine API, ContainerRestart and ContainerInspect; the paths without a
version, which every engine answers in its own. Speaks to unix sockets only, keeps no connection.
"""

import asyncio
import json
import math
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
from httpx_aiohttp import AiohttpTransport

from understudy.controlplane.fetcher import failure_of
from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_http import BROKEN, USER_AGENT, lines_of, read_answer
from understudy.controlplane.restart_process import status_in_words
from understudy.errors import MEANING
from understudy.telemetry.console import printable

SOCKET: Final = "/var/run/docker.sock"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_INSPECT_S_MAX: Final = 5.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024


class DockerError(Exception):
    """The engine cannot be asked; the message says why, in one line."""


async def restart_container(name: str, grace_s: float, timeout_s: float, env: Mapping[str, str]) -> MeansOutcome:
    """Restart the container: SIGTERM (or its own stop signal), after `grace_s` SIGKILL, and a new start.

    `env` may name the engine's socket as DOCKER_HOST. Done means that it ran again afterwards.
    """
    if not _NAME.fullmatch(name):
        return MeansOutcome(is_done=False, words=f'"{printable(name)[:100]}" is no name of a container; want one such as vllm-1')
    try:
        async with asyncio.timeout(timeout_s), _client(_socket_of(env)) as client:
            # A start forgets what the container died of, so that is asked first.
            before = await _state_of(client, name)
            status, body = await _ask(client, "POST", f"/containers/{name}/restart?t={math.ceil(grace_s)}")
            after = await _state_of(client, name) if status == 204 else {}
    except TimeoutError:
        return MeansOutcome(is_done=False, words=f"docker gave no answer within {timeout_s:g}s")
    except DockerError as exc:
        return MeansOutcome(is_done=False, words=str(exc))
    words = ""
    exit_status: int | None = None
    was_out_of_memory = before.get("OOMKilled") is True or after.get("OOMKilled") is True
    if status != 204:
        words = f"docker has no container {name}" if status == 404 else f"docker answered {status}{_message_of(body)}"
    elif after.get("Running") is False and not after.get("Restarting"):
        words = "the container was started and ended at once"
    if words and isinstance(code := after.get("ExitCode"), int):
        exit_status = code
        words += f"; its exit status is {status_in_words(exit_status, is_unexplained=not was_out_of_memory)}"
    return MeansOutcome(is_done=not words, words=words, exit_status=exit_status, was_out_of_memory=was_out_of_memory)


def _socket_of(env: Mapping[str, str]) -> str:
    """Return the path of the engine's socket. Raises DockerError."""
    host = env.get("DOCKER_HOST", "")
    if not host:
        return SOCKET
    scheme, _, path = host.partition("://")
    if scheme != "unix" or not path.startswith("/"):
        raise DockerError(f"DOCKER_HOST names another way than a unix socket ({printable(scheme)[:20]}); want unix:///PATH")
    return path


def _client(path: str) -> httpx.AsyncClient:
    transport = AiohttpTransport(
        uds=path, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, limits=httpx.Limits(max_connections=1)
    )
    # The host is for the form only: the socket says where.
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://docker",
        trust_env=False,
        timeout=httpx.Timeout(None),
        headers={"user-agent": USER_AGENT},
    )


async def _ask(client: httpx.AsyncClient, method: str, target: str) -> tuple[int, bytes]:
    """Ask the engine. Returns status and body; raises DockerError."""
    has_head = False
    try:
        async with client.stream(method, target) as response:
            has_head = True
            return response.status_code, await read_answer(response, _ANSWER_BYTES_MAX)
    except TimeoutError:
        raise
    except BROKEN as exc:
        raise DockerError(_reason(exc, has_head=has_head)) from exc


async def _state_of(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Return the container's State, or {} where the engine does not tell it: that is no reason not to restart."""
    try:
        async with asyncio.timeout(_INSPECT_S_MAX):
            status, body = await _ask(client, "GET", f"/containers/{name}/json")
    except (TimeoutError, DockerError):
        return {}
    told = _json_of(body) if status == 200 else {}
    state = told.get("State")
    return state if isinstance(state, dict) else {}


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _message_of(body: bytes) -> str:
    message = _json_of(body).get("message")
    said = lines_of(message.encode("utf-8", "replace")) if isinstance(message, str) else ()
    return f": {said[-1]}" if said else ""


def _reason(exc: BaseException, *, has_head: bool) -> str:
    """Say why the engine cannot be asked, by the errors behind `exc`."""
    chain = tuple(_chain(exc))
    if any(isinstance(one, FileNotFoundError) for one in chain):
        return "docker's socket does not exist; is the engine running, and is DOCKER_HOST right?"
    if any(isinstance(one, PermissionError) for one in chain):
        return "docker's socket may not be used by this user; is it in the group docker?"
    return f"docker {MEANING[failure_of(exc, has_head=has_head)].words}"


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
