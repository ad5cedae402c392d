"""What status tells of each backend: the state that routing uses, and no secret."""

import json
from dataclasses import replace
from typing import Any

import pytest

from understudy.core.ask import DialectName
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    HealthRules,
    Model,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.core.status import backends_status
from understudy.core.tally import Tally

PI = Backend(
    "pi",
    Address("https", "::1", 11434, "/ollama"),
    weight=2,
    in_flight_max=4,
    models=(("qwen", "qwen2.5:0.5b"),),
    api_key="sk-very-secret",
)
UP = BackendState(
    Condition.UP,
    Duty.READY,
    EngineKind.OLLAMA,
    "0.15.1",
    tuple(DialectName),
    (Model("qwen2.5:0.5b"), Model("llama:latest")),
    since_at_s=900.0,
)


def snapshot(state: BackendState = UP) -> RoutingSnapshot:
    """A snapshot of the one backend."""
    return RoutingSnapshot(1, RoutingPlan((PI,)), (Target(PI, state),))


def test_quiet_backend_is_told_whole() -> None:
    assert backends_status(snapshot(), Tally(), 1000.0) == [
        {
            "name": "pi",
            "url": "https://[::1]:11434/ollama",
            "engine": "ollama",
            "version": "0.15.1",
            "role": "primary",
            "color": "none",
            "weight": 2,
            "condition": "up",
            "duty": "ready",
            "reason": "",
            "restarting": False,
            "degraded": False,
            "since_s": 100.0,
            "models": ["qwen", "llama:latest"],
            "in_flight": 0,
            "in_flight_max": 4,
            "ejected_for_s": 0.0,
            "half_open": False,
            "attempts_total": 0,
            "failures_total": 0,
            "ttft_ewma_s": None,
            "resting_for_s": 0.0,
        }
    ]


def test_live_counts_are_told_as_seconds_that_are_left() -> None:
    tally = Tally()
    tally.begin("pi", is_trial=False)
    tally.succeed("pi", 0.25, 990.0)
    tally.fail("pi", HealthRules(max_fails=1), 995.0, has_alternative=True)
    tally.rest("pi", 1002.0)
    (told,) = backends_status(snapshot(), tally, 1000.0)
    shown = {
        key: told[key] for key in ("in_flight", "failures_total", "ejected_for_s", "half_open", "ttft_ewma_s", "resting_for_s")
    }
    assert shown == {
        "in_flight": 1,
        "failures_total": 1,
        "ejected_for_s": 5.0,
        "half_open": False,
        "ttft_ewma_s": 0.25,
        "resting_for_s": 2.0,
    }
    (told,) = backends_status(snapshot(), tally, 1006.0)
    assert (told["ejected_for_s"], told["half_open"]) == (0.0, True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "gets no request before it has generated a token"),
        ({"condition": Condition.WARMING}, "gets no request before it has generated a token"),
        ({"is_restarting": False}, ""),
        ({"duty": Duty.DRAINING}, ""),
        ({"condition": Condition.DOWN, "reason": "refused the connection"}, "refused the connection"),
        ({"condition": Condition.UNKNOWN}, ""),
    ],
)
def test_backend_that_answers_its_probes_and_gets_nothing_because_of_restarts_says_why(
    changes: dict[str, Any], reason: str
) -> None:
    (told,) = backends_status(snapshot(replace(UP, **{"is_restarting": True} | changes)), Tally(), 1000.0)
    assert told["reason"] == reason


def test_unknown_list_is_told_apart_from_an_empty_one() -> None:
    for models in (None, ()):
        (told,) = backends_status(snapshot(replace(UP, models=models)), Tally(), 1000.0)
        assert told["models"] == (None if models is None else [])


def test_status_is_json_and_never_holds_a_key() -> None:
    assert "secret" not in json.dumps(backends_status(snapshot(), Tally(), 1000.0))
