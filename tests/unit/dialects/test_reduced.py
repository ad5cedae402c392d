"""What is left of an event without what nobody here understands."""

import pytest

from understudy.dialects.reduced import without_empty, without_unknown


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"choices": [{"delta": {"content": "", "a": [], "b": 1}}]}, {"choices": [{"delta": {"b": 1}}]}),
        ({"choices": [{"text": ""}, 7, {"delta": None}]}, {"choices": [{"text": ""}, 7, {"delta": None}]}),
        ({"message": {"content": "", "a": None}}, {"message": {"content": ""}}),
        (
            {"message": {"content": [], "usage": {}}, "type": "message_start"},
            {"message": {"content": []}, "type": "message_start"},
        ),
        ({"choices": 7, "message": {"a": None}}, {"choices": 7, "message": {"a": None}}),
        ({"choices": [], "message": {"a": None}}, {"choices": [], "message": {"a": None}}),
    ],
)
def test_what_says_nothing_is_left_out(value: object, left: object) -> None:
    assert without_empty(value) == left


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"choices": [{"delta": {"content": "", "a": 1}, "a": 1}]}, {"choices": [{"delta": {"content": ""}, "a": 1}]}),
        ({"message": {"content": "x", "a": 1}, "a": 1}, {"message": {"content": "x"}, "a": 1}),
    ],
)
def test_what_is_unknown_is_left_out(value: object, left: object) -> None:
    assert without_unknown(value, ("content",)) == left


@pytest.mark.parametrize("value", [None, 7, "x", [], [{}], {}, {"message": 7}])
def test_what_has_no_deltas_stays_as_it_is(value: object) -> None:
    assert without_empty(value) == without_unknown(value, ()) == value
