"""Finished exchanges as the data plane records them, for tests of what is told about them."""

from understudy.core.ask import Ask, DialectName
from understudy.core.record import AttemptRecord, ExchangeRecord
from understudy.errors import FailureKind


def attempt(backend: str, failure: FailureKind | None = None, status: int = 0) -> AttemptRecord:
    """Make one attempt; status 200 unless it failed."""
    made = AttemptRecord(backend)
    made.failure = failure
    made.status = status or (200 if failure is None else 0)
    return made


def exchange(
    *attempts: AttemptRecord,
    status: int = 200,
    failure: FailureKind | None = None,
    model: str = "qwen2.5",
    path: str = "/v1/chat/completions",
) -> ExchangeRecord:
    """Make one finished exchange; the last attempt without a failure gave the answer."""
    ask = Ask(DialectName.OPENAI, path, model, is_generating=True, is_streaming=True)
    record = ExchangeRecord(ask, "request-1", "POST", path, received_bytes=1234)
    record.attempts = list(attempts)
    record.backend = next((each.backend for each in reversed(attempts) if each.failure is None), "")
    record.status = status
    record.failure = failure
    record.ttft_s = 0.18428 if record.backend else 0.0
    record.duration_s = 6.02346
    record.sent_bytes = 48211
    return record
