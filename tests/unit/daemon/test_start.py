"""Plays of a run from the addresses to the signal that ends it."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator

import pytest

from support.collector import spared_collector
from support.daemon import backend, settings
from support.running import DEADLINE_S, eventually
from support.scripted import ScriptedEngine
from understudy.config.load import load_text
from understudy.daemon.start import run
from understudy.dataplane.listener import bind

collector = spared_collector


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("gpu0") as one:
        yield one


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
