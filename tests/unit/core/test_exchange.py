"""Plays of one client request: which command follows on what has happened, until it is answered or aborted."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.exchange_play import START_S, Play, run_out
from support.targets import CHAT, DOWN, PLAIN, UP, snapshot_of, target, targets
from understudy.core.ask import Ask, DialectName
from understudy.core.commands import Abort, Attempt, Wait
from understudy.core.exchange import BROKEN_MAX, RETRY_AFTER_S, Exchange
from understudy.core.retry import AGAIN_INTERVAL_S, UNHURT, UNREACHED, RetryBudget
from understudy.core.snapshot import BackendState, Duty, FailoverRules, Model
from understudy.core.tally import Tally
from understudy.errors import MEANING, Again, FailureKind, Side

K = FailureKind
# What the engine answers with, or breaks, after it had the whole request.
SENT_AND_HURT = (K.LOST_BEFORE_HEAD, K.HEAD_MALFORMED, K.SERVER_ERROR, K.UNAVAILABLE, K.ERROR_EVENT, K.FIRST_TOKEN_TIMEOUT)
UNKNOWN = BackendState()


# --- the first command


def test_first_attempt_goes_to_the_first_usable_backend_on_a_pooled_connection() -> None:
    play = Play(*targets(2))
    assert (play.name, play.attempt.is_fresh, play.exchange.attempts) == ("gpu0", False, 1)


def test_request_that_may_not_be_repeated_gets_a_fresh_connection_from_the_start() -> None:
    assert Play(*targets(2), ask=PLAIN).attempt.is_fresh


def test_every_exchange_counts_in_the_retry_budget() -> None:
    budget = RetryBudget(1.0, floor=0)
    snapshot, tally = snapshot_of(*targets(1)), Tally()
    assert not budget.try_spend(START_S)
    Exchange(CHAT, budget).begin(snapshot, tally, START_S)
    assert budget.try_spend(START_S)


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (Ask(DialectName.OPENAI, CHAT.path, "other", is_generating=True), K.MODEL_UNKNOWN),
        (Ask(DialectName.OLLAMA, "/api/chat", "qwen", is_generating=True), K.DIALECT_UNSPOKEN),
    ],
)
def test_request_that_no_backend_could_ever_serve_is_refused_at_once(ask: Ask, kind: FailureKind) -> None:
    assert Play(*targets(2, replace(UP, dialects=(DialectName.OPENAI,))), ask=ask).abort == Abort(kind, 404)


# --- hold and the last resort


def test_request_without_a_usable_backend_is_held() -> None:
    play = Play(*targets(2, DOWN))
    assert play.wait == Wait(START_S + 5.0, K.NONE_USABLE)


def test_held_request_goes_to_the_backend_that_comes_up() -> None:
    play = Play(*targets(2, DOWN))
    play.publish(target(0, DOWN), play.came_up(1, START_S + 1.0))
    play.wake(START_S + 1.0)
    assert play.name == "gpu1"


def test_spurious_wake_does_not_prolong_the_hold() -> None:
    play = Play(*targets(1, DOWN))
    for at_s in (1.0, 2.0, 4.9):
        play.wake(START_S + at_s)
        assert play.wait.until_s == START_S + 5.0


@pytest.mark.parametrize("state", [DOWN, UNKNOWN])
def test_after_hold_the_least_bad_backend_is_tried_once_on_a_fresh_connection(state: BackendState) -> None:
    play = Play(*targets(2, state))
    play.tally.succeed("gpu1", None, START_S - 10.0)
    play.wake()
    assert (play.name, play.attempt.is_fresh, play.attempt.choice.is_last_resort) == ("gpu1", True, True)


def test_last_resort_that_is_down_ends_with_503_and_retry_after() -> None:
    play = Play(*targets(2, DOWN))
    play.wake()
    play.fail(K.REFUSED)
    assert play.abort == Abort(K.NONE_USABLE, 503, RETRY_AFTER_S)


def test_last_resort_that_breaks_the_answer_ends_with_what_became_of_it() -> None:
    play = Play(*targets(2, DOWN))
    play.wake()
    play.fail(K.LOST_BEFORE_HEAD)
    assert play.abort == Abort(K.LOST_BEFORE_HEAD, 502)


@pytest.mark.parametrize("duty", [Duty.MAINTENANCE, Duty.DRAINING])
def test_backend_that_the_operator_took_out_is_no_last_resort(duty: Duty) -> None:
    play = Play(*targets(1, replace(DOWN, duty=duty)))
    play.wake()
    assert play.abort == Abort(K.NONE_USABLE, 503, RETRY_AFTER_S)


def test_model_that_leaves_the_last_list_during_hold_is_unknown() -> None:
    play = Play(target(0, DOWN))
    play.publish(target(0, replace(UP, models=(Model("other"),))))
    play.wake(START_S + 1.0)
    assert play.abort == Abort(K.MODEL_UNKNOWN, 404)


# --- no room


def test_full_backend_makes_the_request_wait_for_room() -> None:
    tally = Tally()
    tally.begin("gpu0", is_trial=False)
    snapshot = snapshot_of(target(0, in_flight_max=1))
    exchange = Exchange(CHAT, RetryBudget(0.2))
    assert exchange.begin(snapshot, tally, START_S) == Wait(START_S + 5.0, K.NO_ROOM)
    tally.end("gpu0", is_trial=False)
    assert isinstance(exchange.on_wake(snapshot, tally, START_S + 1.0), Attempt)


def test_backend_that_stays_full_ends_with_503_and_is_no_last_resort() -> None:
    tally = Tally()
    tally.begin("gpu0", is_trial=False)
    snapshot = snapshot_of(target(0, in_flight_max=1))
    exchange = Exchange(CHAT, RetryBudget(0.2))
    exchange.begin(snapshot, tally, START_S)
    assert exchange.on_wake(snapshot, tally, START_S + 5.0) == Abort(K.NO_ROOM, 503, RETRY_AFTER_S)


def test_resting_backend_is_asked_when_its_rest_is_over() -> None:
    tally = Tally()
    tally.rest("gpu0", START_S + 3.0)
    exchange = Exchange(CHAT, RetryBudget(0.2))
    snapshot = snapshot_of(target(0))
    assert exchange.begin(snapshot, tally, START_S) == Wait(START_S + 3.0, K.NONE_USABLE)
    assert isinstance(exchange.on_wake(snapshot, tally, START_S + 3.0), Attempt)


# --- a further attempt


@pytest.mark.parametrize("kind", [kind for kind, row in MEANING.items() if row.again is Again.ELSEWHERE])
def test_failure_before_the_commit_is_tried_elsewhere(kind: FailureKind) -> None:
    play = Play(*targets(2))
    play.fail(kind)
    assert (play.name, play.exchange.attempts) == ("gpu1", 2)


@pytest.mark.parametrize("kind", list(MEANING))
def test_failure_after_the_commit_ends_the_exchange(kind: FailureKind) -> None:
    play = Play(*targets(2))
    play.exchange.on_commit()
    play.fail(kind)
    assert play.abort.kind is kind


@pytest.mark.parametrize("kind", [kind for kind, row in MEANING.items() if row.again is Again.NEVER])
def test_failure_that_no_attempt_can_mend_ends_the_exchange(kind: FailureKind) -> None:
    play = Play(*targets(2))
    play.fail(kind)
    assert (play.abort.kind, play.abort.status) == (kind, MEANING[kind].status)


@pytest.mark.parametrize("kind", SENT_AND_HURT[1:])
def test_only_backend_that_hurts_the_request_is_not_asked_again(kind: FailureKind) -> None:
    play = Play(*targets(1))
    play.fail(kind)
    assert (play.abort.kind, play.abort.status) == (kind, MEANING[kind].status)


@pytest.mark.parametrize("kind", [K.LOST_BEFORE_HEAD, K.BODY_CUT])
def test_only_backend_that_went_away_under_the_request_is_asked_once_more(kind: FailureKind) -> None:
    play = Play(*targets(1))
    play.fail(kind)
    play.wake()
    play.fail(kind)
    assert (play.abort.kind, play.abort.status) == (kind, MEANING[kind].status)


@pytest.mark.parametrize(("tries", "attempts"), [(0, 4), (2, 2), (9, 4)])
def test_every_usable_backend_is_tried_once_up_to_the_number_of_tries(tries: int, attempts: int) -> None:
    play = Play(*targets(4), failover=FailoverRules(tries=tries))
    names = []
    while isinstance(play.command, Attempt):
        names.append(play.name)
        play.fail(K.SERVER_ERROR)
    assert names == ["gpu0", "gpu1", "gpu2", "gpu3"][:attempts]
    assert play.abort == Abort(K.SERVER_ERROR, 502)


def test_backend_that_came_back_since_it_failed_gets_another_chance() -> None:
    play = Play(*targets(2))
    play.fail(K.FIRST_TOKEN_TIMEOUT)
    play.publish(play.came_up(0, START_S + 1.0), target(1, DOWN))
    play.fail(K.SERVER_ERROR, after_s=2.0)
    assert play.name == "gpu0"


def test_request_that_ran_one_backend_out_of_memory_is_tried_once_elsewhere_and_no_further() -> None:
    play = Play(*targets(4))
    play.fail(K.OUT_OF_MEMORY)
    assert play.name == "gpu1"
    play.fail(K.REFUSED)
    assert play.abort == Abort(K.REFUSED, 502)


@pytest.mark.parametrize("kind", [K.LOST_BEFORE_HEAD, K.BODY_CUT])
def test_request_that_broke_two_backends_is_not_given_to_a_third(kind: FailureKind) -> None:
    play = Play(*targets(4))
    for _ in range(BROKEN_MAX):
        play.fail(kind)
    assert play.abort == Abort(kind, 502)
    assert play.exchange.attempts == BROKEN_MAX


def test_backends_that_were_never_reached_do_not_count_as_broken() -> None:
    play = Play(*targets(4))
    for _ in range(3):
        play.fail(K.REFUSED)
    assert play.name == "gpu3"


# --- stale connections


def test_stale_connection_is_repeated_on_a_fresh_one_free_of_charge() -> None:
    play = Play(*targets(2), failover=FailoverRules(tries=1), spent=True)
    play.fail(K.STALE_REUSE)
    assert (play.name, play.attempt.is_fresh, play.exchange.attempts) == ("gpu0", True, 1)
    assert play.exchange.failures == []


# --- requests that may not be repeated


@pytest.mark.parametrize("kind", sorted(UNREACHED))
def test_unrepeatable_request_is_tried_elsewhere_while_nothing_of_it_was_sent(kind: FailureKind) -> None:
    play = Play(*targets(2), ask=PLAIN)
    play.fail(kind)
    assert (play.name, play.attempt.is_fresh) == ("gpu1", True)


@pytest.mark.parametrize("kind", SENT_AND_HURT)
def test_unrepeatable_request_is_not_repeated_once_sent(kind: FailureKind) -> None:
    play = Play(*targets(2), ask=PLAIN)
    play.fail(kind)
    assert play.abort == Abort(kind, MEANING[kind].status)


# --- the retry budget


def test_attempt_that_costs_an_engine_work_waits_while_the_budget_is_spent() -> None:
    play = Play(*targets(2), spent=True, failover=FailoverRules(hold_s=30.0))
    play.fail(K.SERVER_ERROR)
    assert play.wait == Wait(START_S + 10.0, K.SERVER_ERROR)
    play.wake()
    assert play.name == "gpu1"


def test_budget_that_stays_spent_is_waited_for_as_long_as_a_first_content() -> None:
    play = Play(*targets(2), spent=True)
    play.fail(K.UNAVAILABLE)
    while isinstance(play.command, Wait):
        play.wake_without_budget()
    assert (play.now_s, play.abort) == (START_S + 120.0, Abort(K.UNAVAILABLE, 502))


@pytest.mark.parametrize("kind", sorted(UNREACHED | UNHURT | {K.MODEL_MISSING, K.UNSUPPORTED}))
def test_attempt_after_a_failure_that_cost_no_work_is_free(kind: FailureKind) -> None:
    play = Play(*targets(2), spent=True)
    play.fail(kind)
    assert play.name == "gpu1"


# --- reconnecting to who is left


@pytest.mark.parametrize("kind", sorted(UNREACHED))
def test_only_backend_is_asked_again_until_hold_is_over(kind: FailureKind) -> None:
    play = Play(*targets(1))
    attempts = 0
    while not isinstance(play.command, Abort):
        attempts += 1
        play.fail(kind)
        if isinstance(play.command, Wait):
            assert play.command.until_s <= play.now_s + AGAIN_INTERVAL_S + 1e-6
            play.wake()
    assert attempts == pytest.approx(5.0 / AGAIN_INTERVAL_S, abs=1)
    assert play.abort == Abort(kind, MEANING[kind].status)
    assert play.now_s == START_S + 5.0


def test_only_backend_that_is_known_to_be_down_by_then_ends_with_503() -> None:
    play = Play(*targets(1))
    play.fail(K.REFUSED)
    play.publish(target(0, DOWN))
    play.wake(START_S + 5.0)
    assert play.abort == Abort(K.NONE_USABLE, 503, RETRY_AFTER_S)


def test_only_backend_that_restarts_within_hold_answers() -> None:
    play = Play(*targets(1))
    play.fail(K.REFUSED)
    for _ in range(15):
        play.wake()
        play.fail(K.REFUSED)
    play.wake()
    assert play.name == "gpu0"


def test_rest_that_a_busy_backend_asked_for_is_kept_and_no_longer() -> None:
    play = Play(*targets(1))
    play.fail(K.BUSY, status=503, retry_after_s=3.0)
    while isinstance(play.command, Wait):
        play.wake()
    assert play.name == "gpu0"
    assert play.now_s == pytest.approx(START_S + 3.0, abs=AGAIN_INTERVAL_S)


def test_backend_that_refused_later_is_asked_again_in_time_whoever_failed_before() -> None:
    play = Play(*targets(2))
    play.fail(K.MODEL_MISSING, status=404)
    play.fail(K.REFUSED, after_s=1.0)
    assert play.wait.until_s == pytest.approx(play.now_s + AGAIN_INTERVAL_S)
    play.wake()
    assert play.name == "gpu1"


def test_two_backends_that_are_slow_to_fail_are_not_asked_in_turns_for_ever() -> None:
    """A connect timeout takes longer than the pace of reconnecting, so one is always ready while the other fails."""
    play = Play(*targets(2))
    while not isinstance(play.command, Abort):
        play.fail(K.CONNECT_TIMEOUT, after_s=2.0)
        if isinstance(play.command, Wait):
            play.wake()
        assert play.now_s < START_S + 30.0
    assert play.abort.status in (503, 504)


# --- how it ends


@pytest.mark.parametrize(("kind", "status", "wait_s"), [(K.BUSY, 429, 7.0), (K.BUSY, 503, 7.0), (K.LOADING, 503, 0.0)])
def test_busy_everywhere_ends_with_the_status_of_the_last(kind: FailureKind, status: int, wait_s: float) -> None:
    play = Play(*targets(2), failover=FailoverRules(hold_s=0.0))
    play.fail(kind, status=503, retry_after_s=wait_s)
    play.fail(kind, status=status, retry_after_s=wait_s / 2)
    assert play.abort == Abort(kind, status, max(wait_s, RETRY_AFTER_S))


@pytest.mark.parametrize(("kind", "status"), [(K.MODEL_MISSING, 404), (K.UNSUPPORTED, 501)])
def test_what_every_backend_says_of_the_request_itself_is_passed_on_at_once(kind: FailureKind, status: int) -> None:
    play = Play(*targets(2))
    play.fail(kind, status=status)
    play.fail(kind, status=status)
    assert play.abort == Abort(kind, status, is_passed_on=True)


def test_missing_model_is_not_passed_on_where_another_backend_failed_otherwise() -> None:
    play = Play(*targets(2))
    play.fail(K.MODEL_MISSING, status=404)
    play.fail(K.SERVER_ERROR, status=500)
    assert play.abort == Abort(K.SERVER_ERROR, 502)


# --- properties

UPSTREAM_KINDS = sorted(
    kind for kind, row in MEANING.items() if row.side is Side.UPSTREAM and row.again in (Again.ELSEWHERE, Again.ONCE_ELSEWHERE)
)
FREE_KINDS = sorted(UNREACHED | UNHURT)
# (what goes wrong, how long it takes to, the rest a busy backend asks for)
EVENTS = st.tuples(
    st.sampled_from(FREE_KINDS) | st.sampled_from(UPSTREAM_KINDS),
    st.sampled_from([0.0, 0.01, 0.15, 1.0, 3.0]),
    st.sampled_from([0.0, 0.0, 1.0, 4.0]),
)


@settings(deadline=None, max_examples=300)
@given(
    events=st.lists(EVENTS, min_size=1, max_size=5),
    tries=st.sampled_from([0, 0, 0, 1, 2, 5]),
    hold_s=st.sampled_from([0.0, 1.0, 5.0]),
    states=st.lists(st.just(UP), min_size=1, max_size=3) | st.lists(st.sampled_from([UP, DOWN, UNKNOWN]), min_size=1, max_size=3),
    ask=st.sampled_from([CHAT, CHAT, PLAIN]),
)
def test_whatever_goes_wrong_the_exchange_ends_and_keeps_the_rules(
    events: list[tuple[FailureKind, float, float]], tries: int, hold_s: float, states: list[BackendState], ask: Ask
) -> None:
    """The events come round and round, so that no end is owed to their number."""
    pool = [target(number, state) for number, state in enumerate(states)]
    run_out(Play(*pool, ask=ask, failover=FailoverRules(tries=tries, hold_s=hold_s)), events)
