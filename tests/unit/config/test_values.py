"""Each kind of value: what is taken, what it means, what is refused, and how it is written again."""

import base64
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from understudy.config.addresses import ListenAddress
from understudy.config.store_address import RedisUrl
from understudy.config.values import (
    CIPHER_KEY_WANTED,
    DIGEST_WANTED,
    KEY_WANTED,
    NAME_WANTED,
    PREFIX_WANTED,
    RESUME_WANTED,
    CipherKey,
    Digest,
    Duration,
    ModelName,
    Name,
    PositiveDuration,
    Prefix,
    ResumeWord,
    Secret,
    SizeFromKiB,
    SizeFromZero,
    Store,
    Weight,
    WholeFromTwo,
    as_list,
)
from understudy.core.snapshot import ResumeRule


def read(kind: Any, value: object) -> Any:
    return TypeAdapter[Any](kind).validate_python(value)


def written(kind: Any, value: object) -> Any:
    return TypeAdapter[Any](kind).dump_python(read(kind, value), mode="json")


def is_offered(kind: Any, value: object) -> bool:
    """Whether an editor takes the value."""
    return jsonschema.Draft202012Validator(TypeAdapter[Any](kind).json_schema()).is_valid(value)


@pytest.mark.parametrize("value", ["a b", "a\nb", "a\r\nX-Evil: 1", "ä", "a" * 4097])
def test_a_key_that_would_break_a_head_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match=KEY_WANTED):
        read(Secret, value)


@pytest.mark.parametrize("name", ["Pi", "-pi", "_pi", "", "p i", "pi/1", "p" * 64])
def test_a_name_is_what_fits_a_header_a_path_and_a_metric(name: str) -> None:
    with pytest.raises(ValidationError, match=NAME_WANTED):
        read(Name, name)


@pytest.mark.parametrize("name", ["", "m" * 513, "a\nb", None])
def test_a_models_name_is_short_and_printable(name: object) -> None:
    with pytest.raises(ValidationError, match="a model's name"):
        read(ModelName, name)


@pytest.mark.parametrize(
    ("value", "meant", "again"),
    [
        ("true", ResumeRule.ON, True),
        (True, ResumeRule.ON, True),
        ("off", ResumeRule.OFF, False),
        (False, ResumeRule.OFF, False),
        ("exact", ResumeRule.EXACT, "exact"),
        (ResumeRule.EXACT, ResumeRule.EXACT, "exact"),
    ],
)
def test_resuming_is_a_switch_with_a_third_position(value: object, meant: ResumeRule, again: object) -> None:
    assert read(ResumeWord, value) is meant
    assert written(ResumeWord, value) == again
    assert read(ResumeWord, again) is meant


@pytest.mark.parametrize("value", ["maybe", "Exact", "", 1, None, ["true"]])
def test_resuming_has_no_fourth_position(value: object) -> None:
    with pytest.raises(ValidationError, match=RESUME_WANTED):
        read(ResumeWord, value)
    assert not is_offered(ResumeWord, value)


def test_a_digest_is_taken_in_either_case_and_kept_in_one() -> None:
    assert read(Digest, "sha256:" + "aB" * 32) == "sha256:" + "ab" * 32


@pytest.mark.parametrize("value", ["hunter2", "sha256:", "sha256:" + "0" * 63, "0" * 64, "sha256:" + "g" * 64, ["x"], None])
def test_what_is_no_digest_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match=DIGEST_WANTED):
        read(Digest, value)
    assert not is_offered(Digest, value)


def test_one_key_is_one_value_however_it_is_written() -> None:
    secret = bytes(range(200, 232))
    spellings = (secret.hex(), secret.hex().upper(), base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode())
    assert {read(CipherKey, text) for text in spellings} == {secret.hex()}
    assert read(CipherKey, "") == ""


@pytest.mark.parametrize(
    "value", ["hunter2", "0" * 63, "0" * 65, "g" * 64, "A" * 44, "A" * 43, "A" * 42 + "==", "ä" * 43 + "=", None, ["0" * 64]]
)
def test_what_is_no_key_of_32_bytes_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match=CIPHER_KEY_WANTED):
        read(CipherKey, value)


@pytest.mark.parametrize("value", ["", "a" * 65, "a b", "{tag}", "a*", "a?", "[a]", "ä", "a\n", None])
def test_a_prefix_holds_nothing_that_means_something_to_redis(value: object) -> None:
    assert read(Prefix, "team-1/understudy:") == "team-1/understudy:"
    with pytest.raises(ValidationError, match=PREFIX_WANTED):
        read(Prefix, value)


def test_some_sizes_may_be_nothing_and_some_must_be_more() -> None:
    assert (read(SizeFromZero, "0"), written(SizeFromZero, 0)) == (0, "0")
    assert read(SizeFromKiB, "1KiB") == 1024
    with pytest.raises(ValidationError, match="at least 1KiB"):
        read(SizeFromKiB, "1000")


def test_a_turn_has_two_messages() -> None:
    assert read(WholeFromTwo, "2") == 2
    with pytest.raises(ValidationError, match="a whole number of 2 or more"):
        read(WholeFromTwo, "1")
    assert not is_offered(WholeFromTwo, 1)


def test_a_store_is_written_without_its_password() -> None:
    assert read(Store, "redis://me:hunter2@cache/0") == RedisUrl("redis://me:hunter2@cache/0")
    assert written(Store, "redis://me:hunter2@cache/0") == "redis://me:***@cache/0"
    assert written(Store, "none") == "none"
    for text in ("none", "file:/a", "file:///a", "redis://a", "rediss+sentinel://a"):
        assert is_offered(Store, text)
    for text in ("file:a", "redis:a", "/a"):
        assert not is_offered(Store, text)


def test_only_some_durations_may_be_nothing() -> None:
    assert read(Duration, "0s") == 0.0
    with pytest.raises(ValidationError, match="more than 0"):
        read(PositiveDuration, "0s")


def test_an_editor_takes_a_place_holder_wherever_a_value_is_typed() -> None:
    for kind in (Duration, Weight, ResumeWord, Digest, Name, Store, Prefix, SizeFromZero):
        assert is_offered(kind, "${FROM_OUTSIDE}")


def test_one_address_stands_for_a_list_of_one() -> None:
    assert as_list("[::]:1") == ["[::]:1"]
    assert as_list(ListenAddress("::", 1)) == [ListenAddress("::", 1)]
    assert as_list(["a", "b"]) == ["a", "b"]
