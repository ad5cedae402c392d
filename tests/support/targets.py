"""Backends with their state and snapshots of them, for plays of the core and of the data plane in memory.

Pure. Every backend is up and serves `CHAT` unless a play says otherwise.
"""

from dataclasses import replace

from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    FailoverRules,
    HealthRules,
    Limits,
    Model,
    RoutingPlan,
    RoutingSnapshot,
    Target,
    Timeouts,
)

CHAT_PATH = "/v1/chat/completions"
CHAT = Ask(DialectName.OPENAI, CHAT_PATH, "qwen", is_generating=True, is_streaming=True)
PLAIN = Ask(DialectName.OPENAI, "/v1/files", "qwen")
SPOKEN = (DialectName.OPENAI, DialectName.ANTHROPIC, DialectName.OLLAMA)
UP = BackendState(Condition.UP, Duty.READY, EngineKind.VLLM, "1.0", SPOKEN, (Model("qwen"),))
DOWN = replace(UP, condition=Condition.DOWN)


def target(
    number: int,
    state: BackendState = UP,
    *,
    in_flight_max: int = 0,
    models: tuple[tuple[str, str], ...] = (),
    health: HealthRules = HealthRules(),  # noqa: B008  # frozen
    api_key: str = "",
) -> Target:
    """Make gpuN at 127.0.0.1:800N."""
    address = Address("http", "127.0.0.1", 8000 + number)
    backend = Backend(f"gpu{number}", address, in_flight_max=in_flight_max, models=models, health=health, api_key=api_key)
    return Target(backend, state)


def snapshot_of(
    *targets: Target,
    failover: FailoverRules = FailoverRules(),  # noqa: B008  # frozen
    limits: Limits = Limits(),  # noqa: B008  # frozen
    timeouts: Timeouts = Timeouts(),  # noqa: B008  # frozen
) -> RoutingSnapshot:
    """Make a snapshot of these, in this order; `timeouts` are every backend's."""
    targets = tuple(replace(one, backend=replace(one.backend, timeouts=timeouts)) for one in targets)
    plan = RoutingPlan(tuple(one.backend for one in targets), failover=failover, limits=limits, timeouts=timeouts)
    return RoutingSnapshot(1, plan, targets)


def targets(count: int, state: BackendState = UP) -> tuple[Target, ...]:
    """Make gpu0, gpu1 and so on, all in one state."""
    return tuple(target(number, state) for number in range(count))
