"""Seeded plays of the whole data plane: hundreds of faults in seconds, each play the same for the same seed.

`UNDERSTUDY_SEED=n` runs that seed alone; `UNDERSTUDY_SEEDS=n` runs the first n.
"""

import os
import time
from collections import Counter
from random import Random

import pytest

from simulation.engine import Call, Engine
from simulation.faults import Fault, Step
from simulation.scenario import make_script, play, run_seed
from simulation.stage import Stage
from simulation.virtual_loop import VirtualLoop, run_virtual
from understudy.core.record import ExchangeRecord
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind

SEEDS = 200
ONLY = os.environ.get("UNDERSTUDY_SEED")


@pytest.mark.parametrize("seed", [int(ONLY)] if ONLY else range(int(os.environ.get("UNDERSTUDY_SEEDS", SEEDS))))
def test_whatever_fails_the_invariants_hold(seed: int) -> None:
    wrong = run_seed(seed)
    assert not wrong, "\n".join([f"rerun with UNDERSTUDY_SEED={seed}", *wrong])


def _told_by(seed: int) -> list[str]:
    """Return everything that happened in a play, in order: the instant of every turn of the loop."""
    told: list[str] = []
    loop = VirtualLoop(1000.0)

    def on_turn() -> None:
        told.append(f"{loop.time():.9f}")

    loop.at_turns(on_turn)
    told += run_virtual(loop, play(loop, make_script(seed)))
    return told


def test_one_seed_is_one_play() -> None:
    """Without this a failure could not be run again."""
    assert _told_by(5) == _told_by(5)
    assert _told_by(5) != _told_by(6)


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forth and back at every look: all deadlines are on the loop's time."""
    calm = _told_by(9)
    wall, dice = time.time, Random(9)
    monkeypatch.setattr(time, "time", lambda: wall() + dice.uniform(-3600.0, 3600.0))
    assert _told_by(9) == calm


def test_the_plays_reach_every_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that no seed causes is a fault that nobody tests."""
    seen: set[Fault] = set()
    begin = Engine.begin

    def note(engine: Engine, tag: str, path: str, body: bytes) -> tuple[Call, list[Step]]:
        call, steps = begin(engine, tag, path, body)
        seen.add(call.behaviour.fault)
        return call, steps

    monkeypatch.setattr(Engine, "begin", note)
    finished = Stage.finished
    refusals: set[Refusal | None] = set()
    seams: Counter[str] = Counter()

    def note_record(stage: Stage, record: ExchangeRecord) -> None:
        finished(stage, record)
        refusals.add(record.not_resumed)
        seams[f"{len(record.resumed_on)} seams"] += 1
        seams[f"a hedge {'won' if any(one.failure is FailureKind.HEDGE_LOST for one in record.attempts) else ''}"] += 1

    monkeypatch.setattr(Stage, "finished", note_record)
    for seed in range(200):
        run_seed(seed)
    assert seen == set(Fault)
    assert seams["1 seams"] > 20
    assert seams["2 seams"] > 0
    assert seams["a hedge won"] > 0
    common = {Refusal.TURNED_OFF, Refusal.DECLINED, Refusal.CASE, Refusal.NO_MEANS, Refusal.NO_BACKEND, Refusal.BARREN}
    assert common <= refusals
