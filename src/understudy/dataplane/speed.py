"""How much an attempt has written, and how fast: read of what is kept of its answer.

Shared by dataplane.witness and gauge, which bound how often: reading takes about 0.3 ms for 250 tokens. Judges nothing.
"""

from typing import TYPE_CHECKING

from understudy.core.transcript import Transcript

if TYPE_CHECKING:
    from understudy.dataplane.attempt import RunningAttempt

# Of many answers a few a second are read.
READ_INTERVAL_S = 0.05


def written_by(attempt: "RunningAttempt") -> Transcript | None:
    """Return what the exchange has received so far; None where that is not known, or not to be trusted."""
    resumer = attempt.exchange.resumer
    transcript = resumer.received.transcript() if resumer is not None else None
    return transcript if transcript is not None and not transcript.is_unreadable else None


def characters_a_second(attempt: "RunningAttempt", now_s: float) -> float:
    """Return characters a second since the first content, 0.0 where that cannot be said."""
    elapsed_s = now_s - attempt.content_at_s
    transcript = written_by(attempt) if elapsed_s > 0.0 else None
    return transcript.size_characters / elapsed_s if transcript is not None else 0.0


def size_bytes(transcript: Transcript) -> int:
    """Return the bytes of UTF-8 of what was written: about as many for a token in English as in Chinese."""
    texts = [transcript.text, transcript.reasoning, *(call.arguments for call in transcript.calls)]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
