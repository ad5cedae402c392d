"""Probe every backend at its pace and hand what was found to the publisher.

Built and run by daemon; one task a backend, owned by `Prober.run`. Follows reloads. Decides when to probe, never what a finding
means (engines), nor what becomes of the backend (core.health, by way of controlplane.publisher).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from understudy.controlplane.fetcher import Fetcher, Resolve
from understudy.core.health import Health, Seen, is_in_doubt
from understudy.core.snapshot import Backend, Duty, EngineKind, HealthRules, Published, Target
from understudy.engines import Finding

# However many failures of traffic ask for a probe, two probes of a backend begin at least this far apart.
GAP_S: Final = 0.25
FAST_INTERVAL_S_MIN: Final = 0.5

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
    """One backend's task. `known` is its last finding while that was GOOD."""

    backend: Backend
    soon: asyncio.Event
    task: asyncio.Task[None] | None = None
    known: Finding | None = None


class Prober:
    """Keeps one probing task per backend of the published plan.

    `clock` gives loop time in seconds, `dice` a number from 0 to 1 for the jitter that keeps many daemons from probing in step.
    `resolve` as in Fetcher.
    """

    def __init__(
        self,
        published: Published,
        audience: Audience,
        clock: Callable[[], float],
        dice: Callable[[], float],
        resolve: Resolve | None = None,
    ) -> None:
        self._published = published
        self._audience = audience
        self._clock = clock
        self._dice = dice
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

    def _follow_plan(self, tasks: asyncio.TaskGroup) -> None:
        wanted = {target.backend.name: target.backend for target in self._published.current.targets}
        for name, watch in list(self._watches.items()):
            if wanted.get(name) != watch.backend:
                # Also ends a probe on its way: it asked an address or with a key that no longer count.
                if watch.task is not None:
                    watch.task.cancel()
                del self._watches[name]
        for name, backend in wanted.items():
            if name not in self._watches:
                watch = self._watches[name] = _Watch(backend, asyncio.Event())
                watch.task = tasks.create_task(self._keep_probing(watch), name=f"prober.{name}")

    async def _keep_probing(self, watch: _Watch) -> None:
        while True:
            watch.soon.clear()
            if self._is_probed(watch):
                await self._probe(watch)
            await self._wait(watch)

    async def _probe(self, watch: _Watch) -> None:
        started_at_s = self._clock()
        finding = await self._fetcher.fetch_finding(watch.backend, _engine_to_ask(watch), watch.known)
        if self._was_late_since(started_at_s):
            return
        # Software on a port may be exchanged while it is down, so that what it was before says nothing afterwards.
        watch.known = finding if finding.seen is Seen.GOOD else None
        if self._is_probed(watch):
            self._audience.on_finding(watch.backend.name, finding)

    def _target(self, watch: _Watch) -> Target | None:
        targets = self._published.current.targets
        return next((target for target in targets if target.backend is watch.backend or target.backend == watch.backend), None)

    def _is_probed(self, watch: _Watch) -> bool:
        target = self._target(watch)
        return target is not None and target.state.duty is not Duty.MAINTENANCE

    async def _wait(self, watch: _Watch) -> None:
        """Wait for the next probe: an interval with 20 % of jitter either way, or until one is asked for."""
        interval_s = interval_to_next_s(watch.backend.health, self._audience.health_of(watch.backend.name))
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
    if watch.backend.engine is EngineKind.AUTO and watch.known is not None:
        return watch.known.engine
    return watch.backend.engine


def interval_to_next_s(rules: HealthRules, health: Health) -> float:
    """Seconds until the next probe, before jitter: a fifth of the interval while the condition is in doubt, at least 0.5 s."""
    if not is_in_doubt(health):
        return rules.interval_s
    return min(rules.interval_s, max(FAST_INTERVAL_S_MIN, rules.interval_s / 5))
