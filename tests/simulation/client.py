"""A simulated client: sends requests in pieces, one after the other or pipelined, reads as fast as it likes, and may leave.

What it got is judged by simulation.invariants.
"""

import asyncio
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simulation.language import BY_PATH, MalformedError, Speech
from simulation.network import Network
from simulation.response import Response, ResponseReader
from simulation.wire import End
from simulation.writing import Matter, question

# More than any answer has.
TOKENS_MAX = 2000
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}


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
    """One request. `sent_at_s` is when its last byte left the client; `stop` "" for none, `tokens_max` 0 for no bound."""

    tag: str
    wanted: Wanted
    path: str = "/v1/chat/completions"
    model: str = "m"
    is_http10: bool = False
    is_last: bool = False
    matter: Matter = Matter.PLAIN
    words: int = 5
    tokens_max: int = 0
    stop: str = ""
    choices: int = 1
    wants_usage: bool = False
    wants_logprobs: bool = False
    declines_resume: bool = False
    key: str = ""
    priority: str = ""
    sent_at_s: float = 0.0

    @property
    def speech(self) -> Speech:
        """The dialect in which it is asked."""
        return BY_PATH["/api/chat"] if self.path == "/api/version" else BY_PATH[self.path]

    @property
    def is_generating(self) -> bool:
        """Whether it may be repeated."""
        return self.wanted in (Wanted.STREAM, Wanted.WHOLE)

    @property
    def is_plain(self) -> bool:
        """Whether nothing but text is asked for."""
        return self.matter is Matter.PLAIN and self.choices == 1 and not self.wants_logprobs

    def body(self) -> bytes:
        """Return the request's body."""
        asked = question(self.tag, self.matter, self.words)
        ask: dict[str, Any] = {"model": self.model, "stream": self.wanted is not Wanted.WHOLE}
        ask |= {"messages": [{"role": "user", "content": asked}]} if self.speech.is_chat else {"prompt": asked}
        stops = [self.stop] if self.stop else []
        if self.speech.kind == "ollama":
            options: dict[str, Any] = {"num_predict": self.tokens_max} if self.tokens_max else {}
            ask |= {"options": options | ({"stop": stops} if stops else {})}
            ask |= {"format": "json"} if self.matter is Matter.JSON else {}
        else:
            # Engines have bounds of their own for the others.
            bound = self.tokens_max or (0 if self.path == "/v1/chat/completions" else TOKENS_MAX)
            ask |= {"max_tokens": bound} if bound else {}
            ask |= {"stop_sequences" if self.speech.kind == "anthropic" else "stop": stops} if stops else {}
            ask |= {"response_format": {"type": "json_object"}} if self.matter is Matter.JSON else {}
        ask |= {"tools": [TOOL]} if self.matter is Matter.CALL else {}
        ask |= {"n": self.choices} if self.choices > 1 else {}
        ask |= {"logprobs": 1 if self.path == "/v1/completions" else True} if self.wants_logprobs else {}
        ask |= {"stream_options": {"include_usage": True}} if self.wants_usage else {}
        return json.dumps(ask).encode()

    def raw(self, *, is_chunked: bool = False) -> bytes:
        """Return the request's bytes."""
        minor = b"0" if self.is_http10 else b"1"
        extra = self._fields()
        gets = {Wanted.LISTING: b"/v1/models", Wanted.HEALTHZ: b"/healthz", Wanted.PLAIN: b"/api/version"}
        if self.wanted is Wanted.MALFORMED:
            return b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
        if self.wanted in gets:
            return b"GET %b HTTP/1.%b\r\nHost: sim\r\n%b\r\n" % (gets[self.wanted], minor, extra)
        body = self.body()
        if self.wanted is Wanted.WRONG_BODY:
            body = body[:-9]
        start = b"POST %b HTTP/1.%b\r\nHost: sim\r\nContent-Type: application/json\r\n%b" % (self.path.encode(), minor, extra)
        if is_chunked and not self.is_http10:
            half = len(body) // 2
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]))
            return start + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        return start + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _fields(self) -> bytes:
        lines = [f"X-Request-ID: {self.tag}"]
        lines += ["Connection: close"] if self.is_last else ["Connection: keep-alive"] if self.is_http10 else []
        lines += ["X-Understudy-No-Resume: 1"] if self.declines_resume else []
        lines += [f"X-Understudy-Priority: {self.priority}"] if self.priority else []
        lines += [f"Authorization: Bearer {self.key}"] if self.key else []
        return "".join(f"{line}\r\n" for line in lines).encode()


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
