"""An operator with a made-up daemon behind it, and the real admin port in front, for tests of the admin room and its callers."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.admin.api import Operator, make_app
from understudy.admin.feed import EventFeed, Subscription
from understudy.admin.guard import Guard
from understudy.admin.port import AdminPort
from understudy.config.reload import ReloadResult
from understudy.core.snapshot import Duty
from understudy.errors import Mistake

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_s": 3725.0,
    "generation": 4,
    "ready": True,
    "stopping": False,
    "listen": ["127.0.0.1:8080"],
    "file": "/etc/understudy/understudy.yaml",
    "balance": "ordered",
    "running": 3,
    "waiting": 1,
    "connections": 12,
    "reload": None,
    "rollout": None,
    "alerts": None,
    "objectives": None,
    "backends": [
        {
            "name": "pi",
            "url": "http://192.168.1.100:11434",
            "engine": "ollama",
            "version": "0.11.4",
            "role": "primary",
            "color": "none",
            "weight": 1,
            "condition": "up",
            "duty": "ready",
            "reason": "",
            "restarting": False,
            "degraded": False,
            "since_s": 3600.0,
            "models": ["qwen2.5"],
            "in_flight": 2,
            "in_flight_max": 4,
            "ejected_for_s": 0.0,
            "half_open": False,
            "attempts_total": 100,
            "failures_total": 7,
            "ttft_ewma_s": 0.184,
            "resting_for_s": 0.0,
            "restart": None,
            "warm": None,
            "wake": None,
        },
    ],
}
REFUSED = ReloadResult(ok=False, mistakes=(Mistake("backends[1].url", "gpu1", "a URL", "understudy.yaml", 7, 5),))


class StageOperator(Operator):
    """What a test says the daemon is; remembers what it was told to do."""

    def __init__(self) -> None:
        self.feed = EventFeed(lambda: "2026-01-31T23:59:59.123Z")
        self.document = dict(STATUS)
        self.ready = True
        self.duties: dict[str, Duty] = {"pi": Duty.READY}
        self.restarted: list[str] = []
        self.restart_refusal = ""
        self.result = ReloadResult(ok=True)
        self.scrapes = 0
        self.bug: Exception | None = None

    def status(self) -> dict[str, Any]:
        """Return the document, or meet a bug."""
        if self.bug is not None:
            raise self.bug
        return self.document

    def is_ready(self) -> tuple[bool, dict[str, Any]]:
        """Return what the test said."""
        return self.ready, {"usable": ["pi"] if self.ready else [], "stopping": False}

    def metrics(self) -> bytes:
        """Count the scrapes."""
        self.scrapes += 1
        return b"understudy_waiting 0.0\n"

    async def reload(self) -> ReloadResult:
        """Come to what the test said."""
        return self.result

    async def restart_backend(self, name: str) -> str | None:
        """Know only the backends in `duties`; refuse what `restart_refusal` says."""
        if name not in self.duties:
            return None
        if not self.restart_refusal:
            self.restarted.append(name)
        return self.restart_refusal

    def set_duty(self, name: str, duty: Duty) -> bool:
        """Know only the backends in `duties`."""
        if name not in self.duties:
            return False
        self.duties[name] = duty
        return True

    def subscribe(self) -> Subscription | None:
        """Listen to the feed."""
        return self.feed.subscribe()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Leave the feed."""
        self.feed.unsubscribe(subscription)


def listener() -> socket.socket:
    """Bind any free port of the loopback interface."""
    return socket.create_server(("127.0.0.1", 0))


@contextmanager
def open_admin_port(operator: Operator, token: str = "", path: Path | None = None) -> Iterator[str]:
    """Serve in a thread with its own loop, on a free port or on a unix socket; yields the URL for --admin."""
    if path is None:
        sock = listener()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        url = f"unix:{path}"
    loop = asyncio.new_event_loop()
    is_open, is_over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        port = AdminPort(make_app(operator, Guard(token, "127.0.0.1")))
        await port.start(sock)
        is_open.set()
        await is_over.wait()
        await port.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    is_open.wait()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        loop.close()
