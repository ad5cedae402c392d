"""What a client's connection and the relay are to each other, so that neither needs the other's file.

Implemented by dataplane.relayed (`Running`) and dataplane.relay (`Taker`), used by dataplane.downstream and dataplane.listener.
"""

from typing import TYPE_CHECKING, Protocol

from understudy.core.snapshot import Limits
from understudy.dataplane.heads import Rejection, RequestHead

if TYPE_CHECKING:
    from understudy.dataplane.downstream import DownstreamConnection


class Running(Protocol):
    """What a connection needs of the exchange that it carries."""

    def on_client_gone(self) -> None:
        """The client has left."""

    def on_half_closed(self) -> None:
        """The client has closed its sending side in the middle of its answer: write something that tells whether it left."""

    def on_downstream_full(self) -> None:
        """Stop reading the backend: the client does not keep up."""

    def on_downstream_ready(self) -> None:
        """Read on."""


class Taker(Protocol):
    """Who takes whole requests: the relay."""

    limits: Limits
    body_bytes_max: int
    is_stopping: bool

    def admit(self, connection: "DownstreamConnection") -> bool:
        """Count a new connection; False when there is no room for it."""

    def take(self, connection: "DownstreamConnection", head: RequestHead, body: bytes) -> None:
        """Answer a request, at once or by and by; sets the connection's `running` while an exchange lasts."""

    def forget(self, connection: "DownstreamConnection") -> None:
        """The connection is closed."""

    def refuse(self, rejection: Rejection, head: RequestHead | None) -> bytes:
        """Write the answer to a request that cannot be accepted."""

    def now_s(self) -> float:
        """Return the loop's time."""
