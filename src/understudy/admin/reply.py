"""Make the admin port's answers in JSON: a value with its status, or an error as a code for programs and words for people.

Called by admin.api and admin.sessions_api. Decides nothing.
"""

from typing import Any

import msgspec
from aiohttp import web

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}


def json_reply(status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """Return `value` as JSON; what JSON has no word for stands as its text."""
    body = msgspec.json.encode(value, enc_hook=str) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json", headers=HEADERS | (headers or {}))


def error_reply(status: int, code: str, words: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error in the one shape that all of the admin port's errors have."""
    return json_reply(status, {"error": {"code": code, "message": words}}, headers)
