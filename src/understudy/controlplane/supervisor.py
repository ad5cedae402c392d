"""Restart backends: watch what ails each, take it out, let the means do their work, prove that it helped, put it back.

Built by daemon; told by the prober and the token prober (findings, proofs), by the means (children that ended), by the admin
port (the operator's word), by the reload, and by the clock (`tick`). When and how often is core.restart's to say. Owns every task
it begins. Never probes by itself, never chooses a backend, and shows nothing of a command.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from understudy.controlplane.means import Means, MeansOutcome, Proof, RestartOrder, Surroundings
from understudy.controlplane.publisher import Publisher
from understudy.controlplane.restart_counts import RestartCounts
from understudy.controlplane.state_file import RestartsKeeper
from understudy.core import restart as course
from understudy.core.ailment import Facts, peers_of, with_memory
from understudy.core.health import Seen
from understudy.core.restart import UNDER_WAY, Command, Phase, Restart, Step
from understudy.core.snapshot import Backend, Published, Target
from understudy.core.upkeep import RestartKind, RestartRules
from understudy.engines.contract import Finding

# Between two ticks there is about half a second; much more is a daemon that was stopped.
TICK_GAP_S_MAX: Final = 2.0
# What cuts a command off midway, the end of the daemon or another file, waits so long for it.
FINISH_S_MAX: Final = 5.0

_NO_RULES: Final = "the file names no means of restarting it; want a restart: under the backend"
_STOPPING: Final = "the daemon is stopping"
_OWN_MISTAKE: Final = "a mistake of the daemon's own, which its log tells"
_NO_OUTCOME: Final = MeansOutcome(is_done=True)
_CHILDLESS: Final = Finding(Seen.BAD, reason="its process does not run")


@dataclass(slots=True)
class _Watch:
    """One backend that may be restarted, with what is under way for it. `outcome` is the means' or the child's last one.

    `loaded` are its own names of the models that it had in memory before the restarts that have not helped yet.
    """

    backend: Backend
    rules: RestartRules
    restart: Restart
    outcome: MeansOutcome = _NO_OUTCOME
    loaded: tuple[str, ...] = ()
    first_content_s: float | None = None
    acted_at_s: float = 0.0
    acting: asyncio.Task[None] | None = None
    asking: asyncio.Task[None] | None = None


class Supervisor:
    """Every backend whose file says how it is restarted.

    `prove` asks a backend for one token, for which it may load what that one had in memory before, and takes as long as it likes.
    `clock` gives loop time and `wall` the wall clock's, in seconds; `dice` a number from 0 to 1. `tell` gets an event's name
    (telemetry.events) and its fields.
    """

    def __init__(
        self,
        published: Published,
        publisher: Publisher,
        means: Means,
        prove: Callable[[str, Collection[str]], Awaitable[Proof]],
        keeper: RestartsKeeper,
        *,
        around: Surroundings,
        clock: Callable[[], float],
        wall: Callable[[], float],
        dice: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._published = published
        self._publisher = publisher
        self._means = means
        self._prove = prove
        self._counts = RestartCounts(keeper, clock, wall)
        self._around = around
        self._clock = clock
        self._dice = dice
        self._tell = tell
        self._watches: dict[str, _Watch] = {}
        self._ticked_at_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        # Those among them that use means other than children, which end with us anyway.
        self._finishing: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._is_following = False
        self._is_follow_due = False
        self._is_closed = False

    # --- the start, the file and the end

    def begin(self) -> None:
        """Read what was kept and start the children. To be called once, on the loop, before the first tick."""
        self._ticked_at_s = self._clock()
        self._follow_plan(self._counts.read())

    def on_plan(self) -> None:
        """Hear that a plan was published: follow it, children included. Whoever is no longer to be restarted is let go."""
        self._follow_plan({})

    def _follow_plan(self, before: Mapping[str, Restart]) -> None:
        now_s = self._clock()
        targets = {one.backend.name: one for one in self._published.current.targets if one.backend.restart is not None}
        for name, watch in list(self._watches.items()):
            target = targets.get(name)
            if target is None or _identity(target.backend) != _identity(watch.backend):
                self._drop(name, "the file no longer has it so")
        for name, target in targets.items():
            rules, known = target.backend.restart, self._watches.get(name)
            if rules is not None and known is not None:
                known.backend, known.rules = target.backend, rules
            elif rules is not None:
                watch = self._watches[name] = _Watch(target.backend, rules, before.get(name) or course.watching(now_s))
                if watch.restart.is_out:
                    self._publisher.set_upkeep(name, is_restarting=True)
        self._keep()
        self._follow()

    def stop_beginning(self) -> None:
        """Begin no restart any more, for the daemon drains. Where nothing was done yet it is called off; the rest goes on."""
        self._is_stopping = True

    async def close(self) -> None:
        """End what is under way, a command not before `FINISH_S_MAX`, and every child; returns when all is gone and kept."""
        self._is_closed = self._is_stopping = True
        for task in self._tasks - self._finishing:
            task.cancel()
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=FINISH_S_MAX)
        for name, watch in self._watches.items():
            if watch.restart.phase in (Phase.ACTING, Phase.PROVING):
                self._tell_failure(name, watch, _STOPPING, next_in_s=None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._means.close()
        self._keep()
        await self._counts.settle()

    # --- news

    def believe(self, name: str, finding: Finding) -> Finding:
        """Hear what a probe has found; return what it says: nothing good where the child does not run, as a stranger answered."""
        watch = self._watches.get(name)
        if watch is not None:
            finding = finding if self._means.is_running(watch.backend) else _CHILDLESS
            is_deliberate = finding.is_asleep or finding.wants_key
            watch.restart = course.probed(watch.restart, finding.seen, watch.rules, self._clock(), is_deliberate=is_deliberate)
        return finding

    def on_barren(self, name: str, words: str) -> None:
        """Hear that a backend answers its health check and generates nothing, which the token prober has made sure of."""
        watch = self._watches.get(name)
        if watch is not None and not self._is_closed:
            watch.restart = course.found_barren(watch.restart, words)
            self._step(name)

    def on_child_exit(self, name: str, outcome: MeansOutcome) -> None:
        """Hear that a child has ended by itself, or could not be started."""
        watch = self._watches.get(name)
        if watch is None or self._is_closed:
            return
        if watch.restart.phase is not Phase.ACTING:
            watch.outcome = outcome
        watch.restart = course.ended(watch.restart, _words_of_end(outcome))
        self._step(name)

    def on_pace_recovered(self, name: str) -> None:
        """Hear that a backend that was slow is at its usual pace again (backend.recovered_pace)."""
        watch = self._watches.get(name)
        if watch is not None and not self._is_closed:
            self._step(name)
            self._take(name, course.pace_recovered(watch.restart))

    async def restart(self, name: str) -> RestartOrder:
        """Take the operator's word; returns at once, when it has begun or is refused."""
        watch, target = self._watches.get(name), self._target(name)
        if target is None:
            return RestartOrder(f"no backend is named {name!r}", is_known=False)
        step, refusal = None, _NO_RULES if watch is None else _STOPPING
        if watch is not None and not self._is_stopping:
            facts = self._facts(target, self._under_way())
            step, refusal = course.ordered(watch.restart, watch.rules, facts, self._clock())
        if step is None or refusal:
            self._tell("restart.refused", {"backend": name, "reason": refusal})
            return RestartOrder(refusal)
        self._take(name, step)
        return RestartOrder()

    # --- the clock

    def tick(self) -> None:
        """Look at every backend. To be called about every half second."""
        now_s = self._clock()
        late_s = now_s - self._ticked_at_s
        self._ticked_at_s = now_s
        if self._is_closed or not self._watches:
            return
        if late_s > TICK_GAP_S_MAX:
            for watch in self._watches.values():
                watch.restart = course.delayed(watch.restart, late_s)
        for name in list(self._watches):
            self._step(name)
        self._keep()

    def _step(self, name: str) -> None:
        watch, target = self._watches[name], self._target(name)
        if target is not None:
            facts = self._facts(target, self._under_way())
            self._take(name, course.step(watch.restart, watch.rules, facts, self._clock()))

    def _facts(self, target: Target, under_way: Collection[str]) -> Facts:
        name = target.backend.name
        restarting, down = peers_of(self._published.current, target, under_way)
        return Facts(
            target=target,
            health=self._publisher.health_of(name),
            in_flight=self._around.in_flight(name),
            moved_at_s=self._around.moved_at_s(name),
            peer_restarting=restarting,
            peer_down=down,
            dice=self._dice(),
            is_stopping=self._is_stopping,
        )

    def _target(self, name: str) -> Target | None:
        return next((one for one in self._published.current.targets if one.backend.name == name), None)

    def _under_way(self) -> set[str]:
        return {name for name, watch in self._watches.items() if watch.restart.phase in UNDER_WAY}

    # --- what is decided

    def _take(self, name: str, step: Step) -> None:
        watch = self._watches[name]
        watch.restart = _with_memory(step, watch.outcome)
        if watch.asking is not None and not step.restart.is_asking:
            watch.asking.cancel()
            watch.asking = None
        for command in step.commands:
            self._carry_out(command, name, watch)
        if step.commands:
            self._keep()

    def _carry_out(self, command: Command, name: str, watch: _Watch) -> None:
        match command:
            case Command.TAKE_OUT:
                self._publisher.set_upkeep(name, is_restarting=True)
            case Command.PUT_BACK:
                self._publisher.set_upkeep(name, is_restarting=False)
            case Command.ACT:
                self._begin_acting(name, watch)
            case Command.PROVE:
                watch.asking = self._spawn(
                    self._ask(name, watch), f"{name}.token", lambda: self._on_proved(name, watch, _OWN_MISTAKE)
                )
            case Command.SUCCEED:
                lasted_s = round(self._clock() - watch.acted_at_s, 3)
                self._tell("restart.succeeded", {"backend": name, "lasted_s": lasted_s, "first_content_s": watch.first_content_s})
                self._around.renew(name)
                watch.loaded, watch.first_content_s = (), None
                self._publisher.set_upkeep(name, is_restarting=False, is_degraded=False)
            case Command.RECOVER:
                self._tell("restart.recovered", {"backend": name, "first_content_s": watch.first_content_s})
                watch.loaded, watch.first_content_s = (), None
                self._publisher.set_upkeep(name, is_restarting=False)
            case Command.FAIL:
                is_pausing = watch.restart.phase is Phase.PAUSING
                next_in_s = round(watch.restart.not_before_s - self._clock(), 3) if is_pausing else None
                self._tell_failure(name, watch, watch.restart.reason, next_in_s=next_in_s)
            case Command.GIVE_UP:
                times = len(course.recent(watch.restart, watch.rules, self._clock()))
                fields = {"backend": name, "times": times, "window_s": watch.rules.window_s, "taken_out": watch.restart.is_out}
                self._tell("restart.gave_up", {**fields, "reason": watch.restart.reason})

    def _begin_acting(self, name: str, watch: _Watch) -> None:
        now_s, restart = self._clock(), watch.restart
        watch.acted_at_s, watch.outcome = now_s, _NO_OUTCOME
        target = self._target(name)
        models = target.state.models if target is not None else ()
        watch.loaded = tuple(model.name for model in models or () if model.is_loaded) or watch.loaded
        fields = {"backend": name, "cause": str(restart.cause), "reason": restart.reason}
        times = len(course.recent(restart, watch.rules, now_s))
        self._tell("restart.started", {**fields, "nth": times, "times_max": watch.rules.times_max})
        watch.acting = self._spawn(self._act(name, watch), name, lambda: self._on_acted(name, watch, _OWN_MISTAKE))
        if watch.rules.kind is not RestartKind.RUN:
            self._finishing.add(watch.acting)
            watch.acting.add_done_callback(self._finishing.discard)

    async def _act(self, name: str, watch: _Watch) -> None:
        # What is done may end this very machine: it is counted first.
        await self._counts.settle()
        self._around.leave(name)
        watch.outcome = await self._means.restart(watch.backend)
        failure = "" if watch.outcome.is_done else watch.outcome.words or "the means say that it is not done"
        self._on_acted(name, watch, failure)

    def _on_acted(self, name: str, watch: _Watch, failure: str) -> None:
        target = self._target(name)
        if target is not None and self._watches.get(name) is watch:
            facts = self._facts(target, ())
            self._take(name, course.acted(watch.restart, watch.rules, failure, facts, self._clock()))
            self._around.probe_soon(name)

    async def _ask(self, name: str, watch: _Watch) -> None:
        proof = await self._prove(name, watch.loaded)
        watch.first_content_s = round(proof.first_content_s, 3) or None
        self._on_proved(name, watch, "" if proof.is_good else proof.words or "no token came")

    def _on_proved(self, name: str, watch: _Watch, failure: str) -> None:
        watch.asking = None
        target = self._target(name)
        if target is not None and self._watches.get(name) is watch:
            facts = self._facts(target, ())
            self._take(name, course.proved(watch.restart, watch.rules, failure, facts, self._clock()))

    def _tell_failure(self, name: str, watch: _Watch, reason: str, *, next_in_s: float | None) -> None:
        status, output, was_out_of_memory = watch.outcome.exit_status, list(watch.outcome.output), watch.outcome.was_out_of_memory
        how = {"exit_status": status, "output": output, "next_in_s": next_in_s, "out_of_memory": was_out_of_memory}
        self._tell("restart.failed", {"backend": name, "reason": reason, **how})

    def _drop(self, name: str, why: str) -> None:
        watch = self._watches.pop(name)
        for task in (watch.acting, watch.asking):
            if task is not None:
                if task in self._finishing:
                    asyncio.get_running_loop().call_later(FINISH_S_MAX, task.cancel)
                else:
                    task.cancel()
        if watch.restart.phase not in (Phase.WATCHING, Phase.WAITING_OUT):
            self._tell_failure(name, watch, why, next_in_s=None)
        if watch.restart.is_out:
            self._publisher.set_upkeep(name, is_restarting=False)

    # --- children, what is kept, tasks

    def _follow(self) -> None:
        """Let the means follow the plan; what is published meanwhile is followed afterwards."""
        self._is_follow_due = True
        if not self._is_following and not self._is_closed:
            self._is_following = True
            self._spawn(self._keep_following(), "children", lambda: None)

    async def _keep_following(self) -> None:
        try:
            while self._is_follow_due:
                self._is_follow_due = False
                await self._means.follow([watch.backend for watch in self._watches.values()])
        finally:
            self._is_following = False

    def _keep(self) -> None:
        self._counts.keep({name: (watch.restart, watch.rules) for name, watch in self._watches.items()})

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, on_broken: Callable[[], None]) -> asyncio.Task[None]:
        """Begin a task of ours. `on_broken` is called where it raises, which is our own mistake and is reported as one."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name=f"supervisor.{name}")
        self._tasks.add(task)

        def on_done(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                loop.call_exception_handler({"message": "a restart failed internally", "exception": error, "task": done})
                on_broken()

        task.add_done_callback(on_done)
        return task

    # --- what is shown

    def status(self, name: str) -> dict[str, Any] | None:
        """Return how it stands with restarting that backend, as JSON values; None where the file does not say how to."""
        watch = self._watches.get(name)
        return course.status_of(watch.restart, watch.rules, self._clock()) if watch is not None else None


def _identity(backend: Backend) -> tuple[object, ...]:
    """Return what makes it another backend, of which nothing is known: what is done by the old means is ended or has failed."""
    rules = backend.restart
    means = (rules.kind, rules.argv, rules.subject, rules.env, rules.folder) if rules is not None else None
    return (backend.address, backend.engine, means)


def _words_of_end(outcome: MeansOutcome) -> str:
    return with_memory(outcome.words or "its process has ended", was_out_of_memory=outcome.was_out_of_memory)


def _with_memory(step: Step, outcome: MeansOutcome) -> Restart:
    """Return the restart that was decided; where it has failed, its reason says that memory had run out."""
    restart = step.restart
    if Command.FAIL not in step.commands or restart.phase not in (Phase.PAUSING, Phase.GAVE_UP):
        return restart
    return replace(restart, reason=with_memory(restart.reason, was_out_of_memory=outcome.was_out_of_memory))
