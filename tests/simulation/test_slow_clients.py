"""What a client that does not keep up may not do to others."""

import asyncio
from random import Random

import pytest

from simulation.client import Asked, Client, Habit, Wanted
from simulation.engine import Temper
from simulation.stage import Stage
from simulation.virtual_loop import VirtualLoop, run_virtual
from understudy.core.snapshot import Address, Backend, RoutingPlan, Timeouts

# Its last bytes fill the client's buffer (256 KiB) and end the answer at once.
BIG_BYTES = 280_000


@pytest.mark.parametrize("seed", range(20))
def test_a_connection_that_was_paused_for_one_client_is_read_for_the_next(seed: int) -> None:
    """Else an engine that is well would seem to be silent, and only because somebody else was slow."""
    loop = VirtualLoop(100.0)
    stage, client = run_virtual(loop, _play(loop, seed))
    response = client.answers()[0]
    assert response is not None
    assert response.status == 200
    assert response.is_whole
    assert stage.tally.of("gpu0").failures_total == 0


async def _play(loop: VirtualLoop, seed: int) -> tuple[Stage, Client]:
    plan = RoutingPlan((Backend("gpu0", Address("http", "10.0.0.1", 8000)),), timeouts=Timeouts(first_token_s=2.0))
    temper = Temper(gap_s=0.0, piece_bytes=BIG_BYTES)
    stage = Stage(loop, Random(seed), plan, {"gpu0": temper})
    stage.start()
    await asyncio.sleep(0.5)
    stage.enter([Asked("r1", Wanted.WHOLE)], Habit(stops_reading_after=0, window_bytes=2_000))
    await asyncio.sleep(2.5)
    client = stage.enter([Asked("r2", Wanted.STREAM, is_last=True)])
    await asyncio.sleep(5.0)
    await stage.stop()
    return stage, client
