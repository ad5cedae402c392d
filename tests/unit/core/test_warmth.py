"""Plays of when a model is loaded, kept, and let go, and of what may never happen for it."""

from dataclasses import replace
from itertools import pairwise

import pytest

from understudy.core.upkeep import WarmRules
from understudy.core.warmth import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    KEEP_S,
    KEEP_S_MIN,
    LOAD_S_MAX,
    Decision,
    Footprint,
    Load,
    Named,
    Refused,
    WarmFacts,
    Warmth,
)

GIB = 2**30
IDLE_S = 1800.0
SETTLE_S = 15.0


class Play:
    """One Ollama called `pi` whose file names `models`; what it has loaded is what its lists show."""

    def __init__(self, *models: str, idle_s: float = IDLE_S) -> None:
        self.warmth = Warmth()
        self.now_s = 1000.0
        self.loaded: dict[str, int] = {}
        self.files = dict.fromkeys(models, 4 * GIB)
        self.exchange_at_s: dict[str, float] = {}
        self.can_load = True
        self.in_flight = 0
        self.lets_go = True
        self.rules = WarmRules(models, idle_s)
        self.told: list[Refused] = []

    def facts(self) -> WarmFacts:
        def of(name: str) -> Footprint:
            return Footprint(name, name in self.loaded, self.loaded.get(name, 0), self.files.get(name, 0))

        named = tuple(
            Named(model, of(model) if model in self.files else None, self.exchange_at_s.get(model, 0.0))
            for model in self.rules.models
        )
        loaded = tuple(of(name) for name in self.loaded)
        return WarmFacts("pi", self.rules, self.can_load, self.in_flight, named, loaded, self.lets_go, SETTLE_S)

    def decide(self, *, is_busy: bool = False) -> Load | None:
        decision = self.warmth.decide((self.facts(),), self.now_s, is_busy=is_busy)
        self.told.extend(decision.refused)
        return decision.load

    def pass_s(self, seconds: float) -> "Play":
        self.now_s += seconds
        return self

    def succeed(self, load: Load, loaded_bytes: int = 5 * GIB, *, without: tuple[str, ...] = ()) -> bool:
        """Let the load succeed; those in `without` are pushed out by it."""
        self.loaded[load.own_name] = loaded_bytes
        for name in without:
            del self.loaded[name]
        return self.warmth.on_warmed(load, SETTLE_S, load.keep_s, self.now_s)

    def load(self, model: str, *, without: tuple[str, ...] = ()) -> None:
        """Expect that `model` is loaded now, let that succeed, and go on until the lists have settled."""
        load = self.decide()
        assert load is not None
        assert (load.model, load.is_renewal) == (model, False)
        self.succeed(load, without=without)
        self.pass_s(SETTLE_S)


# --- when


def test_the_named_models_are_loaded_at_the_start_one_after_the_other_in_the_files_order() -> None:
    play = Play("a", "b")
    first = play.decide()
    assert first == Load("pi", "a", "a", KEEP_S)
    assert play.decide(is_busy=True) is None
    assert play.succeed(first)
    play.pass_s(SETTLE_S)
    second = play.decide()
    assert second == Load("pi", "b", "b", KEEP_S, beside=frozenset({"a"}))


def test_a_backend_that_cannot_serve_is_asked_nothing_and_loaded_again_when_it_is_back() -> None:
    play = Play("a")
    play.can_load = False
    assert play.decide() is None
    play.can_load = True
    play.load("a")
    assert play.warmth.is_warm("pi", "a")
    play.can_load = False
    play.loaded.clear()
    assert play.decide() is None
    assert not play.warmth.is_warm("pi", "a")
    play.can_load = True
    play.load("a")


def test_nothing_is_loaded_while_somebody_is_answered_there() -> None:
    play = Play("a")
    play.in_flight = 1
    assert play.decide() is None
    play.in_flight = 0
    play.load("a")


def test_a_kept_model_is_asked_for_again_before_it_expires_even_while_somebody_is_answered() -> None:
    play = Play("a", idle_s=0.0)
    play.load("a")
    assert play.decide() is None
    play.in_flight = 1
    play.pass_s(KEEP_S / 2 - SETTLE_S)
    renewal = play.decide()
    assert renewal == Load("pi", "a", "a", KEEP_S, is_renewal=True)
    assert not play.succeed(renewal)
    assert play.decide() is None


def test_a_model_that_a_client_has_loaded_is_kept_as_one_of_ours() -> None:
    play = Play("a")
    play.loaded["a"] = 5 * GIB
    load = play.decide()
    assert load is not None
    assert load.is_renewal


def test_an_engine_that_does_not_let_go_is_not_asked_again() -> None:
    play = Play("a", idle_s=0.0)
    play.lets_go = False
    play.load("a")
    assert play.pass_s(10 * KEEP_S).decide() is None


def test_it_is_kept_for_as_long_as_the_file_says_after_the_last_exchange_and_then_let_go() -> None:
    play = Play("a")
    started_at_s = play.now_s
    play.load("a")
    play.exchange_at_s["a"] = asked_at_s = play.pass_s(600.0).now_s
    kept_until_s = started_at_s + KEEP_S
    while (load := play.pass_s(10.0).decide()) or play.now_s < kept_until_s:
        if load is not None:
            assert load.is_renewal
            play.succeed(load)
            kept_until_s = play.now_s + load.keep_s
    assert kept_until_s == pytest.approx(asked_at_s + IDLE_S, abs=KEEP_S_MIN)
    play.loaded.clear()
    assert play.pass_s(3600.0).decide() is None
    assert play.told == []
    assert not play.warmth.is_warm("pi", "a")


def test_a_model_that_was_let_go_is_loaded_again_when_somebody_asks_for_it_anywhere() -> None:
    play = Play("a")
    play.load("a")
    play.pass_s(IDLE_S + KEEP_S)
    play.loaded.clear()
    assert play.decide() is None
    play.exchange_at_s["a"] = play.now_s
    play.load("a")


def test_a_reload_that_no_longer_names_a_model_forgets_it() -> None:
    play = Play("a", "b")
    play.load("a")
    play.rules = WarmRules(("b",), IDLE_S)
    play.pass_s(KEEP_S).loaded.clear()
    play.load("b")
    assert (play.warmth.is_warm("pi", "a"), play.warmth.is_warm("pi", "b")) == (False, True)
    play.warmth.decide((), play.now_s, is_busy=False)
    assert not play.warmth.is_warm("pi", "b")
    assert not play.warmth.on_warmed(Load("pi", "b", "b", KEEP_S), SETTLE_S, KEEP_S, play.now_s)
    assert not play.warmth.on_failed(Load("pi", "b", "b", KEEP_S), "late", play.now_s)


# --- failures


def test_a_failing_load_is_told_once_and_tried_more_and_more_rarely() -> None:
    play = Play("a", idle_s=0.0)
    tries: list[float] = []
    while len(tries) < 9:
        load = play.decide()
        if load is not None:
            tries.append(play.now_s)
            assert play.warmth.on_failed(load, "answered 500: too large", play.now_s) is (len(tries) == 1)
        play.pass_s(1.0)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps == [BACKOFF_S, 20.0, 40.0, 80.0, 160.0, 320.0, BACKOFF_S_MAX, BACKOFF_S_MAX]
    assert play.warmth.reason("pi", "a") == "answered 500: too large"
    load = play.pass_s(BACKOFF_S_MAX).decide()
    assert load is not None
    assert play.warmth.on_failed(load, "answered 500: broken", play.now_s)
    play.pass_s(BACKOFF_S_MAX)
    play.load("a")
    assert play.warmth.reason("pi", "a") == ""


def test_a_recovery_forgives_the_failures_of_before() -> None:
    play = Play("a", idle_s=0.0)
    for _ in range(8):
        load = play.pass_s(BACKOFF_S_MAX).decide()
        assert load is not None
        play.warmth.on_failed(load, "no answer", play.now_s)
    play.can_load = False
    play.decide()
    play.can_load = True
    play.load("a")


def test_a_model_that_is_not_listed_is_told_once_and_not_asked_for() -> None:
    play = Play("a")
    play.files.clear()
    assert [play.pass_s(1.0).decide() for _ in range(3)] == [None, None, None]
    assert play.told == [Refused("pi", "a", "is not among the models that it lists")]


def test_a_model_that_somebody_unloads_again_and_again_is_not_fought_for() -> None:
    play = Play("a", idle_s=0.0)
    loads = 0
    for _ in range(3600):
        load = play.pass_s(1.0).decide()
        if load is not None and not load.is_renewal:
            loads += 1
            play.succeed(load)
        elif play.loaded and play.warmth.is_warm("pi", "a") and play.now_s % 20 == 0:
            play.loaded.clear()
    assert loads <= 12
    assert {one.reason for one in play.told} == {"was unloaded by something else before its time"}


# --- memory


def test_a_model_is_not_loaded_beside_a_stranger_that_it_might_push_out() -> None:
    play = Play("a")
    play.loaded["llama3"] = 6 * GIB
    assert [play.pass_s(1.0).decide() for _ in range(3)] == [None, None, None]
    assert play.told == [Refused("pi", "a", "memory is not known to hold it beside llama3")]
    assert play.warmth.reason("pi", "a") == play.told[0].reason
    play.loaded.clear()
    play.load("a")


def test_a_model_is_loaded_beside_a_stranger_where_as_much_was_seen_loaded_together() -> None:
    play = Play("a")
    play.loaded.update({"llama3": 6 * GIB, "other": 5 * GIB})
    assert play.decide() is None
    del play.loaded["other"]
    play.load("a")


def test_what_a_model_was_seen_to_take_counts_more_than_its_file() -> None:
    play = Play("a")
    play.loaded.update({"a": 9 * GIB, "llama3": 6 * GIB})
    load = play.decide()
    assert load is not None
    play.succeed(load, 9 * GIB)
    play.pass_s(KEEP_S + SETTLE_S)
    play.loaded = {"llama3": 7 * GIB}
    # 7 and a file of 4 would do; 7 and the 9 that it took do not.
    assert play.decide() is None
    assert play.told[-1].reason == "memory is not known to hold it beside llama3"


def test_two_named_models_that_push_each_other_out_come_to_rest_with_the_first_of_the_file() -> None:
    play = Play("a", "b", idle_s=0.0)
    play.load("a")
    play.load("b", without=("a",))
    assert play.decide() is None
    assert not play.warmth.is_warm("pi", "a")
    play.pass_s(BACKOFF_S)
    play.load("a", without=("b",))
    loads = []
    for _ in range(7200):
        load = play.pass_s(1.0).decide()
        if load is not None:
            loads.append(load)
            play.succeed(load)
    assert {load.model for load in loads if load.is_renewal} == {"a"}
    assert [load for load in loads if not load.is_renewal] == []
    assert play.warmth.reason("pi", "b") == "memory is not known to hold it beside a"


def test_an_engine_that_tells_no_sizes_is_not_held_to_them() -> None:
    play = Play("a")
    play.files["a"] = 0
    play.loaded["other"] = 0
    play.load("a")


def test_nothing_is_loaded_until_the_lists_show_what_was_loaded_last() -> None:
    play = Play("a", "b")
    load = play.decide()
    assert load is not None
    play.warmth.on_warmed(load, SETTLE_S, KEEP_S, play.now_s)
    assert play.pass_s(1.0).decide() is None
    assert play.warmth.is_warm("pi", "a")
    play.loaded["a"] = 5 * GIB
    following = play.decide()
    assert following is not None
    assert following.model == "b"


def test_a_load_that_never_shows_in_the_lists_counts_as_unloaded_by_somebody() -> None:
    play = Play("a")
    load = play.decide()
    assert load is not None
    play.warmth.on_warmed(load, SETTLE_S, KEEP_S, play.now_s)
    assert play.pass_s(SETTLE_S).decide() is None
    assert [one.reason for one in play.told] == ["was unloaded by something else before its time"]


def test_renewals_of_all_backends_come_before_loads_of_any() -> None:
    play = Play("a", idle_s=0.0)
    play.load("a")
    play.pass_s(KEEP_S / 2)
    other = replace(play.facts(), backend="laptop", loaded=(), named=(Named("a", Footprint("a", is_loaded=False)),))
    decision = play.warmth.decide((other, play.facts()), play.now_s, is_busy=False)
    assert decision == Decision(Load("pi", "a", "a", KEEP_S, is_renewal=True))


# --- what is waited for


def test_a_model_is_waited_for_while_its_backend_is_away_and_until_it_is_loaded() -> None:
    play = Play("a", "b")
    play.can_load = False
    play.decide()
    assert play.warmth.left_cold("pi") == ()
    play.can_load = True
    play.load("a")
    play.decide()
    assert play.warmth.left_cold("pi") == (), "its turn comes"


def test_a_model_that_is_not_about_to_be_loaded_is_not_waited_for() -> None:
    """Not listed, failed, let go after its idle time: whoever asks for it loads it."""
    play = Play("a", "b")
    del play.files["b"]
    load = play.decide()
    assert play.warmth.left_cold("pi") == ("b",)
    assert load is not None
    play.warmth.on_failed(load, "answered 500", play.now_s)
    play.decide()
    assert play.warmth.left_cold("pi") == ("a", "b")
    idle = Play("a")
    idle.load("a")
    idle.loaded.clear()
    idle.pass_s(2 * IDLE_S).decide()
    assert idle.warmth.left_cold("pi") == ("a",)


def test_a_model_that_others_keep_from_being_loaded_is_waited_for_only_as_long_as_a_load_may_take() -> None:
    play = Play("a", idle_s=0.0)
    play.in_flight = 1
    assert play.decide() is None
    play.pass_s(LOAD_S_MAX - 1.0).decide()
    assert play.warmth.left_cold("pi") == ()
    play.pass_s(1.0).decide()
    assert play.warmth.left_cold("pi") == ("a",)
    play.in_flight = 0
    play.load("a")
    play.decide()
    assert play.warmth.left_cold("pi") == ()
    assert play.warmth.left_cold("other") == ()
