"""What an answer is expected to be: met, not met and why, and never an endless check nor a word to the network."""

import builtins
import signal
from typing import Any

import pytest

from understudy.cli import compare_expectations
from understudy.cli.compare_expectations import Expectation, compile_regex, compile_schema, read_json_text

PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("expectation", "text", "reasons"),
    [
        (Expectation(contains=("Paris",)), "It is Paris.", ()),
        (Expectation(contains=("Paris", "France")), "paris in France", ('does not contain "Paris"',)),
        (Expectation(regex=compile_regex(r"\d+")), "it is 42", ()),
        (Expectation(regex=compile_regex(r"^\d+$")), "it is 42", ('does not match "^\\\\d+$"',)),
        (Expectation(equals="42"), " 42\n", ()),
        (Expectation(equals=""), "42", ('is not ""',)),
        (Expectation(label="yes"), ' "Yes." ', ()),
        (Expectation(label="yes"), "yes indeed", ('is not the label "yes"',)),
        (Expectation(label="no", labels=("yes", "no")), "The answer is: NO", ()),
        (Expectation(label="no", labels=("yes", "no")), "nothing", ('names none of the labels, not the label "no"',)),
        (Expectation(label="no", labels=("yes", "no")), "yes or no", ('names no, yes, not the label "no"',)),
        (Expectation(label="new york", labels=("york", "new york")), "New York", ()),
        (Expectation(label="c++", labels=("c", "c++")), "I say C++", ()),
        (Expectation(validate=compile_schema(PERSON)), '{"name": "Ada"}', ()),
        (Expectation(validate=compile_schema(PERSON)), '{"name": 1}', ("breaks the schema: name: 1 is not of type 'string'",)),
        (Expectation(validate=compile_schema(PERSON)), "Ada", ("is not JSON",)),
        (Expectation(validate=compile_schema(False)), "{}", ("breaks the schema: False schema does not allow {}",)),
        (Expectation(contains=("a",), equals="b"), "c", ('does not contain "a"', 'is not "b"')),
    ],
)
def test_an_answer_is_as_expected_or_it_is_said_why_not(expectation: Expectation, text: str, reasons: tuple[str, ...]) -> None:
    assert expectation.unmet(text) == reasons


def test_json_in_a_block_is_no_json_and_that_is_said() -> None:
    assert read_json_text('```json\n{"a": 1}\n```') == (None, "is not JSON alone: it stands in a ``` block")
    assert read_json_text("[" * 100_000)[1] == "is not JSON"
    assert read_json_text("NaN")[1] == "is not JSON"
    assert read_json_text(' {"a": 1}\n') == ({"a": 1}, "")


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        (Expectation(regex=compile_regex("(a+)+$")), "a" * 40 + "b"),
        (Expectation(validate=compile_schema({"pattern": "(a+)+$"})), '"' + "a" * 40 + 'b"'),
    ],
)
def test_a_pattern_that_never_ends_is_stopped(expectation: Expectation, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_expectations, "CHECK_S_MAX", 0.05)
    before = signal.getsignal(signal.SIGVTALRM)
    assert expectation.unmet(text) == ("the check took more than 0.05s; want a simpler pattern",)
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("pattern", ["a(", "*", "a{99999999999}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        compile_regex(pattern)


def test_a_pattern_that_python_may_read_otherwise_one_day_is_taken() -> None:
    assert compile_regex("[[a]").search("[")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("word", "neither an object nor true or false"),
        ({"$schema": 5}, "neither an object nor true or false"),
        ({"type": "nope"}, "^type: 'nope' is not valid"),
        ({"properties": {"a": {"minimum": "x"}}}, "^properties/a/minimum: "),
        ({"$id": "http://127.0.0.1:1/root", "$ref": "elsewhere.json"}, r"\$ref elsewhere.json is not in it"),
        (
            {"$id": "http://127.0.0.1:1/root", "properties": {"a": {"$ref": "elsewhere.json"}}},
            r"\$ref elsewhere.json is not in it",
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "refers to itself without end"),
        ({"$ref": "#/x/a", "x": {"a": {"items": {"$ref": "#/x/none"}}}}, r"\$ref /x/none is not in it"),
        ({"$ref": "#/$defs/none"}, r"\$ref .*is not in it, and nothing is fetched"),
        ({"$ref": "http://127.0.0.1:1/a.json"}, r"\$ref http://127.0.0.1:1/a.json is not in it"),
        ({"items": [{"$ref": "file:///etc/passwd"}], "$schema": "http://json-schema.org/draft-07/schema#"}, "file:///etc/passwd"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        compile_schema(schema)


def test_references_inside_and_to_the_drafts_are_followed() -> None:
    inside = compile_schema({"$ref": "#/$defs/whole", "$defs": {"whole": {"type": "integer"}}})
    assert [list(inside(1)), list(inside("a"))] == [[], ["'a' is not of type 'integer'"]]
    assert list(compile_schema({"$ref": "https://json-schema.org/draft/2020-12/schema"})({"type": 5}))


def test_a_schema_that_holds_itself_and_comes_to_an_end_is_used() -> None:
    tree = compile_schema({"type": "object", "additionalProperties": {"$ref": "#"}})
    assert [list(tree({"a": {}})), list(tree({"a": 1}))] == [[], ["a: 1 is not of type 'object'"]]


def test_what_only_looks_like_a_reference_is_none() -> None:
    schema = compile_schema({"$id": "http://a/b", "enum": [{"$ref": "nowhere"}], "properties": {"$ref": {"type": "string"}}})
    assert list(schema({"$ref": "nowhere"})) == []


def test_a_reference_that_only_shows_later_is_no_traceback_and_is_not_fetched() -> None:
    """Draft 3 lets schemas stand among types, where nobody looks for references."""
    types = [{"$ref": "http://127.0.0.1:1/"}]
    schema = compile_schema({"$schema": "http://json-schema.org/draft-03/schema#", "properties": {"a": {"type": types}}})
    (reason,) = schema({"a": 1})
    assert reason.startswith("the schema refers to what is not in it")


def test_a_value_that_is_too_deep_is_no_traceback() -> None:
    value: list[Any] = []
    for _ in range(2000):
        value = [value]
    assert list(compile_schema({"items": {"$ref": "#"}})(value)) == ["value and schema are nested too deeply to be checked"]


def test_a_schema_that_takes_too_long_to_try_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_expectations, "CHECK_S_MAX", 0.05)
    monkeypatch.setattr(compare_expectations, "_PROBES", ("a" * 40 + "b",))
    with pytest.raises(ValueError, match=r"to check a value takes more than 0\.05s"):
        compile_schema({"pattern": "(a+)+$"})


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "jsonschema":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"pip install 'understudy\[compare\]'"):
        compile_schema({})
