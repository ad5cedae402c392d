"""Which exchanges have a shadow, and what passes between who answers the client and who runs the shadow.

A shadow is one more send of a client's request, to the color that does not answer it, to see how that one would have done.
Read by dataplane, which begins shadows without knowing who runs them, and by controlplane.shadows, which does. Pure: words and
the pick alone. Never chooses a backend.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from understudy.core.ask import DialectName
from understudy.core.color import Color

# What goes on of a client's fields. Cookies never do, nor anything that tells of the client or of its session.
SHADOW_FIELDS = frozenset({b"authorization", b"x-api-key", b"anthropic-version", b"anthropic-beta", b"content-type"})

_HASH_BYTES = 8
_HASHES = 1 << 8 * _HASH_BYTES


class ShadowOutcome(StrEnum):
    """What became of a shadow; the word in the log and the metrics."""

    ANSWERED = "answered"
    FAILED = "failed"
    HUNG = "hung"  # one of the backend's time limits has passed
    TOO_LARGE = "too_large"  # more came than is read of an answer
    DROPPED = "dropped"  # never sent: every place was taken, or no backend of that color could take it


@dataclass(frozen=True, slots=True)
class ShadowAsk:
    """A request to be sent to `color` once more.

    `path` may carry the query. `body` is the client's as it would be sent, before any backend's or color's own changes; `model`
    is the client's name for it. `fields` are (lower-case name, value) of `SHADOW_FIELDS`. Its repr leaves out texts and keys.
    """

    color: Color
    path: str
    body: bytes = field(repr=False)
    model: str
    dialect: DialectName | None
    is_streaming: bool
    fields: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    request_id: bytes = b""


class ShadowRun(Protocol):
    """One shadow, as who answers the client sees it. One of the two is called, once; neither waits nor raises."""

    def on_client_done(self, text: str | None, ttft_s: float, duration_s: float) -> None:
        """Take the client's own answer, now that it is over; `text` None: it cannot be compared."""

    def on_client_left(self) -> None:
        """Hear that the client left or its answer failed: there is nothing to compare with."""


class ShadowTaker(Protocol):
    """Who runs shadows: controlplane.shadows."""

    def begin(self, asked: ShadowAsk) -> ShadowRun | None:
        """Begin a shadow of an exchange whose client has its first content; None where none can be had. Returns at once."""


def is_shadowed(request_id: bytes, share: float) -> bool:
    """Whether the exchange of this id belongs to the `share` (0.0 to 1.0) that has a shadow; always the same for one id."""
    if share <= 0.0:
        return False
    place = int.from_bytes(blake2b(request_id, digest_size=_HASH_BYTES).digest())
    return place < share * _HASHES
