"""A channel is named without its secrets, and no way of failing lets one out."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from understudy.controlplane import alert_delivery
from understudy.controlplane.alert_delivery import check, deliver, missing_extra, safe_name, without_secrets
from understudy.core.upkeep import Severity

# Apprise imports a module of Python's own that is on its way out; nobody is told in production.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("dingtalk://SECdead@token1234/13800000000", "dingtalk"),
        ("slack://TokenA/TokenB/TokenC/#ops", "slack"),
        ("tgram://123456:abcdef/1", "tgram"),
        ("mailto://user:pass@example.org", "mailto: example.org"),
        ("mailtos://user:p@ss@smtp.example.org:587?to=a@b.c", "mailtos: smtp.example.org"),
        ("json://127.0.0.1:8080/hook/SECRET", "json: 127.0.0.1"),
        ("JSONS://[::1]/x", "jsons: ::1"),
        ("mailto://[bad", "mailto"),
        ("https://oapi.dingtalk.com/robot/send?access_token=abc", "https"),
        ("SECRET", "unreadable"),
        ("", "unreadable"),
        ("my secret://x", "unreadable"),
    ],
)
def test_a_name_is_the_scheme_and_a_host_that_is_no_secret(url: str, name: str) -> None:
    assert safe_name(url) == name


def test_words_lose_every_piece_of_the_url_but_its_name() -> None:
    url = "mailtos://me:p%40ssword@smtp.example.org:587/path?to=you@private.example&x=Y9-longer"
    words = "at smtp.example.org port 587:\n me said p@ssword, p%40ssword, ssword, you@private.example, Y9-longer and to some"
    assert without_secrets(words, url) == ("at smtp.example.org port 587: *** said ***@***, ***, ***, you@***, *** and to some")


def test_a_host_out_of_reach_is_told_with_what_the_system_said() -> None:
    with webhook(200) as (host, _):
        pass
    words = deliver(f"json://me:SECRETPASS@{host}/SECRETHOOK", "a", "b", Severity.INFO)
    assert words.startswith("A Connection error occurred sending JSON notification")
    assert "Connection refused" in words
    assert "SECRET" not in words


def test_apprise_is_here_and_its_absence_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_extra() == ""
    monkeypatch.setattr(alert_delivery, "find_spec", lambda _name: None)
    assert missing_extra() == "alerts need the package apprise: pip install 'understudy[alerts]'"


@pytest.mark.parametrize("url", ["dingtalk://abc123/", "mailto://a:b@example.org", "json://localhost/x"])
def test_a_url_that_apprise_takes_is_fine(url: str) -> None:
    assert check(url) == ""


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Everything that reaches the root logger, where the daemon's log listens."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger().addHandler(listener)
    yield lines
    logging.getLogger().removeHandler(listener)


@pytest.mark.parametrize(
    "url", ["dingtalk://not-a-token/", "slack://SECRETTOKEN", "nothing://SECRETTOKEN", "SECRETTOKEN", "dingtalk://"]
)
def test_a_url_that_apprise_does_not_take_is_told_without_it(url: str, logged: list[str]) -> None:
    for words in (check(url), deliver(url, "a", "b", Severity.INFO)):
        assert words.startswith("Apprise does not take this URL")
        assert "TOKEN" not in words
        assert "not-a" not in words
    assert logged == []


@contextmanager
def webhook(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """Answer every POST on a free port with that status; yields the address and the bodies."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("severity", "kind"),
    [(Severity.ERROR, "failure"), (Severity.WARNING, "warning"), (Severity.INFO, "info"), (None, "success")],
)
def test_a_webhook_gets_subject_body_and_kind(severity: Severity | None, kind: str) -> None:
    with webhook(200) as (host, received):
        assert deliver(f"json://{host}/hook", "Understudy: gpu0 不可用", "line 1\nline 2", severity) == ""
    sent = json.loads(received[0])
    assert (sent["title"], sent["message"], sent["type"]) == ("Understudy: gpu0 不可用", "line 1\nline 2", kind)


def test_a_webhook_that_refuses_is_told_without_its_secret(logged: list[str]) -> None:
    with webhook(401) as (host, _):
        words = deliver(f"json://me:SECRETPASS@{host}/SECRETHOOK", "a", "b", Severity.INFO)
    assert "401" in words
    assert "SECRET" not in words
    assert logged == []


def test_whatever_goes_wrong_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> None:
        raise ValueError("dingtalk://SECRETTOKEN")

    monkeypatch.setattr(alert_delivery, "_service_of", fails)
    assert deliver("dingtalk://SECRETTOKEN", "a", "b", Severity.INFO) == "Apprise failed at it: ValueError"
    assert check("dingtalk://SECRETTOKEN") == "Apprise failed at its URL: ValueError"


def test_without_apprise_a_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    assert deliver("json://localhost", "a", "b", Severity.INFO) == alert_delivery.MISSING
    assert check("json://localhost") == alert_delivery.MISSING
