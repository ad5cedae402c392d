"""What routing knows: the operator's plan and every backend's state in one frozen value, swapped whole.

Built by config.compile (the plan) and controlplane.publisher (the snapshot, its only writer), read by core.balancer,
dataplane, admin and telemetry. Holds only str, int, float, bool, None, tuples and frozen dataclasses of them, so that a
snapshot can be sent to another process.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from understudy.core.ask import DialectName
from understudy.core.color import NO_PROMPT, NO_ROLLOUT_RULES, Color, Prompt, RolloutRules
from understudy.core.rollout import NO_ROLLOUT, Rollout
from understudy.core.upkeep import (
    NO_GENERATION,
    NO_SLO,
    NO_WAKING,
    NO_WARMTH,
    GenerateRules,
    RestartRules,
    Slo,
    WakeRules,
    WarmRules,
)


class EngineKind(StrEnum):
    """The software that a backend runs; AUTO until a probe has told."""

    AUTO = "auto"
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    OPENAI = "openai"


class Role(StrEnum):
    """A backup is used when no primary can be."""

    PRIMARY = "primary"
    BACKUP = "backup"


class Condition(StrEnum):
    """What we believe of a backend."""

    UNKNOWN = "unknown"
    DOWN = "down"
    WARMING = "warming"
    UP = "up"


class Duty(StrEnum):
    """What the operator wants of a backend."""

    READY = "ready"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


class ResumeRule(StrEnum):
    """Whether a broken stream is continued on another backend; EXACT asks engines for token ids and continues by them."""

    ON = "true"
    EXACT = "exact"
    OFF = "false"


class Balance(StrEnum):
    """How a backend is chosen among equals."""

    ORDERED = "ordered"
    ROUND_ROBIN = "round_robin"
    LEAST_IN_FLIGHT = "least_in_flight"
    FASTEST = "fastest"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a backend listens. `scheme` is "http" or "https"; `prefix` is a path without a trailing slash, or ""."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """HOST:PORT as a Host field writes it; an IPv6 host in brackets (RFC 3986, 3.2.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a backend counts as down, up or ejected. Durations in seconds; see docs/configuration.md, health."""

    interval_s: float = 5.0
    timeout_s: float = 3.0
    rise: int = 2
    fall: int = 3
    max_fails: int = 3
    fail_timeout_s: float = 10.0
    slow_start_s: float = 0.0
    generate: GenerateRules = NO_GENERATION


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of one attempt and one exchange in seconds; 0 means none (only `total_s` and `keepalive_s` may be 0).

    `keepalive_s` is how often a client that waits on an event stream gets a comment.
    """

    connect_s: float = 2.0
    first_token_s: float = 120.0
    stall_s: float = 30.0
    total_s: float = 0.0
    keepalive_s: float = 15.0


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """How often and how long to try. `tries` 0: every usable backend once; `budget` is a share, 0.2 for 20 %.

    `assemble`: an answer that is not asked for as a stream is streamed by the engine all the same and put together here.
    `hedge`: a second attempt for a short prompt whose first content is later than usual.
    """

    tries: int = 0
    budget: float = 0.2
    hold_s: float = 5.0
    body_bytes_max: int = 32 * 1024 * 1024
    resume: ResumeRule = ResumeRule.ON
    assemble: bool = True
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything a client can make grow; each is a key under `limits`.

    `waiting_s_max` is how long an exchange waits for room at a backend, 0.0: as long as `failover.hold`.
    """

    head_bytes_max: int = 32 * 1024
    fields_max: int = 100
    target_bytes_max: int = 8 * 1024
    head_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0
    write_idle_s: float = 60.0
    connections_max: int = 10_000
    waiting_max: int = 1_000
    waiting_s_max: float = 0.0
    drain_s_max: float = 60.0


class OnError(StrEnum):
    """What a client of a session gets while the session store cannot be read."""

    ANSWER = "answer"  # an answer to what it sent, without what was kept
    REFUSE = "refuse"  # 503


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How conversations are kept; see docs/sessions.md. `is_on`: there is a store. `tokens_max` 0: no bound."""

    is_on: bool = False
    messages_max: int = 200
    bytes_max: int = 1024 * 1024
    tokens_max: int = 0
    lock_wait_s: float = 30.0
    on_error: OnError = OnError.ANSWER


class CacheWhen(StrEnum):
    """When a repeated request is answered from the cache."""

    ALWAYS = "always"
    NO_BACKEND = "no_backend"  # only when nothing else can answer


@dataclass(frozen=True, slots=True)
class CacheRules:
    """Recent answers kept for exact repeats; `size_bytes` 0: none."""

    size_bytes: int = 0
    ttl_s: float = 600.0
    when: CacheWhen = CacheWhen.NO_BACKEND


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend as the file describes it.

    `models` are (what clients call it, what this backend calls it); `api_key` is sent as a bearer token, "" sends what the
    client sent. Its repr leaves the key out.
    """

    name: str
    address: Address
    engine: EngineKind = EngineKind.AUTO
    role: Role = Role.PRIMARY
    weight: int = 1
    in_flight_max: int = 0
    models: tuple[tuple[str, str], ...] = ()
    api_key: str = field(default="", repr=False)
    health: HealthRules = HealthRules()
    timeouts: Timeouts = Timeouts()
    color: Color = Color.NONE
    prompt: Prompt = NO_PROMPT
    restart: RestartRules | None = None
    warm: WarmRules = NO_WARMTH
    wake: WakeRules = NO_WAKING
    metrics_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Everything of the file that exchanges and probes depend on. `backends` stand in order of preference."""

    backends: tuple[Backend, ...]
    balance: Balance = Balance.ORDERED
    timeouts: Timeouts = Timeouts()
    failover: FailoverRules = FailoverRules()
    limits: Limits = Limits()
    sessions: SessionRules = SessionRules()
    cache: CacheRules = CacheRules()
    rollout: RolloutRules = NO_ROLLOUT_RULES
    slo: Slo = NO_SLO
    allow_admin_paths: bool = False
    # sha256 of the keys whose holders may set X-Understudy-Priority and X-Understudy-Color, as lower-case hex.
    trusted_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What a request comes to mean: whoever keeps or compares answers begins anew when it is another one."""
        backends = frozenset((one.name, one.address, one.models, one.color, one.prompt) for one in self.backends)
        return (self.rollout.blue, self.rollout.green, backends)


@dataclass(frozen=True, slots=True)
class Model:
    """One model as a backend lists it, under the backend's own name.

    The entries are JSON texts as that backend wrote them, "" where it has no such list: `openai_entry` of /v1/models,
    `tags_entry` of /api/tags, `ps_entry` of /api/ps (present only while loaded). `is_loaded`: it is in memory, as far as the
    lists tell; engines other than Ollama and a llama.cpp router load before they answer.
    """

    name: str
    openai_entry: str = ""
    tags_entry: str = ""
    ps_entry: str = ""
    is_loaded: bool = True


@dataclass(frozen=True, slots=True)
class BackendState:
    """What is known of a backend now.

    `models` is None while its list is unknown (it may serve anything), () when it lists nothing. `since_at_s` is the loop time
    at which `condition` began; `reason` says in words why it is so. `dialects` is () while the engine is unknown.
    `is_restarting`: it is being restarted, or has not proven itself since, and gets no traffic whatever its probes say.
    `is_degraded`: it answers, but far below what it was, and is used last. `is_asleep`: it is down because its engine sleeps, and
    would leave a request waiting. `left_cold` are the models of its `warm` that nobody is about to load: others that are not
    loaded yet are waited for where another backend has them.
    """

    condition: Condition = Condition.UNKNOWN
    duty: Duty = Duty.READY
    engine: EngineKind = EngineKind.AUTO
    version: str = ""
    dialects: tuple[DialectName, ...] = ()
    models: tuple[Model, ...] | None = None
    since_at_s: float = 0.0
    reason: str = ""
    is_restarting: bool = False
    is_degraded: bool = False
    is_asleep: bool = False
    left_cold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A backend with its state: what the balancer chooses from and what `understudy status` shows."""

    backend: Backend
    state: BackendState


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """One consistent view. `generation` grows by one with every swap; `targets` stand in the plan's order."""

    generation: int
    plan: RoutingPlan
    targets: tuple[Target, ...]
    rollout: Rollout = NO_ROLLOUT


class Published:
    """The one swap point: `current` is assigned by controlplane.publisher only and read once per decision."""

    __slots__ = ("current",)

    def __init__(self, snapshot: RoutingSnapshot) -> None:
        self.current = snapshot
