"""The real data plane, publisher and prober, wired as the daemon wires them, over a simulated network.

Only sockets, the clock and what probes fetch are simulated. Everything that the daemon would log, count or probe is noted,
for the invariants.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from simulation.client import Asked, Client, Habit
from simulation.engine import Engine, EngineConnection, Temper
from simulation.network import Door, Network
from simulation.virtual_loop import VirtualLoop
from simulation.wire import End
from understudy.controlplane.prober import Prober
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import Backend, Condition, Duty, EngineKind, Model, Published, RoutingPlan, RoutingSnapshot
from understudy.core.tally import Tally
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.pool import Pool
from understudy.dataplane.relay import Relay
from understudy.dataplane.resolver import Resolver
from understudy.engines import Finding
from understudy.errors import FailureKind

TICK_S = 0.5
USABLE = (Condition.UP, Condition.WARMING)


class InOrder(set[Any]):
    """A set that is walked in the order of adding, so that a seed gives the same play in every process."""

    def __init__(self) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}

    def add(self, element: Any) -> None:
        self._order[element] = None
        super().add(element)

    def discard(self, element: Any) -> None:
        self._order.pop(element, None)
        super().discard(element)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._order))


class WatchedTally(Tally):
    """The tally itself, which also notes what the invariants ask about attempts as they begin."""

    __slots__ = ("begun_unusable", "published", "violations")

    def __init__(self) -> None:
        super().__init__()
        self.published: Published | None = None
        self.begun_unusable: list[str] = []
        self.violations: list[str] = []

    def begin(self, name: str, *, is_trial: bool) -> None:
        assert self.published is not None
        target = next((one for one in self.published.current.targets if one.backend.name == name), None)
        if target is None:
            self.violations.append(f"an attempt went to {name}, which the plan does not have")
        elif target.state.duty is not Duty.READY:
            self.violations.append(f"an attempt went to {name}, which is in {target.state.duty}")
        elif target.state.condition not in USABLE:
            self.begun_unusable.append(name)
        if is_trial and self.of(name).trial_held:
            self.violations.append(f"two trials at once at {name}")
        super().begin(name, is_trial=is_trial)


class SimulatedFetcher:
    """Finds out what a probe would: from the engine's own state, after a while."""

    def __init__(self, stage: "Stage") -> None:
        self._stage = stage

    async def fetch_finding(self, backend: Backend, engine: EngineKind, known: Finding | None = None) -> Finding:
        """Return the finding, at the latest when the probe's time is up."""
        asked = self._stage.engines.get(backend.address.host)
        await asyncio.sleep(self._stage.dice.choice((0.0, 0.002, 0.05)))
        if asked is None or asked.machine.door is Door.REFUSING:
            return Finding(Seen.BAD, reason="refused the connection", is_refusing=True)
        if asked.is_frozen or asked.machine.door is not Door.OPEN:
            await asyncio.sleep(backend.health.timeout_s)
            if asked.is_frozen or asked.machine.door is not Door.OPEN:
                return Finding(Seen.BAD, reason="no answer in time")
        if asked.is_loading:
            return Finding(Seen.LOADING, EngineKind.OLLAMA, reason="answered 503: Loading model")
        models = () if asked.lost_models else (Model("m", '{"id":"m"}', '{"name":"m"}'), Model("own", '{"id":"own"}'))
        return Finding(Seen.GOOD, EngineKind.OLLAMA, "1", tuple(DialectName), models)


class Stage:
    """Everything on the daemon's side, and what it told. `facts_of` are the records by request id."""

    def __init__(self, loop: VirtualLoop, dice: Random, plan: RoutingPlan, tempers: dict[str, Temper]) -> None:
        self.loop = loop
        self.dice = dice
        self.network = Network(loop, dice)
        loop.network = self.network
        self.network.on_request = self._on_request
        self.engines: dict[str, Engine] = {}
        self.clients: list[Client] = []
        self.records: list[tuple[float, ExchangeRecord]] = []
        self.events: list[tuple[float, str, dict[str, object]]] = []
        self.violations: list[str] = []
        self.writes: dict[str, list[End]] = {}
        self.reused_writes: dict[str, int] = {}
        self.carries: dict[End, str] = {}
        for backend in plan.backends:
            self.add_engine(backend, tempers.get(backend.name, Temper()))
        self.tally = WatchedTally()
        self.published = Published(first_snapshot(plan, loop.time()))
        self.tally.published = self.published
        self.publisher = Publisher(self.published, loop.time, self._on_change, self.tell)
        resolver = Resolver(self.tell)
        self.pool = Pool(resolver)
        self.prober = Prober(self.published, self.publisher, loop.time, dice.random, evidence=self.tally.evidence_of)
        self.prober._fetcher = SimulatedFetcher(self)  # type: ignore[assignment]  # the one thing that is not real
        self.relay = Relay(self.published, self.tally, self.pool, self, id_prefix="sim", clock=loop.time)
        self.relay.running = InOrder()
        self.relay.connections = InOrder()
        self._background: list[asyncio.Task[None]] = []

    def add_engine(self, backend: Backend, temper: Temper) -> Engine:
        """Put an engine where `backend` points, unless there is one."""
        host = backend.address.host
        if host not in self.engines:
            self.engines[host] = Engine(self.network, backend.name, host, temper, Random(self.dice.random()))
        return self.engines[host]

    def engine(self, name: str) -> Engine:
        """Return the engine of that name."""
        return next(engine for engine in self.engines.values() if engine.name == name)

    # --- life

    def start(self) -> None:
        """Begin to probe and to tick."""
        self._background = [self.loop.create_task(self.prober.run()), self.loop.create_task(self._tick())]

    async def stop(self) -> None:
        """End probing and ticking; the relay must be at rest by itself."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background = []

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.publisher.tick()

    def offer(self, plan: RoutingPlan) -> None:
        """Put another plan into force, as the daemon does on a reload."""
        for backend in plan.backends:
            self.add_engine(backend, Temper())
        for name in self.publisher.set_plan(plan):
            self.tally.renew(name)
        self.prober.on_plan_change()

    def set_duty(self, name: str, duty: Duty) -> None:
        """Take an operator's word."""
        if self.publisher.set_duty(name, duty) and duty is Duty.READY:
            self.prober.probe_soon(name)

    def enter(self, asked: list[Asked], habit: Habit | None = None) -> Client:
        """Let a client connect."""
        client = Client(self.network, asked, habit or Habit())
        self.clients.append(client)
        client.connect(DownstreamConnection(self.relay))
        return client

    def heal(self) -> None:
        """From now on every engine is well and every backend is wanted."""
        for engine in self.engines.values():
            engine.heal()
        for target in self.published.current.targets:
            self.set_duty(target.backend.name, Duty.READY)

    # --- dataplane.relay.Listener

    def observe(self, name: str, kind: FailureKind | None) -> None:
        if self.publisher.on_traffic(name, kind):
            self.prober.probe_soon(name)

    def finished(self, record: ExchangeRecord) -> None:
        self.records.append((self.loop.time(), record))
        for end in self.writes.get(record.request_id, ()):
            if end.is_closing() or self.carries.get(end) != record.request_id:
                continue
            assert end.peer is not None
            served = end.peer.get_protocol()
            assert isinstance(served, EngineConnection)
            if served.call is None or served.call.tag != record.request_id or not served.call.is_sent:
                self.violations.append(f"{record.request_id} is over, and {end.label} still works for it")

    def tell(self, event: str, fields: dict[str, object]) -> None:
        self.events.append((self.loop.time(), event, fields))

    def report(self, error: BaseException, request_id: str) -> None:
        self.violations.append(f"our own code raised for {request_id}: {error!r}")

    def _on_change(self, snapshot: RoutingSnapshot) -> None:
        self.relay.on_published(snapshot)

    # --- from the network

    def _on_request(self, end: End, tag: str) -> None:
        """A request is being written to an engine."""
        for other in self.writes.setdefault(tag, []):
            if other is end or self.carries.get(other) != tag:
                continue
            if not other.is_closing():
                self.violations.append(f"{tag} is at two engines at once: {other.label} and {end.label}")
        self.writes[tag].append(end)
        if end in self.carries:
            self.reused_writes[tag] = self.reused_writes.get(tag, 0) + 1
        self.carries[end] = tag


def with_backends(plan: RoutingPlan, backends: tuple[Backend, ...]) -> RoutingPlan:
    """Return `plan` with other backends."""
    return replace(plan, backends=backends)
