"""Probe every backend at its pace and hand what was found to the publisher; sooner and closer while one is suspect.

Built and run by daemon; two tasks a backend, owned by `Prober.run`: one probes, the other looks at the work that goes on while an
attempt is suspect. Follows reloads. Decides when to probe, never what a finding means (engines), nor what becomes of the backend
(core.health, by way of controlplane.publisher) or of the attempt (core.deadlines, by the evidence that is left here).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from understudy.controlplane.fetcher import Fetcher, Resolve
from understudy.core.evidence import Evidence
from understudy.core.health import Health, Seen, is_in_doubt
from understudy.core.snapshot import Backend, Duty, EngineKind, HealthRules, Published, Target
from understudy.engines import Finding
from understudy.engines.progress import PROGRESS_INTERVAL_S, tells_progress

# However many failures of traffic ask for a probe, two probes of a backend begin at least this far apart.
GAP_S: Final = 0.25
FAST_INTERVAL_S_MIN: Final = 0.5

# How long a backend stays suspect after it was last said to be; who suspects it looks at it more often than that.
SUSPECT_S: Final = 2.0

# Of a backend that looked like a generic server, every so-many-th probe asks anew what it is: it may have been something in front
# of the engine that answered. That takes one question more.
ANEW_EVERY: Final = 10

# The loop is looked at this often; when it is later than LATE_S_MAX the daemon itself was stopped or starved, and answers may
# have waited in our own sockets all the while.
BEAT_S: Final = 0.25
LATE_S_MAX: Final = 0.5


class Audience(Protocol):
    """Who wants the findings: controlplane.publisher."""

    def on_finding(self, name: str, finding: Finding) -> None:
        """Take one finding about the backend of that name."""

    def health_of(self, name: str) -> Health:
        """Tell what is believed of that backend."""


@dataclass(slots=True)
class _Watch:
    """One backend's tasks. `known` is its last finding while that was GOOD; `suspected` is set while it is suspect.

    `count` is that of the probes begun.
    """

    backend: Backend
    soon: asyncio.Event = field(default_factory=asyncio.Event)
    suspected: asyncio.Event = field(default_factory=asyncio.Event)
    suspect_until_s: float = 0.0
    tasks: tuple[asyncio.Task[None], ...] = ()
    known: Finding | None = None
    count: int = 0


class Prober:
    """Keeps the two tasks of every backend of the published plan.

    `clock` gives loop time in seconds, `dice` a number from 0 to 1 for the jitter that keeps many daemons from probing in step.
    `resolve` as in Fetcher. `evidence` gives where to leave what speaks for a backend of that name (core.tally).
    """

    def __init__(
        self,
        published: Published,
        audience: Audience,
        clock: Callable[[], float],
        dice: Callable[[], float],
        resolve: Resolve | None = None,
        *,
        evidence: Callable[[str], Evidence],
    ) -> None:
        self._published = published
        self._audience = audience
        self._clock = clock
        self._dice = dice
        self._evidence = evidence
        self._fetcher = Fetcher(resolve)
        self._watches: dict[str, _Watch] = {}
        self._plan_changed = asyncio.Event()
        # Loop time at which the beat is due, and at which it last came too late.
        self._beat_due_at_s = float("inf")
        self._late_at_s = float("-inf")

    async def run(self) -> None:
        """Probe until cancelled. New and changed backends are probed at once, removed ones no longer."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat(), name="prober.beat")
            while True:
                self._plan_changed.clear()
                self._follow_plan(tasks)
                await self._plan_changed.wait()

    def on_plan_change(self) -> None:
        """Say that another plan is published."""
        self._plan_changed.set()

    def probe_soon(self, name: str) -> None:
        """Probe that backend now, or as soon as `GAP_S` allows; calls while that is pending add nothing."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.soon.set()

    def suspect(self, name: str) -> None:
        """Probe that backend now and then at the fast pace, and look at its work, as long as this is said again and again."""
        watch = self._watches.get(name)
        if watch is None:
            return
        now_s = self._clock()
        if now_s >= watch.suspect_until_s:
            watch.soon.set()
        watch.suspect_until_s = now_s + SUSPECT_S
        watch.suspected.set()

    def _follow_plan(self, tasks: asyncio.TaskGroup) -> None:
        wanted = {target.backend.name: target.backend for target in self._published.current.targets}
        for name, watch in list(self._watches.items()):
            if wanted.get(name) != watch.backend:
                # Also ends a probe on its way: it asked an address or with a key that no longer count.
                for task in watch.tasks:
                    task.cancel()
                del self._watches[name]
        for name, backend in wanted.items():
            if name not in self._watches:
                watch = self._watches[name] = _Watch(backend)
                watch.tasks = (
                    tasks.create_task(self._keep_probing(watch), name=f"prober.{name}"),
                    tasks.create_task(self._keep_watching(watch), name=f"prober.{name}.work"),
                )

    async def _keep_probing(self, watch: _Watch) -> None:
        while True:
            watch.soon.clear()
            if self._is_probed(watch):
                await self._probe(watch)
            await self._wait(watch)

    async def _probe(self, watch: _Watch) -> None:
        started_at_s = self._clock()
        engine = _engine_to_ask(watch)
        watch.count += 1
        target = self._target(watch)
        before = target.state.engine if target is not None else EngineKind.AUTO
        finding = await self._fetcher.fetch_finding(watch.backend, engine, watch.known, before=before)
        if self._was_late_since(started_at_s):
            return
        # Software on a port may be exchanged while it is down, so that its version and models say nothing afterwards.
        watch.known = finding if finding.seen is Seen.GOOD else None
        if self._is_probed(watch):
            # One that refuses our key is alive.
            is_good = finding.seen is Seen.GOOD or finding.wants_key
            evidence = self._evidence(watch.backend.name)
            evidence.on_probe(started_at_s, self._clock(), is_good=is_good, is_refusing=finding.is_refusing)
            self._audience.on_finding(watch.backend.name, finding)

    async def _keep_watching(self, watch: _Watch) -> None:
        """While the backend is suspect look whether its work goes on. Its probes do not wait for that: it may take its time."""
        while True:
            await watch.suspected.wait()
            target = self._target(watch)
            if self._clock() >= watch.suspect_until_s or target is None or target.state.duty is Duty.MAINTENANCE:
                watch.suspected.clear()
                continue
            if tells_progress(target.state.engine):
                figures = await self._fetcher.fetch_figures(watch.backend, target.state.engine)
                self._evidence(watch.backend.name).on_figures(figures, self._clock())
            await asyncio.sleep(PROGRESS_INTERVAL_S)

    def _target(self, watch: _Watch) -> Target | None:
        targets = self._published.current.targets
        return next((target for target in targets if target.backend is watch.backend or target.backend == watch.backend), None)

    def _is_probed(self, watch: _Watch) -> bool:
        target = self._target(watch)
        return target is not None and target.state.duty is not Duty.MAINTENANCE

    async def _wait(self, watch: _Watch) -> None:
        """Wait for the next probe: an interval with 20 % of jitter either way, or until one is asked for."""
        is_suspect = self._clock() < watch.suspect_until_s
        health = self._audience.health_of(watch.backend.name)
        interval_s = interval_to_next_s(watch.backend.health, health, is_suspect=is_suspect)
        delay_s = interval_s * (0.8 + 0.4 * self._dice())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await asyncio.sleep(min(GAP_S, delay_s))
                await watch.soon.wait()

    async def _beat(self) -> None:
        while True:
            self._beat_due_at_s = self._clock() + BEAT_S
            await asyncio.sleep(BEAT_S)
            if self._clock() - self._beat_due_at_s > LATE_S_MAX:
                self._late_at_s = self._clock()

    def _was_late_since(self, started_at_s: float) -> bool:
        # After a stop this may run before the beat does, so the beat that is overdue counts as well.
        return self._late_at_s >= started_at_s or self._clock() - self._beat_due_at_s > LATE_S_MAX


def _engine_to_ask(watch: _Watch) -> EngineKind:
    if watch.backend.engine is not EngineKind.AUTO or watch.known is None:
        return watch.backend.engine
    is_due = watch.known.engine is EngineKind.OPENAI and watch.count % ANEW_EVERY == 0
    return EngineKind.AUTO if is_due else watch.known.engine


def interval_to_next_s(rules: HealthRules, health: Health, *, is_suspect: bool = False) -> float:
    """Seconds until the next probe, before jitter: a fifth of the interval while there is doubt or suspicion, at least 0.5 s."""
    if not is_suspect and not is_in_doubt(health):
        return rules.interval_s
    return min(rules.interval_s, max(FAST_INTERVAL_S_MIN, rules.interval_s / 5))
