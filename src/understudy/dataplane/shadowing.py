"""Hand exchanges over that have a shadow, with their first content, and their answers, when they are over.

Set by daemon while the file asks for shadows; called by dataplane.attempt and relay. Who runs shadows, and what becomes of them,
is not known here: nothing of the client's answer waits for them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.core.color import COLORS, Color
from understudy.core.shadowing import SHADOW_FIELDS, ShadowAsk, ShadowRun, ShadowTaker, is_shadowed
from understudy.core.snapshot import Published
from understudy.dialects.wish import shape_of

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


class Shadowing:
    """Asks `taker` for every exchange that is to have a shadow; `report` hears of our own mistakes, which cost no answer."""

    def __init__(self, published: Published, taker: ShadowTaker, report: Callable[[BaseException, str], None]) -> None:
        self._published = published
        self._taker = taker
        self._report = report

    def begin(self, exchange: "RelayedExchange") -> None:
        """The first content of an exchange is about to reach its client."""
        ask, snapshot = exchange.ask, self._published.current
        share, color = snapshot.plan.rollout.shadow, COLORS.get(exchange.record.color)
        if not share or color is not snapshot.rollout.active or exchange.shadow is not None or not ask.is_generating:
            return
        if exchange.colored is not None and exchange.colored.is_asked_for:
            # Who compares the two by hand is not to be disturbed.
            return
        if shape_of(ask.path) is None or not is_shadowed(exchange.request_id, share):
            return
        try:
            exchange.shadow = self._taker.begin(_asked(exchange, snapshot.rollout.inactive))
        except Exception as error:  # noqa: BLE001  # our own mistake costs the shadow, not the answer
            self._report(error, exchange.record.request_id)

    def on_over(self, exchange: "RelayedExchange", run: ShadowRun) -> None:
        """The client's own answer is over."""
        try:
            _tell(exchange, run)
        except Exception as error:  # noqa: BLE001  # our own mistake costs the comparison, not the answer
            self._report(error, exchange.record.request_id)


def _asked(exchange: "RelayedExchange", color: Color) -> ShadowAsk:
    ask, head = exchange.ask, exchange.head
    fields = tuple((name, line.partition(b":")[2].strip()) for name, line in head.fields if name in SHADOW_FIELDS)
    path = head.target.decode("latin-1")
    return ShadowAsk(color, path, exchange.body, ask.model, ask.dialect, ask.is_streaming, fields, exchange.request_id)


def _tell(exchange: "RelayedExchange", run: ShadowRun) -> None:
    record, resumer = exchange.record, exchange.resumer
    if record.failure is not None or record.status >= 300:
        run.on_client_left()
        return
    transcript = resumer.received.transcript() if resumer is not None else None
    is_text = transcript is not None and transcript.choices <= 1 and not transcript.is_unreadable
    run.on_client_done(transcript.text if transcript is not None and is_text else None, record.ttft_s, record.duration_s)
