"""Every key of the file: its meaning, its unit, its default, what it accepts. The text of a field is the reference.

Read by config.load (which turns its complaints into mistakes with places), config.compile, `understudy check` and
`understudy schema`; tests/tidy keeps config.example.yaml and docs/configuration.md in step with it. Checks one value at a
time; what concerns several keys at once is in config.validation.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from understudy.config.addresses import ListenAddress
from understudy.config.schema_rollout import GuardSettings, PromptSettings, RolloutSettings
from understudy.config.section import Section
from understudy.config.values import (
    CipherKey,
    Defaults,
    Digest,
    Duration,
    Listen,
    ModelName,
    Name,
    PositiveDuration,
    Prefix,
    ResumeWord,
    Secret,
    Share,
    Size,
    SizeFromKiB,
    SizeFromZero,
    Store,
    Switch,
    SystemText,
    Url,
    Weight,
    WholeFromOne,
    WholeFromTwo,
    WholeFromZero,
    as_list,
    nothing_is_empty,
)
from understudy.core.color import Color, SystemPlace
from understudy.core.snapshot import (
    Balance,
    CacheRules,
    CacheWhen,
    EngineKind,
    FailoverRules,
    HealthRules,
    Limits,
    OnError,
    Role,
    SessionRules,
    Timeouts,
)

# `trusted` holds digests; a short key could be guessed from one. `system` is a prompt, and no prompt is ever shown.
SECRET_KEYS: Final = frozenset({"api_key", "cookie_key", "key", "system", "token", "trusted"})

_HEALTH, _TIMEOUTS, _FAILOVER, _LIMITS = HealthRules(), Timeouts(), FailoverRules(), Limits()
_SESSIONS, _CACHE = SessionRules(), CacheRules()


class LogFormat(StrEnum):
    """How log lines look; AUTO is console on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least important level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SessionFormat(StrEnum):
    """How conversations are written; MSGPACK is smaller and read by programs only."""

    JSON = "json"
    MSGPACK = "msgpack"


class AdminSettings(Section):
    """The admin port: status, metrics, reload, duties."""

    listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 9901), description="Where the admin port listens: HOST:PORT, [::]:PORT or unix:/path."
    )
    token: Secret = Field(
        default="",
        repr=False,
        description="Bearer token that the admin port asks for. Must be set when the admin port listens beyond loopback.",
    )


class HealthSettings(Section):
    """When a backend counts as down, up or ejected. Under a backend, the keys given there replace these."""

    interval: PositiveDuration = Field(default=_HEALTH.interval_s, description="Time between two probes of a backend.")
    timeout: PositiveDuration = Field(default=_HEALTH.timeout_s, description="Longest time that one probe may take.")
    rise: WholeFromOne = Field(default=_HEALTH.rise, description="Good probes in a row before a down backend is up.")
    fall: WholeFromOne = Field(default=_HEALTH.fall, description="Bad probes in a row before an up backend is down.")
    max_fails: WholeFromZero = Field(
        default=_HEALTH.max_fails, description="Failed exchanges within fail_timeout that eject a backend; 0 ejects none."
    )
    fail_timeout: PositiveDuration = Field(
        default=_HEALTH.fail_timeout_s,
        description="The time in which max_fails are counted, and how long an ejected backend rests.",
    )
    slow_start: Duration = Field(
        default=_HEALTH.slow_start_s,
        description="Time over which a backend's share of traffic grows after coming back; 0s: at once.",
    )


class AttemptTimeoutSettings(Section):
    """How long one attempt may take. Under a backend, the keys given there replace the common ones."""

    connect: PositiveDuration = Field(default=_TIMEOUTS.connect_s, description="Longest wait for a connection to a backend.")
    first_token: PositiveDuration = Field(
        default=_TIMEOUTS.first_token_s, description="Longest wait from sending the request to the first content."
    )
    stall: PositiveDuration = Field(default=_TIMEOUTS.stall_s, description="Longest silence between two pieces of an answer.")


class TimeoutSettings(AttemptTimeoutSettings):
    """How long one attempt and one exchange may take."""

    total: Duration = Field(default=_TIMEOUTS.total_s, description="Longest time for a whole exchange; 0s: no limit.")
    keepalive: Duration = Field(
        default=_TIMEOUTS.keepalive_s,
        description="A client that waits on an event stream gets a comment this often, so that nothing between closes it; "
        "0s: none.",
    )


class BackendSettings(Section):
    """One engine at one URL. The list's order is the order of preference."""

    name: Name = Field(description="The backend's name in headers, logs and commands; unique.", examples=["pi"])
    url: Url = Field(description="Where the backend listens.", examples=["http://192.168.1.100:11434"])
    engine: EngineKind = Field(default=EngineKind.AUTO, description="The software it runs; auto lets the probe find out.")
    role: Role = Field(default=Role.PRIMARY, description="A backup is used when no primary can be.")
    color: Color = Field(default=Color.NONE, description="The color that it belongs to (see rollout); none serves both.")
    weight: Weight = Field(default=1, description="Share among equals, 1 to 1000.")
    in_flight_max: WholeFromZero = Field(default=0, description="Exchanges at this backend at once; 0: no limit.")
    models: Annotated[dict[ModelName, ModelName], nothing_is_empty(dict)] = Field(
        default_factory=dict, description="What clients call a model: what this backend calls it."
    )
    api_key: Secret = Field(
        default="", repr=False, description="Sent to this backend as a bearer token; empty: what the client sent goes on."
    )
    health: Annotated[HealthSettings, nothing_is_empty(dict)] = Field(
        default_factory=HealthSettings.model_construct, description="Any keys of health, for this backend alone."
    )
    timeouts: Annotated[AttemptTimeoutSettings, nothing_is_empty(dict)] = Field(
        default_factory=AttemptTimeoutSettings.model_construct,
        description="connect, first_token and stall of timeouts, for this backend alone.",
    )
    system: SystemText = Field(
        default="", repr=False, description="A system prompt for this backend; it stands in place of its color's."
    )
    system_place: SystemPlace = Field(
        default=SystemPlace.BEFORE, description="Where it goes: before the client's own, in one message, or instead of it."
    )
    defaults: Defaults = Field(
        default_factory=dict,
        description="Settings such as temperature, filled in where a request says nothing of them; they go before its color's.",
    )


class FailoverSettings(Section):
    """How often and how long to try."""

    tries: WholeFromZero = Field(default=_FAILOVER.tries, description="Attempts before giving up; 0: every usable backend once.")
    budget: Share = Field(
        default=_FAILOVER.budget,
        description="Attempts beyond the first without content, as a share of the exchanges of the last 10 s, but at least 3.",
    )
    hold: Duration = Field(
        default=_FAILOVER.hold_s,
        description="When no backend is usable, wait this long for one rather than refuse; 0s: refuse at once.",
    )
    resume: ResumeWord = Field(
        default=_FAILOVER.resume,
        description="Continue a broken stream on another backend; exact: by token ids, where the engine has them.",
    )
    assemble: Switch = Field(
        default=_FAILOVER.assemble,
        description="Ask for an answer that is not streamed as a stream and put it together, so that it, too, can be continued.",
    )
    hedge: Switch = Field(
        default=_FAILOVER.hedge,
        description="A second attempt for a short prompt whose first content is later than that backend's 95th percentile.",
    )
    body_max: Size = Field(default=_FAILOVER.body_bytes_max, description="Larger requests are refused with 413.")


class SessionSettings(Section):
    """Where conversations are kept, how much of each, and for how long."""

    store: Store = Field(
        default=None,
        description="Where conversations are kept: none, file:PATH, or redis://HOST:PORT/DB (rediss, sentinel and cluster, too).",
    )
    format: SessionFormat = Field(default=SessionFormat.JSON, description="How files and values in Redis are written.")
    ttl: PositiveDuration = Field(
        default=24 * 3600.0, description="A conversation that has not changed for this long is forgotten."
    )
    messages_max: WholeFromTwo = Field(
        default=_SESSIONS.messages_max,
        description="Most messages of one conversation, 2 or more; whole turns fall off the front, the system message stays.",
    )
    bytes_max: SizeFromKiB = Field(
        default=_SESSIONS.bytes_max, description="Largest conversation; whole turns fall off the front. At least 1KiB."
    )
    tokens_max: WholeFromZero = Field(
        default=_SESSIONS.tokens_max,
        description="Most tokens of one conversation, as engines count them; whole turns fall off the front; 0: no bound.",
    )
    lock_wait: Duration = Field(
        default=_SESSIONS.lock_wait_s,
        description="How long a request waits for another one of its session before it is refused with 409; 0s: not at all.",
    )
    on_error: OnError = Field(
        default=_SESSIONS.on_error,
        description="What a request of a session gets while the store cannot be read: an answer without what was kept, or 503.",
    )
    timeout: PositiveDuration = Field(default=1.0, description="Longest time that one question to Redis may take.")
    prefix: Prefix = Field(default="understudy:", description="Stands before every key in Redis.")
    key: CipherKey = Field(
        default="",
        repr=False,
        description="Encrypts what is kept: 32 bytes as 64 hexadecimal digits or in base64; empty: nothing is encrypted.",
    )


class CacheSettings(Section):
    """Recent answers, given again to exact repeats of requests whose answer does not depend on chance."""

    size: SizeFromZero = Field(
        default=_CACHE.size_bytes,
        description="Memory for recent answers to requests with temperature 0 or a seed; 0: none is kept.",
    )
    ttl: PositiveDuration = Field(default=_CACHE.ttl_s, description="How long an answer is kept.")
    when: CacheWhen = Field(
        default=_CACHE.when, description="always: a repeat is answered at once; no_backend: only when no backend can answer it."
    )


class AccessSettings(Section):
    """What clients may do."""

    allow_admin_paths: Switch = Field(
        default=False, description="Relay the engines' own model-management paths (/api/pull, /api/delete, ...) instead of 403."
    )
    trusted: tuple[Digest, ...] = Field(
        default=(),
        repr=False,
        description="Keys whose holders may set X-Understudy-Priority and X-Understudy-Color, each as sha256:HEX; while it is "
        "empty, every client's X-Understudy-Color counts.",
        examples=["[sha256:...]"],
    )


class LogSettings(Section):
    """What is logged, and how it looks. Logs go to standard error."""

    format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, JSON elsewhere."
    )
    level: LogLevel = Field(default=LogLevel.INFO, description="The least important level that is written.")
    slow: Duration = Field(default=0.0, description="Exchanges that take longer are said at warning level; 0s: none.")


class LimitSettings(Section):
    """Bounds on everything that a client can make grow. The defaults suit nearly everyone."""

    head_max: Size = Field(
        default=_LIMITS.head_bytes_max, description="Largest head of a request; a backend's answer may have one of 64 KiB."
    )
    fields_max: WholeFromOne = Field(default=_LIMITS.fields_max, description="Most header fields in one head.")
    target_max: Size = Field(default=_LIMITS.target_bytes_max, description="Longest request target (path and query).")
    head_timeout: PositiveDuration = Field(
        default=_LIMITS.head_timeout_s, description="Longest time for a request's head to arrive."
    )
    body_timeout: PositiveDuration = Field(
        default=_LIMITS.body_timeout_s, description="Longest time for the next KiB of a request's body to arrive."
    )
    idle_timeout: PositiveDuration = Field(
        default=_LIMITS.idle_timeout_s, description="How long a client's connection may stay open between two requests."
    )
    write_idle: PositiveDuration = Field(
        default=_LIMITS.write_idle_s, description="How long a client may take nothing of its answer before it is cut off."
    )
    connections_max: WholeFromOne = Field(default=_LIMITS.connections_max, description="Most client connections at once.")
    waiting_max: WholeFromZero = Field(
        default=_LIMITS.waiting_max, description="Most exchanges that wait for a backend or for room at once; 0: none waits."
    )
    waiting_s_max: Duration = Field(
        default=_LIMITS.waiting_s_max,
        description="How long an exchange waits for room at a backend; 0s: as long as failover.hold.",
    )
    drain_s_max: Duration = Field(
        default=_LIMITS.drain_s_max,
        description="How long exchanges in flight may take to finish when the daemon stops; 0s: none.",
    )


class Settings(Section):
    """The file of Understudy. Only `backends` is required."""

    listen: Annotated[tuple[Listen, ...], Field(min_length=1), BeforeValidator(as_list)] = Field(
        default=(ListenAddress("127.0.0.1", 8080),),
        description="Where clients connect: HOST:PORT, [::]:PORT or unix:/path; a list is allowed.",
    )
    admin: Annotated[AdminSettings, nothing_is_empty(dict)] = Field(default_factory=AdminSettings.model_construct)
    backends: Annotated[tuple[BackendSettings, ...], Field(min_length=1)] = Field(
        description="The backends, in order of preference.", examples=["- {name: pi, url: http://192.168.1.100:11434}"]
    )
    health: Annotated[HealthSettings, nothing_is_empty(dict)] = Field(default_factory=HealthSettings.model_construct)
    timeouts: Annotated[TimeoutSettings, nothing_is_empty(dict)] = Field(default_factory=TimeoutSettings.model_construct)
    failover: Annotated[FailoverSettings, nothing_is_empty(dict)] = Field(default_factory=FailoverSettings.model_construct)
    balance: Balance = Field(default=Balance.ORDERED, description="How one of several usable backends of a role is chosen.")
    sessions: Annotated[SessionSettings, nothing_is_empty(dict)] = Field(default_factory=SessionSettings.model_construct)
    cache: Annotated[CacheSettings, nothing_is_empty(dict)] = Field(default_factory=CacheSettings.model_construct)
    rollout: Annotated[RolloutSettings, nothing_is_empty(dict)] = Field(default_factory=RolloutSettings.model_construct)
    access: Annotated[AccessSettings, nothing_is_empty(dict)] = Field(default_factory=AccessSettings.model_construct)
    log: Annotated[LogSettings, nothing_is_empty(dict)] = Field(default_factory=LogSettings.model_construct)
    limits: Annotated[LimitSettings, nothing_is_empty(dict)] = Field(default_factory=LimitSettings.model_construct)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, draft 2020-12, for editors. Defaults stand as an operator would write them."""
    schema = Settings.model_json_schema()
    written = Settings.model_validate({"backends": [{"name": "any", "url": "http://any"}]}).model_dump(mode="json")
    for path, section in sections().items():
        values: Any = written
        for step in path:
            values = values[step][0] if step == "backends" else values[step]
        properties = schema["$defs"][section.__name__]["properties"] if path else schema["properties"]
        for key, field in section.model_fields.items():
            if "$ref" not in properties[key] or "default" in properties[key]:
                is_bare = field.is_required() or key in {"backends", "models", "defaults"}
                properties[key].update({} if is_bare else {"default": values[key]})
    # A list of addresses may also be one address.
    listen = schema["properties"]["listen"]
    several = {key: listen.pop(key) for key in ("type", "items", "minItems")}
    listen["anyOf"] = [several["items"], several]
    listen["default"] = listen["default"][0]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "understudy.yaml"}


def sections() -> dict[tuple[str, ...], type[Section]]:
    """Return every section by its keys without list positions: `()` is the file, `("backends", "health")` a backend's health."""
    return {
        (): Settings,
        ("admin",): AdminSettings,
        ("backends",): BackendSettings,
        ("backends", "health"): HealthSettings,
        ("backends", "timeouts"): AttemptTimeoutSettings,
        ("health",): HealthSettings,
        ("timeouts",): TimeoutSettings,
        ("failover",): FailoverSettings,
        ("sessions",): SessionSettings,
        ("cache",): CacheSettings,
        ("rollout",): RolloutSettings,
        ("rollout", "guard"): GuardSettings,
        ("rollout", "blue"): PromptSettings,
        ("rollout", "green"): PromptSettings,
        ("access",): AccessSettings,
        ("log",): LogSettings,
        ("limits",): LimitSettings,
    }
