"""Engines that become slow while they are asked as before, and such as are only asked otherwise: the load follows from both.

An engine at a fifth of its speed has five times as many answers at once by that alone, and must be found out all the same; one
that is asked more, for more, or by more clients, must not be. Each play is the same for the same seed; times are virtual.
"""

from random import Random

import pytest

from simulation.machine import Asking, Engine, Scene
from understudy.core.degradation import Degradation, Grade

LEARN_S = 300.0
FALL = 0.2

ENGINES = {
    "streams that do not notice each other": Engine(),
    "vllm": Engine(sharing=0.3, slots=32),
    "one that shares itself out": Engine(sharing=1.0, slots=8),
    "llama.cpp with slots": Engine(pieces_s=30.0, sharing=0.7, slots=4, first_s=0.15, prefill_bytes_s=4000.0, is_stalling=True),
    "ollama, one after the other": Engine(pieces_s=30.0, slots=1, first_s=0.3, prefill_bytes_s=2000.0),
}
ASKINGS = {
    "one client": Asking(clients=1),
    "six clients": Asking(clients=6),
    "evenly": Asking(rate_s=0.25, is_even=True),
    "at random": Asking(rate_s=0.25),
}
CHANGES = {
    "far more clients": Asking(clients=30),
    "one client": Asking(clients=1),
    "more often": Asking(rate_s=0.8),
    "far longer prompts": Asking(rate_s=0.25, prompt_bytes=6000.0),
    "prompts of all sizes": Asking(clients=6, prompt_bytes=3000.0, spread=1.2),
    "far longer answers": Asking(rate_s=0.25, pieces=200.0),
}


def learnt(engine: Engine, asking: Asking, seed: int) -> tuple[Scene, Degradation]:
    """A scene that has gone on for a while, and what was learnt of it; in which nothing was ever found."""
    scene, degradation = Scene(engine, asking, Random(seed)), Degradation()
    for one, now_s in scene.answers(LEARN_S):
        degradation.add(one, now_s)
        assert degradation.look(now_s).grade is not Grade.DEGRADED, f"seed {seed}"
    return scene, degradation


def grades(scene: Scene, degradation: Degradation, duration_s: float) -> set[Grade]:
    """Go on; returns what it was found to be meanwhile, until it is degraded."""
    found = set()
    for one, now_s in scene.answers(duration_s):
        degradation.add(one, now_s)
        found.add(degradation.look(now_s).grade)
        if Grade.DEGRADED in found:
            break
    return found


@pytest.mark.parametrize("asking", ASKINGS.values(), ids=ASKINGS)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_fall_to_a_fifth_is_found_out_however_it_is_asked(engine: Engine, asking: Asking) -> None:
    for seed in range(2):
        for prefill in (1.0, FALL):
            scene, degradation = learnt(engine, asking, seed)
            scene.engine = engine.slowed(FALL, prefill)
            assert Grade.DEGRADED in grades(scene, degradation, 400.0), f"seed {seed}, prefill {prefill}"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_one_that_is_only_asked_otherwise_is_well(engine: Engine, change: Asking) -> None:
    for seed, asking in enumerate(ASKINGS.values()):
        scene, degradation = learnt(engine, asking, seed)
        scene.asking = change
        assert Grade.DEGRADED not in grades(scene, degradation, 300.0), f"seed {seed}"


@pytest.mark.parametrize("asking", ASKINGS.values(), ids=ASKINGS)
def test_late_first_contents_alone_are_found_out_where_prompts_are_short(asking: Asking) -> None:
    for name in ("streams that do not notice each other", "one that shares itself out"):
        scene, degradation = learnt(ENGINES[name], asking, 1)
        scene.engine = ENGINES[name].slowed(prefill=0.1)
        assert Grade.DEGRADED in grades(scene, degradation, 400.0), name
