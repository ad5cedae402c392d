"""A client connection with a host that takes its requests in the relay's place, for plays of one connection alone."""

from dataclasses import replace
from typing import Any

from support.transports import MemoryTransport, connected
from understudy.core.snapshot import Limits
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import Rejection, RequestHead

LIMITS = Limits(head_bytes_max=2000, target_bytes_max=500)
BODY_BYTES_MAX = 1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Exchange:
    """A running exchange, as the connection sees it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_client_gone(self) -> None:
        """Note it."""
        self.told.append("gone")

    def on_half_closed(self) -> None:
        """Note it."""
        self.told.append("half closed")

    def on_downstream_full(self) -> None:
        """Note it."""
        self.told.append("full")

    def on_downstream_ready(self) -> None:
        """Note it."""
        self.told.append("ready")


class Host:
    """Takes requests: answers at once, or keeps them running when `is_slow`."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.body_bytes_max = BODY_BYTES_MAX
        self.is_stopping = False
        self.has_room = True
        self.is_slow = False
        self.clock_s = 100.0
        self.taken: list[tuple[bytes, bytes]] = []
        self.heads: list[RequestHead] = []
        self.refused: list[tuple[int, bytes | None]] = []
        self.forgotten = 0
        self.exchange = Exchange()

    def admit(self, connection: DownstreamConnection) -> bool:
        """Admit while there is room."""
        return self.has_room

    def take(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        """Note the request and answer it, unless the host is slow."""
        self.taken.append((head.path, body))
        self.heads.append(head)
        if self.is_slow:
            self.exchange = Exchange()
            connection.running = self.exchange
        else:
            connection.write(ANSWER)
            connection.finish(keeps_alive=head.keeps_alive)

    def forget(self, connection: DownstreamConnection) -> None:
        """Note that the connection is gone."""
        self.forgotten += 1

    def refuse(self, rejection: Rejection, head: RequestHead | None) -> bytes:
        """Note the rejection and word it."""
        self.refused.append((rejection.status, head.path if head is not None else None))
        return b"%d" % rejection.status

    def now_s(self) -> float:
        """The play's time."""
        return self.clock_s


class Play:
    """One client at one host."""

    def __init__(self, **limits: Any) -> None:
        self.host = Host(replace(LIMITS, **limits))
        self.connection = DownstreamConnection(self.host)
        self.client: MemoryTransport = connected(self.connection)

    @property
    def statuses(self) -> list[int]:
        """The statuses of the refusals."""
        return [status for status, _ in self.host.refused]

    def answer(self, *, keeps_alive: bool = True) -> None:
        """Let the running exchange end."""
        self.connection.write(ANSWER)
        self.connection.finish(keeps_alive=keeps_alive)
