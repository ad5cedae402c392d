"""What the keys of restarting, waking, alerts and objectives allow together.

Called by config.validation (mistakes), config.compile and cli.check. Pure. No word of this module contains a command, a URL or
a value of an environment.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from understudy.config.schema import Settings
from understudy.config.schema_backends import BackendSettings
from understudy.config.schema_upkeep import RestartSettings, WakeSettings
from understudy.core.upkeep import RestartKind

# Named as their keys are.
_MEANS_WANTED = f"exactly one of {', '.join(RestartKind)}"
_APART = "each word apart: [systemctl, restart, ollama]"
_OF_RUN_ALONE = ("env", "folder")
_OF_A_PACKET_ALONE = ("address", "port")


class UpkeepClash(NamedTuple):
    """Keys that do not go together. `location` is where to look; `found` and `want` are words of a mistake."""

    location: tuple[str | int, ...]
    found: str
    want: str


def restart_kinds(restart: RestartSettings) -> tuple[RestartKind, ...]:
    """Return the means that are given; of what was validated there is one or none."""
    return tuple(kind for kind in RestartKind if getattr(restart, kind.value))


def upkeep_clashes(settings: Settings) -> Iterator[UpkeepClash]:
    """Find what is given twice, or without what it belongs to."""
    for index, backend in enumerate(settings.backends):
        above = ("backends", index)
        for key, found, want in (*_restart_clashes(backend.restart), *_wake_clashes(backend.wake)):
            yield UpkeepClash((*above, *key), found, want)


def upkeep_notes(settings: Settings) -> Iterator[str]:
    """Say what an operator may not expect, though nothing is wrong with it."""
    for backend in settings.backends:
        yield from _backend_notes(backend)
    for index, alert in enumerate(settings.alerts):
        if not alert.url:
            yield f"alerts[{index}].url is empty, so this channel is left out"
    slo = settings.slo
    if "window" in slo.model_fields_set and slo.errors is slo.p99_first_content is slo.gpu_busy is None:
        yield "slo.window does nothing without a promise; want errors, p99_first_content or gpu_busy beside it"
    if slo.gpu_busy is not None and not any(backend.metrics_url for backend in settings.backends):
        yield "slo.gpu_busy is never known, because no backend has a metrics_url"


def _restart_clashes(restart: RestartSettings) -> Iterator[tuple[tuple[str, ...], str, str]]:
    kinds = restart_kinds(restart)
    if not kinds and restart.model_fields_set:
        yield ("restart",), "none of its means", _MEANS_WANTED
        return
    for kind in kinds[1:]:
        yield ("restart", kind.value), f"{kind} beside {kinds[0]}", _MEANS_WANTED
    if kinds and RestartKind.RUN not in kinds:
        for key in _OF_RUN_ALONE:
            if getattr(restart, key):
                yield ("restart", key), f"{key} without run", f"run, or no {key}"
    if RestartKind.DOCKER in kinds:
        yield from _docker_clashes(restart)


def _docker_clashes(restart: RestartSettings) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The engine answers when the container has stopped, for which it has `grace`; then there must be time left to start it."""
    timeout, grace = f"{restart.timeout:g}s", f"{restart.grace:g}s"
    if restart.timeout > restart.grace:
        return
    if "timeout" in restart.model_fields_set:
        want = "a timeout longer than grace, or a shorter grace"
        yield ("restart", "timeout"), f"{timeout}, no longer than grace with its {grace}", want
    else:
        want = "a grace shorter than timeout, or a longer timeout"
        yield ("restart", "grace"), f"{grace}, no shorter than timeout with its {timeout}", want


def _wake_clashes(wake: WakeSettings) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if wake.mac and wake.command:
        yield ("wake", "command"), "command beside mac", "one of mac, command"
    if wake.mac or "mac" in wake.model_fields_set:
        return
    for key in _OF_A_PACKET_ALONE:
        if key in wake.model_fields_set:
            yield ("wake", key), f"{key} without mac", f"mac, or no {key}"


def _backend_notes(backend: BackendSettings) -> Iterator[str]:
    restart, wake = backend.restart, backend.wake
    if restart.run and not _is_loopback(backend.url.host):
        yield f"{backend.name} runs as a child of the daemon, but its url is not on loopback"
    for key, argv in (("restart.command", restart.command), ("restart.run", restart.run), ("wake.command", wake.command)):
        if len(argv) == 1 and " " in argv[0].strip():
            yield f"{key} of {backend.name} is one word with spaces in it, which is taken for a program's name; want {_APART}"
    if "warm_idle" in backend.model_fields_set and "warm" not in backend.model_fields_set:
        yield f"warm_idle of {backend.name} does nothing without warm"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", "ip6-localhost"} or host.endswith(".localhost")
