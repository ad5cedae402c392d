"""Which backend gets the next attempt: plays of single choices, and properties that every balance keeps."""

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.ask import Ask, DialectName
from understudy.core.balancer import Choice, NoChoice, client_models, has_alternative, pick
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
from understudy.errors import FailureKind

CHAT = Ask(dialect=DialectName.OPENAI, model="qwen", is_generating=True)
RULES = HealthRules()
UP = BackendState(Condition.UP, Duty.READY, EngineKind.VLLM, "1.0", (DialectName.OPENAI,), (Model("qwen"),))
NOW_S = 1000.0
FOLLOWING_LOAD = [Balance.LEAST_IN_FLIGHT, Balance.FASTEST]


def gpu(
    number: int,
    *,
    state: BackendState = UP,
    role: Role = Role.PRIMARY,
    weight: int = 1,
    in_flight_max: int = 0,
    slow_start_s: float = 0.0,
) -> Target:
    """A backend named gpuN that is up and serves `CHAT` unless told otherwise."""
    rules = HealthRules(slow_start_s=slow_start_s)
    address = Address("http", "127.0.0.1", 8000 + number)
    return Target(Backend(f"gpu{number}", address, role=role, weight=weight, in_flight_max=in_flight_max, health=rules), state)


def snapshot(*targets: Target, balance: Balance = Balance.ORDERED) -> RoutingSnapshot:
    """A snapshot of these, in this order."""
    return RoutingSnapshot(1, RoutingPlan(tuple(one.backend for one in targets), balance), targets)


class Pool:
    """A snapshot with a tally, to pick from."""

    def __init__(self, *targets: Target, balance: Balance = Balance.ORDERED) -> None:
        self.snapshot = snapshot(*targets, balance=balance)
        self.tally = Tally()
        self.now_s = NOW_S

    def pick(self, *tried: str, ask: Ask = CHAT, is_last_resort: bool = False) -> Choice | NoChoice:
        """Pick as the relay does."""
        return pick(self.snapshot, self.tally, ask, tried=tried, now_s=self.now_s, is_last_resort=is_last_resort)

    def name(self, *tried: str, ask: Ask = CHAT) -> str:
        """Return the name of the backend picked; there must be one."""
        choice = self.pick(*tried, ask=ask)
        assert isinstance(choice, Choice)
        return choice.target.backend.name

    def hold(self, name: str, attempts: int = 1) -> None:
        """Keep that many attempts in flight."""
        for _ in range(attempts):
            self.tally.begin(name, is_trial=False)

    def fail(self, name: str) -> bool:
        """Count a failure as the relay does."""
        other = has_alternative(self.snapshot, self.tally, CHAT, name=name)
        return self.tally.fail(name, RULES, self.now_s, has_alternative=other)

    def eject(self, name: str) -> None:
        """Eject it, alternative or not."""
        while not self.tally.fail(name, RULES, self.now_s, has_alternative=True):
            pass


# --- Single choices ------------------------------------------------------------------------------------------------------


def test_ordered_takes_the_first_then_the_next_that_was_not_tried() -> None:
    pool = Pool(gpu(0), gpu(1), gpu(2))
    assert [pool.name(), pool.name("gpu0"), pool.name("gpu0", "gpu1")] == ["gpu0", "gpu1", "gpu2"]
    assert pool.pick("gpu0", "gpu1", "gpu2") == NoChoice(FailureKind.NONE_USABLE)


def test_choice_names_the_model_as_the_backend_calls_it() -> None:
    target = gpu(0, state=replace(UP, models=(Model("qwen2.5:0.5b"),)))
    mapped = replace(target, backend=replace(target.backend, models=(("qwen", "qwen2.5:0.5b"),)))
    assert Pool(mapped).pick() == Choice(mapped, "qwen2.5:0.5b")


def test_backup_serves_only_when_no_primary_can() -> None:
    pool = Pool(gpu(0, role=Role.BACKUP), gpu(1), gpu(2, state=replace(UP, condition=Condition.DOWN)))
    assert pool.name() == "gpu1"
    assert pool.name("gpu1") == "gpu0"


def test_full_primary_spills_over_to_a_backup() -> None:
    pool = Pool(gpu(0, in_flight_max=2), gpu(1, role=Role.BACKUP))
    pool.hold("gpu0", 2)
    assert pool.name() == "gpu1"
    pool.tally.end("gpu0", is_trial=False)
    assert pool.name() == "gpu0"


def test_all_full_is_no_room() -> None:
    pool = Pool(gpu(0, in_flight_max=1))
    pool.hold("gpu0")
    assert pool.pick() == NoChoice(FailureKind.NO_ROOM)
    assert pool.pick(is_last_resort=True) == NoChoice(FailureKind.NO_ROOM)


def test_resting_backend_is_left_alone_until_its_time_even_as_a_last_resort() -> None:
    pool = Pool(gpu(0))
    pool.tally.rest("gpu0", NOW_S + 7.0)
    assert pool.pick() == NoChoice(FailureKind.NONE_USABLE, NOW_S + 7.0)
    assert pool.pick(is_last_resort=True) == NoChoice(FailureKind.NONE_USABLE, NOW_S + 7.0)
    pool.now_s += 7.0
    assert pool.name() == "gpu0"


def test_model_that_no_backend_has_is_unknown_whatever_is_tried() -> None:
    pool = Pool(gpu(0), gpu(1, state=replace(UP, models=())))
    ask = msgspec.structs.replace(CHAT, model="llama")
    assert pool.pick(ask=ask) == NoChoice(FailureKind.MODEL_UNKNOWN)
    assert pool.pick(ask=ask, is_last_resort=True) == NoChoice(FailureKind.MODEL_UNKNOWN)


def test_dialect_that_no_backend_speaks_is_unspoken() -> None:
    ask = msgspec.structs.replace(CHAT, dialect=DialectName.OLLAMA)
    assert Pool(gpu(0)).pick(ask=ask) == NoChoice(FailureKind.DIALECT_UNSPOKEN)


def test_model_of_a_backend_that_is_down_is_not_unknown() -> None:
    pool = Pool(gpu(0, state=replace(UP, condition=Condition.DOWN)), gpu(1, state=replace(UP, models=(Model("llama"),))))
    assert pool.pick() == NoChoice(FailureKind.NONE_USABLE)


# --- Ejected, half-open, last resort -------------------------------------------------------------------------------------


def test_ejected_backend_gets_nothing_until_its_time_and_then_one_trial() -> None:
    pool = Pool(gpu(0), gpu(1))
    pool.eject("gpu0")
    assert pool.name() == "gpu1"
    pool.now_s += 10.0
    assert pool.pick() == Choice(pool.snapshot.targets[0], "qwen", is_trial=True)
    pool.tally.begin("gpu0", is_trial=True)
    assert pool.name() == "gpu1"
    pool.tally.succeed("gpu0", 0.1, pool.now_s)
    assert pool.pick() == Choice(pool.snapshot.targets[0], "qwen")


def test_cancelled_trial_leaves_the_permit_to_the_next() -> None:
    pool = Pool(gpu(0), gpu(1))
    pool.eject("gpu0")
    pool.now_s += 10.0
    pool.tally.begin("gpu0", is_trial=True)
    pool.tally.end("gpu0", is_trial=True)
    choice = pool.pick()
    assert isinstance(choice, Choice)
    assert (choice.target.backend.name, choice.is_trial) == ("gpu0", True)


def test_when_all_that_remain_are_ejected_the_least_bad_is_chosen_at_once() -> None:
    pool = Pool(gpu(0), gpu(1), gpu(2))
    for number in (2, 0, 1):
        pool.tally.succeed(f"gpu{number}", 0.1, NOW_S - 10 + number)
        pool.eject(f"gpu{number}")
    assert [pool.name(), pool.name("gpu2"), pool.name("gpu2", "gpu1")] == ["gpu2", "gpu1", "gpu0"]


def test_ejected_backend_waits_while_another_is_only_full() -> None:
    pool = Pool(gpu(0), gpu(1, in_flight_max=1))
    pool.eject("gpu0")
    pool.hold("gpu1")
    assert pool.pick() == NoChoice(FailureKind.NO_ROOM, NOW_S + 10.0)


def test_last_resort_is_whoever_answered_last_in_whatever_condition() -> None:
    down = replace(UP, condition=Condition.DOWN)
    unknown = BackendState()
    pool = Pool(gpu(0, state=unknown), gpu(1, state=down), gpu(2, state=down), gpu(3, state=replace(down, duty=Duty.DRAINING)))
    pool.tally.succeed("gpu2", 0.1, NOW_S - 5)
    pool.tally.succeed("gpu3", 0.1, NOW_S - 1)
    assert pool.pick() == NoChoice(FailureKind.NONE_USABLE)
    assert pool.pick(is_last_resort=True) == Choice(pool.snapshot.targets[2], "qwen", is_last_resort=True)
    assert pool.pick("gpu2", is_last_resort=True) == Choice(pool.snapshot.targets[0], "qwen", is_last_resort=True)
    assert pool.pick("gpu0", "gpu1", "gpu2", is_last_resort=True) == NoChoice(FailureKind.NONE_USABLE)


def test_alternative_is_another_candidate_in_service() -> None:
    pool = Pool(gpu(0), gpu(1), gpu(2, state=replace(UP, models=())))
    assert has_alternative(pool.snapshot, pool.tally, CHAT, name="gpu0")
    pool.eject("gpu1")
    assert not has_alternative(pool.snapshot, pool.tally, CHAT, name="gpu0")
    pool.now_s += 10.0
    assert not has_alternative(pool.snapshot, pool.tally, CHAT, name="gpu0"), "half-open is not in service"


@pytest.mark.parametrize("balance", list(Balance))
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(0.0, 20.0)), max_size=60))
def test_last_backend_in_service_is_never_ejected(balance: Balance, steps: list[tuple[int, bool, float]]) -> None:
    pool = Pool(gpu(0), gpu(1), gpu(2), balance=balance)
    for number, is_answer, pause_s in steps:
        pool.now_s += pause_s
        if is_answer:
            pool.tally.succeed(f"gpu{number}", 0.1, pool.now_s)
        else:
            pool.fail(f"gpu{number}")
        assert any(not pool.tally.of(one.backend.name).ejected_until_s for one in pool.snapshot.targets)
        assert isinstance(pool.pick(), Choice)


# --- What every balance keeps --------------------------------------------------------------------------------------------

states = st.builds(
    BackendState,
    condition=st.sampled_from(Condition),
    duty=st.sampled_from(Duty),
    dialects=st.sampled_from([(), (DialectName.OPENAI,), (DialectName.OLLAMA,)]),
    models=st.sampled_from([None, (), (Model("qwen"),), (Model("llama"),)]),
)
good_states = st.just(UP)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """A pool of up to six backends in any state, with any history."""
    targets = [
        gpu(
            number,
            state=draw(st.one_of(good_states, states)),
            role=draw(st.sampled_from(Role)),
            weight=draw(st.integers(1, 4)),
            in_flight_max=draw(st.integers(0, 2)),
            slow_start_s=draw(st.sampled_from([0.0, 2000.0])),
        )
        for number in range(draw(st.integers(1, 6)))
    ]
    pool = Pool(*targets, balance=draw(st.sampled_from(Balance)))
    for target in targets:
        counts = pool.tally.of(target.backend.name)
        counts.in_flight = draw(st.integers(0, 3))
        counts.rest_until_s = draw(st.sampled_from([0.0, 0.0, NOW_S + 5.0]))
        counts.ejected_until_s = draw(st.sampled_from([0.0, 0.0, NOW_S - 5.0, NOW_S + 5.0]))
        counts.trial_held = draw(st.booleans())
        counts.ttft_ewma_s = draw(st.sampled_from([None, 0.1, 2.0]))
        counts.last_success_at_s = draw(st.sampled_from([0.0, NOW_S - 1.0]))
        counts.suspect_until_s = draw(st.sampled_from([0.0, NOW_S + 3.0]))
    return pool


def is_usable(pool: Pool, target: Target) -> bool:
    """Say without the balancer's code whether a backend may be chosen, ejection apart."""
    state, counts = target.state, pool.tally.of(target.backend.name)
    return (
        state.condition in (Condition.UP, Condition.WARMING)
        and state.duty is Duty.READY
        and DialectName.OPENAI in state.dialects
        and (state.models is None or Model("qwen") in state.models)
        and counts.rest_until_s <= NOW_S
        and not 0 < target.backend.in_flight_max <= counts.in_flight
    )


def is_in(pool: Pool, target: Target) -> bool:
    """Say whether no ejection keeps it out."""
    counts = pool.tally.of(target.backend.name)
    return not counts.ejected_until_s or (counts.ejected_until_s <= NOW_S and not counts.trial_held)


@given(pools(), st.sets(st.sampled_from([f"gpu{number}" for number in range(6)])), st.sampled_from(["", "s1"]))
def test_choice_is_never_one_that_may_not_be_chosen(pool: Pool, tried: set[str], session: str) -> None:
    untried = [target for target in pool.snapshot.targets if target.backend.name not in tried]
    open_ones = [target for target in untried if is_usable(pool, target) and is_in(pool, target)]
    choice = pool.pick(*tried, ask=msgspec.structs.replace(CHAT, session=session))
    if isinstance(choice, NoChoice):
        assert not open_ones
        assert choice.until_s == 0.0 or choice.until_s > NOW_S
        return
    assert choice.target in untried
    assert is_usable(pool, choice.target)
    assert choice.is_trial == pool.tally.of(choice.target.backend.name).is_half_open(NOW_S)
    if open_ones:
        assert choice.target in open_ones
        warming = [target for target in open_ones if target.state.condition is Condition.WARMING]
        if not warming:
            roles = {target.backend.role for target in open_ones}
            assert choice.target.backend.role is (Role.PRIMARY if Role.PRIMARY in roles else Role.BACKUP)


@given(pools(), st.sets(st.sampled_from([f"gpu{number}" for number in range(6)])))
def test_last_resort_is_never_tried_nor_taken_out_nor_resting(pool: Pool, tried: set[str]) -> None:
    choice = pool.pick(*tried, is_last_resort=True)
    if isinstance(choice, Choice):
        target, counts = choice.target, pool.tally.of(choice.target.backend.name)
        assert target.backend.name not in tried
        assert target.state.duty is Duty.READY
        assert counts.rest_until_s <= NOW_S
        assert not (choice.is_trial and counts.trial_held)


# --- Black holes and slow start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", list(Balance))
@pytest.mark.parametrize("max_fails", [0, 3])
def test_backend_that_fails_at_once_does_not_attract_traffic(balance: Balance, max_fails: int) -> None:
    """Three backends, eight clients for a minute; gpu1 fails each attempt at once, the others take a second."""
    pool = Pool(gpu(0), gpu(1), gpu(2), balance=balance)
    rules = HealthRules(max_fails=max_fails)
    running: list[tuple[float, str]] = []
    attempts: Counter[str] = Counter()
    for step in range(600):
        pool.now_s = NOW_S + step / 10
        for ends_at_s, name in [one for one in running if one[0] <= pool.now_s]:
            running.remove((ends_at_s, name))
            pool.tally.succeed(name, 0.5, pool.now_s)
            pool.tally.end(name, is_trial=False)
        while len(running) < 8:
            ask = msgspec.structs.replace(CHAT, session=f"session-{sum(attempts.values())}")
            name = pool.name(ask=ask)
            attempts[name] += 1
            if name == "gpu1":
                other = has_alternative(pool.snapshot, pool.tally, CHAT, name=name)
                pool.tally.fail(name, rules, pool.now_s, has_alternative=other)
                name = pool.name("gpu1", ask=ask)
            pool.tally.begin(name, is_trial=False)
            running.append((pool.now_s + 1.0, name))
    fair_share = 1 / 3 + 0.05
    assert attempts["gpu1"] <= attempts.total() * (fair_share if max_fails == 0 else 0.05)
    if balance in FOLLOWING_LOAD:
        assert attempts["gpu1"] <= 15


@pytest.mark.parametrize("balance", FOLLOWING_LOAD)
def test_failures_without_blame_do_not_attract_traffic_either(balance: Balance) -> None:
    pool = Pool(gpu(0), gpu(1), balance=balance)
    pool.hold("gpu1", 5)
    pool.tally.succeed("gpu1", 9.0, NOW_S)
    assert pool.name() == "gpu0"
    pool.tally.doubt("gpu0", NOW_S + 1.0)
    assert pool.name() == "gpu1"
    assert pool.name("gpu1") == "gpu0", "in doubt is better than nobody"


@pytest.mark.parametrize("balance", list(Balance))
@pytest.mark.parametrize(("elapsed_s", "share"), [(0.0, 0.1), (25.0, 0.25), (75.0, 0.75), (99.9, 1.0)])
def test_warming_backend_gets_a_share_that_grows(balance: Balance, elapsed_s: float, share: float) -> None:
    """A share of what it would get: all where it is the first among equals, half where both take turns."""
    warming = replace(UP, condition=Condition.WARMING, since_at_s=NOW_S - elapsed_s)
    pool = Pool(gpu(0, state=warming, slow_start_s=100.0), gpu(1), balance=balance)
    for name in ("gpu0", "gpu1"):
        pool.tally.succeed(name, 0.1, NOW_S)
    whole = 0.5 if balance in (Balance.ROUND_ROBIN, Balance.LEAST_IN_FLIGHT) else 1.0
    picked = Counter(pool.name() for _ in range(1000))
    assert picked["gpu0"] / 1000 == pytest.approx(share * whole, abs=0.01)


def test_warming_backend_serves_all_when_there_is_no_other() -> None:
    warming = replace(UP, condition=Condition.WARMING, since_at_s=NOW_S)
    pool = Pool(gpu(0, state=warming, slow_start_s=100.0))
    assert {pool.name() for _ in range(50)} == {"gpu0"}


def test_warming_primary_leaves_the_rest_to_a_backup() -> None:
    warming = replace(UP, condition=Condition.WARMING, since_at_s=NOW_S - 50.0)
    pool = Pool(gpu(0, state=warming, slow_start_s=100.0), gpu(1, role=Role.BACKUP))
    assert Counter(pool.name() for _ in range(100)) == {"gpu0": 50, "gpu1": 50}


def test_listings_show_the_models_of_backends_that_take_exchanges() -> None:
    def having(model: str, **changes: Any) -> BackendState:
        return replace(UP, models=(Model(model),), **changes)

    shown = snapshot(
        gpu(0, state=having("a")),
        gpu(1, state=having("b", condition=Condition.WARMING)),
        gpu(2, state=having("c", condition=Condition.DOWN)),
        gpu(3, state=having("d", duty=Duty.DRAINING)),
        gpu(4, state=replace(UP, models=None)),
    )
    assert client_models(shown) == (("a", Model("a")), ("b", Model("b")))
