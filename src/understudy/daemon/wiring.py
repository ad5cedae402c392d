"""Build every object of the daemon, wire them, start and stop them in order; the only place that does.

Run by daemon.start. Holds the wiring: publisher to relay, relay to publisher and log, signals to reload and stop. Decides nothing
and moves no bytes.
"""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from understudy import __version__
from understudy.admin.alerts_api import AlertOperator
from understudy.admin.api import Operator, make_app
from understudy.admin.feed import EventFeed, Subscription
from understudy.admin.guard import Guard
from understudy.admin.port import AdminPort
from understudy.admin.rollout_api import RolloutOperator
from understudy.config.compile import compile_plan
from understudy.config.load import Overrides
from understudy.config.reload import Reloader, ReloadResult
from understudy.config.schema import Settings
from understudy.config.store_address import RedisUrl
from understudy.controlplane.prober import Prober
from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.core.record import ExchangeRecord
from understudy.core.shortlist import is_usable
from understudy.core.snapshot import Condition, Duty, Published, RoutingSnapshot
from understudy.core.tally import Tally
from understudy.daemon import view
from understudy.daemon.colors import Colors
from understudy.daemon.upkeep import Upkeep
from understudy.dataplane.listener import Listener, address_of, raise_descriptor_limit
from understudy.dataplane.pool import IDLE_MAX, Pool
from understudy.dataplane.relay import Relay
from understudy.dataplane.resolver import Resolver
from understudy.errors import FailureKind, Mistake
from understudy.sessions.store import StoreError
from understudy.telemetry import logs
from understudy.telemetry.ledger import Ledger
from understudy.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from understudy.sessions.keeper import Keeper

# Before clients are let in the first probes get this long: enough for backends that are up, short for those that are not.
FIRST_PROBES_S_MAX = 0.5
TICK_S = 0.5
DRAIN_LOOK_S = 0.05


class Daemon(Operator):
    """Everything that lives as long as the process."""

    def __init__(
        self, settings: Settings, source: Path | None, env: Mapping[str, str], overrides: Overrides, log: logs.Log
    ) -> None:
        plan = compile_plan(settings)
        self.log = log
        self.source = source
        # uvloop's own clock counts whole milliseconds and stands still within a turn of the loop; both have one origin.
        self.clock = time.monotonic
        self.started_at_s = self.clock()
        self._settings = settings
        self._stopping = asyncio.Event()
        self._is_cut_short = asyncio.Event()
        self._is_usable: bool | None = None
        self.addresses: list[str] = []
        self.last_reload_at: float = 0.0
        self.feed = EventFeed()
        self.metrics_kept = Metrics()
        self.ledger = Ledger(self._tell_exchanges, time.time)
        self.tally = Tally()
        self.published = Published(first_snapshot(plan, self.clock()))
        self.publisher = Publisher(self.published, self.clock, self._on_change, self.tell)
        self.resolver = Resolver(self.tell)
        clients_max = raise_descriptor_limit()
        self.pool = Pool(self.resolver, min(IDLE_MAX, clients_max // 4) if clients_max else IDLE_MAX)
        dice = Random().random  # noqa: S311  # jitter is no secret
        resolve = self.resolver.resolve
        self.upkeep = Upkeep(self, env)
        self.prober = Prober(self.published, self.upkeep, self.clock, dice, resolve, evidence=self.tally.evidence_of)
        self.relay = Relay(self.published, self.tally, self.pool, self, id_prefix=secrets.token_hex(4), clock=self.clock)
        self.relay.clients.own_max = clients_max
        self.keeper = self.sessions = self._set_up_sessions(settings)
        self.rollout: RolloutOperator | None = None
        self.alerts: AlertOperator | None = None
        self.colors = Colors(self, env)
        self.reloader = Reloader(source, env, settings, self._offer, self.tell, overrides=overrides)
        self.listener: Listener | None = None
        self.admin: AdminPort | None = None

    def _set_up_sessions(self, settings: Settings) -> "Keeper | None":
        """Make what keeps conversations, where the file names a store. Raises OSError for what an operator must mend."""
        rules = settings.sessions
        if rules.store is None:
            return None
        # Loaded where there is a store: the dialects' messages alone take a MiB.
        from understudy.dataplane.turns import Turns
        from understudy.sessions.keeper import Keeper
        from understudy.sessions.opening import StoreRules, make_store

        address = rules.store.text if isinstance(rules.store, RedisUrl) else str(rules.store)
        with _told_as_os_error():
            wanted = StoreRules(address, rules.format, rules.key, rules.ttl, rules.timeout, rules.prefix)
            store = make_store(wanted, self.tell)
        keeper = Keeper(store, clock=self.clock, wall=time.time, tell=self.tell)
        self.relay.turns = Turns(keeper, self.published, wall=time.time, tell=self.tell, report=self.report)
        return keeper

    # --- life

    async def serve(self, public: list[socket.socket], admin: socket.socket) -> None:
        """Run until told to stop."""
        settings = self._settings
        self.addresses = [address_of(sock) for sock in public]
        self.listener = self.relay.clients.gate = Listener(self.relay, public)
        self.admin = AdminPort(make_app(self, Guard(settings.admin.token, settings.admin.listen.host)))
        if self.keeper is not None:
            with _told_as_os_error():
                await self.keeper.open()
        try:
            self.upkeep.begin(settings)
            await self._run(settings, admin)
            if self.keeper is not None and self.relay.turns is not None:
                self.relay.end_running()
                await self.relay.turns.close()
                await self.keeper.close()
        finally:
            # Whatever ends the daemon, its children are not left behind.
            await self.upkeep.close()
        await self.colors.close()
        self.relay.stop()
        self.ledger.flush()
        self.feed.end()
        await self.admin.stop()
        # Closed connections get one turn of the loop to be gone.
        await asyncio.sleep(0)
        self.log.tell("daemon.stopped", uptime_s=round(self.clock() - self.started_at_s, 3))

    async def _run(self, settings: Settings, admin: socket.socket) -> None:
        """Let clients in and serve them until told to stop, then until they have what they came for."""
        if self.admin is None or self.listener is None:
            raise RuntimeError("there is nothing to run yet")
        self.log.tell("config.loaded", file=str(self.source) if self.source else None, backends=len(settings.backends))
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self.prober.run(), name="prober"),
                tasks.create_task(self.reloader.watch(), name="reloader"),
                tasks.create_task(self._tick(), name="tick"),
                tasks.create_task(self.upkeep.run(), name="upkeep"),
            ]
            if self.keeper is not None:
                background.append(tasks.create_task(self.keeper.run(), name="sessions"))
            await self.admin.start(admin)
            await self._first_probes()
            await self.listener.start()
            self._catch_signals()
            _spare_collector()
            self.log.tell(
                "daemon.started",
                version=__version__,
                listen=self.addresses,
                admin=address_of(admin),
                file=str(self.source) if self.source else None,
                backends=[backend.name for backend in settings.backends],
                pid=os.getpid(),
                connections_max=min(
                    self.relay.clients.own_max or settings.limits.connections_max, settings.limits.connections_max
                ),
            )
            await self._stopping.wait()
            await self._drain()
            for task in background:
                task.cancel()

    async def _first_probes(self) -> None:
        """Wait until every backend was probed once, at most `FIRST_PROBES_S_MAX`."""
        deadline_s = self.clock() + FIRST_PROBES_S_MAX
        while self.clock() < deadline_s:
            if all(target.state.condition is not Condition.UNKNOWN for target in self.published.current.targets):
                return
            await asyncio.sleep(0.005)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.publisher.tick()
            self.colors.tick()
            self.upkeep.tick()

    async def _drain(self) -> None:
        """Refuse new connections, let running exchanges finish within the bound."""
        bound_s = self.relay.limits.drain_s_max
        self.upkeep.on_stopping()
        self.log.tell("daemon.stopping", running=len(self.relay.running), drain_s_max=bound_s)
        if self.listener is not None:
            self.listener.stop()
        self.relay.stop_taking()
        deadline_s = self.clock() + bound_s
        while self.relay.running and self.clock() < deadline_s and not self._is_cut_short.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_cut_short.wait(), DRAIN_LOOK_S)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload, "SIGHUP")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin to stop; called again, stop at once."""
        if self._stopping.is_set():
            self._is_cut_short.set()
        self._stopping.set()

    # --- the wiring between the rooms

    def _on_change(self, snapshot: RoutingSnapshot) -> None:
        """A new snapshot is current."""
        self.relay.on_published(snapshot)
        is_usable = self._has_usable(snapshot)
        if is_usable != self._is_usable and not self._is_starting(snapshot):
            if self._is_usable is not None or not is_usable:
                self.tell("pool.recovered" if is_usable else "pool.became_empty", {"backends": len(snapshot.targets)})
            self._is_usable = is_usable

    def _offer(self, settings: Settings) -> Mistake | None:
        """Put reloaded settings into force; returns why they cannot be, if so."""
        plan = compile_plan(settings)
        rollout, mistake = self.colors.offered(plan)
        if mistake is not None:
            return mistake
        self._settings = settings
        if self.keeper is not None:
            self.keeper.set_ttl(settings.sessions.ttl)
        for name in self.publisher.set_plan(plan, rollout):
            self.tally.renew(name)
        self.colors.on_plan()
        self.resolver.retain({backend.address.host for backend in self.published.current.plan.backends})
        self.prober.on_plan_change()
        self.upkeep.on_reload(settings)
        # Last: what is let go of a backend that is gone is told, and counted, on the way.
        names = {backend.name for backend in settings.backends}
        self.metrics_kept.retain(names)
        if self.colors.shadows is not None:
            self.colors.shadows.counts.retain(names)
        return None

    def _reload(self, trigger: str) -> ReloadResult:
        return self.reloader.reload(trigger)

    def observe(self, name: str, kind: FailureKind | None) -> None:
        """Hear from the relay what traffic has shown of a backend."""
        if self.publisher.on_traffic(name, kind):
            self.prober.probe_soon(name)

    def suspect(self, name: str) -> None:
        """Hear from the relay that an exchange waits on a backend longer than it should have to."""
        self.prober.suspect(name)

    def finished(self, record: ExchangeRecord) -> None:
        """Hear from the relay that an exchange is over."""
        self.ledger.add(record)

    def _tell_exchanges(self, records: Sequence[ExchangeRecord]) -> None:
        slow_s = self._settings.log.slow
        for record in records:
            record.is_slow = 0.0 < slow_s < record.duration_s
            self.upkeep.on_exchange(record)
            self.metrics_kept.on_exchange(record)
            self.log.exchange_line(record)
            self.feed.tell_exchange(record)

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Write an event to the log and to whoever listens on the admin port."""
        # In the order in which things happened.
        self.ledger.flush()
        if event in ("config.reloaded", "config.refused"):
            self.last_reload_at = time.time()
        self.metrics_kept.on_event(event, fields)
        self.log.tell(event, **fields)
        self.feed.tell(event, fields)
        self.upkeep.on_event(event, fields)

    def report(self, error: BaseException, request_id: str) -> None:
        """Hear from the relay that our own code raised."""
        self.ledger.flush()
        self.log.error("exchange.failed_internally", request_id=request_id, exc_info=error)

    # --- the operator's view

    def status(self) -> dict[str, Any]:
        """Return what `understudy status` shows; durations in seconds."""
        return view.status_of(self)

    def is_ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether requests can be answered, and why not."""
        return view.readiness_of(self)

    def metrics(self) -> bytes:
        """Return the metrics as Prometheus text."""
        return view.metrics_of(self)

    async def reload(self) -> ReloadResult:
        """Read the file again."""
        return self._reload("admin")

    def set_duty(self, name: str, duty: Duty) -> bool:
        """Take an operator's word on one backend; False when there is none of that name."""
        is_known = self.publisher.set_duty(name, duty)
        if is_known and duty is Duty.READY:
            self.prober.probe_soon(name)
        return is_known

    async def restart_backend(self, name: str) -> str | None:
        """Take an operator's word to restart a backend; see Upkeep.restart."""
        return await self.upkeep.restart(name)

    def subscribe(self) -> Subscription | None:
        """Begin to listen to events; None when too many do."""
        return self.feed.subscribe()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop to listen."""
        self.feed.unsubscribe(subscription)

    def _has_usable(self, snapshot: RoutingSnapshot) -> bool:
        return any(is_usable(target) for target in snapshot.targets)

    def _is_starting(self, snapshot: RoutingSnapshot) -> bool:
        return self._is_usable is None and any(target.state.condition is Condition.UNKNOWN for target in snapshot.targets)


def _spare_collector() -> None:
    """Keep the garbage collector off what was loaded at the start, and off the path of most requests.

    An exchange leaves no reference cycles behind, so collecting rarely costs nothing; measured: 4 µs a request less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@contextlib.contextmanager
def _told_as_os_error() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise OSError(0, f"sessions.store: {error.detail or error.loss}") from error
