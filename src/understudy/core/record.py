"""What happened: the facts of one finished attempt and of one finished exchange.

Written by dataplane.relay and relayed, read by telemetry (log line, metrics). Mutable while the
exchange lasts, left alone afterwards. Defaults stand in the classes, because one is made for every request.
"""

from understudy.core.ask import Ask
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind


class AttemptRecord:
    """One send of an exchange to one backend, in its `color`. `failure` None: it gave the answer; durations in seconds."""

    status = 0
    color = ""
    failure: FailureKind | None = None
    duration_s = 0.0

    def __init__(self, backend: str) -> None:
        self.backend = backend


class ExchangeRecord:
    """One client request with all its attempts, as the log line and the metrics tell it.

    `status` is what the client got (499: it left first); `failure` why the exchange failed, None when it was answered.
    `ttft_s` runs from the request's last byte to the first content sent on, waiting and all attempts included; 0.0 when no
    content was sent. `waited_s` is the part spent in `hold` or in line. `method` and `path` carry no query, so no secret.
    `finished_unix_s` is the wall clock's time at the end, 0.0 before. `resumed_on` names the backends that went on with the
    answer after a break, in order; `not_resumed` is why a broken one was not continued; `prefilled_tokens` is what continuing
    cost: tokens of prompt and answer that a further backend had to read, as far as it told. `merging` is what became of a
    session's messages (core.conversation.Merging), "" without a stored session; `session_loss` why its turn is not kept, "" when
    it is. `cached` is what X-Understudy-Cache says ("hit", "stale"), "" for an answer that a backend gave. `color` is that of the
    backend which answered, or the one that the exchange was meant for; "" without colors. `is_slow`: it took longer than the file
    (log.slow) has it told at info.
    """

    sent_bytes = 0
    backend = ""
    status = 0
    failure: FailureKind | None = None
    is_last_resort = False
    ttft_s = 0.0
    waited_s = 0.0
    duration_s = 0.0
    finished_unix_s = 0.0
    resumed_on: tuple[str, ...] = ()
    not_resumed: Refusal | None = None
    prefilled_tokens = 0
    merging = ""
    session_loss = ""
    cached = ""
    color = ""
    is_slow = False

    def __init__(self, ask: Ask, request_id: str, method: str, path: str, received_bytes: int) -> None:
        self.ask = ask
        self.request_id = request_id
        self.method = method
        self.path = path
        self.received_bytes = received_bytes
        self.attempts: list[AttemptRecord] = []
