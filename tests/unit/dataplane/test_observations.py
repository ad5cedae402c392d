"""What attempts show of the backends, and what follows from it."""

from typing import cast

import pytest

from support.stage import Stage, chat
from support.targets import CHAT, DOWN, UP, snapshot_of, target, targets
from understudy.core.snapshot import HealthRules, Published, Target
from understudy.core.tally import Tally
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.observations import DOUBT_S, PACE_INTERVAL_S, SUCCESS_TOLD_S, Observations
from understudy.errors import MEANING, Blame, FailureKind, Side

K = FailureKind
NOW_S = 1000.0


class Seen:
    """Observations of some backends, and who was told what."""

    def __init__(self, *pool: Target) -> None:
        self.tally = Tally()
        self.told: list[tuple[object, ...]] = []
        self.observations = Observations(Published(snapshot_of(*(pool or targets(2)))), self.tally, self)

    def observe(self, name: str, kind: FailureKind | None) -> None:
        """Keep what traffic has shown."""
        self.told.append((name, kind))

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Keep the event."""
        self.told.append((event, fields))

    def weigh(self, kind: FailureKind, retry_after_s: float = 0.0, name: str = "gpu0") -> None:
        """Let an attempt fail."""
        self.observations.weigh(name, CHAT, kind, retry_after_s, NOW_S)


@pytest.mark.parametrize("kind", [kind for kind, meaning in MEANING.items() if meaning.blame is Blame.YES])
def test_failure_that_is_the_backends_own_counts_against_it(kind: FailureKind) -> None:
    seen = Seen()
    seen.weigh(kind)
    assert (seen.tally.of("gpu0").failures_total, seen.told) == (1, [("gpu0", kind)])


@pytest.mark.parametrize("kind", [kind for kind, meaning in MEANING.items() if meaning.blame is not Blame.YES])
def test_any_other_failure_does_not(kind: FailureKind) -> None:
    seen = Seen()
    seen.weigh(kind)
    one = seen.tally.of("gpu0")
    assert (one.failures_total, one.ejected_until_s, one.rest_until_s) == (0, 0.0, 0.0)
    is_doubted = MEANING[kind].side is Side.UPSTREAM and kind is not K.STALE_REUSE
    assert one.suspect_until_s == (NOW_S + DOUBT_S if is_doubted else 0.0)


@pytest.mark.parametrize(("kind", "rests"), [(K.BUSY, True), (K.LOADING, True), (K.UNSUPPORTED, False)])
def test_backend_rests_when_it_says_how_long(kind: FailureKind, rests: bool) -> None:
    seen = Seen()
    seen.weigh(kind, 30.0)
    assert seen.tally.of("gpu0").rest_until_s == (NOW_S + 30.0 if rests else 0.0)


@pytest.mark.parametrize(("kind", "is_told"), [(K.MODEL_MISSING, True), (K.LOADING, True), (K.BUSY, False)])
def test_what_a_probe_should_look_at_is_told(kind: FailureKind, is_told: bool) -> None:
    seen = Seen()
    seen.weigh(kind)
    assert seen.told == ([("gpu0", kind)] if is_told else [])


def test_backend_that_fails_again_and_again_is_ejected_and_told() -> None:
    rules = HealthRules(max_fails=2, fail_timeout_s=10.0)
    seen = Seen(target(0, health=rules), target(1, health=rules))
    seen.weigh(K.REFUSED)
    seen.weigh(K.REFUSED)
    ejected = ("backend.was_ejected", {"backend": "gpu0", "reason": "refused the connection", "for_s": 10.0})
    assert seen.told == [("gpu0", K.REFUSED), ejected, ("gpu0", K.REFUSED)]


def test_only_backend_is_not_ejected() -> None:
    seen = Seen(target(0, health=HealthRules(max_fails=1)), target(1, DOWN))
    seen.weigh(K.REFUSED)
    assert seen.tally.of("gpu0").ejected_until_s == 0.0


def test_backend_that_is_gone_is_not_blamed() -> None:
    seen = Seen()
    seen.weigh(K.REFUSED, name="gone")
    assert seen.told == []
    assert seen.tally.of("gone").failures_total == 0


def test_backend_is_down_by_its_condition_only() -> None:
    seen = Seen(target(0, UP), target(1, DOWN))
    assert [seen.observations.is_down(name) for name in ("gpu0", "gpu1", "gone")] == [False, True, False]


# --- successes


async def running(monkeypatch: pytest.MonkeyPatch, *, is_resume: bool = False, is_streamed: bool = True) -> RunningAttempt:
    """Return an attempt that had its first content two seconds after it was sent."""
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat())
    (exchange,) = stage.relay.running
    attempt = cast("RunningAttempt", exchange.attempt)
    attempt.sent_at_s, attempt.content_at_s = NOW_S - 3.0, NOW_S - 1.0
    attempt.is_resume, attempt.is_streamed = is_resume, is_streamed
    return attempt


async def test_success_is_measured_and_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, seen = await running(monkeypatch), Seen()
    for now_s in (NOW_S, NOW_S + SUCCESS_TOLD_S / 2, NOW_S + SUCCESS_TOLD_S * 2):
        seen.observations.credit(attempt, 100, now_s)
    assert seen.told == [("gpu0", None), ("gpu0", None)]
    assert seen.tally.of("gpu0").ttft_ewma_s == pytest.approx(2.0)


async def test_success_ends_an_ejection_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, seen = await running(monkeypatch), Seen()
    seen.tally.of("gpu0").ejected_until_s = NOW_S - 1.0
    seen.observations.credit(attempt, 100, NOW_S)
    assert seen.told == [("backend.returned", {"backend": "gpu0"}), ("gpu0", None)]


@pytest.mark.parametrize(
    ("is_resume", "is_streamed", "expected_s"), [(False, True, 2.0), (True, True, None), (False, False, None)]
)
async def test_pace_is_learnt_from_first_streams_only(
    monkeypatch: pytest.MonkeyPatch, is_resume: bool, is_streamed: bool, expected_s: float | None
) -> None:
    attempt, seen = await running(monkeypatch, is_resume=is_resume, is_streamed=is_streamed), Seen()
    for number in range(30):
        seen.observations.credit(attempt, 100, NOW_S + number)
    assert seen.tally.of("gpu0").pace.expected_s(100) == expected_s


async def test_of_many_answers_at_once_one_tells_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, seen = await running(monkeypatch), Seen()
    for _ in range(30):
        seen.observations.credit(attempt, 100, NOW_S)
    assert seen.tally.of("gpu0").pace.expected_s(100) is None
    for number in range(30):
        seen.observations.credit(attempt, 100, NOW_S + PACE_INTERVAL_S * (number + 1) * 1.01)
    assert seen.tally.of("gpu0").pace.expected_s(100) == 2.0
