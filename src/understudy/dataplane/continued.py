"""The answer to a continuation: its events are rewritten as those of the stream that broke, and go on where that one ended.

Bound to an upstream connection by dataplane.resuming. What an event means and how it is written is dialects.splice's; this tells
the exchange how it went. Not the hot path: each event is read and written anew.
"""

from typing import TYPE_CHECKING

from understudy import engines
from understudy.core.transcript import Continuation
from understudy.dataplane import completing
from understudy.dataplane.answer import ERROR_BYTES_MAX, JSON
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.received import FOLD_BYTES
from understudy.dialects.splice import Splice, Spliced
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange
    from understudy.dataplane.resuming import Resumer

# With these, or with a fault of the request, the backend says that it does not continue texts this way; another way may do.
_OTHER_WAY = (None, FailureKind.UNSUPPORTED)


class ContinuedAnswer:
    """The answer of an attempt that goes on; `progress_at_s` and `is_begun` as for dataplane.answer."""

    def __init__(
        self,
        exchange: "RelayedExchange",
        attempt: RunningAttempt,
        resumer: "Resumer",
        continuation: Continuation,
        splice: Splice,
    ) -> None:
        self.progress_at_s = exchange.now_s()
        self.is_begun = False
        self._exchange = exchange
        self._attempt = attempt
        self._resumer = resumer
        self._received = resumer.received
        self._continuation = continuation
        self._splice = splice
        self._kept_bytes = 0
        self._head: ResponseHead | None = None
        self._error: list[bytes] = []
        self._is_over = False

    # --- from the connection

    def on_interim(self, status: int) -> None:
        """Interim answers belong to a client's own request."""

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None:
        """Take events; anything else is a refusal of some kind."""
        if not 200 <= head.status < 300 or head.content_type == JSON or head.content_encoding or not has_body:
            self._head = head

    def on_body(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._is_over:
            return
        if self._head is not None:
            if sum(map(len, self._error)) < ERROR_BYTES_MAX:
                self._error.append(data)
            return
        if b'"' in data:
            # Comments and empty lines are no progress.
            self.progress_at_s = self._exchange.now_s()
        self._take(self._splice.feed(data))

    def on_last(self) -> None:
        """The last byte has come; `on_end` follows."""

    def on_end(self, *, is_followed: bool) -> None:  # noqa: ARG002  # contract
        """The body is complete, which says nothing of the answer."""
        if self._is_over:
            return
        if self._head is not None:
            self._end_refused(self._head)
        elif not self._end_whole():
            self._fail(FailureKind.UNFINISHED)

    def on_broken(self, kind: FailureKind) -> None:
        """The connection cannot complete the answer."""
        if not self._is_over and (self._head is not None or not self._end_whole()):
            self._fail(kind)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""
        self._is_over = True
        self._exchange.on_exception(error)

    def detach(self) -> None:
        """Take no more bytes: the attempt is over."""
        self._is_over = True

    # --- what it means

    def _take(self, spliced: Spliced) -> None:
        exchange = self._exchange
        # One that had only the end to add has gone on, too, and the client has seen the mark of it.
        if (spliced.is_content or spliced.data) and not self.is_begun:
            self.is_begun = True
            exchange.on_resumed(self._attempt)
        if spliced.kept:
            self._received.keep(spliced.kept)
            self._kept_bytes += len(spliced.kept)
            if self._kept_bytes > FOLD_BYTES:
                self._kept_bytes = 0
                if self._received.shrink():
                    if self._received.is_collected:
                        self._is_over = True
                        completing.stop_collecting(exchange, self._attempt)
                        return
                    exchange.on_outgrown()
        if spliced.data and not self._received.is_collected:
            exchange.outlet.write(spliced.data)
        if spliced.is_complete:
            self._is_over = True
            completing.finish_continued(exchange, self._attempt, self._splice.prompt_tokens)
        elif spliced.is_error:
            self._fail(FailureKind.ERROR_EVENT)

    def _end_whole(self) -> bool:
        """Whether the backend had said all of it, though the terminator is missing."""
        self._take(self._splice.end())
        return self._is_over

    def _end_refused(self, head: ResponseHead) -> None:
        retry_after = head.retry_after.decode("latin-1")
        kind = engines.classify(
            self._attempt.engine, status=head.status, retry_after=retry_after, body=b"".join(self._error)[:ERROR_BYTES_MAX]
        )
        self._is_over = True
        if kind in _OTHER_WAY:
            self._resumer.on_means_refused(self._attempt, self._continuation.means)
        else:
            self._exchange.on_attempt_failed(
                self._attempt, kind, status=head.status, retry_after_s=engines.retry_after_s(retry_after)
            )

    def _fail(self, kind: FailureKind) -> None:
        self._is_over = True
        self._exchange.on_attempt_failed(self._attempt, kind)
