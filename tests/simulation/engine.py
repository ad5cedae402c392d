"""A simulated engine: reads requests strictly, answers as its temper and the seed decide, and can be stopped, frozen or emptied.

Every answer is a list of steps played by timers. What was asked and how far each answer came is kept in `calls`, so that a
play can compare it with what the clients got.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from simulation.faults import Answering, Behaviour, Fault, Step, make_steps, make_told
from simulation.network import Door, Machine, Network
from simulation.virtual_loop import VirtualLoop
from simulation.wire import End
from simulation.writing import KINDS, Make, asks_nothing, bytes_of, dialect_of, goes_on
from support.answers import whole
from support.breaks import Utterance
from understudy.core.snapshot import EngineKind

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
TAG = re.compile(rb"\r\nx-request-id: *(\S+)\r\n", re.IGNORECASE)


# What is no path of a dialect's: any request that generates nothing.
PLAIN = Utterance((), (), (), (), whole={"version": "1"})
NOT_FOUND = bytes_of(whole(404, {"detail": "Not Found"}))
REFUSAL = whole(400, {"error": {"code": 400, "message": "Cannot continue this message.", "type": "invalid_request_error"}})


@dataclass
class Call:
    """One request as an engine saw it. `text_pieces` is how many pieces its answer has; `is_sent`: all of it was sent.

    `is_question`: it generates nothing; `goes_on`: it is to continue an answer; `is_refused`: as a fault of the request.
    """

    tag: str
    behaviour: Behaviour
    text_pieces: int = 0
    is_question: bool = False
    goes_on: bool = False
    is_refused: bool = False
    is_sent: bool = False
    begun_at_s: float = 0.0
    ended_at_s: float = 0.0


@dataclass
class Temper:
    """How an engine behaves: faults with their weights, how fast and how long its events are, what it continues."""

    faults: dict[Fault, float] = field(default_factory=lambda: {Fault.NONE: 1.0})
    gap_s: float = 0.05
    piece_bytes: int = 0
    refuses_to_go_on: bool = False
    make: Make = Make.OLLAMA


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
        self.dialect = dialect_of(temper.make)
        # What its own figures would show: how much it has written.
        self.written = 0
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
        self.temper = Temper(make=self.temper.make)
        self.lost_models = False
        self.start()

    def when_thawed(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when the engine runs."""
        if self.is_frozen:
            self._thawing.append(go_on)
        else:
            go_on()

    # --- for its connections

    def begin(self, tag: str, path: str, body: bytes) -> tuple[Call, list[Step]]:
        """Decide how to answer a request."""
        ask = json.loads(body) if body else {}
        faults, weights = list(self.temper.faults), list(self.temper.faults.values())
        fault = self.dice.choices(faults, weights)[0]
        call = Call(tag, Behaviour(fault), is_question=asks_nothing(path, ask), goes_on=bool(body) and goes_on(ask))
        call.begun_at_s = self.loop.time()
        self.calls.append(call)
        if fault.is_blamed:
            self.machine.faults += 1
        answer = self.dialect.answer(path, ask) if body else PLAIN
        if self.temper.refuses_to_go_on and call.goes_on:
            answer = REFUSAL
        is_generated = isinstance(answer, Utterance)
        utterance = answer if isinstance(answer, Utterance) else PLAIN
        is_streaming = body != b"" and bool(ask.get("stream", path.startswith("/api/")))
        answering = Answering(tag, path, is_streaming, self.dice, self.temper.gap_s, utterance, self.temper.piece_bytes)
        call.text_pieces = len(utterance.pieces)
        if is_generated:
            return call, make_steps(fault, answering)
        told = bytes_of(answer) if answer is not None and not isinstance(answer, Utterance) else NOT_FOUND
        call.is_refused = not told.startswith(b"HTTP/1.1 200")
        return call, make_told(fault, told, answering)

    @property
    def kind(self) -> EngineKind:
        """The software."""
        return KINDS[self.temper.make]

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
        body = rest[:size] if head.startswith(b"POST") else b""
        self.call, self._steps = self._engine.begin(tag[1].decode(), path, body)
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
            self._engine.written += 1
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
