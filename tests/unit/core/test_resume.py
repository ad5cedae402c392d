"""Who goes on with a broken answer: another backend at once, the same one when it is back, nobody when it makes no sense."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest

from support.targets import CHAT, DOWN, UP, snapshot_of, target
from understudy.core.color import Color
from understudy.core.commands import Abort, Command, Resume, Wait
from understudy.core.resume import BARREN_MAX, RESUMES_MAX, Resumption
from understudy.core.retry import AGAIN_INTERVAL_S
from understudy.core.snapshot import FailoverRules, Target
from understudy.core.tally import Tally
from understudy.core.transcript import Refusal
from understudy.errors import Failure, FailureKind

START_S = 1000.0
HOLD_S = 5.0
CUT, REFUSED = FailureKind.BODY_CUT, FailureKind.REFUSED


class Play:
    """A resumption with a clock; what it commands is kept in `command`."""

    def __init__(self, *pool: Target) -> None:
        self.pool(*pool)
        self.tally = Tally()
        self.now_s = START_S
        self.resumption = Resumption(CHAT)
        self.command: Command | None = None

    def pool(self, *pool: Target) -> None:
        self.snapshot = snapshot_of(*pool, failover=FailoverRules(hold_s=HOLD_S))

    def breaks(self, name: str, kind: FailureKind = CUT) -> None:
        failure = Failure(kind, name, was_sent=True)
        self.command = self.resumption.on_break(failure, self.snapshot, self.tally, self.now_s)

    def fails(self, kind: FailureKind) -> None:
        failure = Failure(kind, self.name, was_sent=kind is not REFUSED)
        self.command = self.resumption.on_failure(failure, self.snapshot, self.tally, self.now_s)

    def wakes(self) -> None:
        assert isinstance(self.command, Wait), self.command
        assert self.command.until_s > self.now_s
        self.now_s = self.command.until_s
        self.command = self.resumption.on_wake(self.snapshot, self.tally, self.now_s)

    @property
    def name(self) -> str:
        assert isinstance(self.command, Resume), self.command
        return self.command.choice.target.backend.name


def test_another_backend_goes_on_at_once() -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0")
    assert play.name == "gpu1"


def test_a_backend_that_broke_may_go_on_once_the_others_have_yielded_something() -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0")
    play.resumption.on_content()
    play.breaks("gpu1")
    assert play.name == "gpu0"


def test_the_only_backend_is_waited_for_and_asked_at_a_pace_until_hold_is_over() -> None:
    play = Play(target(0, UP))
    play.breaks("gpu0")
    asked_at_s: list[float] = []
    while not isinstance(play.command, Abort):
        if isinstance(play.command, Wait):
            play.wakes()
            continue
        assert play.name == "gpu0"
        asked_at_s.append(play.now_s)
        play.fails(REFUSED)
    assert asked_at_s[0] == pytest.approx(START_S + AGAIN_INTERVAL_S)
    assert all(later - sooner >= AGAIN_INTERVAL_S - 1e-6 for sooner, later in pairwise(asked_at_s))
    assert play.now_s == pytest.approx(START_S + HOLD_S)
    assert play.command.refusal is Refusal.NO_BACKEND


def test_a_backend_that_is_down_is_asked_as_soon_as_it_is_back() -> None:
    play = Play(target(0, DOWN))
    play.breaks("gpu0")
    play.wakes()
    assert isinstance(play.command, Wait)
    play.pool(target(0, UP))
    play.command = play.resumption.on_wake(play.snapshot, play.tally, play.now_s)
    assert play.name == "gpu0"


def test_continuations_that_yield_nothing_are_few() -> None:
    play = Play(*(target(i, UP) for i in range(5)))
    play.breaks("gpu0")
    for _ in range(BARREN_MAX - 1):
        play.fails(CUT)
        assert isinstance(play.command, Resume)
    play.fails(CUT)
    assert play.command == Abort(CUT, 502, refusal=Refusal.BARREN)


def test_refused_connections_are_no_barren_continuations() -> None:
    play = Play(*(target(i, UP) for i in range(6)))
    play.breaks("gpu0")
    names = []
    for _ in range(5):
        names.append(play.name)
        play.fails(REFUSED)
    assert names == ["gpu1", "gpu2", "gpu3", "gpu4", "gpu5"]
    assert isinstance(play.command, Wait)


def test_who_cannot_continue_a_text_is_not_asked_again() -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0")
    play.fails(FailureKind.RESUME_REFUSED)
    play.wakes()
    assert play.name == "gpu0"
    play.fails(FailureKind.RESUME_REFUSED)
    assert play.command == Abort(FailureKind.RESUME_REFUSED, 502)


def test_a_stale_connection_is_repeated_on_a_fresh_one() -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0")
    play.fails(FailureKind.STALE_REUSE)
    assert play.name == "gpu1"
    assert isinstance(play.command, Resume)
    assert play.command.is_fresh


def test_who_has_not_broken_this_answer_goes_on_before_one_who_has() -> None:
    play = Play(*(target(i, UP) for i in range(3)))
    play.breaks("gpu0")
    assert play.name == "gpu1"
    play.resumption.on_content()
    play.breaks("gpu1")
    assert play.name == "gpu2"


def test_an_answer_of_very_many_parts_ends() -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0")
    parts = 0
    while isinstance(play.command, Resume):
        parts += 1
        play.resumption.on_content()
        play.breaks(play.name)
    assert parts == RESUMES_MAX


@pytest.mark.parametrize("kind", [FailureKind.TOTAL_TIMEOUT, FailureKind.STOPPING])
def test_what_no_other_backend_can_mend_ends_the_answer(kind: FailureKind) -> None:
    play = Play(target(0, UP), target(1, UP))
    play.breaks("gpu0", kind)
    assert isinstance(play.command, Abort)


def test_its_own_color_goes_on_before_another_and_another_before_nobody() -> None:
    def of(number: int, color: Color) -> Target:
        one = target(number, UP)
        return replace(one, backend=replace(one.backend, color=color, in_flight_max=1))

    play = Play(of(0, Color.BLUE), of(1, Color.GREEN), of(2, Color.GREEN))
    play.resumption = Resumption(msgspec.structs.replace(CHAT, color="green"))
    play.breaks("gpu1")
    assert play.name == "gpu2"
    full = Play(of(0, Color.BLUE), of(1, Color.GREEN), of(2, Color.GREEN))
    full.resumption = Resumption(msgspec.structs.replace(CHAT, color="green"))
    full.tally.begin("gpu1", is_trial=False)
    full.tally.begin("gpu2", is_trial=False)
    full.breaks("gpu1")
    assert full.name == "gpu0"
