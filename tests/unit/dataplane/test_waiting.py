"""Plays of the waiting line: who is woken, in which order, and who has to go."""

from collections.abc import Callable

import pytest

from understudy.dataplane.waiting import WaitingLine


class Guest:
    """Somebody who waits, called by client and number as in `a1`, and who does `then` when woken."""

    def __init__(self, house: "House", name: str, *, wake_at_s: float = 0.0, priority: int = 0) -> None:
        self.client = name[:1].encode()
        self.priority = priority
        self.started_at_s = float(len(house.guests))
        self.is_running = True
        self.wake_at_s = wake_at_s
        self.name = name
        self.then: Callable[[], object] = lambda: None
        self._house = house

    def on_wake(self) -> None:
        """Note the wake."""
        self._house.woken.append(self.name)
        self.then()

    def on_displaced(self) -> None:
        """The line hands back who has to go; telling them is the relay's."""
        raise AssertionError("the line itself tells nobody to go")


class House:
    """A line, everybody who came to it, and who was woken in which order."""

    def __init__(self, *names: str, most: int = 1000) -> None:
        self.line = WaitingLine()
        self.woken: list[str] = []
        self.guests: dict[str, Guest] = {}
        self.most = most
        for name in names:
            self.come(name)

    def come(self, name: str, *, wake_at_s: float = 0.0, priority: int = 0) -> str:
        """Let one more stand in line; who has to go for that, "" if nobody."""
        guest = self.guests[name] = Guest(self, name, wake_at_s=wake_at_s, priority=priority)
        displaced = self.line.add(guest, most=self.most)
        return displaced.name if isinstance(displaced, Guest) else ""

    def takes(self, name: str) -> None:
        """Let that one leave when woken."""
        guest = self.guests[name]
        guest.then = lambda: self.line.remove(guest)

    def inside(self) -> set[str]:
        return {name for name, guest in self.guests.items() if guest in self.line}


def test_new_line_is_empty() -> None:
    assert len(WaitingLine()) == 0


def test_one_who_is_in_line_already_keeps_the_place() -> None:
    house = House("a1", "a2", most=2)
    assert house.line.add(house.guests["a1"], most=0) is None
    house.line.wake_all()
    assert house.woken == ["a1", "a2"]
    assert len(house.line) == 2


def test_one_who_left_is_gone_and_may_leave_again() -> None:
    house = House("a1")
    house.line.remove(house.guests["a1"])
    house.line.remove(house.guests["a1"])
    assert house.inside() == set()
    house.line.wake_all()
    assert house.woken == []


def test_everybody_is_woken_in_turn() -> None:
    house = House("a1", "a2", "b1")
    house.come("c1", priority=1)
    house.line.wake_all()
    assert house.woken == ["c1", "a1", "b1", "a2"]


def test_one_who_is_sent_away_by_an_earlier_wake_is_not_woken() -> None:
    house = House("a1", "b1")
    house.guests["a1"].then = lambda: house.line.remove(house.guests["b1"])
    house.line.wake_all()
    assert house.woken == ["a1"]


def test_room_for_one_wakes_until_one_has_taken_it() -> None:
    """The first may want another backend than the one that has room, so the next is asked."""
    house = House("a1", "b1", "c1")
    house.takes("b1")
    house.line.wake_first()
    assert house.woken == ["a1", "b1"]
    assert house.inside() == {"a1", "c1"}


def test_whose_client_was_served_is_asked_last_the_next_time() -> None:
    house = House("a1", "a2", "a3", "b1", "c1")
    for name in house.guests:
        house.takes(name)
    for _ in range(5):
        house.line.wake_first()
    assert house.woken == ["a1", "b1", "c1", "a2", "a3"]


def test_who_was_served_when_the_backends_changed_has_had_the_turn() -> None:
    house = House("a1", "a2", "b1")
    house.takes("a1")
    house.line.wake_all()
    house.woken.clear()
    house.line.wake_first()
    assert house.woken == ["b1", "a2"]


def test_who_leaves_the_line_unserved_takes_no_turn() -> None:
    house = House("a1", "a2", "b1")
    house.line.remove(house.guests["a1"])
    house.line.wake_first()
    assert house.woken == ["a2", "b1"]


def test_room_that_nobody_takes_wakes_everybody_once() -> None:
    house = House("a1", "a2")
    house.line.wake_first()
    assert house.woken == ["a1", "a2"]


def test_room_passes_by_who_left_while_another_was_woken() -> None:
    house = House("a1", "b1", "c1")
    house.guests["a1"].then = lambda: house.line.remove(house.guests["b1"])
    house.takes("c1")
    house.line.wake_first()
    assert house.woken == ["a1", "c1"]


def test_room_that_is_given_up_at_once_wakes_the_next_and_no_third() -> None:
    """An attempt that fails while it begins makes room again, from inside the wake."""
    house = House("a1", "b1", "c1")
    first = house.guests["a1"]
    house.takes("b1")

    def take_and_give_up() -> None:
        house.line.remove(first)
        house.line.wake_first()

    first.then = take_and_give_up
    house.line.wake_first()
    assert house.woken == ["a1", "b1"]
    assert house.inside() == {"c1"}


def test_one_whose_time_is_over_takes_no_turn_and_no_room() -> None:
    house = House("a1", "a2", "b1")
    first = house.guests["a1"]

    def give_up() -> None:
        house.line.remove(first)
        first.is_running = False

    first.then = give_up
    house.guests["a2"].then = lambda: house.line.remove(house.guests["a2"])
    house.line.wake_first()
    assert house.woken == ["a1", "b1", "a2"]
    assert house.inside() == {"b1"}


def test_those_whose_time_has_come_are_woken_in_turn() -> None:
    house = House()
    for name, wake_at_s in (("a1", 12.0), ("a2", 11.0), ("a3", 10.0), ("b1", 11.0)):
        house.come(name, wake_at_s=wake_at_s)
    house.line.wake_due(9.0)
    assert house.woken == []
    house.line.wake_due(11.0)
    assert house.woken == ["b1", "a2", "a3"]


def test_one_who_leaves_while_the_due_are_woken_is_passed_by() -> None:
    house = House("a1", "b1")
    house.guests["a1"].then = lambda: house.line.remove(house.guests["b1"])
    house.line.wake_due(2.0)
    assert house.woken == ["a1"]


def test_one_who_comes_while_the_line_is_woken_is_left_for_the_next_time() -> None:
    house = House("a1", "b1")
    house.guests["a1"].then = lambda: house.come("b2")
    house.line.wake_all()
    assert house.woken == ["a1", "b1"]


def test_a_full_line_sends_away_the_newest_of_the_client_with_the_most() -> None:
    house = House("a1", "a2", "a3", most=3)
    assert house.come("b1") == "a3"
    assert house.come("b2") == "b2"
    assert house.inside() == {"a1", "a2", "b1"}


def test_a_full_line_of_one_client_has_no_room_for_another_of_that_client() -> None:
    house = House("a1", "a2", most=2)
    assert house.come("a3") == "a3"
    assert house.inside() == {"a1", "a2"}


def test_a_full_line_sends_away_the_lowest_priority_first() -> None:
    house = House(most=2)
    house.come("a1", priority=-1)
    house.come("b1")
    assert house.come("b2") == "a1"
    assert house.come("c1", priority=-1) == "c1"
    assert house.come("c2", priority=1) == "b2"
    assert house.inside() == {"b1", "c2"}


@pytest.mark.parametrize("priority", [-1, 0, 1])
def test_in_a_line_for_nobody_nobody_waits(priority: int) -> None:
    house = House(most=0)
    assert house.come("a1", priority=priority) == "a1"
    assert len(house.line) == 0
