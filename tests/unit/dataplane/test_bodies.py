"""Bodies of requests, whichever way they are framed and wherever the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dataplane.bodies import ChunkedBody, SizedBody

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
# Chunks of several sizes, an extension, upper and lower case, CRLF inside of a chunk, and trailers.
INNER = b"\r\n0\r\n\r\n\r\n\r\n"
WIRE = b"4\r\nWiki\r\n1;a=b\r\n!\r\nB\r\n" + INNER + b"\r\n0\r\nX-Trailer: 1\r\nY: 2\r\n\r\n"
BODY = b"Wiki!" + INNER
MALFORMED = [
    b"x\r\n",
    b"-1\r\na\r\n",
    b"+1\r\na\r\n0\r\n\r\n",
    b"0x1\r\na\r\n0\r\n\r\n",
    b" 1\r\na\r\n0\r\n\r\n",
    b"1 \r\na\r\n0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"1\na\n0\n\n",
    b"1\na\r\n0\r\n\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1\r\nab\r\n0\r\n\r\n",
    b"2\r\na\r\n0\r\n\r\n",
    b"1\ra\r\n0\r\n\r\n",
    b"1\r\na\rb0\r\n\r\n",
    b"11111111111111111\r\na\r\n0\r\n\r\n",
    b"ffffffffffffffff0\r\n",
    b"1;a=\x00\r\na\r\n0\r\n\r\n",
    b"1;a\n=b\r\na\r\n0\r\n\r\n",
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\nX : 1\r\n\r\n",
    b"0\r\n X: 1\r\n\r\n",
    b"0\r\nX: 1\n\r\n",
    b"0\n\r\n",
    b"0\r\n\n",
    b"0;\n\r\n",
]


def fed(pieces: list[bytes], bytes_max: int = 1000) -> tuple[ChunkedBody, bool]:
    """Feed the pieces until the body is complete or malformed; what comes after the end belongs to the rest."""
    body = ChunkedBody(bytes_max)
    for number, piece in enumerate(pieces):
        if not body.feed(piece):
            return body, False
        if body.is_complete:
            body.rest += b"".join(pieces[number + 1 :])
            break
    return body, True


# --- sized


def test_body_of_nothing_is_complete_at_once() -> None:
    body = SizedBody(0)
    assert body.is_complete
    assert body.feed(NEXT)
    assert (body.take(), body.rest) == (b"", NEXT)


@pytest.mark.parametrize("cut", range(11))
def test_sized_body_may_be_cut_anywhere(cut: int) -> None:
    body = SizedBody(10)
    assert body.feed(b"0123456789"[:cut])
    assert body.is_complete == (cut == 10)
    if not body.is_complete:
        assert body.feed(b"0123456789"[cut:])
    assert (body.take(), body.rest, body.is_complete) == (b"0123456789", b"", True)


def test_what_follows_a_sized_body_is_the_next_request() -> None:
    body = SizedBody(4)
    body.feed(b"ab")
    body.feed(b"cd" + NEXT)
    assert (body.take(), body.rest) == (b"abcd", NEXT)


# --- chunked


@pytest.mark.parametrize("cut", range(len(WIRE) + 1))
def test_chunked_body_may_be_cut_anywhere(cut: int) -> None:
    body, is_sound = fed([WIRE[:cut], WIRE[cut:] + NEXT])
    assert is_sound
    assert body.is_complete
    assert (body.take(), body.rest) == (BODY, NEXT)


def test_chunked_body_may_come_byte_by_byte() -> None:
    body, is_sound = fed([bytes([byte]) for byte in WIRE + NEXT])
    assert is_sound
    assert (body.take(), body.rest) == (BODY, NEXT)


@pytest.mark.parametrize("cut", range(len(WIRE)))
def test_chunked_body_is_not_complete_before_its_last_byte(cut: int) -> None:
    body, is_sound = fed([WIRE[:cut]])
    assert is_sound
    assert not body.is_complete


def test_chunked_body_of_nothing_is_complete() -> None:
    body, _ = fed([b"0\r\n\r\n"])
    assert (body.is_complete, body.take(), body.rest) == (True, b"", b"")


def test_large_chunk_in_many_pieces_comes_whole() -> None:
    content = bytes(range(256)) * 100
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    body, is_sound = fed([wire[at : at + 1000] for at in range(0, len(wire), 1000)], bytes_max=len(content))
    assert is_sound
    assert body.take() == content


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=30).map(lambda data: data.replace(b"a", b"\r\n")), max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=5),
)
def test_any_chunks_cut_anywhere_give_the_same_body(chunks: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + NEXT
    places = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    body, is_sound = fed([wire[start:end] for start, end in pairwise(places)])
    assert is_sound
    assert (body.take(), body.rest) == (b"".join(chunks), NEXT)


@pytest.mark.parametrize("wire", MALFORMED)
def test_malformed_framing_is_refused_in_one_piece_and_byte_by_byte(wire: bytes) -> None:
    assert not fed([wire + NEXT])[1]
    assert not fed([bytes([byte]) for byte in wire + NEXT])[1]


# --- bounds


@pytest.mark.parametrize(("size_bytes", "is_too_large"), [(100, False), (101, True)])
def test_chunked_body_over_the_limit_is_told(size_bytes: int, is_too_large: bool) -> None:
    body, is_sound = fed([b"1\r\na\r\n" * size_bytes + b"0\r\n\r\n"], bytes_max=100)
    assert is_sound
    assert body.is_too_large is is_too_large


def test_body_that_grows_over_the_limit_is_told_before_it_is_complete() -> None:
    body, is_sound = fed([b"fffff\r\n", b"x" * 200], bytes_max=100)
    assert is_sound
    assert body.is_too_large
    assert body.take() == b""


def test_bytes_hidden_in_extensions_are_refused() -> None:
    body = ChunkedBody(1_000_000)
    wire = b"1;" + b"x" * 10_000 + b"\r\na\r\n"
    assert not all(body.feed(wire) for _ in range(200))


def test_endless_trailer_is_refused() -> None:
    body = ChunkedBody(1_000_000)
    assert body.feed(b"0\r\n")
    assert not all(body.feed(b"X: " + b"y" * 10_000 + b"\r\n") for _ in range(200))


def test_smallest_chunks_are_no_waste() -> None:
    body = ChunkedBody(1_000_000)
    assert all(body.feed(b"1\r\na\r\n") for _ in range(100_000))
