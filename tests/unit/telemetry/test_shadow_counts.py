"""What became of shadows, as counted, told and written."""

from understudy.core.color import Color
from understudy.core.shadowing import ShadowOutcome
from understudy.telemetry.shadow_counts import ShadowCounts


def samples(counts: ShadowCounts) -> dict[tuple[str, ...], float]:
    """Return the values by name and labels."""
    return {(one.name, *one.labels.values()): one.value for family in counts.collect() for one in family.samples}


def counted() -> ShadowCounts:
    counts = ShadowCounts()
    for _ in range(4):
        counts.on_sent(Color.GREEN)
    counts.on_finished(Color.GREEN, "g1", ShadowOutcome.ANSWERED, likeness=1.0, ttft_s=0.2)
    counts.on_finished(Color.GREEN, "g1", ShadowOutcome.ANSWERED, likeness=0.5, ttft_s=0.4)
    counts.on_finished(Color.GREEN, "g2", ShadowOutcome.HUNG, likeness=None, ttft_s=None)
    counts.on_dropped(Color.GREEN)
    return counts


def test_a_status_tells_counts_and_means() -> None:
    assert counted().facts(Color.GREEN) == {
        "sent": 4,
        "answered": 2,
        "failed": 1,
        "dropped": 1,
        "likeness_mean": 0.75,
        "ttft_mean_s": 0.3,
    }


def test_one_color_is_not_mixed_with_the_other() -> None:
    facts = counted().facts(Color.BLUE)
    assert facts == {"sent": 0, "answered": 0, "failed": 0, "dropped": 0, "likeness_mean": None, "ttft_mean_s": None}


def test_a_scrape_tells_outcomes_by_backend_and_the_two_histograms() -> None:
    seen = samples(counted())
    assert seen["understudy_shadows_total", "g1", "answered"] == 2
    assert seen["understudy_shadows_total", "g2", "hung"] == 1
    assert seen["understudy_shadows_total", "none", "dropped"] == 1
    assert seen["understudy_shadow_likeness_bucket", "g1", "0.5"] == 1
    assert seen["understudy_shadow_likeness_bucket", "g1", "1.0"] == 2
    assert seen["understudy_shadow_likeness_sum", "g1"] == 1.5
    assert seen["understudy_shadow_first_content_seconds_count", "g1"] == 2
    assert ("understudy_shadow_first_content_seconds_count", "g2") not in seen
    assert seen[("understudy_shadows_in_flight",)] == 1


def test_backends_that_are_gone_are_forgotten_and_drops_are_not() -> None:
    counts = counted()
    counts.retain({"g2"})
    seen = samples(counts)
    assert ("understudy_shadows_total", "g1", "answered") not in seen
    assert ("understudy_shadow_likeness_count", "g1") not in seen
    assert seen["understudy_shadows_total", "g2", "hung"] == 1
    assert seen["understudy_shadows_total", "none", "dropped"] == 1
