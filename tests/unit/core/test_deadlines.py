"""Which deadline has passed: one play a bound, before and after it."""

import msgspec
import pytest

from understudy.core.deadlines import SILENCE_OF_REFUSING_S, Standing, is_over, overdue
from understudy.core.snapshot import Timeouts
from understudy.errors import FailureKind

BOUNDS = Timeouts(connect_s=2.0, first_token_s=120.0, stall_s=30.0, total_s=600.0)
SENT = Standing(sent_at_s=1000.0, progress_at_s=1000.0, is_connecting=False, is_begun=False, is_refusing=False)
CONNECTING = msgspec.structs.replace(SENT, is_connecting=True)
BEGUN = msgspec.structs.replace(SENT, is_begun=True)
REFUSING = msgspec.structs.replace(BEGUN, is_refusing=True)


@pytest.mark.parametrize(
    ("standing", "bound_s", "kind"),
    [
        (CONNECTING, 2.0, FailureKind.CONNECT_TIMEOUT),
        (SENT, 120.0, FailureKind.FIRST_TOKEN_TIMEOUT),
        (BEGUN, 30.0, FailureKind.STALLED),
        (REFUSING, SILENCE_OF_REFUSING_S, FailureKind.STALLED),
    ],
)
def test_each_phase_has_its_own_bound(standing: Standing, bound_s: float, kind: FailureKind) -> None:
    assert overdue(standing, BOUNDS, 1000.0 + bound_s) is None
    assert overdue(standing, BOUNDS, 1000.1 + bound_s) is kind


def test_progress_is_what_silence_is_counted_from() -> None:
    moving = msgspec.structs.replace(BEGUN, progress_at_s=1100.0)
    assert overdue(moving, BOUNDS, 1130.0) is None
    assert overdue(moving, BOUNDS, 1130.1) is FailureKind.STALLED


def test_earlier_attempts_do_not_count_against_the_connecting_one() -> None:
    assert overdue(msgspec.structs.replace(CONNECTING, sent_at_s=1100.0), BOUNDS, 1101.0) is None


def test_exchange_has_no_total_bound_unless_one_is_set() -> None:
    assert not is_over(0.0, Timeouts(total_s=0.0), 1e9)
    assert is_over(0.0, Timeouts(total_s=1.0), 1.1)
