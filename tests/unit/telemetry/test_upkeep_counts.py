"""Restarts, slow backends and channels of alerts as they are written at a scrape."""

from dataclasses import replace

from support.targets import UP, target
from understudy.core.snapshot import BackendState, RoutingPlan, RoutingSnapshot
from understudy.telemetry.upkeep_counts import ChannelMoment, UpkeepCounts


def samples(counts: UpkeepCounts, *channels: ChannelMoment, state: BackendState = UP) -> dict[tuple[str, ...], float]:
    """Return the values of a daemon with one backend by name and labels."""
    one = target(0, state)
    snapshot = RoutingSnapshot(1, RoutingPlan((one.backend,)), (one,))
    return {
        (each.name, *each.labels.values()): each.value for family in counts.collect(snapshot, channels) for each in family.samples
    }


def test_restarts_are_counted_by_step_and_forgotten_with_their_backend() -> None:
    counts = UpkeepCounts()
    for event in (
        "restart.started",
        "restart.failed",
        "restart.started",
        "restart.succeeded",
        "restart.refused",
        "backend.went_up",
    ):
        counts.on_event(event, {"backend": "gpu0"})
    counts.on_event("restart.gave_up", {"backend": "gpu9"})
    counts.retain(["gpu0"])
    told = {key[1:]: value for key, value in samples(counts).items() if key[0] == "understudy_restarts_total"}
    assert told == {("gpu0", "started"): 2.0, ("gpu0", "failed"): 1.0, ("gpu0", "succeeded"): 1.0}


def test_what_a_backend_is_and_what_channels_did_is_told_as_it_is_now() -> None:
    told = samples(UpkeepCounts(), ChannelMoment("dingtalk", 3, 2, 1), state=replace(UP, is_degraded=True))
    assert told == {
        ("understudy_backend_restarting", "gpu0"): 0.0,
        ("understudy_backend_degraded", "gpu0"): 1.0,
        ("understudy_alerts_sent_total", "dingtalk"): 3.0,
        ("understudy_alerts_failed_total", "dingtalk"): 2.0,
        ("understudy_alerts_pending", "dingtalk"): 1.0,
    }
    assert samples(UpkeepCounts(), state=replace(UP, is_restarting=True))["understudy_backend_restarting", "gpu0"] == 1.0
