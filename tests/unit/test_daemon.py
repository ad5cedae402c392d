"""Plays of the whole daemon in this process: started, wired, reloaded, told what to do, and stopped in order."""

import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.daemon import backend, settings
from support.scripted import ScriptedEngine
from support.stage import chat, request
from support.steps import Gate, answer, hold, send
from understudy.admin.openapi import document
from understudy.config.load import NO_OVERRIDES, load_text
from understudy.core.snapshot import Condition, Duty
from understudy.daemon import Daemon, run
from understudy.dataplane.listener import bind
from understudy.telemetry import logs

DEADLINE_S = 10.0


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The daemon tunes the garbage collector of its process, which is the tests' here."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as one:
        yield one


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
async def serving(wanted: dict[str, Any], folder: Path, source: Path | None = None) -> AsyncIterator[Running]:
    """Serve until the play ends."""
    path = folder / "log.json"
    with path.open("wb") as stream:
        log = logs.configure("json", "info", stream.fileno())
        public, admin = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        daemon = Daemon(load_text(json.dumps(wanted), {}), source, {}, NO_OVERRIDES, log)
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


async def test_request_is_answered_logged_counted_and_told(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine)), tmp_path) as running:
        subscription = running.daemon.subscribe()
        assert subscription is not None
        answered = await running.ask(chat(model="tiny"))
        assert b"X-Understudy-Backend: gpu0" in answered
        assert b"[DONE]" in answered
        line = await running.told("exchange.finished")
        assert (line["status"], line["backend"]) == (200, "gpu0")
        metrics = running.daemon.metrics()
        assert b'backend="gpu0"' in metrics
        status = running.daemon.status()
        assert (status["ready"], status["running"], status["waiting"], status["stopping"]) == (True, 0, 0, False)
        assert status["listen"] == [f"127.0.0.1:{running.port}"]
        assert [one["name"] for one in status["backends"]] == ["gpu0"]
        described = document()["components"]["schemas"]["Status"]["properties"]
        assert set(status) == set(described)
        assert set(status["backends"][0]) == set(described["backends"]["items"]["properties"])
        running.daemon.unsubscribe(subscription)


async def test_backends_are_probed_before_the_first_client_is_let_in(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine)), tmp_path) as running:
        assert running.condition() is Condition.UP
        order = [event["event"] for event in running.events()]
        assert order.index("backend.went_up") < order.index("daemon.started")


async def test_daemon_starts_without_any_backend_that_lives(engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.refuse()
    async with serving(settings(backend(engine), failover={"hold": "0s"}), tmp_path) as running:
        await running.told("pool.became_empty")
        assert running.daemon.is_ready() == (False, {"usable": [], "stopping": False, "backends": 1})
        assert (await running.ask(chat(model="tiny"))).startswith(b"HTTP/1.1 503 ")
        assert (await running.ask(request("GET", "/readyz"), admin=True)).startswith(b"HTTP/1.1 503 ")
        engine.listen()
        await running.told("pool.recovered")
        assert running.daemon.is_ready()[0]
        assert (await running.ask(chat(model="tiny"))).startswith(b"HTTP/1.1 200 ")


async def test_failure_seen_by_a_client_is_probed_at_once(engine: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(engine), failover={"hold": "0s"}, health={"interval": "60s", "fall": 1})
    async with serving(wanted, tmp_path) as running:
        engine.refuse()
        await running.ask(chat(model="tiny"))
        await eventually(lambda: running.condition() is Condition.DOWN, "the probe after the failure")


async def test_operator_takes_a_backend_out_and_back(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine), failover={"hold": "0s"}), tmp_path) as running:
        assert running.daemon.set_duty("gpu0", Duty.MAINTENANCE)
        assert not running.daemon.is_ready()[0]
        assert (await running.ask(chat(model="tiny"))).startswith(b"HTTP/1.1 503 ")
        assert running.daemon.set_duty("gpu0", Duty.READY)
        await eventually(lambda: running.daemon.is_ready()[0], "ready again")
        assert (await running.ask(chat(model="tiny"))).startswith(b"HTTP/1.1 200 ")
        assert not running.daemon.set_duty("nobody", Duty.READY)


async def test_reloaded_file_is_in_force_and_a_wrong_one_is_not(engine: ScriptedEngine, tmp_path: Path) -> None:
    path = tmp_path / "understudy.yaml"
    wanted = settings(backend(engine))
    path.write_text(json.dumps(wanted))
    with ScriptedEngine("gpu1") as second:
        async with serving(wanted, tmp_path, path) as running:
            path.write_text(json.dumps(settings(backend(second), backend(engine))))
            assert (await running.daemon.reload()).ok
            await eventually(lambda: running.condition() is Condition.UP, "the new backend up")
            assert b"X-Understudy-Backend: gpu1" in await running.ask(chat(model="tiny"))
            path.write_text("backends: 7")
            assert not (await running.daemon.reload()).ok
            assert [one["name"] for one in running.daemon.status()["backends"]] == ["gpu1", "gpu0"]
            told = running.daemon.status()["reload"]
            assert (told["ok"], bool(told["mistakes"]), told["at"] > 0) == (False, True, True)
            await running.told("config.refused")


async def test_backend_that_moves_begins_anew(engine: ScriptedEngine, tmp_path: Path) -> None:
    path = tmp_path / "understudy.yaml"
    wanted = settings(backend(engine))
    path.write_text(json.dumps(wanted))
    with ScriptedEngine("gpu0") as moved:
        async with serving(wanted, tmp_path, path) as running:
            running.daemon.tally.of("gpu0").ejected_until_s = 1e12
            path.write_text(json.dumps(settings(backend(moved))))
            assert (await running.daemon.reload()).ok
            assert running.daemon.tally.of("gpu0").ejected_until_s == 0.0
            await eventually(lambda: running.condition() is Condition.UP, "up at its new address")


async def test_stopping_daemon_lets_a_running_exchange_finish(engine: ScriptedEngine, tmp_path: Path) -> None:
    gate = Gate()
    engine.then(answer(hold(gate), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")))
    async with serving(settings(backend(engine)), tmp_path) as running:
        asking = asyncio.ensure_future(running.ask(request("POST", "/v1/files", b"x")))
        await eventually(lambda: running.daemon.relay.running, "a running exchange")
        running.daemon.stop()
        await running.told("daemon.stopping")
        assert running.daemon.status()["stopping"]
        assert not running.daemon.is_ready()[0]
        with pytest.raises(ConnectionRefusedError):
            await running.ask(request("GET", "/healthz"))
        gate.open()
        assert (await asking).endswith(b"\r\n\r\nhi")
        await running.told("daemon.stopped")


async def test_daemon_told_twice_stops_at_once(engine: ScriptedEngine, tmp_path: Path) -> None:
    gate = Gate()
    engine.then(answer(hold(gate)))
    async with serving(settings(backend(engine)), tmp_path) as running:
        asking = asyncio.ensure_future(running.ask(chat(model="tiny")))
        await eventually(lambda: running.daemon.relay.running, "a running exchange")
        running.daemon.stop()
        running.daemon.stop()
        assert (await asking).startswith(b"HTTP/1.1 503 ")
        await running.told("daemon.stopped")
        gate.open()


async def test_mistake_of_our_own_is_logged(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine)), tmp_path) as running:
        running.daemon.report(RuntimeError("ours"), "id-1")
        line = await running.told("exchange.failed_internally")
        assert line["request_id"] == "id-1"
        assert "RuntimeError: ours" in line["exception"]


async def test_port_that_is_taken_is_told_with_its_address(engine: ScriptedEngine) -> None:
    with bind("127.0.0.1", 0) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        wanted = load_text(json.dumps(settings(backend(engine), listen=where)), {})
        with pytest.raises(OSError, match=f"cannot listen on {where}"):
            await run(wanted, source=None, env={})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_run_well(
    engine: ScriptedEngine, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    wanted = load_text(json.dumps(settings(backend(engine))), {})
    before = signal.getsignal(number)
    task = asyncio.ensure_future(run(wanted, source=None, env={}))
    await eventually(lambda: task.done() or signal.getsignal(number) is not before, "the signal handler")
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(task, DEADLINE_S) == 0
    asyncio.get_running_loop().remove_signal_handler(number)
    assert "daemon.stopped" in capfd.readouterr().err
