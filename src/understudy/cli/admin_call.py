"""Ask the running daemon something through its admin port, for the commands that talk to it.

Uses the standard library's HTTP client: it is imported in 20 ms, a third of httpx. Makes one request and retries nothing.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPConnection

DEFAULT_URL = "http://127.0.0.1:9901"
TOKEN_VARIABLE = "UNDERSTUDY_ADMIN_TOKEN"  # noqa: S105  # a variable's name
# Reading the file may take a while on a slow disk; the daemon itself gives up after 60 s.
_TIMEOUT_S = 65.0
_ANSWER_BYTES_MAX = 64 * 1024 * 1024


class CallError(Exception):
    """The daemon could not be asked, or refused; the message is one line for the operator.

    `status` and `code` are those of its refusal, 0 and "" where it said nothing.
    """

    def __init__(self, words: str, status: int = 0, code: str = "") -> None:
        super().__init__(words)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said: its HTTP status and the JSON object."""

    status: int
    value: dict[str, Any]


def add_admin_option(parser: argparse.ArgumentParser) -> None:
    """Add `--admin URL`."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=DEFAULT_URL,
        help=f"where the daemon's admin port is, also unix:/path (default {DEFAULT_URL}); its token from {TOKEN_VARIABLE}",
    )


def call(url: str, method: str, path: str, *, body: dict[str, Any] | None = None, timeout_s: float = _TIMEOUT_S) -> Answer:
    """Send one request to the admin port at `url`, with `body` as JSON; return its answer, 422 included.

    Raises CallError for all else. `timeout_s` bounds each silence of the daemon.
    """
    import json
    from http.client import HTTPException

    connection, prefix = _connection(url, timeout_s)
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    headers: dict[str, str | bytes] = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = b"Bearer " + os.fsencode(token)
    sent = None
    if body is not None:
        sent = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, prefix + path, sent, headers)
        response = connection.getresponse()
        received = response.read(_ANSWER_BYTES_MAX)
    except TimeoutError as error:
        raise CallError(f"the daemon at {url} did not answer in time") from error
    except OSError as error:
        raise CallError(f"no daemon answers at {url}: {(error.strerror or str(error)).lower()}") from error
    except (HTTPException, ValueError) as error:
        raise CallError(f"{url} is not an understudy admin port: {error or type(error).__name__}") from error
    finally:
        connection.close()
    try:
        value = json.loads(received)
    except ValueError as error:
        raise CallError(f"{url} is not an understudy admin port: it answered {response.status} without JSON") from error
    if not isinstance(value, dict):
        raise CallError(f"{url} is not an understudy admin port: it answered {response.status} with other JSON")
    if response.status == 401:
        want = "is not the daemon's" if token else "is not set, and the daemon asks for its token"
        raise CallError(f"{TOKEN_VARIABLE} {want}", response.status)
    if response.status not in {200, 422}:
        raise _refusal(url, response.status, value)
    return Answer(response.status, value)


def say_error(words: object) -> None:
    """Write one line to standard error; an answer's text cannot speak to the terminal."""
    from understudy.telemetry.console import printable

    print(f"understudy: {printable(str(words))}", file=sys.stderr)


def _refusal(url: str, status: int, value: dict[str, Any]) -> CallError:
    error = value.get("error")
    told = error if isinstance(error, dict) else {}
    return CallError(str(told.get("message") or f"{url} answered {status}"), status, str(told.get("code") or ""))


def _connection(url: str, timeout_s: float) -> "tuple[HTTPConnection, str]":
    """Return a connection that is not yet open, and the path before the admin port's own."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CallError(f"--admin {url}: want a URL such as {DEFAULT_URL}") from error
    if parts.scheme == "unix" and parts.path.startswith("/"):
        connection = HTTPConnection("localhost", timeout=timeout_s)
        connection.sock = _unix_socket(url, parts.path, timeout_s)
        return connection, ""
    if parts.scheme not in {"http", "https"} or not host:
        raise CallError(f"--admin {url}: want a URL such as {DEFAULT_URL}")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(host, port, timeout=timeout_s), parts.path.rstrip("/")


def _unix_socket(url: str, path: str, timeout_s: float) -> Any:
    import socket

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(timeout_s)
    try:
        listener.connect(path)
    except OSError as error:
        listener.close()
        raise CallError(f"no daemon answers at {url}: {(error.strerror or str(error)).lower()}") from error
    return listener
