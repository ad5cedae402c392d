"""Our own requests on a client's way, written and answered."""

import json

import pytest

from support.continuing import answered
from support.transports import connected
from understudy.core.snapshot import Address, Backend, Limits
from understudy.dataplane import posts
from understudy.dataplane.heads import BackendWords, RequestHead, read_request_head
from understudy.dataplane.posts import PostedQuestion, post_bytes
from understudy.dataplane.upstream import UpstreamConnection
from understudy.engines import ProbeAnswer
from understudy.errors import FailureKind

ASKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\nAuthorization: Bearer sk-client\r\nCookie: c=1\r\n"
    b"X-Api-Key: sk-other\r\nTraceparent: 00-a-b-01\r\nTracestate: x=1\r\nAccept: text/event-stream\r\n"
    b"X-Understudy-No-Resume: 0\r\n\r\n"
)


class Audience:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_answer(self, answer: ProbeAnswer) -> None:
        """Keep the answer."""
        self.told.append((answer.status, answer.body))

    def on_failure(self, kind: FailureKind) -> None:
        """Keep the failure."""
        self.told.append(kind)

    def on_exception(self, error: BaseException) -> None:
        """Keep our mistake."""
        self.told.append(error)


def head() -> RequestHead:
    """Read the client's request."""
    read = read_request_head(ASKED, Limits())
    assert isinstance(read, RequestHead)
    return read


def written(*, api_key: str = "", prefix: str = "") -> tuple[bytes, list[bytes], bytes]:
    """Return the request line, the sorted fields and the body of a question."""
    backend = Backend("gpu0", Address("http", "10.0.0.1", 8000, prefix), api_key=api_key)
    lines, _, body = post_bytes(head(), BackendWords(backend), "/tokenize", b'{"a": 1}', b"id-7").partition(b"\r\n\r\n")
    first, *fields = lines.split(b"\r\n")
    return first, sorted(fields), body


def test_question_has_the_clients_keys_and_trace_and_nothing_else_of_it() -> None:
    assert written() == (
        b"POST /tokenize HTTP/1.1",
        [
            b"Authorization: Bearer sk-client",
            b"Content-Length: 8",
            b"Content-Type: application/json",
            b"Host: 10.0.0.1:8000",
            b"Traceparent: 00-a-b-01",
            b"Tracestate: x=1",
            b"X-Api-Key: sk-other",
            b"X-Request-ID: id-7",
        ],
        b'{"a": 1}',
    )


def test_backends_own_key_and_prefix_take_the_place_of_the_clients() -> None:
    first, fields, _ = written(api_key="sk-0", prefix="/llm")
    assert first == b"POST /llm/tokenize HTTP/1.1"
    assert b"Authorization: Bearer sk-0" in fields
    assert not any(b"sk-client" in field or b"sk-other" in field for field in fields)


def asked() -> tuple[Audience, UpstreamConnection, PostedQuestion]:
    """Send a question over a connection in memory."""
    audience, connection = Audience(), UpstreamConnection("gpu0")
    connected(connection)
    question = PostedQuestion(audience, 3.0)
    connection.send(question, b"POST", is_head=False)
    return audience, connection, question


async def test_whole_answer_is_handed_over_once() -> None:
    audience, connection, question = asked()
    assert (question.progress_at_s, question.is_begun) == (3.0, False)
    wire = b"HTTP/1.1 100 Continue\r\n\r\n" + answered({"tokens": [1, 2]}, 200)
    for at in range(len(wire)):
        assert audience.told == []
        connection.data_received(wire[at : at + 1])
    assert audience.told == [(200, json.dumps({"tokens": [1, 2]}).encode())]
    assert connection.release()


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_answer_that_is_no_success_is_an_answer(status: int) -> None:
    audience, connection, _ = asked()
    connection.data_received(answered({}, status))
    assert audience.told == [(status, b"{}")]


async def test_answer_that_is_cut_is_a_failure() -> None:
    audience, connection, _ = asked()
    connection.data_received(answered({"tokens": []})[:-1])
    connection.eof_received()
    connection.connection_lost(None)
    assert audience.told == [FailureKind.BODY_CUT]


async def test_answer_without_an_end_is_kept_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "PROBE_BODY_BYTES_MAX", 10)
    audience, connection, _ = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
    for _ in range(5):
        connection.data_received(b"x" * 8)
    assert audience.told == [(200, b"x" * 16)]


async def test_nobody_is_told_after_the_attempt_was_dropped() -> None:
    audience, connection, question = asked()
    question.detach()
    connection.data_received(answered({}))
    question.on_broken(FailureKind.BODY_CUT)
    assert audience.told == []


async def test_mistake_of_our_own_is_told_to_who_asked() -> None:
    audience, _, question = asked()
    error = RuntimeError("ours")
    question.on_exception(error)
    assert audience.told == [error]
