"""Plays of token ids that are to be continued; the vocabulary is bytes, so that a character has several tokens."""

from collections.abc import Generator
from typing import Any

import pytest

from support.cutting import CHAT, chat, cut, received
from understudy.engines.broken import Cut, Question
from understudy.engines.token_ids import ids_to_continue

PROMPT = list(b"<user>Hello.</><assistant>")


def read(_cut: Cut, ids: list[int]) -> Generator[Question, Any, str | None]:
    """Read them at once, as an engine does that decodes what it cannot as U+FFFD."""
    yield from ()
    return bytes(ids).decode(errors="replace") if max(ids) < 256 else None


def found(text: str, ids: list[int]) -> tuple[list[int], str] | None:
    asking = ids_to_continue(cut(CHAT, chat(), received(text, ids=(PROMPT, ids))), read)
    with pytest.raises(StopIteration) as end:
        next(asking)
    outcome: tuple[list[int], str] | None = end.value.value
    return outcome


def test_ids_of_the_clients_text_go_on_as_they_are() -> None:
    assert found("caf\u00e9", list("caf\u00e9".encode())) == (list("caf\u00e9".encode()), "")


def test_ids_ahead_of_the_text_tell_what_the_client_has_not_received() -> None:
    assert found("ca", list("caf\u00e9".encode())) == (list("caf\u00e9".encode()), "f\u00e9")


@pytest.mark.parametrize("more", [1, 2, 3])
def test_a_character_that_is_not_complete_is_left_to_be_written_again(more: int) -> None:
    begun = list("\U0001f600".encode())[:more]
    assert found("ca", list(b"caf") + begun) == (list(b"caf"), "f")


def test_a_replacement_character_that_the_client_has_is_text_like_any_other() -> None:
    assert found("a\ufffd", [97, 0xFF]) == ([97, 0xFF], "")


@pytest.mark.parametrize(("text", "ids"), [("other", list(b"text")), ("longer", list(b"long")), ("x", [300]), ("", [0xFF] * 9)])
def test_ids_that_stand_for_something_else_do_not_go_on(text: str, ids: list[int]) -> None:
    assert found(text, ids) is None
