"""Plays of which sleeping machine is woken, and of those that are left to sleep."""

from dataclasses import replace
from itertools import pairwise

import pytest

from support.targets import DOWN, UP, snapshot_of, target
from understudy.core.color import Color, RolloutRules
from understudy.core.rollout import Rollout
from understudy.core.snapshot import BackendState, Condition, Duty, Model, Role, RoutingSnapshot, Target
from understudy.core.waking import RETRY_S, RETRY_S_MAX, WANTED_S, Wake, WakeFacts, Waking, sleeps, wanted

ASLEEP = WakeFacts("gpu0", sleeps=True, is_asked_for=True)


# --- tries


def test_a_machine_that_is_wanted_is_woken_at_once_and_then_more_and_more_rarely() -> None:
    waking = Waking()
    woken = [at_s for at_s in range(2100) if waking.decide((ASLEEP,), float(at_s))]
    gaps = [later - earlier for earlier, later in pairwise(woken)]
    assert woken[0] == 0
    assert gaps == [RETRY_S, 120, 240, 480, RETRY_S_MAX]


def test_only_the_first_of_a_series_is_the_first() -> None:
    waking = Waking()
    assert waking.decide((ASLEEP,), 0.0) == (Wake("gpu0", is_first=True),)
    assert waking.decide((ASLEEP,), RETRY_S) == (Wake("gpu0", is_first=False),)
    assert waking.tries("gpu0") == 2
    assert waking.decide((replace(ASLEEP, sleeps=False),), RETRY_S + 1) == ()
    assert waking.tries("gpu0") == 0
    assert waking.decide((ASLEEP,), RETRY_S + 2) == (Wake("gpu0", is_first=True),)


def test_a_machine_that_nobody_asks_for_is_left_to_sleep() -> None:
    waking = Waking()
    idle = replace(ASLEEP, is_asked_for=False)
    assert not any(waking.decide((idle,), float(at_s)) for at_s in range(0, 7200, 60))


def test_a_series_ends_when_nobody_has_asked_for_long() -> None:
    waking = Waking()
    waking.decide((ASLEEP,), 0.0)
    waking.decide((replace(ASLEEP, is_asked_for=False),), 30.0)
    assert waking.decide((ASLEEP,), RETRY_S + RETRY_S_MAX) == (Wake("gpu0", is_first=True),)


# --- whether it sleeps and is wanted


def not_ejected(name: str) -> bool:
    return False


def named(number: int, *, is_down: bool = False, role: Role = Role.PRIMARY, color: Color = Color.NONE) -> Target:
    one = target(number, DOWN if is_down else UP)
    return replace(one, backend=replace(one.backend, role=role, color=color))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (DOWN, True),
        (UP, False),
        (replace(UP, condition=Condition.UNKNOWN), False),
        (replace(DOWN, duty=Duty.DRAINING), False),
        (replace(DOWN, duty=Duty.MAINTENANCE), False),
        # Its restarts may have been given up, or wait for it to be awake.
        (replace(DOWN, is_restarting=True), True),
    ],
)
def test_it_sleeps_only_if_it_is_down_by_nobodys_will(state: BackendState, expected: bool) -> None:
    assert sleeps(replace(target(0), state=state)) is expected


def is_wanted(one: Target, snapshot: RoutingSnapshot, asked: dict[str, float], now_s: float = 100.0) -> bool:
    return wanted(one, snapshot, asked, now_s, not_ejected)


def test_a_primary_is_wanted_while_a_backup_answers_in_its_place() -> None:
    primary, backup = named(0, is_down=True), named(1, role=Role.BACKUP)
    snapshot = snapshot_of(primary, backup)
    assert is_wanted(primary, snapshot, {"qwen": 99.0})
    assert not is_wanted(primary, snapshot, {"qwen": 100.0 - WANTED_S})
    assert not is_wanted(primary, snapshot, {})
    assert not is_wanted(primary, snapshot, {"a model of others": 99.0})


def test_a_machine_whose_models_are_not_known_yet_may_have_any() -> None:
    primary = replace(named(0), state=replace(DOWN, models=None))
    assert is_wanted(primary, snapshot_of(primary), {"anything": 99.0})


def test_a_backup_is_wanted_only_where_no_primary_can_answer() -> None:
    backup = named(1, is_down=True, role=Role.BACKUP)
    assert not is_wanted(backup, snapshot_of(named(0), backup), {"qwen": 99.0})
    assert is_wanted(backup, snapshot_of(named(0, is_down=True), backup), {"qwen": 99.0})
    assert wanted(backup, snapshot_of(named(0), backup), {"qwen": 99.0}, 100.0, lambda name: name == "gpu0")
    other = replace(named(0), state=replace(UP, models=(Model("other"),)))
    assert is_wanted(backup, snapshot_of(other, backup), {"qwen": 99.0})


def test_a_color_that_gets_no_conversations_is_left_to_sleep() -> None:
    green = named(0, is_down=True, color=Color.GREEN)
    snapshot = snapshot_of(green, named(1, color=Color.BLUE))
    colored = replace(snapshot, plan=replace(snapshot.plan, rollout=RolloutRules(is_on=True)), rollout=Rollout(active=Color.BLUE))
    assert not is_wanted(green, colored, {"qwen": 99.0})
    assert is_wanted(green, replace(colored, rollout=Rollout(active=Color.GREEN)), {"qwen": 99.0})
    assert is_wanted(green, replace(colored, rollout=Rollout(active=Color.BLUE, shares=(0.1,))), {"qwen": 99.0})
