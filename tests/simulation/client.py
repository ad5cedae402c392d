"""A simulated client: sends requests in pieces, one after the other or pipelined, reads as fast as it likes, and may leave.

What it got is judged by simulation.invariants.
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from simulation.language import BY_PATH, MalformedError, Speech
from simulation.network import Network
from simulation.response import Response, ResponseReader
from simulation.wire import End


class Leaving(StrEnum):
    """How a client goes: a close says FIN, a reset RST, a half-close only that it sends no more."""

    CLOSE = "close"
    RESET = "reset"
    HALF_CLOSE = "half_close"


class Wanted(StrEnum):
    """What a request is for."""

    STREAM = "stream"
    WHOLE = "whole"
    PLAIN = "plain"
    LISTING = "listing"
    HEALTHZ = "healthz"
    UNKNOWN_MODEL = "unknown_model"
    WRONG_BODY = "wrong_body"
    MALFORMED = "malformed"


@dataclass
class Asked:
    """One request. `sent_at_s` is when its last byte left the client."""

    tag: str
    wanted: Wanted
    path: str = "/v1/chat/completions"
    model: str = "m"
    is_http10: bool = False
    is_last: bool = False
    sent_at_s: float = 0.0

    @property
    def speech(self) -> Speech:
        """The dialect in which it is asked."""
        return BY_PATH["/api/chat"] if self.path.startswith("/api/") else BY_PATH.get(self.path, BY_PATH["/v1/chat/completions"])

    @property
    def is_generating(self) -> bool:
        """Whether it may be repeated."""
        return self.wanted in (Wanted.STREAM, Wanted.WHOLE)

    def raw(self, *, is_chunked: bool = False) -> bytes:
        """Return the request's bytes."""
        minor = b"0" if self.is_http10 else b"1"
        extra = b"X-Request-ID: %b\r\n" % self.tag.encode()
        extra += b"Connection: close\r\n" if self.is_last else b"Connection: keep-alive\r\n" if self.is_http10 else b""
        gets = {Wanted.LISTING: b"/v1/models", Wanted.HEALTHZ: b"/healthz", Wanted.PLAIN: b"/api/version"}
        if self.wanted is Wanted.MALFORMED:
            return b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
        if self.wanted in gets:
            return b"GET %b HTTP/1.%b\r\nHost: sim\r\n%b\r\n" % (gets[self.wanted], minor, extra)
        body = self.speech.question(self.model, self.tag, is_streaming=self.wanted is not Wanted.WHOLE)
        if self.wanted is Wanted.WRONG_BODY:
            body = body[:-9]
        start = b"POST %b HTTP/1.%b\r\nHost: sim\r\nContent-Type: application/json\r\n%b" % (self.path.encode(), minor, extra)
        if is_chunked and not self.is_http10:
            half = len(body) // 2
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]))
            return start + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        return start + b"Content-Length: %d\r\n\r\n" % len(body) + body


@dataclass
class Habit:
    """How a client behaves. Counts are of bytes sent or received in all; 0 and an empty `leaving`: it does not leave."""

    is_pipelining: bool = False
    is_chunking: bool = False
    sends_bytes: int = 0
    send_gap_s: float = 0.0
    pause_s: float = 0.0
    leaving: Leaving | None = None
    leaves_after_received: int = -1
    leaves_after_sent: int = -1
    leaves_after_s: float = 0.0
    stops_reading_after: int = -1
    reads_again_after_s: float = 0.0
    window_bytes: int = 64 * 1024


@dataclass
class Client(asyncio.Protocol):
    """One connection and its requests. `answers` stand in the order of `asked`; `mistake` is what no reader would take."""

    network: Network
    asked: list[Asked]
    habit: Habit = field(default_factory=Habit)

    def __post_init__(self) -> None:
        self.reader = ResponseReader()
        self.end: End | None = None
        self.served: End | None = None
        self.mistake = ""
        self.left_at_s = 0.0
        self.lost_at_s = 0.0
        self.is_reset = False
        self.received = 0
        self._sent = 0
        self._next = 0
        self._unsent = b""
        self._sending: asyncio.TimerHandle | None = None
        self._has_stopped_reading = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen here."""
        return bool(self.lost_at_s)

    def connect(self, served: asyncio.Protocol) -> None:
        """Open the connection and begin."""
        network = self.network
        line = network.line(window_bytes=self.habit.window_bytes)
        self.end, self.served = network.open(line, ("10.1.1.1", 4), ("10.9.9.9", 80))
        self.served.label = "served"
        self.served.set_protocol(served)
        self.end.set_protocol(self)
        self.end.label = "client"
        loop = network.loop
        loop.call_soon(served.connection_made, self.served)
        loop.call_soon(self._begin)
        if self.habit.leaving is not None and self.habit.leaves_after_s:
            loop.call_later(self.habit.leaves_after_s, self.leave)

    def leave(self) -> None:
        """Go, in the way of the habit."""
        if self.end is None or self.left_at_s or self.is_over:
            return
        if self.habit.leaving is Leaving.HALF_CLOSE:
            self.end.write_eof()
            return
        self.left_at_s = self.network.loop.time()
        if self.habit.leaving is Leaving.RESET:
            self.end.reset()
        else:
            self.end.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_at_s = self.network.loop.time()
        self.is_reset = exc is not None
        if self._sending is not None:
            self._sending.cancel()
        self.reader.end(is_cut=exc is not None or bool(self.left_at_s))

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self.reader.feed(data)
        except MalformedError as mistake:
            self.mistake = self.mistake or str(mistake)
        habit = self.habit
        if habit.leaving is not None and 0 <= habit.leaves_after_received <= self.received:
            self.leave()
        elif 0 <= habit.stops_reading_after <= self.received and not self._has_stopped_reading and self.end is not None:
            self._has_stopped_reading = True
            self.end.pause_reading()
            if habit.reads_again_after_s:
                self.network.loop.call_later(habit.reads_again_after_s, self.end.resume_reading)
        if len(self.reader.done) == self._next and not self._unsent:
            self.network.loop.call_later(habit.pause_s, self._ask)

    def answers(self) -> list[Response | None]:
        """Return what came for each request, None where nothing did; the last one may not be whole."""
        found: list[Response | None] = [*self.reader.done]
        if self.reader.current is not None:
            found.append(self.reader.current)
        return found + [None] * (len(self.asked) - len(found))

    def _begin(self) -> None:
        if self.habit.is_pipelining:
            for _ in self.asked:
                self._ask()
        else:
            self._ask()

    def _ask(self) -> None:
        if self.end is None or self.end.is_closing() or self.is_over:
            return
        if self._next >= len(self.asked):
            if not self.left_at_s and not self.asked[-1].is_last:
                self.left_at_s = self.network.loop.time()
                self.end.close()
            return
        asked = self.asked[self._next]
        self._next += 1
        self.reader.methods.append(b"GET")
        self._unsent += asked.raw(is_chunked=self.habit.is_chunking)
        if self._sending is None:
            self._send()

    def _send(self) -> None:
        self._sending = None
        if self.end is None or self.end.is_closing() or not self._unsent:
            return
        size = self.habit.sends_bytes or len(self._unsent)
        piece, self._unsent = self._unsent[:size], self._unsent[size:]
        self._sent += len(piece)
        self.end.write(piece)
        if not self._unsent:
            for asked in self.asked[: self._next]:
                asked.sent_at_s = asked.sent_at_s or self.network.loop.time()
            if self.habit.leaving is Leaving.HALF_CLOSE and self._next == len(self.asked):
                self.leave()
        if self.habit.leaving is not None and 0 <= self.habit.leaves_after_sent <= self._sent:
            self.leave()
        elif self._unsent:
            self._sending = self.network.loop.call_later(self.habit.send_gap_s, self._send)
