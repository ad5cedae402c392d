"""Plays of the course of a restart: every turn of the table, the pauses, the bound, the operator's word, the clocks."""

from dataclasses import replace
from itertools import product

import pytest

from support.restart_play import RULES, Course, given_up
from understudy.core.ailment import Cause
from understudy.core.health import Seen
from understudy.core.restart import (
    DRAIN_S_DEFAULT,
    NEXT,
    PROVE_AGAIN_S,
    PROVE_SELDOM_S,
    Command,
    Phase,
    Restart,
    Turn,
    delayed,
    ended,
    found_barren,
    pace_recovered,
    pause_s,
    status_of,
    turned,
)
from understudy.core.snapshot import Duty

BAD, GOOD = Seen.BAD, Seen.GOOD
TAKE_OUT, ACT, PROVE, PUT_BACK = Command.TAKE_OUT, Command.ACT, Command.PROVE, Command.PUT_BACK
FAIL, GIVE_UP, SUCCEED, RECOVER = Command.FAIL, Command.GIVE_UP, Command.SUCCEED, Command.RECOVER
DRAINED = replace(RULES, drain_s=20.0)


def too_slow() -> Course:
    """A backend that is slow, and that no restart is left for."""
    return Course(replace(RULES, is_degraded_enough=True, times_max=0)).be(is_degraded=True).pass_s(1.0)


# --- The table


@pytest.mark.parametrize(("phase", "turn"), list(product(Phase, Turn)))
def test_turn_is_in_the_table_or_raises(phase: Phase, turn: Turn) -> None:
    restart = Restart(phase, is_asking=True, held="gpu1")
    if (phase, turn) not in NEXT:
        with pytest.raises(ValueError, match=f"{phase} cannot {turn}"):
            turned(restart, turn, 9.0)
        return
    after = turned(restart, turn, 9.0)
    assert (after.phase, after.since_at_s, after.is_asking, after.held) == (NEXT[phase, turn], 9.0, False, "")


def test_from_everywhere_there_is_a_way_back_to_watching() -> None:
    reached = {Phase.WATCHING}
    for _ in Phase:
        reached |= {phase for (phase, _), after in NEXT.items() if after in reached}
    assert reached == set(Phase)


# --- The course


def test_backend_that_is_down_is_taken_out_restarted_proven_and_put_back() -> None:
    play = Course().fall()
    assert play.take_did() == [TAKE_OUT, ACT]
    play.act().probe(GOOD)
    assert (play.phase, play.did) == (Phase.PROVING, [])
    play.probe(GOOD)
    assert play.take_did() == [PROVE]
    play.give_token()
    assert (play.take_did(), play.phase, play.restart.is_out) == ([SUCCEED], Phase.WATCHING, False)
    assert play.pass_s(3600.0).did == []


def test_exchanges_are_waited_for_as_long_as_the_file_says() -> None:
    play = Course(DRAINED).say(in_flight=2).fall()
    assert (play.phase, play.take_did()) == (Phase.WAITING_OUT, [TAKE_OUT])
    play.pass_s(10.0).say(in_flight=0).pass_s(0.5)
    assert play.take_did() == [ACT]
    play = Course(DRAINED).say(in_flight=2).fall().pass_s(18.0)
    assert play.phase is Phase.WAITING_OUT
    assert play.pass_s(2.0).phase is Phase.ACTING


@pytest.mark.parametrize("cause", [Cause.OPERATOR, Cause.DEGRADED])
def test_backend_that_works_may_end_its_exchanges_though_the_file_says_no_drain(cause: Cause) -> None:
    play = Course(replace(RULES, is_degraded_enough=True)).say(in_flight=2)
    if cause is Cause.OPERATOR:
        assert play.order() == ""
    else:
        play.be(is_degraded=True).pass_s(0.5)
    assert (play.restart.cause, play.take_did()) == (cause, [TAKE_OUT])
    assert play.pass_s(DRAIN_S_DEFAULT - 1.0).phase is Phase.WAITING_OUT
    assert play.pass_s(1.0).phase is Phase.ACTING


def test_backend_that_is_down_or_silent_is_not_waited_for_where_the_file_says_no_drain() -> None:
    assert Course().say(in_flight=2).fall().take_did() == [TAKE_OUT, ACT]
    silent = Course().say(in_flight=2)
    silent.restart = found_barren(silent.restart, "no token")
    assert silent.pass_s(0.5).take_did() == [TAKE_OUT, ACT]


def test_daemon_that_is_stopping_begins_nothing_and_calls_off_what_has_done_nothing() -> None:
    play = Course().say(is_stopping=True).fall()
    assert (play.did, play.restart.held) == ([], "the daemon, which is stopping")
    paused = Course().fall().fail_once().say(is_stopping=True).pass_s(60.0)
    assert (paused.phase, paused.restart.held) == (Phase.PAUSING, "the daemon, which is stopping")
    waiting = Course(DRAINED).say(in_flight=2).fall().say(is_stopping=True).pass_s(0.5)
    assert (waiting.phase, waiting.did) == (Phase.WATCHING, [TAKE_OUT, PUT_BACK])


def test_backend_that_comes_back_before_anything_was_done_is_not_restarted() -> None:
    play = Course(DRAINED).say(in_flight=1).fall().probe(GOOD, GOOD)
    assert play.take_did() == [TAKE_OUT, PUT_BACK]
    assert (play.phase, play.restart.begun_at_s, play.restart.is_out) == (Phase.WATCHING, (), False)


def test_drain_that_the_operator_orders_calls_off_what_was_not_his() -> None:
    play = Course(DRAINED).say(in_flight=1).fall().be(duty=Duty.DRAINING).pass_s(0.5)
    assert play.take_did() == [TAKE_OUT, PUT_BACK]
    assert play.order() == ""
    assert play.pass_s(20.0).take_did() == [TAKE_OUT, ACT]


def test_good_probe_from_before_the_restart_proves_nothing() -> None:
    """A restart may be quicker than its probes, so that the backend never was down."""
    play = Course().probe(GOOD)
    assert play.order() == ""
    play.act().pass_s(10.0)
    assert play.take_did() == [TAKE_OUT, ACT]
    assert play.probe(GOOD).take_did() == [PROVE]


def test_token_that_does_not_come_is_asked_for_again_until_the_time_is_up() -> None:
    play = Course(replace(RULES, ready_s=20.0)).fall().act().probe(GOOD, GOOD)
    play.give_token("no token within 3s").take_did()
    assert play.pass_s(PROVE_AGAIN_S - 0.5).did == []
    assert play.pass_s(0.5).take_did() == [PROVE]
    play.give_token("no token within 3s").pass_s(20.0)
    assert play.restart.reason == "not ready within 20s: no token within 3s"
    assert FAIL in play.take_did()


def test_token_that_is_still_to_come_when_the_time_is_up_is_what_was_missing() -> None:
    """A proof may load a model first, and takes as long as that does."""
    play = Course(replace(RULES, ready_s=20.0)).fall().act().probe(GOOD, GOOD).pass_s(20.0)
    assert (play.phase, play.restart.reason) == (Phase.PAUSING, "not ready within 20s: no token came in that time")


def test_backend_that_does_not_come_back_in_time_has_failed() -> None:
    play = Course(replace(RULES, ready_s=30.0)).fall().act().probe(*[BAD] * 30)
    assert (play.phase, play.restart.reason) == (Phase.PAUSING, "not ready within 30s: saw bad")
    assert play.take_did() == [TAKE_OUT, ACT, FAIL]


def test_token_that_comes_after_the_time_is_up_is_nobody_s() -> None:
    play = Course(replace(RULES, ready_s=20.0)).fall().act().probe(GOOD, GOOD).pass_s(20.0)
    play.take_did()
    asked = replace(play.restart, is_asking=False)
    play.restart = asked
    assert play.give_token().restart == asked
    assert play.did == []


def test_child_that_ended_is_restarted_at_once_and_fails_at_once_when_it_ends_again() -> None:
    play = Course(replace(DRAINED, backoff_s=5.0)).say(in_flight=3)
    play.restart = ended(play.restart, "it was ended by SIGKILL")
    play.pass_s(0.5)
    assert (play.take_did(), play.restart.cause, play.restart.reason) == (
        [TAKE_OUT, ACT],
        Cause.EXITED,
        "it was ended by SIGKILL",
    )
    # Its own end is part of the means' work.
    assert ended(play.restart, "it was ended by SIGTERM") is play.restart
    play.act()
    play.restart = ended(play.restart, "it ended with exit status 1")
    play.pass_s(0.5)
    assert (play.take_did(), play.phase) == ([FAIL], Phase.PAUSING)
    assert play.restart.reason == "it ended before it was ready: it ended with exit status 1"
    assert play.pass_s(5.0).take_did() == [TAKE_OUT, ACT]


def test_barren_backend_is_restarted_without_more_probes() -> None:
    play = Course(DRAINED).say(in_flight=1).probe(GOOD)
    play.restart = found_barren(play.restart, "no token within 120s")
    play.pass_s(0.5)
    assert (play.phase, play.restart.cause) == (Phase.WAITING_OUT, Cause.SUSPICIOUS)
    # While nobody asks it for anything good probes say nothing.
    assert play.probe(*[GOOD] * 20).phase is Phase.ACTING
    assert found_barren(play.restart, "again") is play.restart


# --- One at a time


def test_one_backend_of_a_color_is_restarted_at_a_time() -> None:
    play = Course().say(peer_restarting="gpu1", peer_down="gpu1").fall()
    assert (play.did, play.restart.held) == ([], "gpu1, which is being restarted")
    assert play.order() == "gpu1 is being restarted, and of one color only one at a time is"
    # That one is still down; this one is, too, so that nothing is lost.
    assert play.say(peer_restarting="").pass_s(0.5).phase is Phase.ACTING


def test_slow_backend_is_not_taken_out_while_another_is_down() -> None:
    play = Course(replace(RULES, is_degraded_enough=True)).say(peer_down="gpu1").be(is_degraded=True).pass_s(60.0)
    assert (play.did, play.restart.held) == ([], "gpu1, which is down")
    play.be(is_degraded=False).pass_s(0.5)
    assert play.restart.held == ""
    assert play.be(is_degraded=True).say(peer_down="").pass_s(0.5).phase is Phase.ACTING


# --- Pauses and the bound


def test_pauses_double_up_to_the_bound_with_a_fifth_of_jitter() -> None:
    assert [pause_s(RULES, times, 0.5) for times in (0, 1, 2, 3, 4, 100_000)] == [10.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert (pause_s(RULES, 2, 0.0), pause_s(RULES, 2, 1.0)) == pytest.approx((16.0, 24.0))


def test_next_restart_waits_for_its_pause() -> None:
    play = Course().fall().fail_once()
    play.take_did()
    assert play.pass_s(9.5).did == []
    assert play.pass_s(0.5).take_did() == [TAKE_OUT, ACT]
    assert play.fail_once().take_did() == [FAIL]
    assert play.pass_s(19.5).did == []
    assert play.pass_s(0.5).phase is Phase.ACTING


def test_next_restart_says_that_the_last_one_failed_and_not_the_first_ones_cause() -> None:
    play = Course().fall().fail_once()
    failure = play.restart.reason
    play.pass_s(10.0)
    assert (play.phase, play.restart.reason) == (Phase.ACTING, f"the last restart failed: {failure}")
    assert play.fail_once().restart.reason == failure


def test_backend_that_proves_itself_in_the_pause_is_put_back_without_another_restart() -> None:
    play = Course().fall().fail_once().probe(GOOD, GOOD)
    assert play.take_did()[-1] is PROVE
    # The pause ends while the token is still to come.
    assert play.pass_s(30.0).did == []
    assert play.give_token().take_did() == [RECOVER]
    assert (play.phase, play.restart.is_out) == (Phase.WATCHING, False)


def test_backend_that_says_it_loads_is_not_restarted_when_its_pause_is_over() -> None:
    play = Course().fall().fail_once().probe(*[Seen.LOADING] * 60)
    assert (play.phase, play.restart.held) == (Phase.PAUSING, "what it says of itself")


def test_backend_that_flaps_is_restarted_ever_more_rarely_and_not_for_ever() -> None:
    play = Course()
    for _ in range(20):
        play.fall().pass_s(60.0)
        if play.phase is Phase.ACTING:
            play.act().probe(GOOD, GOOD).give_token()
        play.probe(GOOD, GOOD)
    did = play.take_did()
    assert (did.count(ACT), did.count(SUCCEED), did.count(GIVE_UP)) == (3, 3, 1)
    # Whatever probes say of it from now on, it gets nothing before it has given a token.
    assert did[did.index(GIVE_UP) - 1] is TAKE_OUT


def test_last_restart_that_fails_gives_up_once() -> None:
    play = Course().fall()
    for _ in range(3):
        play.pass_s(60.0).fail_once()
    assert play.take_did() == [TAKE_OUT, ACT, FAIL, TAKE_OUT, ACT, FAIL, TAKE_OUT, ACT, FAIL, GIVE_UP]
    assert play.probe(*[BAD] * 8000).did == []


def test_given_up_backend_that_gives_a_token_gets_exchanges_but_no_restart() -> None:
    play = given_up().probe(GOOD, GOOD)
    assert play.take_did() == [PROVE]
    play.give_token("no token").pass_s(PROVE_SELDOM_S)
    assert play.take_did() == [PROVE]
    assert play.give_token().take_did() == [RECOVER]
    assert not play.restart.is_out


def test_given_up_backend_that_was_mended_and_fails_again_is_taken_out_and_told_again_and_not_restarted() -> None:
    play = given_up().probe(GOOD, GOOD).give_token().pass_s(60.0)
    play.take_did()
    assert play.fall().pass_s(600.0).take_did() == [TAKE_OUT, GIVE_UP]
    assert (play.phase, play.restart.reason) == (Phase.GAVE_UP, "saw bad")
    assert play.probe(*[BAD] * 100).did == []
    assert play.probe(GOOD, GOOD).give_token().take_did() == [PROVE, RECOVER]


def test_given_up_backend_is_looked_after_again_when_it_was_well_for_the_window() -> None:
    play = given_up().probe(GOOD, GOOD).give_token()
    assert play.pass_s(RULES.window_s - 1.0).phase is Phase.GAVE_UP
    play.pass_s(2.0)
    assert (play.phase, play.restart.begun_at_s) == (Phase.WATCHING, ())
    play.take_did()
    assert play.fall().take_did() == [TAKE_OUT, ACT]


def test_given_up_backend_that_is_still_slow_is_given_up_once_and_not_every_window() -> None:
    play = Course(replace(RULES, is_degraded_enough=True, times_max=0)).be(is_degraded=True).pass_s(3 * RULES.window_s)
    assert (play.phase, play.take_did()) == (Phase.GAVE_UP, [GIVE_UP])
    play.be(is_degraded=False).pass_s(RULES.window_s + 1.0)
    assert (play.phase, play.take_did()) == (Phase.WATCHING, [RECOVER])


def test_slow_backend_that_is_given_up_keeps_its_exchanges_and_is_well_when_it_is_at_its_pace() -> None:
    play = too_slow()
    assert (play.did, play.restart.is_out) == ([GIVE_UP], False)
    play.take_did()
    # A trial, which shows that it is slow still, is no end.
    play.be(is_degraded=False).pass_s(100.0).be(is_degraded=True).pass_s(100.0)
    assert play.did == []
    play.be(is_degraded=False).pass_s(0.5).take(pace_recovered(play.restart)).take(pace_recovered(play.restart))
    assert (play.take_did(), play.phase) == ([RECOVER], Phase.GAVE_UP)
    # It is told again where it fails anew, and restarted no sooner.
    assert play.be(is_degraded=True).pass_s(100.0).take_did() == [GIVE_UP]
    play.be(is_degraded=False).pass_s(0.5).take(pace_recovered(play.restart)).pass_s(RULES.window_s + 1.0)
    assert (play.phase, play.take_did()) == (Phase.WATCHING, [RECOVER])


def test_given_up_backend_that_gives_a_token_and_is_slow_still_is_told_as_that() -> None:
    slow = Course(replace(RULES, is_degraded_enough=True, times_max=1)).be(is_degraded=True).pass_s(0.5).fail_once()
    assert slow.take_did() == [TAKE_OUT, ACT, FAIL, GIVE_UP]
    slow.take(pace_recovered(slow.restart)).probe(GOOD).give_token().pass_s(60.0)
    assert (slow.take_did(), slow.restart.is_out) == ([PROVE, RECOVER, GIVE_UP], False)


def test_slow_backend_that_was_given_up_and_goes_down_is_well_when_it_has_proven_itself() -> None:
    play = too_slow().be(is_degraded=False).probe(BAD, BAD, BAD)
    play.take(pace_recovered(play.restart)).fall()
    assert (play.take_did(), play.restart.cause) == ([GIVE_UP, TAKE_OUT, GIVE_UP], Cause.PROBES)
    play.probe(GOOD, GOOD).give_token().pass_s(RULES.window_s + 1.0)
    assert (play.take_did(), play.phase) == ([PROVE, RECOVER], Phase.WATCHING)


def test_bound_that_a_reload_lowers_holds_for_the_pause_that_runs() -> None:
    play = Course().fall().fail_once()
    play.take_did()
    play.rules = replace(RULES, times_max=1)
    assert play.pass_s(1.0).take_did() == [GIVE_UP]


# --- The operator


def test_operator_s_word_restarts_what_is_up_paused_or_given_up_and_counts_from_then() -> None:
    for play in (Course(), Course().fall().fail_once(), given_up()):
        assert play.order() == ""
        assert (play.phase, play.restart.cause, len(play.restart.begun_at_s)) == (Phase.ACTING, Cause.OPERATOR, 1)
        assert play.order() == "it is being restarted already (acting)"


def test_maintenance_takes_a_backend_out_of_our_hands_and_forgets() -> None:
    play = given_up().be(duty=Duty.MAINTENANCE).pass_s(1.0)
    assert (play.take_did(), play.phase, play.restart.begun_at_s) == ([PUT_BACK], Phase.WATCHING, ())
    assert "in maintenance" in play.order()
    assert play.pass_s(60.0).did == []


def test_maintenance_lets_the_means_end_and_waits_for_no_proof() -> None:
    play = Course().fall().be(duty=Duty.MAINTENANCE).pass_s(5.0)
    assert play.phase is Phase.ACTING
    play.take_did()
    play.act().pass_s(0.5)
    assert (play.take_did(), play.phase, play.restart.is_out) == ([FAIL, PUT_BACK], Phase.WATCHING, False)
    assert play.restart.reason == "put in maintenance before it was proven"


# --- The clocks


def test_daemon_that_was_stopped_gives_back_the_time() -> None:
    play = Course(replace(RULES, ready_s=60.0)).fall().act().pass_s(30.0)
    play.now_s += 500.0
    play.restart = delayed(play.restart, 500.0)
    assert play.pass_s(29.0).phase is Phase.PROVING
    assert play.pass_s(2.0).phase is Phase.PAUSING


def test_status_says_how_it_stands() -> None:
    play = Course().fall()
    play.fail_once().pass_s(4.0)
    assert status_of(play.restart, RULES, play.now_s) == {
        "phase": "pausing",
        "cause": "probes",
        "since_s": 4.0,
        "reason": "no such unit",
        "nth": None,
        "times": 1,
        "times_max": 3,
        "window_s": 3600.0,
        "next_in_s": 6.0,
        "waits_for": "the pause after the last restart",
    }
    assert status_of(Course().fall().restart, RULES, 2000.0)["nth"] == 1
