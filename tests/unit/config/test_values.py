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
    COOKIE_KEY_WANTED,
    DIGEST_WANTED,
    KEY_WANTED,
    NAME_WANTED,
    PREFIX_WANTED,
    RESUME_WANTED,
    STEPS_MAX,
    SYSTEM_BYTES_MAX,
    ActiveColor,
    AtLeastAsMuch,
    AtMostAsMuch,
    CipherKey,
    CookieKey,
    Defaults,
    Digest,
    Duration,
    ModelName,
    Name,
    PositiveDuration,
    Prefix,
    ResumeWord,
    Secret,
    ShareOrOff,
    SizeFromKiB,
    SizeFromZero,
    Steps,
    Store,
    SystemText,
    Weight,
    WholeFromTwo,
    as_list,
)
from understudy.core.color import Color
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
    for kind in (Duration, Weight, ResumeWord, Digest, Name, Store, Prefix, SizeFromZero, ActiveColor, Steps, ShareOrOff):
        assert is_offered(kind, "${FROM_OUTSIDE}")


def test_one_address_stands_for_a_list_of_one() -> None:
    assert as_list("[::]:1") == ["[::]:1"]
    assert as_list(ListenAddress("::", 1)) == [ListenAddress("::", 1)]
    assert as_list(["a", "b"]) == ["a", "b"]


def test_a_canary_is_a_share_or_shares_that_grow() -> None:
    assert (read(Steps, "0%"), written(Steps, "0%")) == ((), "0%")
    assert (read(Steps, "5%"), written(Steps, "5%")) == ((0.05,), "5%")
    assert (read(Steps, 0.05), read(Steps, ["5%"])) == ((0.05,), (0.05,))
    assert read(Steps, ["5%", "25%", "100%"]) == (0.05, 0.25, 1.0)
    assert written(Steps, ["5%", 0.25, "100%"]) == ["5%", "25%", "100%"]


@pytest.mark.parametrize(
    "value", ["101%", "x", None, True, {}, [], ["0%", "5%"], ["5%", "5%"], ["25%", "5%"], ["5%", "101%"], [["5%"]]]
)
def test_what_is_no_canary_is_refused_with_one_that_is(value: object) -> None:
    with pytest.raises(ValidationError, match="a share"):
        read(Steps, value)


def test_a_canary_has_a_bound_on_its_steps() -> None:
    assert len(read(Steps, [step / STEPS_MAX for step in range(1, STEPS_MAX + 1)])) == STEPS_MAX
    with pytest.raises(ValidationError, match="growing shares"):
        read(Steps, [step / 200 for step in range(1, STEPS_MAX + 2)])


@pytest.mark.parametrize("value", ["off", "Off", "no", "false", False])
def test_a_bound_of_the_guard_may_be_off(value: object) -> None:
    for kind in (ShareOrOff, AtLeastAsMuch, AtMostAsMuch):
        assert read(kind, value) is None
        assert written(kind, value) == "off"


def test_a_bound_of_the_guard_is_written_as_it_is_read() -> None:
    assert (read(ShareOrOff, "0%"), written(ShareOrOff, "2%")) == (0.0, "2%")
    assert (read(AtLeastAsMuch, "1x"), written(AtLeastAsMuch, 1.5)) == (1.0, "1.5x")
    assert (read(AtMostAsMuch, "1x"), written(AtMostAsMuch, "0.7")) == (1.0, "0.7x")


@pytest.mark.parametrize(
    ("kind", "value", "want"),
    [
        (ShareOrOff, "2x", "a share from 0% to 100%, such as 20% or 0.2, or off"),
        (ShareOrOff, True, "or off"),
        (AtLeastAsMuch, "0.9x", "a ratio of 1x or more, such as 1.5x, or off"),
        (AtLeastAsMuch, "1,5x", "such as 1.5x, or off"),
        (AtMostAsMuch, "1.1x", "a ratio over 0x and at most 1x, such as 0.7x, or off"),
        (AtMostAsMuch, None, "or off"),
    ],
)
def test_what_is_no_bound_is_refused_with_what_is_wanted(kind: Any, value: object, want: str) -> None:
    with pytest.raises(ValidationError, match=want):
        read(kind, value)


def test_the_active_color_is_written_as_its_word() -> None:
    assert read(ActiveColor, "green") is Color.GREEN
    assert written(ActiveColor, Color.GREEN) == "green"


def test_a_key_for_cookies_is_long_or_empty() -> None:
    assert (read(CookieKey, ""), read(CookieKey, "k" * 16)) == ("", "k" * 16)
    with pytest.raises(ValidationError, match=COOKIE_KEY_WANTED):
        read(CookieKey, "k" * 15)
    with pytest.raises(ValidationError, match=KEY_WANTED):
        read(CookieKey, "k" * 16 + " ")


def test_a_system_prompt_is_text_without_the_line_ends_of_its_block() -> None:
    assert read(SystemText, "  Be brief.\n\nBe kind.\n") == "  Be brief.\n\nBe kind."
    assert read(SystemText, " \n \n") == ""
    assert read(SystemText, "ü" * (SYSTEM_BYTES_MAX // 2)) == "ü" * (SYSTEM_BYTES_MAX // 2)


@pytest.mark.parametrize("value", ["ü" * (SYSTEM_BYTES_MAX // 2) + "x", "\ud800", None, ["x"], {"a": "b"}])
def test_what_is_no_system_prompt_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="text of at most 64KiB"):
        read(SystemText, value)


def test_defaults_are_kept_as_json_in_their_order() -> None:
    defaults = {"top_p": 0.5, "stop": ["a", None], "think": False, "logit_bias": {"7": -1}, "effort": "low"}
    assert list(read(Defaults, defaults).items()) == [
        ("top_p", "0.5"),
        ("stop", '["a",null]'),
        ("think", "false"),
        ("logit_bias", '{"7":-1}'),
        ("effort", '"low"'),
    ]
    assert read(Defaults, None) == {}


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ({"model": "x"}, "a setting of a request, such as temperature; a prompt stands in system"),
        ({"<<": {}}, "a setting of a request"),
        ({"a b": 1}, "a setting of a request"),
        ({f"k{number}": number for number in range(51)}, "at most 50"),
    ],
)
def test_what_cannot_be_a_default_is_refused(value: object, want: str) -> None:
    with pytest.raises(ValidationError, match=want):
        read(Defaults, value)
    assert not is_offered(Defaults, value)


def test_a_default_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="a number, true, false, text"):
        read(Defaults, {"a": float("nan")})
