"""A store that does not answer rests, then is tried."""

from understudy.sessions.circuit import FAILURES_MAX, REST_S_MAX, REST_S_MIN, Circuit
from understudy.sessions.store import Loss


def broken(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES_MAX):
        assert not circuit.is_open
        circuit.on_failure(Loss.SLOW, now_s)
    return circuit


def test_some_failures_in_a_row_are_needed() -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.on_failure(Loss.SLOW, 0.0)
        circuit.on_failure(Loss.UNAVAILABLE, 0.0)
        circuit.on_answer()
    assert not circuit.is_open


def test_a_store_that_fails_rests_before_it_is_tried() -> None:
    circuit = broken()
    assert circuit.is_open
    assert [circuit.is_rested(now_s) for now_s in (0.0, REST_S_MIN - 0.1, REST_S_MIN)] == [False, False, True]


def test_a_store_that_answers_is_neither_left_alone_nor_tried() -> None:
    circuit = Circuit()
    assert not circuit.is_rested(100.0)
    circuit = broken()
    circuit.on_answer()
    assert not circuit.is_open
    assert not circuit.is_rested(100.0)


def test_each_rest_is_longer_up_to_a_bound() -> None:
    circuit, now_s, rests_s = broken(), 0.0, []
    for _ in range(8):
        begun_at_s = now_s
        while not circuit.is_rested(now_s):
            now_s += 0.25
        rests_s.append(now_s - begun_at_s)
        circuit.on_failure(Loss.UNAVAILABLE, now_s)
    assert rests_s == sorted(rests_s)
    assert (rests_s[0], rests_s[-1]) == (REST_S_MIN, REST_S_MAX)


def test_a_store_that_says_no_has_answered() -> None:
    circuit = Circuit()
    for _ in range(2 * FAILURES_MAX):
        circuit.on_failure(Loss.FULL, 0.0)
    assert not circuit.is_open
