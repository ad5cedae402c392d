"""A continuation goes on in the content block that was open, or in a new one behind it."""

from typing import Any

from support.spliced import events, read, received, spliced
from understudy.core.transcript import Shape, Transcript, Wish
from understudy.dialects.pieces import Piece
from understudy.dialects.writer import Counts
from understudy.dialects.writer_anthropic import AnthropicWriter

MESSAGES = Shape.ANTHROPIC
NONE = Counts()
CALL = {"type": "tool_use", "id": "a", "name": "now", "input": {}}


def writer(name: str = "llamacpp/messages.sse", *, until: int = 3) -> AnthropicWriter:
    """Return the writer of a stream that broke behind its event `until`."""
    return AnthropicWriter(received(MESSAGES, b"".join(events(name)[:until])))


def written(by: AnthropicWriter, *pieces: Piece, counts: Counts = NONE) -> list[tuple[str, Any]]:
    """Return (type, index) of each event that `pieces` become."""
    data = b"".join(by.write(piece, counts)[0] for piece in pieces)
    return [(event["type"], event.get("index")) for event in read(data)]


def test_text_goes_on_in_the_open_block_although_the_backend_began_its_own() -> None:
    begin, text = Piece(block={"type": "text", "text": ""}), Piece("a")
    assert written(writer(), begin, text, Piece(is_block_end=True)) == [("content_block_delta", 0), ("content_block_stop", 0)]


def test_thinking_goes_on_in_the_open_block_and_text_gets_the_next() -> None:
    pieces = (
        Piece(block={"type": "thinking", "thinking": ""}),
        Piece(reasoning="a"),
        Piece(block_delta={"type": "signature_delta", "signature": ""}),
        Piece(is_block_end=True),
        Piece(block={"type": "text", "text": ""}),
        Piece("b"),
    )
    assert written(writer("llamacpp/messages_thinking.sse"), *pieces) == [
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
    ]


def test_a_block_of_theirs_that_says_nothing_is_not_begun_and_ends_none_of_ours() -> None:
    pieces = (
        Piece(block={"type": "thinking", "thinking": ""}),
        Piece(block_delta={"type": "signature_delta", "signature": ""}),
        Piece(is_block_end=True),
        Piece(block={"type": "text", "text": ""}),
        Piece("b"),
    )
    assert written(writer(), *pieces) == [("content_block_delta", 0)]


def test_a_tool_call_gets_a_block_of_its_own() -> None:
    pieces = (
        Piece("a"),
        Piece(is_block_end=True),
        Piece(block=CALL, tool_calls=[CALL]),
        Piece(block_delta={"type": "input_json_delta", "partial_json": "{}"}),
        Piece(is_block_end=True),
    )
    by = writer()
    by.write(Piece(block={"type": "text"}), NONE)
    assert written(by, *pieces) == [
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
    ]


def test_a_closed_block_is_not_opened_again() -> None:
    assert written(writer(until=6), Piece("a")) == [("content_block_start", 1), ("content_block_delta", 1)]


def test_the_finish_closes_what_is_open_and_counts_all_parts() -> None:
    piece = Piece(finish="end_turn", usage={"output_tokens": 3, "input_tokens": 1}, why={"stop_sequence": None})
    data, kept = writer().write(piece, Counts(27, 5))
    assert data == kept
    assert read(data) == [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 27, "output_tokens": 5},
        },
    ]
    assert writer().end(NONE) == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_tokens_that_nobody_counted_are_the_pieces_that_came() -> None:
    (_, finish) = read(writer().write(Piece(finish="length"), NONE)[0])
    assert finish["delta"]["stop_reason"] == "max_tokens"
    assert finish["usage"] == {"output_tokens": 1}
    assert read(AnthropicWriter(Transcript()).write(Piece(finish="length"), NONE)[0])[0]["usage"] == {"output_tokens": 0}


def test_a_stop_string_across_the_seam_is_named() -> None:
    all_events = events("llamacpp/messages.sse")
    wish = Wish(MESSAGES, stops=("di bava",))
    result, _ = spliced(wish, b"".join(all_events[:3]), b"".join(all_events[3:]))
    assert result.is_complete
    finish = read(result.data)[-2]
    assert finish["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "di bava"}
    assert b'bava"' not in result.data.replace(b'"di bava"', b"")
