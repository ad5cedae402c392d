"""Transports in memory: what a protocol writes is kept, what its peer does is said by the play.

`MemoryTransport` is one connection's kernel side. `MemoryNetwork` stands where the event loop opens connections, so that the
whole data plane runs without a socket. Neither knows HTTP.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

# Enough turns of the loop for callbacks that call back.
TURNS = 20


async def settle() -> None:
    """Let the loop run whatever is due now."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class MemoryTransport(asyncio.Transport):
    """One connection. `written` holds the writes in order; `is_stuck`: the peer takes nothing, so that they pile up."""

    def __init__(self, protocol: asyncio.Protocol, peer: object = ("192.0.2.7", 50000)) -> None:
        super().__init__({"peername": peer})
        self.protocol = protocol
        self.written: list[bytes] = []
        self.is_stuck = False
        self.is_paused = False
        self.is_aborted = False
        self.has_written_eof = False
        self.unsent_bytes = 0
        self._high_bytes = 64 * 1024
        self._is_closing = False
        self._is_lost = False
        self._is_write_paused = False

    # --- for the play

    @property
    def data(self) -> bytes:
        """Everything that was written."""
        return b"".join(self.written)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = self.data
        self.written.clear()
        return data

    def feed(self, data: bytes) -> None:
        """Let the peer send bytes; they are lost once the connection is closed, as they would be."""
        if not self._is_closing:
            self.protocol.data_received(data)

    def feed_bytewise(self, data: bytes) -> None:
        """Let the peer send bytes one by one."""
        for i in range(len(data)):
            self.feed(data[i : i + 1])

    def end(self) -> None:
        """Let the peer close its sending side; the connection goes when the protocol does not want to keep it."""
        if not self._is_closing and not self.protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None = None) -> None:
        """Let the connection break."""
        self._is_closing = True
        self._lose(error)

    def drain(self) -> None:
        """Let the peer take all that has piled up."""
        self.is_stuck = False
        self.unsent_bytes = 0
        if self._is_write_paused:
            self._is_write_paused = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose_soon()

    # --- for the protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep a write."""
        assert not self.has_written_eof, "a write after write_eof"
        if self._is_closing:
            return
        self.written.append(bytes(data))
        if self.is_stuck:
            self.unsent_bytes += len(data)
            if self.unsent_bytes > self._high_bytes and not self._is_write_paused:
                self._is_write_paused = True
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Keep several writes as one."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Close the sending side."""
        self.has_written_eof = True

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def close(self) -> None:
        """Close once everything is sent."""
        if not self._is_closing:
            self._is_closing = True
            if not self.unsent_bytes:
                self._lose_soon()

    def abort(self) -> None:
        """Close at once."""
        self.is_aborted = True
        self._is_closing = True
        self._lose_soon()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Take no more from the peer."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Take from the peer again."""
        self.is_paused = False

    def is_reading(self) -> bool:
        """Whether bytes are taken from the peer."""
        return not self.is_paused and not self._is_closing

    def get_write_buffer_size(self) -> int:
        """How much has piled up."""
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may pile up."""
        self._high_bytes = self._high_bytes if high is None else high

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self.protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who has the connection."""
        return self.protocol

    def _lose_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.protocol.connection_lost(error)


def connected(protocol: asyncio.Protocol, peer: object = ("192.0.2.7", 50000)) -> MemoryTransport:
    """Connect a protocol to a transport of its own."""
    transport = MemoryTransport(protocol, peer)
    protocol.connection_made(transport)
    return transport


class MemoryNetwork:
    """What lies behind `loop.create_connection`. `opened` holds the connections per port, in order.

    Every port accepts, unless `failing` holds the error that it answers with; one in `silent` never answers.
    """

    def __init__(self) -> None:
        self.opened: dict[int, list[MemoryTransport]] = {}
        self.failing: dict[int, Exception] = {}
        self.silent: set[int] = set()
        self.asked: list[tuple[str, int]] = []
        self.names: dict[str, list[str] | OSError] = {}
        self.lookups: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the running loop's place in opening connections and looking up names."""
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_connection", self.create_connection)
        monkeypatch.setattr(loop, "getaddrinfo", self.getaddrinfo)

    async def create_connection(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int, **_more: object
    ) -> tuple[MemoryTransport, asyncio.Protocol]:
        """Open a connection, as the loop does."""
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if port in self.silent:
            await asyncio.get_running_loop().create_future()
        if port in self.failing:
            raise self.failing[port]
        protocol = protocol_factory()
        transport = connected(protocol, (host, port))
        self.opened.setdefault(port, []).append(transport)
        return transport, protocol

    async def getaddrinfo(self, host: str, _port: object, **_more: object) -> list[tuple[object, ...]]:
        """Look a name up, as the loop does."""
        self.lookups.append(host)
        await asyncio.sleep(0)
        found = self.names.get(host, OSError(-2, "Name or service not known"))
        if isinstance(found, OSError):
            raise found
        return [(2, 1, 6, "", (address, 0)) for address in found]
