"""The kinds of values that keeping backends well needs: commands, units, containers, machines to wake, alerts' channels.

Used by config.schema_backends and config.schema_upkeep, as config.values is, which says what holds for all kinds. Pure: starts
nothing, resolves nothing, and does not ask whether a program, a unit or a container is there.
"""

import difflib
import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, GetJsonSchemaHandler, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from understudy.config.addresses import URL_PATTERN, read_full_url
from understudy.config.quantities import (
    DURATION_PATTERN,
    FREQUENCY_PATTERN,
    PART_PATTERN,
    Frequency,
    Unreadable,
    read_duration,
    read_frequency,
    read_positive_duration,
    read_share,
    read_whole,
    scalar_text,
    write_duration,
    write_frequency,
    write_share,
)
from understudy.config.values import (
    FILLED,
    OFF,
    ModelName,
    is_off,
    nothing_is_empty,
    or_off,
    text_schema,
    whole_schema,
    write_or_off,
)
from understudy.core.upkeep import NO_GENERATION, GenerateRules, GenerateWhen

ARGV_MAX: Final = 256
WORD_BYTES_MAX: Final = 32 * 1024
ARGV_WANTED: Final = "a list, such as [systemctl, restart, ollama]"
WORD_WANTED: Final = f"text of at most {WORD_BYTES_MAX // 1024}KiB without NUL"
# systemd.unit(5), without a leading -, which systemctl would take for an option.
UNIT_PATTERN: Final = r"[A-Za-z0-9_:.\\@][A-Za-z0-9_:.\\@-]{0,254}"
UNIT_WANTED: Final = "a systemd unit such as ollama.service"
# Docker's own restriction of names, which fits ids as well.
CONTAINER_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
CONTAINER_WANTED: Final = "a container's name or id, such as ollama"
VARIABLES_MAX: Final = 256
VARIABLE_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]{0,255}"
VARIABLE_WANTED: Final = "a variable's name of letters, digits and _, such as CUDA_VISIBLE_DEVICES"
FOLDER_WANTED: Final = "an absolute path such as /srv/models"
MAC_PATTERN: Final = r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
MAC_WANTED: Final = "a MAC address such as aa:bb:cc:dd:ee:ff"
IP_PATTERN: Final = r"[0-9.]+|[0-9A-Fa-f:.]+(%.+)?"
IP_WANTED: Final = "an IP address such as 192.168.1.255"
PORT_MAX: Final = 65535
ALWAYS: Final = "always"
IDLE_WANTED: Final = f"more than 0: a duration such as 30m, or {ALWAYS}"
GENERATE_WANTED: Final = "off, suspicious, or more than 0: a duration such as 10m"
ALERT_URL_PATTERN: Final = r"[A-Za-z][A-Za-z0-9+.-]*://.+"
ALERT_URL_WANTED: Final = "an Apprise URL, SCHEME://..., on one line of at most 4096 characters"
TIME_PATTERN: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
QUIET_PATTERN: Final = rf"{TIME_PATTERN}-{TIME_PATTERN}"
QUIET_WANTED: Final = "two different times of the day such as 22:00-07:00, or off"

PROMISE_WANTED: Final = "a share below 100%, such as 1% or 0.01"
# A shorter one hardly ever holds as many exchanges as it takes to tell (core.objectives.SAMPLES_MIN).
WINDOW_S_MIN: Final = 10.0
WINDOW_WANTED: Final = "at least 10s: a duration such as 5m"

_HIDDEN: Final = "a value that is not shown"


class OrText:
    """For editors: what the other schema takes, or text of this form, or a place-holder; the reader of the key knows both."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return either form."""
        return {"anyOf": [handler(schema), {"type": "string", "pattern": f"^({self._pattern})?$"}, dict(FILLED)]}


class _EventSchema:
    """For editors: one of the events, which are read only when somebody asks."""

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": list(alert_events())}, dict(FILLED)]}


def alert_events() -> tuple[str, ...]:
    """Return what alerts may be about, by name."""
    # Only a file with `events` in it and the schema need them, and not the rest of what decides on alerts.
    from understudy.core.alerting import ALERT_EVENTS

    return ALERT_EVENTS


def _read_word(value: object) -> str:
    """Read one word of a command or one value of an environment: what execve(2) can carry."""
    text = scalar_text(value, WORD_WANTED)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Unreadable(WORD_WANTED, "half of a character (a surrogate)") from None
    if "\0" in text or size > WORD_BYTES_MAX:
        raise Unreadable(WORD_WANTED, _HIDDEN)
    return text


def _refuse_one_text(value: object) -> object:
    if isinstance(value, str):
        # Split at its spaces it would nearly be a shell's line, with other rules for quotes than any shell.
        raise Unreadable(ARGV_WANTED, "text")
    return value


def _read_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    if len(argv) > ARGV_MAX:
        raise Unreadable(f"at most {ARGV_MAX}", f"{len(argv)} words")
    if argv and not argv[0].strip():
        raise Unreadable(ARGV_WANTED, "a list whose first word, the program, is empty")
    return argv


def _read_variable(value: object) -> str:
    text = scalar_text(value, VARIABLE_WANTED)
    if not re.fullmatch(VARIABLE_PATTERN, text):
        raise Unreadable(VARIABLE_WANTED, "a name that no variable has")
    return text


def _read_environment(env: dict[str, str]) -> dict[str, str]:
    if len(env) > VARIABLES_MAX:
        raise Unreadable(f"at most {VARIABLES_MAX}", f"{len(env)} variables")
    return env


def _text_of(pattern: str, want: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = scalar_text(value, want)
        if not re.fullmatch(pattern, text):
            raise Unreadable(want)
        return text

    return read


def _or_empty(read: Callable[[object], str]) -> PlainValidator:
    """Take "" as not given: what an empty variable leaves."""
    return PlainValidator(lambda value: "" if value == "" else read(value))


def _read_folder(value: object) -> str:
    text = scalar_text(value, FOLDER_WANTED)
    if not text.startswith("/") or not text.isprintable() or len(text.encode()) > 4095:
        raise Unreadable(FOLDER_WANTED)
    return text


def _read_mac(value: object) -> str:
    """Return it in lower case with colons, so that one machine is one value."""
    return _text_of(MAC_PATTERN, MAC_WANTED)(value).lower().replace("-", ":")


def _read_ip(value: object) -> str:
    try:
        return str(ip_address(scalar_text(value, IP_WANTED)))
    except ValueError:
        raise Unreadable(IP_WANTED) from None


def _read_idle(value: object) -> float:
    """Read how long; `always` is 0.0, as in core.upkeep."""
    if value == ALWAYS:
        return 0.0
    try:
        return read_positive_duration(value)
    except Unreadable:
        raise Unreadable(IDLE_WANTED) from None


def _read_generate(value: object) -> GenerateRules:
    if isinstance(value, GenerateRules):
        return value
    if is_off(value):
        return NO_GENERATION
    if value == GenerateWhen.SUSPICIOUS.value:
        return GenerateRules(GenerateWhen.SUSPICIOUS)
    try:
        return GenerateRules(GenerateWhen.EVERY, read_positive_duration(value))
    except Unreadable:
        raise Unreadable(GENERATE_WANTED) from None


def _write_generate(rules: GenerateRules) -> str:
    return write_duration(rules.every_s) if rules.when is GenerateWhen.EVERY else rules.when.value


def _read_promise(value: object) -> float:
    """Read a share that can be exceeded. Who writes 1 may mean one in a hundred."""
    try:
        share = read_share(value)
    except Unreadable:
        raise Unreadable(PROMISE_WANTED) from None
    if share >= 1.0:
        raise Unreadable(PROMISE_WANTED, f"{write_share(share)}, which can never be exceeded")
    return share


def _read_window(value: object) -> float:
    try:
        window_s = read_duration(value)
    except Unreadable:
        raise Unreadable(WINDOW_WANTED) from None
    if window_s < WINDOW_S_MIN:
        raise Unreadable(WINDOW_WANTED)
    return window_s


def _read_alert_url(value: object) -> str:
    text = scalar_text(value, ALERT_URL_WANTED)
    if text and (not re.fullmatch(ALERT_URL_PATTERN, text) or not text.isprintable() or len(text) > 4096):
        raise Unreadable(ALERT_URL_WANTED, _HIDDEN)
    return text


def _read_event(value: object) -> str:
    events = alert_events()
    want = f"one of {', '.join(events)}"
    text = scalar_text(value, want)
    if text not in events:
        (nearest,) = difflib.get_close_matches(text, events, n=1, cutoff=0.0)
        is_near = bool(difflib.get_close_matches(text, [nearest], cutoff=0.6))
        raise Unreadable(nearest if is_near else f"{want} (nearest: {nearest})")
    return text


def _read_quiet(value: object) -> tuple[int, int] | None:
    """Return two minutes of the day, or None for never."""
    if isinstance(value, tuple):
        return value
    if value is None or is_off(value):
        return None
    text = _text_of(QUIET_PATTERN, QUIET_WANTED)(value)
    begins, ends = (int(time[:2]) * 60 + int(time[3:]) for time in text.split("-"))
    if begins == ends:
        raise Unreadable(QUIET_WANTED)
    return begins, ends


def write_quiet(quiet: tuple[int, int] | None) -> str:
    """Write two minutes of the day as `22:00-07:00`, and None as `off`."""
    return OFF if quiet is None else "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in quiet)


def each_once(words: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what is said a second time."""
    return tuple(dict.fromkeys(words))


def as_mac(value: object) -> object:
    """Take one text where keys and values may stand as the MAC address among them."""
    return {"mac": value} if isinstance(value, str) else value


_WORD_SCHEMA: Final = {"type": ["string", "number", "boolean"]}


Word = Annotated[str, PlainValidator(_read_word), WithJsonSchema(_WORD_SCHEMA)]
Argv = Annotated[
    tuple[Word, ...],
    nothing_is_empty(tuple),
    BeforeValidator(_refuse_one_text),
    AfterValidator(_read_argv),
    WithJsonSchema({"type": "array", "items": _WORD_SCHEMA, "maxItems": ARGV_MAX}),
]
Unit = Annotated[str, _or_empty(_text_of(UNIT_PATTERN, UNIT_WANTED)), text_schema(rf"|{UNIT_PATTERN}")]
Container = Annotated[str, _or_empty(_text_of(CONTAINER_PATTERN, CONTAINER_WANTED)), text_schema(rf"|{CONTAINER_PATTERN}")]
FullUrl = Annotated[str, _or_empty(read_full_url), text_schema(rf"|{URL_PATTERN}")]
Environment = Annotated[
    dict[Annotated[str, PlainValidator(_read_variable)], Word],
    nothing_is_empty(dict),
    AfterValidator(_read_environment),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": VARIABLES_MAX,
            "propertyNames": {"pattern": f"^({VARIABLE_PATTERN})$"},
            "additionalProperties": _WORD_SCHEMA,
        }
    ),
]
Folder = Annotated[str, _or_empty(_read_folder), text_schema("|/.*")]
Often = Annotated[
    Frequency,
    PlainValidator(read_frequency),
    PlainSerializer(write_frequency, return_type=str),
    text_schema(FREQUENCY_PATTERN),
]
Models = Annotated[tuple[ModelName, ...], nothing_is_empty(tuple), AfterValidator(each_once)]
Idle = Annotated[
    float,
    PlainValidator(_read_idle),
    PlainSerializer(lambda idle_s: write_duration(idle_s) if idle_s else ALWAYS, return_type=str),
    text_schema(rf"{ALWAYS}|{DURATION_PATTERN}", numbers=True),
]
Mac = Annotated[str, _or_empty(_read_mac), text_schema(rf"|{MAC_PATTERN}")]
Ip = Annotated[str, PlainValidator(_read_ip), text_schema(IP_PATTERN)]
Port = Annotated[int, PlainValidator(partial(read_whole, least=1, most=PORT_MAX)), whole_schema(1, PORT_MAX)]
_DURATION_SCHEMAS: Final = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^({DURATION_PATTERN})$"}]
Generate = Annotated[
    GenerateRules,
    PlainValidator(_read_generate),
    PlainSerializer(_write_generate, return_type=str),
    WithJsonSchema({"anyOf": [{"enum": [OFF, False, GenerateWhen.SUSPICIOUS.value]}, *_DURATION_SCHEMAS, dict(FILLED)]}),
]
DurationOrOff = Annotated[
    float | None,
    or_off(read_positive_duration),
    write_or_off(write_duration),
    WithJsonSchema({"anyOf": [{"enum": [OFF, False]}, *_DURATION_SCHEMAS, dict(FILLED)]}),
]
_PROMISE_SCHEMAS: Final = [
    {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    {"type": "string", "pattern": f"^({PART_PATTERN})$"},
]
PromiseOrOff = Annotated[
    float | None,
    or_off(_read_promise),
    write_or_off(write_share),
    WithJsonSchema({"anyOf": [{"enum": [OFF, False]}, *_PROMISE_SCHEMAS, dict(FILLED)]}),
]
_WINDOW_SCHEMAS: Final = [
    {"type": "number", "minimum": WINDOW_S_MIN},
    {"type": "string", "pattern": f"^({DURATION_PATTERN})$"},
]
Window = Annotated[
    float,
    PlainValidator(_read_window),
    PlainSerializer(write_duration, return_type=str),
    WithJsonSchema({"anyOf": [*_WINDOW_SCHEMAS, dict(FILLED)]}),
]
AlertUrl = Annotated[
    str, PlainValidator(_read_alert_url), WithJsonSchema({**text_schema(rf"|{ALERT_URL_PATTERN}").json_schema, "writeOnly": True})
]
Events = Annotated[
    tuple[Annotated[str, PlainValidator(_read_event), _EventSchema()], ...], nothing_is_empty(tuple), AfterValidator(each_once)
]
Quiet = Annotated[
    tuple[int, int] | None,
    PlainValidator(_read_quiet),
    PlainSerializer(write_quiet, return_type=str),
    WithJsonSchema({"anyOf": [{"enum": [OFF, False]}, {"type": "string", "pattern": f"^({QUIET_PATTERN})$"}, dict(FILLED)]}),
]
