"""Plays of one backend connection: an answer in any pieces gives the same facts, and what is no HTTP/1.1 is told as that."""

from typing import Any

import pytest

from support.transports import MemoryTransport, connected, settle
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.upstream import HEAD_BYTES_MAX, INTERIM_MAX, UpstreamConnection
from understudy.errors import FailureKind

K = FailureKind
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"


class Answer:
    """Notes what it is told, in order."""

    def __init__(self, raising: Exception | None = None) -> None:
        self.told: list[Any] = []
        self.head: ResponseHead | None = None
        self.has_body = False
        self.body = b""
        self._raising = raising
        self._is_sealed = False

    def on_interim(self, status: int) -> None:
        """Note a 1xx."""
        self.told.append(status)

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None:
        """Note the head."""
        self.head, self.has_body = head, has_body
        self.told.append("head")

    def on_body(self, data: bytes) -> None:
        """Gather the body; raise where the play wants it."""
        if self._raising is not None:
            raise self._raising
        if not self._is_sealed:
            self.body += data

    def on_last(self) -> None:
        """Take nothing more."""
        self._is_sealed = True

    def on_end(self, *, is_followed: bool) -> None:
        """Note the end."""
        self.told.append("end")

    def on_broken(self, kind: FailureKind) -> None:
        """Note the break."""
        self.told.append(kind)

    def on_exception(self, error: BaseException) -> None:
        """Note our own mistake."""
        self.told.append(error)


def sent(*, is_head: bool = False, reused: bool = False) -> tuple[UpstreamConnection, MemoryTransport, Answer]:
    """Send a request on a connection of its own, or on one that has served before."""
    connection = UpstreamConnection("gpu0")
    transport = connected(connection)
    if reused:
        connection.send(Answer(), REQUEST, is_head=False)
        transport.feed(SIZED)
        assert connection.release()
    answer = Answer()
    transport.take()
    connection.send(answer, REQUEST, is_head=is_head)
    assert transport.take() == REQUEST
    return connection, transport, answer


async def told(*pieces: bytes, is_head: bool = False, reused: bool = False, ends: bool = False) -> tuple[list[Any], Answer, bool]:
    """Feed an answer in these pieces; what was told, and whether the connection can serve again."""
    connection, transport, answer = sent(is_head=is_head, reused=reused)
    for piece in pieces:
        transport.feed(piece)
    if ends:
        transport.end()
    await settle()
    return answer.told, answer, connection.release()


# --- whole answers, in any pieces


@pytest.mark.parametrize("wire", [SIZED, CHUNKED])
async def test_answer_may_be_cut_anywhere(wire: bytes) -> None:
    for cut in range(1, len(wire)):
        events, answer, is_reusable = await told(wire[:cut], wire[cut:])
        assert (events, answer.body, is_reusable) == (["head", "end"], b"hello", True), cut


@pytest.mark.parametrize("wire", [SIZED, CHUNKED])
async def test_answer_may_come_byte_by_byte(wire: bytes) -> None:
    events, answer, is_reusable = await told(*(bytes([byte]) for byte in wire))
    assert (events, answer.body, is_reusable) == (["head", "end"], b"hello", True)


async def test_body_may_last_until_the_connection_closes() -> None:
    for cut in range(1, len(UNTIL_CLOSE)):
        events, answer, is_reusable = await told(UNTIL_CLOSE[:cut], UNTIL_CLOSE[cut:], ends=True)
        assert (events, answer.body, is_reusable) == (["head", "end"], b"hello", False), cut


async def test_trailers_are_dropped() -> None:
    _, answer, _ = await told(CHUNKED)
    assert answer.head is not None
    assert answer.head.lines == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("fields", [b"", b"ETag: x\r\n"])
async def test_status_without_a_body_ends_with_its_head(status: bytes, fields: bytes) -> None:
    events, answer, is_reusable = await told(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n")
    assert (events, answer.has_body, is_reusable) == (["head", "end"], False, True)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b""])
async def test_answer_to_head_has_no_body_whatever_it_says(framing: bytes) -> None:
    events, answer, _ = await told(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n", is_head=True)
    assert (events, answer.has_body) == (["head", "end"], False)


async def test_length_of_an_answer_to_head_is_kept_and_its_connection_not_used_again() -> None:
    _, answer, is_reusable = await told(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", is_head=True)
    assert answer.head is not None
    assert answer.head.content_length == 5
    assert not is_reusable


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("body", [b"hello", b"5\r\nhello\r\n0\r\n\r\n", SIZED])
async def test_body_that_an_answer_to_head_has_all_the_same_is_nobodys(framing: bytes, body: bytes) -> None:
    events, answer, is_reusable = await told(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + body, is_head=True)
    assert (events, answer.body, is_reusable) == (["head", "end"], b"", False)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_body_of_a_status_that_has_none_is_nobodys(status: bytes) -> None:
    events, answer, is_reusable = await told(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello")
    assert (events[0], answer.body, is_reusable) == ("head", b"", False)


async def test_empty_body_is_none() -> None:
    events, answer, is_reusable = await told(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (events, answer.has_body, is_reusable) == (["head", "end"], False, True)


# --- interim answers


async def test_interim_answers_come_before_the_final_one() -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED
    for cut in range(1, len(wire)):
        events, answer, is_reusable = await told(wire[:cut], wire[cut:])
        assert (events, answer.body, is_reusable) == ([100, 103, "head", "end"], b"hello", True), cut
        assert answer.head is not None
        assert answer.head.lines == [b"Content-Type: text/plain\r\n"]


async def test_endless_interim_answers_are_malformed() -> None:
    events, _, _ = await told(b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_MAX + 1))
    assert events == [102] * INTERIM_MAX + [K.HEAD_MALFORMED]


async def test_upgrade_that_nobody_asked_for_is_malformed() -> None:
    events, _, _ = await told(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    assert events == [K.HEAD_MALFORMED]


# --- what is no HTTP/1.1


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_answer_that_is_no_sound_http_is_malformed(wire: bytes) -> None:
    for pieces in ([wire], [bytes([byte]) for byte in wire]):
        connection, transport, answer = sent()
        for piece in pieces:
            transport.feed(piece)
        await settle()
        assert answer.told == [K.HEAD_MALFORMED]
        assert transport.is_aborted
        assert not connection.is_reusable


@pytest.mark.parametrize("body", [b"x\r\n", b"5\r\nhelloX\r\n", b"-5\r\n", b"5\nhello\r\n", b"11111111111111111\r\n"])
async def test_chunks_that_are_none_are_a_malformed_body(body: bytes) -> None:
    events, _, is_reusable = await told(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (events, is_reusable) == (["head", K.BODY_MALFORMED], False)


@pytest.mark.parametrize("has_end", [True, False])
async def test_head_that_is_too_large_is_told(has_end: bool) -> None:
    field = b"X: " + b"y" * 1000 + b"\r\n"
    wire = b"HTTP/1.1 200 OK\r\n" + field * (HEAD_BYTES_MAX // len(field) + 2)
    pieces = [wire[at : at + 16_000] for at in range(0, len(wire), 16_000)]
    events, _, _ = await told(*pieces, *([b"Content-Length: 0\r\n\r\n"] if has_end else []))
    assert events == [K.HEAD_TOO_LARGE]


async def test_small_head_with_a_large_body_in_the_same_bytes_is_no_large_head() -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    assert (await told(wire))[0] == ["head", "end"]


# --- two answers on one connection


@pytest.mark.parametrize("wire", [SIZED, CHUNKED])
@pytest.mark.parametrize("junk", [SIZED, b"HTTP/1.1 200 OK\r\n", b"junk", b"\x00", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_bytes_after_the_answer_end_the_connection_and_not_the_answer(wire: bytes, junk: bytes) -> None:
    events, answer, is_reusable = await told(wire + junk)
    assert (events, answer.body, is_reusable) == (["head", "end"], b"hello", False)


async def test_bytes_on_an_idle_connection_close_it() -> None:
    connection, transport, _ = sent()
    transport.feed(SIZED)
    assert connection.release()
    transport.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    await settle()
    assert transport.is_closing()
    assert connection.transport is None


async def test_second_request_gets_the_second_answer() -> None:
    connection, transport, first = sent()
    transport.feed(SIZED)
    assert connection.release()
    second = Answer()
    connection.send(second, REQUEST, is_head=False)
    transport.feed(CHUNKED)
    assert (first.told, second.told, second.body) == (["head", "end"], ["head", "end"], b"hello")
    assert connection.is_reused


# --- whether it can serve again


@pytest.mark.parametrize(
    ("head", "is_reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close, x\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
async def test_connection_is_kept_as_version_and_field_say(head: bytes, is_reusable: bool) -> None:
    assert (await told(head + b"Content-Length: 0\r\n\r\n"))[2] is is_reusable


async def test_connection_whose_request_was_not_read_to_its_end_is_not_kept() -> None:
    connection, transport, answer = sent()
    transport.is_stuck = True
    transport.write(b"the rest of a large request")
    transport.feed(SIZED)
    assert answer.told == ["head", "end"]
    assert not connection.release()


# --- how it breaks off


@pytest.mark.parametrize("cut", [*range(1, 20), len(SIZED) - 6])
async def test_end_inside_of_the_head_is_a_lost_answer(cut: int) -> None:
    for reused in (False, True):
        assert (await told(SIZED[:cut], ends=True, reused=reused))[0] == [K.LOST_BEFORE_HEAD]


async def test_end_before_any_byte_is_a_lost_answer_on_a_fresh_connection_and_stale_on_a_reused_one() -> None:
    assert (await told(ends=True))[0] == [K.LOST_BEFORE_HEAD]
    assert (await told(ends=True, reused=True))[0] == [K.STALE_REUSE]


async def test_request_on_a_connection_that_is_gone_is_stale() -> None:
    connection, transport, _ = sent()
    transport.feed(SIZED)
    connection.release()
    transport.lose()
    answer = Answer()
    connection.send(answer, REQUEST, is_head=False)
    assert answer.told == [K.STALE_REUSE]


@pytest.mark.parametrize("wire", [SIZED, CHUNKED])
async def test_end_inside_of_the_body_cuts_it(wire: bytes) -> None:
    start = wire.index(b"\r\n\r\n") + 4
    for cut in range(start, len(wire)):
        assert (await told(wire[:cut], ends=True))[0] == ["head", K.BODY_CUT], cut


@pytest.mark.parametrize("wire", [SIZED, CHUNKED, UNTIL_CLOSE])
async def test_reset_inside_of_the_body_cuts_it(wire: bytes) -> None:
    _, transport, answer = sent()
    transport.feed(wire[: wire.index(b"hello") + 3])
    transport.lose(ConnectionResetError())
    assert answer.told == ["head", K.BODY_CUT]


async def test_break_after_the_answer_is_told_to_nobody() -> None:
    connection, transport, answer = sent()
    transport.feed(SIZED)
    connection.release()
    transport.lose(ConnectionResetError())
    assert answer.told == ["head", "end"]


async def test_mistake_of_our_own_is_told_as_ours() -> None:
    mistake = RuntimeError("ours")
    connection, transport, _ = sent()
    connection.close()
    connection = UpstreamConnection("gpu0")
    transport = connected(connection)
    answer = Answer(raising=mistake)
    connection.send(answer, REQUEST, is_head=False)
    transport.feed(SIZED)
    assert answer.told == ["head", mistake]
    assert transport.is_aborted


# --- from our side


async def test_closing_aborts_at_once_and_tells_nothing() -> None:
    connection, transport, answer = sent()
    transport.feed(SIZED[:-2])
    connection.close()
    await settle()
    assert transport.is_aborted
    assert answer.told == ["head"]


async def test_reading_is_stopped_and_resumed() -> None:
    connection, transport, _ = sent()
    connection.pause()
    assert transport.is_paused
    connection.resume()
    assert not transport.is_paused


async def test_pausing_a_connection_that_is_gone_does_nothing() -> None:
    connection, transport, _ = sent()
    transport.lose()
    connection.pause()
    connection.resume()
    assert not connection.release()


async def test_head_whose_empty_line_is_split_is_no_large_head() -> None:
    connection, transport, answer = sent()
    body = b"x" * (HEAD_BYTES_MAX + 1)
    for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r" % len(body), b"\n" + body):
        transport.feed(piece)
    await settle()
    assert (answer.told, len(answer.body), connection.release()) == (["head", "end"], len(body), True)


async def test_connection_in_the_middle_of_an_answer_is_not_used_again() -> None:
    connection, transport, _ = sent()
    transport.feed(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nhalf")
    await settle()
    assert not connection.release()
