"""What the admin port shows is what the daemon keeps."""

from pathlib import Path

from support.collector import spared_collector
from support.daemon import backend, settings
from support.running import serving
from support.scripted import ScriptedEngine
from support.stage import chat
from understudy.core.snapshot import Duty
from understudy.daemon import view

collector = spared_collector


async def test_status_readiness_and_metrics_tell_the_same(tmp_path: Path) -> None:
    with ScriptedEngine("gpu0") as engine:
        async with serving(settings(backend(engine)), tmp_path) as running:
            await running.ask(chat(model="tiny"))
            status = view.status_of(running.daemon)
            assert (status["ready"], status["rollout"]) == (True, None)
            assert view.readiness_of(running.daemon) == (True, {"usable": ["gpu0"], "stopping": False, "backends": 1})
            assert b'understudy_exchanges_total{backend="gpu0"' in view.metrics_of(running.daemon)
            assert b"understudy_color" not in view.metrics_of(running.daemon)
            running.daemon.set_duty("gpu0", Duty.DRAINING)
            assert not view.readiness_of(running.daemon)[0]


async def test_a_store_and_a_cache_are_told_where_there_are_some(tmp_path: Path) -> None:
    with ScriptedEngine("gpu0") as engine:
        wanted = settings(backend(engine), sessions={"store": f"file:{tmp_path}/kept"}, cache={"size": "1MiB"})
        async with serving(wanted, tmp_path) as running:
            assert "sessions" in view.readiness_of(running.daemon)[1]
            metrics = view.metrics_of(running.daemon)
            assert b"understudy_session_store_up 1.0" in metrics
            assert b"understudy_cache_bytes 0.0" in metrics
