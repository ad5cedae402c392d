"""Which deadline has passed, and what is suspect before that: one play a bound, before and after it."""

import msgspec
import pytest

from understudy.core.deadlines import (
    HEDGED_BYTES_MAX,
    IN_TIME,
    SILENCE_OF_REFUSING_S,
    SUSPECT,
    Look,
    Standing,
    is_hedge_due,
    is_over,
    late_after_s,
    look,
    suspicion_s,
)
from understudy.core.evidence import Evidence
from understudy.core.pace import Pace
from understudy.core.snapshot import Timeouts
from understudy.errors import FailureKind

BOUNDS = Timeouts(connect_s=2.0, first_token_s=120.0, stall_s=30.0, total_s=600.0)
SENT = Standing(sent_at_s=1000.0, progress_at_s=1000.0, is_connecting=False, is_begun=False)
CONNECTING = msgspec.structs.replace(SENT, is_connecting=True)
BEGUN = msgspec.structs.replace(SENT, is_begun=True)


@pytest.mark.parametrize(
    ("standing", "bound_s", "kind"),
    [
        (CONNECTING, 2.0, FailureKind.CONNECT_TIMEOUT),
        (SENT, 120.0, FailureKind.FIRST_TOKEN_TIMEOUT),
        (BEGUN, 30.0, FailureKind.STALLED),
    ],
)
def test_each_phase_has_its_own_bound(standing: Standing, bound_s: float, kind: FailureKind) -> None:
    assert look(standing, BOUNDS, 1000.0 + bound_s).kind is None
    assert look(standing, BOUNDS, 1000.1 + bound_s).kind is kind


def test_progress_is_what_silence_is_counted_from() -> None:
    moving = msgspec.structs.replace(BEGUN, progress_at_s=1100.0)
    assert look(moving, BOUNDS, 1130.0).kind is None
    assert look(moving, BOUNDS, 1130.1).kind is FailureKind.STALLED


def test_earlier_attempts_do_not_count_against_the_connecting_one() -> None:
    assert look(msgspec.structs.replace(CONNECTING, sent_at_s=1100.0), BOUNDS, 1101.0) == IN_TIME


def test_exchange_has_no_total_bound_unless_one_is_set() -> None:
    assert not is_over(0.0, Timeouts(total_s=0.0), 1e9)
    assert is_over(0.0, Timeouts(total_s=1.0), 1.1)


# --- suspicion and verdict: what `look` tells at so many seconds of silence

LOST = Look(FailureKind.STALLED)
LATE = Look(FailureKind.FIRST_TOKEN_TIMEOUT)


def probed(*failed_at_s: float, is_refusing: bool = False, moved_at_s: float = 0.0) -> Evidence:
    """Evidence of a good probe long ago and of failed ones that began at these times after the last piece."""
    evidence = Evidence()
    evidence.on_probe(1.0, 1.1, is_good=True)
    for at_s in failed_at_s:
        ended_s = at_s if is_refusing else at_s + 3.0
        evidence.on_probe(1000.0 + at_s, 1000.0 + ended_s, is_good=False, is_refusing=is_refusing)
    if moved_at_s:
        evidence.on_moved(1000.0 + moved_at_s)
    return evidence


def paced(first_content_s: float) -> Pace:
    """A pace of prompts of 4000 bytes that took so long each."""
    pace = Pace()
    for _ in range(10):
        pace.add(4000, first_content_s)
    return pace


def stream(evidence: Evidence | None) -> Standing:
    return msgspec.structs.replace(BEGUN, evidence=evidence)


def prompt(evidence: Evidence | None = None, *, first_content_s: float = 4.0, is_down: bool = False) -> Standing:
    return msgspec.structs.replace(SENT, evidence=evidence, pace=paced(first_content_s), prompt_bytes=4000, is_down=is_down)


@pytest.mark.parametrize(
    ("evidence", "silent_s", "told"),
    [
        (None, 1.5, IN_TIME),
        (None, 1.6, SUSPECT),
        (None, 30.0, SUSPECT),
        (None, 30.1, LOST),
        (probed(), 29.0, SUSPECT),
        # Frozen: the probe that follows the suspicion is not answered.
        (probed(1.6), 1.5, IN_TIME),
        (probed(1.6), 4.6, LOST),
        # A probe on its way since before the last piece says nothing of what came after it.
        (probed(-0.1), 4.6, SUSPECT),
        # Told to stop: the listener is closed, the stream left open.
        (probed(1.6, is_refusing=True), 1.9, SUSPECT),
        (probed(1.6, is_refusing=True), SILENCE_OF_REFUSING_S, LOST),
        # It drains: the listener is closed, and other streams go on.
        (probed(1.6, 3.0, is_refusing=True, moved_at_s=2.9), 3.1, SUSPECT),
        (probed(1.6, 3.0, 4.0, is_refusing=True, moved_at_s=2.9), 4.1, LOST),
    ],
)
def test_a_silent_stream_is_suspect_before_it_is_lost(evidence: Evidence | None, silent_s: float, told: Look) -> None:
    assert look(stream(evidence), BOUNDS, 1000.0 + silent_s) == told


@pytest.mark.parametrize(
    ("standing", "silent_s", "told"),
    [
        # Slow prompts of this size took 4 s, so 12 s are late.
        (prompt(), 12.0, IN_TIME),
        (prompt(), 12.1, SUSPECT),
        (prompt(probed()), 119.9, SUSPECT),
        (prompt(probed()), 120.1, LATE),
        # One unanswered probe may be the prompt's own doing, a second one is not.
        (prompt(probed(12.5)), 16.0, SUSPECT),
        (prompt(probed(9.0, 12.5)), 16.0, LATE),
        (prompt(probed(5.0, 9.0)), 16.0, SUSPECT),
        # Its figures or its other streams show that it works.
        (prompt(probed(9.0, 12.5, moved_at_s=13.0)), 16.0, SUSPECT),
        # A fast backend is given the floor.
        (prompt(first_content_s=0.1), 5.0, IN_TIME),
        (prompt(first_content_s=0.1), 5.1, SUSPECT),
        # A slow one the bound and no more.
        (prompt(first_content_s=110.0), 120.0, IN_TIME),
        (prompt(first_content_s=110.0), 120.1, LATE),
        # The listener is closed, and the answer has not begun.
        (prompt(probed(0.5, is_refusing=True)), 1.9, IN_TIME),
        (prompt(probed(0.5, is_refusing=True)), 2.1, LATE),
        (prompt(probed(-0.5, is_refusing=True)), 2.1, IN_TIME),
    ],
)
def test_a_late_first_content_is_given_up_only_where_the_backend_shows_nothing(
    standing: Standing, silent_s: float, told: Look
) -> None:
    assert look(standing, BOUNDS, 1000.0 + silent_s) == told


def test_without_measurements_nothing_is_late_before_the_bound() -> None:
    unknown = msgspec.structs.replace(SENT, evidence=probed(9.0, 12.5), pace=Pace(), prompt_bytes=4000)
    assert look(unknown, BOUNDS, 1120.0) == IN_TIME
    assert look(unknown, BOUNDS, 1120.1) == LATE


def test_a_backend_that_went_down_meanwhile_is_given_a_quarter_of_the_bound() -> None:
    down = msgspec.structs.replace(SENT, evidence=probed(3.0, 6.0, 30.5), is_down=True)
    assert look(down, BOUNDS, 1030.0) == IN_TIME
    assert look(down, BOUNDS, 1034.0) == LATE
    unproven = msgspec.structs.replace(SENT, evidence=probed(3.0, 6.0), is_down=True)
    assert look(unproven, BOUNDS, 1034.0) == SUSPECT


def test_a_prompt_that_has_its_model_loaded_first_is_given_the_time_for_it() -> None:
    pace = paced(1.0)
    cold = msgspec.structs.replace(SENT, pace=pace, prompt_bytes=4000, is_loaded=False)
    assert look(cold, BOUNDS, 1119.0) == IN_TIME
    for load_s in (15.0, 19.0):
        pace.add(4000, load_s, is_loaded=False)
    assert look(cold, BOUNDS, 1060.0) == IN_TIME
    assert look(cold, BOUNDS, 1060.1) == SUSPECT


def test_connecting_has_a_bound_and_no_suspicion() -> None:
    assert look(CONNECTING, BOUNDS, 1002.0) == IN_TIME
    assert look(CONNECTING, BOUNDS, 1002.1) == Look(FailureKind.CONNECT_TIMEOUT)


def test_a_bound_shorter_than_any_suspicion_is_the_bound() -> None:
    tight = Timeouts(first_token_s=0.5, stall_s=0.5)
    assert look(stream(None), tight, 1000.6) == LOST
    assert look(prompt(), tight, 1000.6) == LATE


@pytest.mark.parametrize(
    ("standing", "first_token_s", "late_s"),
    [
        (prompt(first_content_s=4.0), 120.0, 12.0),
        (prompt(first_content_s=0.1), 120.0, 5.0),
        (prompt(first_content_s=110.0), 120.0, 120.0),
        (prompt(first_content_s=110.0, is_down=True), 120.0, 30.0),
        (prompt(first_content_s=0.1, is_down=True), 120.0, 5.0),
        (prompt(first_content_s=4.0), 8.0, 8.0),
    ],
)
def test_lateness_lies_between_the_floor_and_the_bound(standing: Standing, first_token_s: float, late_s: float) -> None:
    assert late_after_s(standing, Timeouts(first_token_s=first_token_s)) == pytest.approx(late_s)


def test_a_backend_that_is_down_may_be_late_before_the_floor() -> None:
    assert look(prompt(is_down=True), Timeouts(first_token_s=8.0), 1002.1) == SUSPECT


@pytest.mark.parametrize(("stall_s", "after_s"), [(30.0, 1.5), (120.0, 6.0), (10.0, 1.0)])
def test_suspicion_is_a_share_of_the_bound_and_never_hasty(stall_s: float, after_s: float) -> None:
    assert suspicion_s(Timeouts(stall_s=stall_s)) == pytest.approx(after_s)


def test_a_hedge_is_due_once_a_short_prompt_is_later_than_nearly_all_of_its_size() -> None:
    pace = Pace()
    assert not is_hedge_due(pace, 100, 60.0)
    for _ in range(40):
        pace.add(100, 0.5)
    assert not is_hedge_due(pace, 100, 0.5)
    assert is_hedge_due(pace, 100, 0.6)
    assert is_hedge_due(pace, HEDGED_BYTES_MAX, 0.6)
    assert not is_hedge_due(pace, HEDGED_BYTES_MAX + 1, 0.6)
