"""Plays of what is usual: which answers are compared with which, and what is left unsaid."""

from dataclasses import replace

import pytest

from understudy.core.usual_pace import FIRSTS_MIN, KINDS_MAX, SPEEDS_MIN, STALLED_MAX, Measured, UsualPace

USUAL = Measured("m", 1000, 0.2, 100.0, pieces_s=25.0, lasted_s=2.0, rate=0.5)


def learnt(*answers: Measured, times: int = 24) -> UsualPace:
    """What is usual where these have come so often."""
    usual = UsualPace()
    for one in answers * times:
        usual.learn(one)
    return usual


def beside(writers: float, speed: float = 100.0, pieces_s: float = 25.0, rate: float = 0.5) -> Measured:
    """The usual answer beside others, as fast as alone unless told otherwise."""
    one = replace(USUAL, waiting_load=writers, writing_load=writers, writers=writers)
    return replace(one, speed=speed, pieces_s=pieces_s, rate=rate)


def test_an_answer_is_compared_with_its_kind() -> None:
    usual = learnt(USUAL)
    assert usual.share_of_speed(USUAL) == 1.0
    assert usual.share_of_speed(replace(USUAL, speed=20.0, pieces_s=5.0)) == pytest.approx(0.2)
    assert usual.share_of_speed(replace(USUAL, speed=0.0)) is None
    assert learnt(USUAL, times=SPEEDS_MIN - 1).share_of_speed(USUAL) is None


def test_tokens_of_another_length_are_no_other_speed() -> None:
    """Digits have a byte each; and an engine may put several tokens into an event while it is busy."""
    usual = learnt(USUAL)
    assert usual.share_of_speed(replace(USUAL, speed=25.0)) == pytest.approx(1.0)
    assert usual.share_of_speed(replace(USUAL, pieces_s=5.0)) == pytest.approx(1.0)


def test_an_easier_answer_is_compared_with_harder_ones_but_not_with_much_harder_ones() -> None:
    assert learnt(beside(3.0)).share_of_speed(USUAL) == pytest.approx(1.0)
    assert learnt(replace(USUAL, prompt_bytes=30_000)).share_of_speed(USUAL) == pytest.approx(1.0)
    assert learnt(beside(32.0)).share_of_speed(USUAL) is None
    assert learnt(USUAL).share_of_speed(replace(USUAL, prompt_bytes=30_000)) is None


def test_beside_more_than_ever_each_is_expected_its_part_of_what_fewer_had_together() -> None:
    usual = learnt(USUAL, beside(2.0))
    assert usual.share_of_speed(beside(8.0, speed=25.0, pieces_s=0.0, rate=0.0)) == pytest.approx(1.0)
    assert usual.share_of_speed(beside(8.0, speed=5.0, pieces_s=0.0, rate=0.0)) == pytest.approx(0.2)
    # Those that only wait take nothing of its speed.
    assert usual.share_of_speed(replace(beside(8.0, speed=100.0), writers=1.0)) == pytest.approx(1.0)


def test_one_that_has_more_at_once_only_because_it_is_slow_is_found_out_by_how_often_it_is_asked() -> None:
    """At a fifth of its speed it has some four at once where it had one, and each of them still has most of its part."""
    usual = learnt(USUAL)
    slow = beside(3.5, speed=20.0, pieces_s=5.0)
    assert usual.share_of_speed(slow) == pytest.approx(0.2)
    assert usual.share_of_speed(replace(slow, rate=0.0)) == pytest.approx(0.7)
    # Asked twice as often as ever it may well have four at once.
    assert usual.share_of_speed(replace(slow, rate=1.0)) == pytest.approx(0.7)
    # One that shares itself out, and has more clients than ever, is no slower than that.
    assert usual.share_of_speed(beside(4.0, speed=25.0, pieces_s=6.0)) == pytest.approx(1.0)


def test_more_prompts_than_usual_that_hold_an_answer_up_are_taken_out_of_its_time_or_leave_it_unsaid() -> None:
    usual = learnt(USUAL, times=FIRSTS_MIN)
    crowded = beside(4.0, speed=20.0, pieces_s=0.0, rate=0.0)
    assert usual.share_of_speed(crowded) == pytest.approx(0.8)
    # A prompt of that size takes 0.2 s at its pace, however long it was waited for.
    held_up = replace(crowded, stalls=((2.0, 1000),) * 4)
    assert usual.share_of_speed(held_up) == pytest.approx(0.8 / (1.0 - 0.4))
    assert usual.share_of_speed(replace(crowded, stalls=((2.0, 1000),) * int(STALLED_MAX / 0.1 + 1))) is None


def test_first_contents_are_compared_with_those_of_prompts_of_like_size_alone() -> None:
    usual = learnt(USUAL)
    assert usual.first_content_s(USUAL) == pytest.approx(0.2)
    assert usual.first_content_s(beside(2.0)) is None
    assert learnt(USUAL, times=FIRSTS_MIN - 1).first_content_s(USUAL) is None


def test_a_short_prompt_that_waits_longer_than_usual_beside_as_many_is_late() -> None:
    short = replace(beside(4.0), prompt_bytes=200)
    usual = learnt(short)
    assert usual.late_first_content(short) == pytest.approx((1.0, 0.2))
    assert usual.late_first_content(replace(short, first_content_s=1.0)) == pytest.approx((5.0, 0.2))
    # One that waits until others' answers end waits as much longer as these are.
    assert usual.late_first_content(replace(short, first_content_s=1.0, lasted_s=10.0)) == pytest.approx((1.0, 0.2))
    assert usual.late_first_content(replace(short, waiting_load=9.0)) is None, "far more at once"
    assert usual.late_first_content(replace(short, prompt_bytes=2000)) is None
    assert usual.late_first_content(replace(short, waiting_load=1.0)) is None, "alone it is compared with those alone"


def test_a_short_prompt_that_waits_beside_a_few_more_than_ever_is_late_where_they_cannot_be_why() -> None:
    """Late first contents alone make more at once of as many requests a second."""
    alone = replace(USUAL, prompt_bytes=200, lasted_s=0.6, first_content_s=0.1)
    usual = learnt(alone)
    late = usual.late_first_content(replace(alone, first_content_s=0.6, waiting_load=1.3))
    assert late == pytest.approx((6.0 / 1.3**2, 0.1))
    # Beside one more it may have waited for that one's end.
    assert usual.late_first_content(replace(alone, first_content_s=0.6, waiting_load=1.9)) is None
    assert usual.late_first_content(replace(alone, first_content_s=2.0, waiting_load=1.9)) == pytest.approx((20.0 / 1.9**2, 0.1))


def test_long_prompts_that_were_taken_in_before_a_short_one_are_no_delay_of_its_own() -> None:
    short = replace(beside(4.0), prompt_bytes=200)
    usual = learnt(short)
    late = replace(short, first_content_s=1.2)
    assert usual.late_first_content(replace(late, ahead=((1.0, 50_000),))) == pytest.approx((1.0, 0.2))
    assert usual.late_first_content(replace(late, ahead=((1.0, 200),))) == pytest.approx((6.0, 0.2))


def test_only_so_many_kinds_are_kept() -> None:
    usual = UsualPace()
    for size in (4, 16, 64, 256, 1024):
        for load in (1, 2, 4, 8, 16, 32, 64, 128):
            usual.learn(replace(USUAL, prompt_bytes=size * 2000, writing_load=float(load), rate=float(load)))
    assert (len(usual._by_load), len(usual._by_rate)) == (KINDS_MAX, KINDS_MAX)
