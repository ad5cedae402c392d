"""The shape of the admin port's answers."""

import json
from pathlib import Path

from understudy.admin.reply import error_reply, json_reply


def body_of(reply: object) -> object:
    return json.loads(reply.body)  # type: ignore[attr-defined]  # aiohttp's body is bytes here


def test_a_value_is_json_that_no_cache_keeps() -> None:
    reply = json_reply(201, {"a": 1, "path": Path("/x")}, {"Allow": "GET"})
    assert (reply.status, reply.content_type, body_of(reply)) == (201, "application/json", {"a": 1, "path": "/x"})
    assert (reply.headers["Cache-Control"], reply.headers["Allow"]) == ("no-store", "GET")


def test_an_error_is_a_code_and_words() -> None:
    reply = error_reply(409, "session_held", "try again", {"Retry-After": "1"})
    assert (reply.status, reply.headers["Retry-After"]) == (409, "1")
    assert body_of(reply) == {"error": {"code": "session_held", "message": "try again"}}
