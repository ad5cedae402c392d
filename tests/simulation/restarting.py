"""A world of engines that break, with the supervisor that restarts them and everything that must hold meanwhile.

Played by test_restarts. Real parts: supervisor, publisher, file. The engines, their means and their probes are played.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TypeVar, TypeVarTuple, Unpack

from simulation.virtual_loop import VirtualLoop
from support.restart_play import ASLEEP, BAD, GOOD, KILLED, LOADING, given_up_and_out
from understudy.controlplane.means import MeansOutcome, Proof, Surroundings
from understudy.controlplane.prober import interval_to_next_s
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.controlplane.state_file import RestartsKeeper, StateFile
from understudy.controlplane.supervisor import Supervisor
from understudy.core.color import Color
from understudy.core.restart import UNDER_WAY
from understudy.core.shortlist import is_usable
from understudy.core.snapshot import Address, Backend, Duty, HealthRules, Published, RoutingPlan
from understudy.core.upkeep import NO_WAKING, RestartKind, RestartRules, WakeRules
from understudy.core.waking import sleeps
from understudy.engines.contract import Finding

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

START_S = 10_000.0
FAULTS_S = 3600.0
QUIET_S = 1900.0
TIMEOUT_S = 3.0
# From an engine's being well again to our knowing it: an interval with its jitter, two good probes, a tick.
UNKNOWN_S_MAX = 15.0

# What happens, by how often.
_TROUBLES = {"hung": 6, "dead": 8, "barren": 4, "slow": 3, "blip": 6, "asleep": 1, "lemon": 1, "exchanges": 8}
_TROUBLES |= {"late": 2, "wall": 2, "anew": 1, "order": 2, "maintenance": 1}
# This machine sleeps when it pleases, and is woken when somebody asks.
SLEEPER = "n0"
_NAMES = {"b0": Color.BLUE, "b1": Color.BLUE, "b2": Color.BLUE, "g0": Color.GREEN, "n0": Color.NONE}


def rules_of(name: str) -> RestartRules:
    """Return how a backend of the play is restarted: b2 and g0 are children, b1 is drained for a while."""
    is_child = name in {"b2", "g0"}
    return RestartRules(
        RestartKind.RUN if is_child else RestartKind.COMMAND,
        ("engine",),
        drain_s=10.0 if name == "b1" else 0.0,
        ready_s=90.0,
        times_max=4,
        window_s=900.0,
        backoff_s=5.0,
        backoff_s_max=60.0,
        is_degraded_enough=name in {"b0", "n0"},
    )


def _backend(name: str, color: Color) -> Backend:
    health, wake = HealthRules(slow_start_s=20.0), WakeRules(mac="00:1b:44:11:3a:b7") if name == SLEEPER else NO_WAKING
    return Backend(name, Address("http", name, 8000), color=color, restart=rules_of(name), wake=wake, health=health)


@dataclass
class Engine:
    """What runs behind a backend. `state` is well, hung, dead, loads, barren or asleep; only a person can mend a lemon."""

    state: str = "well"
    since_s: float = 0.0
    ready_at_s: float = 0.0
    is_lemon: bool = False
    in_flight: int = 0


class _Loop(VirtualLoop):
    """A loop that writes files at once, because a thread would need real time."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Arguments]], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """Call it now."""
        done = self.create_future()
        done.set_result(func(*args))
        return done


class World:
    """One play. `wrong` are the invariants that did not hold, `story` what was told, `seen` how often what happened."""

    def __init__(self, seed: int, path: Path) -> None:
        self.loop, self.dice, self.path = _Loop(START_S), Random(seed), path
        self.wrong: list[str] = []
        self.story: list[str] = []
        self.seen: Counter[str] = Counter()
        self.engines = {name: Engine(since_s=START_S) for name in _NAMES}
        self.plan = RoutingPlan(tuple(_backend(name, color) for name, color in _NAMES.items()))
        self.wall_offset_s, self.is_quiet = 1.8e9, False
        self._open, self._given_up = set[str](), set[str]()
        # Those of which that was told last, and whether because they are slow.
        self._needs_person: dict[str, bool] = {}
        self._begun: dict[str, deque[float]] = {name: deque() for name in _NAMES}
        self._tasks: list[asyncio.Task[None]] = []
        self._late_until_s, self._last_cause = 0.0, ""

    def _anew(self) -> None:
        self.published = Published(first_snapshot(self.plan, self.loop.time()))
        self.publisher = Publisher(self.published, self.loop.time, lambda _: None, lambda *_: None)
        around = Surroundings(
            leave=self._leave,
            in_flight=lambda name: self.engines[name].in_flight,
            moved_at_s=lambda _: 0.0,
            renew=lambda _: None,
            probe_soon=lambda _: None,
        )
        self.supervisor = Supervisor(
            self.published,
            self.publisher,
            self,
            self.prove,
            RestartsKeeper(StateFile(self.path), self.tell),
            around=around,
            clock=self.loop.time,
            wall=lambda: self.loop.time() + self.wall_offset_s,
            dice=self.dice.random,
            tell=self.tell,
        )

    # --- the play

    async def play(self) -> None:
        """Let everything happen, then nothing any more, and look what is left."""
        self._begin()
        while self.loop.time() < START_S + FAULTS_S:
            await asyncio.sleep(self.dice.expovariate(1 / 40.0))
            await self._happen()
        self.is_quiet = True
        for name, engine in self.engines.items():
            engine.is_lemon = False
            self.publisher.set_duty(name, Duty.READY)
            if engine.state != "loads":
                self._turn(name, "well")
        await asyncio.sleep(QUIET_S)
        idle = [one for one in self.published.current.targets if not is_usable(one)]
        self.wrong += [f"{one.backend.name} gets no exchanges though it is well: {one.state}" for one in idle]
        await self._end()
        self.wrong += [f"{name}: needs a person still though it is well" for name in self._needs_person]
        self.wrong += [f"{name}: a restart has no end" for name in self._open]
        self.wrong += [str(context) for context in self.loop.mistakes]

    def _begin(self) -> None:
        self._anew()
        self._needs_person.clear()
        self.supervisor.begin()
        work = [self._tick(), *(self._probe(name) for name in _NAMES)]
        self._tasks = [self.loop.create_task(each) for each in work]

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.supervisor.close()

    async def _happen(self) -> None:
        name = self.dice.choice(list(_NAMES))
        what = self.dice.choices(list(_TROUBLES), list(_TROUBLES.values()))[0]
        self.seen[what] += 1
        if what in {"hung", "dead", "barren", "asleep"}:
            self._break(name, what)
        elif what in {"late", "wall"}:
            self._disturb(what)
        elif what in {"anew", "order", "maintenance"}:
            await self._intervene(name, what)
        else:
            self._trouble(name, what)

    def _trouble(self, name: str, what: str) -> None:
        if what == "lemon":
            self.engines[name].is_lemon = True
            self._break(name, "dead")
        elif what == "blip":
            # Comes back by itself, soon or while it is being restarted.
            self._break(name, "hung")
            self.loop.call_later(self.dice.uniform(1.0, 40.0), self._come_back, name)
        elif what == "slow":
            self.publisher.set_upkeep(name, is_degraded=True)
            self.loop.call_later(self.dice.uniform(10.0, 600.0), self._come_to_pace, name)
        else:
            self.engines[name].in_flight = self.dice.randrange(4)

    def _disturb(self, what: str) -> None:
        if what == "late":
            late_s = self.dice.uniform(3.0, 120.0)
            self._late_until_s = self.loop.time() + late_s
            self.loop._jumping.now_s += late_s
        else:
            self.wall_offset_s += self.dice.choice([-1.0, 1.0]) * self.dice.uniform(60.0, 1e8)

    async def _intervene(self, name: str, what: str) -> None:
        if what == "anew":
            await self._end()
            out = given_up_and_out(self.supervisor, self.published)
            await asyncio.sleep(self.dice.uniform(0.0, 20.0))
            self._begin()
            self._expect(given_up_and_out(self.supervisor, self.published) == out, f"{out} were out before the new start")
        elif what == "order":
            self._forget(name)
            await self.supervisor.restart(name)
        else:
            await self._maintain(name)

    async def _maintain(self, name: str) -> None:
        self.publisher.set_duty(name, Duty.MAINTENANCE)
        await asyncio.sleep(self.dice.uniform(1.0, 100.0))
        self._forget(name)
        self.publisher.set_duty(name, Duty.READY)

    def _forget(self, name: str) -> None:
        self._begun[name].clear()
        self._given_up.discard(name)
        self._needs_person.pop(name, None)

    # --- the engines

    def _turn(self, name: str, state: str) -> None:
        self.engines[name].state, self.engines[name].since_s = state, self.loop.time()

    def _break(self, name: str, state: str) -> None:
        if self.engines[name].state != "well":
            return
        self._turn(name, state)
        if name == SLEEPER and state in {"hung", "dead"}:
            self.loop.call_later(self.dice.uniform(60.0, 900.0), self._wake, name)
        elif state == "barren":
            self.loop.call_later(5.0, self._find_barren, name)
        elif state == "dead" and rules_of(name).kind is RestartKind.RUN:
            self.loop.call_later(0.1, self.supervisor.on_child_exit, name, KILLED)
        elif state == "asleep":
            self.loop.call_later(200.0, self._come_back, name)

    def _find_barren(self, name: str) -> None:
        if self.engines[name].state == "barren":
            self.supervisor.on_barren(name, "no token within 3s")

    def _come_back(self, name: str) -> None:
        if self.engines[name].state in {"hung", "asleep"}:
            self._turn(name, "well")

    def _come_to_pace(self, name: str) -> None:
        self.publisher.set_upkeep(name, is_degraded=False)
        self.supervisor.on_pace_recovered(name)

    def _wake(self, name: str) -> None:
        target = next(one for one in self.published.current.targets if one.backend.name == name)
        if sleeps(target) and self.engines[name].state in {"hung", "dead"} and not self.engines[name].is_lemon:
            self.seen["woken"] += 1
            self._turn(name, "well")

    def _state(self, name: str) -> str:
        engine = self.engines[name]
        if engine.state == "loads" and self.loop.time() >= engine.ready_at_s:
            self._turn(name, "dead" if engine.is_lemon else "well")
        return engine.state

    def is_running(self, backend: Backend) -> bool:
        return self.engines[backend.name].state != "dead"

    async def restart(self, backend: Backend) -> MeansOutcome:
        """Use the means, which take their time and may fail."""
        name = backend.name
        self._look_at_what_begins(name)
        self._turn(name, "dead")
        await asyncio.sleep(self.dice.uniform(0.1, 5.0))
        if self.dice.random() < 0.1 and not self.is_quiet:
            return MeansOutcome(is_done=False, words="no such unit")
        self.engines[name].ready_at_s = self.loop.time() + self.dice.uniform(1.0, 60.0)
        self._turn(name, "loads")
        self.seen["loads"] += 1
        return MeansOutcome(is_done=True)

    async def follow(self, backends: Collection[Backend]) -> None:
        """Children that have ended with the last daemon are there again."""
        for backend in backends:
            if rules_of(backend.name).kind is RestartKind.RUN and self._state(backend.name) == "dead":
                self.engines[backend.name].ready_at_s = self.loop.time() + 20.0
                self._turn(backend.name, "loads")

    async def close(self) -> None:
        """End nothing: the engines of the next daemon are these."""

    async def prove(self, name: str, _loaded: Collection[str]) -> Proof:
        """Ask for a token."""
        if self._state(name) == "well":
            await asyncio.sleep(0.2)
            return Proof(is_good=True, first_content_s=0.2)
        await asyncio.sleep(TIMEOUT_S)
        return Proof(is_good=False, words="no token within 3s")

    def _leave(self, name: str) -> None:
        self.engines[name].in_flight = 0

    # --- what the daemon does all the time

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.publisher.tick()
            self.supervisor.tick()
            self._look_at_colors()

    async def _probe(self, name: str) -> None:
        backend = next(one for one in self.plan.backends if one.name == name)
        while True:
            if self.loop.time() >= self._late_until_s and self._duty(name) is not Duty.MAINTENANCE:
                began_at_s, finding = self.loop.time(), self._found(name)
                await asyncio.sleep(TIMEOUT_S if finding.reason == "no answer within 3s" else 0.01)
                # As the prober does: what came while the daemon was stopped tells nothing.
                if self.loop.time() - began_at_s < TIMEOUT_S + 0.5 and self._duty(name) is not Duty.MAINTENANCE:
                    self.publisher.on_finding(name, self.supervisor.believe(name, finding))
            await asyncio.sleep(interval_to_next_s(backend.health, self.publisher.health_of(name)) * self.dice.uniform(0.8, 1.2))

    def _found(self, name: str) -> Finding:
        state = self._state(name)
        # One engine in two says that it loads; the others do not listen before they are ready.
        loading = LOADING if name in {"b0", "b2"} else BAD
        hung = replace(BAD, reason="no answer within 3s")
        return {"well": GOOD, "barren": GOOD, "hung": hung, "dead": BAD, "loads": loading, "asleep": ASLEEP}[state]

    def _duty(self, name: str) -> Duty:
        return next(one.state.duty for one in self.published.current.targets if one.backend.name == name)

    # --- what must hold

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Hear what is told."""
        name = str(fields.get("backend", ""))
        self.story.append(f"{self.loop.time() - START_S:9.2f} {event} {fields}")
        self.seen[event] += 1
        if event == "restart.started":
            self._on_started(name, str(fields["cause"]))
        elif event in {"restart.succeeded", "restart.failed"}:
            self._expect(name in self._open, f"{name}: {event} without a start")
            self._open.discard(name)
            if event == "restart.succeeded":
                # It may have broken while its token was on the way.
                is_new = self.loop.time() - self.engines[name].since_s < 1.0
                self._expect(self._state(name) == "well" or is_new, f"{name}: succeeded, and is {self._state(name)}")
        elif event == "restart.recovered":
            self._needs_person.pop(name, None)
        elif event == "restart.gave_up":
            is_slow = "far below" in str(fields["reason"])
            # One that was only slow when it was given up, and kept its exchanges, may go down yet.
            is_news = self._needs_person.get(name, True) and not (is_slow and name in self._needs_person)
            self._expect(is_news, f"{name}: given up twice")
            self._needs_person[name] = is_slow
            self._given_up.add(name)

    def _on_started(self, name: str, cause: str) -> None:
        now_s, rules = self.loop.time(), rules_of(name)
        self.seen[cause] += 1
        self._expect((name, cause) != (SLEEPER, "probes"), f"{name}: restarted though it only sleeps")
        self._expect(name not in self._open, f"{name}: begun a second time")
        self._open.add(name)
        begun = self._begun[name]
        while begun and now_s - begun[0] >= rules.window_s:
            begun.popleft()
        begun.append(now_s)
        self._expect(len(begun) <= rules.times_max, f"{name}: {len(begun)} restarts in {rules.window_s:g} s")
        if cause != "operator":
            self._expect(name not in self._given_up or len(begun) == 1, f"{name}: restarted though given up")
            self._given_up.discard(name)
            self._needs_person.pop(name, None)
            self._expect(self._duty(name) is Duty.READY, f"{name}: restarted though {self._duty(name)}")
        self._last_cause = cause

    def _look_at_what_begins(self, name: str) -> None:
        """See whether there is something to mend, now that the means are about to be used."""
        state, since_s = self._state(name), self.engines[name].since_s
        if self._last_cause in {"operator", "degraded"}:
            return
        self._expect(state != "asleep", f"{name}: restarted though it sleeps")
        is_known = self.loop.time() - since_s > UNKNOWN_S_MAX
        self._expect(state != "well" or not is_known, f"{name}: restarted though it has been well since {since_s - START_S:.2f}")

    def _look_at_colors(self) -> None:
        under_way: Counter[Color] = Counter()
        for name, color in _NAMES.items():
            status = self.supervisor.status(name)
            under_way[color] += status is not None and status["phase"] in UNDER_WAY
        for color, count in under_way.items():
            self._expect(count <= 1, f"{count} of {color} are restarted at once")

    def _expect(self, holds: bool, words: str) -> None:
        if not holds:
            self.wrong.append(f"{self.loop.time() - START_S:9.2f} {words}")
