"""The machines that the daemon can reach, by host and port: listening, refusing, swallowing or not there.

Stands in for `loop.create_connection` and name look-ups. Remembers every connection, so that a play can tell in the end
whether all of them are closed, and who carried which request.
"""

import asyncio
import errno
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from simulation.virtual_loop import VirtualLoop
from simulation.wire import End, Line, make_pair

TAG = re.compile(rb"\r\nX-Request-ID: (\S+)\r\n")


class Door(StrEnum):
    """What a machine does about a new connection."""

    OPEN = "open"
    REFUSING = "refusing"
    SWALLOWING = "swallowing"
    UNREACHABLE = "unreachable"


@dataclass
class Machine:
    """One host and port. `accept` makes the protocol of the far end; `ends` are its ends of the connections."""

    accept: Callable[[], asyncio.Protocol]
    door: Door = Door.OPEN
    faults: int = 0
    ends: list[End] = field(default_factory=list)


class Network:
    """All machines and all connections. `carrying` is the tag of the request that each of our ends towards an engine carries."""

    def __init__(self, loop: VirtualLoop, dice: Random) -> None:
        self.loop = loop
        self.dice = dice
        self.machines: dict[tuple[str, int], Machine] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.ends: list[End] = []
        self.near_ends: list[End] = []
        self.arrivals = 0
        self.on_arrival: Callable[[int], None] | None = None
        self.on_request: Callable[[End, str, bytes], None] | None = None

    def line(self, *, piece_bytes_max: int = 0, window_bytes: int = 64 * 1024) -> Line:
        """Return a line with latencies of the seed; `piece_bytes_max` 0 lets the seed choose how bytes are cut up."""
        dice = self.dice
        base_s = dice.choice((0.0, 0.0001, 0.002, 0.03))
        spread_s = dice.choice((0.0, 0.0001, 0.005))
        most = piece_bytes_max or dice.choice((65536, 65536, 65536, 1500, 200, 17))
        return Line(
            latency_s=lambda: base_s + spread_s * dice.random(),
            piece_bytes=lambda: dice.randint(1, most) if most < 65536 else most,
            window_bytes=window_bytes,
        )

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a name."""
        await asyncio.sleep(0.001)
        if host not in self.names:
            raise OSError(errno.ENOENT, "no such name")
        return self.names[host]

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open a connection as asyncio does: on any exception after it was made it is closed again."""
        await asyncio.sleep(self.dice.choice((0.0, 0.0002, 0.01)))
        machine = self.machines.get((host, port))
        if machine is None or machine.door is Door.REFUSING:
            if machine is not None:
                machine.faults += 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        if machine.door is not Door.OPEN:
            machine.faults += 1
            if machine.door is Door.UNREACHABLE:
                raise OSError(errno.EHOSTUNREACH, "no route")
            await self.loop.create_future()
        near, far = self.open(self.line(), ("10.9.9.9", 1), (host, port))
        self.near_ends.append(near)
        near.label = host
        near.on_write = lambda data: self._see(near, data)
        served = machine.accept()
        machine.ends.append(far)
        far.set_protocol(served)
        self.loop.call_soon(served.connection_made, far)
        asked = factory()
        near.set_protocol(asked)
        made: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_soon(asked.connection_made, near)
        self.loop.call_soon(_settle, made)
        try:
            await made
        except BaseException:
            near.close()
            raise
        return near, asked

    def open(self, line: Line, near: tuple[str, int], far: tuple[str, int]) -> tuple[End, End]:
        """Return both ends of a new connection that this network watches."""
        pair = make_pair(self.loop, line, near, far)
        for end in pair:
            end.on_arrival = self._arrived
            self.ends.append(end)
        return pair

    def open_ends(self) -> list[End]:
        """Return the ends that are not closed."""
        return [end for end in self.ends if not end.is_lost]

    def _arrived(self) -> None:
        self.arrivals += 1
        if self.on_arrival is not None:
            self.on_arrival(self.arrivals)

    def _see(self, end: End, data: bytes) -> None:
        tag = TAG.search(data)
        if tag is not None and self.on_request is not None:
            self.on_request(end, tag[1].decode(), data)


def _settle(made: asyncio.Future[None]) -> None:
    if not made.done():
        made.set_result(None)
