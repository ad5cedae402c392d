"""The schemas of upkeep are schemas, and what is told fits them."""

import jsonschema
import pytest

from understudy.admin.openapi import document
from understudy.admin.openapi_upkeep import upkeep_schemas
from understudy.core.restart import status_of, watching
from understudy.core.upkeep import RestartKind, RestartRules


@pytest.mark.parametrize("name", list(upkeep_schemas()))
def test_it_is_a_schema_and_in_the_document(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(upkeep_schemas()[name])
    assert document()["components"]["schemas"][name] == upkeep_schemas()[name]


def test_the_course_of_a_restart_fits() -> None:
    told = status_of(watching(5.0), RestartRules(RestartKind.SYSTEMD, subject="ollama"), 6.0)
    jsonschema.validate(told, upkeep_schemas()["RestartCourse"])
