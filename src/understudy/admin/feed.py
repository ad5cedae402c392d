"""Send what happens to whoever listens at GET /api/events, at a cost that does not grow with a slow or greedy listener.

daemon tells events and exchanges; admin.api subscribes. With nobody listening, telling costs one comparison. Otherwise events
are gathered for `GATHER_S` and handed to every listener as one piece of bytes. Never waits for a listener: one that is
`PIECES_MAX` pieces behind is dropped. Bodies of requests and answers never pass here.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from understudy.core.record import ExchangeRecord
from understudy.telemetry.exchange_line import describe, level_of
from understudy.telemetry.logs import UtcStamp

GATHER_S = 0.1
SUBSCRIBERS_MAX = 100
PIECES_MAX = 16
EVENTS_MAX = 200
EXCHANGES_MAX = 100


class Subscription:
    """One listener. `is_open` turns False when it was dropped for being slow, or when the feed ended.

    `on_drop` is called once when the feed drops it, to free a sender that is stuck in a write.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.on_drop: Callable[[], object] | None = None
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(PIECES_MAX + 1)

    async def next_piece(self) -> bytes:
        """Wait for the next server-sent events; b"" when the feed has ended or dropped this listener."""
        return await self._pieces.get()

    def put(self, piece: bytes) -> bool:
        """Queue `piece`; False when the listener is too far behind."""
        if self._pieces.qsize() >= PIECES_MAX:
            return False
        self._pieces.put_nowait(piece)
        return True

    def end(self) -> None:
        """Let `next_piece` return b"" after what is queued."""
        if self.is_open:
            self.is_open = False
            self._pieces.put_nowait(b"")


class EventFeed:
    """The listeners and what they are to hear next. Lives on the event loop's thread."""

    def __init__(self, stamp: Callable[[], str] | None = None) -> None:
        import time

        self._stamp = stamp or UtcStamp(time.time)
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._subscriptions: set[Subscription] = set()
        self._frames: list[bytes] = []
        self._exchanges = 0
        self._skipped = 0
        self._flush: asyncio.TimerHandle | None = None

    def subscribe(self) -> Subscription | None:
        """Begin to listen; None when `SUBSCRIBERS_MAX` already do."""
        if len(self._subscriptions) >= SUBSCRIBERS_MAX:
            return None
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop to listen; harmless when it has been dropped already."""
        self._subscriptions.discard(subscription)

    def tell(self, event: str, fields: Mapping[str, Any]) -> None:
        """Send a state change, named as in docs/events.md."""
        if self._subscriptions:
            self._add(event, {"timestamp": self._stamp(), "event": event, **fields})

    def tell_exchange(self, record: ExchangeRecord) -> None:
        """Send the summary of a finished exchange; beyond `EXCHANGES_MAX` within `GATHER_S` only their number is told."""
        if not self._subscriptions:
            return
        if self._exchanges >= EXCHANGES_MAX:
            self._skipped += 1
            return
        self._exchanges += 1
        self._add("exchange.finished", describe(record, level_of(record), self._stamp()))

    def end(self) -> None:
        """Send what is gathered and end every subscription."""
        self._send()
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()

    def _add(self, event: str, fields: object) -> None:
        if len(self._frames) >= EVENTS_MAX:
            self._skipped += 1
            return
        try:
            data = self._encoder.encode(fields)
        except UnicodeEncodeError:
            # Half a surrogate pair in a client's path; the log line has it, written as an escape.
            self._skipped += 1
            return
        self._frames.append(b"event: %b\ndata: %b\n\n" % (event.encode(), data))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(GATHER_S, self._send)

    def _send(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._skipped:
            self._frames.append(b'event: skipped\ndata: {"events":%d}\n\n' % self._skipped)
        if not self._frames:
            return
        piece = b"".join(self._frames)
        self._frames = []
        self._exchanges = self._skipped = 0
        for subscription in [each for each in self._subscriptions if not each.put(piece)]:
            self._subscriptions.discard(subscription)
            subscription.end()
            if subscription.on_drop is not None:
                subscription.on_drop()
