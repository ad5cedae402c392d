"""What an answer is expected to be, and why it is not: contains, regex, json_schema, equals, label.

Called by cli.compare_prompts, which makes expectations of what the file says, and by cli.compare_pairs, which holds answers
against them. Fetches nothing, whatever a schema refers to; a pattern that would never come to an end is stopped.
"""

import json
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

# Of processor time, for all that one answer is expected to be; what is not an accident of a pattern takes milliseconds.
CHECK_S_MAX: Final = 1.0
INSTALL: Final = "pip install 'understudy[compare]'"

_WORDS_MAX: Final = 160
_EDGES: Final = " \t\r\n\"'`*.!"
_FENCE: Final = re.compile(r"\s*```")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
# One value of every kind that holds others or does not.
_PROBES: Final[tuple[Any, ...]] = ({}, [], "", 0)

Validate = Callable[[Any], Iterator[str]]
"""Yields what is wrong with a JSON value, in words, the most telling first; nothing where it is as the schema says."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """All that one answer must be. `validate` None: no schema; `equals` None and `label` "": not asked for."""

    contains: tuple[str, ...] = ()
    regex: re.Pattern[str] | None = None
    validate: Validate | None = None
    equals: str | None = None
    label: str = ""
    labels: tuple[str, ...] = ()

    def unmet(self, text: str) -> tuple[str, ...]:
        """Return in words what `text` is not; () when it is all that was expected. Bounded by `CHECK_S_MAX`."""
        try:
            return tuple(_within_time(lambda: list(self._reasons(text))))
        except _OutOfTime:
            return (f"the check took more than {CHECK_S_MAX:g}s; want a simpler pattern",)

    def _reasons(self, text: str) -> Iterator[str]:
        for wanted in self.contains:
            if wanted not in text:
                yield f"does not contain {_quoted(wanted)}"
        if self.regex is not None and self.regex.search(text) is None:
            yield f"does not match {_quoted(self.regex.pattern)}"
        if self.equals is not None and text.strip() != self.equals.strip():
            yield f"is not {_quoted(self.equals.strip())}"
        if self.label:
            yield from self._label_reasons(text)
        if self.validate is not None:
            yield from self._schema_reasons(self.validate, text)

    def _label_reasons(self, text: str) -> Iterator[str]:
        if not self.labels:
            if text.strip(_EDGES).casefold() != self.label.casefold():
                yield f"is not the label {_quoted(self.label)}"
            return
        named = _labels_in(text, self.labels)
        if named != {self.label.casefold()}:
            found = ", ".join(sorted(named)) if named else "none of the labels"
            yield f"names {found}, not the label {_quoted(self.label)}"

    def _schema_reasons(self, validate: Validate, text: str) -> Iterator[str]:
        value, fault = read_json_text(text)
        if fault:
            yield fault
            return
        for reason in validate(value):
            yield f"breaks the schema: {reason[:_WORDS_MAX]}"
            return


def read_json_text(text: str) -> tuple[Any, str]:
    """Return the JSON value that `text` is, and in words why it is none ("": it is)."""
    try:
        return json.loads(text, parse_constant=_no_constant), ""
    except (ValueError, RecursionError):
        return None, "is not JSON alone: it stands in a ``` block" if _FENCE.match(text) else "is not JSON"


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _labels_in(text: str, labels: tuple[str, ...]) -> set[str]:
    """Return those labels that stand in `text` as whole words; of two that begin alike the longer one counts."""
    longest_first = sorted(labels, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(label)}(?!\w)" for label in longest_first)
    return {found[0].casefold() for found in re.finditer(pattern, text, re.IGNORECASE)}


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


# --- what the file says, made ready before anything is sent


def compile_regex(pattern: str) -> re.Pattern[str]:
    """Return the pattern. Raises ValueError that says what is wrong with it."""
    try:
        with warnings.catch_warnings():
            # What Python may read in another way one day is no mistake today.
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def compile_schema(schema: Any) -> Validate:
    """Return what holds values against a JSON Schema. Raises ValueError that says what is wrong with it.

    References are found in the schema itself and among the drafts of JSON Schema; nothing is ever fetched. Without `$schema`
    it is of draft 2020-12. It is tried on a few values, which tells one that refers to itself without end.
    """
    is_schema = isinstance(schema, bool) or (isinstance(schema, dict) and isinstance(schema.get("$schema", ""), str))
    if not is_schema:
        raise ValueError("it is neither an object nor true or false, or its $schema is no text")
    try:
        from referencing.exceptions import Unresolvable

        validator = _usable_validator(schema)
    except ImportError as error:
        raise ValueError(f"no library for it; install it: {INSTALL}") from error

    def validate(value: Any) -> Iterator[str]:
        try:
            for error in validator.iter_errors(value):
                place = "/".join(map(str, error.absolute_path))
                yield f"{place}: {error.message}" if place else error.message
        except Unresolvable as error:
            yield f"the schema refers to what is not in it ({str(error)[:_WORDS_MAX]})"
        except RecursionError:
            yield "value and schema are nested too deeply to be checked"

    return validate


def _usable_validator(schema: Any) -> Any:
    """Return jsonschema's validator, tried on values of every kind. Raises ValueError, ImportError."""
    from jsonschema import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        validator = _validator(schema)
        _within_time(lambda: [error.message for value in _PROBES for error in validator.iter_errors(value)])
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path))
        raise ValueError(": ".join(filter(None, (place, error.message[:_WORDS_MAX])))) from error
    except Unresolvable as error:
        raise ValueError(f"$ref {error.ref[:_WORDS_MAX]} is not in it, and nothing is fetched") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply, or refers to itself without end") from error
    except _OutOfTime as error:
        raise ValueError(f"to check a value takes more than {CHECK_S_MAX:g}s") from error
    return validator


def _validator(schema: Any) -> Any:
    """Return jsonschema's validator. Raises its SchemaError, and Unresolvable for a reference that leads out of the schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it comes without types

    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    if isinstance(schema, dict):
        _look_up_all(schema, REGISTRY)
    # With a registry of its own the library retrieves nothing; left to itself it would ask the network.
    return kind(schema, registry=REGISTRY)


def _look_up_all(schema: dict[str, Any], registry: Any) -> None:
    """Look up every reference in a schema and in what it leads to. Raises Unresolvable.

    Only the library knows where schemas stand in a schema, and what a reference in one with a name of its own is relative to.
    """
    from referencing.jsonschema import DRAFT202012, specification_with

    draft = specification_with(schema.get("$schema", ""), default=DRAFT202012)
    seen: set[int] = set()

    def look_up(part: Any, resolver: Any) -> None:
        if not isinstance(part, dict) or id(part) in seen:
            return
        seen.add(id(part))
        for key in _REFERENCES:
            if isinstance(reference := part.get(key), str):
                found = resolver.lookup(reference)
                look_up(found.contents, found.resolver)
        for inner in draft.create_resource(part).subresources():
            look_up(inner.contents, resolver.in_subresource(inner))

    root = draft.create_resource(schema)
    look_up(schema, registry.with_resource(root.id() or "", root).resolver_with_root(root))


# --- a bound on time


class _OutOfTime(BaseException):
    """The processor time is used up. Not an Exception, so that no library on the way takes it for its own."""


def _within_time(work: Callable[[], list[str]]) -> list[str]:
    """Return what `work` returns; raises `_OutOfTime` when it uses more than `CHECK_S_MAX` of processor time.

    The regular expression engine looks for signals while it searches (CPython, Modules/_sre: MAYBE_CHECK_SIGNALS), so that a
    timer can end what a thread could not. Only the main thread gets signals, and only there commands run.
    """
    before = signal.signal(signal.SIGVTALRM, _ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, CHECK_S_MAX)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise _OutOfTime
