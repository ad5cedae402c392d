"""What is counted comes out as Prometheus text, with labels of closed lists only."""

import subprocess
import sys
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.records import attempt, exchange
from understudy.core.conversation import Merging
from understudy.core.snapshot import Address, Backend, BackendState, Condition, Duty, RoutingPlan, RoutingSnapshot, Target
from understudy.core.tally import Tally
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind
from understudy.telemetry.metrics import Metrics, Moment
from understudy.telemetry.session_counts import CacheMoment, SessionMoment

Sample = tuple[str, tuple[tuple[str, str], ...]]


def moment(**facts: Any) -> Moment:
    """Two backends: pi is up, laptop is down and drains."""
    pi = Backend("pi", Address("http", "10.0.0.1", 11434))
    laptop = Backend("laptop", Address("http", "10.0.0.2", 11434))
    targets = (
        Target(pi, BackendState(Condition.UP)),
        Target(laptop, BackendState(Condition.DOWN, Duty.DRAINING)),
    )
    return Moment(RoutingSnapshot(7, RoutingPlan((pi, laptop)), targets), Tally(), now_s=100.0, **facts)


def samples(metrics: Metrics, at: Moment | None = None) -> dict[Sample, float]:
    text = metrics.render(at or moment()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_answered_exchange_is_counted() -> None:
    metrics = Metrics()
    metrics.on_exchange(exchange(attempt("pi")))
    metrics.on_exchange(exchange(attempt("pi")))
    seen = samples(metrics)
    labels = (("backend", "pi"), ("dialect", "openai"), ("outcome", "answered"))
    assert seen["understudy_exchanges_total", labels] == 2
    assert seen["understudy_attempts_total", (("backend", "pi"), ("outcome", "answered"))] == 2
    assert seen["understudy_first_content_seconds_count", (("backend", "pi"),)] == 2
    assert seen["understudy_exchange_seconds_bucket", (("backend", "pi"), ("le", "10.0"))] == 2
    assert seen["understudy_exchange_seconds_bucket", (("backend", "pi"), ("le", "5.0"))] == 0
    assert seen["understudy_sent_bytes_total", ()] == 96422


def test_a_retry_is_counted_by_what_made_it_necessary() -> None:
    metrics = Metrics()
    metrics.on_exchange(exchange(attempt("pi", FailureKind.REFUSED), attempt("laptop")))
    seen = samples(metrics)
    assert seen["understudy_retries_total", (("after", "refused"),)] == 1
    assert seen["understudy_attempts_total", (("backend", "pi"), ("outcome", "refused"))] == 1
    assert seen["understudy_attempts_total", (("backend", "laptop"), ("outcome", "answered"))] == 1


def test_a_failed_exchange_has_its_failure_as_outcome() -> None:
    metrics = Metrics()
    metrics.on_exchange(exchange(status=503, failure=FailureKind.NONE_USABLE))
    labels = (("backend", "none"), ("dialect", "openai"), ("outcome", "none_usable"))
    assert samples(metrics)["understudy_exchanges_total", labels] == 1


def test_a_client_error_that_was_passed_on_is_rejected() -> None:
    metrics = Metrics()
    metrics.on_exchange(exchange(attempt("pi", status=400), status=400))
    seen = samples(metrics)
    assert seen["understudy_exchanges_total", (("backend", "pi"), ("dialect", "openai"), ("outcome", "rejected"))] == 1
    assert seen["understudy_attempts_total", (("backend", "pi"), ("outcome", "rejected"))] == 1


def test_nothing_that_a_client_wrote_becomes_a_label() -> None:
    metrics = Metrics()
    for number in range(50):
        record = exchange(attempt("pi"), model=f"model-{number}", path=f"/path-{number}")
        record.method = f"METHOD-{number}"
        record.request_id = f"id-{number}"
        metrics.on_exchange(record)
    text = metrics.render(moment()).decode()
    assert not any(word in text for word in ("model-", "path-", "METHOD-", "id-"))
    assert text.count("understudy_exchanges_total{") == 1


def test_conditions_duties_and_ejections_are_shown() -> None:
    at = moment()
    at.tally.of("pi").ejected_until_s = 101.0
    at.tally.of("pi").in_flight = 3
    at.tally.of("laptop").ejected_until_s = 99.0
    seen = samples(Metrics(), at)
    assert seen["understudy_backend_condition", (("backend", "pi"), ("condition", "up"))] == 1
    assert seen["understudy_backend_condition", (("backend", "pi"), ("condition", "down"))] == 0
    assert seen["understudy_backend_condition", (("backend", "laptop"), ("condition", "down"))] == 1
    assert seen["understudy_backend_duty", (("backend", "laptop"), ("duty", "draining"))] == 1
    assert seen["understudy_backend_ejected", (("backend", "pi"),)] == 1
    assert seen["understudy_backend_ejected", (("backend", "laptop"),)] == 0
    assert seen["understudy_backend_in_flight", (("backend", "pi"),)] == 3


def test_what_is_counted_elsewhere_is_shown() -> None:
    metrics = Metrics()
    metrics.on_event("config.reloaded", {})
    metrics.on_event("config.refused", {})
    metrics.on_event("config.refused", {})
    seen = samples(metrics, moment(waiting=4, connections=9, log_lines_dropped=2))
    assert seen["understudy_waiting", ()] == 4
    assert seen["understudy_connections", ()] == 9
    assert seen["understudy_log_lines_dropped_total", ()] == 2
    assert seen["understudy_config_generation", ()] == 7
    assert seen["understudy_config_reloads_total", (("result", "accepted"),)] == 1
    assert seen["understudy_config_reloads_total", (("result", "refused"),)] == 2
    assert seen["process_resident_memory_bytes", ()] > 0


def test_removed_backends_are_forgotten() -> None:
    metrics = Metrics()
    metrics.on_exchange(exchange(attempt("old")))
    metrics.on_exchange(exchange(attempt("pi")))
    metrics.on_exchange(exchange(status=503, failure=FailureKind.NONE_USABLE))
    metrics.retain(["pi"])
    text = metrics.render(moment()).decode()
    assert 'backend="old"' not in text
    assert 'backend="pi",dialect' in text
    assert 'backend="none",dialect' in text


def test_a_last_resort_is_counted() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi"))
    record.is_last_resort = True
    metrics.on_exchange(record)
    assert samples(metrics)["understudy_last_resort_total", ()] == 1


def test_answers_that_went_on_are_counted_by_who_went_on() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi", FailureKind.BODY_CUT, 200), attempt("laptop", FailureKind.STALLED, 200), attempt("pi"))
    record.resumed_on = ("laptop", "pi")
    record.prefilled_tokens = 30
    metrics.on_exchange(record)
    metrics.on_exchange(record)
    seen = samples(metrics)
    assert seen["understudy_resumes_total", (("backend", "laptop"),)] == 2
    assert seen["understudy_resumes_total", (("backend", "pi"),)] == 2
    assert seen["understudy_prefilled_tokens_total", ()] == 60
    assert not [name for name, _ in seen if name == "understudy_resume_refusals_total"]
    metrics.retain(["pi"])
    assert ("understudy_resumes_total", (("backend", "laptop"),)) not in samples(metrics)


def test_answers_that_did_not_go_on_are_counted_by_the_reason() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi", FailureKind.BODY_CUT, 200), failure=FailureKind.BODY_CUT)
    record.not_resumed = Refusal.CASE
    metrics.on_exchange(record)
    assert samples(metrics)["understudy_resume_refusals_total", (("reason", "case"),)] == 1


def test_a_refusal_that_another_backend_made_good_is_not_counted() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi", FailureKind.RESUME_REFUSED), attempt("laptop"))
    record.not_resumed = Refusal.NO_MEANS
    metrics.on_exchange(record)
    assert not [name for name, _ in samples(metrics) if name == "understudy_resume_refusals_total"]


def test_of_sessions_and_cache_nothing_is_told_where_there_are_none() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi"))
    record.merging = Merging.NEW
    metrics.on_exchange(record)
    text = metrics.render(moment()).decode()
    assert "session" not in text
    assert "cache" not in text


def test_sessions_and_cache_are_told_where_there_are_some() -> None:
    metrics = Metrics()
    record = exchange(attempt("pi"))
    record.merging = Merging.NEW
    metrics.on_exchange(record)
    seen = samples(metrics, moment(sessions=SessionMoment(sessions=3, kept=1), cache=CacheMoment(entries=2)))
    assert seen["understudy_session_merges_total", (("merging", "new"),)] == 1
    assert seen["understudy_sessions_kept_total", ()] == 1
    assert seen["understudy_sessions", ()] == 3
    assert seen["understudy_cache_entries", ()] == 2


def test_the_metrics_library_is_loaded_with_the_first_scrape_only() -> None:
    program = "import sys, understudy.telemetry.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
