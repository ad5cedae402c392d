"""Seeded plays of the whole data plane: hundreds of faults in seconds, each play the same for the same seed.

`UNDERSTUDY_SEED=n` runs that seed alone; `UNDERSTUDY_SEEDS=n` runs the first n.
"""

import os

import pytest

from simulation.scenario import run_seed

SEEDS = 160
ONLY = os.environ.get("UNDERSTUDY_SEED")


@pytest.mark.parametrize("seed", [int(ONLY)] if ONLY else range(int(os.environ.get("UNDERSTUDY_SEEDS", SEEDS))))
def test_whatever_fails_the_invariants_hold(seed: int) -> None:
    wrong = run_seed(seed)
    assert not wrong, "\n".join([f"rerun with UNDERSTUDY_SEED={seed}", *wrong])
