"""How long a backend is expected to take: plays of what was measured and what is estimated from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.pace import KEPT_PER_SIZE, SIZES_MAX, Pace, is_loaded
from understudy.core.snapshot import BackendState, Model

KIB = 1024


def measured(*samples: tuple[int, float], times: int = 10) -> Pace:
    """A pace that saw each of (prompt bytes, seconds) that often."""
    pace = Pace()
    for prompt_bytes, first_content_s in samples:
        for _ in range(times):
            pace.add(prompt_bytes, first_content_s)
    return pace


def test_too_few_measurements_tell_nothing() -> None:
    assert Pace().expected_s(KIB) is None
    assert measured((KIB, 1.0), times=7).expected_s(KIB) is None
    assert measured((KIB, 1.0), times=8).expected_s(KIB) == 1.0


def test_the_slow_ones_of_the_size_count() -> None:
    """Most prompts of a conversation are in the engine's cache; one that was sent to another backend before is not."""
    pace = measured((KIB, 0.2), times=16)
    for _ in range(4):
        pace.add(KIB, 6.0)
    assert pace.expected_s(KIB) == 6.0


def test_one_of_thirty_is_an_outlier() -> None:
    pace = measured((KIB, 0.2), times=29)
    pace.add(KIB, 90.0)
    assert pace.expected_s(KIB) == 0.2


def test_a_longer_prompt_is_expected_to_take_longer_in_proportion() -> None:
    assert measured((KIB, 1.0)).expected_s(64 * KIB) == 64.0


def test_a_shorter_prompt_is_never_expected_to_take_a_part_of_the_time() -> None:
    """Most of a short prompt's time may be the queue."""
    assert measured((64 * KIB, 30.0)).expected_s(100) == 30.0


def test_prompts_of_like_size_tell_more_than_others() -> None:
    pace = measured((KIB, 1.0), (16 * KIB, 4.0), (256 * KIB, 60.0))
    assert pace.expected_s(16 * KIB) == 4.0
    assert pace.expected_s(64 * KIB) == 60.0
    assert pace.expected_s(512 * KIB) == 120.0


def test_a_prompt_that_has_its_model_loaded_first_is_given_the_slowest_load_in_addition() -> None:
    pace = measured((KIB, 1.0))
    pace.add(KIB, 20.0, is_loaded=False)
    assert pace.expected_s(KIB, is_loaded=False) is None
    pace.add(KIB, 40.0, is_loaded=False)
    assert pace.expected_s(KIB, is_loaded=False) == 41.0
    assert pace.expected_s(KIB) == 1.0


def test_only_the_newest_count() -> None:
    pace = measured((KIB, 50.0), times=KEPT_PER_SIZE)
    for _ in range(KEPT_PER_SIZE):
        pace.add(KIB, 1.0)
    assert pace.expected_s(KIB) == 1.0


def test_hedging_waits_for_the_95_of_100_of_this_size_and_below() -> None:
    pace = measured((200, 0.1), times=18)
    assert pace.p95_s(2000) is None
    for _ in range(2):
        pace.add(2000, 0.9)
    assert pace.p95_s(2000) == 0.9
    assert pace.p95_s(200) is None
    for _ in range(40):
        pace.add(64 * KIB, 30.0)
    assert pace.p95_s(2000) == 0.9


def test_hedging_goes_by_prompts_of_like_size_where_there_are_enough() -> None:
    assert measured((200, 0.1), (2000, 0.9), times=30).p95_s(2000) == 0.9


@given(st.lists(st.tuples(st.integers(0, 2**40), st.floats(0.0, 1e4)), min_size=8), st.integers(0, 2**40))
def test_any_sizes_and_times_give_a_finite_time_and_bounded_memory(samples: list[tuple[int, float]], prompt_bytes: int) -> None:
    pace = Pace()
    for each in samples:
        pace.add(*each)
    expected_s = pace.expected_s(prompt_bytes)
    assert expected_s is None or 0.0 <= expected_s < float("inf")
    kept = pace._by_size
    assert set(kept) <= set(range(SIZES_MAX))
    assert all(len(each) <= KEPT_PER_SIZE for each in kept.values())


LISTED = BackendState(
    models=(Model("warm"), Model("warm-too:latest"), Model("cold", is_loaded=False), Model("old:latest", is_loaded=False))
)


@pytest.mark.parametrize(
    ("state", "model", "loaded"),
    [
        (LISTED, "warm", True),
        (LISTED, "warm-too", True),
        (LISTED, "cold", False),
        (LISTED, "old:latest", False),
        (LISTED, "old", False),
        (LISTED, "unlisted", True),
        (BackendState(models=()), "m", True),
        (BackendState(), "m", True),
    ],
)
def test_lists_tell_whether_a_model_has_to_be_loaded_first(state: BackendState, model: str, loaded: bool) -> None:
    assert is_loaded(state, model) is loaded
