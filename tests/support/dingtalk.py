"""A DingTalk robot on a free port of loopback, as strict as DingTalk documents it, for tests of alerts.

It takes POST /robot/send?access_token=... with JSON in UTF-8; where it has a secret, `timestamp` (milliseconds, at most an hour
off) and `sign`: base64 of HMAC-SHA256 over the timestamp, a line feed and the secret, percent-encoded once. What it refuses it
answers with status 200 and an `errcode`. Source: open.dingtalk.com, custom-robot-access.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

OK = {"errcode": 0, "errmsg": "ok"}


class Robot:
    """What the robot asks for, and what it has taken."""

    def __init__(self, token: str, secret: str = "", keyword: str = "") -> None:
        self.token = token
        self.secret = secret
        self.keyword = keyword
        self.status = 200
        self.raw_answer = b""
        self.taken: list[dict[str, Any]] = []
        self.url = ""

    def answer(self, path: str, content_type: str, body: bytes) -> dict[str, Any]:
        """Take the message or say why not, as DingTalk does."""
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/robot/send" or query.get("access_token") != self.token:
            return {"errcode": 300001, "errmsg": "token is not exist"}
        if "application/json" not in content_type:
            return {"errcode": 43004, "errmsg": "invalid content type"}
        if self.secret and not self._is_signed(query):
            return {"errcode": 310000, "errmsg": "sign not match"}
        message = json.loads(body.decode("utf-8"))
        if message.get("msgtype") != "text" or not isinstance(message["text"]["content"], str):
            return {"errcode": 40035, "errmsg": "invalid parameter"}
        if self.keyword not in message["text"]["content"]:
            return {"errcode": 310000, "errmsg": "keywords not in content"}
        self.taken.append(message)
        return OK

    def _is_signed(self, query: dict[str, str]) -> bool:
        timestamp = query.get("timestamp", "0")
        if abs(time.time() * 1000 - int(timestamp)) > 3_600_000:
            return False
        digest = hmac.new(self.secret.encode(), f"{timestamp}\n{self.secret}".encode(), hashlib.sha256).digest()
        return hmac.compare_digest(base64.b64encode(digest).decode(), query.get("sign", ""))


@contextmanager
def open_robot(robot: Robot) -> Iterator[Robot]:
    """Serve the robot; its `url` is what Apprise's plugin asks, with {token} left to fill in."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer one message."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = robot.answer(self.path, self.headers["Content-Type"], body)
            self.send_response(robot.status)
            self.end_headers()
            self.wfile.write(robot.raw_answer or json.dumps(answer).encode())

        def log_message(self, *_args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    robot.url = f"http://127.0.0.1:{server.server_port}/robot/send?access_token={{token}}"
    try:
        yield robot
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
