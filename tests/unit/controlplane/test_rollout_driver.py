"""Plays of orders, the file's words, the canary and the guard: what is in force, what is told and what survives a restart."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from support.rollout_play import B1, BLUE, DOWN, GOOD, GREEN, RULES, SECRET, HeldFile, Play, kept_active
from understudy.controlplane.rollout_driver import LOOK_S_MAX
from understudy.core.color import Color, GuardRules, RolloutRules, Stick
from understudy.core.rollout import NO_ROLLOUT, Word
from understudy.core.snapshot import Address, Backend
from understudy.core.switching import NO_COLORS, SwitchOutcome

STEPS = (0.05, 0.25, 1.0)
GUARD = GuardRules(errors=0.02, exchanges_min=50, watch_s=600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rollout.json"


# --- The switch


async def test_switch_is_in_force_at_once_told_and_kept(path: Path) -> None:
    play = Play(path).find()
    outcome = await play.driver.switch(GREEN, is_forced=False)
    assert outcome == SwitchOutcome(play.published.current.rollout)
    assert play.active is GREEN
    fields = {"active": "green", "was": "blue", "word": "command", "forced": False, "reason": ""}
    assert play.told == [("rollout.switched", fields)]
    assert kept_active(path) is GREEN


async def test_switch_is_in_force_before_the_disk_has_it(path: Path) -> None:
    disk = HeldFile(path)
    disk.is_let.set()
    play = Play(path, file=disk).find()
    disk.is_let.clear()
    async with asyncio.TaskGroup() as tasks:
        order = tasks.create_task(play.driver.switch(GREEN, is_forced=False))
        await asyncio.sleep(0)
        assert (play.active, order.done(), play.driver.status()["kept"]) == (GREEN, False, False)
        disk.is_let.set()
    assert order.result().is_kept


async def test_switch_is_one_swap_and_keeps_plan_and_backends(path: Path) -> None:
    play = Play(path).find()
    before = play.published.current
    await play.driver.switch(GREEN, is_forced=False)
    after = play.changes[-1]
    assert (after.generation, after.plan, after.targets) == (before.generation + 1, before.plan, before.targets)


async def test_switch_to_a_color_that_cannot_serve_is_refused_and_told(path: Path) -> None:
    play = Play(path).find(GOOD, "b1").find(DOWN, "g1")
    outcome = await play.driver.switch(GREEN, is_forced=False)
    assert (outcome.refusal, outcome.is_changed) == ("no backend of green is usable: g1 (down, still loading)", False)
    assert play.active is BLUE
    assert play.told == [("rollout.refused", {"to": "green", "word": "command", "reason": outcome.refusal})]
    play.find(GOOD, "g1").find(GOOD, "g1").ejected = {"g1"}
    assert "ejected" in (await play.driver.switch(GREEN, is_forced=False)).refusal
    assert (await play.driver.switch(Color.NONE, is_forced=True)).refusal


async def test_forced_switch_goes_through_and_says_although_what(path: Path) -> None:
    play = Play(path).find(GOOD, "b1").find(replace(GOOD, models=()), "g1")
    await play.driver.switch(GREEN, is_forced=True)
    assert play.active is GREEN
    assert play.told[-1][1]["forced"]
    assert play.driver.status()["reason"] == "forced, although green has no qwen, which blue serves"
    await play.driver.switch(BLUE, is_forced=True)
    assert not play.told[-1][1]["forced"]


async def test_switch_to_the_active_color_changes_and_tells_nothing_even_while_it_is_down(path: Path) -> None:
    play = Play(path)
    outcome = await play.driver.switch(BLUE, is_forced=False)
    assert (outcome.refusal, outcome.is_changed, outcome.is_kept, play.told) == ("", False, True, [])


@pytest.mark.parametrize("is_forced", [True, False])
async def test_nothing_can_be_ordered_without_colors(path: Path, is_forced: bool) -> None:
    play = Play(path, RolloutRules()).find()
    outcomes = [
        await play.driver.switch(GREEN, is_forced=is_forced),
        await play.driver.roll_back(takes_sessions=is_forced),
        await play.driver.set_canary(STEPS),
        await play.driver.set_canary(()),
    ]
    assert {outcome.refusal for outcome in outcomes} == {NO_COLORS}
    assert play.published.current.rollout is NO_ROLLOUT
    assert kept_active(path) is None


async def test_switch_that_cannot_be_kept_is_in_force_and_says_so() -> None:
    play = Play(None).find()
    outcome = await play.driver.switch(GREEN, is_forced=False)
    assert (play.active, outcome.is_kept, play.driver.status()["kept"]) == (GREEN, False, False)
    assert play.events() == ["state.not_kept", "rollout.switched", "state.not_kept"]


# --- The way back


async def test_rollback_takes_back_a_switch_and_the_sessions_when_they_are_asked_for(path: Path) -> None:
    play = Play(path).find()
    await play.driver.switch(GREEN, is_forced=False)
    rollout = (await play.driver.roll_back(takes_sessions=True)).rollout
    assert (play.active, rollout.green_recalled_unix_s) == (BLUE, play.unix_s)
    fields = {"active": "blue", "was": "green", "share": 1.0, "word": "command", "reason": "", "sessions": True}
    assert play.told[1:] == [("rollout.rolled_back", fields)]


async def test_rollback_without_anything_to_take_back_is_refused(path: Path) -> None:
    play = Play(path).find()
    assert "nothing to take back" in (await play.driver.roll_back(takes_sessions=False)).refusal
    await play.driver.switch(GREEN, is_forced=False)
    await play.driver.roll_back(takes_sessions=False)
    assert "nothing to take back" in (await play.driver.roll_back(takes_sessions=False)).refusal
    assert play.active is BLUE


async def test_rollback_to_a_color_that_is_gone_is_refused_and_one_that_lacks_a_model_is_not(path: Path) -> None:
    play = Play(path).find()
    await play.driver.switch(GREEN, is_forced=False)
    play.find(DOWN, "b1")
    assert "forced switch" in (await play.driver.roll_back(takes_sessions=False)).refusal
    play.find(replace(GOOD, models=()), "b1").find(replace(GOOD, models=()), "b1")
    assert not (await play.driver.roll_back(takes_sessions=False)).refusal
    assert play.active is BLUE


async def test_rollback_of_a_canary_ends_it_even_where_the_active_color_is_down(path: Path) -> None:
    play = Play(path).find()
    await play.driver.set_canary(STEPS)
    play.find(DOWN, "b1")
    assert not (await play.driver.roll_back(takes_sessions=False)).refusal
    assert (play.active, play.share) == (BLUE, 0.0)
    assert (play.told[-1][0], play.told[-1][1]["was"], play.told[-1][1]["share"]) == ("rollout.rolled_back", "green", 0.05)


# --- The file


async def test_file_s_new_word_is_in_force_with_its_plan_in_one_swap_told_and_kept(path: Path) -> None:
    play = Play(path).find()
    play.changes.clear()
    assert play.reload(replace(RULES, active=GREEN)) == ""
    assert [(one.plan.rollout.active, one.rollout.active) for one in play.changes] == [(GREEN, GREEN)]
    assert [(event, fields["word"]) for event, fields in play.told] == [("rollout.switched", "file")]
    assert await play.driver.settle()
    assert Play(path, replace(RULES, active=GREEN)).active is GREEN


def test_file_that_flips_to_a_color_that_cannot_serve_is_refused_and_may_say_it_again(path: Path) -> None:
    play = Play(path).find(GOOD, "b1")
    assert play.reload(replace(RULES, active=GREEN)) == "no backend of green is usable: g1 (unknown, not probed yet)"
    assert play.active is BLUE


async def test_file_that_brings_a_backend_and_flips_to_it_is_refused_until_it_is_probed(path: Path) -> None:
    play = Play(path).find()
    g2 = Backend("g2", Address("http", "g2", 8000), color=GREEN)
    assert "g2 (unknown, not probed yet)" in play.reload(replace(RULES, active=GREEN), B1, g2)
    assert play.reload(RULES, B1, g2) == ""
    play.find(GOOD, "g2")
    assert play.reload(replace(RULES, active=GREEN), B1, g2) == ""
    assert play.active is GREEN
    assert await play.driver.settle()


async def test_reload_that_says_nothing_new_of_colors_leaves_an_order_alone(path: Path) -> None:
    play = Play(path).find()
    await play.driver.switch(GREEN, is_forced=False)
    assert play.reload(replace(RULES, every_s=5.0)) == ""
    assert (play.active, play.events()) == (GREEN, ["rollout.switched"])


async def test_file_begins_and_ends_a_canary(path: Path) -> None:
    play = Play(path).find()
    play.reload(replace(RULES, shares=STEPS))
    assert play.share == 0.05
    play.reload(RULES)
    assert play.share == 0.0
    step = {"color": "green", "share": 0.05, "step": 1, "steps": 3, "word": "file"}
    assert play.told == [("rollout.stepped", step), ("rollout.canary_ended", step)]
    assert await play.driver.settle()


async def test_colors_that_come_with_a_reload_begin_as_at_a_start(path: Path) -> None:
    play = Play(path, RolloutRules()).find(GOOD, "b1")
    assert play.reload(replace(RULES, active=GREEN)) == ""
    assert (play.active, play.driver.status()["previous"]) == (GREEN, "none")
    await play.driver.switch(BLUE, is_forced=False)
    assert play.reload(RolloutRules()) == ""
    assert play.reload(replace(RULES, active=GREEN)) == ""
    assert (play.active, play.driver.status()["word"]) == (BLUE, "command")
    assert await play.driver.settle()
    again = Play(path, RolloutRules()).find()
    again.reload(replace(RULES, active=GREEN))
    assert (again.active, again.driver.cookie_secret, again.driver.status()["kept"]) == (BLUE, SECRET, True)


# --- The start


async def test_order_survives_a_restart_and_the_file_s_later_word_wins_over_it(path: Path) -> None:
    play = Play(path).find()
    await play.driver.switch(GREEN, is_forced=False)
    again = Play(path, now_s=5000.0)
    assert (again.active, again.driver.status()["word"], again.driver.status()["kept"], again.told) == (
        GREEN,
        "command",
        True,
        [],
    )
    play.reload(replace(RULES, active=GREEN))
    await play.driver.settle()
    last = Play(path, RULES)
    assert (last.active, last.driver.status()["word"]) == (BLUE, "file")
    assert last.events() == ["rollout.switched"]


async def test_restart_amid_a_canary_goes_on_at_its_step_and_with_its_time(path: Path) -> None:
    rules = replace(RULES, shares=STEPS)
    play = Play(path, rules).find()
    play.pass_s(60 + 40)
    assert play.share == 0.25
    assert await play.driver.settle()
    again = Play(path, rules, now_s=1105.0).find()
    assert (again.share, again.driver.status()["canary"]["next_step_in_s"]) == (0.25, 15.0)
    again.pass_s(15)
    assert (again.active, again.driver.status()["word"]) == (GREEN, "canary")
    assert await again.driver.settle()


async def test_secret_of_cookies_is_made_once_and_the_file_s_goes_first(path: Path) -> None:
    assert Play(path).driver.cookie_secret == SECRET
    again = Play(path, replace(RULES, cookie_key="mine", stick=Stick.COOKIE))
    assert again.driver.cookie_secret == "mine"
    again.reload(RULES)
    assert again.driver.cookie_secret == SECRET


def test_state_that_cannot_be_read_is_told_put_aside_and_the_file_counts(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"torn")
    play = Play(path, replace(RULES, active=GREEN))
    assert (play.active, play.events()) == (GREEN, ["state.unreadable"])
    assert path.with_name("rollout.json.corrupt").read_bytes() == b"torn"


# --- The canary


async def test_canary_by_command_takes_its_steps_by_time_and_ends_as_a_switch(path: Path) -> None:
    play = Play(path).find()
    assert (await play.driver.set_canary(STEPS)).is_kept
    play.pass_s(59.5)
    assert play.share == 0.05
    play.pass_s(0.5)
    assert play.share == 0.25
    play.pass_s(60)
    assert (play.active, play.driver.status()["word"], play.driver.status()["canary"]) == (GREEN, "canary", None)
    assert play.events() == ["rollout.stepped", "rollout.stepped", "rollout.switched"]
    assert play.told[1][1] == {"color": "green", "share": 0.25, "step": 2, "steps": 3, "word": "canary"}
    assert await play.driver.settle()
    assert kept_active(path) is GREEN


async def test_canary_of_the_file_begins_again_when_it_is_asked_for(path: Path) -> None:
    play = Play(path, replace(RULES, shares=STEPS)).find()
    play.pass_s(60)
    outcome = await play.driver.set_canary(None)
    assert (outcome.rollout.share, outcome.rollout.canary_word) == (0.05, Word.COMMAND)
    await play.driver.set_canary(())
    assert (play.share, play.events()[-1]) == (0.0, "rollout.canary_ended")
    assert not (await play.driver.set_canary(())).is_changed


async def test_canary_without_steps_and_one_on_a_color_that_cannot_serve_are_refused(path: Path) -> None:
    play = Play(path).find(GOOD, "b1")
    assert "set rollout.canary" in (await play.driver.set_canary(None)).refusal
    assert "not probed yet" in (await play.driver.set_canary(STEPS)).refusal
    assert play.share == 0.0


async def test_step_onto_a_color_that_cannot_serve_is_held_told_once_and_taken_when_it_can(path: Path) -> None:
    play = Play(path).find()
    await play.driver.set_canary(STEPS)
    play.find(DOWN, "g1")
    play.pass_s(90)
    assert play.share == 0.05
    assert play.events() == ["rollout.stepped", "rollout.refused"]
    assert "still loading" in play.driver.status()["canary"]["waits_for"]
    play.find(GOOD, "g1").find(GOOD, "g1")
    play.pass_s(0.5)
    assert play.share == 0.25
    assert await play.driver.settle()


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0], ids=["back", "on"])
async def test_clock_that_jumps_costs_one_interval_or_one_step_at_most(path: Path, jump_s: float) -> None:
    play = Play(path).find()
    await play.driver.set_canary((0.1, 0.2, 0.3, 0.4))
    play.pass_s(30)
    play.unix_s += jump_s
    play.pass_s(0.5)
    assert play.share == (0.1 if jump_s < 0 else 0.2)
    play.pass_s(60)
    assert play.share == (0.2 if jump_s < 0 else 0.3)
    assert await play.driver.settle()


# --- The guard


async def test_step_waits_until_the_guard_has_seen_enough_and_holds(path: Path) -> None:
    play = Play(path, replace(RULES, guard=GUARD)).find()
    await play.driver.set_canary(STEPS)
    play.pass_s(120)
    assert play.share == 0.05
    assert "the guard: 0 of 50 exchanges at green" in play.driver.status()["canary"]["waits_for"]
    play.answer(BLUE, 200)
    play.answer(GREEN, 60)
    play.pass_s(LOOK_S_MAX)
    assert play.share == 0.25
    status = play.driver.status()
    assert (status["guard"]["watching"], status["canary"]["waits_for"]) == ("green", "time")
    assert await play.driver.settle()


async def test_broken_canary_is_rolled_back_once_with_the_numbers_and_its_sessions(path: Path) -> None:
    play = Play(path, replace(RULES, guard=GUARD)).find()
    await play.driver.set_canary(STEPS)
    play.answer(BLUE, 500)
    play.answer(GREEN, 60, failures=40)
    play.pass_s(120)
    assert (play.active, play.share) == (BLUE, 0.0)
    assert play.events() == ["rollout.stepped", "rollout.rolled_back"]
    fields = play.told[-1][1]
    assert (fields["active"], fields["was"], fields["word"], fields["sessions"]) == ("blue", "green", "guard", True)
    assert "errors 40.0% of 100 at green against 0.0% of 500 at blue" in str(fields["reason"])
    assert isinstance(fields["figures"], dict)
    assert fields["figures"]["candidate"]["exchanges"] == 100
    assert play.published.current.rollout.green_recalled_unix_s > 0
    assert (play.driver.status()["guard"], play.driver.status()["reason"]) == (None, fields["reason"])
    assert await play.driver.settle()


async def test_switch_is_judged_by_what_the_old_color_did_before_and_rolled_back_without_its_sessions(path: Path) -> None:
    play = Play(path, replace(RULES, guard=replace(GUARD, takes_sessions=False))).find()
    play.answer(BLUE, 500)
    await play.driver.switch(GREEN, is_forced=False)
    play.pass_s(400)
    play.answer(GREEN, 60, failures=40)
    play.pass_s(LOOK_S_MAX)
    assert (play.active, play.driver.status()["word"], play.told[-1][1]["sessions"]) == (BLUE, "guard", False)
    play.answer(GREEN, 0, failures=500)
    play.pass_s(60)
    assert play.events() == ["rollout.switched", "rollout.rolled_back"]
    assert await play.driver.settle()


async def test_color_that_was_mended_is_not_judged_by_what_it_did_before(path: Path) -> None:
    play = Play(path, replace(RULES, guard=GUARD)).find()
    play.answer(BLUE, 500)
    await play.driver.set_canary(STEPS)
    play.answer(GREEN, 60, failures=40)
    play.pass_s(LOOK_S_MAX)
    assert play.share == 0.0
    await play.driver.set_canary(STEPS)
    play.pass_s(LOOK_S_MAX)
    assert play.share == 0.05
    await play.driver.switch(GREEN, is_forced=False)
    play.pass_s(LOOK_S_MAX)
    assert play.active is GREEN


async def test_guard_does_not_go_back_to_a_color_that_is_down_until_it_is_up(path: Path) -> None:
    play = Play(path, replace(RULES, guard=GUARD)).find()
    play.answer(BLUE, 500)
    await play.driver.switch(GREEN, is_forced=False)
    play.find(DOWN, "b1")
    play.answer(GREEN, 60, failures=40)
    play.pass_s(4 * LOOK_S_MAX)
    assert (play.active, play.driver.status()["guard"]["verdict"]) == (GREEN, "broken")
    assert play.events() == ["rollout.switched", "rollout.refused"]
    play.find(GOOD, "b1").find(GOOD, "b1")
    play.pass_s(LOOK_S_MAX)
    assert play.active is BLUE
    assert await play.driver.settle()
