"""Plays of the line: who is next, who has to go, and that no order of coming and leaving confuses it."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.core.fair_line import FairLine


class Guest:
    """Somebody called by client and number, as in `a1`."""

    def __init__(self, name: str, started_at_s: float = 0.0, priority: int = 0) -> None:
        self.name = name
        self.client = name[:1].encode()
        self.started_at_s = started_at_s
        self.priority = priority


def line_of(*names: str) -> tuple[FairLine[Guest], dict[str, Guest]]:
    """A line of these, in the order of coming."""
    line = FairLine[Guest]()
    guests = {name: Guest(name, float(place)) for place, name in enumerate(names)}
    for guest in guests.values():
        line.add(guest)
    return line, guests


def names(line: FairLine[Guest]) -> list[str]:
    return [guest.name for guest in line.in_turn()]


def test_one_client_is_served_in_the_order_of_coming() -> None:
    line, _ = line_of("a1", "a2", "a3")
    assert names(line) == ["a1", "a2", "a3"]
    assert len(line) == 3


def test_clients_take_turns_however_many_each_has_sent() -> None:
    line, _ = line_of("a1", "a2", "a3", "a4", "b1", "c1", "c2")
    assert names(line) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_a_client_whose_turn_is_over_stands_behind_the_others() -> None:
    line, guests = line_of("a1", "a2", "b1", "b2")
    line.remove(guests["a1"])
    line.end_turn(guests["a1"])
    assert names(line) == ["b1", "a2", "b2"]


def test_who_leaves_without_having_been_served_costs_the_client_no_turn() -> None:
    line, guests = line_of("a1", "a2", "b1")
    line.remove(guests["a1"])
    assert names(line) == ["a2", "b1"]


def test_the_end_of_a_turn_of_who_has_nobody_left_changes_nothing() -> None:
    line, guests = line_of("a1", "b1")
    line.remove(guests["a1"])
    line.end_turn(guests["a1"])
    assert names(line) == ["b1"]
    line.remove(guests["b1"])
    line.end_turn(guests["b1"])
    assert names(line) == []


def test_a_flood_does_not_keep_another_client_waiting() -> None:
    """Between two turns of one who always has one request waiting, a flood gets one turn."""
    line, _ = line_of(*(f"a{number}" for number in range(100)))
    served = []
    for number in range(5):
        line.add(Guest(f"b{number}", 1000.0 + number))
        for _ in range(2):
            one = next(line.in_turn())
            line.remove(one)
            line.end_turn(one)
            served.append(one.name)
    assert served == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4"]


def test_who_comes_back_to_the_line_stands_where_they_came_to_the_door() -> None:
    line, guests = line_of("a1", "a2", "a3")
    line.remove(guests["a1"])
    line.add(guests["a1"])
    assert names(line) == ["a1", "a2", "a3"]


def test_the_greater_priority_goes_first() -> None:
    line, _ = line_of("a1", "b1")
    line.add(Guest("c1", 9.0, priority=1))
    line.add(Guest("a2", 9.0, priority=-1))
    line.add(Guest("a3", 9.0, priority=1))
    assert names(line) == ["c1", "a3", "a1", "b1", "a2"]


def test_one_who_stands_in_line_is_not_added_again() -> None:
    line, guests = line_of("a1", "a2")
    line.add(guests["a1"])
    assert names(line) == ["a1", "a2"]
    assert guests["a1"] in line


def test_one_who_left_is_gone_and_may_leave_again() -> None:
    line, guests = line_of("a1")
    line.remove(guests["a1"])
    line.remove(guests["a1"])
    assert guests["a1"] not in line
    assert len(line) == 0
    assert list(line) == []


def test_the_newest_of_the_client_with_the_most_has_to_go() -> None:
    line, _ = line_of("a1", "b1", "b2", "a2", "b3", "c1")
    assert line.last().name == "b3"


def test_among_clients_with_as_many_the_one_that_came_to_that_number_last_has_to_go() -> None:
    line, guests = line_of("a1", "b1", "a2", "b2")
    assert line.last().name == "b2"
    line.remove(guests["b1"])
    assert line.last().name == "a2"


def test_the_lowest_priority_has_to_go_before_the_greatest_crowd() -> None:
    line, _ = line_of("a1", "a2", "a3")
    line.add(Guest("b1", 0.5, priority=1))
    line.add(Guest("c1", 0.1, priority=-1))
    assert line.last().name == "c1"


def test_the_line_may_change_while_it_is_walked() -> None:
    line, guests = line_of("a1", "a2", "b1", "c1")
    walk = line.in_turn()
    assert next(walk).name == "a1"
    for gone in ("a1", "b1"):
        line.remove(guests[gone])
    line.add(Guest("a9", 9.0))
    assert [guest.name for guest in walk] == ["c1", "a2"]


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1), st.integers(0, 3), st.booleans()), max_size=60)


@given(steps)
def test_whatever_comes_and_goes_all_are_named_once_and_the_crowd_is_known(steps: list[tuple[str, int, int, bool]]) -> None:
    """Against a plain list: as many, each once, clients of one priority alternating, the one to go of a greatest crowd."""
    line, inside = FairLine[Guest](), list[Guest]()
    for number, (client, priority, started, leaves) in enumerate(steps):
        if leaves and inside:
            gone = inside.pop(number % len(inside))
            line.remove(gone)
            line.end_turn(gone)
        else:
            inside.append(Guest(f"{client}{number}", float(started), priority))
            line.add(inside[-1])
        assert len(line) == len(inside)
        walked = list(line.in_turn())
        assert sorted(one.name for one in walked) == sorted(one.name for one in inside)
        assert [one.priority for one in walked] == sorted((one.priority for one in inside), reverse=True)
        if inside:
            assert_is_last_of_a_greatest_crowd(line.last(), inside)


def assert_is_last_of_a_greatest_crowd(last: Guest, inside: list[Guest]) -> None:
    lowest = [one for one in inside if one.priority == min(one.priority for one in inside)]
    crowds = {client: [one for one in lowest if one.client == client] for client in {one.client for one in lowest}}
    assert len(crowds[last.client]) == max(map(len, crowds.values()))
    assert last.started_at_s == max(one.started_at_s for one in crowds[last.client])
