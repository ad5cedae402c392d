"""Plays of attempts, answers and failures: what is counted, who is ejected, and that no permit is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.snapshot import HealthRules
from understudy.core.tally import Tally

RULES = HealthRules(max_fails=3, fail_timeout_s=10.0)


def fail(tally: Tally, now_s: float, *, rules: HealthRules = RULES, has_alternative: bool = True) -> bool:
    """One failure of the backend under test."""
    return tally.fail("pi", rules, now_s, has_alternative=has_alternative)


def ejected_at(now_s: float) -> Tally:
    """A tally whose backend was just ejected for the first time, until `now_s` + 10."""
    tally = Tally()
    assert [fail(tally, now_s) for _ in range(3)] == [False, False, True]
    return tally


def test_attempts_in_flight_are_counted_until_they_end() -> None:
    tally = Tally()
    tally.begin("pi", is_trial=False)
    tally.begin("pi", is_trial=False)
    tally.end("pi", is_trial=False)
    assert (tally.of("pi").in_flight, tally.of("pi").attempts_total) == (1, 2)


def test_end_without_begin_is_a_bug_and_raises() -> None:
    with pytest.raises(RuntimeError, match="pi"):
        Tally().end("pi", is_trial=False)


def test_max_fails_within_the_window_eject_for_fail_timeout() -> None:
    tally = Tally()
    assert not fail(tally, 100.0)
    assert not fail(tally, 104.0)
    assert fail(tally, 109.0)
    assert tally.of("pi").ejected_until_s == 119.0
    assert tally.of("pi").failures_total == 3


def test_failures_that_left_the_window_no_longer_count() -> None:
    tally = Tally()
    assert not any(fail(tally, at_s) for at_s in (100.0, 104.0, 110.0, 114.0, 120.0))


def test_answers_in_between_do_not_clear_the_window() -> None:
    """A backend that fails every other exchange is broken, too (nginx's meaning)."""
    tally = Tally()
    for at_s in (100.0, 101.0):
        assert not fail(tally, at_s)
        tally.succeed("pi", 0.1, at_s + 0.5)
    assert fail(tally, 102.0)


def test_max_fails_0_never_ejects() -> None:
    tally = Tally()
    rules = HealthRules(max_fails=0)
    assert not any(fail(tally, float(at_s), rules=rules) for at_s in range(100, 200))


def test_reload_to_max_fails_0_ends_an_ejection_at_the_next_failure() -> None:
    tally = ejected_at(100.0)
    fail(tally, 105.0, rules=HealthRules(max_fails=0))
    assert tally.of("pi").ejected_until_s == 0.0


def test_backend_without_an_alternative_is_never_ejected() -> None:
    tally = Tally()
    assert not any(fail(tally, 100.0, has_alternative=False) for _ in range(20))
    assert tally.of("pi").ejected_until_s == 0.0


def test_failures_without_an_alternative_count_once_there_is_one() -> None:
    tally = Tally()
    for _ in range(3):
        fail(tally, 100.0, has_alternative=False)
    assert fail(tally, 101.0)


def test_stragglers_do_not_prolong_an_ejection() -> None:
    tally = ejected_at(100.0)
    assert not fail(tally, 109.9)
    assert tally.of("pi").ejected_until_s == 110.0


def test_half_open_begins_when_the_ejection_is_over_and_ends_with_an_answer() -> None:
    tally = ejected_at(100.0)
    assert not tally.of("pi").is_half_open(109.9)
    assert tally.of("pi").is_half_open(110.0)
    assert tally.succeed("pi", None, 111.0), "the first answer is what ends it"
    assert not tally.of("pi").is_half_open(111.0)
    assert not tally.succeed("pi", None, 112.0)


def test_failed_trial_ejects_again_at_once_and_for_twice_as_long() -> None:
    tally = ejected_at(100.0)
    assert fail(tally, 110.0)
    assert tally.of("pi").ejected_until_s == 130.0


@pytest.mark.parametrize(("fail_timeout_s", "longest_s"), [(10.0, 60.0), (90.0, 90.0)])
def test_ejections_grow_to_a_minute_or_to_a_longer_fail_timeout(fail_timeout_s: float, longest_s: float) -> None:
    tally = Tally()
    rules = HealthRules(max_fails=1, fail_timeout_s=fail_timeout_s)
    now_s = 100.0
    for _ in range(40):
        assert fail(tally, now_s, rules=rules)
        duration_s = tally.of("pi").ejected_until_s - now_s
        now_s = tally.of("pi").ejected_until_s
    assert duration_s == longest_s


def test_growth_shrinks_by_one_per_good_minute() -> None:
    tally = ejected_at(100.0)
    assert fail(tally, 110.0)
    assert tally.of("pi").ejections == 2
    tally.succeed("pi", None, 130.0)
    tally.succeed("pi", None, 189.0)
    assert tally.of("pi").ejections == 2
    tally.succeed("pi", None, 191.0)
    assert tally.of("pi").ejections == 1
    tally.succeed("pi", None, 400.0)
    assert tally.of("pi").ejections == 0


def test_time_to_first_content_is_averaged_over_answers_only() -> None:
    tally = Tally()
    tally.succeed("pi", 1.0, 100.0)
    assert tally.of("pi").ttft_ewma_s == 1.0
    tally.succeed("pi", 2.0, 101.0)
    assert tally.of("pi").ttft_ewma_s == pytest.approx(1.3)
    tally.succeed("pi", None, 102.0)
    fail(tally, 103.0)
    assert tally.of("pi").ttft_ewma_s == pytest.approx(1.3)


def test_failure_makes_suspect_for_a_part_of_the_window_and_an_answer_clears_it() -> None:
    tally = Tally()
    fail(tally, 100.0)
    assert tally.of("pi").suspect_until_s == pytest.approx(100.0 + 10.0 / 3)
    tally.succeed("pi", None, 101.0)
    assert tally.of("pi").suspect_until_s == 0.0


def test_rest_and_doubt_are_prolonged_but_never_shortened() -> None:
    tally = Tally()
    tally.rest("pi", 130.0)
    tally.rest("pi", 120.0)
    tally.doubt("pi", 130.0)
    tally.doubt("pi", 120.0)
    assert (tally.of("pi").rest_until_s, tally.of("pi").suspect_until_s) == (130.0, 130.0)
    assert tally.of("pi").failures_total == 0


def test_removed_backend_is_forgotten_once_nothing_is_in_flight() -> None:
    tally = Tally()
    tally.begin("pi", is_trial=False)
    tally.begin("laptop", is_trial=False)
    tally.end("laptop", is_trial=False)
    tally.retain(["gpu0"])
    assert tally.of("laptop").attempts_total == 0
    assert tally.of("pi").in_flight == 1
    tally.end("pi", is_trial=False)
    tally.retain([])
    assert tally.of("pi").attempts_total == 0


def test_backend_at_a_new_address_begins_anew_but_what_is_in_flight_still_ends() -> None:
    tally = ejected_at(100.0)
    tally.begin("pi", is_trial=True)
    tally.renew("pi")
    counts = tally.of("pi")
    assert (counts.ejected_until_s, counts.ejections, counts.ttft_ewma_s) == (0.0, 0, None)
    tally.end("pi", is_trial=True)
    assert (counts.in_flight, counts.trial_held) == (0, False)


@given(st.lists(st.tuples(st.sampled_from(["begin", "trial", "answer", "fail", "cancel", "reload"]), st.floats(0.0, 30.0))))
def test_permit_is_free_and_nothing_in_flight_after_everything_ended(steps: list[tuple[str, float]]) -> None:
    """However trials end (answered, failed, cancelled, across reloads), the permit comes back."""
    tally = Tally()
    running: list[bool] = []
    now_s = 100.0
    for step, pause_s in steps:
        now_s += pause_s
        if step in ("begin", "trial"):
            is_trial = step == "trial" and not tally.of("pi").trial_held
            tally.begin("pi", is_trial=is_trial)
            running.append(is_trial)
        elif step == "reload":
            tally.retain([])
        elif running:
            if step == "answer":
                tally.succeed("pi", 0.2, now_s)
            elif step == "fail":
                fail(tally, now_s)
            tally.end("pi", is_trial=running.pop(0))
        assert tally.of("pi").in_flight == len(running)
        assert tally.of("pi").trial_held == any(running)
    for is_trial in running:
        tally.end("pi", is_trial=is_trial)
    assert (tally.of("pi").in_flight, tally.of("pi").trial_held) == (0, False)


def test_another_address_begins_without_evidence_and_pace() -> None:
    tally = Tally()
    tally.evidence_of("pi").on_probe(100.0, 103.0, is_good=False)
    for _ in range(10):
        tally.of("pi").pace.add(4000, 2.0)
    tally.renew("pi")
    assert tally.evidence_of("pi").failed == 0
    assert tally.of("pi").pace.expected_s(4000) is None


def test_what_a_backend_tells_of_its_load_is_kept_as_the_part_that_is_not_ours() -> None:
    tally = Tally()
    for _ in range(3):
        tally.begin("pi", is_trial=False)
    tally.learn_load("pi", load=8, queued=2, in_flight=1)
    assert (tally.of("pi").queued_elsewhere, tally.of("pi").queued) == (5, 2)
    tally.end("pi", is_trial=False)
    assert tally.of("pi").queued_elsewhere == 5, "ours came and went, others' did not"


def test_ours_that_ended_while_the_backend_was_asked_are_not_others() -> None:
    tally = Tally()
    tally.learn_load("pi", load=4, queued=0, in_flight=4)
    assert tally.of("pi").queued_elsewhere == 0
    tally.learn_load("pi", load=2, queued=0, in_flight=4)
    assert tally.of("pi").queued_elsewhere == 0


def test_load_that_is_too_old_is_forgotten_and_so_is_that_of_another_address() -> None:
    tally = Tally()
    tally.learn_load("pi", load=4, queued=3, in_flight=0)
    tally.forget_load("pi")
    assert (tally.of("pi").queued_elsewhere, tally.of("pi").queued) == (0, 0)
    tally.learn_load("pi", load=4, queued=3, in_flight=0)
    tally.renew("pi")
    assert (tally.of("pi").queued_elsewhere, tally.of("pi").queued) == (0, 0)


def test_forgetting_the_load_of_a_backend_that_is_gone_does_not_bring_it_back() -> None:
    tally = Tally()
    tally.forget_load("pi")
    assert tally._by_name == {}
