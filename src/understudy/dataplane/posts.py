"""Our own requests on the way of a client's: what a continuation needs to know, and the continuation itself.

Called by dataplane.resuming. Small and whole: one POST of JSON with the backend's key, or the client's.
"""

from typing import Protocol

from understudy.dataplane.heads import KEYS, BackendWords, RequestHead, ResponseHead
from understudy.engines import ProbeAnswer
from understudy.engines.contract import PROBE_BODY_BYTES_MAX
from understudy.errors import FailureKind

# What of the client's own fields goes on with such a request, beside its key (Trace Context, 3).
_TRACE = frozenset({b"traceparent", b"tracestate"})


def post_bytes(head: RequestHead, words: BackendWords, path: str, body: bytes, request_id: bytes) -> bytes:
    """Write a POST of the JSON `body` to `path` under the backend's prefix; `head` is the client's own request."""
    names = _TRACE if words.has_key else _TRACE | KEYS
    lines = b"".join(line for name, line in head.fields if name in names)
    return b"POST %b%b%b%b%bContent-Type: application/json\r\nX-Request-ID: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        words.prefix,
        path.encode("latin-1"),
        words.after_target,
        lines,
        words.key_line,
        request_id,
        len(body),
        body,
    )


class Audience(Protocol):
    """Who asked; implemented by dataplane.resuming."""

    def on_answer(self, answer: ProbeAnswer) -> None:
        """The whole answer."""

    def on_failure(self, kind: FailureKind) -> None:
        """There will be none."""

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""


class PostedQuestion:
    """The answer to a question, taken whole and handed to `on_answer`; a broken one to `on_failure`."""

    def __init__(self, audience: Audience, now_s: float) -> None:
        self.progress_at_s = now_s
        self.is_begun = False
        self._asker = audience
        self._audience: Audience | None = audience
        self._status = 0
        self._pieces: list[bytes] = []
        self._bytes = 0

    def on_interim(self, status: int) -> None:
        """Nothing yet."""

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None:  # noqa: ARG002  # contract
        """Note the status."""
        self._status = head.status

    def on_body(self, data: bytes) -> None:
        """Keep the next bytes, as many as are of use."""
        if self._bytes < PROBE_BODY_BYTES_MAX:
            self._pieces.append(data)
            self._bytes += len(data)

    def on_last(self) -> None:
        """`on_end` follows."""

    def on_end(self, *, is_followed: bool) -> None:  # noqa: ARG002  # contract
        """Hand the answer over."""
        audience, self._audience = self._audience, None
        if audience is not None:
            audience.on_answer(ProbeAnswer(self._status, {}, b"".join(self._pieces)))

    def on_broken(self, kind: FailureKind) -> None:
        """Tell that there is none."""
        audience, self._audience = self._audience, None
        if audience is not None:
            audience.on_failure(kind)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""
        self._audience = None
        self._asker.on_exception(error)

    def detach(self) -> None:
        """Nobody wants the answer any more."""
        self._audience = None
