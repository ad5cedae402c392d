"""When green is worse: each threshold kept and broken, and what could not be measured."""

from dataclasses import replace

import pytest

from understudy.cli.compare_pairs import Judgement, Total, Totals
from understudy.cli.compare_verdict import Thresholds, interrupted, percent, share, stopped, verdict_of
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
        (WORSE_ANSWERS, Thresholds(), "green met 80% of the expectations, blue 95% (--max-unmet 0%)"),
        (MORE_FAILED, Thresholds(), "green failed 10%, blue 0% (--max-errors 0%)"),
        (replace(EVEN, ttft_ratio=1.51), Thresholds(ttft_max=1.5), "green's time to first content is 1.51x blue's (--ttft 1.5x)"),
        (
            replace(EVEN, ttft_ratio=None),
            Thresholds(ttft_max=1.5),
            "time to first content was not measured on both (--ttft 1.5x)",
        ),
        (replace(EVEN, speed_ratio=0.69), Thresholds(speed_min=0.7), "green's speed is 0.69x blue's (--speed 0.7x)"),
        (replace(EVEN, speed_ratio=None), Thresholds(speed_min=0.7), "speed was not measured on both (--speed 0.7x)"),
        (EVEN, Thresholds(similarity_min=0.9), "similarity 80% (--min-similarity 90%)"),
        (replace(EVEN, similarity=None), Thresholds(similarity_min=0.9), "similarity was not measured (--min-similarity 90%)"),
        (
            replace(EVEN, judgement=Judgement(20, 9, 1, 10)),
            Thresholds(judged_worse_max=0.4),
            "green judged worse in 45% of 20 judged (--max-judged-worse 40%)",
        ),
        (
            replace(EVEN, judgement=Judgement(20, 9, 0, 1, unreadable=4, unasked=6, same=80)),
            Thresholds(judged_worse_max=0.4),
            "green judged worse in 90% of 10 judged (--max-judged-worse 40%)",
        ),
        (
            replace(EVEN, judgement=Judgement(20, 0, 0, 9, unreadable=4, unasked=7, same=80)),
            Thresholds(judged_worse_max=0.4),
            "the judge gave its word on 9 of 20 pairs, under half (--max-judged-worse 40%)",
        ),
        (
            replace(EVEN, judgement=Judgement(1, unasked=1, same=19)),
            Thresholds(judged_worse_max=1.0),
            "the judge gave its word on 0 of 1 pairs, under half (--max-judged-worse 100%)",
        ),
        (EVEN, Thresholds(judged_worse_max=0.4), "nothing was judged (--max-judged-worse 40%)"),
        (replace(EVEN, expected=0), Thresholds(unmet_max=0.02), "nothing was expected of any prompt (--max-unmet 2%)"),
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
        (replace(EVEN, judgement=Judgement(same=20)), Thresholds(judged_worse_max=0.0)),
        (replace(EVEN, expected=0), Thresholds()),
        (replace(EVEN, ttft_ratio=9.0, speed_ratio=0.1), Thresholds()),
    ],
)
def test_a_threshold_that_is_just_reached_is_kept(totals: Totals, thresholds: Thresholds) -> None:
    assert not verdict_of(totals, thresholds).is_worse


@pytest.mark.parametrize(
    ("totals", "thresholds", "told"),
    [
        (replace(EVEN, prompts=3, green=total(Color.GREEN, failed=1, met=19)), Thresholds(errors_max=0.333), "33.33%, blue 0%"),
        (
            replace(EVEN, expected=3, blue=total(Color.BLUE, met=2), green=total(Color.GREEN)),
            Thresholds(unmet_max=0.6666),
            "blue 66.7%",
        ),
        (replace(EVEN, ttft_ratio=1.5004), Thresholds(ttft_max=1.5), "is 1.5004x blue's (--ttft 1.5x)"),
        (replace(EVEN, speed_ratio=0.69999), Thresholds(speed_min=0.7), "is 0.69999x blue's (--speed 0.7x)"),
        (replace(EVEN, similarity=0.89996), Thresholds(similarity_min=0.9), "similarity 89.996% (--min-similarity 90%)"),
        (replace(EVEN, judgement=Judgement(3, 1, 1, 1)), Thresholds(judged_worse_max=0.3333), "33.333% of 3"),
        (MORE_FAILED, Thresholds(errors_max=0.0999), "10%, blue 0% (--max-errors 9.99%)"),
        (replace(EVEN, ttft_ratio=1.3), Thresholds(ttft_max=1.234567), "is 1.30x blue's (--ttft 1.234567x)"),
    ],
)
def test_a_figure_is_exact_enough_to_show_that_it_is_beyond_the_bound(totals: Totals, thresholds: Thresholds, told: str) -> None:
    verdict = verdict_of(totals, thresholds)
    assert verdict.is_worse
    assert told in verdict.line


def test_who_ended_it_gets_no_verdict() -> None:
    verdict = interrupted("interrupted after 2 of 3 prompts")
    assert (verdict.line, verdict.is_interrupted) == ("interrupted after 2 of 3 prompts: no verdict", True)
    assert (verdict.is_worse, verdict.checks) == (False, ())


def test_a_side_that_is_not_there_is_the_verdict() -> None:
    verdict = stopped("stopped after 3 of 9 prompts: green refused the connection 3 times in a row")
    assert (verdict.is_worse, verdict.is_interrupted) == (True, False)
    assert verdict.line.startswith("stopped after 3 of 9 prompts")


def test_where_nothing_was_compared_nothing_is_passed() -> None:
    dead = (total(Color.BLUE, failed=20), total(Color.GREEN, failed=20))
    verdict = verdict_of(Totals(20, 0, 0, *dead, None, None, None), Thresholds())
    assert (verdict.is_worse, verdict.line) == (True, "nothing could be compared: no prompt was answered by both")


def test_shares_are_written_as_people_do() -> None:
    assert (share(0.95), share(2 / 3), percent(1, 3), percent(0, 0)) == ("95%", "66.7%", "33.3%", "-")
    assert (share(0.07, 6), share(0.0005, 6), share(1.0, 6)) == ("7%", "0.05%", "100%")
