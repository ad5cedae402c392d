"""Backends whose nature is known, under traffic as it is: noise, swings of load, prompts of every size.

One that stays as it is must never be found slow, one that falls to a fifth must be found out soon. Each play is the same for the
same seed. Times are virtual; a day of traffic takes a second.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest

from understudy.core.degradation import Degradation, Grade
from understudy.core.usual_pace import Measured

ANSWERS_TO_KNOW_IT = 1500
FALL = 0.2


@dataclass(frozen=True)
class Machine:
    """How fast it is: bytes a second for one stream alone, how that falls with the streams beside it and with the prompt.

    `sharing` 1.0: n streams get an nth each; 0.0: they do not notice each other. `is_queueing`: one after the other, as Ollama.
    """

    speed: float = 200.0
    sharing: float = 0.6
    prefill_bytes_s: float = 8000.0
    first_s: float = 0.15
    is_queueing: bool = False
    load_max: int = 8
    prompt_bytes: float = 1500.0
    prompt_sigma: float = 1.2
    speed_sigma: float = 0.25
    first_sigma: float = 0.6
    gap_s: float = 3.0
    cached_share: float = 0.4


MACHINES = {
    "llama.cpp with slots": Machine(),
    "vllm": Machine(speed=400.0, sharing=0.15, prefill_bytes_s=60_000.0, first_s=0.05, gap_s=0.4),
    "ollama on a small board": Machine(
        speed=30.0, sharing=0.0, prefill_bytes_s=400.0, first_s=0.5, is_queueing=True, load_max=3, gap_s=40.0
    ),
    "alone": Machine(load_max=1, gap_s=15.0),
    "noisy": Machine(speed_sigma=0.4, first_sigma=0.9),
}


def answers(machine: Machine, random: Random, count: int, start_s: float = 0.0) -> Iterator[tuple[Measured, float]]:
    """One answer after the other, and when it ended. The load walks up and down; a prompt may be in the engine's cache."""
    now_s, load = start_s, 1
    for _ in range(count):
        now_s += random.expovariate(1.0 / machine.gap_s)
        load = min(machine.load_max, max(1, load + random.choice((-1, -1, 0, 0, 1, 1))))
        prompt_bytes = int(random.lognormvariate(math.log(machine.prompt_bytes), machine.prompt_sigma)) + 100
        writing = load * random.uniform(0.85, 1.15) if load > 1 else 1.0
        # Attention takes its time with a long context.
        speed = machine.speed * writing**-machine.sharing / (1.0 + prompt_bytes / 60_000.0)
        new_bytes = prompt_bytes * (0.1 if random.random() < machine.cached_share else 1.0)
        first_s = machine.first_s + new_bytes / machine.prefill_bytes_s
        first_s *= load**machine.sharing
        if machine.is_queueing:
            first_s += (load - 1) * random.expovariate(1.0 / 20.0)
        yield (
            Measured(
                "m",
                prompt_bytes,
                first_s * random.lognormvariate(0.0, machine.first_sigma),
                speed * random.lognormvariate(0.0, machine.speed_sigma),
                waiting_load=float(load),
                writing_load=writing,
                writers=writing,
            ),
            now_s,
        )


def slowed(one: Measured, share: float) -> Measured:
    """The same answer of a machine that has fallen to a share of itself."""
    return replace(one, speed=one.speed * share, first_content_s=one.first_content_s / share)


def known(machine: Machine, seed: int) -> tuple[Degradation, Random, float]:
    """A backend whose usual pace has been learnt."""
    random, degradation, now_s = Random(seed), Degradation(), 0.0
    for one, now_s in answers(machine, random, ANSWERS_TO_KNOW_IT):
        degradation.add(one, now_s)
        degradation.look(now_s)
    return degradation, random, now_s


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_machine_that_stays_as_it_is_is_never_found_degraded(machine: Machine) -> None:
    suspicious = total = 0
    for seed in range(8):
        degradation, random, start_s = known(machine, seed)
        for one, now_s in answers(machine, random, 3000, start_s):
            degradation.add(one, now_s)
            grade = degradation.look(now_s).grade
            assert grade is not Grade.DEGRADED, f"seed {seed}"
            suspicious += grade is not Grade.SOUND
            total += 1
    assert suspicious / total < 0.001


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_fall_to_a_fifth_is_found_out_within_thirty_answers(machine: Machine) -> None:
    """Or within a minute, where that many come in seconds: a hiccup holds up many answers at once."""
    for seed in range(15):
        degradation, random, start_s = known(machine, seed)
        count, after_s = until_degraded(degradation, machine, random, start_s, FALL)
        assert count <= 30 or after_s <= 60.0, f"seed {seed}: {count} answers, {after_s:.0f} s"


def until_degraded(degradation: Degradation, machine: Machine, random: Random, start_s: float, share: float) -> tuple[int, float]:
    """Let the machine fall to a share of itself; returns after how many answers and seconds that is found out."""
    for count, (one, now_s) in enumerate(answers(machine, random, 300, start_s), 1):
        degradation.add(slowed(one, share), now_s)
        if degradation.look(now_s).grade is Grade.DEGRADED:
            return count, now_s - start_s
    return 301, math.inf


CHANGES = {
    "ten times the prompts": {"prompt_bytes": 15_000.0},
    "no prompt is in the cache any more": {"cached_share": 0.0},
    "twice the streams at once": {"load_max": 16},
    "streams one at a time": {"load_max": 1},
    "far more traffic": {"gap_s": 0.05},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_other_work_is_no_degradation(machine: Machine, change: dict[str, float]) -> None:
    for seed in range(3):
        degradation, random, start_s = known(replace(machine, cached_share=0.9), seed)
        for one, now_s in answers(replace(machine, **{"cached_share": 0.9, **change}), random, 1000, start_s):  # type: ignore[arg-type]  # load_max is whole
            degradation.add(one, now_s)
            assert degradation.look(now_s).grade is not Grade.DEGRADED, f"seed {seed}"


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_trial_tells_one_that_has_recovered_from_one_that_has_not(machine: Machine) -> None:
    for seed in range(8):
        for share, grade in ((FALL, Grade.DEGRADED), (1.0, Grade.SOUND)):
            degradation, random, start_s = known(machine, seed)
            until_degraded(degradation, machine, random, start_s, FALL)
            start_s += 10_000.0
            degradation.begin_trial(start_s)
            for one, now_s in answers(machine, random, 30, start_s):
                degradation.add(slowed(one, share), now_s)
                degradation.look(now_s)
                if not degradation.is_on_trial:
                    break
            assert degradation.grade is grade, f"seed {seed}"
