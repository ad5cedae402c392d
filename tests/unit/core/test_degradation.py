"""Plays of one backend's answers: when it is found slow, when it is not, and when it is over."""

from dataclasses import replace

import pytest

from understudy.core.degradation import HELD_BACK, HELD_MAX, QUIET_S, RECENT_S, Degradation, Grade, Look
from understudy.core.usual_pace import SPEEDS_MIN, Measured

USUAL = Measured("m", prompt_bytes=1000, first_content_s=1.0, speed=100.0)
SLOW = replace(USUAL, speed=20.0, first_content_s=5.0)
EVERY_S = 5.0


class Play:
    """One backend; `now_s` moves on with every answer."""

    def __init__(self, known: int = 120, usual: Measured = USUAL) -> None:
        self.degradation = Degradation()
        self.now_s = 1000.0
        self.looks: list[Look] = []
        self.answer(usual, known)
        assert {look.grade for look in self.looks} <= {Grade.SOUND}

    def answer(self, one: Measured, count: int = 1, every_s: float = EVERY_S) -> Grade:
        for _ in range(count):
            self.now_s += every_s
            self.degradation.add(one, self.now_s)
            self.looks.append(self.degradation.look(self.now_s))
        return self.degradation.grade

    def count_until(self, grade: Grade, one: Measured, most: int = 60) -> int:
        for count in range(1, most + 1):
            if self.answer(one) is grade:
                return count
        raise AssertionError(f"not {grade} after {most} answers")


def test_a_few_slow_answers_are_suspicious_and_many_are_a_degradation() -> None:
    play = Play()
    assert 4 <= play.count_until(Grade.SUSPICIOUS, SLOW) <= 8
    assert 6 <= play.count_until(Grade.DEGRADED, SLOW) <= 16


def test_the_words_say_by_how_much() -> None:
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    words = play.looks[-1].words
    assert words == (
        "writes 20 bytes/s, 20% of its usual 100 (median of 12 answers); "
        "begins after 5 s, usually within 1 s (median of 12 answers)"
    )
    assert play.degradation.look(play.now_s) == Look(Grade.DEGRADED)


def test_a_hiccup_that_holds_up_many_answers_at_once_is_none() -> None:
    play = Play()
    assert play.answer(SLOW, 60, every_s=0.05) is not Grade.DEGRADED
    assert play.answer(USUAL, 20) is Grade.SOUND


def test_a_backend_whose_usual_pace_is_not_known_is_not_judged() -> None:
    play = Play(known=HELD_BACK + 2)
    assert play.answer(SLOW, SPEEDS_MIN - 3) is Grade.SOUND
    assert Play(known=HELD_BACK + SPEEDS_MIN).answer(SLOW, 12) is not Grade.SOUND


def test_a_slow_time_does_not_become_the_usual() -> None:
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    assert play.answer(SLOW, 500) is Grade.DEGRADED
    play.degradation.begin_trial(play.now_s)
    assert play.answer(USUAL, 10) is Grade.SOUND


def test_what_is_somewhat_slower_neither_alarms_nor_ends_an_alarm() -> None:
    play = Play()
    assert play.answer(replace(USUAL, speed=60.0), 40) is Grade.SOUND
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    assert play.answer(replace(USUAL, speed=60.0), 40) is Grade.DEGRADED
    assert play.answer(replace(USUAL, speed=75.0), 8) is Grade.SOUND


def test_a_suspicion_passes_by_itself() -> None:
    play = Play()
    play.count_until(Grade.SUSPICIOUS, SLOW)
    assert play.answer(USUAL, 8) is Grade.SOUND


def test_a_board_at_home_with_an_answer_every_few_minutes_is_found_out_too() -> None:
    play = Play()
    assert play.answer(SLOW, 20, every_s=300.0) is Grade.DEGRADED
    play = Play()
    play.count_until(Grade.SUSPICIOUS, SLOW)
    assert play.answer(USUAL, 12, every_s=300.0) is Grade.SOUND


def test_a_suspicion_that_no_answer_speaks_of_any_more_is_over_and_what_is_asked_now_is_learnt() -> None:
    """Its clients use another model."""
    other = replace(USUAL, model="other")
    play = Play()
    play.count_until(Grade.SUSPICIOUS, SLOW)
    assert play.answer(other, int(QUIET_S / EVERY_S) + 100) is Grade.SOUND
    assert play.answer(replace(SLOW, model="other"), 20) is Grade.DEGRADED


def test_a_trial_of_one_whose_model_is_gone_ends_after_a_while() -> None:
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    play.degradation.begin_trial(play.now_s)
    assert play.answer(replace(USUAL, model="other"), int(QUIET_S / EVERY_S) + 1) is Grade.SOUND


# --- like with like


def test_more_streams_at_once_are_compared_with_as_many_and_never_with_fewer() -> None:
    play = Play()
    crowded = replace(SLOW, waiting_load=8.0, writing_load=8.0, writers=8.0)
    assert play.answer(crowded, 100) is Grade.SOUND
    assert play.count_until(Grade.DEGRADED, replace(crowded, speed=4.0)) <= 30


def test_fewer_streams_are_compared_with_more_where_that_is_all_that_is_known() -> None:
    play = Play(usual=replace(USUAL, waiting_load=3.0, writing_load=3.0))
    assert play.count_until(Grade.DEGRADED, SLOW) <= 30


def test_larger_prompts_are_compared_with_as_large_ones() -> None:
    play = Play()
    large = Measured("m", prompt_bytes=64_000, first_content_s=60.0, speed=25.0)
    assert play.answer(large, 100) is Grade.SOUND
    assert play.count_until(Grade.DEGRADED, replace(large, speed=5.0)) <= 30


def test_every_model_has_its_own_pace() -> None:
    play = Play()
    assert play.answer(replace(SLOW, model="big"), 100) is Grade.SOUND
    assert play.count_until(Grade.DEGRADED, replace(SLOW, model="big", speed=4.0)) <= 30


def test_only_so_many_models_are_remembered() -> None:
    play = Play()
    for number in range(8):
        play.answer(replace(USUAL, model=f"other-{number}"), 40)
    assert play.answer(SLOW, 12) is Grade.SOUND


def test_the_model_that_is_asked_for_is_not_forgotten_for_others() -> None:
    play = Play()
    for number in range(20):
        play.answer(replace(USUAL, model=f"other-{number}"), 20)
        play.answer(USUAL, 4)
    assert play.answer(SLOW, 20) is Grade.DEGRADED


def test_what_lies_between_an_answer_and_its_being_learnt_is_bounded() -> None:
    """However many answers there are a second, a slow time is found out before it is learnt."""
    play = Play()
    assert play.answer(SLOW, 2000, every_s=0.01) is not Grade.SOUND
    assert len(play.degradation._held) == 0
    play = Play()
    play.answer(USUAL, 2000, every_s=0.01)
    assert len(play.degradation._held) == HELD_MAX


# --- first contents


def test_late_first_contents_alone_are_a_degradation_where_no_speed_is_known() -> None:
    usual = replace(USUAL, speed=0.0)
    play = Play(usual=usual)
    assert play.count_until(Grade.DEGRADED, replace(usual, first_content_s=5.0)) <= 30
    assert play.answer(usual, 10) is Grade.SOUND


def test_late_first_contents_of_one_that_writes_as_fast_as_ever_are_none() -> None:
    """Prompts that are in no cache any more, or other work on the machine: the backend itself is well."""
    play = Play()
    assert play.answer(replace(USUAL, first_content_s=20.0), 60) is Grade.SOUND


def test_late_first_contents_of_short_prompts_tell_also_where_it_writes_as_fast_as_ever() -> None:
    """No cache makes such a difference there."""
    usual = replace(USUAL, prompt_bytes=200)
    late = replace(usual, first_content_s=5.0)
    play = Play(usual=usual)
    assert play.count_until(Grade.DEGRADED, late) <= 20
    assert play.looks[-1].words == "begins after 5 s, usually within 1 s (median of 12 answers)"
    beside = replace(usual, waiting_load=3.0, lasted_s=10.0)
    play = Play(known=40, usual=beside)
    play.answer(usual, 40)
    play.count_until(Grade.DEGRADED, replace(beside, first_content_s=5.0))
    assert play.looks[-1].words == "begins after 5 s, usually within 1 s (median of 12 answers)", "those that were alone are none"
    assert play.answer(late, 20) is Grade.DEGRADED
    play.degradation.begin_trial(play.now_s)
    assert play.answer(late, 12) is Grade.DEGRADED
    play.degradation.begin_trial(play.now_s)
    assert play.answer(usual, 5) is Grade.SOUND


def test_first_contents_that_waited_for_others_are_not_compared() -> None:
    usual = replace(USUAL, speed=0.0)
    play = Play(usual=usual)
    assert play.answer(replace(usual, first_content_s=30.0, waiting_load=3.0), 60) is Grade.SOUND


def test_a_fraction_of_a_second_is_nothing_however_many_times_the_usual() -> None:
    usual = replace(USUAL, speed=0.0, first_content_s=0.01)
    play = Play(usual=usual)
    assert play.answer(replace(usual, first_content_s=0.15), 60) is Grade.SOUND


# --- trials


def test_a_trial_is_for_the_degraded_only() -> None:
    play = Play()
    play.degradation.begin_trial(play.now_s)
    assert not play.degradation.is_on_trial


@pytest.mark.parametrize(("speed", "grade", "most"), [(20.0, Grade.DEGRADED, 4), (100.0, Grade.SOUND, 5)])
def test_on_trial_a_few_answers_decide(speed: float, grade: Grade, most: int) -> None:
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    play.degradation.begin_trial(play.now_s)
    assert (play.degradation.grade, play.degradation.is_on_trial) == (Grade.SUSPICIOUS, True)
    assert play.count_until(grade, replace(USUAL, speed=speed)) <= most
    assert not play.degradation.is_on_trial


@pytest.mark.parametrize(("speed", "grade"), [(55.0, Grade.DEGRADED), (65.0, Grade.SOUND)])
def test_a_trial_that_goes_neither_well_nor_badly_ends_all_the_same(speed: float, grade: Grade) -> None:
    play = Play()
    play.count_until(Grade.DEGRADED, SLOW)
    play.degradation.begin_trial(play.now_s)
    assert play.count_until(grade, replace(USUAL, speed=speed)) == 12


def test_old_answers_say_nothing_of_now() -> None:
    play = Play()
    play.answer(SLOW, 3)
    play.now_s += RECENT_S
    assert play.answer(SLOW, 3) is Grade.SOUND
