"""The kinds of values in the file: for each, how it is read, how it is written, and what an editor is told of it.

Used by config.schema for every key that is no section. A reader raises `Unreadable` with what is wanted; pydantic and
config.validation turn that into a mistake with its place. Pure.
"""

import base64
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

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
from understudy.config.store_address import STORE_PATTERN, StoreAddress, read_store, write_store
from understudy.core.snapshot import Address, ResumeRule

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
SizeFromZero = Annotated[
    int,
    PlainValidator(partial(read_size, least=0)),
    PlainSerializer(write_size, return_type=str),
    _text_schema(SIZE_PATTERN, numbers=True),
]
SizeFromKiB = Annotated[
    int,
    PlainValidator(partial(read_size, least=1024)),
    PlainSerializer(write_size, return_type=str),
    _text_schema(SIZE_PATTERN, numbers=True),
]
Share = Annotated[
    float, PlainValidator(read_share), PlainSerializer(write_share, return_type=str), _text_schema(SHARE_PATTERN, numbers=True)
]
WholeFromZero = Annotated[int, PlainValidator(partial(read_whole, least=0)), _whole_schema(0, WHOLE_MAX)]
WholeFromOne = Annotated[int, PlainValidator(partial(read_whole, least=1)), _whole_schema(1, WHOLE_MAX)]
WholeFromTwo = Annotated[int, PlainValidator(partial(read_whole, least=2)), _whole_schema(2, WHOLE_MAX)]
Weight = Annotated[int, PlainValidator(partial(read_whole, least=1, most=1000)), _whole_schema(1, 1000)]
Switch = Annotated[bool, PlainValidator(read_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, dict(_FILLED)]})]
Name = Annotated[str, PlainValidator(_read_name), _text_schema(NAME_PATTERN)]
ModelName = Annotated[str, PlainValidator(_read_model), WithJsonSchema({"type": ["string", "number"], "minLength": 1})]
Secret = Annotated[str, PlainValidator(_read_secret), WithJsonSchema({"type": "string", "writeOnly": True})]
CipherKey = Annotated[str, PlainValidator(_read_cipher_key), WithJsonSchema({"type": "string", "writeOnly": True})]
Digest = Annotated[str, PlainValidator(_read_digest), _text_schema(DIGEST_PATTERN)]
ResumeWord = Annotated[
    ResumeRule,
    PlainValidator(_read_resume),
    PlainSerializer(_write_resume, return_type=bool | str),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": ResumeRule.EXACT.value}, dict(_FILLED)]}),
]
Url = Annotated[Address, PlainValidator(read_url), PlainSerializer(write_url, return_type=str), _text_schema(URL_PATTERN)]
Listen = Annotated[
    ListenAddress, PlainValidator(read_listen), PlainSerializer(str, return_type=str), _text_schema(LISTEN_PATTERN)
]
Store = Annotated[
    StoreAddress | None,
    PlainValidator(read_store),
    PlainSerializer(write_store, return_type=str),
    _text_schema(STORE_PATTERN),
]
Prefix = Annotated[str, PlainValidator(_read_prefix), _text_schema(PREFIX_PATTERN)]
