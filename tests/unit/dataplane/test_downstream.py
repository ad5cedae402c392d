"""Plays of one client connection: requests read strictly, one after the other, whole or not at all; slow and greedy clients."""

import pytest

from support.downstream_play import ANSWER, Host, Play
from support.transports import connected, settle
from understudy.dataplane.downstream import (
    BODY_STEP_BYTES,
    LINGER_BYTES_MAX,
    PIPELINED_BYTES_MAX,
    WRITE_BUFFER_BYTES_MAX,
    DownstreamConnection,
)

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nT: x\r\n\r\n"
POST_CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


# --- requests, in any pieces


@pytest.mark.parametrize(("wire", "taken"), [(GET, (b"/a", b"")), (POST, (b"/b", b"hello")), (CHUNKED, (b"/c", b"hello"))])
async def test_request_may_be_cut_anywhere(wire: bytes, taken: tuple[bytes, bytes]) -> None:
    for cut in range(1, len(wire)):
        play = Play()
        play.client.feed(wire[:cut])
        assert play.host.taken == []
        play.client.feed(wire[cut:])
        assert (play.host.taken, play.host.refused, play.client.data) == ([taken], [], ANSWER), cut


async def test_requests_may_come_byte_by_byte() -> None:
    play = Play()
    play.client.feed_bytewise(CHUNKED + POST + GET)
    await settle()
    assert play.host.taken == [(b"/c", b"hello"), (b"/b", b"hello"), (b"/a", b"")]
    assert play.client.data == ANSWER * 3


async def test_pipelined_requests_are_answered_in_order() -> None:
    wire = CHUNKED + GET + POST + CHUNKED + GET
    for cut in range(1, len(wire)):
        play = Play()
        play.client.feed(wire[:cut])
        play.client.feed(wire[cut:])
        await settle()
        assert [path for path, _ in play.host.taken] == [b"/c", b"/a", b"/b", b"/c", b"/a"], cut
        assert play.client.data == ANSWER * 5


async def test_pipelined_request_waits_until_the_one_before_is_answered() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(CHUNKED + POST)
    play.client.feed(GET)
    await settle()
    assert play.host.taken == [(b"/c", b"hello")]
    play.answer()
    await settle()
    assert play.host.taken == [(b"/c", b"hello"), (b"/b", b"hello")]
    play.answer()
    await settle()
    assert play.host.taken[-1] == (b"/a", b"")


async def test_same_head_again_is_read_as_well() -> None:
    play = Play()
    for body in (b"first", b"other"):
        play.client.feed(POST.replace(b"hello", body))
    assert play.host.taken == [(b"/b", b"first"), (b"/b", b"other")]


async def test_same_chunked_head_again_has_its_own_body() -> None:
    play = Play()
    play.client.feed(CHUNKED + CHUNKED.replace(b"llo", b"y!!"))
    await settle()
    assert play.host.taken == [(b"/c", b"hello"), (b"/c", b"hey!!")]


async def test_empty_line_before_a_request_is_ignored() -> None:
    play = Play()
    play.client.feed(POST + b"\r\n" + GET)
    await settle()
    assert [path for path, _ in play.host.taken] == [b"/b", b"/a"]


async def test_peer_is_known_by_its_address() -> None:
    connection = DownstreamConnection(Host())
    connected(connection, ("2001:db8::1", 5, 0, 0))
    assert connection.peer == b"2001:db8::1"
    connected(unix := DownstreamConnection(Host()), "")
    assert unix.peer == b""


# --- refusals


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"\x16\x03\x01\x00\x05hello", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        (POST_CHUNKS + b"100\r\n" + b"x" * 256 + b"\r\nfff\r\n" + b"y" * 800, 413),
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 3000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 3000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ],
)
async def test_request_that_cannot_be_accepted_is_refused_once_and_the_connection_closed(wire: bytes, status: int) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        play = Play()
        for piece in pieces:
            play.client.feed(piece)
        play.client.feed(GET)
        assert (play.statuses, play.host.taken) == ([status], [])
        assert play.client.data == b"%d" % status
        assert play.client.has_written_eof


async def test_too_large_a_body_is_refused_before_it_has_come() -> None:
    play = Play()
    play.client.feed(b"POST /b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
    assert play.host.refused == [(413, b"/b")]
    assert play.client.data == b"413"


async def test_body_of_the_limit_is_taken() -> None:
    play = Play()
    play.client.feed(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    assert play.host.taken == [(b"/b", b"x" * 1000)]


async def test_pipelined_junk_is_refused_after_the_answer_before_it() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST + b"junk\r\n\r\n")
    assert play.statuses == []
    play.answer()
    await settle()
    assert play.statuses == [400]
    assert play.client.data == ANSWER + b"400"


async def test_daemon_that_is_full_refuses_without_reading() -> None:
    host = Host()
    host.has_room = False
    client = connected(DownstreamConnection(host))
    client.feed(GET)
    assert (host.refused, host.taken) == ([(503, None)], [])


async def test_refused_client_is_read_a_little_longer_so_that_it_gets_the_answer() -> None:
    play = Play()
    play.client.feed(b"junk\r\n\r\n")
    for _ in range(LINGER_BYTES_MAX // 100_000):
        play.client.feed(b"x" * 100_000)
    assert not play.client.is_closing()
    play.client.feed(b"x" * 100_000)
    assert play.client.is_aborted


async def test_refused_client_that_does_not_close_is_closed() -> None:
    play = Play()
    play.client.feed(b"junk\r\n\r\n")
    assert play.connection.deadline_at_s > play.host.clock_s
    play.connection.on_deadline(play.connection.deadline_at_s)
    assert play.client.is_aborted


async def test_refused_client_that_closes_is_gone() -> None:
    play = Play()
    play.client.feed(b"junk\r\n\r\n")
    play.client.end()
    await settle()
    assert play.host.forgotten == 1


# --- 100-continue


@pytest.mark.parametrize(("wire", "continues"), [(POST, True), (CHUNKED, True), (GET, False)])
async def test_client_that_expects_it_is_told_to_go_on(wire: bytes, continues: bool) -> None:
    head, _, body = wire.partition(b"\r\n\r\n")
    play = Play()
    play.client.feed(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert (play.client.data == CONTINUE) is continues
    play.client.feed(body)
    assert play.client.data == CONTINUE * continues + ANSWER


async def test_old_client_is_not_told_to_go_on() -> None:
    play = Play()
    play.client.feed(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert play.client.data == b""


# --- deadlines


async def test_slow_head_is_refused_however_often_a_byte_comes() -> None:
    play = Play(head_timeout_s=30.0)
    play.client.feed(b"G")
    deadline_at_s = play.connection.deadline_at_s
    assert deadline_at_s == 130.0
    for _ in range(5):
        play.host.clock_s += 5.0
        play.client.feed(b"E")
    assert play.connection.deadline_at_s == deadline_at_s
    play.connection.on_deadline(deadline_at_s)
    assert play.statuses == [408]


async def test_body_that_stands_still_is_refused() -> None:
    play = Play(body_timeout_s=60.0)
    play.client.feed(POST[:-4])
    play.host.clock_s += 50.0
    play.client.feed(b"e")
    assert play.connection.deadline_at_s == 160.0
    play.connection.on_deadline(160.0)
    assert play.host.refused == [(408, b"/b")]


async def test_body_that_moves_on_has_its_time_anew() -> None:
    play = Play(body_timeout_s=60.0)
    play.host.body_bytes_max = 2 * BODY_STEP_BYTES
    play.client.feed(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * BODY_STEP_BYTES))
    play.host.clock_s += 50.0
    play.client.feed(b"x" * BODY_STEP_BYTES)
    assert play.connection.deadline_at_s == 210.0


async def test_connection_that_never_asks_is_closed_without_a_word() -> None:
    play = Play(head_timeout_s=30.0)
    play.connection.on_deadline(play.connection.deadline_at_s)
    await settle()
    assert (play.statuses, play.client.data, play.host.forgotten) == ([], b"", 1)


async def test_connection_that_asks_no_more_is_closed_without_a_word() -> None:
    play = Play(idle_timeout_s=75.0)
    play.client.feed(GET)
    assert play.connection.deadline_at_s == 175.0
    assert play.connection.is_idle()
    play.connection.on_deadline(175.0)
    await settle()
    assert (play.statuses, play.host.forgotten) == ([], 1)


async def test_running_exchange_has_no_deadline_of_the_connection() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    assert play.connection.deadline_at_s == 0.0
    assert not play.connection.is_idle()


async def test_head_of_a_pipelined_request_has_its_own_time() -> None:
    play = Play(head_timeout_s=30.0)
    play.host.is_slow = True
    play.client.feed(POST + b"GET /")
    play.host.clock_s += 1000.0
    play.answer()
    await settle()
    assert play.connection.deadline_at_s == 1130.0


# --- bounds


async def test_pipelining_client_is_not_read_for_ever_while_an_exchange_runs() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.feed(b"x" * (PIPELINED_BYTES_MAX + 1))
    assert play.client.is_paused
    play.answer()
    assert not play.client.is_paused


async def test_slow_reader_holds_its_backend_up() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.is_stuck = True
    play.connection.write(b"x" * WRITE_BUFFER_BYTES_MAX)
    assert play.host.exchange.told == []
    play.connection.write(b"x")
    assert play.host.exchange.told == ["full"]
    assert not play.connection.has_progress() or not play.connection.has_progress()
    play.client.drain()
    assert play.host.exchange.told == ["full", "ready"]
    assert play.connection.has_progress()


# --- ends


async def test_client_that_leaves_ends_its_exchange() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.lose(ConnectionResetError())
    assert play.host.exchange.told == ["gone"]
    assert play.host.forgotten == 1
    assert play.connection.running is None


async def test_half_closed_client_still_gets_its_answer() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.end()
    assert not play.client.is_closing()
    assert play.client.take() == CONTINUE
    play.answer()
    assert play.client.data == ANSWER
    assert play.client.is_closing()


async def test_client_that_half_closes_in_the_middle_of_its_answer_is_felt_for() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
    play.client.end()
    assert play.host.exchange.told == ["half closed"]
    assert play.client.data == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("wire", [b"", b"GET / HT", POST[:-2]])
async def test_client_that_closes_without_having_asked_is_gone(wire: bytes) -> None:
    play = Play()
    play.client.feed(wire)
    play.client.end()
    await settle()
    assert (play.host.forgotten, play.host.taken) == (1, [])


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"Connection: x, CLOSE\r\n"])
async def test_connection_is_closed_after_an_answer_where_the_client_wants_it(fields: bytes) -> None:
    play = Play()
    play.client.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + GET)
    await settle()
    assert len(play.host.taken) == 1
    assert play.client.data == ANSWER
    assert play.host.forgotten == 1


async def test_stopping_daemon_closes_after_the_answer() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.host.is_stopping = True
    play.answer()
    assert play.client.is_closing()


async def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.lose()
    play.answer()
    play.connection.write_interim(CONTINUE)
    play.connection.abort()
    play.connection.close()
    assert play.client.data == b""


async def test_aborted_connection_ends_at_once_and_no_exchange_is_told() -> None:
    play = Play()
    play.host.is_slow = True
    play.client.feed(POST)
    play.connection.abort()
    await settle()
    assert play.client.is_aborted
    assert play.host.exchange.told == []


async def test_closed_connection_that_takes_nothing_is_aborted_in_the_end() -> None:
    play = Play(write_idle_s=60.0)
    play.host.is_slow = True
    play.client.feed(POST)
    play.client.is_stuck = True
    play.connection.write(b"x" * 100)
    play.connection.close()
    assert play.connection.deadline_at_s == 160.0
    play.connection.on_deadline(160.0)
    play.connection.on_deadline(400.0)
    assert play.client.is_aborted
