"""Plays of what speaks for a restart and what does not: probes, loading, sleep, streams that move, tokens, children."""

from dataclasses import replace

import pytest

from support.restart_play import RULES, Course
from support.targets import UP, snapshot_of, target
from understudy.core.ailment import (
    MOVED_S,
    Cause,
    Facts,
    Signs,
    delayed,
    excuse,
    lasts,
    looked_at,
    need,
    peers_of,
    probed,
    with_memory,
)
from understudy.core.health import FAST_PROBES_MAX, Health, Seen
from understudy.core.restart import Phase
from understudy.core.snapshot import BackendState, Condition, Duty
from understudy.core.upkeep import WakeRules

DOWN = replace(UP, condition=Condition.DOWN, reason="refused the connection")
BAD, LOADING, GOOD = Seen.BAD, Seen.LOADING, Seen.GOOD
ENOUGH = Signs(has_served=True, failed=6)


def facts(state: BackendState = DOWN, *, bad: int = 3, moved_at_s: float = 0.0) -> Facts:
    return Facts(target(0, state), Health(state.condition, bad=bad), moved_at_s=moved_at_s)


def cause_of(signs: Signs, seen: Facts, now_s: float = 1000.0) -> Cause | None:
    return need(signs, RULES, seen, now_s)[0]


# --- Probes


def test_it_takes_as_many_failed_probes_as_fall_and_after_together() -> None:
    play = Course().probe(*[BAD] * 5)
    assert play.phase is Phase.WATCHING
    play.probe(BAD)
    assert (play.phase, play.restart.cause, play.restart.reason) == (Phase.ACTING, Cause.PROBES, "saw bad")


def test_machine_that_is_woken_on_demand_is_not_restarted_for_its_failed_probes_alone() -> None:
    """That it sleeps looks the same."""
    play = Course()
    sleeper = replace(play.facts.target, backend=replace(play.facts.target.backend, wake=WakeRules(mac="00:1b:44:11:3a:b7")))
    play.say(target=sleeper).probe(*[BAD] * 500)
    assert (play.phase, play.did) == (Phase.WATCHING, [])
    assert need(Signs(exited="it ended"), RULES, replace(facts(), target=sleeper), 1000.0)[0] is Cause.EXITED
    assert need(Signs(barren="no token"), RULES, replace(facts(), target=sleeper), 1000.0)[0] is Cause.SUSPICIOUS
    assert play.order() == ""


def test_one_good_probe_in_between_begins_the_count_anew() -> None:
    play = Course().probe(*[BAD] * 5, GOOD, *[BAD] * 5)
    assert play.phase is Phase.WATCHING
    assert play.probe(BAD).phase is Phase.ACTING


def test_after_beyond_what_health_counts_is_reached_all_the_same() -> None:
    play = Course(replace(RULES, after=2 * FAST_PROBES_MAX)).probe(*[BAD] * (2 * FAST_PROBES_MAX + 2))
    assert play.phase is Phase.WATCHING
    assert play.probe(BAD).phase is Phase.ACTING


def test_answers_to_clients_count_for_more_than_probes() -> None:
    """The health's count began anew with an answer; a probe that misses its deadline means a busy engine."""
    assert cause_of(ENOUGH, facts(bad=0)) is None
    assert cause_of(ENOUGH, facts(moved_at_s=1000.0 - MOVED_S + 1)) is None
    assert cause_of(ENOUGH, facts(moved_at_s=1000.0 - MOVED_S)) is Cause.PROBES


@pytest.mark.parametrize("duty", [Duty.DRAINING, Duty.MAINTENANCE])
def test_backend_that_the_operator_has_taken_out_is_left_in_peace(duty: Duty) -> None:
    for state in (replace(DOWN, duty=duty), replace(UP, duty=duty, is_degraded=True)):
        signs = replace(ENOUGH, exited="it ended", barren="no token")
        assert cause_of(signs, facts(state)) is None


def test_what_was_never_well_gets_its_time_to_begin() -> None:
    """Machine, engine and daemon may all have been started a moment ago."""
    play = Course(is_known=False).probe(*[BAD] * 290)
    assert play.phase is Phase.WATCHING
    assert play.probe(*[BAD] * 10).phase is Phase.ACTING


def test_loading_engine_has_ready_s_for_it_and_no_more() -> None:
    play = Course().probe(*[LOADING] * 300)
    assert play.phase is Phase.WATCHING
    assert play.probe(*[LOADING] * 6).phase is Phase.ACTING


def test_engine_that_loads_crashes_and_loads_again_has_all_of_it_once() -> None:
    play = Course().probe(*[LOADING, LOADING, BAD] * 100)
    assert play.phase is Phase.WATCHING
    assert play.probe(*[LOADING, LOADING, BAD] * 2).phase is Phase.ACTING


def test_engine_that_sleeps_or_refuses_our_key_is_never_restarted() -> None:
    play = Course().probe(*[BAD] * 5).probe(*[LOADING] * 1000, is_deliberate=True)
    assert play.probe(*[BAD] * 5).phase is Phase.WATCHING


def test_daemon_that_was_stopped_itself_begins_its_count_anew() -> None:
    signs = delayed(replace(ENOUGH, barren="no token", known_at_s=1.0, loading_at_s=2.0, excused_until_s=302.0), 50.0)
    assert signs == Signs(known_at_s=51.0, has_served=True, loading_at_s=52.0, excused_until_s=352.0)


def test_backend_that_is_down_since_it_is_known_has_its_time_and_that_is_said() -> None:
    signs, words = Signs(known_at_s=900.0, failed=50), "the first 300s that it is known, in which it may be starting"
    assert (need(signs, RULES, facts(DOWN), 1000.0)[0], excuse(signs, RULES, facts(DOWN), 1000.0)) == (None, words)
    assert excuse(signs, RULES, facts(DOWN), 1200.0) == ""
    assert excuse(replace(signs, has_served=True), RULES, facts(DOWN), 1000.0) == ""
    assert excuse(signs, RULES, facts(UP), 1000.0) == ""
    assert excuse(signs, RULES, facts(replace(DOWN, duty=Duty.DRAINING)), 1000.0) == ""


# --- Tokens, speed, children


def test_backend_that_generates_nothing_is_suspicious_until_something_says_otherwise() -> None:
    signs = Signs(has_served=True, barren="no token within 120s")
    assert need(signs, RULES, facts(UP), 1000.0) == (
        Cause.SUSPICIOUS,
        "it answers its health check and generates nothing: no token within 120s",
    )
    assert looked_at(signs, facts(UP), 1000.0, is_out=False) == signs
    for seen in (facts(DOWN), facts(UP, moved_at_s=999.0)):
        assert not looked_at(signs, seen, 1000.0, is_out=False).barren
    assert not looked_at(replace(signs, good=1), facts(UP), 1000.0, is_out=False).barren
    # Once it gets no exchanges only a token can tell.
    assert looked_at(replace(signs, good=1), facts(UP), 1000.0, is_out=True).barren


def test_degraded_backend_is_restarted_where_the_file_says_so() -> None:
    slow = facts(replace(UP, is_degraded=True))
    assert need(Signs(), RULES, slow, 1000.0)[0] is None
    assert need(Signs(), replace(RULES, is_degraded_enough=True), slow, 1000.0)[0] is Cause.DEGRADED


def test_child_that_ended_needs_no_probes_and_is_there_again_after_two_good_ones() -> None:
    signs = Signs(exited="llama-server was ended by SIGKILL")
    assert cause_of(signs, facts(UP)) is Cause.EXITED
    once = probed(signs, GOOD, RULES, 1.0)
    assert cause_of(once, facts(UP)) is Cause.EXITED
    assert cause_of(probed(once, GOOD, RULES, 2.0), facts(UP)) is None


@pytest.mark.parametrize(
    ("cause", "signs", "state", "still"),
    [
        (Cause.PROBES, Signs(), DOWN, True),
        (Cause.PROBES, Signs(), UP, False),
        (Cause.SUSPICIOUS, Signs(barren="no token"), UP, True),
        (Cause.SUSPICIOUS, Signs(), UP, False),
        (Cause.DEGRADED, Signs(), replace(UP, is_degraded=True), True),
        (Cause.DEGRADED, Signs(), UP, False),
        (Cause.EXITED, Signs(exited="it ended"), UP, True),
        (Cause.EXITED, Signs(), UP, False),
        (Cause.PROBES, Signs(), replace(DOWN, duty=Duty.DRAINING), False),
        (Cause.OPERATOR, Signs(), replace(UP, duty=Duty.DRAINING), True),
    ],
)
def test_cause_lasts_as_long_as_it_is_seen(cause: Cause, signs: Signs, state: BackendState, still: bool) -> None:
    assert lasts(cause, signs, facts(state)) is still


# --- Its like


def test_peers_are_those_of_its_color_that_the_operator_has_not_taken_out() -> None:
    asleep = replace(DOWN, duty=Duty.MAINTENANCE)
    snapshot = snapshot_of(target(0), target(1, DOWN), target(2, asleep), target(3, replace(UP, is_restarting=True)))
    first = snapshot.targets[0]
    assert peers_of(snapshot, first, ()) == ("", "gpu1")
    assert peers_of(snapshot, first, ("gpu0", "gpu3")) == ("gpu3", "gpu1")
    assert peers_of(snapshot_of(target(0), target(2, asleep)), target(0), ()) == ("", "")
    assert peers_of(snapshot_of(target(0), target(3, replace(UP, is_restarting=True))), target(0), ()) == ("", "gpu3")


def test_reason_says_once_that_memory_had_run_out_where_it_had() -> None:
    words = with_memory("it ended", was_out_of_memory=True)
    assert words == with_memory(words, was_out_of_memory=True) == "it ended; memory had run out"
    assert with_memory("it ended", was_out_of_memory=False) == "it ended"
