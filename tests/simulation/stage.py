"""The real data plane, publisher and prober, wired as the daemon wires them, over a simulated network.

Only sockets, the clock and what probes fetch are simulated. Everything that the daemon would log, count or probe is noted,
for the invariants.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

from simulation.client import Asked, Client, Habit
from simulation.engine import Engine, EngineConnection, Temper
from simulation.network import Door, Network
from simulation.virtual_loop import VirtualLoop
from simulation.watching import InOrder, WatchedBudget, WatchedLine, WatchedTally
from simulation.wire import End
from simulation.writing import QUESTION_PATHS, SPOKEN, VERSIONS, Make
from understudy.controlplane.prober import Prober
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.core.ask import Ask
from understudy.core.health import Seen
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import Backend, Duty, EngineKind, Model, Published, RoutingPlan, RoutingSnapshot
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.observations import Observations
from understudy.dataplane.pool import Pool
from understudy.dataplane.relay import Relay
from understudy.dataplane.resolver import Resolver
from understudy.engines import Finding
from understudy.engines.progress import Figures
from understudy.errors import FailureKind

TICK_S = 0.5


class SimulatedFetcher:
    """Finds out what a probe would: from the engine's own state, after a while."""

    def __init__(self, stage: "Stage") -> None:
        self._stage = stage

    async def fetch_finding(
        self, backend: Backend, engine: EngineKind, known: Finding | None = None, *, before: EngineKind = EngineKind.AUTO
    ) -> Finding:
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
            return Finding(Seen.LOADING, asked.kind, reason="answered 503: Loading model")
        models = () if asked.lost_models else (Model("m", '{"id":"m"}', '{"name":"m"}'), Model("own", '{"id":"own"}'))
        return Finding(Seen.GOOD, asked.kind, VERSIONS[asked.kind], SPOKEN[asked.kind], models)

    async def fetch_figures(self, backend: Backend, engine: EngineKind) -> Figures | None:
        """Return what the engine's figures show, None where it does not answer."""
        del engine
        asked = self._stage.engines.get(backend.address.host)
        await asyncio.sleep(0.002)
        is_there = asked is not None and asked.machine.door is Door.OPEN and not asked.is_frozen
        return ((asked.written,),) if asked is not None and is_there else None


class Stage:
    """Everything on the daemon's side, and what it told. `facts_of` are the records by request id."""

    def __init__(self, loop: VirtualLoop, dice: Random, plan: RoutingPlan, tempers: dict[str, Temper]) -> None:
        self.loop = loop
        self.dice = dice
        self.network = Network(loop, dice)
        loop.network = self.network
        self.network.on_request = self._on_request
        self.engines: dict[str, Engine] = {}
        self.makes: dict[str, Make] = {}
        self.clients: list[Client] = []
        self.records: list[tuple[float, ExchangeRecord]] = []
        self.events: list[tuple[float, str, dict[str, object]]] = []
        self.violations: list[str] = []
        self.writes: dict[str, list[End]] = {}
        self.sends: Counter[str] = Counter()
        self.reused_sends: Counter[str] = Counter()
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
        self.relay.observations.weigh = self._weigh  # type: ignore[method-assign,assignment]  # notes and weighs
        self.budget = WatchedBudget(self.relay)
        self.line = self.relay.line = WatchedLine()
        self.relay.clients.connections = InOrder()
        self._background: list[asyncio.Task[None]] = []

    def news(self) -> tuple[int, ...]:
        """Return figures that change whenever anything happens that is not the passing of time."""
        relay = self.relay
        return (
            self.network.arrivals,
            len(self.records),
            len(self.network.ends),
            len(self.line.turns),
            len(self.tally.begun_unusable),
            sum(self.sends.values()),
            sum(exchange.exchange.attempts for exchange in relay.running),
            self.published.current.generation,
        )

    def add_engine(self, backend: Backend, temper: Temper) -> Engine:
        """Put an engine where `backend` points, unless there is one; of the make that this backend always had."""
        host = backend.address.host
        if host not in self.engines:
            temper.make = self.makes.setdefault(backend.name, temper.make)
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

    def suspect(self, name: str) -> None:
        self.prober.suspect(name)

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

    def _weigh(self, name: str, ask: Ask, kind: FailureKind, *more: float) -> None:
        self.tally.repeated = name if kind is FailureKind.STALE_REUSE else ""
        Observations.weigh(self.relay.observations, name, ask, kind, *more)

    def _on_change(self, snapshot: RoutingSnapshot) -> None:
        self.relay.on_published(snapshot)

    # --- from the network

    def _on_request(self, end: End, tag: str, data: bytes) -> None:
        """A request is being written to an engine."""
        others = {
            other for other in self.writes.setdefault(tag, []) if self.carries.get(other) == tag and not other.is_closing()
        } - {end}
        # A hedge runs beside another attempt, and continuations have none.
        if len(others) > self.published.current.plan.failover.hedge:
            self.violations.append(f"{tag} is at two engines at once: {[other.label for other in others]} and {end.label}")
        path = data.split(b" ", 2)[1].decode()
        is_question = path in QUESTION_PATHS or b'"_debug_render_only"' in data
        self.writes[tag].append(end)
        if not is_question:
            self.sends[tag] += 1
            self.reused_sends[tag] += end in self.carries
            self.budget.on_send(tag, self.loop.time())
        self.carries[end] = tag


def with_backends(plan: RoutingPlan, backends: tuple[Backend, ...]) -> RoutingPlan:
    """Return `plan` with other backends."""
    return replace(plan, backends=backends)
