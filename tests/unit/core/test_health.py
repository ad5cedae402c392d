"""Plays of observations: what a backend's condition becomes, and every row of the transition table."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.health import FAST_PROBES_MAX, NEXT, Health, Seen, Turn, is_in_doubt, observe, ripen, turned
from understudy.core.snapshot import Condition, HealthRules

RULES = HealthRules(rise=2, fall=3)
SLOW = HealthRules(rise=2, fall=3, slow_start_s=30.0)

UP = Health(Condition.UP)
DOWN = Health(Condition.DOWN, reason="refused the connection")


def after(health: Health, *seen: Seen, rules: HealthRules = RULES) -> Health:
    """Observe one after the other, a second apart."""
    for at_s, one in enumerate(seen, start=1):
        health = observe(health, one, f"saw {one}", rules, float(at_s))
    return health


def test_table_is_this_one_and_no_other() -> None:
    drawn = {
        (Condition.UNKNOWN, Turn.RISE): Condition.UP,
        (Condition.UNKNOWN, Turn.FALL): Condition.DOWN,
        (Condition.UNKNOWN, Turn.FORGET): Condition.UNKNOWN,
        (Condition.DOWN, Turn.RISE): Condition.WARMING,
        (Condition.DOWN, Turn.FORGET): Condition.UNKNOWN,
        (Condition.WARMING, Turn.WARM): Condition.UP,
        (Condition.WARMING, Turn.FALL): Condition.DOWN,
        (Condition.WARMING, Turn.FORGET): Condition.UNKNOWN,
        (Condition.WARMING, Turn.RENEW): Condition.WARMING,
        (Condition.UP, Turn.RENEW): Condition.WARMING,
        (Condition.UP, Turn.FALL): Condition.DOWN,
        (Condition.UP, Turn.FORGET): Condition.UNKNOWN,
    }
    assert drawn == NEXT


@pytest.mark.parametrize(("condition", "turn"), [pair for pair in product(Condition, Turn) if pair not in NEXT])
def test_turn_that_is_not_in_the_table_raises(condition: Condition, turn: Turn) -> None:
    with pytest.raises(ValueError, match=f"{condition} cannot {turn}"):
        turned(Health(condition), turn, "", 1.0)


@pytest.mark.parametrize(("condition", "turn"), list(NEXT))
def test_turn_of_the_table_begins_the_next_condition_with_fresh_counts(condition: Condition, turn: Turn) -> None:
    health = turned(Health(condition, since_at_s=1.0, good=1, bad=0, reason="old"), turn, "new", 9.0)
    assert health == Health(NEXT[condition, turn], since_at_s=9.0, reason="new")


@pytest.mark.parametrize("condition", list(Condition))
def test_no_condition_is_terminal(condition: Condition) -> None:
    """From everywhere a backend that answers becomes up."""
    assert after(Health(condition), Seen.GOOD, Seen.GOOD).condition is Condition.UP


def test_first_good_observation_makes_an_unknown_backend_up_at_once_without_slow_start() -> None:
    assert after(Health(), Seen.GOOD, rules=SLOW).condition is Condition.UP


@pytest.mark.parametrize("seen", [Seen.BAD, Seen.LOADING])
def test_first_bad_observation_makes_an_unknown_backend_down_at_once(seen: Seen) -> None:
    health = after(Health(), seen)
    assert (health.condition, health.reason) == (Condition.DOWN, f"saw {seen}")


def test_up_backend_stays_up_until_fall_bad_observations_in_a_row() -> None:
    assert after(UP, Seen.BAD, Seen.BAD).condition is Condition.UP
    assert after(UP, Seen.BAD, Seen.BAD, Seen.BAD) == Health(Condition.DOWN, since_at_s=3.0, reason="saw bad")


def test_one_good_observation_between_bad_ones_keeps_a_backend_up() -> None:
    assert after(UP, Seen.BAD, Seen.BAD, Seen.GOOD, Seen.BAD, Seen.BAD).condition is Condition.UP


def test_down_backend_stays_down_until_rise_good_observations_in_a_row() -> None:
    assert after(DOWN, Seen.GOOD).condition is Condition.DOWN
    assert after(DOWN, Seen.GOOD, Seen.BAD, Seen.GOOD).condition is Condition.DOWN
    assert after(DOWN, Seen.GOOD, Seen.GOOD).condition is Condition.UP


def test_engine_that_says_it_is_loading_is_out_at_once() -> None:
    assert after(UP, Seen.LOADING) == Health(Condition.DOWN, since_at_s=1.0, reason="saw loading")
    assert after(Health(Condition.WARMING), Seen.LOADING, rules=SLOW).condition is Condition.DOWN


def test_loading_interrupts_a_rise() -> None:
    assert after(DOWN, Seen.GOOD, Seen.LOADING, Seen.GOOD).condition is Condition.DOWN


def test_down_backend_warms_for_slow_start_before_it_is_up() -> None:
    warming = after(DOWN, Seen.GOOD, Seen.GOOD, rules=SLOW)
    assert (warming.condition, warming.since_at_s) == (Condition.WARMING, 2.0)
    assert ripen(warming, SLOW, 31.9).condition is Condition.WARMING
    assert ripen(warming, SLOW, 32.0) == Health(Condition.UP, since_at_s=32.0, reason=warming.reason)


def test_good_probe_after_slow_start_makes_a_warming_backend_up() -> None:
    warming = Health(Condition.WARMING, since_at_s=0.0)
    assert observe(warming, Seen.GOOD, "", SLOW, 30.0).condition is Condition.UP


@pytest.mark.parametrize("condition", [Condition.UNKNOWN, Condition.DOWN, Condition.UP])
def test_time_alone_changes_only_a_warming_backend(condition: Condition) -> None:
    health = Health(condition)
    assert ripen(health, RULES, 1e9) is health


def test_reason_of_a_down_backend_is_the_newest() -> None:
    assert observe(DOWN, Seen.BAD, "timed out", RULES, 5.0).reason == "timed out"


def test_bad_observation_that_changes_nothing_leaves_the_reason_of_an_up_backend() -> None:
    up = Health(Condition.UP, reason="")
    assert observe(up, Seen.BAD, "timed out", RULES, 5.0).reason == ""


def test_doubt_is_unknown_or_wavering_or_newly_down() -> None:
    assert is_in_doubt(Health())
    assert not is_in_doubt(UP)
    assert is_in_doubt(after(UP, Seen.BAD))
    assert is_in_doubt(DOWN)
    assert is_in_doubt(after(DOWN, Seen.GOOD))


def test_backend_that_is_down_for_long_is_in_doubt_again_only_when_it_answers() -> None:
    long_gone = after(DOWN, *[Seen.BAD] * (FAST_PROBES_MAX + 10))
    assert long_gone.bad == FAST_PROBES_MAX
    assert not is_in_doubt(long_gone)
    assert is_in_doubt(after(long_gone, Seen.GOOD))


@given(
    st.lists(st.sampled_from(Seen)),
    st.sampled_from(Condition),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.0, 3.0]),
)
def test_any_sequence_of_observations_keeps_the_counts_bounded_and_ends_in_a_condition_it_earned(
    seen: list[Seen], start: Condition, rise: int, fall: int, slow_start_s: float
) -> None:
    rules = replace(RULES, rise=rise, fall=fall, slow_start_s=slow_start_s)
    health = after(Health(start), *seen, rules=rules)
    assert not (health.good and health.bad)
    assert health.good < rise
    assert health.bad < fall or (health.condition is Condition.DOWN and health.bad <= FAST_PROBES_MAX)
    if seen:
        assert health.condition is not Condition.UNKNOWN
    if seen[-rise:] == [Seen.GOOD] * rise:
        assert health.condition in (Condition.UP, Condition.WARMING)
    if seen[-fall:] == [Seen.BAD] * fall or seen[-1:] == [Seen.LOADING]:
        assert health.condition is Condition.DOWN
