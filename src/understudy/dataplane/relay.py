"""The data plane's hub: takes whole requests, answers what needs no backend, relays the rest, keeps the deadlines.

Made by daemon, which hands it the published snapshot and callbacks; connections call `take`, daemon calls `on_published`.
Decides nothing about backends (core.exchange) and reads no bytes of an answer (dataplane.answer).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from understudy import dialects
from understudy.core.answer_cache import AnswerCache
from understudy.core.ask import Ask
from understudy.core.balancer import Choice, client_models
from understudy.core.departures import Departures
from understudy.core.record import ExchangeRecord
from understudy.core.retry import RetryBudget
from understudy.core.shortlist import is_usable
from understudy.core.snapshot import Published, RoutingPlan, RoutingSnapshot
from understudy.core.tally import Tally
from understudy.dataplane import caching, vigil
from understudy.dataplane.clients import LATE_S_MAX, Clients
from understudy.dataplane.contract import AttemptGauge, Listener
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import Rejection, RequestHead, own_response
from understudy.dataplane.observations import Observations
from understudy.dataplane.pool import Pool
from understudy.dataplane.prompts import Prompts
from understudy.dataplane.relayed import RelayedExchange
from understudy.dataplane.resuming import AbilityMemo
from understudy.dataplane.waiting import WaitingLine
from understudy.dialects.contract import Dialect, Route, RouteKind
from understudy.errors import MEANING, FailureKind

if TYPE_CHECKING:
    # Loaded where the file asks for them: the dialects' messages of a session store alone take a MiB.
    from understudy.dataplane.coloring import Colored, Coloring
    from understudy.dataplane.shadowing import Shadowing
    from understudy.dataplane.turns import Turns
    from understudy.dataplane.witness import Witness

# How often the deadlines of running exchanges are looked at.
SWEEP_INTERVAL_S = 0.05
CHECK_INTERVAL_S_MAX = 0.5
JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")}
# Looked up once: an Enum's member costs 50 ns a look (Python 3.11).
GENERATING, PLAIN, LISTING = RouteKind.GENERATING, RouteKind.PLAIN, RouteKind.LISTING
HEALTHZ, MANAGEMENT = RouteKind.HEALTHZ, RouteKind.MANAGEMENT


# Where a browser asks to look around in a color (dataplane.coloring).
PREVIEW_PREFIX = b"/switch/"


class Relay:
    """Every running exchange, every client connection, and what they share."""

    def __init__(
        self,
        published: Published,
        tally: Tally,
        pool: Pool,
        listener: Listener,
        *,
        id_prefix: str,
        clock: Callable[[], float],
    ) -> None:
        self.published = published
        self.tally = tally
        self.pool = pool
        self.line = WaitingLine()
        self.running: set[RelayedExchange] = set()
        self.is_stopping = False
        self.listener = listener
        self.abilities = AbilityMemo()
        self.departures = Departures()
        self.clients = Clients(published, pool, clock, listener.tell)
        self._meant: tuple[object, ...] = ()
        # Set by daemon: `turns` where the file names a session store, the others while there are two colors.
        self.turns: Turns | None = None
        self.coloring: Coloring | None = None
        self.shadowing: Shadowing | None = None
        self.witness: Witness | None = None
        # Told of every attempt's end, beside the guard's witness.
        self.gauges: tuple[AttemptGauge, ...] = ()
        self.observations = Observations(published, tally, listener)
        self._loop = asyncio.get_running_loop()
        self.now_s = clock
        self._id_prefix = id_prefix
        self._ids = 0
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_due_at_s = 0.0
        self._listings: dict[str, bytes] = {}
        self._budget_share = published.current.plan.failover.budget
        self.budget = RetryBudget(self._budget_share)
        self.answers = AnswerCache(published.current.plan.cache)
        self.apply(published.current.plan)

    def apply(self, plan: RoutingPlan) -> None:
        """Take the settings of a new plan; exchanges in flight keep their backend."""
        self._plan = plan
        self.limits = plan.limits
        self.timeouts = plan.timeouts
        self.rules = plan.failover
        self.body_bytes_max = plan.failover.body_bytes_max
        # An exchange that just passed is left alone for a while, short beside every bound.
        each = [plan.timeouts, *(backend.timeouts for backend in plan.backends)]
        bounds_s = [plan.timeouts.total_s or CHECK_INTERVAL_S_MAX * 10]
        bounds_s += [min(timeouts.first_token_s, timeouts.stall_s) for timeouts in each]
        self.check_interval_s = min(CHECK_INTERVAL_S_MAX, min(bounds_s) / 10)
        if plan.failover.budget != self._budget_share:
            self._budget_share = plan.failover.budget
            self.budget = RetryBudget(plan.failover.budget)
        self._allows_management = plan.allow_admin_paths
        self.prompts = Prompts(plan)
        self.answers.apply(plan.cache, self.now_s())
        if plan.meaning != self._meant:
            # The same request may mean another model now.
            self._meant = plan.meaning
            self.answers.clear()

    # --- connections

    def admit(self, connection: DownstreamConnection) -> bool:
        """Count a new connection; False when there is no room for it."""
        return self.clients.admit(connection)

    def forget(self, connection: DownstreamConnection) -> None:
        """A connection is closed."""
        self.clients.forget(connection)

    def refuse(self, rejection: Rejection, head: RequestHead | None) -> bytes:
        """Write the answer to a request that cannot be accepted, in its dialect where its head was read, and note it."""
        method, path = (head.method.decode("latin-1"), head.path.decode("latin-1")) if head is not None else ("", "")
        record = ExchangeRecord(Ask(path=path), self._request_id(head), method, path, 0)
        record.status = rejection.status
        self.listener.finished(record)
        dialect = dialects.match(head.method, head.path).dialect if head is not None else None
        body = (dialect or dialects.PLAIN_ERROR).error_body(rejection.status, "invalid_request", rejection.message)
        return own_response(rejection.status, body, JSON, extra=_id_line(record), closes=True)

    # --- requests

    def take(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        """Answer one whole request, at once or by and by."""
        route = dialects.match(head.method, head.path)
        dialect, kind = route.dialect, route.kind
        ask: Ask | str = ""
        if dialect is not None and (kind is GENERATING or kind is PLAIN):
            ask = dialect.read_ask(route.path, body, head.session.decode("latin-1") if head.session else "")
        told = ask if isinstance(ask, Ask) else Ask(dialect=dialect.name if dialect else None, path=route.path)
        if told.is_generating and kind is not GENERATING:
            # The path alone does not make it so: a GET of the same path generates nothing.
            told = msgspec.structs.replace(told, is_generating=False)
        method = _METHODS.get(head.method) or head.method.decode("latin-1")
        record = ExchangeRecord(told, self._request_id(head), method, route.path, len(body))
        if self.coloring is not None and head.path.startswith(PREVIEW_PREFIX):
            preview = self.coloring.preview(head)
            if preview is not None:
                record.status = preview.status
                response = self.whole(head, record, preview.page, HTML, preview.lines + _id_line(record))
                self.listener.finished(record)
                self.respond(connection, head, response)
                return
        if self.is_stopping or not (told is ask or kind is PLAIN or (kind is MANAGEMENT and self._allows_management)):
            self._answer(connection, head, record, route, ask)
            return
        words = self.turns.words_of(head, route.path) if head.session and kind is GENERATING and self.turns else None
        coloring = self.coloring
        colored = _colored(coloring, connection, head, body, record) if coloring is not None else None
        if isinstance(words, str) or isinstance(colored, str):
            self._answer(connection, head, record, route, words if isinstance(words, str) else str(colored))
            return
        exchange = RelayedExchange(self, connection, head, body, dialect=dialect, record=record)
        exchange.colored = colored
        if words is not None and self.turns is not None:
            exchange.turn = self.turns.turn(exchange, words)
        self._relay(connection, exchange)

    def _answer(
        self, connection: DownstreamConnection, head: RequestHead, record: ExchangeRecord, route: Route, ask: Ask | str
    ) -> None:
        """Answer what needs no backend, or may not have one."""
        if route.kind is HEALTHZ:
            response = own_response(200, b"OK\n", b"text/plain", closes=self._closes(head), is_head=head.method == b"HEAD")
            self.respond(connection, head, response)
            return
        if self.is_stopping:
            response = self._error_of(head, record, route.dialect, FailureKind.STOPPING)
        elif route.kind is MANAGEMENT:
            record.status = 403
            message = f"{route.path[:200]} manages models or the engine; access.allow_admin_paths is off"
            response = self.error(head, record, route.dialect, "path_not_allowed", message)
        elif route.kind is LISTING:
            response = self._listing(head, record, route)
        else:
            record.status = 400
            response = self.error(head, record, route.dialect, "invalid_request", str(ask))
        self.listener.finished(record)
        self.respond(connection, head, response)

    def _relay(self, connection: DownstreamConnection, exchange: RelayedExchange) -> None:
        connection.running = exchange
        self.running.add(exchange)
        if self._sweep_timer is None:
            self.watch()
        try:
            if exchange.turn is not None:
                exchange.turn.begin()
            elif not (self.answers.is_on and exchange.ask.is_generating and caching.send_known(exchange, self.answers)):
                exchange.start()
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            exchange.on_exception(error)

    def _listing(self, head: RequestHead, record: ExchangeRecord, route: Route) -> bytes:
        """Write the merged list of the usable backends' models, made once a snapshot."""
        snapshot = self.published.current
        if not any(is_usable(target) for target in snapshot.targets):
            return self._error_of(head, record, route.dialect, FailureKind.NONE_USABLE)
        body = self._listings.get(route.path)
        if body is None and route.dialect is not None:
            body = self._listings[route.path] = route.dialect.list_models(route.path, client_models(snapshot))
        record.status = 200
        return self.whole(head, record, body or b"", JSON, _id_line(record))

    def _error_of(self, head: RequestHead, record: ExchangeRecord, dialect: Dialect | None, kind: FailureKind) -> bytes:
        meaning = MEANING[kind]
        record.failure = kind
        record.status = meaning.status
        return self.error(head, record, dialect, kind.value, meaning.words, _id_line(record) + b"Retry-After: 1\r\n")

    def whole(self, head: RequestHead, record: ExchangeRecord, body: bytes, content_type: bytes, extra: bytes) -> bytes:
        """Write a whole response of our own with the record's status; `extra` holds further field lines."""
        record.sent_bytes = len(body)
        is_head = head.method == b"HEAD"
        return own_response(record.status, body, content_type, extra=extra, closes=self._closes(head), is_head=is_head)

    def error(
        self, head: RequestHead, record: ExchangeRecord, dialect: Dialect | None, code: str, message: str, extra: bytes = b""
    ) -> bytes:
        """Write one of our own errors with the record's status, in the dialect's shape."""
        body = (dialect or dialects.PLAIN_ERROR).error_body(record.status, code, message)
        return self.whole(head, record, body, JSON, extra or _id_line(record))

    def respond(self, connection: DownstreamConnection, head: RequestHead, response: bytes) -> None:
        """Send a whole response of our own and go on to the next request."""
        connection.write(response)
        connection.finish(keeps_alive=not self._closes(head))

    def _closes(self, head: RequestHead) -> bool:
        return not head.keeps_alive or head.is_http10 or self.is_stopping

    def _request_id(self, head: RequestHead | None) -> str:
        if head is not None and head.request_id:
            return head.request_id.decode("latin-1")
        self._ids += 1
        return f"{self._id_prefix}{self._ids:08x}"

    # --- what exchanges report

    def on_room(self, *choices: Choice) -> None:
        """Where an exchange's leaving makes room, let the first who waits take its place."""
        for choice in choices:
            if self.line.count and (choice.is_trial or choice.target.backend.in_flight_max):
                self.line.wake_first()

    def wake_soon(self) -> None:
        """The retry budget has room again: the first who waits may go on, once this one's content is on its way."""
        if self.line.count:
            self._loop.call_soon(self.line.wake_first)

    def stand_in_line(self, exchange: RelayedExchange) -> None:
        """Let an exchange wait its turn; where there is no room for one more, somebody is sent away."""
        displaced = self.line.add(exchange, most=self.limits.waiting_max)
        self.watch()
        if displaced is not None:
            displaced.on_displaced()

    def retry_after_s(self) -> float:
        """In how many seconds somebody who is sent away may have a chance: as fast as exchanges end now."""
        return self.departures.retry_after_s(self.line.count, self.now_s())

    def on_over(self, exchange: RelayedExchange) -> None:
        """An exchange is over."""
        self.running.discard(exchange)
        if exchange.shadow is not None and self.shadowing is not None:
            self.shadowing.on_over(exchange, exchange.shadow)
        colored = exchange.colored
        if colored is not None and self.coloring is not None:
            self.coloring.on_over(exchange, colored)
            if self.witness is not None:
                self.witness.on_over(exchange, colored)
        if (self.line.count or self.departures.is_measuring) and exchange.record.attempts:
            self.departures.on_departure(self.now_s(), waiting=self.line.count)
        self.listener.finished(exchange.record)

    def on_published(self, snapshot: RoutingSnapshot) -> None:
        """A new snapshot is current: who waits looks again."""
        self._listings.clear()
        plan = snapshot.plan
        if plan is not self._plan:
            self.apply(plan)
        self.tally.retain({target.backend.name for target in snapshot.targets})
        self.line.wake_all()

    def leave(self, name: str) -> None:
        """Move every exchange away from a backend that is about to be restarted; what cannot go on elsewhere ends honestly."""
        for exchange in list(self.running):
            for attempt in (exchange.attempt, exchange.hedge):
                if attempt is not None and attempt.name == name:
                    exchange.on_attempt_failed(attempt, FailureKind.RESTARTING)

    # --- clocks

    def watch(self) -> None:
        """Make sure that the deadlines are looked at."""
        if self._sweep_timer is None:
            self._sweep_due_at_s = self.now_s() + SWEEP_INTERVAL_S
            self._sweep_timer = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    def _sweep(self) -> None:
        now_s = self.now_s()
        late_s = now_s - self._sweep_due_at_s
        self._sweep_timer = None
        running = list(self.running)
        if late_s > LATE_S_MAX:
            # We were stopped, not the backends: what they have sent meanwhile still lies in the kernel. All at once, because the
            # line keeps its order by when each one began.
            for exchange in running:
                vigil.forgive(exchange, late_s, now_s)
        for exchange in running:
            if exchange.is_running:
                self._check(exchange, now_s)
        if self.line.count:
            self.line.wake_due(now_s)
        if self.running or self.line.count:
            self.watch()

    def _check(self, exchange: RelayedExchange, now_s: float) -> None:
        try:
            vigil.check(exchange, now_s)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not everybody's deadlines
            exchange.on_exception(error)

    # --- stopping

    def stop_taking(self) -> None:
        """Answer new requests with 503 and close connections that are idle; running exchanges go on."""
        self.is_stopping = True
        for exchange in self.running:
            exchange.keeps_alive = False
        self.clients.close_idle()

    def end_running(self) -> None:
        """End the exchanges that are left, but for those whose answer is complete and being kept."""
        for exchange in list(self.running):
            exchange.on_stop()

    def stop(self) -> None:
        """End whatever is left."""
        self.end_running()
        self.clients.close_all()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self.pool.close_all()


def _id_line(record: ExchangeRecord) -> bytes:
    return b"X-Request-ID: %b\r\n" % record.request_id.encode("latin-1")


def _colored(
    coloring: "Coloring", connection: DownstreamConnection, head: RequestHead, body: bytes, record: ExchangeRecord
) -> "Colored | str":
    """Give a request its color; a text: what is wrong with its own word for one."""
    request_id = record.request_id.encode("latin-1")
    read = body if record.ask.is_generating else b""
    colored = coloring.of(head, record.path, read, request_id, head.key or connection.peer)
    if not isinstance(colored, str):
        record.color = str(colored.color)
        record.ask = msgspec.structs.replace(record.ask, color=record.color)
    return colored
