"""docs/metrics.md names every metric with its type and labels, and none that does not exist."""

import re

from prometheus_client.parser import text_string_to_metric_families

from support.records import attempt, exchange
from tidy.source_tree import TOP
from understudy.core.snapshot import Address, Backend, BackendState, RoutingPlan, RoutingSnapshot, Target
from understudy.core.tally import Tally
from understudy.core.transcript import Refusal
from understudy.errors import FailureKind
from understudy.telemetry.metrics import Metrics, Moment
from understudy.telemetry.session_counts import CacheMoment, SessionMoment

PAGE = (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)
Described = dict[str, tuple[str, frozenset[str]]]


def documented() -> Described:
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(PAGE)}


def rendered() -> Described:
    """Read the types and labels out of a scrape in which every metric has a sample."""
    metrics = Metrics()
    metrics.on_exchange(exchange(attempt("pi", FailureKind.REFUSED), attempt("pi")))
    broken = exchange(attempt("pi"), attempt("pi", FailureKind.BODY_CUT), failure=FailureKind.BODY_CUT)
    broken.resumed_on, broken.not_resumed = ("pi",), Refusal.TOO_LONG
    metrics.on_exchange(broken)
    backend = Backend("pi", Address("http", "127.0.0.1", 1))
    snapshot = RoutingSnapshot(1, RoutingPlan((backend,)), (Target(backend, BackendState()),))
    text = metrics.render(Moment(snapshot, Tally(), 0.0, sessions=SessionMoment(), cache=CacheMoment())).decode()
    found: Described = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, frozenset(labels - {"le"}))
    return found


def test_the_page_and_the_scrape_name_the_same_metrics() -> None:
    assert documented() == rendered()
