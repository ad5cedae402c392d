"""Every key of the file: its meaning, its unit, its default, what it accepts. The text of a field is the reference.

Read by config.load (which turns its complaints into mistakes with places), config.compile, `understudy check` and
`understudy schema`; tests/tidy keeps config.example.yaml and docs/configuration.md in step with it. Checks one value at a
time; what concerns several keys at once is in config.validation.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from understudy.config.addresses import (
    LISTEN_PATTERN,
    URL_PATTERN,
    ListenAddress,
    read_listen,
    read_url,
    write_url,
)
from understudy.config.quantities import (
    DURATION_PATTERN,
    SHARE_PATTERN,
    SIZE_PATTERN,
    WHOLE_MAX,
    Unreadable,
    read_duration,
    read_positive_duration,
    read_share,
    read_size,
    read_switch,
    read_whole,
    scalar_text,
    write_duration,
    write_share,
    write_size,
)
from understudy.core.snapshot import Address, Balance, EngineKind, FailoverRules, HealthRules, Limits, Role, Timeouts

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9_-]*"
NAME_LENGTH_MAX: Final = 63
NAME_WANTED: Final = f"a name of at most {NAME_LENGTH_MAX} characters: a-z, 0-9, _ and -, beginning with a letter or a digit"
KEY_WANTED: Final = "a key of printable ASCII characters without spaces, at most 4096"
MODEL_WANTED: Final = "a model's name of 1 to 512 printable characters"

_FILLED: Final = {"type": "string", "pattern": r"\$\{"}


def _text_schema(pattern: str, *, numbers: bool = False) -> WithJsonSchema:
    """For editors: text of this form, or a place-holder that is filled later; `numbers` also allows YAML's numbers."""
    either: list[dict[str, Any]] = [{"type": "string", "pattern": f"^({pattern})$"}, dict(_FILLED)]
    if numbers:
        either.insert(0, {"type": "number", "minimum": 0})
    return WithJsonSchema({"anyOf": either})


def _whole_schema(least: int, most: int) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, dict(_FILLED)]})


def _read_name(value: object) -> str:
    text = scalar_text(value, NAME_WANTED)
    if len(text) > NAME_LENGTH_MAX or not re.fullmatch(NAME_PATTERN, text):
        raise Unreadable(NAME_WANTED)
    return text


def _read_secret(value: object) -> str:
    text = scalar_text(value, KEY_WANTED)
    # It becomes a field of an HTTP head: a line end in it would begin another field.
    if not re.fullmatch(r"[\x21-\x7e]{0,4096}", text):
        raise Unreadable(KEY_WANTED, "a value with a space or another character that no key has, or a very long one")
    return text


def _read_model(value: object) -> str:
    text = scalar_text(value, MODEL_WANTED)
    if not 1 <= len(text) <= 512 or not text.isprintable():
        raise Unreadable(MODEL_WANTED)
    return text


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | ListenAddress) else value


def _nothing_is_empty(empty: Callable[[], object]) -> BeforeValidator:
    """Take nothing as empty: a section whose keys are all commented out means its defaults."""
    return BeforeValidator(lambda value: empty() if value is None else value)


Duration = Annotated[
    float,
    PlainValidator(read_duration),
    PlainSerializer(write_duration, return_type=str),
    _text_schema(DURATION_PATTERN, numbers=True),
]
PositiveDuration = Annotated[
    float,
    PlainValidator(read_positive_duration),
    PlainSerializer(write_duration, return_type=str),
    _text_schema(DURATION_PATTERN, numbers=True),
]
Size = Annotated[
    int, PlainValidator(read_size), PlainSerializer(write_size, return_type=str), _text_schema(SIZE_PATTERN, numbers=True)
]
Share = Annotated[
    float, PlainValidator(read_share), PlainSerializer(write_share, return_type=str), _text_schema(SHARE_PATTERN, numbers=True)
]
WholeFromZero = Annotated[int, PlainValidator(partial(read_whole, least=0)), _whole_schema(0, WHOLE_MAX)]
WholeFromOne = Annotated[int, PlainValidator(partial(read_whole, least=1)), _whole_schema(1, WHOLE_MAX)]
Weight = Annotated[int, PlainValidator(partial(read_whole, least=1, most=1000)), _whole_schema(1, 1000)]
Switch = Annotated[bool, PlainValidator(read_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, dict(_FILLED)]})]
Name = Annotated[str, PlainValidator(_read_name), _text_schema(NAME_PATTERN)]
ModelName = Annotated[str, PlainValidator(_read_model), WithJsonSchema({"type": ["string", "number"], "minLength": 1})]
Secret = Annotated[str, PlainValidator(_read_secret), WithJsonSchema({"type": "string", "writeOnly": True})]
Url = Annotated[Address, PlainValidator(read_url), PlainSerializer(write_url, return_type=str), _text_schema(URL_PATTERN)]
Listen = Annotated[
    ListenAddress, PlainValidator(read_listen), PlainSerializer(str, return_type=str), _text_schema(LISTEN_PATTERN)
]

SECRET_KEYS: Final = frozenset({"api_key", "token"})

_HEALTH, _TIMEOUTS, _FAILOVER, _LIMITS = HealthRules(), Timeouts(), FailoverRules(), Limits()


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


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, values kept out of pydantic's own messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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


class BackendSettings(Section):
    """One engine at one URL. The list's order is the order of preference."""

    name: Name = Field(description="The backend's name in headers, logs and commands; unique.", examples=["pi"])
    url: Url = Field(description="Where the backend listens.", examples=["http://192.168.1.100:11434"])
    engine: EngineKind = Field(default=EngineKind.AUTO, description="The software it runs; auto lets the probe find out.")
    role: Role = Field(default=Role.PRIMARY, description="A backup is used when no primary can be.")
    weight: Weight = Field(default=1, description="Share among equals, 1 to 1000.")
    in_flight_max: WholeFromZero = Field(default=0, description="Exchanges at this backend at once; 0: no limit.")
    models: Annotated[dict[ModelName, ModelName], _nothing_is_empty(dict)] = Field(
        default_factory=dict, description="What clients call a model: what this backend calls it."
    )
    api_key: Secret = Field(
        default="", repr=False, description="Sent to this backend as a bearer token; empty: what the client sent goes on."
    )
    health: Annotated[HealthSettings, _nothing_is_empty(dict)] = Field(
        default_factory=HealthSettings, description="Any keys of health, for this backend alone."
    )


class TimeoutSettings(Section):
    """How long one attempt and one exchange may take."""

    connect: PositiveDuration = Field(default=_TIMEOUTS.connect_s, description="Longest wait for a connection to a backend.")
    first_token: PositiveDuration = Field(
        default=_TIMEOUTS.first_token_s, description="Longest wait from sending the request to the first content."
    )
    stall: PositiveDuration = Field(default=_TIMEOUTS.stall_s, description="Longest silence between two pieces of an answer.")
    total: Duration = Field(default=_TIMEOUTS.total_s, description="Longest time for a whole exchange; 0s: no limit.")


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
    body_max: Size = Field(default=_FAILOVER.body_bytes_max, description="Larger requests are refused with 413.")


class AccessSettings(Section):
    """What clients may do."""

    allow_admin_paths: Switch = Field(
        default=False, description="Relay the engines' own model-management paths (/api/pull, /api/delete, ...) instead of 403."
    )


class LogSettings(Section):
    """What is logged, and how it looks. Logs go to standard error."""

    format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, JSON elsewhere."
    )
    level: LogLevel = Field(default=LogLevel.INFO, description="The least important level that is written.")


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
    drain_s_max: Duration = Field(
        default=_LIMITS.drain_s_max,
        description="How long exchanges in flight may take to finish when the daemon stops; 0s: none.",
    )


class Settings(Section):
    """The file of Understudy. Only `backends` is required."""

    listen: Annotated[tuple[Listen, ...], Field(min_length=1), BeforeValidator(_as_list)] = Field(
        default=(ListenAddress("127.0.0.1", 8080),),
        description="Where clients connect: HOST:PORT, [::]:PORT or unix:/path; a list is allowed.",
    )
    admin: Annotated[AdminSettings, _nothing_is_empty(dict)] = Field(default_factory=AdminSettings)
    backends: Annotated[tuple[BackendSettings, ...], Field(min_length=1)] = Field(
        description="The backends, in order of preference.", examples=["- {name: pi, url: http://192.168.1.100:11434}"]
    )
    health: Annotated[HealthSettings, _nothing_is_empty(dict)] = Field(default_factory=HealthSettings)
    timeouts: Annotated[TimeoutSettings, _nothing_is_empty(dict)] = Field(default_factory=TimeoutSettings)
    failover: Annotated[FailoverSettings, _nothing_is_empty(dict)] = Field(default_factory=FailoverSettings)
    balance: Balance = Field(default=Balance.ORDERED, description="How one of several usable backends of a role is chosen.")
    access: Annotated[AccessSettings, _nothing_is_empty(dict)] = Field(default_factory=AccessSettings)
    log: Annotated[LogSettings, _nothing_is_empty(dict)] = Field(default_factory=LogSettings)
    limits: Annotated[LimitSettings, _nothing_is_empty(dict)] = Field(default_factory=LimitSettings)


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
                properties[key].update({} if field.is_required() or key in {"backends", "models"} else {"default": values[key]})
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
        ("health",): HealthSettings,
        ("timeouts",): TimeoutSettings,
        ("failover",): FailoverSettings,
        ("access",): AccessSettings,
        ("log",): LogSettings,
        ("limits",): LimitSettings,
    }
