"""A stored conversation stays with the backend that holds its cache while that one is fit."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from support.exchange_play import START_S, Play
from support.targets import CHAT, snapshot_of, target
from understudy.core.affinity import CONVERSATIONS_MAX, REMEMBERED_S_MAX, Conversations, assigned, stays
from understudy.core.ask import Ask, DialectName
from understudy.core.balancer import Choice, NoChoice, pick
from understudy.core.color import Color, RolloutRules
from understudy.core.commands import Attempt, Resume, Wait
from understudy.core.exchange import Exchange
from understudy.core.retry import RetryBudget
from understudy.core.rollout import Rollout
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Balance,
    Condition,
    Duty,
    EngineKind,
    HealthRules,
    Model,
    Role,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.core.tally import Tally
from understudy.errors import Failure, FailureKind

UP = BackendState(Condition.UP, Duty.READY, EngineKind.VLLM, "1.0", (DialectName.OPENAI,), (Model("qwen"),))
ASK = Ask(dialect=DialectName.OPENAI, model="qwen", is_generating=True, prefer="gpu1")
GREEN = msgspec.structs.replace(ASK, prefer="", color="green")
BLUE = msgspec.structs.replace(GREEN, color="blue")
NOW_S = 1000.0


def gpu(number: int, state: BackendState = UP, **more: object) -> Target:
    """A backend that is up and serves `ASK`."""
    backend = Backend(f"gpu{number}", Address("http", "127.0.0.1", 8000 + number), health=HealthRules(slow_start_s=9.0))
    return Target(replace(backend, **more), state)  # type: ignore[arg-type]  # a play's own fields


def name(
    *targets: Target,
    tally: Tally | None = None,
    tried: tuple[str, ...] = (),
    balance: Balance = Balance.ORDERED,
    ask: Ask = ASK,
) -> str:
    """Return the name of the backend picked."""
    snapshot = RoutingSnapshot(1, RoutingPlan(tuple(one.backend for one in targets), balance), targets)
    choice = pick(snapshot, tally or Tally(), ask, tried=tried, now_s=NOW_S)
    assert isinstance(choice, Choice)
    return choice.target.backend.name


@pytest.mark.parametrize("balance", list(Balance))
def test_a_conversation_stays_where_its_cache_is(balance: Balance) -> None:
    assert {name(gpu(0), gpu(1), gpu(2), balance=balance) for _ in range(5)} == {"gpu1"}


def test_it_leaves_one_that_is_down() -> None:
    assert name(gpu(0), gpu(1, replace(UP, condition=Condition.DOWN))) == "gpu0"


def test_it_leaves_one_that_failed_in_this_exchange() -> None:
    assert name(gpu(0), gpu(1), tried=("gpu1",)) == "gpu0"


def test_it_leaves_one_that_is_full() -> None:
    tally = Tally()
    tally.begin("gpu1", is_trial=False)
    assert name(gpu(0), gpu(1, in_flight_max=1), tally=tally) == "gpu0"


def test_it_leaves_one_that_is_ejected() -> None:
    tally = Tally()
    while not tally.fail("gpu1", HealthRules(), NOW_S, has_alternative=True):
        pass
    assert name(gpu(0), gpu(1), tally=tally) == "gpu0"


def test_it_does_not_burden_one_that_warms_up() -> None:
    warming = replace(UP, condition=Condition.WARMING, since_at_s=NOW_S)
    assert name(gpu(0), gpu(1, warming)) == "gpu0"


def test_it_leaves_a_backup_once_a_primary_can_have_it() -> None:
    backup = gpu(1, role=Role.BACKUP)
    assert name(gpu(0), backup) == "gpu0"
    assert name(gpu(0, replace(UP, condition=Condition.DOWN)), gpu(2, role=Role.BACKUP), backup) == "gpu1"


@pytest.mark.parametrize("balance", list(Balance))
def test_a_conversation_stays_on_its_color(balance: Balance) -> None:
    pool = (gpu(0, color=Color.BLUE), gpu(1), gpu(2, color=Color.GREEN), gpu(3, color=Color.GREEN))
    green = {name(*pool, ask=GREEN, balance=balance) for _ in range(9)}
    assert green <= {"gpu1", "gpu2", "gpu3"}
    assert name(*pool[2:], pool[0], ask=BLUE, balance=balance) == "gpu0"


def test_it_leaves_its_color_rather_than_go_without_an_answer() -> None:
    down = replace(UP, condition=Condition.DOWN)
    assert name(gpu(0, color=Color.BLUE), gpu(2, down, color=Color.GREEN), ask=GREEN) == "gpu0"
    assert name(gpu(0, color=Color.BLUE), gpu(2, color=Color.GREEN), ask=GREEN, tried=("gpu2",)) == "gpu0"


def test_color_comes_before_role_and_role_before_the_cache() -> None:
    """A backup of its color still speaks with its voice."""
    assert name(gpu(0, color=Color.BLUE), gpu(2, role=Role.BACKUP, color=Color.GREEN), ask=GREEN) == "gpu2"


def test_a_backend_that_is_gone_is_no_wish() -> None:
    ask = msgspec.structs.replace(ASK, prefer="gone")
    snapshot = RoutingSnapshot(1, RoutingPlan((gpu(0).backend,)), (gpu(0),))
    choice = pick(snapshot, Tally(), ask, tried=(), now_s=NOW_S)
    assert isinstance(choice, Choice)
    assert choice.target.backend.name == "gpu0"


# --- waiting for one's own color


def test_a_full_color_is_waited_for() -> None:
    """Room comes by itself; another voice in the middle of a conversation would be noticed."""
    tally = Tally()
    tally.begin("gpu2", is_trial=False)
    targets = (gpu(0, color=Color.BLUE), gpu(2, color=Color.GREEN, in_flight_max=1))
    snapshot = RoutingSnapshot(1, RoutingPlan(tuple(one.backend for one in targets)), targets)
    choice = pick(snapshot, tally, GREEN, tried=(), now_s=NOW_S)
    assert isinstance(choice, NoChoice)
    assert choice.kind is FailureKind.NO_ROOM
    assert isinstance(pick(snapshot, tally, msgspec.structs.replace(GREEN, color=""), tried=(), now_s=NOW_S), Choice)


def test_a_resting_color_is_waited_for_until_it_has_rested() -> None:
    tally = Tally()
    tally.rest("gpu2", NOW_S + 3)
    targets = (gpu(0, color=Color.BLUE), gpu(2, color=Color.GREEN))
    snapshot = RoutingSnapshot(1, RoutingPlan(tuple(one.backend for one in targets)), targets)
    assert pick(snapshot, tally, GREEN, tried=(), now_s=NOW_S) == NoChoice(FailureKind.NONE_USABLE, NOW_S + 3)


def test_an_ejected_color_is_not_waited_for() -> None:
    tally = Tally()
    while not tally.fail("gpu2", HealthRules(), NOW_S, has_alternative=True):
        pass
    assert name(gpu(0, color=Color.BLUE), gpu(2, color=Color.GREEN), ask=GREEN, tally=tally) == "gpu0"


@pytest.mark.parametrize(("condition", "waits"), [(Condition.UNKNOWN, True), (Condition.DOWN, False)])
def test_a_color_that_nobody_has_probed_yet_is_waited_for(condition: Condition, waits: bool) -> None:
    """As after a restart: that its probe takes a moment is no reason for another voice."""
    targets = (gpu(0, color=Color.BLUE), gpu(2, BackendState(condition), color=Color.GREEN))
    snapshot = RoutingSnapshot(1, RoutingPlan(tuple(one.backend for one in targets)), targets)
    assert isinstance(pick(snapshot, Tally(), GREEN, tried=(), now_s=NOW_S), NoChoice) is waits
    assert isinstance(pick(snapshot, Tally(), GREEN, tried=("gpu9",), now_s=NOW_S), Choice)


# --- which color a conversation gets


CANARY = Rollout(active=Color.BLUE, shares=(0.1, 0.4))
KEYS = [b"session-%d" % number for number in range(20_000)]


def test_all_new_conversations_go_to_the_active_color() -> None:
    assert {assigned(Rollout(active=Color.GREEN), key) for key in KEYS[:100]} == {Color.GREEN}


def test_the_canary_gets_its_share_evenly() -> None:
    share = sum(assigned(CANARY, key) is Color.GREEN for key in KEYS) / len(KEYS)
    assert 0.09 < share < 0.11


def test_the_same_conversation_gets_the_same_color() -> None:
    assert [assigned(CANARY, key) for key in KEYS[:200]] == [assigned(CANARY, key) for key in KEYS[:200]]


def test_a_share_that_grows_keeps_what_it_had() -> None:
    grown = replace(CANARY, step=1)
    had = [key for key in KEYS[:2000] if assigned(CANARY, key) is Color.GREEN]
    assert had
    assert all(assigned(grown, key) is Color.GREEN for key in had)


def test_the_next_rollout_tries_others_first() -> None:
    back = replace(CANARY, active=Color.GREEN)
    first = {key for key in KEYS[:2000] if assigned(CANARY, key) is Color.GREEN}
    second = {key for key in KEYS[:2000] if assigned(back, key) is Color.BLUE}
    assert len(first & second) < len(first) / 2


# --- how long it stays


RULES = RolloutRules(stick_s_max=100.0)
SWITCHED = Rollout(active=Color.GREEN, changed_at_unix_s=1000.0)


@pytest.mark.parametrize(
    ("color", "now_unix_s", "expected"),
    [
        (Color.BLUE, 1099.0, True),
        (Color.BLUE, 1100.0, False),
        (Color.GREEN, 99_999.0, True),
        (Color.NONE, 1001.0, False),
    ],
)
def test_a_conversation_stays_for_a_while_after_a_switch(color: Color, now_unix_s: float, expected: bool) -> None:
    assert stays(SWITCHED, RULES, color, since_unix_s=1.0, now_unix_s=now_unix_s) is expected


def test_one_that_began_beside_the_active_color_has_its_time_too() -> None:
    assert stays(SWITCHED, RULES, Color.BLUE, since_unix_s=5000.0, now_unix_s=5099.0)
    assert not stays(SWITCHED, RULES, Color.BLUE, since_unix_s=5000.0, now_unix_s=5100.0)


def test_without_a_bound_it_stays_as_long_as_it_lasts() -> None:
    assert stays(SWITCHED, RolloutRules(stick_s_max=0.0), Color.BLUE, since_unix_s=1.0, now_unix_s=9e9)


def test_a_recall_takes_those_that_were_there_and_no_later_ones() -> None:
    recalled = replace(SWITCHED, green_recalled_unix_s=500.0)
    assert not stays(recalled, RULES, Color.GREEN, since_unix_s=499.0, now_unix_s=1001.0)
    assert stays(recalled, RULES, Color.GREEN, since_unix_s=500.0, now_unix_s=1001.0)
    assert stays(recalled, RULES, Color.BLUE, since_unix_s=499.0, now_unix_s=1001.0)


# --- what is remembered


def test_a_conversation_is_remembered_with_the_time_it_began() -> None:
    known = Conversations()
    known.put(b"a", Color.GREEN, 10.0)
    known.put(b"b", Color.BLUE, 12.0, since_unix_s=3.0)
    assert known.find(b"a", 20.0) == (Color.GREEN, 10.0)
    assert known.find(b"b", 20.0) == (Color.BLUE, 3.0)
    assert known.find(b"c", 20.0) == (Color.NONE, 0.0)


def test_the_one_unheard_of_longest_is_forgotten_first() -> None:
    known = Conversations()
    for number in range(CONVERSATIONS_MAX):
        known.put(b"%d" % number, Color.GREEN, 1.0)
    known.find(b"0", 2.0)
    known.put(b"new", Color.BLUE, 3.0)
    assert len(known) == CONVERSATIONS_MAX
    assert known.find(b"0", 3.0)[0] is Color.GREEN
    assert known.find(b"1", 3.0)[0] is Color.NONE


def test_one_unheard_of_for_a_day_is_forgotten() -> None:
    known = Conversations()
    known.put(b"a", Color.GREEN, 0.0, since_unix_s=1.0)
    assert known.find(b"a", REMEMBERED_S_MAX)[0] is Color.GREEN
    assert known.find(b"a", 2 * REMEMBERED_S_MAX)[0] is Color.GREEN
    assert known.find(b"a", 3 * REMEMBERED_S_MAX + 1)[0] is Color.NONE


# --- the course of an exchange that has a color


GREEN_CHAT = msgspec.structs.replace(CHAT, color="green")


def of_color(number: int, color: Color, **more: Any) -> Target:
    one = target(number, **more)
    return replace(one, backend=replace(one.backend, color=color))


def test_full_color_is_waited_for_as_long_as_for_any_room_and_then_left() -> None:
    play = Play(of_color(0, Color.BLUE), ask=CHAT)
    play.snapshot = snapshot_of(of_color(0, Color.BLUE), of_color(1, Color.GREEN, in_flight_max=1))
    play.tally.begin("gpu1", is_trial=False)
    exchange = Exchange(GREEN_CHAT, play.budget)
    assert exchange.begin(play.snapshot, play.tally, START_S) == Wait(START_S + 5.0, FailureKind.NO_ROOM)
    command = exchange.on_wake(play.snapshot, play.tally, START_S + 5.0)
    assert isinstance(command, Attempt)
    assert command.choice.target.backend.name == "gpu0"


def test_room_in_its_own_color_is_taken_when_it_comes() -> None:
    snapshot = snapshot_of(of_color(0, Color.BLUE), of_color(1, Color.GREEN, in_flight_max=1))
    tally = Tally()
    tally.begin("gpu1", is_trial=False)
    exchange = Exchange(GREEN_CHAT, RetryBudget(0.2))
    exchange.begin(snapshot, tally, START_S)
    tally.end("gpu1", is_trial=False)
    command = exchange.on_wake(snapshot, tally, START_S + 1.0)
    assert isinstance(command, Attempt)
    assert command.choice.target.backend.name == "gpu1"


def test_after_a_failure_there_is_no_waiting_for_the_color() -> None:
    play = Play(of_color(0, Color.BLUE), of_color(1, Color.GREEN), of_color(2, Color.GREEN, in_flight_max=1), ask=GREEN_CHAT)
    assert play.name == "gpu1"
    play.tally.begin("gpu2", is_trial=False)
    play.fail(FailureKind.REFUSED)
    assert play.name == "gpu0"


def test_color_whose_backends_all_failed_is_left() -> None:
    play = Play(of_color(0, Color.BLUE), of_color(1, Color.GREEN), ask=GREEN_CHAT)
    play.fail(FailureKind.REFUSED)
    assert play.name == "gpu0"


def test_no_second_attempt_runs_beside_the_first_in_another_color() -> None:
    play = Play(of_color(0, Color.BLUE), of_color(1, Color.GREEN), ask=GREEN_CHAT)
    assert play.exchange.on_late(play.snapshot, play.tally, START_S + 1.0) is None
    beside = Play(of_color(0, Color.NONE), of_color(1, Color.GREEN), ask=GREEN_CHAT)
    late = beside.exchange.on_late(beside.snapshot, beside.tally, START_S + 1.0)
    assert late is not None
    assert {beside.name, late.choice.target.backend.name} == {"gpu0", "gpu1"}


def test_a_broken_answer_goes_on_in_the_color_that_began_it() -> None:
    """Though the exchange was meant for the other one, whose backend had failed."""
    blue_chat = msgspec.structs.replace(CHAT, color="blue")
    play = Play(of_color(0, Color.BLUE), of_color(1, Color.GREEN), of_color(2, Color.GREEN), ask=blue_chat)
    play.fail(FailureKind.REFUSED)
    assert play.name == "gpu1"
    play.exchange.on_commit()
    broken = Failure(FailureKind.BODY_CUT, "gpu1", was_sent=True)
    command = play.exchange.on_break(broken, play.snapshot, play.tally, play.now_s + 10)
    assert isinstance(command, Resume)
    assert command.choice.target.backend.name == "gpu2"
