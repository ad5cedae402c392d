"""A day of troubles in half a minute: as few restarts and messages as a careful operator's, and no request lost (support.day)."""

import pytest

from support.day import play


@pytest.mark.parametrize("seed", [1])
def test_a_day_of_troubles_costs_no_request_and_one_restart_for_each_that_needs_one(seed: int) -> None:
    figures = play(seed, deeds=10)
    assert figures.answered.total() > 50
    assert figures.deeds.total() >= 11
