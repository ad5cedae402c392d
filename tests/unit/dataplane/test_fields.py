"""Which fields go on, and which do not."""

import pytest

from support.heads import sent
from understudy.dataplane.fields import NEVER_BY_CONNECTION, REQUEST_FIELDS_DROPPED, RESPONSE_FIELDS_DROPPED
from understudy.dataplane.heads import ResponseHead


@pytest.mark.parametrize(
    "field",
    [
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Proxy-Authorization: Basic eA==",
        b"TE: trailers",
        b"Trailer: X",
        b"Upgrade: websocket",
        b"HTTP2-Settings: AAM",
        b"X-Conversation-Id: guessed",
        b"X-Understudy-No-Resume: 1",
        b"X-Understudy-Priority: high",
    ],
)
def test_field_of_one_connection_does_not_go_on(field: bytes) -> None:
    name = field.partition(b":")[0].lower()
    assert not any(each.startswith(name) for each in sent(field + b"\r\n")[1])


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Authenticate",
        b"Proxy-Connection",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"X-Request-ID",
        b"X-Understudy-Backend",
        b"X-Understudy-Attempts",
    ],
)
def test_answers_field_of_one_connection_does_not_go_on(name: bytes) -> None:
    head = ResponseHead()
    head.add(name, b"x")
    head.add(b"X-Own", b"1")
    assert head.lines == [b"X-Own: 1\r\n"]


def test_names_stand_as_they_are_compared() -> None:
    for name in REQUEST_FIELDS_DROPPED | RESPONSE_FIELDS_DROPPED | NEVER_BY_CONNECTION:
        assert name == name.lower().strip()


def test_what_frames_a_message_is_written_anew_both_ways() -> None:
    assert {
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"trailer",
    } <= REQUEST_FIELDS_DROPPED & RESPONSE_FIELDS_DROPPED


def test_what_the_message_itself_means_goes_on() -> None:
    assert not NEVER_BY_CONNECTION & (REQUEST_FIELDS_DROPPED | RESPONSE_FIELDS_DROPPED)
