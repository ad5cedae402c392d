"""Which deadline of an attempt has passed, if any, and whether its backend is to be probed at once.

Called by dataplane.vigil for every running exchange some twenty times a second. Pure: facts and now_s in, a failure kind out.
Suspicion comes before the verdict: late alone is not lost, so a backend that answers its probes is waited for up to the bound
that is configured. What follows from it is core.exchange's to decide.
"""

import msgspec

from understudy.core.evidence import Evidence
from understudy.core.pace import Pace
from understudy.core.snapshot import Timeouts
from understudy.errors import FailureKind

# A backend whose listener refuses connections while a stream on it is silent has been told to stop: vLLM then leaves the stream
# open for ever, llama.cpp for 30 s (docs/failure-model.md). This much silence together with a refused probe is the verdict.
SILENCE_OF_REFUSING_S = 2.0


# A stream that is silent for this share of `timeouts.stall` is suspect. Engines put tens of milliseconds between two pieces and
# rarely a second; a probe costs little, and only one that fails makes a verdict of it.
SUSPICION_SHARE = 0.05
SUSPICION_S_MIN = 1.0

# A first content is late when it takes this many times what slow prompts of its size took before, but never before the floor.
LATE_FACTOR = 3.0
LATE_S_MIN = 5.0

# Without measurements nothing is late before the bound, but for a backend that is down: this share of it.
DOWN_SHARE = 0.25

# A probe may fail because a machine is busy with the very prompt that it is asked about, so that one alone proves nothing before
# the first content.
FAILED_BEFORE_CONTENT_MIN = 2

# Prompts that are worth computing twice; a longer one costs a backend seconds.
HEDGED_BYTES_MAX = 8 * 1024


class Standing(msgspec.Struct, frozen=True):
    """Where an attempt stands; instants are loop time in seconds.

    `sent_at_s` is when the attempt began, `progress_at_s` when its answer last moved. `is_begun`: content has come.
    `is_down`: the backend's condition. `is_loaded`: it had the model in memory when the attempt began. `prompt_bytes` is the size
    of the request's body; `pace` and `evidence` are those of the backend's tally, None where nothing is known.
    """

    sent_at_s: float
    progress_at_s: float
    is_connecting: bool
    is_begun: bool
    is_down: bool = False
    is_loaded: bool = True
    prompt_bytes: int = 0
    pace: Pace | None = None
    evidence: Evidence | None = None


class Look(msgspec.Struct, frozen=True):
    """What one look at an attempt told: the failure that ends it (None: it goes on), and whether its backend is suspect."""

    kind: FailureKind | None = None
    is_suspect: bool = False


IN_TIME = Look()
SUSPECT = Look(is_suspect=True)
_UNCONNECTED = Look(FailureKind.CONNECT_TIMEOUT)
_CONTENTLESS = Look(FailureKind.FIRST_TOKEN_TIMEOUT)
_STALLED = Look(FailureKind.STALLED)


def look(standing: Standing, timeouts: Timeouts, now_s: float) -> Look:
    """Return what an attempt has taken too long for, or whether it is suspect; the whole exchange is `is_over`'s.

    `timeouts` are those of the attempt's backend. While the look is suspect the caller has the backend probed
    (controlplane.prober) and looks again: the evidence that this brings makes the verdict, or the bound does.
    """
    if standing.is_connecting:
        return _UNCONNECTED if now_s - standing.sent_at_s > timeouts.connect_s else IN_TIME
    if standing.is_begun:
        return _look_at_stream(standing, timeouts, now_s - standing.progress_at_s)
    return _look_before_content(standing, timeouts, now_s - standing.progress_at_s)


def _look_at_stream(standing: Standing, timeouts: Timeouts, silent_s: float) -> Look:
    if silent_s > timeouts.stall_s:
        return _STALLED
    if silent_s <= suspicion_s(timeouts):
        return IN_TIME
    return _STALLED if _is_lost_in_silence(standing, silent_s) else SUSPECT


def _look_before_content(standing: Standing, timeouts: Timeouts, silent_s: float) -> Look:
    if silent_s > timeouts.first_token_s or _is_refused_in_silence(standing, silent_s):
        return _CONTENTLESS
    if silent_s <= LATE_S_MIN and not standing.is_down:
        return IN_TIME
    late_s = late_after_s(standing, timeouts)
    if silent_s <= late_s:
        return IN_TIME
    evidence, late_at_s = standing.evidence, standing.progress_at_s + late_s
    if evidence is not None and evidence.is_lost_since(late_at_s, failed_min=FAILED_BEFORE_CONTENT_MIN):
        return _CONTENTLESS
    return SUSPECT


def _is_lost_in_silence(standing: Standing, silent_s: float) -> bool:
    """Whether a probe failed that began after the last piece of the answer: whoever writes would have had time to answer."""
    evidence = standing.evidence
    return silent_s >= SILENCE_OF_REFUSING_S and evidence is not None and evidence.is_lost_since(standing.progress_at_s)


def _is_refused_in_silence(standing: Standing, silent_s: float) -> bool:
    evidence = standing.evidence
    return evidence is not None and evidence.is_refusing and _is_lost_in_silence(standing, silent_s)


def suspicion_s(timeouts: Timeouts) -> float:
    """Return after how much silence in the middle of an answer the backend is suspect."""
    return max(SUSPICION_S_MIN, timeouts.stall_s * SUSPICION_SHARE)


def late_after_s(standing: Standing, timeouts: Timeouts) -> float:
    """Return after how long an attempt's first content is late: by the backend's own pace, never above `first_token_s`."""
    bound_s = timeouts.first_token_s * (DOWN_SHARE if standing.is_down else 1.0)
    expected_s = None
    if standing.pace is not None:
        expected_s = standing.pace.expected_s(standing.prompt_bytes, is_loaded=standing.is_loaded)
    return bound_s if expected_s is None else min(bound_s, max(LATE_S_MIN, LATE_FACTOR * expected_s))


def is_hedge_due(pace: Pace, prompt_bytes: int, late_s: float) -> bool:
    """Whether a prompt is short and its first content, `late_s` after it was sent, later than nearly all of that backend's."""
    if prompt_bytes > HEDGED_BYTES_MAX:
        return False
    usual_s = pace.p95_s(prompt_bytes)
    return usual_s is not None and late_s > usual_s


def is_over(started_at_s: float, timeouts: Timeouts, now_s: float) -> bool:
    """Whether the whole exchange has taken longer than `timeouts.total_s`; 0 is no limit."""
    return 0.0 < timeouts.total_s < now_s - started_at_s
