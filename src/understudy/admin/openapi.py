"""Describe the admin API as an OpenAPI 3.1 document, served at GET /api/openapi.json.

Read by admin.api only. Data, written by hand: a test holds it and the routes in step.
"""

from typing import Any

from understudy import __version__
from understudy.admin.openapi_upkeep import upkeep_schemas
from understudy.admin.rollout_api import FILE_WORD
from understudy.config.values import STEPS_MAX
from understudy.core.color import Color, Stick
from understudy.core.guard import Verdict
from understudy.core.rollout import Word
from understudy.core.snapshot import Balance, Condition, Duty, EngineKind, Role
from understudy.sessions.store import ID_BYTES_MAX, PAGE_MAX

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def document() -> dict[str, Any]:
    """Return the whole document, made anew."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy admin API",
            "version": __version__,
            "description": "What the daemon sees, and an operator's word on it. Loopback only unless a token is set.",
        },
        "security": [{}, {"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _paths() -> dict[str, Any]:
    text, prometheus = "text/plain", "text/plain; version=0.0.4"
    paths: dict[str, Any] = {
        "/": {"get": _operation("This list of endpoints, for people", {200: _answer("The list", "text/html")})},
        "/healthz": {"get": _operation("Is the daemon alive?", {200: _answer("It is", text)}, is_open=True)},
        "/readyz": {
            "get": _operation(
                "Can a request be answered now?",
                {200: _json("Yes", "Readiness"), 503: _json("No backend is usable, or the daemon drains", "Readiness")},
                is_open=True,
            )
        },
        "/metrics": {"get": _operation("Metrics for Prometheus", {200: _answer("The metrics", prometheus)})},
        "/api/status": {"get": _operation("Everything the daemon sees", {200: _json("The status", "Status")})},
        "/api/events": {
            "get": _operation(
                "What happens, as server-sent events named as in docs/events.md; slow listeners are dropped",
                {200: _answer("The stream", "text/event-stream"), 503: _json("100 listen already", "Error")},
            )
        },
        "/api/reload": {
            "post": _operation(
                "Read the file again; swapped whole or refused whole",
                {
                    200: _json("Accepted", "Reload"),
                    422: _json("Refused: the old settings stay", "Reload"),
                    504: _json("The file was not read in time", "Error"),
                },
            )
        },
        "/api/openapi.json": {"get": _operation("This document", {200: _answer("The document", "application/json")})},
    }
    done, unknown = {200: _json("Done", "Duty")}, {404: _json("No backend has that name", "Error")}
    begun = {
        200: _json("It has begun; the status says how it goes", "Restart"),
        409: _json("The file says no way to restart it, or it is being restarted", "Error"),
    }
    for verb, words, answers in (
        ("drain", "Give it no new exchange; its own go on", done),
        ("ready", "Give it exchanges again", done),
        ("maintenance", "Give it no exchange and no probe", done),
        ("restart", "Restart it by the means in the file; its exchanges are moved first", begun),
    ):
        operation = _operation(words, answers | unknown)
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths[f"/api/backends/{{name}}/{verb}"] = {"post": operation}
    return paths | _rollout_paths() | _session_paths() | _alert_paths()


def _alert_paths() -> dict[str, Any]:
    answers = {
        200: _json("What came of it, channel by channel", "AlertTest"),
        409: _json("The file names no channel, or a test is being sent", "Error"),
    }
    return {"/api/alerts/test": {"post": _operation("Send one test message to every channel", answers)}}


def _rollout_paths() -> dict[str, Any]:
    none = {409: _json("No backend has a color", "Error")}
    moved = {
        200: _json("Done", "RolloutOutcome"),
        400: _json("What was asked cannot be read", "Error"),
        409: _json("Refused, with the reason; or no backend has a color", "Error"),
        413: _json("The body is larger than 64 KiB", "Error"),
    }
    by_query = {
        "switch": [
            _parameter("color", "query", "blue or green, where there is no body"),
            _parameter("force", "query", "1 or true, where there is no body"),
        ],
        "rollback": [_parameter("sessions", "query", "1 or true, where there is no body")],
        "canary": [_parameter("share", "query", f"10%, 0.1, 0 or {FILE_WORD}, where there is no body")],
    }
    words = {
        "switch": "Give the new conversations to a color; refused where it could not serve them, unless forced",
        "rollback": "End the canary, or else take back the last switch; with sessions, the conversations come back, too",
        "canary": f"Give a share of the new conversations to the other color; 0 ends it, {FILE_WORD} is what the file says",
    }
    posts = {
        f"/api/rollout/{verb}": {
            "post": _operation(words[verb], moved)
            | {"parameters": by_query[verb], "requestBody": _body(verb.capitalize(), is_required=False)}
        }
        for verb in words
    }
    shown = _operation("Blue and green: which is active, and whose word it was", {200: _json("It", "Rollout"), **none})
    return {"/api/rollout": {"get": shown}, **posts}


def _session_paths() -> dict[str, Any]:
    lost = {
        400: _json("What was asked cannot be read", "Error"),
        404: _json("There is no such session, or no store", "Error"),
        503: _json("The store could not do it; the code begins with store_", "Error"),
    }
    held = {409: _json("The session is being changed by others", "Error")}
    in_path = _parameter("id", "path", "The session, percent-encoded", is_required=True)
    in_query = _parameter("id", "query", f"The session, of any characters, up to {ID_BYTES_MAX} bytes in UTF-8", is_required=True)
    asked = [
        _parameter("id", "query", "Show this one session rather than a list"),
        _parameter("cursor", "query", "Where to go on, as the page before has told"),
        _parameter("limit", "query", f"About how many, 1 to {PAGE_MAX}; 100 if not told"),
    ]
    shown = {"schema": {"anyOf": [_reference("Sessions"), _reference("Session")]}}
    listed = {"description": "A page of the list, or the one session", "content": {"application/json": shown}}
    deleted = {200: _json("Done", "Deleted")}
    too_large = {413: _json("The record is larger than 64 MiB", "Error"), 408: _json("It did not arrive in time", "Error")}
    put = _operation(
        "Keep a conversation in place of whatever the session has", {200: _json("Done", "Kept"), **lost, **held, **too_large}
    )
    purge = _operation("Forget every session that has not changed for a while", {200: _json("Done", "Purged"), **lost})
    return {
        "/api/sessions": {
            "get": _operation("The kept conversations, page by page", {200: listed, **lost}) | {"parameters": asked},
            "put": put | {"parameters": [in_query], "requestBody": _body("Session")},
            "delete": _operation("Forget a session", {**deleted, **lost, **held}) | {"parameters": [in_query]},
        },
        "/api/sessions/{id}": {
            "get": _operation("One conversation, whole", {200: _json("It", "Session"), **lost}) | {"parameters": [in_path]},
            "delete": _operation("Forget a session", {**deleted, **lost, **held}) | {"parameters": [in_path]},
        },
        "/api/sessions/purge": {"post": purge | {"requestBody": _body("Purge")}},
    }


def _operation(summary: str, responses: dict[int, Any], *, is_open: bool = False) -> dict[str, Any]:
    refused = {} if is_open else {401: _json("The token is missing or wrong", "Error")}
    refused |= {403: _json("The Host or Origin names another site", "Error"), 429: _json("Too many requests", "Error")}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {str(status): answer for status, answer in sorted((responses | refused).items())},
    }
    return operation | ({"security": [{}]} if is_open else {})


def _answer(words: str, content_type: str) -> dict[str, Any]:
    return {"description": words, "content": {content_type: {}}}


def _json(words: str, schema: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": _reference(schema)}}}


def _reference(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _body(schema: str, *, is_required: bool = True) -> dict[str, Any]:
    return {"required": is_required, "content": {"application/json": {"schema": _reference(schema)}}}


def _parameter(name: str, where: str, words: str, *, is_required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": is_required, "description": words, "schema": {"type": "string"}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _order(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """Return an object of which only `required` must be there, and nothing but `properties` may."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, schema]}


def _schemas() -> dict[str, Any]:
    text, number, whole, flag = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
    texts = {"type": "array", "items": text}
    reloaded: dict[str, Any] = {"ok": flag, "changed": texts, "needs_restart": texts, "mistakes": texts}
    # `at` is in seconds since 1970.
    last_reload = {"anyOf": [{"type": "null"}, _object({"at": number, **reloaded})]}
    status = {
        "version": text,
        "uptime_s": number,
        "generation": whole,
        "ready": flag,
        "stopping": flag,
        "listen": texts,
        "file": {"anyOf": [{"type": "null"}, text]},
        "balance": {"enum": [each.value for each in Balance]},
        "running": whole,
        "waiting": whole,
        "connections": whole,
        "reload": last_reload,
        "rollout": _or_null(_reference("Rollout")),
        "alerts": _or_null({"type": "array", "items": _reference("AlertChannel")}),
        "objectives": _or_null({"type": "array", "items": _reference("Objective")}),
        "backends": {"type": "array", "items": _backend_schema()},
    }
    return {
        "Error": _object({"error": _object({"code": text, "message": text})}),
        "Readiness": _object({"ready": flag}) | {"additionalProperties": True, "description": "sessions tells of the store"},
        "Restart": _object({"name": text, "restarting": flag}),
        "Duty": _object({"name": text, "duty": {"enum": [each.value for each in Duty]}}),
        "Reload": _object(reloaded),
        "Status": _object(status),
        **_rollout_schemas(),
        **_session_schemas(),
        **upkeep_schemas(),
    }


def _backend_schema() -> dict[str, Any]:
    text, number, whole, flag = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
    texts = {"type": "array", "items": text}
    return _object(
        {
            "name": text,
            "url": text,
            "engine": {"enum": [each.value for each in EngineKind]},
            "version": text,
            "role": {"enum": [each.value for each in Role]},
            "color": {"enum": [each.value for each in Color]},
            "weight": whole,
            "condition": {"enum": [each.value for each in Condition]},
            "duty": {"enum": [each.value for each in Duty]},
            "reason": text,
            "restarting": flag,
            "degraded": flag,
            "since_s": number,
            "models": {"anyOf": [{"type": "null"}, texts]},
            "in_flight": whole,
            "in_flight_max": whole,
            "ejected_for_s": number,
            "half_open": flag,
            "attempts_total": whole,
            "failures_total": whole,
            "ttft_ewma_s": {"anyOf": [{"type": "null"}, number]},
            "resting_for_s": number,
            "restart": _or_null(_reference("RestartCourse")),
            "warm": _or_null(_reference("Warmth")),
            "wake": _or_null(_reference("Waking")),
        },
    )


def _rollout_schemas() -> dict[str, Any]:
    text, number, whole, flag = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
    share, word = _SHARE, {"enum": [each.value for each in Word]}
    color, either = {"enum": [Color.BLUE.value, Color.GREEN.value]}, {"enum": [each.value for each in Color]}
    # `color` is the one that gets the share; `step` counts from 1; nothing is awaited at the last step.
    canary = _object(
        {
            "color": color,
            "share": share,
            "step": whole,
            "steps": {"type": "array", "items": share},
            "word": word,
            "next_step_in_s": _or_null(number),
            "waits_for": text,
        }
    )
    figures = _object(
        {
            "color": color,
            "exchanges": whole,
            "errors": _or_null(share),
            "ttft_p95_s": _or_null(number),
            "speed_median": _or_null(number),
            "is_frozen": flag,
        }
    )
    compared = _or_null(_object({"candidate": figures, "other": figures}))
    verdict = {"enum": [each.value for each in Verdict]}
    guard = _object({"watching": color, "verdict": verdict, "reason": text, "figures": compared})
    shadow = _object(
        {
            "share": share,
            "in_flight": whole,
            "sent": whole,
            "answered": whole,
            "failed": whole,
            "dropped": whole,
            "likeness_mean": _or_null(number),
            "ttft_mean_s": _or_null(number),
        }
    )
    # `since` is in seconds since 1970, 0: from the start; `previous` is what a rollback returns to, none: nothing. Canary, guard
    # and shadow are null while there is none, nothing to watch, or no share of it.
    rollout: dict[str, Any] = {
        "active": color,
        "word": word,
        "since": number,
        "previous": either,
        "file_active": color,
        "stick": {"enum": [each.value for each in Stick]},
        "canary": _or_null(canary),
        "guard": _or_null(guard),
        "shadow": _or_null(shadow),
        "reason": text,
        "kept": flag,
    }
    return {"Rollout": _object(rollout), **_order_schemas()}


def _order_schemas() -> dict[str, Any]:
    text, flag, color = {"type": "string"}, {"type": "boolean"}, {"enum": [Color.BLUE.value, Color.GREEN.value]}
    written_share = {"anyOf": [_SHARE, text]}
    steps = {"type": "array", "items": written_share, "minItems": 1, "maxItems": STEPS_MAX}
    return {
        "RolloutOutcome": _object(
            {"active": color, "was": color, "changed": flag, "kept": flag, "rollout": _reference("Rollout")}
        ),
        "Switch": _order({"color": color, "force": flag}, "color"),
        "Rollback": _order({"sessions": flag}),
        "Canary": _order({"share": written_share, "steps": steps}) | {"minProperties": 1, "maxProperties": 1},
    }


def _session_schemas() -> dict[str, Any]:
    text, number, whole, flag = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
    # Times are in seconds since 1970.
    summary = _object(
        {
            "id": text,
            "revision": whole,
            "messages": whole,
            "bytes": whole,
            "changed_at": number,
            "begun_at": number,
            "model": text,
            "backend": text,
            "color": text,
        }
    )
    # Whatever stands at its default is left out; core.conversation and core.message name every field.
    message = {"type": "object", "properties": {"speaker": text}, "required": ["speaker"], "additionalProperties": True}
    record: dict[str, Any] = {
        "type": "object",
        "properties": {"id": text, "bytes": whole, "revision": whole, "messages": {"type": "array", "items": message}},
        "required": ["messages"],
        "additionalProperties": True,
    }
    return {
        "Sessions": _object({"sessions": {"type": "array", "items": summary}, "cursor": {"type": ["string", "null"]}}),
        "Session": record,
        "Kept": _object({"id": text}),
        "Deleted": _object({"id": text, "deleted": flag}),
        "Purge": _object({"older_than_s": {"type": "number", "minimum": 0}}),
        "Purged": _object({"deleted": whole}),
    }
