"""Hand exchanges over that have a shadow, with their first content, and their answers, when they are over.

Set by daemon while the file asks for shadows; called by dataplane.attempt and relay. Who runs shadows, and what becomes of them,
is not known here: nothing of the client's answer waits for them.
"""

from typing import TYPE_CHECKING

from understudy.core.color import Color
from understudy.core.shadowing import SHADOW_FIELDS, ShadowAsk, ShadowRun, ShadowTaker, is_shadowed
from understudy.core.snapshot import Published
from understudy.dialects.wish import shape_of

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

_COLORS = {str(color): color for color in (Color.BLUE, Color.GREEN)}


class Shadowing:
    """Asks `taker` for every exchange that is to have a shadow."""

    def __init__(self, published: Published, taker: ShadowTaker) -> None:
        self._published = published
        self._taker = taker

    def begin(self, exchange: "RelayedExchange") -> None:
        """The first content of an exchange is about to reach its client."""
        ask, share = exchange.ask, self._published.current.plan.rollout.shadow
        color = _COLORS.get(exchange.record.color)
        if color is None or exchange.shadow is not None or not ask.is_generating or not is_shadowed(exchange.request_id, share):
            return
        if shape_of(ask.path) is None:
            return
        head = exchange.head
        fields = tuple((name, line.partition(b":")[2].strip()) for name, line in head.fields if name in SHADOW_FIELDS)
        exchange.shadow = self._taker.begin(
            ShadowAsk(
                color.other,
                head.target.decode("latin-1"),
                exchange.body,
                ask.model,
                ask.dialect,
                ask.is_streaming,
                fields,
                exchange.request_id,
            )
        )

    def on_over(self, exchange: "RelayedExchange", run: ShadowRun) -> None:
        """The client's own answer is over."""
        record, resumer = exchange.record, exchange.resumer
        if record.failure is not None or record.status >= 300:
            run.on_client_left()
            return
        transcript = resumer.received.transcript() if resumer is not None else None
        is_text = transcript is not None and transcript.choices <= 1 and not transcript.is_unreadable
        run.on_client_done(transcript.text if transcript is not None and is_text else None, record.ttft_s, record.duration_s)
