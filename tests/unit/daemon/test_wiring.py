"""Plays of the whole daemon in this process: wired, reloaded, told what to do, and stopped in order."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.collector import spared_collector
from support.daemon import backend, settings
from support.running import eventually, serving
from support.scripted import ScriptedEngine
from support.stage import chat, request
from support.steps import Gate, answer, hold, send
from understudy.admin.openapi import document
from understudy.core.snapshot import Condition, Duty

collector = spared_collector


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as one:
        yield one


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


async def test_backend_that_goes_in_the_middle_of_its_restart_leaves_no_series(engine: ScriptedEngine, tmp_path: Path) -> None:
    path = tmp_path / "understudy.yaml"
    with ScriptedEngine("gpu1") as second:
        wanted = settings(backend(engine), backend(second, restart={"command": ["sleep", "60"]}))
        path.write_text(json.dumps(wanted))
        async with serving(wanted, tmp_path, path, {"XDG_STATE_HOME": str(tmp_path)}) as running:
            assert await running.daemon.restart_backend("gpu1") == ""
            await running.told("restart.started")
            path.write_text(json.dumps(settings(backend(engine))))
            assert (await running.daemon.reload()).ok
            await running.told("restart.failed")
            assert b'understudy_restarts_total{backend="gpu1"' not in running.daemon.metrics()


async def test_given_up_backend_is_well_when_it_is_at_its_pace_again(engine: ScriptedEngine, tmp_path: Path) -> None:
    restart = {"command": ["true"], "degraded": True, "max": "1 per 1h"}
    wanted = settings(backend(engine, restart=restart))
    async with serving(wanted, tmp_path, env={"XDG_STATE_HOME": str(tmp_path)}) as running:
        for event in ("restart.succeeded", "restart.gave_up"):
            running.daemon.publisher.set_upkeep("gpu0", is_degraded=True)
            await running.told(event)
        running.daemon.publisher.set_upkeep("gpu0", is_degraded=False)
        running.daemon.tell("backend.recovered_pace", {"backend": "gpu0", "lasted_s": 1.0})
        assert (await running.told("restart.recovered"))["first_content_s"] is None


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
