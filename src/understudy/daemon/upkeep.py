"""Wire what keeps backends well and tells a person: restarts, token probes, degradation, warmth, waking, figures, alerts.

Kept by daemon.wiring. Each part is loaded and made with the first file that asks for it, and stays from then on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from understudy.config.compile import alert_channels
from understudy.config.schema import Settings
from understudy.core.health import Health
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import RoutingPlan
from understudy.core.upkeep import NO_SLO, NO_WAKING, GenerateWhen
from understudy.engines.contract import Finding
from understudy.errors import MEANING, Side

if TYPE_CHECKING:
    from understudy.controlplane.alerts import Alerts
    from understudy.controlplane.degradation_watch import DegradationWatch
    from understudy.controlplane.figures_reader import FiguresReader
    from understudy.controlplane.means import MeansOutcome
    from understudy.controlplane.objective_watch import ObjectiveWatch
    from understudy.controlplane.restart_command import Commands
    from understudy.controlplane.supervisor import Supervisor
    from understudy.controlplane.token_prober import TokenProber
    from understudy.controlplane.waker import Waker
    from understudy.controlplane.warmer import Warmer
    from understudy.core.alert_writing import Cost
    from understudy.daemon.wiring import Daemon
    from understudy.dataplane.gauge import Gauge


class Upkeep:
    """Each part is None until the file asks for it.

    It stands in the publisher's place before the prober (controlplane.prober.Audience), so that findings pass those who hold
    something against a backend that its probes do not see.
    """

    def __init__(self, daemon: "Daemon", env: Mapping[str, str]) -> None:
        self.supervisor: Supervisor | None = None
        self.tokens: TokenProber | None = None
        self.degradation: DegradationWatch | None = None
        self.warmer: Warmer | None = None
        self.waker: Waker | None = None
        self.figures: FiguresReader | None = None
        self.objectives: ObjectiveWatch | None = None
        self.alerts: Alerts | None = None
        self._daemon = daemon
        self._env = env
        self._dice = Random().random  # noqa: S311  # jitter is no secret
        self._gauge: Gauge | None = None
        self._commands: Commands | None = None
        self._failed = 0
        self._moved = 0
        self._runs: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = []
        self._has_more = asyncio.Event()

    # --- findings on their way to the publisher

    def on_finding(self, name: str, finding: Finding) -> None:
        """Take one finding of the prober."""
        if self.tokens is not None:
            self.tokens.on_finding(name, finding)
        else:
            self._daemon.publisher.on_finding(name, finding)

    def health_of(self, name: str) -> Health:
        """Tell what is believed of a backend."""
        return self._daemon.publisher.health_of(name)

    # --- life

    def begin(self, settings: Settings) -> None:
        """Make what the file asks for, before the first probes. Raises OSError for what an operator must mend."""
        self._follow_alerts(settings)
        self.on_plan()

    async def run(self) -> None:
        """Run what runs in the background, now and once it is made, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._has_more.clear()
                runs, self._runs = self._runs, []
                for name, run in runs:
                    tasks.create_task(run(), name=name)
                await self._has_more.wait()

    def tick(self) -> None:
        """Let time pass. To be called about every half second."""
        for part in (self.supervisor, self.degradation, self.warmer, self.waker, self.objectives):
            try:
                if part is not None:
                    part.tick()
            except Exception:
                # The fault is ours and is logged with its traceback (library.complained); answers must not end for it.
                logging.getLogger(__name__).exception("%s failed", type(part).__name__)

    def on_stopping(self) -> None:
        """The daemon drains: nothing is begun any more."""
        if self.supervisor is not None:
            self.supervisor.stop_beginning()

    async def close(self) -> None:
        """End what is under way, children included, and tell what there is still to tell."""
        for part in (self.supervisor, self.degradation, self.warmer, self.waker):
            if part is not None:
                await part.close()
        if self._commands is not None:
            self._commands.close()
        if self.alerts is not None:
            await self.alerts.close()

    # --- the file

    def on_reload(self, settings: Settings) -> None:
        """Other settings are in force, and their plan is published."""
        try:
            self._follow_alerts(settings)
        except OSError as error:
            # The rest of the file is in force; who reads the log is told.
            self._daemon.tell("alert.failed", {"channel": "all", "reason": error.strerror or str(error), "tries": 0})
        self.on_plan()
        names = {backend.name for backend in settings.backends}
        if self.alerts is not None:
            self.alerts.retain(names)
        if self._gauge is not None:
            self._gauge.retain(names)

    def on_plan(self) -> None:
        """Make what a plan asks for that was not there before, and let the rest follow it."""
        plan = self._daemon.published.current.plan
        if _wants_tokens(plan) and self.tokens is None:
            self._make_restarts()
        elif self.supervisor is not None:
            self.supervisor.on_plan()
        if (self.tokens is not None or self.alerts is not None) and self.degradation is None:
            # Where nobody is told and nothing restarted, to be used last is not worth the looking.
            self._make_degradation()
        if any(backend.warm.models for backend in plan.backends) and self.warmer is None:
            self._make_warmer()
        if any(backend.wake != NO_WAKING for backend in plan.backends) and self.waker is None:
            self._make_waker()
        self._follow_figures(plan)

    def _follow_alerts(self, settings: Settings) -> None:
        from understudy.core.upkeep import AlertChannel

        channels: tuple[AlertChannel, ...] = alert_channels(settings)
        daemon = self._daemon
        if self.alerts is None and not channels:
            return
        from understudy.controlplane.alerts import AlertError, Alerts

        try:
            if self.alerts is None:
                self.alerts = Alerts(channels, clock=daemon.clock, wall=time.time, tell=daemon.tell, counts=self._cost)
                self._add("alerts", self.alerts.run)
            else:
                self.alerts.set_channels(channels)
        except AlertError as error:
            raise OSError(0, f"alerts: {error}") from error
        daemon.alerts = self.alerts if channels else None

    def _make_restarts(self) -> None:
        from understudy.controlplane.means import Surroundings
        from understudy.controlplane.restart_means import RestartMeans
        from understudy.controlplane.state_file import RESTARTS, RestartsKeeper, StateFile, file_id, state_path
        from understudy.controlplane.supervisor import Supervisor
        from understudy.controlplane.token_prober import TokenProber

        daemon = self._daemon
        self.tokens = tokens = TokenProber(
            daemon.published,
            _Fan(self),
            daemon.tally,
            daemon.clock,
            daemon.resolver.resolve,
            tell=daemon.tell,
            on_barren=self._on_barren,
        )
        self._add("tokens", tokens.run)
        self.supervisor = Supervisor(
            daemon.published,
            daemon.publisher,
            RestartMeans(self._tell_of_child, self._on_child_exit, self._env, file_id(daemon.source) if daemon.source else ""),
            tokens.prove,
            RestartsKeeper(StateFile(state_path(self._env, daemon.source, RESTARTS)), daemon.tell),
            around=Surroundings(
                leave=daemon.relay.leave,
                in_flight=lambda name: daemon.tally.of(name).in_flight,
                moved_at_s=self._moved_at_s,
                renew=daemon.tally.renew,
                probe_soon=self._probe_soon,
            ),
            clock=daemon.clock,
            wall=time.time,
            dice=self._dice,
            tell=daemon.tell,
        )
        self.supervisor.begin()

    def _make_degradation(self) -> None:
        from understudy.controlplane.degradation_watch import DegradationWatch
        from understudy.dataplane.gauge import Gauge

        daemon = self._daemon
        prove = self.tokens.try_token if self.tokens is not None else None
        self.degradation = DegradationWatch(daemon.publisher, daemon.tally, daemon.tell, daemon.clock, prove=prove)
        self._gauge = Gauge(self.degradation.hear)
        daemon.relay.gauges += (self._gauge,)

    def _make_warmer(self) -> None:
        from understudy.controlplane.warmer import Warmer

        daemon = self._daemon
        self.warmer = Warmer(
            daemon.published,
            daemon.tally,
            clock=daemon.clock,
            tell=daemon.tell,
            resolve=daemon.resolver.resolve,
            look=self._probe_soon,
            leave_cold=lambda name, models: daemon.publisher.set_upkeep(name, left_cold=models),
        )

    def _make_waker(self) -> None:
        from understudy.controlplane.restart_command import Commands
        from understudy.controlplane.waker import Waker

        daemon = self._daemon
        self._commands = Commands(self._env)
        self.waker = Waker(daemon.published, daemon.tally, self._commands, clock=daemon.clock, tell=daemon.tell)

    def _follow_figures(self, plan: RoutingPlan) -> None:
        daemon = self._daemon
        wants_figures = any(backend.metrics_url for backend in plan.backends)
        if self.figures is None and (wants_figures or plan.slo != NO_SLO):
            from understudy.controlplane.figures_reader import FiguresReader
            from understudy.controlplane.objective_watch import ObjectiveWatch

            resolve = daemon.resolver.resolve
            self.figures = FiguresReader(daemon.published, daemon.tally, daemon.clock, self._dice, daemon.tell, resolve)
            self._add("figures", self.figures.run)
            self.objectives = ObjectiveWatch(daemon.published, self.figures.readings, daemon.tell, daemon.clock)
        elif self.figures is not None:
            self.figures.on_plan_change()

    def _add(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._runs.append((name, run))
        self._has_more.set()

    # --- news

    def on_event(self, event: str, fields: dict[str, object]) -> None:
        """Hear what is told."""
        if self.alerts is not None:
            self.alerts.on_event(event, fields)
        if event == "backend.recovered_pace" and self.supervisor is not None:
            self.supervisor.on_pace_recovered(str(fields["backend"]))

    def on_exchange(self, record: ExchangeRecord) -> None:
        """Hear that an exchange is over."""
        if record.failure is None:
            self._moved += len(record.attempts) > 1
        else:
            self._failed += MEANING[record.failure].side is not Side.DOWNSTREAM
        if self.warmer is not None:
            self.warmer.on_exchange(record.ask.model)
        if self.waker is not None:
            self.waker.on_exchange(record.ask.model)
        if self.objectives is not None:
            self.objectives.on_exchange(record)

    def _tell_of_child(self, event: str, fields: dict[str, object]) -> None:
        if event == "child.said":
            # Many, and for the log alone: they are no news of the daemon's.
            self._daemon.log.tell(event, **fields)
        else:
            self._daemon.tell(event, fields)

    def _on_barren(self, name: str, words: str) -> None:
        if self.supervisor is not None:
            self.supervisor.on_barren(name, words)

    def _on_child_exit(self, name: str, outcome: "MeansOutcome") -> None:
        if self.supervisor is not None:
            self.supervisor.on_child_exit(name, outcome)

    def _probe_soon(self, name: str) -> None:
        # The prober is made after this.
        self._daemon.prober.probe_soon(name)

    def _moved_at_s(self, name: str) -> float:
        counts = self._daemon.tally.of(name)
        # Whose listener is closed works on nothing, however lately it did.
        return 0.0 if counts.evidence.is_refusing else max(counts.last_success_at_s, counts.evidence.moved_at_s)

    def _cost(self) -> "Cost":
        from understudy.core.alert_writing import Cost

        return Cost(self._failed, self._moved)

    # --- the operator

    async def restart(self, name: str) -> str | None:
        """Restart a backend; returns why that is refused, "" where it has begun, None when no backend has that name."""
        if all(target.backend.name != name for target in self._daemon.published.current.targets):
            return None
        if self.supervisor is None:
            return f"the file has no way to restart {name}; want a restart: under it"
        return (await self.supervisor.restart(name)).refusal

    def status_of(self, name: str) -> dict[str, Any]:
        """Return what is told of one backend, as JSON values; null where the file does not ask for it."""
        restart = self.supervisor.status(name) if self.supervisor is not None else None
        told: dict[str, Any] = {
            "restart": restart,
            "warm": self.warmer.status(name) if self.warmer is not None else None,
            "wake": self.waker.status(name) if self.waker is not None else None,
        }
        # It gets no exchanges still, but nobody is about to restart it.
        has_given_up = restart is not None and restart["phase"] == "gave_up"
        return told | {"restarting": False} if has_given_up else told


class _Fan:
    """Gives what the token prober lets pass to the supervisor, and what that believes of it to the publisher."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def on_finding(self, name: str, finding: Finding) -> None:
        supervisor = self._upkeep.supervisor
        finding = supervisor.believe(name, finding) if supervisor is not None else finding
        self._upkeep._daemon.publisher.on_finding(name, finding)  # noqa: SLF001  # a part of it

    def health_of(self, name: str) -> Health:
        return self._upkeep.health_of(name)


def _wants_tokens(plan: RoutingPlan) -> bool:
    return any(backend.restart is not None or backend.health.generate.when is not GenerateWhen.OFF for backend in plan.backends)
