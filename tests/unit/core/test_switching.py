"""Whether the new conversations may be given to a color, and why not, in words."""

from dataclasses import replace

import pytest

from understudy.core.color import Color, RolloutRules
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    Model,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.core.switching import NO_COLORS, foreseen, refusal, unusable

BLUE, GREEN, NONE = Color.BLUE, Color.GREEN, Color.NONE
UP = BackendState(Condition.UP)


def target(
    name: str, color: Color, state: BackendState = UP, models: str | None = "qwen", named: tuple[tuple[str, str], ...] = ()
) -> Target:
    """`models` are the backend's own names, None: its list is unknown."""
    listed = None if models is None else tuple(Model(each) for each in models.split())
    backend = Backend(name, Address("http", name, 8000), color=color, models=named)
    return Target(backend, replace(state, models=listed))


def snapshot(*targets: Target, is_on: bool = True) -> RoutingSnapshot:
    plan = RoutingPlan(tuple(each.backend for each in targets), rollout=RolloutRules(is_on=is_on))
    return RoutingSnapshot(1, plan, targets)


B1 = target("b1", BLUE)


def test_color_with_a_usable_backend_and_the_models_may_be_switched_to() -> None:
    assert refusal(snapshot(B1, target("g1", GREEN)), GREEN) == ""


def test_color_without_a_backend_may_not() -> None:
    assert refusal(snapshot(B1), GREEN) == "no backend of green is configured"


def test_without_colors_and_to_none_nothing_may() -> None:
    assert refusal(snapshot(B1, target("g1", GREEN), is_on=False), GREEN) == NO_COLORS
    assert refusal(snapshot(B1), NONE) == "none is no color to switch to; want blue or green"


def test_every_backend_that_is_not_usable_is_named_with_why() -> None:
    down = target("g1", GREEN, BackendState(Condition.DOWN, reason="timed out"))
    drained = target("g2", GREEN, replace(UP, duty=Duty.DRAINING))
    failing = target("g3", GREEN)
    assert refusal(snapshot(B1, down, drained, failing), GREEN, {"g3"}) == (
        "no backend of green is usable: g1 (down, timed out), g2 (up, draining), g3 (ejected after failures)"
    )


def test_one_usable_backend_among_others_is_enough() -> None:
    down = target("g1", GREEN, BackendState(Condition.DOWN))
    assert refusal(snapshot(B1, down, target("g2", GREEN)), GREEN) == ""


def test_refusal_names_a_few_and_counts_the_rest() -> None:
    downs = [target(f"g{index}", GREEN, BackendState(Condition.DOWN)) for index in range(7)]
    assert refusal(snapshot(B1, *downs), GREEN).endswith("g3 (down) and 3 more")


def test_reason_of_any_length_is_cut() -> None:
    down = target("g1", GREEN, BackendState(Condition.DOWN, reason="x" * 5000))
    assert len(refusal(snapshot(B1, down), GREEN)) < 200


# --- Backends without a color


def test_backend_without_a_color_counts_only_where_no_other_is_of_that_color() -> None:
    both = target("n1", NONE)
    down = target("g1", GREEN, BackendState(Condition.DOWN))
    assert unusable(snapshot(B1, both), GREEN) == ""
    assert unusable(snapshot(B1, both, down), GREEN) == "no backend of green is usable: g1 (down)"


def test_same_backends_with_two_prompts_may_be_switched() -> None:
    both = snapshot(target("n1", NONE))
    assert (refusal(both, GREEN), refusal(both, BLUE)) == ("", "")


# --- Models


def test_models_that_only_the_old_color_serves_are_named_as_clients_call_them() -> None:
    old = target("b1", BLUE, models="own-a b", named=(("chat", "own-a"),))
    assert refusal(snapshot(old, target("g1", GREEN, models="b")), GREEN) == "green has no chat, which blue serves"
    assert refusal(snapshot(old, target("g1", GREEN, models="new b", named=(("chat", "new"),))), GREEN) == ""


def test_many_missing_models_are_counted() -> None:
    old = target("b1", BLUE, models="a b c d e f")
    assert (
        refusal(snapshot(old, target("g1", GREEN, models="x")), GREEN) == "green has no a, b, c, d and 2 more, which blue serves"
    )


@pytest.mark.parametrize(("old", "new"), [(None, ""), ("a b", None)], ids=["of the old color", "of the new color"])
def test_backend_whose_list_is_unknown_stops_no_switch(old: str | None, new: str | None) -> None:
    assert refusal(snapshot(target("b1", BLUE, models=old), target("g1", GREEN, models=new)), GREEN) == ""


def test_models_of_old_backends_that_are_not_usable_are_not_missed() -> None:
    gone = target("b2", BLUE, BackendState(Condition.DOWN), models="a")
    assert refusal(snapshot(B1, gone, target("g1", GREEN)), GREEN) == ""
    ejected = target("b2", BLUE, models="a")
    assert refusal(snapshot(B1, ejected, target("g1", GREEN)), GREEN, {"b2"}) == ""


def test_model_of_a_backend_that_serves_both_is_not_missed() -> None:
    old = target("b1", BLUE, models="a b")
    assert refusal(snapshot(old, target("g1", GREEN, models="a"), target("n1", NONE, models="b")), GREEN) == ""


def test_new_color_s_models_may_stand_at_several_backends() -> None:
    old = target("b1", BLUE, models="a b")
    assert refusal(snapshot(old, target("g1", GREEN, models="a"), target("g2", GREEN, models="b")), GREEN) == ""


def test_ollama_s_latest_is_the_same_model() -> None:
    ollama = target("g1", GREEN, replace(UP, engine=EngineKind.OLLAMA), models="qwen:latest")
    assert refusal(snapshot(B1, ollama), GREEN) == ""


# --- Another plan


def test_another_plan_is_judged_by_what_is_known_of_the_same_backends() -> None:
    now = snapshot(B1, target("g1", GREEN))
    moved = replace(now.targets[1].backend, address=Address("http", "elsewhere", 1))
    g2 = Backend("g2", Address("http", "g2", 8000), color=GREEN)
    plan = replace(now.plan, backends=(B1.backend, moved, g2))
    after = foreseen(now, plan)
    assert (after.plan, after.targets[0]) == (plan, B1)
    unprobed = "no backend of green is usable: g1 (unknown, not probed yet), g2 (unknown, not probed yet)"
    assert refusal(after, GREEN) == unprobed


def test_backend_that_gets_its_color_with_the_plan_is_known() -> None:
    now = snapshot(B1, target("g1", NONE))
    plan = replace(now.plan, backends=(B1.backend, replace(now.targets[1].backend, color=GREEN, weight=2)))
    assert refusal(foreseen(now, plan), GREEN) == ""
