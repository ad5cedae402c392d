"""Answer the admin port: health, readiness, metrics, status, events, and an operator's orders.

Built by daemon, which hands in an `Operator`; whatever is decided or changed happens there. Everything runs on the daemon's
event loop beside the data plane, so every request here is paced and the costly answers are made sparingly. Never serves
clients' requests and never shows keys; prompts are shown by admin.sessions_api alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from understudy.admin.alerts_api import AlertOperator, add_alerts
from understudy.admin.feed import Subscription
from understudy.admin.guard import Guard, Pace, Refusal
from understudy.admin.reply import HEADERS, error_reply, json_reply
from understudy.admin.rollout_api import RolloutOperator, add_rollout
from understudy.admin.sessions_api import SessionsOperator, add_sessions
from understudy.core.snapshot import Duty
from understudy.errors import Mistake

# A comment this often tells a listener that the stream lives, and us that the listener is gone.
_KEEPALIVE_S = 15.0
_RELOAD_S_MAX = 60.0
AGE_S_MAX = 0.1
_DUTIES = {"drain": Duty.DRAINING, "ready": Duty.READY, "maintenance": Duty.MAINTENANCE}
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ReloadOutcome(Protocol):
    """What a reload came to; config.reload.ReloadResult is one."""

    @property
    def ok(self) -> bool:
        """Whether the new settings are in force."""

    @property
    def changed(self) -> Sequence[str]:
        """What is in force now and was not before, one line each."""

    @property
    def needs_restart(self) -> Sequence[str]:
        """The keys of which the file says something else than what runs until a restart."""

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """Why it was refused; empty when it was not."""


class Operator(Protocol):
    """What the admin port needs of the daemon. All of it runs on the event loop; only what is awaited may take long.

    `sessions` is the session store, None where none is configured; `rollout` None: no backend has a color;
    `alerts` None: the file names no channel.
    """

    sessions: SessionsOperator | None = None
    rollout: RolloutOperator | None = None
    alerts: AlertOperator | None = None

    def status(self) -> dict[str, Any]:
        """Everything the daemon sees, as JSON values; see the schema Status in admin.openapi."""

    def is_ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether a request could be answered now, and the facts behind it as JSON values."""

    def metrics(self) -> bytes:
        """All metrics as Prometheus text."""

    async def reload(self) -> ReloadOutcome:
        """Read the file again, swap or refuse."""

    def set_duty(self, name: str, duty: Duty) -> bool:
        """Change a backend's duty; False when no backend has that name."""

    async def restart_backend(self, name: str) -> str | None:
        """Restart a backend; returns why that is refused, "" where it has begun, None when no backend has that name."""

    def subscribe(self) -> Subscription | None:
        """Begin to listen to events (admin.feed); None when too many do."""

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop to listen."""


class Sparing:
    """An answer made anew only so often that making it takes at most `share` of the time; else the last one.

    A scrape of 2 ms is thereby made at most every 40 ms, however many ask. None is older than `AGE_S_MAX`.
    """

    def __init__(self, make: Callable[[], bytes], clock: Callable[[], float], share: float = 0.05) -> None:
        self._make = make
        self._clock = clock
        self._share = share
        self._made = b""
        self._good_until_s = -1.0

    def __call__(self) -> bytes:
        """Return the answer, new or last."""
        begun_at_s = self._clock()
        if begun_at_s >= self._good_until_s:
            self._made = self._make()
            made_at_s = self._clock()
            self._good_until_s = made_at_s + min(AGE_S_MAX, (made_at_s - begun_at_s) / self._share)
        return self._made


def make_app(operator: Operator, guard: Guard, pace: Pace | None = None) -> web.Application:
    """Make the application. Call it on the running event loop."""
    loop = asyncio.get_running_loop()
    answers = _Answers(operator, guard, loop.time)
    doors = _Doors(guard, pace or Pace(), loop.time)
    app = web.Application(middlewares=[doors.check], client_max_size=64 * 1024)
    app.router.add_get("/", answers.page)
    app.router.add_get("/healthz", answers.healthz)
    app.router.add_get("/readyz", answers.readyz)
    app.router.add_get("/metrics", answers.metrics)
    app.router.add_get("/api/status", answers.status)
    app.router.add_get("/api/events", answers.events, allow_head=False)
    app.router.add_get("/api/openapi.json", answers.openapi)
    app.router.add_post("/api/reload", answers.reload)
    for verb, duty in _DUTIES.items():
        app.router.add_post(f"/api/backends/{{name}}/{verb}", answers.set_duty(duty))
    app.router.add_post("/api/backends/{name}/restart", answers.restart)
    add_sessions(app.router, lambda: operator.sessions)
    add_rollout(app.router, lambda: operator.rollout)
    add_alerts(app.router, lambda: operator.alerts)
    app.on_shutdown.append(answers.end_streams)
    return app


class _Doors:
    """What every request passes: the pace, the guard, and errors turned into JSON."""

    def __init__(self, guard: Guard, pace: Pace, clock: Callable[[], float]) -> None:
        self._guard = guard
        self._pace = pace
        self._clock = clock

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wait_s = self._pace.wait_s(self._clock())
        if wait_s != 0.0:
            # A refusal waits, too: otherwise it would be the cheapest request to hammer with.
            await asyncio.sleep(self._pace.wait_s_max if wait_s is None else wait_s)
        if wait_s is None:
            return error_reply(429, "too_many", "too many requests on the admin port", {"Retry-After": "2"})
        refusal = self._guard.refuse(request.method, request.path, request.headers)
        if refusal is not None:
            return _refused(refusal)
        try:
            return await handler(request)
        except web.HTTPException as error:
            words = {404: f"there is no {request.path} here", 405: f"{request.method} is not possible here"}
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status, "refused")
            kept = {name: value for name, value in error.headers.items() if name == "Allow"}
            return error_reply(error.status, code, words.get(error.status, error.reason), kept)
        except ConnectionError:
            raise
        except Exception:
            # The fault is ours and is logged with its traceback (library.complained); the port goes on.
            logging.getLogger(__name__).exception("an admin request failed")
            return error_reply(500, "internal", "understudy failed at this request; its log says how")


class _Answers:
    """The handlers, one an endpoint."""

    def __init__(self, operator: Operator, guard: Guard, clock: Callable[[], float]) -> None:
        self._operator = operator
        self._guard = guard
        self._metrics = Sparing(operator.metrics, clock)
        self._streams: set[Subscription] = set()

    async def page(self, _request: web.Request) -> web.Response:
        rows = "".join(
            f"<li><code>{method.upper()} {path}</code> {operation['summary']}</li>"
            for path, operations in _described()["paths"].items()
            for method, operation in operations.items()
        )
        text = f"<!doctype html><html lang=en><meta charset=utf-8><title>Understudy</title><h1>Understudy</h1><ul>{rows}</ul>\n"
        return web.Response(text=text, content_type="text/html", headers=HEADERS | _PAGE_HEADERS)

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="OK\n", headers=HEADERS)

    async def readyz(self, request: web.Request) -> web.Response:
        is_ready, facts = self._operator.is_ready()
        # Names of backends are for those who may see the status.
        shown = facts if self._guard.is_authorized(request.headers) else {}
        return json_reply(200 if is_ready else 503, {"ready": is_ready, **shown})

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers=HEADERS | {"Content-Type": _METRICS_TYPE})

    async def status(self, _request: web.Request) -> web.Response:
        return json_reply(200, self._operator.status())

    async def openapi(self, _request: web.Request) -> web.Response:
        return json_reply(200, _described())

    async def reload(self, _request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_RELOAD_S_MAX):
                outcome = await self._operator.reload()
        except TimeoutError:
            return error_reply(504, "reload_slow", f"the file was not read within {_RELOAD_S_MAX:.0f} s")
        told = {
            "ok": outcome.ok,
            "changed": list(outcome.changed),
            "needs_restart": list(outcome.needs_restart),
            "mistakes": [str(mistake) for mistake in outcome.mistakes],
        }
        return json_reply(200 if outcome.ok else 422, told)

    async def restart(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        refusal = await self._operator.restart_backend(name)
        if refusal is None:
            return error_reply(404, "backend_unknown", f"no backend is named {name[:100]!r}")
        if refusal:
            return error_reply(409, "restart_refused", refusal)
        return json_reply(200, {"name": name, "restarting": True})

    def set_duty(self, duty: Duty) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            if self._operator.set_duty(name, duty):
                return json_reply(200, {"name": name, "duty": duty.value})
            return error_reply(404, "backend_unknown", f"no backend is named {name[:100]!r}")

        return answer

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send events until the listener leaves, falls behind or the daemon stops."""
        subscription = self._operator.subscribe()
        if subscription is None:
            refused = error_reply(503, "too_many_listeners", "too many listen to events already", {"Retry-After": "10"})
            # Whoever listens holds on; places on this port are for those who ask how the daemon is.
            refused.force_close()
            return refused
        transport = request.transport
        if transport is not None:
            subscription.on_drop = transport.abort
        self._streams.add(subscription)
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream", "Connection": "close"})
        try:
            await response.prepare(request)
            await response.write(b": understudy events\nretry: 2000\n\n")
            while piece := await _next_piece(subscription):
                await response.write(piece)
        except ConnectionError:
            # The listener left; there is nobody to tell.
            return response
        finally:
            self._streams.discard(subscription)
            self._operator.unsubscribe(subscription)
        return response

    async def end_streams(self, _app: web.Application) -> None:
        for subscription in self._streams:
            subscription.end()


def _described() -> dict[str, Any]:
    # Loaded when somebody asks: half a MiB that most daemons never need.
    from understudy.admin.openapi import document

    return document()


async def _next_piece(subscription: Subscription) -> bytes:
    try:
        async with asyncio.timeout(_KEEPALIVE_S):
            return await subscription.next_piece()
    except TimeoutError:
        return b": alive\n\n"


def _refused(refusal: Refusal) -> web.Response:
    challenge = {"WWW-Authenticate": 'Bearer realm="understudy"'} if refusal.status == 401 else None
    return error_reply(refusal.status, refusal.code, refusal.words, challenge)
