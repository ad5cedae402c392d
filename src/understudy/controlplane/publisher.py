"""Make every next routing snapshot: the plan, the rollout, and each backend's condition and duty, swapped whole.

The only writer of `Published.current`. Told of probes by controlplane.prober, of traffic by dataplane, of duties by admin, of
plans by config.reload, of blue and green by controlplane.rollout_driver, all through daemon and on one loop. Keeps the evidence
towards each condition; core.health decides. Never contacts a backend and never ejects one (core.tally).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from understudy.core.health import Health, Seen, Turn, observe, ripen, turned
from understudy.core.rollout import Rollout
from understudy.core.snapshot import (
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    Published,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.engines.contract import Finding
from understudy.errors import FailureKind

_NOT_PROBED = "not probed yet"
_UNPROBED_DUTY = "not probed in maintenance"
# A list may hold other names with every answer.
_LOST_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    """A backend with its published state and the evidence behind it; replaced whole with every observation.

    `lost` are its own names of the models of which it was told that they are gone, at most `_LOST_MAX`, the last ones last.
    """

    backend: Backend
    state: BackendState
    health: Health
    lost: tuple[str, ...] = ()


def first_snapshot(plan: RoutingPlan, now_s: float = 0.0) -> RoutingSnapshot:
    """Return the snapshot before anything is known: every backend UNKNOWN since `now_s` and READY."""
    return RoutingSnapshot(
        generation=1,
        plan=plan,
        targets=tuple(Target(backend, BackendState(since_at_s=now_s, reason=_NOT_PROBED)) for backend in plan.backends),
    )


class Publisher:
    """Turns findings, traffic, duties and plans into snapshots.

    `on_change` gets every new snapshot after the swap, `on_event` an event's name (telemetry.logs) and its fields. Both are
    called at once and must not block.
    """

    def __init__(
        self,
        published: Published,
        clock: Callable[[], float],
        on_change: Callable[[RoutingSnapshot], None],
        on_event: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._published = published
        self._clock = clock
        self._on_change = on_change
        self._on_event = on_event
        self._known: dict[str, _Known] = {}
        for target in published.current.targets:
            state = target.state
            health = Health(state.condition, state.since_at_s, reason=state.reason)
            self._known[target.backend.name] = _Known(target.backend, state, health)

    @property
    def snapshot(self) -> RoutingSnapshot:
        """The newest snapshot."""
        return self._published.current

    def health_of(self, name: str) -> Health:
        """Return the evidence on one backend; that of an unknown one for a name that the plan no longer has."""
        known = self._known.get(name)
        return known.health if known else Health()

    def set_plan(self, plan: RoutingPlan, rollout: Rollout | None = None) -> tuple[str, ...]:
        """Take another plan, and the rollout that goes with it, in one swap; None leaves the rollout as it is.

        Returns the names of the backends that begin anew: added, or another address or engine.

        What is known of a backend survives as long as its name, address and engine do; its duty survives with the name, because
        only an operator lifts it. Call `Tally.renew` for each of the names returned.
        """
        now_s = self._clock()
        before = self._known
        after: dict[str, _Known] = {}
        anew: list[str] = []
        for backend in plan.backends:
            known = before.get(backend.name)
            if known and (known.backend.address, known.backend.engine) == (backend.address, backend.engine):
                after[backend.name] = replace(known, backend=backend)
                continue
            anew.append(backend.name)
            duty = known.state.duty if known else Duty.READY
            state = BackendState(duty=duty, since_at_s=now_s, reason=_reason_unprobed(duty))
            after[backend.name] = _Known(backend, state, Health(since_at_s=now_s, reason=state.reason))
        self._known = after
        self._publish(plan, rollout)
        return tuple(anew)

    def set_rollout(self, rollout: Rollout) -> None:
        """Take what is in force of blue and green; publishes nothing where that is so already."""
        if rollout != self.snapshot.rollout:
            self._publish(self.snapshot.plan, rollout)

    def on_finding(self, name: str, finding: Finding) -> None:
        """Take what a probe found. Ignored for a backend that is gone or in maintenance: the probe was under way before."""
        known = self._known.get(name)
        if known is None or known.state.duty is Duty.MAINTENANCE:
            return
        now_s = self._clock()
        health = observe(known.health, finding.seen, finding.reason, known.backend.health, now_s)
        self._take(known, health, _learnt(known.state, finding))

    def on_traffic(self, name: str, kind: FailureKind | None) -> bool:
        """Take what an exchange met: None for an answer, else a failure. Returns whether to probe soon, to know more.

        Live evidence wins over probes: a busy engine may answer clients and still miss a probe's deadline (ray #54070), so an
        answer is as good as a good probe. A failure is not as bad as a bad one: ejecting is the tally's.
        """
        known = self._known.get(name)
        if known is None or known.state.duty is Duty.MAINTENANCE:
            return False
        if kind is not None:
            return True
        health = known.health
        if health.condition is Condition.UNKNOWN or (health.condition is not Condition.DOWN and not health.bad):
            # The first probe must tell the engine and its models before the backend can serve.
            return health.condition is Condition.UNKNOWN
        health = observe(health, Seen.GOOD, "", known.backend.health, self._clock())
        self._take(known, health, known.state)
        return True

    def set_duty(self, name: str, duty: Duty) -> bool:
        """Take the operator's word on one backend; False when there is no such backend.

        With maintenance beginning or ending what was believed is forgotten, since nobody looks; the model list is kept.
        """
        known = self._known.get(name)
        if known is None:
            return False
        was = known.state.duty
        if was is duty:
            return True
        now_s = self._clock()
        health = known.health
        if Duty.MAINTENANCE in (was, duty):
            health = turned(health, Turn.FORGET, _reason_unprobed(duty), now_s)
        state = _seen_as(health, replace(known.state, duty=duty))
        self._known[name] = replace(known, state=state, health=health)
        self._publish(self.snapshot.plan)
        self._on_event("backend.changed_duty", {"backend": name, "duty": str(duty), "was": str(was)})
        return True

    def set_upkeep(
        self,
        name: str,
        *,
        is_restarting: bool | None = None,
        is_degraded: bool | None = None,
        left_cold: tuple[str, ...] | None = None,
    ) -> bool:
        """Take what upkeep says of one backend, None: as it was; False when there is no such backend.

        One whose restart is over begins its slow start now, however long its probes have been good.
        """
        known = self._known.get(name)
        if known is None:
            return False
        state = replace(
            known.state,
            is_restarting=known.state.is_restarting if is_restarting is None else is_restarting,
            is_degraded=known.state.is_degraded if is_degraded is None else is_degraded,
            left_cold=known.state.left_cold if left_cold is None else left_cold,
        )
        if state != known.state:
            health, rules = known.health, known.backend.health
            is_over = known.state.is_restarting and not state.is_restarting
            if is_over and rules.slow_start_s > 0 and health.condition in (Condition.UP, Condition.WARMING):
                health = turned(health, Turn.RENEW, health.reason, self._clock())
            self._known[name] = replace(known, state=_seen_as(health, state), health=health)
            self._publish(self.snapshot.plan)
        return True

    def tick(self) -> None:
        """Let warming backends whose slow start is over be up. To be called about once a second."""
        now_s = self._clock()
        for known in tuple(self._known.values()):
            if known.health.condition is Condition.WARMING:
                self._take(known, ripen(known.health, known.backend.health, now_s), known.state)

    def _take(self, known: _Known, health: Health, learnt: BackendState) -> None:
        """Keep the new evidence, publish when it shows, tell when it matters."""
        name = known.backend.name
        state = _seen_as(health, learnt)
        self._known[name] = replace(known, state=state, health=health)
        if state == known.state:
            return
        self._publish(self.snapshot.plan)
        self._tell_condition(known, state)
        self._tell_engine(name, known.state, state)
        self._tell_models(known, state)

    def _tell_models(self, known: _Known, state: BackendState) -> None:
        name = known.backend.name
        lost, regained = _lost_models(known.state, state), _regained_models(known.lost, state)
        if not lost and not regained:
            return
        still_lost = tuple(model for model in known.lost if model not in set(regained))
        self._known[name] = replace(self._known[name], lost=(*still_lost, *lost)[-_LOST_MAX:])
        for event, models in (("backend.lost_model", lost), ("backend.regained_model", regained)):
            if models:
                self._on_event(event, {"backend": name, "models": list(models)})

    def _tell_engine(self, name: str, was: BackendState, state: BackendState) -> None:
        # That a backend is told apart for the first time is no change of it.
        is_other_engine = was.engine not in (EngineKind.AUTO, state.engine)
        if is_other_engine or (was.version and was.version != state.version):
            fields: dict[str, object] = {
                "engine": str(state.engine),
                "version": state.version,
                "was": f"{was.engine} {was.version}".strip(),
            }
            self._on_event("backend.changed_engine", {"backend": name, **fields})

    def _tell_condition(self, known: _Known, state: BackendState) -> None:
        was = known.state
        is_serving = state.condition in (Condition.UP, Condition.WARMING)
        was_serving = was.condition in (Condition.UP, Condition.WARMING)
        if state.condition is was.condition or (is_serving and was_serving):
            return
        fields: dict[str, object] = {
            "backend": known.backend.name,
            "engine": str(state.engine),
            "was": str(was.condition),
            "was_for_s": round(state.since_at_s - was.since_at_s, 3),
            "reason": state.reason,
        }
        self._on_event("backend.went_up" if is_serving else "backend.went_down", fields)

    def _publish(self, plan: RoutingPlan, rollout: Rollout | None = None) -> None:
        ordered = [self._known[backend.name] for backend in plan.backends]
        targets = tuple(Target(known.backend, known.state) for known in ordered)
        current = self._published.current
        snapshot = RoutingSnapshot(current.generation + 1, plan, targets, current.rollout if rollout is None else rollout)
        self._published.current = snapshot
        self._on_change(snapshot)


def _reason_unprobed(duty: Duty) -> str:
    return _UNPROBED_DUTY if duty is Duty.MAINTENANCE else _NOT_PROBED


def _seen_as(health: Health, state: BackendState) -> BackendState:
    # What ended by itself meanwhile may bring a sleeper back before a probe does.
    is_asleep = state.is_asleep and health.condition is Condition.DOWN
    return replace(state, condition=health.condition, since_at_s=health.since_at_s, reason=health.reason, is_asleep=is_asleep)


def _learnt(state: BackendState, finding: Finding) -> BackendState:
    """Return the state with what the finding tells of the engine. Only a good one can take something back (engines.contract)."""
    if finding.seen is Seen.GOOD:
        return replace(
            state,
            engine=finding.engine,
            # An engine that did not tell it this time is the same one still.
            version=finding.version or (state.version if finding.engine is state.engine else ""),
            dialects=finding.dialects,
            models=finding.models,
            is_asleep=False,
        )
    is_same_engine = finding.engine in (EngineKind.AUTO, state.engine)
    return replace(
        state,
        engine=state.engine if is_same_engine else finding.engine,
        version=finding.version or (state.version if is_same_engine else ""),
        dialects=finding.dialects or state.dialects,
        models=state.models if finding.models is None else finding.models,
        is_asleep=finding.is_asleep or (state.is_asleep and is_same_engine and _learnt_nothing(finding)),
    )


def _learnt_nothing(finding: Finding) -> bool:
    """Whether the probe failed without a word of the engine, as one does that came too late: what sleeps is asleep still."""
    return finding.seen is Seen.BAD and not finding.version and finding.models is None and not finding.is_refusing


def _lost_models(was: BackendState, state: BackendState) -> tuple[str, ...]:
    """Return the backend's own names of the models that it listed before and does not list now."""
    if was.models is None or state.models is None:
        return ()
    listed = {model.name for model in state.models}
    return tuple(model.name for model in was.models if model.name not in listed)


def _regained_models(lost: tuple[str, ...], state: BackendState) -> tuple[str, ...]:
    """Return which of the models that were told to be lost are listed again."""
    if not lost or not state.models:
        return ()
    listed = {model.name for model in state.models}
    return tuple(name for name in lost if name in listed)
