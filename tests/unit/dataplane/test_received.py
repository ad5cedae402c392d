"""The pieces of one answer: kept as they come, read when they are needed, bounded."""

import pytest

from support.answers import line, sse
from support.stage import DONE, FINISH, OPENING, delta
from understudy.core.transcript import Shape
from understudy.dataplane import received
from understudy.dataplane.received import TAIL_PIECE_BYTES_MAX, TAIL_PIECES, Received

CHAT = Shape.OPENAI_CHAT


def filled(*pieces: bytes, shape: Shape | None = CHAT, is_collected: bool = False) -> Received:
    """Keep the pieces."""
    kept = Received(shape, is_collected=is_collected)
    for piece in pieces:
        kept.keep(piece)
    return kept


def text_of(kept: Received) -> str:
    """Return the text of what was kept, which must be readable."""
    transcript = kept.transcript()
    assert transcript is not None
    assert not transcript.is_unreadable
    return transcript.text


def test_pieces_are_read_when_they_are_asked_for() -> None:
    kept = filled(OPENING, delta("Hel"), delta("lo") + FINISH)
    transcript = kept.transcript()
    assert transcript is not None
    assert (transcript.text, transcript.finish, transcript.pieces) == ("Hello", "stop", 2)


def test_pieces_are_read_once_however_often_they_are_asked_for() -> None:
    kept = filled(OPENING, delta("Hel"))
    for _ in range(3):
        assert text_of(kept) == "Hel"
    kept.keep(delta("lo"))
    assert text_of(kept) == "Hello"
    assert kept.shrink() is False
    assert text_of(kept) == "Hello"


def test_reading_leaves_the_tail_only() -> None:
    kept = filled(OPENING, *(delta(f"{n} ") for n in range(50)))
    assert kept.shrink() is False
    assert kept.all() == b""
    assert kept.tail() == b"".join(delta(f"{n} ") for n in range(50 - TAIL_PIECES, 50))
    kept.keep(FINISH + DONE)
    assert kept.tail().endswith(delta("49 ") + FINISH + DONE)
    assert text_of(kept) == "".join(f"{n} " for n in range(50))


def test_of_the_tail_only_the_last_pieces_are_whole() -> None:
    kept = filled(*([b"x" * 100_000] * 5), b"end", shape=None)
    assert kept.tail() == b"x" * (3 * TAIL_PIECE_BYTES_MAX + 200_000) + b"end"
    kept.shrink()
    assert kept.tail() == b"x" * (3 * TAIL_PIECE_BYTES_MAX + 200_000) + b"end"


def test_last_event_is_whole_however_long_and_in_however_many_parts() -> None:
    event = line({"model": "m", "response": "", "done": True, "context": [1000] * 60_000})
    assert filled(event, shape=Shape.OLLAMA_TEXT).tail() == event
    parts = [event[i : i + 70_000] for i in range(0, len(event), 70_000)]
    kept = filled(*parts, shape=Shape.OLLAMA_TEXT)
    kept.is_cut = True
    kept.shrink()
    assert kept.tail() == event


def test_answer_without_a_text_has_no_transcript() -> None:
    kept = filled(delta("Hel"), shape=None)
    assert kept.transcript() is None
    assert kept.shrink() is False
    assert kept.tail() == delta("Hel")


def test_answer_of_which_half_an_event_is_out_has_no_transcript() -> None:
    kept = filled(delta("Hel"))
    kept.is_cut = True
    assert kept.transcript() is None
    assert kept.shrink() is False


def test_answer_that_outgrows_its_bound_is_told_once_and_has_no_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "TEXT_CHARACTERS_MAX", 10)
    kept = filled(delta("x" * 10))
    assert kept.shrink() is False
    kept.keep(delta("y"))
    assert kept.shrink() is True
    assert kept.is_too_long
    kept.keep(FINISH + DONE)
    assert kept.shrink() is False
    assert kept.transcript() is None
    assert kept.tail().endswith(FINISH + DONE)


def test_reasoning_counts_as_text_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "TEXT_CHARACTERS_MAX", 10)
    kept = filled(sse({"choices": [{"index": 0, "delta": {"reasoning_content": "x" * 8}}]}), delta("y" * 3))
    assert kept.shrink() is True


def test_collected_answer_keeps_everything() -> None:
    kept = filled(OPENING, delta("Hel"), is_collected=True)
    assert text_of(kept) == "Hel"
    assert kept.shrink() is False
    kept.keep(delta("lo"))
    assert text_of(kept) == "Hello"
    assert kept.all() == OPENING + delta("Hel") + delta("lo")


def test_collected_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "COLLECTED_BYTES_MAX", 200)
    kept = filled(delta("x" * 100), is_collected=True)
    assert kept.shrink() is False
    kept.keep(delta("x" * 100))
    assert kept.shrink() is True
    assert kept.transcript() is None
