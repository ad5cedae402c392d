"""Days of an Ollama whose memory is too small, with clients, strangers and recoveries in any order: no rule broken, no storm.

A second at a time, without sockets: the decider and the conversations are the real ones, the engine is played as
server/sched.go does it. The lists lag as probes do.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import pytest

from support.probing import answer
from understudy.core.snapshot import EngineKind, Model
from understudy.core.upkeep import WarmRules
from understudy.core.warmth import KEEP_S, KEEP_S_MIN, Load, Named, WarmFacts, Warmth
from understudy.engines.contract import ProbeAnswer
from understudy.engines.warming import Conversing, Warmed, WarmRequest, footprint, warm

STEP_S = 1.0
PROBE_S = 5.0
SETTLE_S = 2 * (PROBE_S * 1.2 + 3.0)
HOUR_S = 3600.0
EPOCH = datetime(2026, 8, 26, tzinfo=UTC)
SIZES = {"a": 4, "b": 3, "stranger": 5}
DEFAULT_KEEP_S = 300.0


@dataclass(slots=True)
class Loaded:
    """A model in memory; `by_us`: a load of ours brought it."""

    until_s: float
    keep_s: float
    used_at_s: float
    by_us: bool


@dataclass(slots=True)
class Ollama:
    """Holds models as long as memory and their time allow; the least used idle one goes first, as findRunnerToUnload has it."""

    memory: int
    now_s: float = 0.0
    loaded: dict[str, Loaded] = field(default_factory=dict)
    pushed_out_by_us: list[tuple[str, str]] = field(default_factory=list)
    loads_by_us: list[tuple[float, str]] = field(default_factory=list)

    def use(self, name: str, keep_s: float | None, *, by_us: bool) -> None:
        """Load it if need be, and begin its time anew; a keep_alive stays in force until another one is said."""
        held = self.loaded.get(name)
        if held is None:
            while self.loaded and sum(SIZES[other] for other in self.loaded) + SIZES[name] > self.memory:
                goes = min(self.loaded, key=lambda other: self.loaded[other].used_at_s)
                del self.loaded[goes]
                if by_us:
                    self.pushed_out_by_us.append((name, goes))
            held = self.loaded[name] = Loaded(0.0, DEFAULT_KEEP_S, 0.0, by_us)
            if by_us:
                self.loads_by_us.append((self.now_s, name))
        held.keep_s = held.keep_s if keep_s is None else keep_s
        held.used_at_s = self.now_s
        held.until_s = self.now_s + held.keep_s

    def tick(self) -> None:
        self.now_s += STEP_S
        self.loaded = {name: held for name, held in self.loaded.items() if held.until_s > self.now_s}

    def answer(self, request: WarmRequest) -> ProbeAnswer:
        if request.path == "/api/ps":
            entries = [
                {"name": name, "expires_at": (EPOCH + timedelta(seconds=held.until_s)).isoformat(), "context_length": 4096}
                for name, held in self.loaded.items()
            ]
            date = format_datetime(EPOCH + timedelta(seconds=self.now_s), usegmt=True)
            return answer({"models": entries}, date=date)
        body = json.loads(request.body)
        if SIZES[body["model"]] > self.memory:
            return answer({"error": "model requires more system memory than is available"}, 500)
        self.use(body["model"], float(body["keep_alive"].rstrip("s")), by_us=True)
        return answer({"done": True, "done_reason": "load"})

    def models(self) -> tuple[Model, ...]:
        """What a probe reads of its lists."""
        return tuple(
            Model(
                name,
                "",
                json.dumps({"size": size}),
                json.dumps({"size": size}) if name in self.loaded else "",
                name in self.loaded,
            )
            for name, size in SIZES.items()
        )


class Play:
    """The decider at work on one Ollama, with the load that is under way."""

    def __init__(self, memory: int, *models: str, idle_s: float) -> None:
        self.ollama = Ollama(memory)
        self.warmth = Warmth()
        self.rules = WarmRules(models, idle_s)
        self.is_up = True
        self.in_flight = 0
        self.exchange_at_s: dict[str, float] = {}
        self.up_since_s = 0.0
        self.listed = self.ollama.models()
        self.told: list[str] = []
        self._running: tuple[Load, Conversing[Warmed], float] | None = None

    def facts(self) -> WarmFacts:
        prints = {model.name: footprint(model) for model in self.listed}
        named = tuple(Named(model, prints[model], self.exchange_at_s.get(model, 0.0)) for model in self.rules.models)
        loaded = tuple(one for one in prints.values() if one.is_loaded)
        return WarmFacts("pi", self.rules, self.is_up, self.in_flight, named, loaded, lets_go=True, settle_s=SETTLE_S)

    def step(self) -> None:
        """Let a second pass: the engine, the probe, the decider, and a load that is done."""
        self.ollama.tick()
        if self.ollama.now_s % PROBE_S == 0:
            self.listed = self.ollama.models()
        if self._running is not None and (not self.is_up or self.ollama.now_s >= self._running[2]):
            self._end()
        facts = self.facts()
        decision = self.warmth.decide((facts,), self.ollama.now_s, is_busy=self._running is not None)
        self.told.extend(f"{one.model}: {one.reason}" for one in decision.refused)
        if decision.load is not None:
            self._begin(decision.load)

    def _begin(self, load: Load) -> None:
        assert self._running is None, "two at once"
        assert self.is_up, "asked while it could not serve"
        assert load.is_renewal or not self.in_flight, "a load while somebody was answered"
        assert self.ollama.now_s < self.wanted_until_s(load.model), "asked for what nobody wanted any more"
        took_s = 0.0 if load.is_renewal else 4.0
        self._running = (load, warm(EngineKind.OLLAMA, load), self.ollama.now_s + took_s)

    def wanted_until_s(self, model: str) -> float:
        if not self.rules.idle_s:
            return float("inf")
        return max(self.exchange_at_s.get(model, 0.0), self.up_since_s) + self.rules.idle_s

    def _end(self) -> None:
        assert self._running is not None
        load, asking, _ = self._running
        self._running = None
        if not self.is_up:
            return
        try:
            request = next(asking)
            while True:
                request = asking.send(self.ollama.answer(request))
        except StopIteration as end:
            warmed: Warmed = end.value
        now_s = self.ollama.now_s
        if warmed.is_warm:
            self.warmth.on_warmed(load, SETTLE_S, warmed.lasts_s, now_s)
        elif self.warmth.on_failed(load, warmed.reason, now_s):
            self.told.append(f"{load.model}: {warmed.reason}")

    def go_down(self) -> None:
        self.is_up = False
        self.ollama.loaded.clear()

    def come_up(self) -> None:
        self.is_up = True
        self.listed = self.ollama.models()
        self.up_since_s = self.ollama.now_s + STEP_S

    def ask(self, model: str) -> None:
        """A client is answered."""
        if self.is_up and SIZES[model] <= self.ollama.memory:
            self.ollama.use(model, None, by_us=False)
        self.exchange_at_s[model] = self.ollama.now_s

    def run_s(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.step()


@pytest.mark.parametrize("seed", range(8))
def test_hours_of_clients_strangers_and_recoveries_break_no_rule_and_make_no_storm(seed: int) -> None:
    dice = Random(seed)
    play = Play(dice.choice([6, 8, 13]), "a", "b", idle_s=dice.choice([0.0, 1800.0]))
    recoveries, asks = 1, 0
    for _ in range(8 * 60):
        what = dice.random()
        if what < 0.02 and play.is_up:
            play.go_down()
        elif what < 0.06 and not play.is_up:
            play.come_up()
            recoveries += 1
        elif what < 0.12:
            play.ask(dice.choice(["a", "b", "stranger"]))
            asks += 1
        play.in_flight = int(dice.random() < 0.1)
        play.run_s(60.0)
    loads = play.ollama.loads_by_us
    assert not [pair for pair in play.ollama.pushed_out_by_us if pair[1] == "stranger"], seed
    # A client may undo what was done, as may a recovery, and each is answered with a load or two; time alone is not.
    assert len(loads) <= 2 * (recoveries + asks) + 4, (seed, len(loads), recoveries, asks)
    assert len(play.told) <= 4 * (recoveries + asks) + 4, (seed, play.told)


def test_two_that_fit_are_both_kept_all_day_with_one_load_each() -> None:
    play = Play(8, "a", "b", idle_s=0.0)
    play.run_s(24 * HOUR_S)
    assert [name for _, name in play.ollama.loads_by_us] == ["a", "b"]
    assert set(play.ollama.loaded) == {"a", "b"}
    assert play.told == []


def test_of_two_that_do_not_fit_the_first_is_kept_all_day_after_one_swap() -> None:
    play = Play(6, "a", "b", idle_s=0.0)
    play.run_s(24 * HOUR_S)
    assert [name for _, name in play.ollama.loads_by_us] == ["a", "b", "a"]
    assert set(play.ollama.loaded) == {"a"}
    assert play.told[-1] == "b: memory is not known to hold it beside a"


def test_one_that_is_too_large_is_asked_for_ever_more_rarely() -> None:
    play = Play(2, "a", idle_s=0.0)
    play.run_s(24 * HOUR_S)
    assert play.ollama.loads_by_us == []
    assert play.told == ["a: answered 500: model requires more system memory than is available"]


def test_what_nobody_asks_for_is_gone_after_its_time_and_back_when_somebody_asks() -> None:
    play = Play(8, "a", idle_s=1800.0)
    play.run_s(1800.0)
    assert play.warmth.is_warm("pi", "a")
    play.run_s(KEEP_S_MIN + PROBE_S)
    assert not play.ollama.loaded
    play.run_s(10 * HOUR_S)
    assert len(play.ollama.loads_by_us) == 1
    play.exchange_at_s["a"] = play.ollama.now_s
    play.run_s(PROBE_S)
    assert set(play.ollama.loaded) == {"a"}


def test_a_stranger_is_waited_for_until_it_expires_and_never_pushed_out() -> None:
    play = Play(6, "a", idle_s=0.0)
    play.ask("stranger")
    play.listed = play.ollama.models()
    play.run_s(DEFAULT_KEEP_S - PROBE_S)
    assert set(play.ollama.loaded) == {"stranger"}
    play.run_s(4 * PROBE_S)
    assert set(play.ollama.loaded) == {"a"}
    assert play.ollama.pushed_out_by_us == []


def test_a_client_that_is_served_resets_the_time_and_no_load_comes_of_it() -> None:
    play = Play(8, "a", idle_s=0.0)
    for _ in range(100):
        play.ask("a")
        play.run_s(KEEP_S / 4)
    assert len(play.ollama.loads_by_us) == 0
    assert set(play.ollama.loaded) == {"a"}
