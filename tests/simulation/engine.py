"""A simulated engine: reads requests strictly, answers as its temper and the seed decide, and can be stopped, frozen or emptied.

Every answer is a list of steps played by timers. What was asked and how far each answer came is kept in `calls`, so that a
play can compare it with what the clients got.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from simulation.faults import Answering, Behaviour, Fault, Step, make_steps
from simulation.network import Door, Machine, Network
from simulation.virtual_loop import VirtualLoop
from simulation.wire import End

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
TAG = re.compile(rb"\r\nx-request-id: *(\S+)\r\n", re.IGNORECASE)


@dataclass
class Call:
    """One request as an engine saw it. `text_pieces` is how many tokens its answer has; `is_sent`: all of it was sent."""

    tag: str
    generation: str
    behaviour: Behaviour
    text_pieces: int = 0
    is_sent: bool = False
    ended_at_s: float = 0.0


@dataclass
class Temper:
    """How an engine behaves: faults with their weights, and how long its answers are."""

    faults: dict[Fault, float] = field(default_factory=lambda: {Fault.NONE: 1.0})
    pieces_max: int = 12
    gap_s: float = 0.05
    piece_bytes: int = 0


class Engine:
    """One engine on one machine. `is_loading`: probes are told so; `is_frozen`: nothing is read or said."""

    def __init__(self, network: Network, name: str, host: str, temper: Temper, dice: Random) -> None:
        self.loop: VirtualLoop = network.loop
        self.name = name
        self.host = host
        self.temper = temper
        self.dice = dice
        self.machine = Machine(self._accept)
        self.calls: list[Call] = []
        self.is_loading = False
        self.is_frozen = False
        self.lost_models = False
        self.blameworthy = 0
        self._thawing: list[Callable[[], None]] = []
        network.machines[host, 8000] = self.machine

    # --- what happens to it

    def stop(self) -> None:
        """The process dies: its connections are reset and new ones refused."""
        self.machine.door = Door.REFUSING
        for end in self.machine.ends:
            if not end.is_lost:
                self.machine.faults += 1
                end.reset()

    def start(self) -> None:
        """The process is back."""
        self.machine.door = Door.OPEN
        self.is_loading = False
        self.thaw()

    def freeze(self) -> None:
        """The process is stopped: its kernel accepts, nobody reads."""
        self.is_frozen = True
        self.machine.faults += 1 + len([end for end in self.machine.ends if not end.is_lost])
        for end in self.machine.ends:
            if not end.is_lost:
                end.pause_reading()

    def thaw(self) -> None:
        """The process goes on."""
        self.is_frozen = False
        for end in self.machine.ends:
            if not end.is_lost:
                end.resume_reading()
        thawing, self._thawing = self._thawing, []
        for go_on in thawing:
            go_on()

    def heal(self) -> None:
        """From now on nothing fails."""
        self.temper = Temper()
        self.lost_models = False
        self.start()

    def when_thawed(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when the engine runs."""
        if self.is_frozen:
            self._thawing.append(go_on)
        else:
            go_on()

    # --- for its connections

    def begin(self, tag: str, path: str, body: bytes, *, is_streaming: bool) -> tuple[Call, list[Step]]:
        """Decide how to answer a request."""
        faults, weights = list(self.temper.faults), list(self.temper.faults.values())
        fault = self.dice.choices(faults, weights)[0]
        behaviour = Behaviour(fault)
        call = Call(tag, f"{self.name}.{len(self.calls)}", behaviour)
        self.calls.append(call)
        if fault.is_blamed:
            self.machine.faults += 1
        answering = Answering(
            tag,
            call.generation,
            path,
            is_streaming,
            self.dice,
            self.temper.pieces_max,
            self.temper.gap_s,
            self.temper.piece_bytes,
        )
        steps = make_steps(fault, answering)
        call.text_pieces = answering.pieces
        return call, steps

    def _accept(self) -> asyncio.Protocol:
        if self.is_frozen:
            self.machine.faults += 1
        return EngineConnection(self)


class EngineConnection(asyncio.Protocol):
    """The engine's end of one connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.end: End | None = None
        self.call: Call | None = None
        self.mistakes: list[str] = []
        self._received = b""
        self._steps: list[Step] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = False
        self._is_stepping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, End)
        self.end = transport
        transport.label = self._engine.name
        if self._engine.is_frozen:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self.call is None or self.call.is_sent:
            self._read()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._steps = []
        if self.call is not None and not self.call.ended_at_s:
            self.call.ended_at_s = self._engine.loop.time()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._play()

    def _read(self) -> None:
        head, mark, rest = self._received.partition(b"\r\n\r\n")
        if not mark:
            return
        head += b"\r\n"
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._received = rest[size:]
        tag = TAG.search(head)
        assert tag is not None, f"a request without an id reached an engine: {head!r}"
        path = head.split(b" ")[1].decode()
        body = rest[:size]
        self.call, self._steps = self._engine.begin(tag[1].decode(), path, body, is_streaming=b'"stream": true' in body)
        self._play()

    def _play(self) -> None:
        if self._is_stepping or self._is_full or self.end is None or self.end.is_closing():
            return
        if not self._steps:
            return
        self._is_stepping = True
        self._timer = self._engine.loop.call_later(self._steps[0].after_s, self._engine.when_thawed, self._step)

    def _step(self) -> None:
        self._is_stepping = False
        if self.end is None or self.end.is_closing() or not self._steps:
            return
        step = self._steps.pop(0)
        if step.data:
            self.end.write(step.data)
        if step.is_reset:
            self.end.reset()
        elif step.is_close:
            self.end.close()
        if not self._steps and self.call is not None and not step.is_hanging:
            self.call.is_sent = True
            self.call.ended_at_s = self._engine.loop.time()
            if self._received:
                self._read()
        else:
            self._play()
