"""Every key of the file: its meaning, its unit, its default, what it accepts. The text of a field is the reference.

Read by config.load (which turns its complaints into mistakes with places), config.compile, `understudy check` and
`understudy schema`; tests/tidy keeps config.example.yaml and docs/configuration.md in step with it. Checks one value at a
time; what concerns several keys at once is in config.validation.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from understudy.config.addresses import ListenAddress
from understudy.config.schema_backends import AttemptTimeoutSettings, BackendSettings, HealthSettings
from understudy.config.schema_rollout import GuardSettings, PromptSettings, RolloutSettings
from understudy.config.schema_upkeep import AlertSettings, RestartSettings, SloSettings, WakeSettings
from understudy.config.section import Section
from understudy.config.values import (
    CipherKey,
    Digest,
    Duration,
    Listen,
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
    WholeFromOne,
    WholeFromTwo,
    WholeFromZero,
    as_list,
    nothing_is_empty,
)
from understudy.core.snapshot import (
    Balance,
    CacheRules,
    CacheWhen,
    FailoverRules,
    Limits,
    OnError,
    SessionRules,
    Timeouts,
)

_TIMEOUTS, _FAILOVER, _LIMITS = Timeouts(), FailoverRules(), Limits()
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


class TimeoutSettings(AttemptTimeoutSettings):
    """How long one attempt and one exchange may take."""

    total: Duration = Field(default=_TIMEOUTS.total_s, description="Longest time for a whole exchange; 0s: no limit.")
    keepalive: Duration = Field(
        default=_TIMEOUTS.keepalive_s,
        description="A client that waits on an event stream gets a comment this often, so that nothing between closes it; "
        "0s: none.",
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
    slo: Annotated[SloSettings, nothing_is_empty(dict)] = Field(default_factory=SloSettings.model_construct)
    alerts: Annotated[tuple[AlertSettings, ...], nothing_is_empty(tuple)] = Field(
        default=(),
        description="Who is told of what happens: a list of channels.",
        examples=['- {url: "json://hooks.example.org/understudy"}'],
    )
    access: Annotated[AccessSettings, nothing_is_empty(dict)] = Field(default_factory=AccessSettings.model_construct)
    log: Annotated[LogSettings, nothing_is_empty(dict)] = Field(default_factory=LogSettings.model_construct)
    limits: Annotated[LimitSettings, nothing_is_empty(dict)] = Field(default_factory=LimitSettings.model_construct)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, draft 2020-12, for editors. Defaults stand as an operator would write them."""
    schema = Settings.model_json_schema()
    least = {"backends": [{"name": "any", "url": "http://any"}], "alerts": [{"url": "any://any"}]}
    written = Settings.model_validate(least).model_dump(mode="json")
    known = sections()
    for path, section in known.items():
        values: Any = written
        for step in path:
            values = values[step][0] if step in least else values[step]
        properties = schema["$defs"][section.__name__]["properties"] if path else schema["properties"]
        for key, field in section.model_fields.items():
            is_bare = field.is_required() or key in {"models", "defaults"} or (*path, key) in known
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
        ("backends", "restart"): RestartSettings,
        ("backends", "wake"): WakeSettings,
        ("health",): HealthSettings,
        ("timeouts",): TimeoutSettings,
        ("failover",): FailoverSettings,
        ("sessions",): SessionSettings,
        ("cache",): CacheSettings,
        ("rollout",): RolloutSettings,
        ("rollout", "guard"): GuardSettings,
        ("rollout", "blue"): PromptSettings,
        ("rollout", "green"): PromptSettings,
        ("slo",): SloSettings,
        ("alerts",): AlertSettings,
        ("access",): AccessSettings,
        ("log",): LogSettings,
        ("limits",): LimitSettings,
    }


def is_secret(path: Sequence[str]) -> bool:
    """Whether what stands at `path` (keys without list positions), or above it, is shown in no message.

    Keys and passwords; commands, environments and URLs that may hold them; digests, from which a short key could be guessed;
    and prompts, none of which is ever shown.
    """
    return any(tuple(path[:length]) in _SECRETS for length in range(1, len(path) + 1))


def holds_secret(path: Sequence[str]) -> bool:
    """Whether there are secrets below `path`: a single value that stands there instead may be one of them."""
    return any(secret[: len(path)] == tuple(path) for secret in _SECRETS)


_SECRETS: Final = frozenset(
    (*path, key) for path, section in sections().items() for key, field in section.model_fields.items() if not field.repr
)
