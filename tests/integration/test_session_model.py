"""Real daemons are held against a model of their conversations, step by step, while much befalls them: support.session_play.

A play that fails tells its seed. `PYTHONPATH=tests python -m support.session_play --first SEED --seeds 1` plays it again by hand,
or many more seeds; with `--redis` in Redis.
"""

from pathlib import Path

import pytest

from support.redis_server import RedisServer
from support.session_play import SETTINGS, STEPS, play_seed

STEPS_MAX = 60


@pytest.mark.parametrize("seed", range(len(SETTINGS)))
def test_whatever_is_said_and_whatever_breaks_engines_and_store_have_what_the_rule_says(tmp_path: Path, seed: int) -> None:
    play_seed(seed, STEPS_MAX, tmp_path)


def test_the_rule_holds_in_redis_too(tmp_path: Path) -> None:
    with RedisServer() as server:
        play_seed(2, STEPS_MAX, tmp_path, server.url)


def test_every_mishap_befalls_some_play(tmp_path: Path) -> None:
    """Two daemons, three engines, few messages."""
    play = play_seed(9, 0, tmp_path, has_all=True)
    assert set(play.counts) >= {step.__name__ for step in STEPS}
