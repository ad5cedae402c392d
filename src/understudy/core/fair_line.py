"""A line in which nobody is first for having sent more: by priority, then each client in turn, then first come first served.

Kept by dataplane.waiting. Pure: holds who waits and says who is next and who has to go; wakes nobody and knows no clock. Every
operation costs the same however many wait, but for a `memmove` in the list of one client.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """Somebody who can stand in the line. None of this may change while they do.

    `client` tells clients apart (key or address), a greater `priority` goes first, `started_at_s` is when they came to the door.
    """

    client: bytes
    priority: int
    started_at_s: float


T = TypeVar("T", bound=Queued)


def _started_at_s(one: Queued) -> float:
    return one.started_at_s


class _Lane(Generic[T]):
    """Those of one priority. The client whose turn it is stands first in `clients`; no list in it is empty."""

    def __init__(self) -> None:
        self.clients: dict[bytes, list[T]] = {}
        # How many wait for a client -> the clients with so many, whoever came to that number last at the end.
        self._of_size: dict[int, dict[bytes, None]] = {}
        self._most = 0

    def add(self, one: T) -> None:
        waiting = self.clients.setdefault(one.client, [])
        insort(waiting, one, key=_started_at_s)
        self._resize(one.client, len(waiting) - 1, len(waiting))

    def remove(self, one: T) -> None:
        waiting = self.clients[one.client]
        place = bisect_left(waiting, one.started_at_s, key=_started_at_s)
        while waiting[place] is not one:
            place += 1
        del waiting[place]
        if not waiting:
            del self.clients[one.client]
        self._resize(one.client, len(waiting) + 1, len(waiting))

    def _resize(self, client: bytes, before: int, after: int) -> None:
        if before:
            same = self._of_size[before]
            del same[client]
            if not same:
                del self._of_size[before]
        if after:
            self._of_size.setdefault(after, {})[client] = None
        # It changes by one at a time: when the last client leaves the greatest number, that client has the next smaller one.
        if after > self._most or self._most not in self._of_size:
            self._most = after

    def end_turn(self, client: bytes) -> None:
        waiting = self.clients.pop(client, None)
        if waiting:
            self.clients[client] = waiting

    def in_turn(self) -> Iterator[T]:
        turns: deque[Iterator[T]] = deque()
        for client in list(self.clients):
            later = iter(tuple(self.clients.get(client, ())))
            yield from islice(later, 1)
            turns.append(later)
        while turns:
            later = turns.popleft()
            for one in islice(later, 1):
                yield one
                turns.append(later)

    def last(self) -> T:
        return self.clients[next(reversed(self._of_size[self._most]))][-1]


class FairLine(Generic[T]):
    """The line. Nobody stands in it twice."""

    def __init__(self) -> None:
        self._members: dict[T, None] = {}
        self._lanes: dict[int, _Lane[T]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, one: T) -> bool:
        return one in self._members

    def __iter__(self) -> Iterator[T]:
        """All of them, in no order that matters."""
        return iter(self._members)

    def add(self, one: T) -> None:
        """Stand in line among those of the same client, by the time of coming to the door; no change for one who does already."""
        if one in self._members:
            return
        self._members[one] = None
        lane = self._lanes.get(one.priority)
        if lane is None:
            lane = self._lanes[one.priority] = _Lane()
        lane.add(one)

    def remove(self, one: T) -> None:
        """Leave the line without a trace; no change for one who does not stand in it."""
        if one not in self._members:
            return
        del self._members[one]
        lane = self._lanes[one.priority]
        lane.remove(one)
        if not lane.clients:
            del self._lanes[one.priority]

    def end_turn(self, one: T) -> None:
        """Let the other clients of that priority go first: one of this client has had its turn, and has left."""
        lane = self._lanes.get(one.priority)
        if lane is not None:
            lane.end_turn(one.client)

    def in_turn(self) -> Iterator[T]:
        """Yield who is next, and who after them: the first of each client, then the second of each, and so on.

        The line may change meanwhile: somebody who has left may still be named, whoever comes may or may not be.
        """
        for priority in sorted(self._lanes, reverse=True):
            lane = self._lanes.get(priority)
            if lane is not None:
                yield from lane.in_turn()

    def last(self) -> T:
        """Return who has to go when there are too many: the newest of the client that has most in line, of the lowest priority.

        Among clients with as many, the one that came to that number last. Raises ValueError when nobody waits.
        """
        return self._lanes[min(self._lanes)].last()
