"""The kinds of values in the file: for each, how it is read, how it is written, and what an editor is told of it.

Used by config.schema for every key that is no section. A reader raises `Unreadable` with what is wanted; pydantic and
config.validation turn that into a mistake with its place. Pure.
"""

import base64
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from understudy.config.addresses import (
    LISTEN_PATTERN,
    URL_PATTERN,
    ListenAddress,
    read_listen,
    read_url,
    write_url,
)
from understudy.config.json_values import write_json
from understudy.config.quantities import (
    DURATION_PATTERN,
    PART_PATTERN,
    RATIO_MAX,
    RATIO_PATTERN,
    SHARE_PATTERN,
    SIZE_PATTERN,
    WHOLE_MAX,
    Unreadable,
    read_duration,
    read_positive_duration,
    read_ratio,
    read_share,
    read_size,
    read_switch,
    read_whole,
    scalar_text,
    write_duration,
    write_ratio,
    write_share,
    write_size,
)
from understudy.config.store_address import STORE_PATTERN, StoreAddress, read_store, write_store
from understudy.core.color import Color
from understudy.core.snapshot import Address, ResumeRule
from understudy.dialects.prompting_defaults import DEFAULTS_REFUSED

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9_-]*"
NAME_LENGTH_MAX: Final = 63
NAME_WANTED: Final = f"a name of at most {NAME_LENGTH_MAX} characters: a-z, 0-9, _ and -, beginning with a letter or a digit"
KEY_WANTED: Final = "a key of printable ASCII characters without spaces, at most 4096"
MODEL_WANTED: Final = "a model's name of 1 to 512 printable characters"
RESUME_WANTED: Final = "true, exact or false"
DIGEST_PATTERN: Final = r"sha256:[0-9A-Fa-f]{64}"
DIGEST_WANTED: Final = "sha256: and the 64 hexadecimal digits of a key's SHA-256"
PREFIX_PATTERN: Final = r"[A-Za-z0-9_.:/-]{1,64}"
PREFIX_WANTED: Final = "1 to 64 characters of A-Z, a-z, 0-9, _ . : / and -"
CIPHER_KEY_WANTED: Final = (
    "a key of 32 bytes, as `openssl rand -hex 32` prints it: 64 hexadecimal digits, or 44 characters of base64"
)

ACTIVE_WANTED: Final = "one of blue, green"
COOKIE_KEY_LENGTH_MIN: Final = 16
COOKIE_KEY_WANTED: Final = (
    f"a key of at least {COOKIE_KEY_LENGTH_MIN} printable ASCII characters without spaces, as `openssl rand -hex 32` prints it"
)
SYSTEM_BYTES_MAX: Final = 64 * 1024
SYSTEM_WANTED: Final = f"text of at most {SYSTEM_BYTES_MAX // 1024}KiB"
STEPS_MAX: Final = 100
STEPS_WANTED: Final = "a share such as 5%, or a list of growing shares such as [5%, 25%, 100%]"
DEFAULTS_MAX: Final = 50
DEFAULT_KEY_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
DEFAULT_KEY_WANTED: Final = "a setting of a request, such as temperature"
OFF: Final = "off"

FILLED: Final = {"type": "string", "pattern": r"\$\{"}


def text_schema(pattern: str, *, numbers: bool = False) -> WithJsonSchema:
    """For editors: text of this form, or a place-holder that is filled later; `numbers` also allows YAML's numbers."""
    either: list[dict[str, Any]] = [{"type": "string", "pattern": f"^({pattern})$"}, dict(FILLED)]
    if numbers:
        either.insert(0, {"type": "number", "minimum": 0})
    return WithJsonSchema({"anyOf": either})


def _share_schema(pattern: str, **most: int) -> dict[str, Any]:
    text = {"type": "string", "pattern": f"^({pattern})$"}
    return {"anyOf": [{"type": "number", "minimum": 0, **most}, text, dict(FILLED)]}


def whole_schema(least: int, most: int) -> WithJsonSchema:
    """For editors: a whole number within these, or a place-holder."""
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, dict(FILLED)]})


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


def _read_resume(value: object) -> ResumeRule:
    if isinstance(value, ResumeRule) or value == ResumeRule.EXACT.value:
        return ResumeRule(value)
    try:
        return ResumeRule.ON if read_switch(value) else ResumeRule.OFF
    except Unreadable:
        raise Unreadable(RESUME_WANTED) from None


def _write_resume(resume: ResumeRule) -> bool | str:
    return resume.value if resume is ResumeRule.EXACT else resume is ResumeRule.ON


def _read_digest(value: object) -> str:
    text = scalar_text(value, DIGEST_WANTED)
    if not re.fullmatch(DIGEST_PATTERN, text):
        # It may be the key itself, written here by mistake.
        raise Unreadable(DIGEST_WANTED, "a value that is not shown")
    return text.lower()


def _read_cipher_key(value: object) -> str:
    """Return the 32 bytes as 64 lower-case digits, however they were written, so that one key compares equal; "" is none."""
    if value == "":
        return ""
    text = scalar_text(value, CIPHER_KEY_WANTED)
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return text.lower()
    if not re.fullmatch(r"[A-Za-z0-9+/_-]{43}=", text):
        raise Unreadable(CIPHER_KEY_WANTED, "a value that is not shown")
    return base64.b64decode(text, altchars=b"-_" if re.search("[-_]", text) else None).hex()


def _read_prefix(value: object) -> str:
    text = scalar_text(value, PREFIX_WANTED)
    # No character that means something in a pattern or in a cluster's hash tag.
    if not re.fullmatch(PREFIX_PATTERN, text):
        raise Unreadable(PREFIX_WANTED)
    return text


def _read_active(value: object) -> Color:
    text = scalar_text(value, ACTIVE_WANTED)
    if text not in {Color.BLUE, Color.GREEN}:
        raise Unreadable(ACTIVE_WANTED)
    return Color(text)


def _read_cookie_key(value: object) -> str:
    text = _read_secret(value)
    if text and len(text) < COOKIE_KEY_LENGTH_MIN:
        raise Unreadable(COOKIE_KEY_WANTED, f"one of {len(text)} characters")
    return text


def _read_system(value: object) -> str:
    """Return the prompt without the line ends that a block of YAML leaves at its end; blank is none."""
    text = scalar_text(value, SYSTEM_WANTED).rstrip("\r\n")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Unreadable(SYSTEM_WANTED, "half of a character (a surrogate)") from None
    if size > SYSTEM_BYTES_MAX:
        raise Unreadable(SYSTEM_WANTED, f"text of {size} bytes")
    return text if text.strip() else ""


def _read_default_key(value: object) -> str:
    text = scalar_text(value, DEFAULT_KEY_WANTED)
    if text in DEFAULTS_REFUSED:
        want = f"{DEFAULT_KEY_WANTED}; a prompt stands in system, beside defaults, and a model's name in models"
        raise Unreadable(want, f"{text}, which cannot be a default")
    if not re.fullmatch(DEFAULT_KEY_PATTERN, text):
        raise Unreadable(DEFAULT_KEY_WANTED, "a key that no request has")
    return text


def _read_defaults(defaults: dict[str, str]) -> dict[str, str]:
    if len(defaults) > DEFAULTS_MAX:
        raise Unreadable(f"at most {DEFAULTS_MAX}", f"{len(defaults)} defaults")
    return defaults


def _read_steps(steps: tuple[float, ...]) -> tuple[float, ...]:
    """Return a canary's shares, each larger than the one before; 0% alone is none."""
    if steps == (0.0,):
        return ()
    if not steps or len(steps) > STEPS_MAX:
        raise Unreadable(STEPS_WANTED, f"a list of {len(steps)} shares")
    for position, (before, share) in enumerate(pairwise((0.0, *steps)), start=1):
        if share <= before:
            fault = "not more than 0%" if position == 1 else "not larger than the one before"
            raise Unreadable(STEPS_WANTED, f"a list whose share {position} is {fault}")
    return steps


def _write_steps(steps: tuple[float, ...]) -> list[str] | str:
    written = [write_share(share) for share in steps] or [write_share(0.0)]
    return written if len(written) > 1 else written[0]


def is_off(value: object) -> bool:
    """Whether the value is `off`, in any of the spellings that readers of YAML have for it."""
    return value is False or (isinstance(value, str) and value.lower() in {OFF, "no", "false"})


def or_off(read: Callable[[object], float]) -> PlainValidator:
    """Read a bound, or `off` (to some readers of YAML: false) for none."""

    def read_or_off(value: object) -> float | None:
        if is_off(value):
            return None
        try:
            return read(value)
        except Unreadable as error:
            raise Unreadable(f"{error.want}, or {OFF}", error.found) from None

    return PlainValidator(read_or_off)


def write_or_off(write: Callable[[float], str]) -> PlainSerializer:
    """Write a bound as `write` does, and None as `off`."""
    return PlainSerializer(lambda bound: OFF if bound is None else write(bound), return_type=str)


def _bound_schema(pattern: str, *, least: float = 0.0, most: float) -> WithJsonSchema:
    number = {"type": "number", "minimum": least, "maximum": most}
    text = {"type": "string", "pattern": f"^({pattern})$"}
    return WithJsonSchema({"anyOf": [number, text, {"enum": [OFF, False]}, dict(FILLED)]})


def _as_shares(value: object) -> object:
    """Take one share where a list of them may stand as a list of one."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str | int | float):
        return [value]
    raise Unreadable(STEPS_WANTED)


def as_list(value: object) -> object:
    """Take one address where a list of them may stand as a list of one."""
    return [value] if isinstance(value, str | ListenAddress) else value


def nothing_is_empty(empty: Callable[[], object]) -> BeforeValidator:
    """Take nothing as empty: a section whose keys are all commented out means its defaults."""
    return BeforeValidator(lambda value: empty() if value is None else value)


Duration = Annotated[
    float,
    PlainValidator(read_duration),
    PlainSerializer(write_duration, return_type=str),
    text_schema(DURATION_PATTERN, numbers=True),
]
PositiveDuration = Annotated[
    float,
    PlainValidator(read_positive_duration),
    PlainSerializer(write_duration, return_type=str),
    text_schema(DURATION_PATTERN, numbers=True),
]
Size = Annotated[
    int, PlainValidator(read_size), PlainSerializer(write_size, return_type=str), text_schema(SIZE_PATTERN, numbers=True)
]
SizeFromZero = Annotated[
    int,
    PlainValidator(partial(read_size, least=0)),
    PlainSerializer(write_size, return_type=str),
    text_schema(SIZE_PATTERN, numbers=True),
]
SizeFromKiB = Annotated[
    int,
    PlainValidator(partial(read_size, least=1024)),
    PlainSerializer(write_size, return_type=str),
    text_schema(SIZE_PATTERN, numbers=True),
]
_SHARE_SCHEMA: Final = _share_schema(SHARE_PATTERN, maximum=1)
Share = Annotated[float, PlainValidator(read_share), PlainSerializer(write_share, return_type=str), WithJsonSchema(_SHARE_SCHEMA)]
WholeFromZero = Annotated[int, PlainValidator(partial(read_whole, least=0)), whole_schema(0, WHOLE_MAX)]
WholeFromOne = Annotated[int, PlainValidator(partial(read_whole, least=1)), whole_schema(1, WHOLE_MAX)]
WholeFromTwo = Annotated[int, PlainValidator(partial(read_whole, least=2)), whole_schema(2, WHOLE_MAX)]
Weight = Annotated[int, PlainValidator(partial(read_whole, least=1, most=1000)), whole_schema(1, 1000)]
Switch = Annotated[bool, PlainValidator(read_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, dict(FILLED)]})]
Name = Annotated[str, PlainValidator(_read_name), text_schema(NAME_PATTERN)]
ModelName = Annotated[str, PlainValidator(_read_model), WithJsonSchema({"type": ["string", "number"], "minLength": 1})]
Secret = Annotated[str, PlainValidator(_read_secret), WithJsonSchema({"type": "string", "writeOnly": True})]
CipherKey = Annotated[str, PlainValidator(_read_cipher_key), WithJsonSchema({"type": "string", "writeOnly": True})]
Digest = Annotated[str, PlainValidator(_read_digest), text_schema(DIGEST_PATTERN)]
ResumeWord = Annotated[
    ResumeRule,
    PlainValidator(_read_resume),
    PlainSerializer(_write_resume, return_type=bool | str),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": ResumeRule.EXACT.value}, dict(FILLED)]}),
]
Url = Annotated[Address, PlainValidator(read_url), PlainSerializer(write_url, return_type=str), text_schema(URL_PATTERN)]
Listen = Annotated[ListenAddress, PlainValidator(read_listen), PlainSerializer(str, return_type=str), text_schema(LISTEN_PATTERN)]
Store = Annotated[
    StoreAddress | None,
    PlainValidator(read_store),
    PlainSerializer(write_store, return_type=str),
    text_schema(STORE_PATTERN),
]
Prefix = Annotated[str, PlainValidator(_read_prefix), text_schema(PREFIX_PATTERN)]

ActiveColor = Annotated[
    Color,
    PlainValidator(_read_active),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"anyOf": [{"enum": [Color.BLUE.value, Color.GREEN.value]}, dict(FILLED)]}),
]
ShareOrOff = Annotated[float | None, or_off(read_share), write_or_off(write_share), _bound_schema(SHARE_PATTERN, most=1.0)]
AtLeastAsMuch = Annotated[
    float | None,
    or_off(partial(read_ratio, least=1.0)),
    write_or_off(write_ratio),
    _bound_schema(RATIO_PATTERN, least=1.0, most=RATIO_MAX),
]
AtMostAsMuch = Annotated[
    float | None, or_off(partial(read_ratio, most=1.0)), write_or_off(write_ratio), _bound_schema(RATIO_PATTERN, most=1.0)
]
# That the first step is not all conversations is config.schema_rollout's to say, which knows the color to be active instead.
_FIRST_SHARE_SCHEMA: Final = _share_schema(PART_PATTERN, exclusiveMaximum=1)
_STEPS_SCHEMA: Final = {
    "type": "array",
    "prefixItems": [_FIRST_SHARE_SCHEMA],
    "items": _SHARE_SCHEMA,
    "minItems": 1,
    "maxItems": STEPS_MAX,
}
Steps = Annotated[
    tuple[Share, ...],
    BeforeValidator(_as_shares),
    AfterValidator(_read_steps),
    PlainSerializer(_write_steps, return_type=list[str] | str),
    WithJsonSchema({"anyOf": [_FIRST_SHARE_SCHEMA, _STEPS_SCHEMA]}),
]
CookieKey = Annotated[
    str,
    PlainValidator(_read_cookie_key),
    WithJsonSchema(
        {
            "type": "string",
            "writeOnly": True,
            "anyOf": [{"maxLength": 0}, {"minLength": COOKIE_KEY_LENGTH_MIN, "pattern": "^[!-~]*$"}, dict(FILLED)],
        }
    ),
]
SystemText = Annotated[str, PlainValidator(_read_system), WithJsonSchema({"type": ["string", "number"]})]
# Each value as JSON text; a reader that gets the text back would take it for text.
Defaults = Annotated[
    dict[Annotated[str, PlainValidator(_read_default_key)], Annotated[str, PlainValidator(write_json)]],
    nothing_is_empty(dict),
    AfterValidator(_read_defaults),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": DEFAULTS_MAX,
            "propertyNames": {"pattern": f"^({DEFAULT_KEY_PATTERN})$", "not": {"enum": sorted(DEFAULTS_REFUSED)}},
        }
    ),
]
