"""What is not looked at keeps its bytes; what is looked at is text that can be encoded, however the JSON was written."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.raw_json import (
    LENIENT_BYTES_MAX,
    VALUES_MAX,
    is_crowded,
    json_text,
    read_items,
    read_members,
    read_value,
    write,
)

DEEP = b"[" * 100_000


def told(raws: dict[str, msgspec.Raw] | None) -> dict[str, bytes] | None:
    return None if raws is None else {key: bytes(raw) for key, raw in raws.items()}


def test_members_keep_their_bytes_and_the_last_of_a_repeated_name_counts() -> None:
    assert told(read_members(b'{"a": [1.0,  2], "b":"\\u0041", "a": {}}')) == {"a": b"{}", "b": b'"\\u0041"'}
    assert read_members(b"{}") == {}


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b'{"a":1} x', b"\xff", DEEP, b'{"a":' + DEEP])
def test_what_is_no_object_has_no_members(data: bytes) -> None:
    assert read_members(data) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[", b"\xff", DEEP, b'"' + b"x" * 100 + b'"'])
def test_what_is_no_list_has_no_items(data: bytes) -> None:
    assert read_items(data) is None


def test_what_strict_json_forbids_is_passed_on_as_it_was() -> None:
    assert told(read_members(b'{"a":NaN,"b":"\\ud800","c":1}')) == {"a": b"NaN", "b": b'"\\ud800"', "c": b"1"}
    assert [bytes(item) for item in read_items(b'[NaN,"\\ud800",[1]]') or ()] == [b"NaN", b'"\\ud800"', b"[1]"]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":[1,"x"]}', {"a": [1, "x"]}),
        (b'"\\ud800x"', "\ufffdx"),
        (b'{"\\udfff":1}', {"\ufffd": 1}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xff"', "\ufffd"),
        (b"[NaN,Infinity,-Infinity,1e999]", [None, None, None, None]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"{", None),
        (b"", None),
        (DEEP, None),
    ],
)
def test_a_value_is_always_one_that_can_be_encoded(data: bytes, value: Any) -> None:
    assert read_value(data) == value
    msgspec.json.encode(read_value(data))


def test_long_json_is_read_only_if_it_is_strict() -> None:
    long = b"x" * LENIENT_BYTES_MAX
    assert read_members(b'{"a":"' + long + b'"}') is not None
    assert read_members(b'{"a":"\\ud800' + long + b'"}') is None
    assert read_value(b'"\\ud800' + long + b'"') is None


def test_a_body_of_more_values_than_are_read_is_crowded() -> None:
    assert not is_crowded(b"," * VALUES_MAX)
    assert is_crowded(b"," * VALUES_MAX + b"[")
    assert not is_crowded(b"x" * (VALUES_MAX * 2))


def test_what_is_written_has_the_bytes_that_were_read() -> None:
    assert write({"a": msgspec.Raw(b"[1.0,  NaN]"), "b": [msgspec.Raw(b'"\\ud800"'), {"c": 1}]}) == (
        b'{"a":[1.0,  NaN],"b":["\\ud800",{"c":1}]}'
    )
    assert json_text({"a": [1, "ä"]}) == '{"a":[1,"ä"]}'


def test_what_is_nested_too_deeply_is_not_written() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert write(deep) is None


def test_json_of_any_depth_is_read_or_it_is_not() -> None:
    """What one reader still reads, another of its callers may find too deep."""
    for depth in range(800, 1100):
        data = b"[" * depth + b"NaN" + b"]" * depth
        read_value(data)
        read_items(data)
        read_members(b'{"a":' + data + b"}")


@given(data=st.binary(max_size=40) | st.text(alphabet='{}[]",:\\ud80aNn1e9', max_size=30).map(str.encode))
def test_no_bytes_are_too_odd(data: bytes) -> None:
    read_members(data)
    read_items(data)
    msgspec.json.encode(read_value(data))
