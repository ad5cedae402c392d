"""The document describes the routes that exist, all of them, in OpenAPI's own shape."""

import json
import re

import jsonschema

from support.admin_stage import STATUS, StageOperator
from understudy.admin.api import make_app
from understudy.admin.guard import Guard
from understudy.admin.openapi import document


async def test_every_route_is_described_and_no_other() -> None:
    app = make_app(StageOperator(), Guard("", "127.0.0.1"))
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    assert {route for route in routes if route[0] != "HEAD"} == described


def test_every_reference_leads_somewhere() -> None:
    made = document()
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(made)))
    assert names <= set(made["components"]["schemas"])


def test_every_parameter_of_a_path_is_declared() -> None:
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))


def test_every_operation_has_a_summary_and_answers() -> None:
    for operations in document()["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert all(answer["description"] for answer in operation["responses"].values())


def test_the_schemas_are_schemas_and_the_status_fits_its_own() -> None:
    for schema in document()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(STATUS, document()["components"]["schemas"]["Status"])
