"""Model and stream are read from bodies that no library would write, and a model is replaced without touching the rest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.body import MODEL_CHARS_MAX, VALUES_MAX, Head, read_head, with_model

DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b'{"model":"m","stream":true}', Head("m", stream=True)),
        (b'{"messages":[]}', Head("", stream=None)),
        (b'{"model":null,"stream":null}', Head("", stream=None)),
        (b' {\n"stream" : false , "model" :\t"m" } ', Head("m", stream=False)),
        (b'{"mod\\u0065l":"\\u00e9"}', Head("\u00e9")),
        (b'{"model":"a","model":"b"}', Head("b")),
        (b'{"model":7,"model":"b"}', Head("b")),
        (b'{"model":"m","stream":1}', Head("m", stream=True)),
        (b'{"model":"m","stream":"False"}', Head("m", stream=False)),
        (b'{"model":"m","n":1e999999,"k":' + b"9" * 9000 + b"}", Head("m")),
        (b'{"model":"m","bias":NaN}', Head("m")),
        (b'{"model":"m","prompt":"\\ud83d"}', Head("m")),
        (b'{"model":"m","prompt":"\xff\xfe"}', Head("m")),
        (b'{"\xff":1,"model":"m","stream":0}', Head("m", stream=False)),
        (b'{"model":"m","stream":{}}', Head("m", stream=True)),
    ],
)
def test_a_body_whose_model_can_be_read_is_the_engines_business(body: bytes, head: Head) -> None:
    assert read_head(body) == head


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty; want a JSON object"),
        (b" \n", "the body is empty; want a JSON object"),
        (b"hello", "the body is not JSON"),
        (b'{"model":"m"', "the body is not JSON"),
        (b'{"model":"m"}}', "the body is not JSON"),
        (b'{"model":"m",}', "the body is not JSON"),
        (b'{"model" "m"}', "the body is not JSON"),
        (b'{"model":"m";"a":1}', "the body is not JSON"),
        (b"{'model':'m'}", "the body is not JSON"),
        (b"[] []", "the body is not JSON"),
        (b'{"model":"a\nb"}', "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b' "model" ', "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (b'{"model":7}', "model is not a string"),
        (b'{"model":["m"]}', "model is not a string"),
        (b'{"model":"\xff"}', "model is not a string"),
        (b'{"model":"\\ud800"}', "model is not a string"),
        (b'{"model":"m","x":' + DEEP + b"}", "the body is nested too deeply to read its model"),
        (DEEP, "the body is nested too deeply to read its model"),
        (json.dumps({"model": "m" * (MODEL_CHARS_MAX + 1)}).encode(), "the model's name is longer than 1024 characters"),
    ],
)
def test_a_body_whose_model_cannot_be_read_is_wrong_in_words(body: bytes, words: str) -> None:
    assert read_head(body) == words


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{ "model" : "a", "n": 1.10 }', b'{ "model" : "b\\"", "n": 1.10 }'),
        (b'{"tools":[{"model":"deep"}],"model":"a"}', b'{"tools":[{"model":"deep"}],"model":"b\\""}'),
        (b'{"x":{"model":"deep"},"mod\\u0065l":"a"}', b'{"x":{"model":"deep"},"mod\\u0065l":"b\\""}'),
        (b'{"model":"a","k":1,"k":2,"model":"c"}', b'{"model":"b\\"","k":1,"k":2,"model":"b\\""}'),
        (b'{"p":"say \\"model\\": \\"x\\"","model":"a"}', b'{"p":"say \\"model\\": \\"x\\"","model":"b\\""}'),
        (b'{"model":"a","p":"\\ud83d\xff","n":NaN}', b'{"model":"b\\"","p":"\\ud83d\xff","n":NaN}'),
        (b'{"\xff":1,"model":"a"}', b'{"\xff":1,"model":"b\\""}'),
    ],
)
def test_only_the_models_value_is_replaced(body: bytes, changed: bytes) -> None:
    assert with_model(body, 'b"') == changed


@pytest.mark.parametrize(
    "body", [b"{}", b'{"x":{"model":"deep"}}', b'{"model":null}', b"no json", b"[" + DEEP + b"]", b'{"model":"a","x":' + DEEP]
)
def test_a_body_that_names_no_model_comes_back_as_it_is(body: bytes) -> None:
    assert with_model(body, "b") == body


def test_a_deeper_model_of_the_wanted_name_does_not_pass_for_the_change() -> None:
    assert with_model(b'{"x":{"model":"deep"},"mod\\u0065l":"b"}', "b") == b'{"x":{"model":"deep"},"mod\\u0065l":"b"}'


def test_the_older_key_is_replaced_only_where_the_newer_is_missing() -> None:
    keys = ("model", "name")
    assert with_model(b'{"name":"a"}', "b", keys=keys) == b'{"name":"b"}'
    assert with_model(b'{"name":"a","model":null}', "b", keys=keys) == b'{"name":"b","model":null}'
    assert with_model(b'{"name":"a","model":"c"}', "b", keys=keys) == b'{"name":"a","model":"b"}'


def test_a_huge_body_is_read_and_changed_only_in_ways_that_hold_nobody_up() -> None:
    ids = b"[" + b"7," * VALUES_MAX + b"7]"
    strict = b'{"model":"a", "input":%s,"stream":1,"x":{"model":"deep"}}' % ids
    lenient = b'{"model":"a","input":%s,"bias":NaN,"x":{"model":"deep"}}' % ids
    assert read_head(strict) == Head("a", stream=True)
    assert read_head(lenient) == "the body is not strict JSON and has too many values to read it leniently"
    assert with_model(strict, "b") == b'{"model":"b","input":%s,"stream":1,"x":{"model":"deep"}}' % ids
    assert with_model(lenient, "b") == lenient
    unnamed = b'{"input":%s,"x":{"model":"deep"}}' % ids
    assert with_model(unnamed, "b") == unnamed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
)


@given(
    rest=st.dictionaries(st.text(), json_values, max_size=4), model=st.text(min_size=1, max_size=20), wanted=st.text(max_size=20)
)
def test_everything_but_the_model_means_the_same_afterwards(rest: dict[str, object], model: str, wanted: str) -> None:
    body = json.dumps({**rest, "model": model}).encode()
    assert json.loads(with_model(body, wanted)) == {**rest, "model": wanted}
