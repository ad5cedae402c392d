"""What the file says of keeping a backend well: how it is restarted, kept warm and woken, what is promised of it.

Part of core.snapshot's Backend and RoutingPlan; compiled by config. Values only: when something is done is core.restart's,
core.warmth's and core.objectives' to decide, and controlplane does it.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class RestartKind(StrEnum):
    """By what means a backend is restarted."""

    COMMAND = "command"  # an argv, never a shell
    SYSTEMD = "systemd"  # a unit
    DOCKER = "docker"  # a container, by the engine's socket
    HTTP = "http"  # a hook: one POST
    RUN = "run"  # a child of our own, which we start and end


@dataclass(frozen=True, slots=True)
class RestartRules:
    """How and how often one backend is restarted.

    `argv` is that of COMMAND and RUN; `subject` the unit, the container or the URL. `env` (added to ours) and `folder` ("": ours)
    are RUN's. `after` is how many failed probes beyond `fall` it takes; `drain_s` how long its exchanges may go on before they
    are moved; `grace_s` how long it has from SIGTERM to SIGKILL; `timeout_s` bounds the means itself; `ready_s` how long the
    backend may take afterwards to prove itself. At most `times_max` within `window_s`; the first pause before the next one is
    `backoff_s`, each further one twice as long up to `backoff_s_max`.
    """

    kind: RestartKind
    argv: tuple[str, ...] = field(default=(), repr=False)
    subject: str = field(default="", repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    folder: str = ""
    after: int = 3
    drain_s: float = 0.0
    grace_s: float = 10.0
    timeout_s: float = 60.0
    ready_s: float = 300.0
    times_max: int = 5
    window_s: float = 3600.0
    backoff_s: float = 10.0
    backoff_s_max: float = 600.0
    is_degraded_enough: bool = False


@dataclass(frozen=True, slots=True)
class WarmRules:
    """Which models are kept in memory (the clients' names), and for how long after the last exchange; `idle_s` 0.0: always."""

    models: tuple[str, ...] = ()
    idle_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class WakeRules:
    """How a sleeping machine is woken: by a magic packet for `mac` to `address`:`port`, or by a command; both "": not at all."""

    mac: str = ""
    address: str = "255.255.255.255"
    port: int = 9
    argv: tuple[str, ...] = field(default=(), repr=False)


class GenerateWhen(StrEnum):
    """When a backend is probed by generating one token."""

    OFF = "off"
    SUSPICIOUS = "suspicious"  # its health says yes and its traffic no
    EVERY = "every"  # after this long without an answer to a client


@dataclass(frozen=True, slots=True)
class GenerateRules:
    """When a backend is probed by one token; `every_s` counts for EVERY."""

    when: GenerateWhen = GenerateWhen.OFF
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Slo:
    """What is promised; None: nothing of that kind. `errors` and `gpu_busy` are shares. Each is looked at over `window_s`."""

    errors: float | None = None
    p99_first_content_s: float | None = None
    gpu_busy: float | None = None
    window_s: float = 300.0


class Severity(StrEnum):
    """How much an alert matters, the least first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Language(StrEnum):
    """What alerts are written in."""

    ENGLISH = "en"
    CHINESE = "zh"


@dataclass(frozen=True, slots=True)
class AlertChannel:
    """One way to tell a person. `url` is Apprise's and holds secrets. `events` () means all (core.alerting names them).

    What lasts is told again every `repeat_s`, 0.0: once. Between `quiet_from_min` and `quiet_to_min` (minutes of the local day;
    equal: never) only what is `quiet_below` or worse is told; the rest waits.
    """

    url: str = field(repr=False)
    events: tuple[str, ...] = ()
    language: Language = Language.ENGLISH
    repeat_s: float = 4 * 3600.0
    quiet_from_min: int = 0
    quiet_to_min: int = 0
    quiet_below: Severity = Severity.ERROR


NO_WARMTH = WarmRules()
NO_WAKING = WakeRules()
NO_GENERATION = GenerateRules()
NO_SLO = Slo()
