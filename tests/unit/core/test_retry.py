"""Plays of exchanges and further attempts: what the retry budget permits."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.retry import RetryBudget


def spend_all(budget: RetryBudget, now_s: float) -> int:
    """Spend until the budget refuses; how many it gave."""
    given_out = 0
    while budget.try_spend(now_s):
        given_out += 1
        assert given_out < 10_000
    return given_out


def test_quiet_daemon_may_spend_the_floor() -> None:
    assert spend_all(RetryBudget(share=0.2), 100.0) == 3


@pytest.mark.parametrize(("exchanges", "attempts"), [(10, 3), (20, 4), (100, 20)])
def test_busy_daemon_may_spend_the_share_of_recent_exchanges(exchanges: int, attempts: int) -> None:
    budget = RetryBudget(share=0.2)
    for _ in range(exchanges):
        budget.on_exchange(100.0)
    assert spend_all(budget, 100.5) == attempts


def test_spent_attempts_return_after_the_window() -> None:
    budget = RetryBudget(share=0.2)
    assert spend_all(budget, 100.0) == 3
    assert not budget.try_spend(109.9)
    assert spend_all(budget, 110.0) == 3


def test_exchanges_of_long_ago_no_longer_count() -> None:
    budget = RetryBudget(share=0.5, floor=1)
    for _ in range(100):
        budget.on_exchange(100.0)
    assert spend_all(budget, 200.0) == 1


def test_instant_is_now_while_something_is_left() -> None:
    assert RetryBudget(share=0.2).until_s(42.0) == 42.0


def test_instant_is_when_the_oldest_spent_attempt_leaves_the_window() -> None:
    budget = RetryBudget(share=0.2)
    budget.try_spend(100.0)
    spend_all(budget, 104.0)
    assert budget.until_s(105.0) == 110.0
    assert not budget.try_spend(109.9)
    assert budget.try_spend(110.0)


def test_budget_of_nothing_gives_nothing_and_names_no_instant() -> None:
    budget = RetryBudget(share=0.0, floor=0)
    assert not budget.try_spend(5.0)
    assert budget.until_s(5.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 3.0)), max_size=200), st.floats(0.0, 1.0), st.integers(0, 5))
def test_attempts_never_exceed_floor_or_share_of_the_window(steps: list[tuple[bool, float]], share: float, floor: int) -> None:
    """Checked against a plain list of instants; the window slides in tenths, so it may be up to a tenth shorter."""
    budget = RetryBudget(share=share, floor=floor)
    exchanges: deque[float] = deque()
    spent: deque[float] = deque()
    now_s = 1000.0
    for is_exchange, pause_s in steps:
        now_s += pause_s
        if is_exchange:
            budget.on_exchange(now_s)
            exchanges.append(now_s)
            continue
        recent = sum(at_s > now_s - 10.0 for at_s in exchanges)
        was_spent = sum(at_s > now_s - 9.0 for at_s in spent)
        until_s = budget.until_s(now_s)
        if budget.try_spend(now_s):
            assert until_s == now_s
            assert was_spent < max(floor, share * recent)
            spent.append(now_s)
        else:
            assert until_s == 0.0 or until_s > now_s


def test_what_led_to_content_is_given_back() -> None:
    budget = RetryBudget(0.2)
    assert [budget.try_spend(1.0) for _ in range(4)] == [True, True, True, False]
    budget.give_back(2)
    assert [budget.try_spend(2.0) for _ in range(3)] == [True, True, False]


def test_more_is_never_given_back_than_was_spent() -> None:
    budget = RetryBudget(0.2)
    assert budget.try_spend(1.0)
    budget.give_back(5)
    assert [budget.try_spend(1.5) for _ in range(4)] == [True, True, True, False]


def test_what_has_left_the_window_cannot_be_given_back() -> None:
    budget = RetryBudget(0.2)
    assert budget.try_spend(1.0)
    assert budget.try_spend(20.0)
    budget.give_back(2)
    assert [budget.try_spend(20.0) for _ in range(4)] == [True, True, True, False]
