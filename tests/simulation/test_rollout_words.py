"""Orders, the file's words, rollbacks and restarts in any order: the later word wins, is kept, and the status tells whose."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from support.rollout_play import BLUE, RULES, Play, kept_active


@pytest.mark.parametrize("seed", range(5))
async def test_of_a_hundred_flips_and_rollbacks_by_file_and_by_command_the_later_word_wins(tmp_path: Path, seed: int) -> None:
    path, dice, rules = tmp_path / "rollout.json", Random(seed), RULES
    play = Play(path).find()
    active, word = BLUE, "file"
    for _ in range(100):
        play.pass_s(dice.choice([0.5, 1.0]))
        by = dice.choice(["file", "command", "rollback", "restart"])
        if by == "file":
            rules = replace(rules, active=rules.active.other)
            assert play.reload(rules) == ""
            active, word = rules.active, "file"
        elif by == "command":
            await play.driver.switch(active.other, is_forced=False)
            active, word = active.other, "command"
        elif by == "rollback" and not (await play.driver.roll_back(takes_sessions=dice.random() < 0.5)).refusal:
            active, word = active.other, "command"
        elif by == "restart":
            await play.driver.settle()
            play = Play(path, rules, now_s=play.now_s).find()
        status = play.driver.status()
        assert (play.active, status["active"], status["word"]) == (active, active, word), seed
        assert status["file_active"] == rules.active, seed
        assert await play.driver.settle()
        assert kept_active(path) is active
