"""The stages of plays about what a person is told: a desk with a clock that goes second by second, and alerts with channels."""

import asyncio
import threading
from collections.abc import Callable, Mapping

from understudy.controlplane.alerts import Alerts
from understudy.core.alert_writing import Cost
from understudy.core.alerting import AlertDesk, Message, alert_of
from understudy.core.upkeep import AlertChannel, Severity

GOOD = AlertChannel("json://good.example/SECRET")
BAD = AlertChannel("json://bad.example/SECRET")
DOWN: dict[str, object] = {"backend": "gpu0", "reason": "refused the connection"}
RETRY_S = 5.0
NIGHT = {"quiet_from_min": 22 * 60, "quiet_to_min": 7 * 60}
# What the log carries with each event, as docs/events.md lists it.
LOGGED: Mapping[str, dict[str, object]] = {
    "backend.went_down": {
        "backend": "gpu0",
        "engine": "vllm",
        "was": "up",
        "was_for_s": 60.5,
        "reason": "refused the connection",
    },
    "backend.went_up": {"backend": "gpu0", "engine": "vllm", "was": "down", "was_for_s": 60.5, "reason": ""},
    "backend.was_degraded": {"backend": "gpu0", "reason": "12 tokens/s, usually 80"},
    "backend.recovered_pace": {"backend": "gpu0"},
    "restart.started": {"backend": "gpu0", "reason": "6 probes failed"},
    "restart.failed": {"backend": "gpu0", "reason": "exit status 1", "exit_status": 1, "output": ["hf_abcdefSECRET"]},
    "restart.gave_up": {"backend": "gpu0", "taken_out": True, "reason": "5 restarts within 1 h"},
    "restart.succeeded": {"backend": "gpu0", "lasted_s": 12.5, "first_content_s": 0.2},
    "restart.recovered": {"backend": "gpu0", "first_content_s": 0.2},
    "pool.became_empty": {"backends": 8},
    "pool.recovered": {"backends": 8},
    "rollout.switched": {"active": "green", "was": "blue", "word": "command", "forced": False, "reason": ""},
    "rollout.rolled_back": {
        "active": "blue",
        "was": "green",
        "word": "guard",
        "reason": "errors 4% against 1%",
        "sessions": True,
    },
    "store.became_unavailable": {"reason": "unavailable", "detail": "refused the connection"},
    "store.recovered": {},
    "config.refused": {"trigger": "SIGHUP", "mistakes": ["understudy.yaml:7:5: backends[1].url: found gpu1; want a URL"]},
    "config.reloaded": {"trigger": "SIGHUP", "changed": ["balance"], "needs_restart": []},
    "slo.was_broken": {"objective": "errors", "value": 0.0213, "bound": 0.001, "window_s": 300.0, "samples": 400, "backend": ""},
    "slo.was_restored": {"objective": "errors", "lasted_s": 60.0},
}


class Play:
    """One channel, a desk, and a clock that goes second by second; the day begins at `start_min`."""

    def __init__(self, start_min: int = 12 * 60, **channel: object) -> None:
        self.desk = AlertDesk((AlertChannel("json://localhost/SECRET", **channel),))  # type: ignore[arg-type]  # a channel's fields
        self.start_min = start_min
        self.now_s = 0.0
        self.counts = Cost()
        self.messages: list[tuple[float, Message]] = []
        # While it is broken nothing arrives, and a further try comes after RETRY_S.
        self.is_broken = False
        self.failed: list[Message] = []
        self._rests_until_s = 0.0

    def tell(self, event: str, backend: str = "", **fields: object) -> None:
        told = {**LOGGED.get(event, {}), **({"backend": backend} if backend else {}), **fields}
        alert = alert_of(event, told)
        assert alert is not None
        self.desk.on_event(alert, self.now_s, self.counts)

    def wait(self, seconds: float) -> list[Message]:
        """Let time pass and return what arrived meanwhile."""
        said = []
        for _ in range(int(seconds)):
            self.now_s += 1.0
            day_s = (self.start_min * 60 + self.now_s) % (24 * 3600)
            for message in self.desk.due(self.now_s, day_s, busy={0} if self.now_s < self._rests_until_s else ()):
                if self.is_broken:
                    self.failed.append(message)
                    self.desk.take_back(message)
                    self._rests_until_s = self.now_s + RETRY_S
                    continue
                self.desk.keep(message)
                said.append(message)
                self.messages.append((self.now_s, message))
        return said


class Stage:
    """Alerts with a clock that stands, channels that do as they are told, and a memory of what was said."""

    def __init__(self, *channels: AlertChannel, wrong_url: str = "") -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, dict[str, object]]] = []
        self.sent: list[tuple[str, str, str]] = []
        self.severities: list[Severity | None] = []
        self.refusals: dict[str, str | Exception] = {BAD.url: "it is broken"}
        self.gates: dict[str, threading.Event] = {}
        self._news = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.told_no_time = False
        self.alerts = Alerts(
            channels,
            clock=lambda: self.now_s,
            wall=lambda: 0.0,
            tell=self.tell,
            notify=self.notify,
            check=lambda url: "no such service" if url == wrong_url else "",
            counts=lambda: Cost(1, 2),
        )

    def tell(self, event: str, fields: dict[str, object]) -> None:
        self.told.append((event, fields))
        self._news.set()

    def notify(self, url: str, subject: str, body: str, severity: Severity | None) -> str:
        self.severities.append(severity)
        gate = self.gates.get(url)
        if gate is not None:
            gate.wait(30)
        refusal = self.refusals.get(url, "")
        if isinstance(refusal, Exception):
            raise refusal
        if not refusal:
            self.sent.append((url, subject, body))
        return refusal

    def no_time(self) -> float:
        """Fail, and from the second time on say that it was asked."""
        if self.told_no_time:
            self.was_asked.set()
        self.told_no_time = True
        return float("nan")

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.alerts.tick()
        await asyncio.sleep(0)

    async def go_down(self) -> None:
        """Lose a backend and begin to tell."""
        self.alerts.tick()
        self.alerts.on_event("backend.went_down", DOWN)
        await self.pass_time(10.0)

    async def failed(self, times: int) -> None:
        """Wait until so many tries have failed on the first channel."""
        async with asyncio.timeout(20):
            while self.alerts.status()[0]["failed"] < times:
                self.alerts._delivered.clear()
                await self.alerts._delivered.wait()

    def pause(self) -> float:
        """Return the seconds to the first channel's next try."""
        return float(self.alerts.status()[0]["next_try_in_s"])

    def names(self) -> list[str]:
        return [event for event, _ in self.told]


def subjects(messages: list[Message]) -> list[str]:
    return [message.subject.removeprefix("Understudy: ") for message in messages]
