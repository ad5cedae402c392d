"""Asking the daemon: an answer, or one line that says why there is none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.admin_sessions import keeping
from support.admin_stage import StageOperator, open_admin_port
from understudy.cli.admin_call import CallError, call, say_error


@contextmanager
def speaking(answer: bytes) -> Iterator[str]:
    """Open a port that is something else: it says `answer` to whoever connects, once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_an_answer_is_its_status_and_object() -> None:
    with open_admin_port(StageOperator()) as url:
        answer = call(url, "GET", "/readyz")
    assert (answer.status, answer.value["ready"]) == (200, True)


def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    with open_admin_port(StageOperator(), path=tmp_path / "admin.sock") as url:
        assert call(url, "GET", "/api/status").status == 200


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_ADMIN_TOKEN", " s3cret-ü\n")
    with open_admin_port(StageOperator(), "s3cret-ü") as url:
        assert call(url, "GET", "/api/status").status == 200


@pytest.mark.parametrize(("token", "words"), [("", "is not set"), ("wrong", "is not the daemon's")])
def test_without_the_right_token_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, token: str, words: str) -> None:
    monkeypatch.setenv("UNDERSTUDY_ADMIN_TOKEN", token)
    with open_admin_port(StageOperator(), "s3cret") as url, pytest.raises(CallError, match=f"UNDERSTUDY_ADMIN_TOKEN {words}"):
        call(url, "GET", "/api/status")


def test_the_daemons_own_words_are_passed_on() -> None:
    with open_admin_port(StageOperator()) as url, pytest.raises(CallError, match="no backend is named 'gpu9'"):
        call(url, "POST", "/api/backends/gpu9/drain")


def test_a_refusal_tells_its_status_and_code() -> None:
    with open_admin_port(StageOperator()) as url, pytest.raises(CallError) as refused:
        call(url, "POST", "/api/backends/gpu9/drain")
    assert (refused.value.status, refused.value.code) == (404, "backend_unknown")
    with pytest.raises(CallError) as refused:
        call(f"http://127.0.0.1:{free_port()}", "GET", "/api/status")
    assert (refused.value.status, refused.value.code) == (0, "")


def test_a_body_is_sent_as_json() -> None:
    operator, sessions = keeping()
    with open_admin_port(operator) as url:
        assert call(url, "POST", "/api/sessions/purge", body={"older_than_s": 1.5}).value == {"deleted": 0}
    assert sessions.purged_s == [1.5]


def test_a_daemon_that_says_nothing_is_not_waited_for_longer_than_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(CallError, match="did not answer in time"):
            call(url, "GET", "/api/status", timeout_s=0.05)


def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"no daemon answers at http://127.0.0.1:\d+: connection refused"):
        call(f"http://127.0.0.1:{free_port()}", "GET", "/api/status")
    with pytest.raises(CallError, match="no such file or directory"):
        call(f"unix:{tmp_path}/none.sock", "GET", "/api/status")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_another_service_is_told_from_an_admin_port(answer: bytes) -> None:
    with speaking(answer) as url, pytest.raises(CallError, match=r"is not an understudy admin port|no daemon answers"):
        call(url, "GET", "/api/status")


@pytest.mark.parametrize("url", ["127.0.0.1:9901", "ftp://x", "http://", "http://x:port", "unix:relative", "http://[x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CallError, match="want a URL such as"):
        call(url, "GET", "/api/status")


def test_an_error_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("bad\n\x1b[2Jthing")
    assert capsys.readouterr().err == "understudy: bad\\n\\x1b[2Jthing\n"
