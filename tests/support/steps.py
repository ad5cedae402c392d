"""What a scripted engine does on one connection, one step after the other: send, drip, hold, hang, close, reset.

A step is a coroutine function that gets the engine's side of the connection. Answers (support.answers, support.faults) are made
of steps; support.scripted plays them. Plays stop and start an answer with a `Gate`, never by waiting for time to pass.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

LINGER_NONE = struct.pack("ii", 1, 0)


class EngineSide(Protocol):
    """The engine's end of one connection, as steps see it."""

    async def send(self, data: bytes) -> None:
        """Hand over `data` and wait until the kernel has taken nearly all of it."""

    async def wait_gone(self) -> None:
        """Return when the peer has closed its side."""

    def close(self) -> None:
        """End the connection in order (FIN)."""

    def reset(self) -> None:
        """End the connection with a reset (RST)."""


Step = Callable[[EngineSide], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine does about one request. `reads_body` False: it starts before it has read the request's body."""

    steps: tuple[Step, ...]
    reads_body: bool = True


class Gate:
    """A door in an answer: the engine stops at it until the play opens it. May be opened from any thread, once for all."""

    def __init__(self) -> None:
        self._is_open = threading.Event()
        self._reached = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let every answer that waits here, and every later one, go on."""
        with self._lock:
            self._is_open.set()
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
            self._waiting.clear()

    def wait_reached(self, timeout_s: float = 10.0) -> None:
        """Return when an answer has arrived at the gate; AssertionError after `timeout_s`."""
        assert self._reached.wait(timeout_s), f"no answer reached the gate within {timeout_s} s"

    async def pass_through(self) -> None:
        """Wait, in the engine's loop, until the gate is open."""
        event = asyncio.Event()
        with self._lock:
            if not self._is_open.is_set():
                self._waiting.append((asyncio.get_running_loop(), event))
            else:
                event.set()
        self._reached.set()
        await event.wait()


def answer(*steps: Step, reads_body: bool = True) -> Answer:
    """Put steps together."""
    return Answer(steps, reads_body=reads_body)


def send(*pieces: bytes) -> Step:
    """Send the pieces, each with a write of its own."""

    async def play(side: EngineSide) -> None:
        for piece in pieces:
            await side.send(piece)

    return play


def drip(data: bytes, *, gap_s: float) -> Step:
    """Send `data` one byte at a time."""

    async def play(side: EngineSide) -> None:
        for i in range(len(data)):
            await side.send(data[i : i + 1])
            await asyncio.sleep(gap_s)

    return play


def repeat(data: bytes, *, gap_s: float) -> Step:
    """Send `data` again and again until the peer leaves."""

    async def play(side: EngineSide) -> None:
        while True:
            await side.send(data)
            await asyncio.sleep(gap_s)

    return play


def pause(duration_s: float) -> Step:
    """Do nothing for `duration_s`: for faults that consist of time."""

    async def play(_side: EngineSide) -> None:
        await asyncio.sleep(duration_s)

    return play


def hold(gate: Gate) -> Step:
    """Go on when the play opens `gate`; a peer that leaves meanwhile is noticed at the next step."""

    async def play(_side: EngineSide) -> None:
        await gate.pass_through()

    return play


def hang() -> Step:
    """Say nothing more until the peer leaves."""

    async def play(side: EngineSide) -> None:
        await side.wait_gone()

    return play


def close() -> Step:
    """Close in order, whatever was promised."""

    async def play(side: EngineSide) -> None:
        side.close()

    return play


def reset() -> Step:
    """Close with a reset."""

    async def play(side: EngineSide) -> None:
        side.reset()

    return play


def abort_with_reset(sock: socket.socket) -> None:
    """Make the next close of `sock` send a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
