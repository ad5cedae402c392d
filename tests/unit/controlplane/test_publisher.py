"""Plays of plans, findings, traffic and operators' words: which snapshot is published and what is told."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.publisher_play import ASLEEP, BAD, GOOD, LAPTOP, LLAMA, PI, QWEN, REFUSED, Play
from understudy.controlplane.publisher import first_snapshot
from understudy.core.ask import DialectName
from understudy.core.color import Color
from understudy.core.health import Seen
from understudy.core.rollout import NO_ROLLOUT, Rollout
from understudy.core.snapshot import Backend, BackendState, Condition, Duty, EngineKind, HealthRules, Model, RoutingPlan
from understudy.engines.contract import Finding
from understudy.errors import FailureKind


def test_first_snapshot_knows_nothing_and_everything_is_ready() -> None:
    snapshot = first_snapshot(RoutingPlan((PI, LAPTOP)), 5.0)
    assert [target.backend for target in snapshot.targets] == [PI, LAPTOP]
    assert {target.state for target in snapshot.targets} == {BackendState(since_at_s=5.0, reason="not probed yet")}


def test_good_finding_makes_a_backend_up_with_what_it_is() -> None:
    play = Play()
    assert play.find(GOOD) == BackendState(
        Condition.UP, Duty.READY, EngineKind.OLLAMA, "0.15.1", tuple(DialectName), (QWEN, LLAMA), since_at_s=1001.0
    )
    assert play.events == [
        ("backend.went_up", {"backend": "pi", "engine": "ollama", "was": "unknown", "was_for_s": 1.0, "reason": ""})
    ]


def test_every_change_is_published_once_and_then_told() -> None:
    play = Play()
    before = play.published.current
    play.find(GOOD)
    assert play.changes == [play.published.current]
    assert play.published.current.generation == before.generation + 1
    assert play.publisher.snapshot is play.published.current


def test_finding_that_changes_nothing_publishes_nothing() -> None:
    play = Play()
    play.find(GOOD)
    play.find(GOOD, BAD, GOOD)
    assert len(play.changes) == 1
    assert play.told() == ["backend.went_up"]


def test_backend_goes_down_after_fall_and_keeps_what_was_known() -> None:
    play = Play()
    state = play.find(GOOD, BAD, BAD, BAD)
    assert (state.condition, state.reason, state.since_at_s) == (Condition.DOWN, "timed out", 1004.0)
    assert (state.engine, state.version, state.dialects, state.models) == (
        GOOD.engine,
        GOOD.version,
        GOOD.dialects,
        GOOD.models,
    )
    assert play.events[-1] == (
        "backend.went_down",
        {"backend": "pi", "engine": "ollama", "was": "up", "was_for_s": 3.0, "reason": "timed out"},
    )


def test_flapping_within_rise_and_fall_tells_nothing() -> None:
    play = Play()
    play.find(GOOD)
    play.find(*[BAD, BAD, GOOD] * 10)
    assert play.told() == ["backend.went_up"]


def test_loading_engine_is_out_at_once_and_tells_which_engine_it_is() -> None:
    play = Play()
    state = play.find(Finding(Seen.LOADING, EngineKind.LLAMACPP, reason="answered 503: Loading model"))
    assert (state.condition, state.engine, state.models) == (Condition.DOWN, EngineKind.LLAMACPP, None)


def test_engine_sleeps_until_a_probe_finds_anything_else() -> None:
    other = replace(BAD, engine=EngineKind.VLLM)
    lists, loads = replace(BAD, models=()), Finding(Seen.LOADING, EngineKind.OLLAMA)
    assert Play().find(ASLEEP).is_asleep
    for found in (GOOD, REFUSED, other, lists, loads, replace(BAD, version="0.15.1")):
        assert not Play().find(ASLEEP, found).is_asleep


def test_probe_that_is_too_late_wakes_nobody() -> None:
    """What is not known to be awake is no last resort: an exchange would wait for it in vain."""
    assert Play().find(ASLEEP, BAD, BAD).is_asleep
    assert not Play().find(GOOD, BAD, BAD, BAD).is_asleep


def test_sleeper_that_answers_is_awake() -> None:
    play = Play()
    play.find(GOOD, ASLEEP)
    for _ in range(PI.health.rise):
        assert play.state().is_asleep
        assert play.publisher.on_traffic("pi", None)
    assert (play.state().condition, play.state().is_asleep) == (Condition.UP, False)


def test_empty_list_means_serves_nothing_and_is_not_unknown() -> None:
    assert Play().find(replace(GOOD, models=())).models == ()


def test_engine_that_stops_telling_its_list_may_serve_anything() -> None:
    assert Play().find(GOOD, replace(GOOD, models=None)).models is None


def test_lost_model_is_told_by_name_and_a_new_one_is_not() -> None:
    play = Play()
    play.find(GOOD, replace(GOOD, models=(LLAMA, Model("new:latest"))))
    assert play.events[-1] == ("backend.lost_model", {"backend": "pi", "models": ["qwen:latest"]})
    play.find(replace(GOOD, models=(LLAMA, Model("new:latest"))))
    assert play.told().count("backend.lost_model") == 1


def test_model_lost_in_a_restart_is_told_when_the_backend_is_back() -> None:
    play = Play()
    play.find(GOOD, BAD, BAD, BAD, replace(GOOD, models=()))
    assert play.told() == ["backend.went_up", "backend.went_down", "backend.lost_model"]


def test_lost_model_that_is_listed_again_is_told_once_and_a_new_one_is_not() -> None:
    play = Play()
    without = replace(GOOD, models=(LLAMA, Model("new:latest")))
    play.find(GOOD, without, BAD, without)
    assert play.told().count("backend.regained_model") == 0
    play.publisher.set_duty("pi", Duty.DRAINING)
    play.find(GOOD, GOOD)
    assert [event for event in play.events if "_model" in event[0]] == [
        ("backend.lost_model", {"backend": "pi", "models": ["qwen:latest"]}),
        ("backend.lost_model", {"backend": "pi", "models": ["new:latest"]}),
        ("backend.regained_model", {"backend": "pi", "models": ["qwen:latest"]}),
    ]
    play.find(without)
    assert play.events[-1] == ("backend.regained_model", {"backend": "pi", "models": ["new:latest"]})


def test_lost_models_are_remembered_within_a_bound() -> None:
    play = Play()
    many = tuple(Model(f"m{number}") for number in range(1100))
    play.find(replace(GOOD, models=many), GOOD, replace(GOOD, models=many))
    assert play.events[-1][1]["models"] == [f"m{number}" for number in range(100, 1100)]


def test_model_that_is_only_unloaded_is_not_lost() -> None:
    play = Play()
    loaded = replace(QWEN, ps_entry="{}")
    play.find(replace(GOOD, models=(loaded,)), replace(GOOD, models=(QWEN,)))
    assert play.told() == ["backend.went_up"]
    assert play.state().models == (QWEN,)


def test_other_version_of_the_engine_is_told() -> None:
    play = Play()
    play.find(GOOD, replace(GOOD, version="0.16.0"))
    fields = {"backend": "pi", "engine": "ollama", "version": "0.16.0", "was": "ollama 0.15.1"}
    assert play.events[-1] == ("backend.changed_engine", fields)
    play.find(Finding(Seen.LOADING, EngineKind.LLAMACPP, reason="answered 503: Loading model"))
    fields = {"backend": "pi", "engine": "llamacpp", "version": "", "was": "ollama 0.16.0"}
    assert play.events[-1] == ("backend.changed_engine", fields)


def test_slow_start_warms_until_its_time_and_is_told_once() -> None:
    play = Play(replace(PI, health=HealthRules(slow_start_s=30.0)))
    play.find(GOOD, BAD, BAD, BAD)
    assert play.find(GOOD, GOOD).condition is Condition.WARMING
    play.now_s += 29.0
    play.publisher.tick()
    assert play.state().condition is Condition.WARMING
    play.now_s += 1.0
    play.publisher.tick()
    assert (play.state().condition, play.state().since_at_s) == (Condition.UP, play.now_s)
    assert play.told() == ["backend.went_up", "backend.went_down", "backend.went_up"]


# --- Traffic


def test_answers_keep_a_busy_backend_up_whose_probes_time_out() -> None:
    play = Play()
    play.find(GOOD)
    for _ in range(5):
        play.find(BAD, BAD)
        assert play.publisher.on_traffic("pi", None)
    assert play.state().condition is Condition.UP


def test_answer_of_a_healthy_backend_changes_and_asks_nothing() -> None:
    play = Play()
    play.find(GOOD)
    assert not play.publisher.on_traffic("pi", None)
    assert len(play.changes) == 1


def test_answers_as_a_last_resort_bring_a_backend_back() -> None:
    """Probes fail and traffic passes: live evidence wins."""
    play = Play()
    play.find(GOOD, BAD, BAD, BAD)
    play.publisher.on_traffic("pi", None)
    assert play.state().condition is Condition.DOWN
    play.publisher.on_traffic("pi", None)
    assert (play.state().condition, play.state().models) == (Condition.UP, GOOD.models)


def test_answer_of_an_unknown_backend_asks_for_its_first_probe() -> None:
    play = Play()
    assert play.publisher.on_traffic("pi", None)
    assert play.state().condition is Condition.UNKNOWN


@pytest.mark.parametrize("kind", list(FailureKind))
def test_failure_of_traffic_asks_for_a_probe_and_decides_nothing(kind: FailureKind) -> None:
    play = Play()
    play.find(GOOD)
    for _ in range(10):
        assert play.publisher.on_traffic("pi", kind)
    assert play.state().condition is Condition.UP


# --- Operators


def test_duty_is_published_and_told() -> None:
    play = Play()
    play.find(GOOD)
    assert play.publisher.set_duty("pi", Duty.DRAINING)
    assert (play.state().duty, play.state().condition) == (Duty.DRAINING, Condition.UP)
    assert play.events[-1] == ("backend.changed_duty", {"backend": "pi", "duty": "draining", "was": "ready"})


def test_duty_that_is_so_already_is_accepted_in_silence() -> None:
    play = Play()
    assert play.publisher.set_duty("pi", Duty.READY)
    assert (play.changes, play.events) == ([], [])


def test_duty_of_nobody_is_refused() -> None:
    assert not Play().publisher.set_duty("gpu9", Duty.DRAINING)


def test_maintenance_forgets_the_condition_but_not_the_models() -> None:
    play = Play()
    play.find(GOOD)
    play.publisher.set_duty("pi", Duty.MAINTENANCE)
    state = play.state()
    assert (state.condition, state.reason, state.models) == (Condition.UNKNOWN, "not probed in maintenance", GOOD.models)


def test_nothing_that_comes_in_during_maintenance_counts() -> None:
    play = Play()
    play.publisher.set_duty("pi", Duty.MAINTENANCE)
    play.find(GOOD)
    assert not play.publisher.on_traffic("pi", FailureKind.REFUSED)
    assert play.state().condition is Condition.UNKNOWN


def test_first_probe_after_maintenance_decides_at_once() -> None:
    play = Play()
    play.find(GOOD)
    play.publisher.set_duty("pi", Duty.MAINTENANCE)
    play.publisher.set_duty("pi", Duty.READY)
    assert (play.state().condition, play.state().reason) == (Condition.UNKNOWN, "not probed yet")
    assert play.find(GOOD).condition is Condition.UP


# --- Reloads


def test_reload_keeps_what_is_known_of_unchanged_backends_with_their_new_settings() -> None:
    play = Play()
    before = play.find(GOOD, BAD, BAD)
    plan = RoutingPlan((LAPTOP, replace(PI, weight=5)))
    assert play.publisher.set_plan(plan) == ()
    assert [target.backend.name for target in play.published.current.targets] == ["laptop", "pi"]
    assert play.published.current.plan is plan
    assert play.published.current.targets[1].backend.weight == 5
    assert play.state() == before
    assert play.publisher.health_of("pi").bad == 2


@pytest.mark.parametrize(
    "changed",
    [replace(PI, address=replace(PI.address, port=1)), replace(PI, engine=EngineKind.OLLAMA)],
    ids=["address", "engine"],
)
def test_backend_at_another_address_or_of_another_engine_begins_unknown_but_keeps_its_duty(changed: Backend) -> None:
    play = Play()
    play.find(GOOD)
    play.publisher.set_duty("pi", Duty.DRAINING)
    assert play.publisher.set_plan(RoutingPlan((changed, LAPTOP))) == ("pi",)
    assert play.state() == BackendState(duty=Duty.DRAINING, since_at_s=play.now_s, reason="not probed yet")


def test_added_backend_begins_unknown_and_a_removed_one_is_forgotten() -> None:
    play = Play()
    play.find(GOOD)
    assert play.publisher.set_plan(RoutingPlan((LAPTOP,))) == ()
    play.publisher.on_finding("pi", GOOD)
    assert not play.publisher.on_traffic("pi", None)
    assert play.publisher.health_of("pi").condition is Condition.UNKNOWN
    assert play.publisher.set_plan(RoutingPlan((LAPTOP, PI))) == ("pi",)
    assert play.state().condition is Condition.UNKNOWN


# --- Blue and green


def test_rollout_is_published_once_and_survives_all_that_follows() -> None:
    play = Play()
    assert play.published.current.rollout is NO_ROLLOUT
    green = Rollout(active=Color.GREEN)
    play.publisher.set_rollout(green)
    play.publisher.set_rollout(Rollout(active=Color.GREEN))
    assert [one.rollout for one in play.changes] == [green]
    play.find(GOOD)
    play.publisher.set_duty("pi", Duty.DRAINING)
    play.publisher.set_plan(RoutingPlan((PI,)))
    assert [one.rollout for one in play.changes] == [green] * 4


def test_plan_and_rollout_come_in_one_swap() -> None:
    play = Play()
    plan, green = RoutingPlan((LAPTOP,)), Rollout(active=Color.GREEN)
    play.publisher.set_plan(plan, green)
    assert [(one.plan, one.rollout) for one in play.changes] == [(plan, green)]


steps = st.one_of(
    st.tuples(st.just("find"), st.sampled_from([GOOD, BAD, REFUSED, Finding(Seen.LOADING), replace(GOOD, models=())])),
    st.tuples(st.just("traffic"), st.sampled_from([None, FailureKind.REFUSED])),
    st.tuples(st.just("duty"), st.sampled_from(Duty)),
    st.tuples(st.just("plan"), st.sampled_from([(PI,), (PI, LAPTOP), (LAPTOP, PI)])),
    st.tuples(st.just("tick"), st.none()),
)


@given(st.lists(steps, max_size=60))
def test_whatever_happens_snapshots_are_whole_and_in_order(play_steps: list[tuple[str, object]]) -> None:
    play = Play(replace(PI, health=HealthRules(slow_start_s=3.0)), LAPTOP)
    for _, value in play_steps:
        play.now_s += 1.0
        if isinstance(value, Finding):
            play.publisher.on_finding("pi", value)
        elif isinstance(value, Duty):
            play.publisher.set_duty("pi", value)
        elif isinstance(value, tuple):
            play.publisher.set_plan(RoutingPlan(value))
        elif isinstance(value, FailureKind):
            play.publisher.on_traffic("pi", value)
        else:
            play.publisher.on_traffic("pi", None)
            play.publisher.tick()
    snapshots = play.changes
    assert [one.generation for one in snapshots] == list(range(2, len(snapshots) + 2))
    for one in snapshots:
        assert tuple(target.backend for target in one.targets) == one.plan.backends
        assert all(target.state.since_at_s <= play.now_s for target in one.targets)
    shown, believed = play.state(), play.publisher.health_of("pi")
    assert (shown.condition, shown.since_at_s, shown.reason) == (believed.condition, believed.since_at_s, believed.reason)


def test_what_upkeep_says_of_a_backend_is_published_once() -> None:
    play = Play()
    play.find(GOOD)
    generation = play.published.current.generation
    assert play.publisher.set_upkeep("pi", is_restarting=True)
    assert play.publisher.set_upkeep("pi", is_restarting=True)
    assert play.publisher.set_upkeep("pi", is_degraded=True)
    state = play.published.current.targets[0].state
    assert (state.is_restarting, state.is_degraded) == (True, True)
    assert play.published.current.generation == generation + 2
    assert not play.publisher.set_upkeep("nobody", is_degraded=True)


def test_one_whose_restart_is_over_begins_its_slow_start_now() -> None:
    play = Play(replace(PI, health=HealthRules(slow_start_s=30.0)))
    play.find(GOOD)
    play.publisher.set_upkeep("pi", is_restarting=True)
    play.now_s += 100.0
    play.publisher.set_upkeep("pi", is_restarting=False)
    assert (play.state().condition, play.state().since_at_s) == (Condition.WARMING, play.now_s)
    play.now_s += 30.0
    play.publisher.tick()
    assert play.state().condition is Condition.UP


def test_an_engine_that_does_not_tell_its_version_this_time_is_no_other_one() -> None:
    play = Play()
    play.find(GOOD)
    assert play.find(replace(GOOD, version="")).version == "0.15.1"
    assert "backend.changed_engine" not in play.told()
    assert play.find(replace(GOOD, engine=EngineKind.VLLM, version="")).version == ""
