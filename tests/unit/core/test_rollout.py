"""Plays of the file's words, orders, steps and rollbacks: what is in force, and whose word it was."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.color import Color, GuardRules, RolloutRules
from understudy.core.rollout import (
    Rollout,
    Word,
    anchored,
    begun,
    candidate,
    heard,
    recalled,
    rolled_back,
    step_due_at_unix_s,
    stepped,
    switched,
    with_canary,
)

BLUE, GREEN, NONE = Color.BLUE, Color.GREEN, Color.NONE
RULES = RolloutRules(is_on=True)
STEPS = (0.05, 0.25, 1.0)
NOW = 1_800_000_000.0


def fresh(rules: RolloutRules = RULES) -> Rollout:
    return begun(rules, None, NOW)


# --- The file and the start


def test_first_start_does_what_the_file_says_and_counts_it_as_no_switch() -> None:
    rollout = fresh(replace(RULES, active=GREEN))
    assert (rollout.active, rollout.word, rollout.previous, rollout.switched_at_unix_s) == (GREEN, Word.FILE, NONE, 0.0)
    assert rollout.file_active is GREEN


def test_first_start_begins_the_file_s_canary() -> None:
    rollout = fresh(replace(RULES, shares=STEPS))
    assert (rollout.share, rollout.step_at_unix_s, rollout.file_shares) == (0.05, NOW, STEPS)


def test_restart_keeps_an_order_that_the_file_has_not_contradicted_since() -> None:
    kept = switched(fresh(), GREEN, Word.COMMAND, NOW)
    assert begun(RULES, kept, NOW + 100) == kept


def test_restart_does_what_the_file_says_anew() -> None:
    rollout = begun(replace(RULES, active=GREEN), fresh(), NOW + 100)
    assert (rollout.active, rollout.word, rollout.previous, rollout.file_active) == (GREEN, Word.FILE, BLUE, GREEN)


def test_file_that_says_again_what_it_said_does_not_undo_an_order() -> None:
    rollout = switched(fresh(), GREEN, Word.COMMAND, NOW)
    assert heard(rollout, RULES, NOW + 1) == rollout


def test_file_that_says_what_is_in_force_makes_it_its_own_word() -> None:
    rollout = heard(switched(fresh(), GREEN, Word.COMMAND, NOW), replace(RULES, active=GREEN), NOW + 1)
    assert (rollout.active, rollout.word, rollout.switched_at_unix_s) == (GREEN, Word.FILE, NOW)


def test_file_that_ends_its_canary_ends_it_and_one_that_never_had_one_changes_nothing() -> None:
    rollout = heard(fresh(replace(RULES, shares=STEPS)), RULES, NOW + 1)
    assert (rollout.shares, rollout.file_shares) == ((), ())
    ordered = with_canary(fresh(), (0.5,), Word.COMMAND, NOW)
    assert heard(ordered, RULES, NOW + 1) == ordered


def test_file_may_flip_and_begin_a_canary_in_one_reading() -> None:
    rollout = heard(fresh(), replace(RULES, active=GREEN, shares=(0.1,)), NOW)
    assert (rollout.active, rollout.inactive, rollout.share) == (GREEN, BLUE, 0.1)


def test_file_that_takes_a_canary_away_leaves_the_reason_of_its_rollback_readable() -> None:
    rollout = rolled_back(fresh(replace(RULES, shares=STEPS)), Word.GUARD, NOW, reason="errors 9%")
    assert rollout is not None
    assert heard(rollout, RULES, NOW + 1).reason == "errors 9%"


# --- Switches


def test_switch_remembers_where_it_came_from_and_ends_the_canary() -> None:
    rollout = switched(with_canary(fresh(), STEPS, Word.COMMAND, NOW), GREEN, Word.COMMAND, NOW + 1, "tried")
    assert (rollout.active, rollout.previous, rollout.shares, rollout.reason) == (GREEN, BLUE, (), "tried")
    assert rollout.switched_at_unix_s == rollout.changed_at_unix_s == NOW + 1


def test_switch_to_the_active_color_changes_nothing_but_ends_a_canary() -> None:
    rollout = fresh()
    assert switched(rollout, BLUE, Word.COMMAND, NOW) is rollout
    ended = switched(with_canary(rollout, STEPS, Word.COMMAND, NOW), BLUE, Word.COMMAND, NOW + 1)
    assert (ended.active, ended.shares, ended.switched_at_unix_s, ended.changed_at_unix_s) == (BLUE, (), 0.0, NOW + 1)


# --- The canary


def test_canary_goes_step_by_step_and_becomes_a_switch_at_all_conversations() -> None:
    rollout = with_canary(fresh(), STEPS, Word.COMMAND, NOW)
    rollout = stepped(rollout, NOW + 600)
    assert (rollout.share, rollout.active, rollout.canary_word) == (0.25, BLUE, Word.CANARY)
    rollout = stepped(rollout, NOW + 1200)
    assert (rollout.active, rollout.word, rollout.previous, rollout.shares) == (GREEN, Word.CANARY, BLUE, ())


def test_canary_stays_at_its_last_step_where_that_is_only_a_part() -> None:
    rollout = stepped(with_canary(fresh(), (0.05, 0.25), Word.COMMAND, NOW), NOW)
    assert stepped(rollout, NOW) is rollout
    assert step_due_at_unix_s(rollout, RULES) == 0.0


def test_step_is_due_after_every() -> None:
    rollout = with_canary(fresh(), STEPS, Word.COMMAND, NOW)
    assert step_due_at_unix_s(rollout, replace(RULES, every_s=60.0)) == NOW + 60.0
    assert step_due_at_unix_s(fresh(), RULES) == 0.0


@pytest.mark.parametrize("shares", [(), (0.0,)])
def test_canary_of_nothing_ends_one_that_runs_and_changes_nothing_else(shares: tuple[float, ...]) -> None:
    rollout = fresh()
    assert with_canary(rollout, shares, Word.COMMAND, NOW) is rollout
    ended = with_canary(with_canary(rollout, STEPS, Word.FILE, NOW), shares, Word.COMMAND, NOW + 1)
    assert (ended.shares, ended.step_at_unix_s, ended.canary_word) == ((), 0.0, Word.COMMAND)


def test_step_that_begins_in_the_future_begins_now() -> None:
    rollout = with_canary(fresh(), STEPS, Word.COMMAND, NOW)
    assert anchored(rollout, NOW) is rollout
    back = anchored(rollout, NOW - 86_400)
    assert step_due_at_unix_s(back, RULES) == NOW - 86_400 + RULES.every_s


def test_no_instant_stays_in_the_future_where_the_clock_was_set_back() -> None:
    """Else no conversation would stay on its color until the clock has caught up."""
    ahead = recalled(switched(fresh(), GREEN, Word.COMMAND, NOW), GREEN, NOW)
    back = anchored(ahead, NOW - 86_400)
    assert (back.switched_at_unix_s, back.changed_at_unix_s) == (NOW - 86_400, NOW - 86_400)
    assert (back.blue_recalled_unix_s, back.green_recalled_unix_s) == (0.0, NOW - 86_400)
    assert anchored(back, NOW) is back


# --- The way back


def test_rollback_ends_the_canary_first_and_then_takes_back_the_last_switch() -> None:
    rollout = with_canary(switched(fresh(), GREEN, Word.COMMAND, NOW), STEPS, Word.COMMAND, NOW + 1)
    first = rolled_back(rollout, Word.COMMAND, NOW + 2)
    assert first is not None
    assert (first.active, first.shares) == (GREEN, ())
    second = rolled_back(first, Word.COMMAND, NOW + 3)
    assert second is not None
    assert (second.active, second.previous) == (BLUE, NONE)
    assert rolled_back(second, Word.COMMAND, NOW + 4) is None


def test_rollback_of_a_canary_that_has_no_share_yet_does_not_reach_for_the_switch_before() -> None:
    rollout = with_canary(switched(fresh(), GREEN, Word.COMMAND, NOW), (0.0, 0.5), Word.COMMAND, NOW + 1)
    back = rolled_back(rollout, Word.COMMAND, NOW + 2, takes_sessions=True)
    assert back is not None
    assert (back.active, back.shares, back.recalled_unix_s(BLUE)) == (GREEN, (), NOW + 2)


def test_nothing_to_take_back_at_the_start() -> None:
    assert rolled_back(fresh(replace(RULES, active=GREEN)), Word.COMMAND, NOW) is None


@pytest.mark.parametrize("is_canary", [True, False])
def test_sessions_of_the_color_that_is_left_come_back_only_when_they_are_taken(is_canary: bool) -> None:
    rollout = with_canary(fresh(), STEPS, Word.FILE, NOW) if is_canary else switched(fresh(), GREEN, Word.FILE, NOW)
    stay = rolled_back(rollout, Word.GUARD, NOW + 9)
    taken = rolled_back(rollout, Word.GUARD, NOW + 9, takes_sessions=True)
    assert stay is not None
    assert taken is not None
    assert (stay.recalled_unix_s(GREEN), taken.recalled_unix_s(GREEN)) == (0.0, NOW + 9)
    assert taken.recalled_unix_s(BLUE) == 0.0


# --- What the guard watches


def test_guard_watches_the_canary_then_the_switched_to_for_a_while_and_nothing_after_a_rollback() -> None:
    rules = replace(RULES, guard=GuardRules(errors=0.02, watch_s=100.0))
    rollout = with_canary(fresh(), (0.5, 1.0), Word.COMMAND, NOW)
    assert candidate(rollout, rules, NOW) is GREEN
    assert candidate(rollout, RULES, NOW) is NONE
    rollout = stepped(rollout, NOW)
    assert candidate(rollout, rules, NOW + 99) is GREEN
    assert candidate(rollout, rules, NOW + 100) is NONE
    back = rolled_back(rollout, Word.GUARD, NOW + 50)
    assert back is not None
    assert candidate(back, rules, NOW + 51) is NONE


orders = st.one_of(
    st.tuples(st.just("switch"), st.sampled_from([BLUE, GREEN])),
    st.tuples(st.just("file"), st.sampled_from([BLUE, GREEN])),
    st.tuples(st.just("canary"), st.sampled_from([(), (0.1,), (0.0, 0.5), STEPS])),
    st.tuples(st.just("step"), st.none()),
    st.tuples(st.just("back"), st.booleans()),
)


@given(st.lists(orders, max_size=40))
def test_whatever_is_ordered_the_state_is_whole(play: list[tuple[str, object]]) -> None:
    rollout, rules, now = fresh(), RULES, NOW
    for verb, value in play:
        now += 1.0
        if verb == "switch" and isinstance(value, Color):
            rollout = switched(rollout, value, Word.COMMAND, now)
            assert rollout.active is value
        elif verb == "file" and isinstance(value, Color):
            rules = replace(rules, active=value)
            rollout = heard(rollout, rules, now)
        elif verb == "canary" and isinstance(value, tuple):
            rollout = with_canary(rollout, value, Word.COMMAND, now)
        elif verb == "step":
            rollout = stepped(rollout, now)
        elif verb == "back":
            rollout = rolled_back(rollout, Word.COMMAND, now, takes_sessions=bool(value)) or rollout
        assert rollout.active in (BLUE, GREEN)
        assert rollout.previous in (NONE, rollout.inactive)
        assert 0.0 <= rollout.share < 1.0 or rollout.step == 0
        assert rollout.switched_at_unix_s <= rollout.changed_at_unix_s <= now
        assert rollout.file_active is rules.active
