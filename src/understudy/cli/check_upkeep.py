"""What `understudy check` says of keeping backends well: restarts, warmth, waking, objectives, alerts.

Called by cli.check, a line or two for each. Pure. Shows a command's program and no argument, a URL's scheme and host and
nothing else of it, and no variable.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from understudy.config.addresses import write_origin
from understudy.config.quantities import Frequency, write_duration, write_frequency, write_share
from understudy.config.values_upkeep import write_quiet
from understudy.core.snapshot import Backend
from understudy.core.upkeep import AlertChannel, GenerateRules, GenerateWhen, Language, RestartKind, RestartRules, Severity, Slo

_LANGUAGE_MEANS = {Language.ENGLISH: "English", Language.CHINESE: "Chinese"}
_TOLD_IN_QUIET = {
    Severity.INFO: "everything",
    Severity.WARNING: "warnings and errors",
    Severity.ERROR: "errors only",
}


def upkeep_lines(backend: Backend) -> Iterator[str]:
    """Say how the backend is restarted, kept warm, woken and measured, one line for each that it has."""
    if backend.restart is not None:
        yield _restart_line(backend.restart, backend.health.fall)
    if backend.warm.models:
        idle_s = backend.warm.idle_s
        how_long = f"until {write_duration(idle_s)} after its last exchange" if idle_s else "always"
        yield f"keeps {', '.join(backend.warm.models)} in memory, {how_long}"
    wake = backend.wake
    if wake.argv:
        yield f"is woken by the command {_program(wake.argv)}"
    elif wake.mac:
        yield f"is woken by a packet for {wake.mac} to {wake.address}, port {wake.port}"
    if backend.metrics_url:
        yield f"tells its load at {write_origin(backend.metrics_url)}"


def generate_words(rules: GenerateRules) -> str:
    """Return what is added to the line of health; "" where no token is generated."""
    if rules.when is GenerateWhen.OFF:
        return ""
    if rules.when is GenerateWhen.SUSPICIOUS:
        return "; one token is generated when probes are good and traffic is not"
    return f"; one token is generated after {write_duration(rules.every_s)} without an answer to a client"


def slo_lines(slo: Slo) -> Iterator[str]:
    """Say what is promised; nothing where nothing is."""
    promises = []
    if slo.errors is not None:
        promises.append(f"at most {write_share(slo.errors)} of the exchanges fail")
    if slo.p99_first_content_s is not None:
        promises.append(f"99 in 100 have their first content within {write_duration(slo.p99_first_content_s)}")
    if slo.gpu_busy is not None:
        promises.append(f"GPUs are busy for at most {write_share(slo.gpu_busy)} of the time")
    if promises:
        yield f"Promised, over {write_duration(slo.window_s)}: {', '.join(promises)}."


def alert_lines(channels: Sequence[AlertChannel]) -> Iterator[str]:
    """Say of every channel what it is told, by its scheme."""
    for channel in channels:
        events = ", ".join(channel.events) or "everything"
        again = f"what lasts again every {write_duration(channel.repeat_s)}" if channel.repeat_s else "each once"
        begins, ends = channel.quiet_from_min, channel.quiet_to_min
        quiet = f"; {_TOLD_IN_QUIET[channel.quiet_below]} in {write_quiet((begins, ends))}" if begins != ends else ""
        scheme = channel.url.partition(":")[0]
        yield f"Alerts by {scheme}, in {_LANGUAGE_MEANS[channel.language]}: {events}, {again}{quiet}."


def _restart_line(rules: RestartRules, fall: int) -> str:
    slow = ", or when it is far slower than it was" if rules.is_degraded_enough else ""
    moved = f"may go on for {write_duration(rules.drain_s)}, then move" if rules.drain_s else "move at once"
    often = write_frequency(Frequency(rules.times_max, rules.window_s))
    return (
        f"is restarted {_means(rules)} after {fall + rules.after} failed probes{slow}; its exchanges {moved}; "
        f"it has {write_duration(rules.ready_s)} to answer; at most {often}, from {write_duration(rules.backoff_s)} apart"
    )


def _means(rules: RestartRules) -> str:
    if rules.kind is RestartKind.COMMAND:
        return f"by the command {_program(rules.argv)}"
    if rules.kind is RestartKind.SYSTEMD:
        return f"as the systemd unit {rules.subject}"
    if rules.kind is RestartKind.DOCKER:
        return f"as the container {rules.subject}"
    if rules.kind is RestartKind.HTTP:
        return f"by a POST to {write_origin(rules.subject)}"
    return f"as a child of the daemon, {_program(rules.argv)},"


def _program(argv: Sequence[str]) -> str:
    """Return the program's name, and how many arguments it has: they may hold a secret."""
    # A whole command line may stand in the first word by mistake.
    name, count = PurePath(argv[0].split()[0]).name, len(argv) - 1
    return f"{name} with {count} argument{'s' * (count > 1)}" if count else name
