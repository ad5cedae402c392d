"""Plays of the waiting line: who is woken, and in which order."""

from collections.abc import Callable

from understudy.dataplane.waiting import WaitingLine


class Guest:
    """Somebody who waits, and does `then` when woken."""

    def __init__(self, line: WaitingLine, name: str, woken: list[str], wake_at_s: float = 0.0) -> None:
        self.wake_at_s = wake_at_s
        self.name = name
        self.then: Callable[[], None] = lambda: None
        self._woken = woken
        line.add(self)

    def on_wake(self) -> None:
        """Note the wake."""
        self._woken.append(self.name)
        self.then()


def test_new_line_is_empty() -> None:
    assert len(WaitingLine()) == 0


def test_one_who_is_in_line_already_keeps_the_place() -> None:
    line, woken = WaitingLine(), list[str]()
    first, _ = Guest(line, "first", woken), Guest(line, "second", woken)
    line.add(first)
    line.wake_all()
    assert woken == ["first", "second"]
    assert len(line) == 2


def test_one_who_left_is_gone_and_may_leave_again() -> None:
    line, woken = WaitingLine(), list[str]()
    guest = Guest(line, "guest", woken)
    assert guest in line
    line.remove(guest)
    line.remove(guest)
    assert guest not in line
    line.wake_all()
    assert woken == []


def test_everybody_is_woken_in_the_order_of_coming() -> None:
    line, woken = WaitingLine(), list[str]()
    for name in "abcd":
        Guest(line, name, woken)
    line.wake_all()
    assert woken == ["a", "b", "c", "d"]


def test_one_who_is_sent_away_by_an_earlier_wake_is_not_woken() -> None:
    line, woken = WaitingLine(), list[str]()
    first, second = Guest(line, "first", woken), Guest(line, "second", woken)
    first.then = lambda: line.remove(second)
    line.wake_all()
    assert woken == ["first"]


def test_room_for_one_wakes_until_one_has_taken_it() -> None:
    """The first may want another backend than the one that has room, so the next is asked."""
    line, woken = WaitingLine(), list[str]()
    Guest(line, "wants another", woken)
    taker = Guest(line, "takes it", woken)
    Guest(line, "still waits", woken)
    taker.then = lambda: line.remove(taker)
    line.wake_first()
    assert woken == ["wants another", "takes it"]
    assert len(line) == 2


def test_room_that_nobody_takes_wakes_everybody_once() -> None:
    line, woken = WaitingLine(), list[str]()
    for name in "ab":
        Guest(line, name, woken)
    line.wake_first()
    assert woken == ["a", "b"]


def test_room_passes_by_who_left_while_another_was_woken() -> None:
    line, woken = WaitingLine(), list[str]()
    first, second, third = (Guest(line, name, woken) for name in "abc")
    first.then = lambda: line.remove(second)
    third.then = lambda: line.remove(third)
    line.wake_first()
    assert woken == ["a", "c"]


def test_those_whose_time_has_come_are_woken() -> None:
    line, woken = WaitingLine(), list[str]()
    for name, wake_at_s in (("late", 12.0), ("now", 11.0), ("past", 10.0)):
        Guest(line, name, woken, wake_at_s)
    line.wake_due(11.0)
    assert woken == ["now", "past"]


def test_one_who_leaves_while_the_due_are_woken_is_passed_by() -> None:
    line, woken = WaitingLine(), list[str]()
    first, second = Guest(line, "first", woken, 1.0), Guest(line, "second", woken, 1.0)
    first.then = lambda: line.remove(second)
    line.wake_due(2.0)
    assert woken == ["first"]


def test_one_who_comes_while_the_line_is_woken_is_left_for_the_next_time() -> None:
    line, woken = WaitingLine(), list[str]()
    first = Guest(line, "first", woken)
    first.then = lambda: None if woken.count("first") > 1 else line.add(Guest(line, "newcomer", woken))
    line.wake_all()
    assert woken == ["first"]
