"""Two ends of a TCP connection in memory, as a kernel and an asyncio transport behave together.

Bytes arrive in order, after a latency, in pieces of a size that the seed chooses. A receiver that does not read closes the
window, so that the sender's buffer grows and its protocol is paused. A close sends FIN, or RST where bytes were left unread or
SO_LINGER is 0; bytes to a closed end are answered with RST; a reset behind a half-close is noticed by writes and TCP_INFO only,
as on Linux.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulation.virtual_loop import VirtualLoop

PIECES_MAX = 40
TCP_ESTABLISHED, TCP_CLOSED = 1, 7
LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """What the way between two ends is like. `piece_bytes` says how many bytes at most travel together next."""

    latency_s: Callable[[], float]
    piece_bytes: Callable[[], int]
    window_bytes: int = 64 * 1024


class _Fin:
    """The sender has no more to say."""


class _Rst:
    """The sender's kernel knows of no such connection."""


_FIN, _RST = _Fin(), _Rst()
Message = bytes | _Fin | _Rst


class KernelSocket:
    """What a transport's `socket` is asked for: SO_LINGER and TCP_INFO."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.is_reset = False
        self.is_lingering_none = False

    def fileno(self) -> int:
        """Raise OSError: there is no file whose queue could be asked."""
        raise OSError("a socket of the simulation")

    def setsockopt(self, _level: int, option: int, value: Any) -> None:
        """Take a setting; only SO_LINGER matters here."""
        if option == socket.SO_LINGER:
            self.is_lingering_none = value == LINGER_NONE

    def getsockopt(self, _level: int, _option: int, _bytes: int = 0) -> bytes:
        """Return the first byte of TCP_INFO: the state."""
        return bytes([TCP_CLOSED if self.is_reset else TCP_ESTABLISHED])


class End(asyncio.Transport):
    """One end. `reset_at_s` is when the peer's reset came in, `closing_at_s` when this end gave up; 0.0 while it did not.

    `label` is a word for whoever looks on. `on_write` sees what is written, before it travels.
    """

    def __init__(self, loop: VirtualLoop, line: Line, peername: tuple[str, int]) -> None:
        super().__init__()
        self.loop = loop
        self.label = ""
        self.peer: End | None = None
        self.on_write: Callable[[bytes], None] | None = None
        self.on_arrival: Callable[[], None] | None = None
        self.reset_at_s = 0.0
        self.closing_at_s = 0.0
        self.is_lost = False
        self.kernel = KernelSocket()
        self._line = line
        self._peername = peername
        self._protocol: asyncio.Protocol | None = None
        # Sending: what the kernel has not taken, what it has taken and the peer has not read, what is on the way.
        self._unsent = bytearray()
        self._untaken_bytes = 0
        self._way: deque[Message] = deque()
        self._arrives_at_s = 0.0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._is_writing_paused = False
        self._is_eof_wanted = False
        self._is_fin_sent = False
        # Receiving.
        self._inbox: deque[bytes] = deque()
        self._is_reading = True
        self._is_fin_in = False
        self._is_eof_told = False
        self._is_reading_due = False

    # --- asyncio.Transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.kernel, "peername": self._peername}.get(name, default)

    def is_closing(self) -> bool:
        return self.closing_at_s > 0.0

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._read_soon()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.is_lost or (self.is_closing() and not self._unsent):
            return
        if self.on_write is not None:
            self.on_write(bytes(data))
        if self.kernel.is_reset:
            self._lose_soon(BrokenPipeError())
            return
        self._unsent += data
        self._push()
        if len(self._unsent) > self._high and not self._is_writing_paused:
            self._is_writing_paused = True
            self.get_protocol().pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_eof_wanted and not self.is_closing():
            self._is_eof_wanted = True
            self._push()

    def close(self) -> None:
        if self.is_closing():
            return
        self.closing_at_s = self.loop.time()
        if not self._unsent:
            self.loop.call_soon(self._finish, None)

    def abort(self) -> None:
        self._unsent.clear()
        if not self.is_closing():
            self.closing_at_s = self.loop.time()
        self.loop.call_soon(self._finish, None)

    def reset(self) -> None:
        """Close with RST."""
        self.kernel.is_lingering_none = True
        self.abort()

    # --- sending

    def _push(self) -> None:
        while self._unsent and self._untaken_bytes < self._line.window_bytes:
            # A long answer in tiny pieces would take long and show nothing new.
            size = max(self._line.piece_bytes(), len(self._unsent) // PIECES_MAX)
            size = min(size, self._line.window_bytes - self._untaken_bytes)
            piece = bytes(self._unsent[:size])
            del self._unsent[:size]
            self._untaken_bytes += len(piece)
            self._send(piece)
        if self._unsent:
            return
        if self._is_eof_wanted and not self._is_fin_sent:
            self._is_fin_sent = True
            self._send(_FIN)
        if self.is_closing():
            self.loop.call_soon(self._finish, None)

    def _send(self, message: Message) -> None:
        self._way.append(message)
        self._arrives_at_s = max(self._arrives_at_s, self.loop.time() + self._line.latency_s())
        # The clock's order among equal instants is not the order of sending, so each arrival takes the oldest message.
        self.loop.call_at(self._arrives_at_s, self._deliver)

    def _deliver(self) -> None:
        assert self.peer is not None
        self.peer.take(self._way.popleft())

    def on_taken(self, size: int) -> None:
        """The peer has read so many bytes."""
        self._untaken_bytes -= size
        if self.is_lost:
            return
        self._push()
        if self._is_writing_paused and len(self._unsent) <= self._low:
            self._is_writing_paused = False
            self.get_protocol().resume_writing()

    # --- receiving

    def take(self, message: Message) -> None:
        """Something has come over the line."""
        if self.on_arrival is not None:
            self.on_arrival()
        if message is _RST:
            self.kernel.is_reset = True
            self.reset_at_s = self.reset_at_s or self.loop.time()
            if self._unsent:
                self._lose_soon(ConnectionResetError())
        elif self.is_lost:
            if isinstance(message, bytes):
                self._send(_RST)
            return
        elif isinstance(message, bytes):
            self._inbox.append(message)
        else:
            self._is_fin_in = True
        self._read_soon()

    def _read_soon(self) -> None:
        if not self._is_reading_due:
            self._is_reading_due = True
            self.loop.call_soon(self._read)

    def _read(self) -> None:
        self._is_reading_due = False
        # asyncio stops watching a socket that has said EOF, so a reset after it is seen by writes alone.
        if self.is_lost or self.is_closing() or not self._is_reading or self._is_eof_told:
            return
        if self._inbox:
            data = self._inbox.popleft()
            assert self.peer is not None
            self.loop.call_soon(self.peer.on_taken, len(data))
            self._read_soon()
            assert self._protocol is not None
            self._protocol.data_received(data)
        elif self.kernel.is_reset:
            self._lose(ConnectionResetError())
        elif self._is_fin_in:
            self._is_eof_told = True
            assert self._protocol is not None
            if not self._protocol.eof_received():
                self.close()

    # --- the end

    def _lose_soon(self, error: OSError) -> None:
        self.loop.call_soon(self._lose, error)

    def _lose(self, error: OSError) -> None:
        self._unsent.clear()
        if not self.is_closing():
            self.closing_at_s = self.loop.time()
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        if not self.kernel.is_reset:
            if self._inbox or self.kernel.is_lingering_none:
                self._send(_RST)
            elif not self._is_fin_sent:
                self._is_fin_sent = True
                self._send(_FIN)
        # What nobody will read any more does not keep the peer's window closed.
        assert self._protocol is not None
        self._protocol.connection_lost(error)


def make_pair(loop: VirtualLoop, line: Line, near: tuple[str, int], far: tuple[str, int]) -> tuple[End, End]:
    """Return the two ends of a new connection; `near` and `far` are what each end's peer is called by the other one."""
    one, other = End(loop, line, far), End(loop, line, near)
    one.peer, other.peer = other, one
    return one, other
