"""docs/metrics.md names every metric with its type and labels, and none that does not exist."""

import re

from prometheus_client.parser import text_string_to_metric_families

from support.records import attempt, exchange
from tidy.source_tree import TOP
from understudy.core.color import Color, RolloutRules
from understudy.core.objectives import Objective, Standing
from understudy.core.shadowing import ShadowOutcome
from understudy.core.snapshot import Address, Backend, BackendState, RoutingPlan, RoutingSnapshot, Target
from understudy.core.tally import Tally
from understudy.core.transcript import Refusal
from understudy.engines.figures import Figures
from understudy.errors import FailureKind
from understudy.telemetry.metrics import Metrics, Moment
from understudy.telemetry.objective_counts import ObjectiveMoment
from understudy.telemetry.session_counts import CacheMoment, SessionMoment
from understudy.telemetry.shadow_counts import ShadowCounts
from understudy.telemetry.upkeep_counts import ChannelMoment

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
    broken.color, broken.ttft_s = "green", 0.1
    metrics.on_exchange(broken)
    shadows = ShadowCounts()
    shadows.on_finished(Color.GREEN, "pi", ShadowOutcome.ANSWERED, likeness=0.5, ttft_s=0.1)
    backend = Backend("pi", Address("http", "127.0.0.1", 1))
    snapshot = RoutingSnapshot(1, RoutingPlan((backend,), rollout=RolloutRules(is_on=True)), (Target(backend, BackendState()),))
    standing = Standing(Objective.ERRORS, 0.1, 0.05, is_broken=True, samples=20)
    objectives = ObjectiveMoment((standing,), {"pi": Figures(1, 2, 0.5, 0.5)})
    metrics.on_event("restart.started", {"backend": "pi"})
    channels = (ChannelMoment("dingtalk", 1, 1, 0),)
    moment = Moment(
        snapshot,
        Tally(),
        0.0,
        sessions=SessionMoment(),
        cache=CacheMoment(),
        shadows=shadows,
        objectives=objectives,
        channels=channels,
    )
    text = metrics.render(moment).decode()
    found: Described = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, frozenset(labels - {"le"}))
    return found


def test_the_page_and_the_scrape_name_the_same_metrics() -> None:
    assert documented() == rendered()
