"""A stop string that begins in the delivered text and ends in the new one is found; no other is looked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.stops import SeamStops


@pytest.mark.parametrize(
    ("stops", "old", "undelivered"),
    [((), "abc", ""), (("abc",), "", ""), (("abc", "cd"), "xyz", ""), ((), "abc", "d")],
)
def test_nothing_is_held_where_nothing_can_begin(stops: tuple[str, ...], old: str, undelivered: str) -> None:
    assert not SeamStops(stops, old, undelivered).is_open


def test_text_is_held_while_it_may_complete_a_stop_string() -> None:
    stops = SeamStops(("<end>",), "some <e", "")
    assert stops.is_open
    stops.add("n")
    assert stops.is_open
    stops.add("d>x")
    assert (stops.found, stops.rest, stops.is_open) == ("<end>", "", False)


def test_text_that_cannot_complete_one_is_let_go() -> None:
    stops = SeamStops(("<end>",), "some <e", "")
    stops.add("ne")
    assert (stops.found, stops.is_open) == ("", False)


def test_a_stop_string_of_one_character_cannot_straddle() -> None:
    assert not SeamStops(("x",), "abc", "").is_open


def test_what_was_delivered_whole_was_not_to_stop_anything() -> None:
    """VLLM's min_tokens lets stop strings pass."""
    stops = SeamStops(("ab", "longer"), "xabx", "")
    stops.add("abc")
    assert stops.found == ""


def test_one_that_begins_in_the_new_text_is_the_engines() -> None:
    stops = SeamStops(("ab",), "x", "")
    stops.add("ab")
    assert (stops.found, stops.is_open) == ("", False)


def test_of_two_the_one_that_is_complete_first_counts() -> None:
    stops = SeamStops(("a12345", "a12"), "xa", "")
    stops.add("12345")
    assert stops.found == "a12"


def test_undelivered_text_before_a_stop_string_is_still_the_clients() -> None:
    stops = SeamStops(("b\nUser",), "one", " two b")
    stops.add(" two b\nUser:")
    assert (stops.found, stops.rest) == ("b\nUser", " two ")


@given(
    st.text("ab", min_size=1, max_size=6),
    st.text("ab", max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=5),
)
def test_it_is_found_exactly_when_it_straddles_the_seam(stop: str, old: str, pieces: list[str]) -> None:
    new = "".join(pieces)
    straddles = any((old + new).startswith(stop, start) for start in range(max(0, len(old) - len(stop) + 1), len(old)))
    stops = SeamStops((stop,), old, "")
    for piece in pieces:
        if stops.is_open:
            stops.add(piece)
    assert bool(stops.found) is straddles
