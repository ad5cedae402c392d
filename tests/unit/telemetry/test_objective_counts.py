"""Promises and backends' own figures as they are written at a scrape."""

from understudy.core.objectives import Objective, Standing
from understudy.engines.figures import Figures
from understudy.telemetry.objective_counts import ObjectiveMoment


def samples(moment: ObjectiveMoment) -> dict[tuple[str, ...], float]:
    """Return the values by name and labels."""
    return {(one.name, *one.labels.values()): one.value for family in moment.collect() for one in family.samples}


def test_each_promise_is_told_with_its_value_and_its_bound() -> None:
    standings = (
        Standing(Objective.ERRORS, 0.02, 0.001, is_broken=True, samples=100),
        Standing(Objective.P99_FIRST_CONTENT, None, 1.0),
    )
    assert samples(ObjectiveMoment(standings)) == {
        ("understudy_slo_value", "errors"): 0.02,
        ("understudy_slo_bound", "errors"): 0.001,
        ("understudy_slo_bound", "p99_first_content"): 1.0,
        ("understudy_slo_broken", "errors"): 1.0,
        ("understudy_slo_broken", "p99_first_content"): 0.0,
    }


def test_each_backend_has_the_figures_that_it_tells() -> None:
    figures = {"gpu0": Figures(running=3, waiting=0), "gpu1": Figures(gpu_busy=0.5)}
    assert samples(ObjectiveMoment(figures=figures)) == {
        ("understudy_backend_running", "gpu0"): 3.0,
        ("understudy_backend_queued", "gpu0"): 0.0,
        ("understudy_backend_gpu_busy", "gpu1"): 0.5,
    }


def test_where_there_is_nothing_no_family_is_told() -> None:
    assert list(ObjectiveMoment().collect()) == []
