"""Who can serve an ask at all: names, dialects, conditions and duties, as one snapshot has them."""

from dataclasses import replace
from typing import Any

import pytest

from understudy.core.ask import Ask, DialectName
from understudy.core.color import Color
from understudy.core.shortlist import Shortlist, Shortlists, client_models_of, own_name
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    Model,
    Role,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.core.upkeep import WarmRules
from understudy.errors import FailureKind

OPENAI = (DialectName.OPENAI,)
CHAT = Ask(dialect=DialectName.OPENAI, model="qwen")


def target(
    name: str = "pi",
    *,
    models: tuple[str, ...] | None = ("qwen",),
    mapped: tuple[tuple[str, str], ...] = (),
    role: Role = Role.PRIMARY,
    warm: tuple[str, ...] = (),
    **facts: Any,
) -> Target:
    """A backend that can serve `CHAT` unless told otherwise; `facts` are fields of its state."""
    listed = None if models is None else tuple(Model(model) for model in models)
    up = BackendState(Condition.UP, Duty.READY, EngineKind.VLLM, "1.0", OPENAI, listed)
    state = replace(up, **facts)
    rules = WarmRules(warm)
    return Target(Backend(name, Address("http", "127.0.0.1", 8000), role=role, models=mapped, warm=rules), state)


def ollama(name: str = "pi", *, loaded: tuple[str, ...] = (), listed: tuple[str, ...] = ("qwen:latest",), **facts: Any) -> Target:
    """An Ollama that has these models, and those of them in memory."""
    models = tuple(Model(model, is_loaded=model in loaded) for model in listed)
    one = target(name, engine=EngineKind.OLLAMA, **facts)
    return replace(one, state=replace(one.state, models=models))


def names(*targets: Target) -> list[list[str]]:
    """The groups in which these stand for `CHAT`."""
    return [[one.name for one in group] for group in Shortlist(snapshot(*targets), CHAT).groups]


def snapshot(*targets: Target, generation: int = 1) -> RoutingSnapshot:
    """A snapshot of these, in this order."""
    return RoutingSnapshot(generation, RoutingPlan(tuple(one.backend for one in targets)), targets)


def test_model_that_is_listed_is_served_under_its_name() -> None:
    assert own_name(target(), "qwen") == "qwen"
    assert own_name(target(), "llama") is None


def test_mapped_model_is_asked_for_under_the_name_of_the_backend() -> None:
    mapped = target(models=("qwen2.5:0.5b",), mapped=(("qwen", "qwen2.5:0.5b"),))
    assert own_name(mapped, "qwen") == "qwen2.5:0.5b"
    assert own_name(mapped, "qwen2.5:0.5b") == "qwen2.5:0.5b"


def test_mapped_model_that_the_backend_does_not_list_is_not_served() -> None:
    assert own_name(target(models=("llama",), mapped=(("qwen", "qwen2.5:0.5b"),)), "qwen") is None


def test_unknown_list_serves_any_model_and_an_empty_list_serves_none() -> None:
    assert own_name(target(models=None), "qwen") == "qwen"
    assert own_name(target(models=()), "qwen") is None


def test_ask_without_a_model_is_served_even_by_an_empty_list() -> None:
    assert own_name(target(models=()), "") == ""


def test_latest_tag_makes_no_difference_to_ollama_and_all_to_others() -> None:
    lenient = target(models=("qwen:latest", "llama"), engine=EngineKind.OLLAMA)
    assert own_name(lenient, "qwen") == "qwen"
    assert own_name(lenient, "llama:latest") == "llama:latest"
    assert own_name(target(models=("qwen:latest",)), "qwen") is None


def test_latest_tag_makes_no_difference_to_a_mapping_on_ollama() -> None:
    mapped = target(models=("tiny:latest",), mapped=(("qwen", "tiny"),), engine=EngineKind.OLLAMA)
    assert own_name(mapped, "qwen:latest") == "tiny"


def test_listing_shows_mapped_models_under_their_public_names_only() -> None:
    mapped = target(models=("a", "b"), mapped=(("qwen", "a"), ("gpt-4", "a")))
    assert [(name, model.name) for name, model in client_models_of(mapped)] == [("qwen", "a"), ("gpt-4", "a"), ("b", "b")]


def test_listing_hides_a_model_whose_name_leads_to_another() -> None:
    """A client that asks for "b" gets "a", so "b" must not be shown as what the backend calls "b"."""
    mapped = target(models=("a", "b"), mapped=(("b", "a"),))
    assert [(name, model.name) for name, model in client_models_of(mapped)] == [("b", "a")]


def test_primaries_stand_before_backups_each_in_the_order_of_the_plan() -> None:
    shortlist = Shortlist(snapshot(target("b0", role=Role.BACKUP), target("p0"), target("p1")), CHAT)
    assert [[one.name for one in group] for group in shortlist.groups] == [["p0", "p1"], ["b0"]]
    assert [one.name for one in shortlist.last_resorts] == ["p0", "p1", "b0"]


@pytest.mark.parametrize(
    "unusable",
    [
        target(condition=Condition.DOWN),
        target(condition=Condition.UNKNOWN, models=None, dialects=()),
        target(duty=Duty.DRAINING),
        target(duty=Duty.MAINTENANCE),
    ],
    ids=["down", "unknown", "draining", "maintenance"],
)
def test_backend_that_could_serve_later_makes_none_usable(unusable: Target) -> None:
    shortlist = Shortlist(snapshot(unusable, target("laptop", models=("llama",))), CHAT)
    assert shortlist.groups == ()
    assert shortlist.why_none is FailureKind.NONE_USABLE


@pytest.mark.parametrize("condition", [Condition.DOWN, Condition.UNKNOWN, Condition.UP])
def test_last_resort_may_be_in_any_condition_but_not_taken_out(condition: Condition) -> None:
    one = target(condition=condition)
    assert [one.name for one in Shortlist(snapshot(one), CHAT).last_resorts] == ["pi"]
    for duty in (Duty.DRAINING, Duty.MAINTENANCE):
        assert Shortlist(snapshot(target(condition=condition, duty=duty)), CHAT).last_resorts == ()


def test_one_that_sleeps_is_no_last_resort_for_it_would_leave_the_request_waiting() -> None:
    found = Shortlist(snapshot(target(condition=Condition.DOWN, is_asleep=True)), CHAT)
    assert (found.last_resorts, found.why_none) == ((), FailureKind.NONE_USABLE)


def test_model_that_no_list_has_is_unknown() -> None:
    shortlist = Shortlist(snapshot(target(models=("llama",)), target("laptop", models=())), CHAT)
    assert (shortlist.groups, shortlist.why_none) == ((), FailureKind.MODEL_UNKNOWN)


def test_dialect_that_nobody_speaks_is_unspoken() -> None:
    ask = Ask(dialect=DialectName.OLLAMA, model="qwen")
    assert Shortlist(snapshot(target(), target("laptop")), ask).why_none is FailureKind.DIALECT_UNSPOKEN


def test_model_only_at_backends_of_another_dialect_is_unknown() -> None:
    ask = Ask(dialect=DialectName.OLLAMA, model="qwen")
    laptop = target("laptop", models=("llama",), dialects=(DialectName.OLLAMA,))
    assert Shortlist(snapshot(target(), laptop), ask).why_none is FailureKind.MODEL_UNKNOWN


def test_backend_with_an_unknown_engine_speaks_no_dialect_but_answers_paths_of_none() -> None:
    silent = target(dialects=())
    assert Shortlist(snapshot(silent), CHAT).groups == ()
    assert [one.name for one in Shortlist(snapshot(silent), Ask(model="qwen")).groups[0]] == ["pi"]


def test_shortlist_is_made_once_per_snapshot_and_kind_of_ask() -> None:
    shortlists = Shortlists()
    first, second = snapshot(target()), snapshot(target(), generation=2)
    found = shortlists.of(first, CHAT)
    assert shortlists.of(first, Ask(dialect=DialectName.OPENAI, model="qwen", session="s")) is found
    assert shortlists.of(first, Ask(dialect=DialectName.OPENAI, model="llama")) is not found
    assert shortlists.of(first, Ask(model="qwen")) is not found
    assert shortlists.of(second, CHAT) is not found


def test_model_names_that_clients_make_up_do_not_make_the_memo_grow() -> None:
    shortlists = Shortlists()
    one = snapshot(target(models=None))
    for number in range(2_000):
        shortlists.of(one, Ask(dialect=DialectName.OPENAI, model=f"made-up-{number}"))
    shortlists.of(one, Ask(dialect=DialectName.OPENAI, model="x" * 100_000))
    kept = [name for name in shortlists._by_model if len(name) < 1_000]
    assert len(shortlists._by_model) == len(kept) <= 256


def test_one_that_is_degraded_comes_last_whatever_its_role() -> None:
    found = Shortlist(snapshot(target("a", is_degraded=True), target("b", role=Role.BACKUP), target("c")), CHAT)
    assert [[one.name for one in group] for group in found.groups] == [["c"], ["b"], ["a"]]
    assert [group[0].name for group in Shortlist(snapshot(target("a", is_degraded=True)), CHAT).groups] == ["a"]


def test_one_that_is_about_to_load_the_model_comes_after_those_that_have_it_and_before_the_slow() -> None:
    slow, cold = target("slow", is_degraded=True), ollama("cold", warm=("qwen",))
    assert names(slow, cold, target("c", role=Role.BACKUP)) == [["c"], ["cold"], ["slow"]]
    assert names(ollama("cold", warm=("qwen",), loaded=("qwen:latest",)), target("c")) == [["cold", "c"]]


def test_nobody_waits_for_a_model_that_no_other_has_that_the_file_does_not_name_or_that_is_not_about_to_be_loaded() -> None:
    cold, warm = ollama("cold", warm=("qwen",)), ollama("warm", loaded=("qwen:latest",))
    assert names(cold, warm) == [["warm"], ["cold"]]
    assert names(cold, ollama("also", warm=("qwen",)), ollama("other", role=Role.BACKUP)) == [["cold", "also"], ["other"]]
    assert names(ollama("unnamed"), warm) == [["unnamed", "warm"]]
    assert names(ollama("left", warm=("qwen",), left_cold=("qwen",)), warm) == [["left", "warm"]]
    other = ollama("other", warm=("llama",), listed=("qwen:latest", "llama"), loaded=("qwen:latest",))
    assert names(other, warm) == [["other", "warm"]]


def test_for_a_conversation_of_one_color_what_another_color_has_loaded_is_nothing() -> None:
    def of(color: Color, one: Target) -> Target:
        return replace(one, backend=replace(one.backend, color=color))

    cold = of(Color.BLUE, ollama("cold", warm=("qwen",)))
    backup = of(Color.BLUE, ollama("backup", role=Role.BACKUP))
    warm = of(Color.GREEN, ollama("warm", loaded=("qwen:latest",)))
    shortlist = Shortlist(snapshot(cold, backup, warm), CHAT)
    assert [[one.name for one in group] for group in shortlist.groups_of("blue")] == [["cold"], ["backup"]]
    assert [[one.name for one in group] for group in shortlist.groups_of("green")] == [["warm"]]


def test_model_that_is_about_to_be_loaded_is_known_under_the_name_of_the_backend() -> None:
    cold = ollama("cold", warm=("qwen",), mapped=(("qwen", "qwen2.5:0.5b"),), listed=("qwen2.5:0.5b",))
    assert names(cold, target("b")) == [["b"], ["cold"]]
    assert names(cold, target("b", models=None)) == [["b"], ["cold"]], "one that lists nothing has it"
    by_own_name = Ask(dialect=DialectName.OPENAI, model="qwen2.5:0.5b")
    groups = Shortlist(snapshot(cold, target("b", models=None)), by_own_name).groups
    assert [[one.name for one in group] for group in groups] == [["b"], ["cold"]]


def test_ask_without_a_model_waits_for_none() -> None:
    shortlist = Shortlist(snapshot(ollama("cold", warm=("qwen",)), ollama("b")), Ask(dialect=DialectName.OPENAI))
    assert [[one.name for one in group] for group in shortlist.groups] == [["cold", "b"]]


def test_one_that_is_being_restarted_gets_nothing_whatever_its_probes_say() -> None:
    found = Shortlist(snapshot(target("a", is_restarting=True)), CHAT)
    assert (found.groups, found.last_resorts, found.why_none) == ((), (), FailureKind.NONE_USABLE)


def test_one_is_unproven_of_a_color_as_long_as_all_of_it_are() -> None:
    def green(name: str, **facts: Any) -> Target:
        one = target(name, **facts)
        return replace(one, backend=replace(one.backend, color=Color.GREEN))

    unknown: dict[str, Any] = {"condition": Condition.UNKNOWN}
    assert Shortlist(snapshot(green("a", **unknown)), CHAT).is_unproven("green")
    assert not Shortlist(snapshot(green("a", **unknown), green("b")), CHAT).is_unproven("green")
    assert not Shortlist(snapshot(target("a", **unknown)), CHAT).is_unproven("green")
