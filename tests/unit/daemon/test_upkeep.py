"""Plays of a daemon that keeps its backends well: what is wired when the file asks for it, and what comes of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.collector import spared_collector
from support.daemon import backend, settings
from support.records import attempt, exchange
from support.running import Running, eventually, serving
from support.scripted import ScriptedEngine
from support.stage import chat
from understudy.admin.openapi import document
from understudy.core.alert_writing import Cost
from understudy.errors import FailureKind

collector = spared_collector

RESTART = {"command": [sys.executable, "-c", "pass"], "after": 1, "backoff": "200ms", "ready": "5s"}


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as one:
        yield one


def parts_of(running: Running) -> dict[str, bool]:
    """Return which parts there are."""
    upkeep = running.daemon.upkeep
    names = ("supervisor", "tokens", "degradation", "warmer", "waker", "figures", "objectives", "alerts")
    return {name: getattr(upkeep, name) is not None for name in names}


async def test_without_a_word_of_the_file_there_is_nothing_of_it(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine)), tmp_path) as running:
        assert not any(parts_of(running).values())
        assert running.daemon.relay.gauges == ()
        assert await running.daemon.restart_backend("gpu0") == "the file has no way to restart gpu0; want a restart: under it"
        assert await running.daemon.restart_backend("nobody") is None


async def test_each_part_comes_with_the_file_that_asks_for_it(engine: ScriptedEngine, tmp_path: Path) -> None:
    with ScriptedEngine("gpu1") as other:
        wanted = settings(
            backend(engine, restart=RESTART, warm=["tiny"], metrics_url=f"{engine.url}/metrics"),
            backend(other, wake="aa:bb:cc:dd:ee:ff"),
            slo={"errors": "1%"},
            alerts=[{"url": "json://127.0.0.1:9/"}],
        )
        async with serving(wanted, tmp_path, env={"XDG_STATE_HOME": str(tmp_path)}) as running:
            assert all(parts_of(running).values())
            assert len(running.daemon.relay.gauges) == 1
            status = running.daemon.status()
            schemas = document()["components"]
            jsonschema.validate(status, {"$ref": "#/components/schemas/Status", "components": schemas})
            await eventually(lambda: b"understudy_slo_bound" in running.daemon.metrics(), "a promise in the metrics")


async def test_a_backend_is_restarted_by_an_operators_word_and_proven(engine: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(engine, restart=RESTART))
    async with serving(wanted, tmp_path, env={"XDG_STATE_HOME": str(tmp_path)}) as running:
        assert await running.daemon.restart_backend("gpu0") == ""
        started = await running.told("restart.started")
        assert (started["backend"], started["cause"]) == ("gpu0", "operator")
        succeeded = await running.told("restart.succeeded")
        assert succeeded["backend"] == "gpu0"
        await eventually(lambda: not running.daemon.published.current.targets[0].state.is_restarting, "traffic again")
        assert b"[DONE]" in await running.ask(chat(model="tiny"))


async def test_a_reload_brings_parts_and_lets_restarts_go(engine: ScriptedEngine, tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    plain: dict[str, Any] = settings(backend(engine))
    file.write_text(str(plain))
    async with serving(plain, tmp_path, file, {"XDG_STATE_HOME": str(tmp_path)}) as running:
        file.write_text(str(settings(backend(engine, restart=RESTART))))
        assert (await running.daemon.reload()).ok
        assert parts_of(running)["supervisor"]
        assert running.daemon.status()["backends"][0]["restart"]["phase"]
        file.write_text(str(plain))
        assert (await running.daemon.reload()).ok
        assert running.daemon.status()["backends"][0]["restart"] is None


async def test_what_an_incident_cost_counts_cut_answers_and_no_leaving_clients(engine: ScriptedEngine, tmp_path: Path) -> None:
    async with serving(settings(backend(engine)), tmp_path) as running:
        upkeep = running.daemon.upkeep
        cut = exchange(attempt("gpu0"), attempt("gpu1"), failure=FailureKind.BODY_CUT)
        gone = exchange(attempt("gpu0"), attempt("gpu1"), failure=FailureKind.CLIENT_GONE)
        saved = exchange(attempt("gpu0", FailureKind.REFUSED), attempt("gpu1"))
        for record in (cut, gone, saved, exchange(attempt("gpu0"))):
            upkeep.on_exchange(record)
        assert upkeep._cost() == Cost(failed=1, moved=1)


async def test_a_mistake_of_one_part_ends_no_answer(
    engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(backend(engine, restart=RESTART))
    async with serving(wanted, tmp_path, env={"XDG_STATE_HOME": str(tmp_path)}) as running:
        supervisor = running.daemon.upkeep.supervisor
        assert supervisor is not None

        def break_down() -> None:
            raise RuntimeError("ours")

        monkeypatch.setattr(supervisor, "tick", break_down)
        running.daemon.upkeep.tick()
        assert b"[DONE]" in await running.ask(chat(model="tiny"))
