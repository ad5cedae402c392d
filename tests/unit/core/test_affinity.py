"""A stored conversation stays with the backend that holds its cache while that one is fit."""

from dataclasses import replace

import msgspec
import pytest

from understudy.core.ask import Ask, DialectName
from understudy.core.balancer import Choice, pick
from understudy.core.color import Color
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
