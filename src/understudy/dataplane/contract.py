"""What a client's connection and the relay are to each other, and who hears of them, so that none needs the other's file.

Implemented by dataplane.relayed (`Running`), dataplane.relay (`Taker`) and daemon (`Listener`), used by dataplane.downstream,
listener and relay.
"""

from typing import TYPE_CHECKING, Protocol

from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import Limits
from understudy.dataplane.heads import Rejection, RequestHead
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.attempt import RunningAttempt
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


class Listener(Protocol):
    """Who hears what the data plane has seen; implemented by daemon."""

    def observe(self, name: str, kind: FailureKind | None) -> None:
        """Traffic has shown something of a backend: a failure, or None for a success."""

    def suspect(self, name: str) -> None:
        """An exchange waits on a backend longer than it should have to; said again and again while that is so."""

    def finished(self, record: ExchangeRecord) -> None:
        """An exchange is over: the log line and the metrics."""

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Something an operator must know."""

    def report(self, error: BaseException, request_id: str) -> None:
        """Our own code raised."""


class AttemptGauge(Protocol):
    """Who measures what attempts came to; set by daemon."""

    def on_attempt(self, attempt: "RunningAttempt", kind: FailureKind | None, now_s: float) -> None:
        """An attempt is over; `kind` None: it did what was asked of it. Called before its answer is let go."""
