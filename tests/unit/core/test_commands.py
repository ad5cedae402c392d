"""The commands are values: two that say the same are the same."""

import pytest

from support.targets import UP, target
from understudy.core.balancer import Choice
from understudy.core.commands import Abort, Attempt, Command, Resume, Wait
from understudy.errors import FailureKind

CHOICE = Choice(target(0, UP), "qwen")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Attempt(CHOICE, is_fresh=False), Attempt(CHOICE, is_fresh=True)),
        (Resume(CHOICE), Resume(CHOICE, is_fresh=True)),
        (Wait(1.0, FailureKind.NO_ROOM), Wait(2.0, FailureKind.NO_ROOM)),
        (Abort(FailureKind.STALLED, 504), Abort(FailureKind.STALLED, 504, 1.0)),
        (Attempt(CHOICE, is_fresh=False), Resume(CHOICE)),
    ],
    ids=["attempt", "resume", "wait", "abort", "kind"],
)
def test_what_differs_in_one_word_is_another_command(one: Command, other: Command) -> None:
    assert one != other
    with pytest.raises(AttributeError):
        one.kind = FailureKind.BUSY  # type: ignore[union-attr,misc]  # frozen: that is the play
