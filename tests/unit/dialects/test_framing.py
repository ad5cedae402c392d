"""Events are told apart as WHATWG HTML 9.2 says, wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.contract import StreamKind
from understudy.dialects.framing import Event, Splitter, split, whole_until

SSE, NDJSON = StreamKind.SSE, StreamKind.NDJSON


@pytest.mark.parametrize(
    ("data", "until"),
    [
        (b"", 0),
        (b"data: a", 0),
        (b"data: a\n", 0),
        (b"data: a\n\n", 9),
        (b"data: a\n\ndata: b\n", 9),
        (b"data: a\r\n\r\ndata: b", 11),
        (b"data: a\r\rdata: b", 9),
        (b"data: a\r\n", 0),
        (b"data: a\r\ndata: b\r\n", 0),
        (b"data: a\n\r\ndata: b", 10),
        (b"data: a\n\ndata: b\r\n\r\ndata", 20),
    ],
)
def test_a_blank_line_ends_an_event_whatever_the_line_ends(data: bytes, until: int) -> None:
    assert whole_until(data) == until


def test_a_line_end_ends_an_ndjson_event() -> None:
    assert whole_until(b'{"a":1}\n{"b"', NDJSON) == 8
    assert whole_until(b'{"b"', NDJSON) == 0
    assert split(b'{"a":1}\r\n\n{"b":2}', NDJSON) == [Event(b"", b'{"a":1}'), Event(b"", b'{"b":2}')]


def test_fields_are_read_as_the_standard_says() -> None:
    data = b"\xef\xbb\xbfevent: ping\ndata:a\ndata:  b\nid: 7\nretry: 9\nodd\n\n: alive\n\nevent: x\n\n"
    assert split(data, SSE) == [Event(b"ping", b"a\n b"), Event(b"", None), Event(b"x", None)]


def test_events_with_crlf_read_as_those_with_lf() -> None:
    assert split(b"event: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", SSE) == [Event(b"a", b"b"), Event(b"", b"c")]


@given(
    texts=st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")), max_size=6),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_no_cut_loses_or_repeats_an_event(texts: list[bytes], line_end: bytes, cuts: list[int]) -> None:
    data = b"".join(b"data: " + text + line_end * 2 for text in texts)
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    splitter = Splitter(SSE)
    events = [event for start, end in pairwise(borders) for event in splitter.feed(data[start:end])]
    assert events == [Event(b"", text) for text in texts]


def test_an_unfinished_event_is_kept_up_to_the_bound_and_no_further() -> None:
    splitter = Splitter(NDJSON, 10)
    assert splitter.feed(b"0123456789") == []
    assert not splitter.is_overlong
    assert splitter.feed(b"0") == []
    assert splitter.is_overlong
    assert splitter.feed(b"\n{}\n") == []


def test_a_long_event_in_many_pieces_costs_no_more_than_its_length() -> None:
    """Sixteen thousand pieces: searched or joined again for each piece, this would take minutes."""
    splitter = Splitter(SSE)
    assert splitter.feed(b"data: ") == []
    for _ in range(16_000):
        assert splitter.feed(b"x" * 512) == []
    (event,) = splitter.feed(b"\n\n")
    assert event.data == b"x" * 512 * 16_000


def test_what_is_held_of_an_unfinished_event_can_be_had() -> None:
    splitter = Splitter(SSE)
    splitter.feed(b"data: a\n\ndata")
    splitter.feed(b": b\n")
    assert splitter.rest() == b"data: b\n"
