"""Promises against services whose nature is known: ones that keep them, ones that are exactly at the bound, ones that break them.

Each play is the same for the same seed. Exchanges come evenly and fail independently; times to first content spread widely
(lognormal), as those of real engines under real prompts do. Every promise is looked at once a second.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from understudy.core.objectives import Objective, Objectives
from understudy.core.upkeep import Slo

WINDOW_S = 300.0
SLO = Slo(errors=0.01, p99_first_content_s=1.0, window_s=WINDOW_S)
# The 99th percentile of a standard normal distribution.
Z99 = 2.3263
SEEDS = range(20)


@dataclass
class Nature:
    """What a service is at one moment: its share of failures, and what 99 of 100 first contents take at most."""

    errors: float = 0.0
    p99_s: float = 0.1
    sigma: float = 1.0


@dataclass
class Story:
    """What was told of the promises, as (seconds, objective, is broken), in order, and how many exchanges there were."""

    told: list[tuple[float, Objective, bool]] = field(default_factory=list)
    exchanges: int = 0

    def breaks(self, objective: Objective) -> list[float]:
        """When that promise was told to be broken."""
        return [at_s for at_s, which, is_broken in self.told if which is objective and is_broken]


def tell(nature: Callable[[float], Nature], *, per_s: float, duration_s: float, seed: int, slo: Slo = SLO) -> Story:
    """Play a service for `duration_s`; `nature` says what it is at each instant."""
    random, objectives, story = Random(seed), Objectives(slo), Story()
    broken: set[Objective] = set()
    for second in range(int(duration_s)):
        while story.exchanges < per_s * (second + 1):
            story.exchanges += 1
            now = nature(float(second))
            is_failed = random.random() < now.errors
            median_s = now.p99_s / math.exp(Z99 * now.sigma)
            ttft_s = 0.0 if is_failed else random.lognormvariate(math.log(median_s), now.sigma)
            objectives.on_exchange(is_failed, ttft_s, second + 0.5)
        for standing in objectives.look(second + 1.0):
            if standing.is_broken is not (standing.objective in broken):
                broken ^= {standing.objective}
                story.told.append((second + 1.0, standing.objective, standing.is_broken))
    return story


@pytest.mark.parametrize("per_s", [0.2, 2.0, 20.0])
def test_a_service_that_keeps_its_promises_is_never_told_of(per_s: float) -> None:
    """Half as many errors as are allowed and half the time, for many windows; a day of looks at little traffic."""
    kept = Nature(errors=0.005, p99_s=0.5)
    assert tell(lambda _: kept, per_s=per_s, duration_s=min(86_400.0, 200_000 / per_s), seed=1).told == []


def test_a_service_that_is_exactly_at_its_bounds_is_hardly_ever_told_of() -> None:
    """One look in a thousand at each of two bounds, and some ten times as many windows with looks that overlap."""
    at_bound = Nature(errors=0.01, p99_s=1.0)
    windows = 200
    story = tell(lambda _: at_bound, per_s=1.0, duration_s=windows * WINDOW_S, seed=2)
    assert len([each for each in story.told if each[2]]) <= windows * 2 * 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_is_told_after_twenty_exchanges(seed: int) -> None:
    story = tell(lambda at_s: Nature(errors=float(at_s >= 600.0)), per_s=2.0, duration_s=1200.0, seed=seed)
    (broken_at_s,) = story.breaks(Objective.ERRORS)
    assert 600.0 < broken_at_s <= 612.0


@pytest.mark.parametrize(
    ("nature", "objective", "exchanges_max"),
    [
        (Nature(errors=0.05), Objective.ERRORS, 700),
        (Nature(errors=0.2), Objective.ERRORS, 100),
        (Nature(p99_s=3.0), Objective.P99_FIRST_CONTENT, 400),
        (Nature(p99_s=10.0), Objective.P99_FIRST_CONTENT, 100),
    ],
    ids=["five times the errors", "twenty times the errors", "three times the time", "ten times the time"],
)
def test_a_service_that_breaks_its_promise_is_told_of_soon(nature: Nature, objective: Objective, exchanges_max: int) -> None:
    late = []
    for seed in SEEDS:
        breaks = tell(lambda _: nature, per_s=5.0, duration_s=exchanges_max / 5.0, seed=seed).breaks(objective)
        if not breaks:
            late.append(seed)
    assert len(late) <= 1, f"not within {exchanges_max} exchanges with seeds {late}"


@pytest.mark.parametrize("period_s", [10.0, 60.0, 250.0])
def test_a_service_that_flaps_is_told_of_once(period_s: float) -> None:
    """Bad and good by turns for two hours, then good: one break, one restoration."""
    end_s = 7200.0

    def flapping(at_s: float) -> Nature:
        return Nature(errors=0.3) if at_s < end_s and int(at_s / period_s) % 2 == 0 else Nature()

    story = tell(flapping, per_s=2.0, duration_s=end_s + 1200.0, seed=3)
    assert [is_broken for _, _, is_broken in story.told] == [True, False]
    restored_at_s = story.told[1][0]
    # The last failures leave the window, and half a window passes.
    assert end_s - period_s + 1.4 * WINDOW_S <= restored_at_s <= end_s + 1.6 * WINDOW_S


def test_one_failure_in_a_quiet_night_wakes_nobody() -> None:
    """An exchange every ten seconds, and one failure an hour: more than a bound of a tenth of a percent, and chance."""
    rare = Nature(errors=1 / 360)
    story = tell(lambda _: rare, per_s=0.1, duration_s=8 * 3600.0, seed=5, slo=Slo(errors=0.001, window_s=WINDOW_S))
    assert story.told == []
