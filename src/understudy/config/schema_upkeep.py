"""The keys that say how backends are kept well: restarting and waking one, objectives, and who is told.

Part of config.schema, which says what holds for all keys. What concerns several keys at once is in config.upkeep.
"""

from pydantic import Field

from understudy.config.quantities import Frequency
from understudy.config.section import Section
from understudy.config.values import Duration, PositiveDuration, Switch, WholeFromZero
from understudy.config.values_upkeep import (
    AlertUrl,
    Argv,
    Container,
    DurationOrOff,
    Environment,
    Events,
    Folder,
    FullUrl,
    Ip,
    Mac,
    Often,
    Port,
    PromiseOrOff,
    Quiet,
    Unit,
    Window,
)
from understudy.core.upkeep import Language, RestartKind, RestartRules, Severity, Slo, WakeRules

_RESTART, _WAKE, _SLO = RestartRules(RestartKind.COMMAND), WakeRules(), Slo()


class RestartSettings(Section):
    """How a backend is restarted: by exactly one of command, systemd, docker, http and run. Absent: never."""

    command: Argv = Field(
        default=(),
        repr=False,
        description="A program and its arguments, run as they are and never by a shell.",
        examples=["[ssh, pi, sudo, systemctl, restart, ollama]"],
    )
    systemd: Unit = Field(default="", description="A unit of systemd, by systemctl restart.")
    docker: Container = Field(
        default="", description="A container's name or id; Docker's socket is DOCKER_HOST or /var/run/docker.sock."
    )
    http: FullUrl = Field(default="", repr=False, description="A URL that gets one POST.")
    run: Argv = Field(
        default=(),
        repr=False,
        description="A program and its arguments that the daemon starts, ends and starts anew as its own child.",
        examples=["[llama-server, --port, 8001]"],
    )
    env: Environment = Field(
        default_factory=dict, repr=False, description="Variables for run, beside those that the daemon has itself."
    )
    folder: Folder = Field(default="", description="The folder in which run runs; empty: the daemon's own.")
    after: WholeFromZero = Field(default=_RESTART.after, description="Failed probes beyond health.fall before it is restarted.")
    drain: Duration = Field(
        default=_RESTART.drain_s,
        description="How long its exchanges may go on before they are moved to other backends; 0s: they are moved at once.",
    )
    grace: Duration = Field(
        default=_RESTART.grace_s, description="Time from SIGTERM to SIGKILL, for run and docker; 0s: killed at once."
    )
    timeout: PositiveDuration = Field(default=_RESTART.timeout_s, description="Longest time that the means itself may take.")
    ready: PositiveDuration = Field(
        default=_RESTART.ready_s, description="Longest time afterwards until it has answered a probe and generated a token."
    )
    max: Often = Field(
        default=Frequency(_RESTART.times_max, _RESTART.window_s),
        description="Most restarts in how long, as N per DURATION; then a person is needed.",
    )
    backoff: PositiveDuration = Field(
        default=_RESTART.backoff_s, description="Pause before the next restart; each further one is twice as long, up to 10m."
    )
    degraded: Switch = Field(
        default=_RESTART.is_degraded_enough, description="Restart it, too, when it answers far more slowly than it used to."
    )


class WakeSettings(Section):
    """How a machine that is asleep is woken: by a magic packet for mac, or by a command. Absent: not at all."""

    mac: Mac = Field(default=_WAKE.mac, description="The MAC address of the machine, for a Wake-on-LAN packet.")
    address: Ip = Field(
        default=_WAKE.address, description="Where the packet is sent: a broadcast address of the machine's network."
    )
    port: Port = Field(default=_WAKE.port, description="The UDP port to which it is sent.")
    command: Argv = Field(
        default=(),
        repr=False,
        description="A program and its arguments that wake the machine instead of a packet; never a shell.",
        examples=["[wakeonlan, aa:bb:cc:dd:ee:ff]"],
    )


class AlertSettings(Section):
    """One way to tell a person."""

    url: AlertUrl = Field(
        repr=False,
        description="Apprise's URL of the channel; empty: the channel is left out.",
        examples=["json://hooks.example.org/understudy"],
    )
    events: Events = Field(
        default=(), description="What it is told of; empty: everything.", examples=["[backend.down, pool.empty]"]
    )
    language: Language = Field(default=Language.ENGLISH, description="What it is written in: en or zh.")
    repeat: Duration = Field(default=4 * 3600.0, description="What lasts is told again this often; 0s: once.")
    quiet: Quiet = Field(
        default=None, description="Hours of the local day in which less is told, such as 22:00-07:00; off: none."
    )
    quiet_below: Severity = Field(
        default=Severity.ERROR, description="What is told in quiet hours all the same: this or worse; the rest waits."
    )


class SloSettings(Section):
    """What is promised to clients; that a promise is broken is an event."""

    errors: PromiseOrOff = Field(default=_SLO.errors, description="Largest share of exchanges that fail, such as 0.1%.")
    p99_first_content: DurationOrOff = Field(
        default=_SLO.p99_first_content_s, description="Longest time to the first content of 99 in 100 exchanges, such as 1s."
    )
    gpu_busy: PromiseOrOff = Field(
        default=_SLO.gpu_busy, description="Largest share of GPU time in use, such as 70%; needs metrics_url of a backend."
    )
    window: Window = Field(default=_SLO.window_s, description="The last exchanges and readings of this long count; at least 10s.")
