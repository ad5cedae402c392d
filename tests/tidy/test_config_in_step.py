"""config.example.yaml, the schema and docs/configuration.md name the same keys with the same defaults."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tidy.source_tree import TOP
from understudy.config.load import load_file, load_text
from understudy.config.schema import json_schema

EXAMPLE = TOP / "config.example.yaml"
DOCS = TOP / "docs" / "configuration.md"
# A key's row: | `key` | meaning | takes | default |
ROW = re.compile(r"^\| `([a-z0-9_.\[\]]+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
OF_A_BACKEND_ALONE = {"backends[].health", "backends[].timeouts"}
# Their keys have their rows elsewhere: those of a color's prompt are the same under a backend.
TOLD_ELSEWHERE = {*OF_A_BACKEND_ALONE, "rollout.blue", "rollout.green"}
WITHOUT_A_DEFAULT = {"backends[].models", "backends[].defaults", *TOLD_ELSEWHERE}
# What stands in the example's first backend to show its form, besides what is required.
ONLY_TO_SHOW: dict[str, Any] = {"in_flight_max": True, "models": True, "restart": {"command"}}


def schema_keys() -> dict[str, dict[str, Any]]:
    """Every key of the schema, sections left out: `health.interval` -> its schema."""
    schema = json_schema()
    return dict(_keys(schema, schema, ""))


def _keys(whole: dict[str, Any], part: dict[str, Any], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in part["properties"].items():
        inner = value.get("items", value)
        # A section that one value may stand for is one of several forms.
        forms = [inner, *inner.get("anyOf", ())]
        referred = [whole["$defs"][form["$ref"].rpartition("/")[2]] for form in forms if "$ref" in form]
        section = next((found for found in referred if "properties" in found), None)
        if section is not None and above + key not in TOLD_ELSEWHERE:
            yield from _keys(whole, section, f"{above}{key}{'[]' if 'items' in value else ''}.")
        else:
            yield above + key, value


def example_keys() -> set[str]:
    return set(_written_keys(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), "", set(schema_keys())))


def _written_keys(section: dict[str, Any], above: str, known: set[str]) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict) and above + key not in known:
            yield from _written_keys(value, f"{above}{key}.", known)
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value) and above + key not in known:
            for item in value:
                yield from _written_keys(item, f"{above}{key}[].", known)
        else:
            yield above + key


def written_default(key: str, schema: dict[str, Any]) -> str:
    default = schema.get("default")
    if key in WITHOUT_A_DEFAULT:
        return "`{}`"
    if default is None:
        return "required"
    if default == "":
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_example_holds_every_key_and_no_other() -> None:
    assert example_keys() == set(schema_keys())


def test_the_example_loads_as_it_is_and_stands_at_the_defaults() -> None:
    example = load_file(EXAMPLE, {})
    bare = load_text("backends: [{name: a, url: 'http://a'}]\nalerts: [{url: ''}]", {})
    assert example.model_dump(exclude={"backends"}) == bare.model_dump(exclude={"backends"})
    shown = {"name": True, "url": True, **ONLY_TO_SHOW}
    assert example.backends[0].model_dump(exclude=shown) == bare.backends[0].model_dump(exclude=shown)


def test_the_example_says_what_every_key_means() -> None:
    silent = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        # The second backend and what stands inside `models` repeat what was said above them.
        key = re.match(r" *-? ?([a-z_]+):( |$)", line)
        if key and "#" not in line and not re.search(r"laptop|192\.168\.1\.101|role: backup|qwen2\.5", line):
            silent.append(line)
    assert not silent


def test_the_example_validates_against_the_schema() -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))


def test_the_schema_is_valid_by_its_own_draft() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_docs_have_one_row_for_every_key_and_no_other() -> None:
    rows = [match[1] for match in ROW.finditer(DOCS.read_text(encoding="utf-8"))]
    assert sorted(rows) == sorted(schema_keys())


@pytest.mark.parametrize(("key", "schema"), schema_keys().items())
def test_the_docs_tell_the_default_of_the_schema(key: str, schema: dict[str, Any]) -> None:
    defaults = {match[1]: match[4] for match in ROW.finditer(DOCS.read_text(encoding="utf-8"))}
    assert defaults.get(key) == written_default(key, schema)


@pytest.mark.parametrize(("key", "schema"), schema_keys().items())
def test_every_key_of_the_schema_tells_its_meaning(key: str, schema: dict[str, Any]) -> None:
    whole = json_schema()
    referred = whole["$defs"].get(schema.get("$ref", "").rpartition("/")[2], {})
    assert schema.get("description") or referred.get("description"), key


def test_the_files_shown_in_the_docs_load() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    for text in shown:
        assert load_text(text.replace("${file:/run/secrets/gpu_key}", "key"), {}).backends
