"""Plays of backends that become slow: what is published and told, how they are tried, and what ends it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from support.targets import UP, target
from understudy.controlplane.degradation_watch import PAUSE_S, UNTRIED_S_MAX, DegradationWatch
from understudy.controlplane.means import Proof
from understudy.controlplane.publisher import Publisher
from understudy.core.degradation import Grade
from understudy.core.health import Seen
from understudy.core.snapshot import Duty, EngineKind, Published, RoutingPlan, RoutingSnapshot, Target
from understudy.core.tally import Tally
from understudy.core.usual_pace import Measured
from understudy.engines import Finding

USUAL = Measured("m", prompt_bytes=1000, first_content_s=1.0, speed=100.0)
SLOW = replace(USUAL, speed=20.0)
GOOD = Finding(Seen.GOOD, UP.engine, UP.version, UP.dialects, UP.models)


class Play:
    """One backend gpu0 whose usual pace is known, and its watch. `token_s` is how long a token takes; None: it fails."""

    def __init__(self, *, proves: bool = False, pool: tuple[Target, ...] = ()) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.token_s: float | None = 0.1
        self.asked = 0
        targets = pool or (target(0),)
        plan = RoutingPlan(tuple(one.backend for one in targets))
        self.published = Published(RoutingSnapshot(1, plan, targets))
        self.publisher = Publisher(self.published, lambda: self.now_s, lambda _: None, self.tell)
        self.tally = Tally()
        self.watch = DegradationWatch(
            self.publisher,
            self.tally,
            self.tell,
            lambda: self.now_s,
            prove=self.prove if proves else None,
        )
        self.watch.tick()
        self.answer(USUAL, 120)

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        self.told.append((event, fields))

    async def prove(self, name: str) -> Proof:
        self.asked += 1
        return Proof(is_good=self.token_s is not None, first_content_s=self.token_s or 0.0)

    def answer(self, one: Measured, count: int = 1, name: str = "gpu0") -> None:
        for _ in range(count):
            self.pass_time(5.0)
            self.watch.hear(name, one)
            self.watch.tick()

    def pass_time(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.watch.tick()

    async def wait(self, duration_s: float) -> None:
        """Let time pass; what was asked meanwhile is answered."""
        until_s = self.now_s + duration_s
        while self.now_s < until_s:
            self.pass_time(min(5.0, until_s - self.now_s))
            for _ in range(3):
                await asyncio.sleep(0)

    @property
    def is_degraded(self) -> bool:
        return self.published.current.targets[0].state.is_degraded

    @property
    def grade(self) -> Grade:
        return self.watch._watches["gpu0"].grade

    def events(self) -> list[str]:
        return [event for event, _ in self.told if event.startswith("backend.")]


def test_a_backend_that_became_slow_is_used_last_and_that_is_said_once() -> None:
    play = Play()
    assert not play.is_degraded
    play.answer(SLOW, 20)
    assert (play.is_degraded, play.grade) == (True, Grade.DEGRADED)
    ((event, fields),) = play.told
    words = "writes 20 bytes/s, 20% of its usual 100 (median of 12 answers)"
    assert (event, fields) == ("backend.was_degraded", {"backend": "gpu0", "reason": words, "was": "suspicious"})


def test_answers_of_nobody_are_nothing() -> None:
    play = Play()
    play.watch.hear("gpu9", SLOW)
    assert play.events() == []


def test_a_degraded_backend_is_tried_after_a_pause_and_comes_back_when_a_few_answers_are_well() -> None:
    play = Play()
    play.answer(SLOW, 20)
    began_at_s = play.now_s
    play.pass_time(PAUSE_S)
    assert (play.is_degraded, play.grade) == (False, Grade.SUSPICIOUS)
    play.answer(USUAL, 6)
    assert play.grade is Grade.SOUND
    assert play.events() == ["backend.was_degraded", "backend.recovered_pace"]
    assert play.told[-1][1]["backend"] == "gpu0"
    assert play.told[-1][1]["lasted_s"] == pytest.approx(play.now_s - began_at_s, abs=60.0)


def test_a_trial_that_goes_badly_is_followed_by_a_longer_pause_and_not_told_again() -> None:
    play = Play()
    play.answer(SLOW, 20)
    play.pass_time(PAUSE_S)
    play.answer(SLOW, 4)
    assert play.is_degraded
    assert play.events() == ["backend.was_degraded"]
    play.pass_time(PAUSE_S)
    assert play.is_degraded
    play.pass_time(PAUSE_S)
    assert not play.is_degraded


def test_one_that_still_gets_traffic_comes_back_without_a_trial() -> None:
    play = Play()
    play.answer(SLOW, 20)
    play.answer(USUAL, 5)
    assert not play.is_degraded
    assert play.events() == ["backend.was_degraded", "backend.recovered_pace"]


def test_one_that_traffic_has_ejected_is_not_tried() -> None:
    play = Play()
    play.answer(SLOW, 20)
    play.tally.of("gpu0").ejected_until_s = play.now_s + 1000.0
    play.pass_time(10 * PAUSE_S)
    assert play.is_degraded


@pytest.mark.parametrize("way", ["restart", "duty"])
def test_one_that_comes_back_from_a_restart_or_an_operator_is_tried_at_once(way: str) -> None:
    play = Play()
    play.answer(SLOW, 20)
    for is_out in (True, False):
        if way == "restart":
            play.publisher.set_upkeep("gpu0", is_restarting=is_out)
        else:
            play.publisher.set_duty("gpu0", Duty.DRAINING if is_out else Duty.READY)
        assert play.is_degraded
        play.pass_time(1.0)
    assert (play.is_degraded, play.grade) == (False, Grade.SUSPICIOUS)


def test_other_software_on_the_backend_begins_anew() -> None:
    play = Play()
    play.answer(SLOW, 20)
    finding = Finding(Seen.GOOD, EngineKind.VLLM, "2.0", UP.dialects, UP.models)
    play.publisher.on_finding("gpu0", finding)
    play.pass_time(1.0)
    assert (play.is_degraded, play.grade) == (False, Grade.SOUND)
    # Who was told that it is slow is told that this is over.
    assert play.events() == ["backend.was_degraded", "backend.changed_engine", "backend.recovered_pace"]
    play.answer(SLOW, 30)
    assert not play.is_degraded


def test_maintenance_ends_what_was_told_and_what_is_slow_afterwards_is_told_anew() -> None:
    play = Play()
    play.answer(SLOW, 20)
    for duty in (Duty.MAINTENANCE, Duty.READY):
        play.publisher.set_duty("gpu0", duty)
        play.pass_time(60.0)
    play.publisher.on_finding("gpu0", GOOD)
    play.pass_time(1.0)
    assert play.grade is Grade.SUSPICIOUS
    play.answer(SLOW, 4)
    assert play.is_degraded
    assert play.events().count("backend.was_degraded") == 2
    assert "backend.recovered_pace" not in play.events()


def test_backend_that_is_well_after_maintenance_is_used_as_before_and_nothing_is_told() -> None:
    play = Play()
    play.answer(SLOW, 20)
    for duty in (Duty.MAINTENANCE, Duty.READY):
        play.publisher.set_duty("gpu0", duty)
        play.pass_time(60.0)
    play.answer(USUAL, 6)
    assert (play.is_degraded, play.grade) == (False, Grade.SOUND)
    assert "backend.recovered_pace" not in play.events()


def test_a_backend_that_leaves_the_plan_is_forgotten() -> None:
    play = Play()
    play.answer(SLOW, 20)
    play.publisher.set_plan(RoutingPlan((target(1).backend,)))
    play.pass_time(1.0)
    assert not play.watch._watches.keys() & {"gpu0"}


# --- tokens


async def test_a_token_that_takes_as_long_as_ever_spares_clients_the_trial() -> None:
    play = Play(proves=True)
    play.answer(SLOW, 20)
    await play.wait(1.0)
    assert play.asked == 1
    await play.wait(6 * PAUSE_S)
    assert play.is_degraded
    assert 2 <= play.asked <= 4
    play.token_s = None
    await play.wait(3 * PAUSE_S)
    assert play.is_degraded


async def test_a_token_that_comes_much_faster_is_worth_a_trial() -> None:
    play = Play(proves=True)
    play.answer(SLOW, 20)
    await play.wait(1.0)
    play.token_s = 0.02
    await play.wait(PAUSE_S)
    assert not play.is_degraded
    play.answer(USUAL, 6)
    assert play.events()[-1] == "backend.recovered_pace"


async def test_where_no_token_can_be_asked_for_clients_tell() -> None:
    play = Play(proves=True)
    play.token_s = 0.1
    play.answer(SLOW, 20)
    await play.wait(1.0)
    play.token_s = 0.0
    await play.wait(PAUSE_S)
    assert not play.is_degraded


async def test_nobody_stays_untried_for_ever() -> None:
    play = Play(proves=True)
    play.answer(SLOW, 20)
    await play.wait(UNTRIED_S_MAX + 1000.0)
    assert not play.is_degraded


async def test_a_question_under_way_ends_with_the_watch_and_with_the_backend() -> None:
    play = Play(proves=True)
    begun = asyncio.Event()

    async def hang(_name: str) -> Proof:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    play.watch._prove = hang
    play.answer(SLOW, 20)
    await begun.wait()
    await play.watch.close()
    play.publisher.set_plan(RoutingPlan(()))
    play.pass_time(1.0)


async def test_a_mistake_of_ours_in_a_question_is_reported() -> None:
    play = Play(proves=True)
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))

    async def fail(_name: str) -> Proof:
        raise RuntimeError

    play.watch._prove = fail
    play.answer(SLOW, 20)
    await play.wait(1.0)
    assert said == ["asking a degraded backend failed internally"]
