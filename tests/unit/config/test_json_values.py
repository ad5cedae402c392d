import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config.json_values import JSON_BYTES_MAX, NUMBER_WANTED, WORD_WANTED, read_plain, write_json
from understudy.config.quantities import Unreadable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-7", -7),
        ("0.2", 0.2),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("low", "low"),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
        ("infinite", "infinite"),
        ("-", "-"),
    ],
)
def test_a_bare_value_means_what_json_would(text: str, value: object) -> None:
    read = read_plain(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    ["010", "1_000", "+1", ".5", "1.", "0x1F", "0o7", ".nan", ".inf", "-.Inf", "NaN", "inf", "-Infinity", "1e999", "9" * 65],
)
def test_what_is_a_number_to_some_readers_only_or_to_no_json_is_refused(text: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_plain(text)
    assert refused.value.want == NUMBER_WANTED


@pytest.mark.parametrize("text", ["yes", "No", "ON", "off"])
def test_what_is_a_switch_to_some_and_a_word_to_others_is_refused(text: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_plain(text)
    assert refused.value.want == WORD_WANTED


@given(JSON)
def test_what_is_written_reads_as_the_same_value(value: object) -> None:
    try:
        written = write_json(value)
    except Unreadable:
        # Hypothesis also makes halves of characters, which no UTF-8 has.
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
        return
    assert json.loads(written) == value


def test_keys_keep_their_order() -> None:
    assert write_json({"b": [1, 0.5, "ü"], "a": None}) == '{"b":[1,0.5,"ü"],"a":null}'


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": object()}, "\ud800"])
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(Unreadable) as refused:
        write_json(value)
    assert refused.value.found == "a value that JSON does not have"


def test_a_value_has_a_bound() -> None:
    assert len(write_json("x" * (JSON_BYTES_MAX - 2))) == JSON_BYTES_MAX
    with pytest.raises(Unreadable, match="at most 64KiB"):
        write_json("x" * (JSON_BYTES_MAX - 1))
