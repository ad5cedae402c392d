"""A store that does not answer rests, then one question tries it."""

from understudy.sessions.circuit import FAILURES_MAX, REST_S_MAX, REST_S_MIN, Circuit
from understudy.sessions.store import Loss


def broken(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES_MAX):
        assert circuit.may_ask(now_s)
        circuit.on_failure(Loss.SLOW, now_s)
    return circuit


def test_some_failures_in_a_row_are_needed() -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.on_failure(Loss.SLOW, 0.0)
        circuit.on_failure(Loss.UNAVAILABLE, 0.0)
        circuit.on_answer()
    assert circuit.may_ask(0.0)


def test_a_store_that_fails_rests() -> None:
    circuit = broken()
    assert not circuit.may_ask(REST_S_MIN - 0.1)


def test_one_question_tries_a_store_that_has_rested() -> None:
    circuit = broken()
    assert [circuit.may_ask(REST_S_MIN), circuit.may_ask(REST_S_MIN)] == [True, False]


def test_an_answer_ends_the_rest() -> None:
    circuit = broken()
    assert circuit.may_ask(REST_S_MIN)
    circuit.on_answer()
    assert circuit.may_ask(REST_S_MIN)
    assert circuit.may_ask(REST_S_MIN)


def test_each_rest_is_longer_up_to_a_bound() -> None:
    circuit, now_s, rests_s = broken(), 0.0, []
    for _ in range(8):
        begun_at_s = now_s
        while not circuit.may_ask(now_s):
            now_s += 0.25
        rests_s.append(now_s - begun_at_s)
        circuit.on_failure(Loss.UNAVAILABLE, now_s)
    assert rests_s == sorted(rests_s)
    assert (rests_s[0], rests_s[-1]) == (REST_S_MIN, REST_S_MAX)


def test_one_who_gives_up_lets_the_next_one_try() -> None:
    circuit = broken()
    assert circuit.may_ask(REST_S_MIN)
    circuit.on_dropped()
    assert circuit.may_ask(REST_S_MIN)


def test_a_store_that_says_no_has_answered() -> None:
    circuit = Circuit()
    for _ in range(2 * FAILURES_MAX):
        circuit.on_failure(Loss.FULL, 0.0)
    assert circuit.may_ask(0.0)
