"""Plays of what survives the daemon: counts by the wall clock, and what was given up."""

from dataclasses import replace

import pytest

from support.restart_play import RULES, Course, given_up
from understudy.core.health import Seen
from understudy.core.restart import PROVE_SELDOM_S, Command, Phase, recent
from understudy.core.restart_kept import Kept, kept, remembered


def test_what_was_counted_survives_the_daemon_by_the_wall_clock() -> None:
    play = Course().fall().fail_once()
    # It began half a second ago.
    written = kept(play.restart, RULES, play.now_s, 1.8e9)
    # Ten minutes later, in another process with another loop time.
    after = remembered(written, 7.0, 1.8e9 + 600.0)
    (at_s,) = recent(after, RULES, 7.0)
    assert 7.0 - at_s == pytest.approx(600.5)
    assert recent(after, RULES, 7.0 + RULES.window_s) == ()


def test_wall_clock_that_was_set_back_makes_old_restarts_new_ones() -> None:
    """A machine without a battery begins in the past: better a pause too long than a storm."""
    after = remembered(Kept((1.8e9, 1.8e9 - 60.0)), 7.0, 0.0)
    assert after.begun_at_s == (7.0, 7.0)


def test_given_up_backend_stays_so_across_the_daemon_and_is_told_once_more_where_it_still_fails() -> None:
    """Nobody knows whether what was told before was heard, and this daemon's log is to say why nothing is restarted."""
    play = given_up()
    play.restart = remembered(kept(play.restart, RULES, play.now_s, 1.8e9), play.now_s, 1.8e9 + 5.0)
    assert play.probe(*[Seen.BAD] * 1000).did == [Command.TAKE_OUT, Command.GIVE_UP]
    assert (play.phase, play.restart.reason) == (Phase.GAVE_UP, "saw bad")


def given_up_before() -> Course:
    """A backend that was given up and got nothing when the daemon before this one ended."""
    play = given_up()
    written = kept(play.restart, RULES, play.now_s, 1.8e9)
    assert written.is_out
    play.restart = remembered(written, play.now_s, 1.8e9 + 5.0)
    return play


def test_given_up_backend_that_was_out_and_gives_a_token_to_the_next_daemon_gets_exchanges_and_is_told_to_be_well() -> None:
    play = given_up_before()
    assert (play.restart.is_out, play.restart.reason) == (True, "given up before the daemon began")
    assert play.probe(Seen.GOOD, Seen.GOOD).take_did() == [Command.PROVE]
    assert play.pass_s(30.0).did == []
    assert play.give_token().take_did() == [Command.RECOVER]
    assert (play.phase, play.restart.is_out, play.restart.reason) == (Phase.GAVE_UP, False, "")
    assert not kept(play.restart, RULES, play.now_s, 1.8e9).is_out


def test_given_up_backend_that_was_out_and_gives_the_next_daemon_no_token_is_told_of_once_and_asked_again() -> None:
    play = given_up_before().probe(Seen.GOOD, Seen.GOOD).give_token("no token within 3s").pass_s(1.0)
    assert play.take_did() == [Command.PROVE, Command.TAKE_OUT, Command.GIVE_UP]
    assert play.restart.reason == "it answers its health check and generates nothing: no token within 3s"
    assert play.pass_s(PROVE_SELDOM_S).take_did() == [Command.PROVE]
    assert play.give_token("no token within 3s").probe(*[Seen.BAD] * 1000).did == []
    assert play.probe(Seen.GOOD, Seen.GOOD).give_token().take_did() == [Command.PROVE, Command.RECOVER]


def test_given_up_backend_that_kept_its_exchanges_begins_with_them() -> None:
    play = Course(replace(RULES, is_degraded_enough=True, times_max=0)).be(is_degraded=True).pass_s(1.0)
    written = kept(play.restart, RULES, play.now_s, 1.8e9)
    after = remembered(written, play.now_s, 1.8e9)
    assert (written.has_given_up, written.is_out, after.phase, after.is_out) == (True, False, Phase.GAVE_UP, False)


def test_backend_that_is_out_while_its_restart_goes_on_begins_with_exchanges() -> None:
    """The next daemon knows nothing of that restart, and finds out by itself."""
    play = Course().fall()
    assert (play.restart.is_out, kept(play.restart, RULES, play.now_s, 1.8e9).is_out) == (True, False)


def test_given_up_backend_that_is_well_when_the_daemon_begins_is_told_of_only_when_it_fails_again() -> None:
    play = Course()
    play.restart = remembered(Kept((1.8e9,) * 3, has_given_up=True), play.now_s, 1.8e9)
    assert play.pass_s(60.0).did == []
    assert play.fall().did == [Command.TAKE_OUT, Command.GIVE_UP]


def test_given_up_backend_that_is_slow_when_the_daemon_begins_is_told_of_once_and_keeps_its_exchanges() -> None:
    rules = replace(RULES, is_degraded_enough=True)
    play = Course(rules).be(is_degraded=True)
    play.restart = remembered(Kept((1.8e9,) * 3, has_given_up=True), play.now_s, 1.8e9)
    assert play.pass_s(60.0).did == [Command.GIVE_UP]
    assert not play.restart.is_out
