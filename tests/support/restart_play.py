"""Plays of restarts: one backend's course with its probes and its clock, and a supervisor with real parts around it.

What is played is the engine behind a backend: the means that restart it, the tokens that it gives, the probes that find it.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.targets import UP, target
from understudy.controlplane.means import MeansOutcome, Proof, Surroundings
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.controlplane.state_file import RestartsKeeper, StateFile
from understudy.controlplane.supervisor import Supervisor
from understudy.core import restart as course
from understudy.core.ailment import Facts
from understudy.core.ask import DialectName
from understudy.core.color import Color
from understudy.core.health import Health, Seen, observe
from understudy.core.restart import Command, Phase, Restart, Step
from understudy.core.shortlist import is_usable
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    EngineKind,
    HealthRules,
    Model,
    Published,
    RoutingPlan,
)
from understudy.core.upkeep import RestartKind, RestartRules
from understudy.engines.contract import Finding

RULES = RestartRules(RestartKind.COMMAND, ("systemctl", "restart", "vllm"), backoff_s=10.0, backoff_s_max=60.0, times_max=3)
CHILD = replace(RULES, kind=RestartKind.RUN, argv=("llama-server",))
GOOD = Finding(Seen.GOOD, EngineKind.VLLM, "1", (DialectName.OPENAI,), (Model("qwen"),))
BAD = Finding(Seen.BAD, reason="refused the connection")
LOADING = Finding(Seen.LOADING, reason="answered 503: Loading model")
ASLEEP = replace(GOOD, seen=Seen.LOADING, reason="asleep", is_asleep=True)
BOOM = MeansOutcome(is_done=False, words="systemctl ended with exit status 1", exit_status=1, output=("Unit not found.",))
KILLED = MeansOutcome(False, "llama-server was ended by SIGKILL", -9, ("loading", "oom"), was_out_of_memory=True)


class Course:
    """One backend, up and long known, with its restart: probes, news and time in, commands out in `did`."""

    def __init__(self, rules: RestartRules = RULES, *, is_known: bool = True) -> None:
        self.now_s = 1000.0
        self.rules = rules
        self.health = Health(Condition.UP if is_known else Condition.UNKNOWN)
        self.facts = Facts(target(0, UP), self.health)
        self.restart: Restart = course.watching(self.now_s)
        self.did: list[Command] = []
        if is_known:
            self.pass_s(0.5)

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.restart.phase

    def take(self, step: Step) -> "Course":
        """Take a step that was decided."""
        self.restart = step.restart
        self.did += step.commands
        return self

    def pass_s(self, seconds: float) -> "Course":
        """Let time pass, half a second at a time."""
        for _ in range(max(1, int(seconds * 2))):
            self.now_s += 0.5
            self.take(course.step(self.restart, self.rules, self._facts(), self.now_s))
        return self

    def probe(self, *seen: Seen, is_deliberate: bool = False) -> "Course":
        """Let probes find these, a second apart, and the clock tick after each."""
        for one in seen:
            self.health = observe(self.health, one, f"saw {one}", self.facts.target.backend.health, self.now_s)
            now_s = self.now_s
            self.restart = course.probed(self.restart, one, self.rules, now_s, is_deliberate=is_deliberate)
            self.pass_s(1.0)
        return self

    def say(self, **facts: object) -> "Course":
        """Let these facts be so from now on."""
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]  # names are checked by replace itself
        return self

    def be(self, **state: object) -> "Course":
        """Let the backend's state be so from now on."""
        changed = replace(self.facts.target.state, **state)  # type: ignore[arg-type]  # names are checked by replace itself
        return self.say(target=replace(self.facts.target, state=changed))

    def act(self, failure: str = "") -> "Course":
        """Let the means be through."""
        return self.take(course.acted(self.restart, self.rules, failure, self._facts(), self.now_s))

    def give_token(self, failure: str = "") -> "Course":
        """Answer the question for a token."""
        return self.take(course.proved(self.restart, self.rules, failure, self._facts(), self.now_s))

    def order(self) -> str:
        """Give the operator's word; returns why it is refused."""
        step, why = course.ordered(self.restart, self.rules, self._facts(), self.now_s)
        self.take(step)
        return why

    def take_did(self) -> list[Command]:
        """Return what was done since this was last asked."""
        did, self.did = self.did, []
        return did

    def fall(self) -> "Course":
        """Fail probes until that is enough to restart it."""
        return self.probe(*[Seen.BAD] * (self.facts.target.backend.health.fall + self.rules.after))

    def fail_once(self) -> "Course":
        """Let the restart that has begun fail by its means."""
        return self.act("no such unit")

    def _facts(self) -> Facts:
        own = self.facts.target
        state = replace(own.state, condition=self.health.condition, reason=self.health.reason)
        return replace(self.facts, target=replace(own, state=state), health=self.health)


def given_up() -> Course:
    """A backend that went down for good: three restarts have not helped."""
    play = Course().fall()
    for _ in range(RULES.times_max):
        play.fail_once().pass_s(60.0)
    assert play.phase is Phase.GAVE_UP
    play.take_did()
    return play


def given_up_and_out(supervisor: Supervisor, published: Published) -> set[str]:
    """Return the names of those that no restart has helped, and that get nothing because of that."""
    out = [one.backend.name for one in published.current.targets if one.state.is_restarting]
    return {name for name in out if (supervisor.status(name) or {}).get("phase") == "gave_up"}


@dataclass
class Engines:
    """The engines behind the backends, by name: means and proofs in one. An answer is given when the play lets it.

    `outcomes` and `proofs` are what comes next, else what is done and what is good; `asked` is what the supervisor has begun.
    """

    outcomes: dict[str, MeansOutcome] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    followed: list[tuple[str, ...]] = field(default_factory=list)
    loadable: tuple[str, ...] = ()
    childless: set[str] = field(default_factory=set)
    is_held: bool = False
    error: Exception | None = None
    let: asyncio.Event = field(default_factory=asyncio.Event)

    async def restart(self, backend: Backend) -> MeansOutcome:
        """Restart it, or say why not."""
        self.asked.append(f"restart {backend.name}")
        await self._wait()
        return self.outcomes.get(backend.name, MeansOutcome(is_done=True))

    def is_running(self, backend: Backend) -> bool:
        """Tell whether its child runs."""
        return backend.name not in self.childless

    async def prove(self, name: str, loaded: Collection[str]) -> Proof:
        """Give one token, or say why not."""
        self.asked.append(f"token {name}")
        self.loadable = tuple(loaded)
        await self._wait()
        return self.proofs.get(name, Proof(is_good=True, first_content_s=0.25))

    async def follow(self, backends: Collection[Backend]) -> None:
        """Note whose children are wanted."""
        self.followed.append(tuple(backend.name for backend in backends))

    async def close(self) -> None:
        """Note it."""
        self.asked.append("close")

    async def _wait(self) -> None:
        if self.error is not None:
            raise self.error
        if self.is_held:
            await self.let.wait()


def backend(name: str, rules: RestartRules | None = RULES, color: Color = Color.NONE, **rest: object) -> Backend:
    """Make a backend that may be restarted."""
    made = Backend(name, Address("http", name, 8000), color=color, restart=rules, health=HealthRules(slow_start_s=30.0))
    return replace(made, **rest)  # type: ignore[arg-type]  # names are checked by replace itself


class Stage:
    """A supervisor with a real publisher and a real file, two clocks to turn, and everything that was told."""

    def __init__(self, *backends: Backend, file: StateFile | None = None, now_s: float = 5000.0, wall_s: float = 1.8e9) -> None:
        self.now_s = now_s
        self.wall_s = wall_s
        self.engines = Engines()
        self.told: list[tuple[str, dict[str, object]]] = []
        self.left: list[str] = []
        self.renewed: list[str] = []
        self.in_flight: dict[str, int] = {}
        self.probed: list[str] = []
        self.published = Published(first_snapshot(RoutingPlan(backends or (backend("gpu0"),)), now_s))
        self.publisher = Publisher(self.published, self.clock, lambda _: None, lambda *_: None)
        self.supervisor = self._make(file or StateFile(None))
        self.supervisor.begin()

    def clock(self) -> float:
        """Return loop time."""
        return self.now_s

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Note it, unless it says that there is no file to keep what is counted in."""
        if event != "state.not_kept":
            self.told.append((event, fields))

    def _make(self, file: StateFile) -> Supervisor:
        around = Surroundings(
            leave=self.left.append,
            in_flight=lambda name: self.in_flight.get(name, 0),
            moved_at_s=lambda _: 0.0,
            renew=self.renewed.append,
            probe_soon=self.probed.append,
        )
        return Supervisor(
            self.published,
            self.publisher,
            self.engines,
            self.engines.prove,
            RestartsKeeper(file, self.tell),
            around=around,
            clock=self.clock,
            wall=lambda: self.wall_s,
            dice=lambda: 0.5,
            tell=self.tell,
        )

    async def pass_s(self, seconds: float) -> "Stage":
        """Let time pass, half a second at a time, and whatever has been begun go as far as it goes."""
        for _ in range(max(1, int(seconds * 2))):
            self.now_s += 0.5
            self.wall_s += 0.5
            self.publisher.tick()
            self.supervisor.tick()
            await self.settle()
        return self

    async def settle(self) -> None:
        """Let tasks go on until they wait for the play."""
        await self.supervisor._counts.settle()
        for _ in range(8):
            await asyncio.sleep(0)

    async def find(self, name: str, *findings: Finding) -> "Stage":
        """Let probes of a backend find these, a second apart; ends once everything that began has gone as far as it goes."""
        for finding in findings:
            self.publisher.on_finding(name, self.supervisor.believe(name, finding))
            await self.pass_s(1.0)
        return self

    async def fall(self, name: str) -> "Stage":
        """Fail as many probes as it takes."""
        return await self.find(name, *[BAD] * 6)

    def events(self, *fields: str) -> list[tuple[object, ...]]:
        """Return what was told of restarts: the names, with these fields."""
        return [(event.removeprefix("restart."), *(values.get(each) for each in fields)) for event, values in self.told]

    def usable(self) -> list[str]:
        """Return the names of those that get exchanges."""
        return [one.backend.name for one in self.published.current.targets if is_usable(one)]

    def state(self, name: str) -> BackendState:
        """Return the published state."""
        return next(one.state for one in self.published.current.targets if one.backend.name == name)

    def status(self, name: str) -> dict[str, object]:
        """Return the status, which there is."""
        status = self.supervisor.status(name)
        assert status is not None
        return status

    def reload(self, *backends: Backend) -> None:
        """Take another plan as daemon does."""
        self.publisher.set_plan(RoutingPlan(backends))
        self.supervisor.on_plan()


@asynccontextmanager
async def staged(*backends: Backend, path: Path | None = None, **rest: Any) -> AsyncIterator[Stage]:
    """A stage whose backends have been found well."""
    stage = Stage(*backends, file=StateFile(path), **rest)
    for one in stage.published.current.targets:
        await stage.find(one.backend.name, GOOD)
    yield stage
    await stage.supervisor.close()


def gathered_mistakes() -> list[str]:
    """Begin to gather what the loop is told of."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    return told
