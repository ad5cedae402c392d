"""The daemon in the process of its tests: started, asked, told what to do, and stopped, with its log at hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from understudy.config.load import NO_OVERRIDES, load_text
from understudy.core.snapshot import Condition
from understudy.daemon.wiring import Daemon
from understudy.dataplane.listener import bind
from understudy.telemetry import logs

DEADLINE_S = 10.0


async def eventually(is_true: Callable[[], object], what: str) -> None:
    """Return as soon as it is true; AssertionError at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not is_true():  # noqa: ASYNC110  # what is waited for has no event of its own
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None


class Running:
    """A daemon that serves, with its port and its log."""

    def __init__(self, daemon: Daemon, ports: tuple[int, int], log: Path) -> None:
        self.daemon = daemon
        self.port, self.admin_port = ports
        self._log = log

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the log's lines, those of one event only where it is named."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if not name or line["event"] == name]

    async def told(self, name: str) -> dict[str, Any]:
        """Wait for an event; the last one of that name."""
        await eventually(lambda: self.events(name), name)
        return self.events(name)[-1]

    async def ask(self, data: bytes, *, admin: bool = False) -> bytes:
        """Ask on a connection of its own that ends with the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port if admin else self.port)
        writer.write(data.replace(b"Host: gw\r\n", b"Host: 127.0.0.1\r\nConnection: close\r\n", 1))
        try:
            return await reader.read()
        finally:
            writer.close()

    def condition(self, number: int = 0) -> Condition:
        """Return what is believed of a backend."""
        return self.daemon.published.current.targets[number].state.condition


@asynccontextmanager
async def serving(
    wanted: dict[str, Any], folder: Path, source: Path | None = None, env: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Serve until the play ends."""
    path = folder / "log.json"
    with path.open("wb") as stream:
        log = logs.configure("json", "info", stream.fileno())
        public, admin = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        daemon = Daemon(load_text(json.dumps(wanted), {}), source, env or {}, NO_OVERRIDES, log)
        task = asyncio.ensure_future(daemon.serve([public], admin))
        running = Running(daemon, (public.getsockname()[1], admin.getsockname()[1]), path)
        try:
            await eventually(lambda: task.done() or running.events("daemon.started"), "daemon.started")
            yield running
        finally:
            daemon.stop()
            daemon.stop()
            await task
            public.close()
            admin.close()
            log.close()
