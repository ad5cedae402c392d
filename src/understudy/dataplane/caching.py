"""Record an answer on its way to the client, and answer an exact repeat of its request from what was recorded.

Called by dataplane.relay before an exchange asks anybody, by dataplane.relayed at its end and by dataplane.ending where no
backend can answer; core.answer_cache keeps. Only what came from one attempt, whole and with status 200, is kept. Decides nothing
about backends and costs nothing while no answers are kept.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.core.answer_cache import AnswerCache, CachedAnswer, digest_of
from understudy.core.commands import Abort
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import CacheWhen
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import RequestHead, ResponseHead
from understudy.dataplane.outlet import COMMENT, NO_BUFFERING, NO_CACHE, Outlet
from understudy.dialects.contract import StreamKind
from understudy.dialects.pieces import BROKEN_FINISHES
from understudy.dialects.repeatable import is_repeatable
from understudy.errors import MEANING, Side

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# What the client is told in X-Understudy-Cache, and the record.
HIT = "hit"  # nobody was asked
STALE = "stale"  # nobody else could answer

# Fields of a request that say who asks or what the answer is to be like. All others leave an answer as it is, and some differ
# each time (traceparent, x-stainless-retry-count), so that no request would ever be an exact repeat.
_TOLD_APART = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"api-key",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"openai-beta",
        b"openai-organization",
        b"openai-project",
        b"x-api-key",
    }
)
# Fields of an answer that are for whoever got it first (RFC 9111, 7.3).
_FOR_ONE_CLIENT = (b"set-cookie:",)
# An answer that has these is a repeat itself, of another cache.
_OF_A_REPEAT = (b"age:", b"x-understudy-cache:")
# The failures behind which a kept answer serves a client better than an error (RFC 5861, 4), and that every backend is busy.
_STALE_IF = frozenset({429, 500, 502, 503, 504})


class RecordingOutlet(Outlet):
    """An outlet that keeps what it writes, for the answer of the request with this digest.

    It gives up in silence where the answer is not to be kept or is too large. `wants_fresh`: this client takes no kept answer.
    """

    # The hot path must not write past `write`.
    writes_directly = False
    wants_fresh = False
    _lines = b""
    _is_event_stream = False
    _is_given_up = False
    _reserved_bytes = 0

    def __init__(
        self, record: ExchangeRecord, write_to_client: Callable[[bytes], None], answers: AnswerCache, digest: bytes
    ) -> None:
        super().__init__(record, write_to_client)
        self.answers = answers
        self.digest = digest
        self._epoch = answers.epoch
        self._pieces: list[bytes] = []

    def open(
        self,
        exchange: "RelayedExchange",
        head: ResponseHead,
        *,
        kind: StreamKind | None,
        whole: bytes | None = None,
        has_body: bool = True,
        lines: bytes = b"",
    ) -> None:
        """Write the head; see `Outlet.open`."""
        super().open(exchange, head, kind=kind, whole=whole, has_body=has_body, lines=lines)
        if not _is_kept(head, kind, has_lines=bool(lines)):
            self.let_go()
            return
        kept = lines or b"".join(line for line in head.lines if not line.lower().startswith(_FOR_ONE_CLIENT))
        if kind is not None:
            kept += (b"" if head.has_cache_control else NO_CACHE) + (b"" if head.has_buffering else NO_BUFFERING)
        self._lines = kept
        self._is_event_stream = kind is StreamKind.SSE
        if whole:
            self._keep(whole)

    def write(self, data: bytes) -> None:
        """Write the next bytes of the body; a comment, which tells that we are still waiting, is no part of the answer."""
        super().write(data)
        if data and data != COMMENT and not self._is_given_up:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        size = len(data)
        if self._reserved_bytes + size > self.answers.answer_bytes_max or not self.answers.reserve(size):
            self.let_go()
            return
        self._reserved_bytes += size
        self._pieces.append(data)

    def put(self, backend: str, now_s: float) -> None:
        """Hand the whole answer over to be kept; nothing more is recorded."""
        body = b"".join(self._pieces)
        self.let_go()
        if body and self._epoch == self.answers.epoch:
            self.answers.put(self.digest, CachedAnswer(self._lines, body, self._is_event_stream, backend, now_s), now_s)

    def let_go(self) -> None:
        """Record no more and forget what was recorded."""
        self._is_given_up = True
        self.answers.release(self._reserved_bytes)
        self._reserved_bytes = 0
        self._pieces.clear()


def _is_kept(head: ResponseHead, kind: StreamKind | None, *, has_lines: bool) -> bool:
    """Whether an answer with this head is kept once it is whole; `has_lines`: the head is ours, and so is the body.

    What is compressed cannot be read, and a body of JSON that ends with its connection may have been cut: nobody could tell.
    """
    if head.status != 200 or head.content_encoding:
        return False
    if kind is None and not has_lines and head.content_length < 0 and not head.is_chunked:
        return False
    # Cache-Control is not heeded: web frameworks say no-store of every event stream (sse-starlette).
    return not any(line.lower().startswith(_OF_A_REPEAT) for line in head.lines)


# --- what exchanges call


def send_known(exchange: "RelayedExchange", answers: AnswerCache) -> bool:
    """Answer an exact repeat at once where the file says so; otherwise see to it that the answer is recorded.

    For a generating request that belongs to no stored session, before anybody is asked, and only while `answers` is on. True
    when the exchange is over. A client's Cache-Control may ask for an answer that is made anew (no-cache), and for one that is
    not kept either (no-store; RFC 9111, 5.2.1).
    """
    head = exchange.head
    wishes = b",".join(line for name, line in head.fields if name == b"cache-control").lower()
    if b"no-store" in wishes or not is_repeatable(exchange.ask.path, exchange.body):
        return False
    # Blue and green may be two voices of one model.
    digest = digest_of(head.method, head.target, exchange.ask.color.encode(), *_told_apart(head), exchange.body)
    wants_fresh = b"no-cache" in wishes
    if answers.rules.when is CacheWhen.ALWAYS and not wants_fresh:
        now_s = exchange.now_s()
        answer = answers.get(digest, now_s)
        if answer is not None:
            answer_from(exchange, answer, HIT, now_s)
            return True
    exchange.outlet = outlet = RecordingOutlet(exchange.record, exchange.write_to_client, answers, digest)
    outlet.wants_fresh = wants_fresh
    return False


def send_stale(exchange: "RelayedExchange", command: Abort) -> bool:
    """Answer with what is kept where the client would be told that no backend could answer; True when the exchange is over.

    Where the client has received nothing but comments, the answer follows them, if it is a stream of events like theirs.
    """
    outlet = exchange.outlet
    if not isinstance(outlet, RecordingOutlet) or outlet.wants_fresh or exchange.is_committed:
        return False
    if command.status not in _STALE_IF or MEANING[command.kind].side is not Side.UPSTREAM:
        return False
    now_s = exchange.now_s()
    answer = outlet.answers.get(outlet.digest, now_s)
    if answer is None or (outlet.is_open and not (outlet.kind is StreamKind.SSE and answer.is_event_stream)):
        return False
    outlet.let_go()
    answer_from(exchange, answer, STALE, now_s)
    return True


def keep(exchange: "RelayedExchange", attempt: RunningAttempt, now_s: float) -> None:
    """Keep the answer that `attempt` has just completed, if it was recorded.

    One that another color gave than it was asked for is not kept. Nor is one that was continued: another engine need not have
    gone on as the first would have, and its comments name both. Neither is one that the engine threw away, whatever its status.
    """
    outlet, resumer = exchange.outlet, exchange.resumer
    if not isinstance(outlet, RecordingOutlet) or attempt.is_resume or attempt.color != exchange.ask.color:
        return
    transcript = resumer.received.transcript() if resumer is not None else None
    if transcript is None or transcript.finish not in BROKEN_FINISHES:
        outlet.put(attempt.name, now_s)


def let_go(exchange: "RelayedExchange") -> None:
    """The exchange is over: nothing is recorded any more."""
    if isinstance(exchange.outlet, RecordingOutlet):
        exchange.outlet.let_go()


def answer_from(exchange: "RelayedExchange", answer: CachedAnswer, word: str, now_s: float) -> None:
    """Answer with what is kept and close the exchange, which no attempt runs for; `word` tells why.

    The body is one write of the bytes that are kept, so that clients who read slowly share them. `ttft_s` stays 0: it tells of
    backends. No HEAD comes here: it generates nothing.
    """
    record, outlet = exchange.record, exchange.outlet
    record.status, record.failure = 200, None
    record.backend, record.cached = answer.backend, word
    age_s = max(0, int(now_s - answer.made_at_s))
    if outlet.is_open:
        outlet.write(b": understudy cache %b, age %d\n\n" % (word.encode(), age_s))
    else:
        head = ResponseHead()
        head.status, head.content_length = 200, len(answer.body)
        # RFC 9111, 5.1: whole seconds since the answer was made.
        told = b"X-Understudy-Cache: %b\r\nAge: %d\r\n" % (word.encode(), age_s)
        outlet.open(exchange, head, kind=None, lines=answer.lines + told)
    outlet.write(answer.body)
    outlet.end()
    exchange.finish(now_s)


def _told_apart(head: RequestHead) -> list[bytes]:
    """Return the fields that belong to the question, in one spelling and order."""
    fields = [b"%b:%b" % (name, line.partition(b":")[2].strip()) for name, line in head.fields if name in _TOLD_APART]
    return sorted(fields)
