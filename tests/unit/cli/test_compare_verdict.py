"""When green is worse: each threshold kept and broken, and what could not be measured."""

from dataclasses import replace

import pytest

from understudy.cli.compare_pairs import Judgement, Total, Totals
from understudy.cli.compare_verdict import Thresholds, percent, share, verdict_of
from understudy.core.color import Color


def total(color: Color, *, failed: int = 0, met: int = 0) -> Total:
    return Total(color, 20 - failed, failed, 0, failed, 0, met, 100, False, 0.1, 50.0)


EVEN = Totals(20, 20, 20, total(Color.BLUE, met=19), total(Color.GREEN, met=19), 0.8, 1.0, 1.0)
WORSE_ANSWERS = replace(EVEN, green=total(Color.GREEN, met=16))
MORE_FAILED = replace(EVEN, green=total(Color.GREEN, failed=2, met=19))


def test_equal_sides_are_no_worse() -> None:
    verdict = verdict_of(EVEN, Thresholds())
    assert (verdict.is_worse, verdict.line) == (False, "green is no worse")
    assert [check.option for check in verdict.checks] == ["--max-unmet 0%", "--max-errors 0%"]


@pytest.mark.parametrize(
    ("totals", "thresholds", "told"),
    [
        (WORSE_ANSWERS, Thresholds(), "expectations met 80% against 95% (--max-unmet 0%)"),
        (MORE_FAILED, Thresholds(), "failed 10% against 0% (--max-errors 0%)"),
        (replace(EVEN, ttft_ratio=1.51), Thresholds(ttft_max=1.5), "first content after 1.51x blue's time (--ttft 1.5x)"),
        (replace(EVEN, ttft_ratio=None), Thresholds(ttft_max=1.5), "first content was not measured on both (--ttft 1.5x)"),
        (replace(EVEN, speed_ratio=0.69), Thresholds(speed_min=0.7), "speed 0.69x blue's (--speed 0.7x)"),
        (replace(EVEN, speed_ratio=None), Thresholds(speed_min=0.7), "speed was not measured on both (--speed 0.7x)"),
        (EVEN, Thresholds(similarity_min=0.9), "similarity 80% (--min-similarity 90%)"),
        (replace(EVEN, similarity=None), Thresholds(similarity_min=0.9), "similarity was not measured (--min-similarity 90%)"),
        (
            replace(EVEN, judgement=Judgement(20, 9, 1, 10)),
            Thresholds(judged_worse_max=0.4),
            "judged worse in 45% of the answers (--max-judged-worse 40%)",
        ),
        (
            replace(EVEN, judgement=Judgement(20, 0, 0, 20, unreadable=20)),
            Thresholds(judged_worse_max=0.4),
            "the judge said nothing that could be read (--max-judged-worse 40%)",
        ),
    ],
)
def test_a_broken_threshold_is_named(totals: Totals, thresholds: Thresholds, told: str) -> None:
    verdict = verdict_of(totals, thresholds)
    assert (verdict.is_worse, verdict.line) == (True, f"green is worse: {told}")
    assert sum(check.is_broken for check in verdict.checks) == 1


@pytest.mark.parametrize(
    ("totals", "thresholds"),
    [
        (WORSE_ANSWERS, Thresholds(unmet_max=0.15)),
        (MORE_FAILED, Thresholds(errors_max=0.1)),
        (replace(EVEN, ttft_ratio=1.5), Thresholds(ttft_max=1.5)),
        (replace(EVEN, speed_ratio=0.7), Thresholds(speed_min=0.7)),
        (EVEN, Thresholds(similarity_min=0.8)),
        (replace(EVEN, judgement=Judgement(20, 8, 1, 11)), Thresholds(judged_worse_max=0.4)),
        (replace(EVEN, ttft_ratio=9.0, speed_ratio=0.1), Thresholds()),
    ],
)
def test_a_threshold_that_is_just_reached_is_kept(totals: Totals, thresholds: Thresholds) -> None:
    assert not verdict_of(totals, thresholds).is_worse


def test_where_nothing_was_compared_nothing_is_passed() -> None:
    dead = (total(Color.BLUE, failed=20), total(Color.GREEN, failed=20))
    verdict = verdict_of(Totals(20, 0, 0, *dead, None, None, None), Thresholds())
    assert (verdict.is_worse, verdict.line) == (True, "nothing could be compared: no prompt was answered by both")


def test_shares_are_written_as_people_do() -> None:
    assert (share(0.95), share(2 / 3), percent(1, 3), percent(0, 0)) == ("95%", "66.7%", "33.3%", "-")
