"""Read what every backend's `metrics_url` tells of its load, at the pace of its probes, and keep the newest of it.

Built and run by daemon; one task a backend that has such a URL, owned by `FiguresReader.run`. Follows reloads. What it reads goes
to core.tally for the balances and, as `readings`, to controlplane.objective_watch and telemetry; what is too old goes nowhere.
Never decides what a text means (engines.figures) nor whether a backend is well: one without figures is as good as any.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from understudy.controlplane.fetcher import Fetcher, Resolve
from understudy.core.snapshot import Address, Backend, Duty, Published
from understudy.core.tally import Tally
from understudy.engines.contract import PROBE_BODY_BYTES_MAX, ProbeRequest
from understudy.engines.figures import Figures, read
from understudy.engines.progress import PROGRESS_INTERVAL_S

# Figures are used until this many intervals have passed without newer ones.
STALE_INTERVALS: Final = 2.0
# A single reading that fails is no news.
FAILURES_MIN: Final = 2

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a backend told, and when (loop time)."""

    figures: Figures
    read_at_s: float


@dataclass(slots=True)
class _Watch:
    """One backend's task. `reading` is the newest while it is not stale; `failures` in a row, the last for `reason`."""

    backend: Backend
    task: asyncio.Task[None] | None = None
    reading: Reading | None = None
    failures: int = 0
    reason: str = ""
    is_stale: bool = False
    stale_timer: asyncio.TimerHandle | None = None
    lost_at_s: float | None = None


class FiguresReader:
    """Keeps a task for every backend of the published plan that has a `metrics_url`.

    `clock` gives loop time in seconds, `dice` a number from 0 to 1 for the jitter. `tell` gets an event's name (telemetry.events)
    and its fields. `resolve` as in Fetcher. Readings come at the pace of the probes, at least `interval_s_min` apart: asked more
    often than once a second llama.cpp does not notice clients that have left (server-queue.cpp).
    """

    def __init__(
        self,
        published: Published,
        tally: Tally,
        clock: Callable[[], float],
        dice: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
        resolve: Resolve | None = None,
        *,
        interval_s_min: float = PROGRESS_INTERVAL_S,
    ) -> None:
        self._published = published
        self._tally = tally
        self._clock = clock
        self._dice = dice
        self._tell = tell
        self._interval_s_min = interval_s_min
        self._fetcher = _TextFetcher(resolve)
        self._watches: dict[str, _Watch] = {}
        self._plan_changed = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled. New and changed backends are read at once, removed ones no longer."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._plan_changed.clear()
                    self._follow_plan(tasks)
                    await self._plan_changed.wait()
        finally:
            for watch in self._watches.values():
                self._set_aside(watch)

    def on_plan_change(self) -> None:
        """Say that another plan is published."""
        self._plan_changed.set()

    def readings(self) -> dict[str, Reading]:
        """Return the newest reading of every backend that has one which is not too old."""
        return {name: watch.reading for name, watch in self._watches.items() if watch.reading is not None}

    def _follow_plan(self, tasks: asyncio.TaskGroup) -> None:
        backends = (target.backend for target in self._published.current.targets)
        wanted = {backend.name: backend for backend in backends if backend.metrics_url}
        for name, watch in list(self._watches.items()):
            if wanted.get(name) != watch.backend:
                if watch.task is not None:
                    watch.task.cancel()
                self._set_aside(watch)
                del self._watches[name]
        for name, backend in wanted.items():
            if name not in self._watches:
                watch = self._watches[name] = _Watch(backend)
                watch.task = tasks.create_task(self._keep_reading(watch), name=f"figures.{name}")

    async def _keep_reading(self, watch: _Watch) -> None:
        while True:
            if self._is_read(watch):
                await self._read(watch)
            else:
                self._set_aside(watch)
            await asyncio.sleep(self._interval_s(watch) * (0.8 + 0.4 * self._dice()))

    async def _read(self, watch: _Watch) -> None:
        name = watch.backend.name
        if watch.stale_timer is None and not watch.is_stale:
            self._wait_until_stale(watch)
        in_flight = self._tally.of(name).in_flight
        body, reason = await self._fetcher.fetch_text(watch.backend)
        if not self._is_read(watch):
            return
        figures = read(body) if body is not None else None
        if figures is None:
            watch.failures += 1
            watch.reason = reason or "its text has no figure that is known here"
            self._tell_lost(watch)
            return
        now_s = self._clock()
        watch.reading, watch.failures, watch.is_stale = Reading(figures, now_s), 0, False
        self._wait_until_stale(watch)
        if figures.load is None or figures.waiting is None:
            self._tally.forget_load(name)
        else:
            self._tally.learn_load(name, figures.load, figures.waiting, in_flight)
        if watch.lost_at_s is not None:
            self._tell("backend.regained_figures", {"backend": name, "lost_for_s": round(now_s - watch.lost_at_s, 3)})
            watch.lost_at_s = None

    def _wait_until_stale(self, watch: _Watch) -> None:
        if watch.stale_timer is not None:
            watch.stale_timer.cancel()
        stale_s = STALE_INTERVALS * self._interval_s(watch)
        watch.stale_timer = asyncio.get_running_loop().call_later(stale_s, self._on_stale, watch)

    def _on_stale(self, watch: _Watch) -> None:
        self._forget(watch)
        watch.is_stale = True
        self._tell_lost(watch)

    def _tell_lost(self, watch: _Watch) -> None:
        """Say once that figures are missing: when the last ones are too old, and not for slowness or one failure alone."""
        if watch.is_stale and watch.failures >= FAILURES_MIN and watch.lost_at_s is None:
            watch.lost_at_s = self._clock()
            self._tell("backend.lost_figures", {"backend": watch.backend.name, "reason": watch.reason})

    def _set_aside(self, watch: _Watch) -> None:
        """Use no figure of a backend that is not asked, and hold nothing against it."""
        self._forget(watch)
        watch.failures, watch.is_stale = 0, False

    def _forget(self, watch: _Watch) -> None:
        if watch.stale_timer is not None:
            watch.stale_timer.cancel()
            watch.stale_timer = None
        watch.reading = None
        self._tally.forget_load(watch.backend.name)

    def _interval_s(self, watch: _Watch) -> float:
        """Seconds from one reading to the next, before jitter."""
        return max(watch.backend.health.interval_s, self._interval_s_min)

    def _is_read(self, watch: _Watch) -> bool:
        """Whether the backend is to be asked: neither in maintenance nor in the middle of a restart."""
        return any(
            target.backend == watch.backend and target.state.duty is not Duty.MAINTENANCE and not target.state.is_restarting
            for target in self._published.current.targets
        )


class _TextFetcher(Fetcher):
    """Fetches the text behind a `metrics_url` as a probe is fetched: bounded in time and bytes, to where its name resolves."""

    async def fetch_text(self, backend: Backend) -> tuple[bytes | None, str]:
        """Return the text, or None and in words why there is none. Raises nothing for what stands at the URL."""
        url = urlsplit(backend.metrics_url)
        place = replace(backend, address=_address_of(url))
        if place.address.authority != backend.address.authority or place.address.scheme != backend.address.scheme:
            # The key is the backend's alone.
            place = replace(place, api_key="")
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        deadline_at_s = asyncio.get_running_loop().time() + backend.health.timeout_s
        answer, reason = await self._fetch_in_time(place, ProbeRequest(path), deadline_at_s)
        if answer is None:
            return None, reason
        if answer.status != 200:
            return None, f"answered {answer.status}"
        if answer.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            return None, "came compressed, which was not asked for"
        if len(answer.body) >= PROBE_BODY_BYTES_MAX:
            return None, f"gave a text of more than {PROBE_BODY_BYTES_MAX >> 20} MiB"
        return answer.body, ""

    def _client(self, backend: Backend, connect_s: float | None) -> httpx.AsyncClient:
        client = super()._client(backend, connect_s)
        url = urlsplit(backend.metrics_url)
        if url.username or url.password:
            client.auth = httpx.BasicAuth(unquote(url.username or ""), unquote(url.password or ""))
        return client


def _address_of(url: SplitResult) -> Address:
    """Return where a URL that config has read leads to."""
    return Address(url.scheme, url.hostname or "", url.port or _PORTS.get(url.scheme, 80))
