"""Which deadline of an exchange has passed, if any.

Called by dataplane.relayed for every running exchange some twenty times a second. Pure: facts and now_s in, a failure kind out.
What follows from it is core.exchange's to decide.
"""

import msgspec

from understudy.core.snapshot import Timeouts
from understudy.errors import FailureKind

# A backend whose listener refuses connections while a stream on it is silent has been told to stop: vLLM then leaves the stream
# open for ever, llama.cpp for 30 s (docs/failure-model.md). This much silence together with a refused probe is the verdict.
SILENCE_OF_REFUSING_S = 2.0


class Standing(msgspec.Struct, frozen=True):
    """Where an attempt stands; instants are loop time in seconds.

    `sent_at_s` is when the attempt began, `progress_at_s` when its answer last moved. `is_begun`: content has come.
    `is_refusing`: the last probe found the backend's listener closed.
    """

    sent_at_s: float
    progress_at_s: float
    is_connecting: bool
    is_begun: bool
    is_refusing: bool


def overdue(standing: Standing, timeouts: Timeouts, now_s: float) -> FailureKind | None:
    """Return what an attempt has taken too long for, None while it is in time; the whole exchange is `is_over`'s."""
    if standing.is_connecting:
        return FailureKind.CONNECT_TIMEOUT if now_s - standing.sent_at_s > timeouts.connect_s else None
    silent_s = now_s - standing.progress_at_s
    if not standing.is_begun and silent_s > timeouts.first_token_s:
        return FailureKind.FIRST_TOKEN_TIMEOUT
    if standing.is_begun and silent_s > timeouts.stall_s:
        return FailureKind.STALLED
    if standing.is_refusing and silent_s > SILENCE_OF_REFUSING_S:
        return FailureKind.STALLED
    return None


def is_over(started_at_s: float, timeouts: Timeouts, now_s: float) -> bool:
    """Whether the whole exchange has taken longer than `timeouts.total_s`; 0 is no limit."""
    return 0.0 < timeouts.total_s < now_s - started_at_s
