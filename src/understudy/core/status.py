"""Tell what routing sees of every backend, for GET /api/status: the same snapshot and tally that the balancer reads.

Called by admin through daemon. Pure. Never shows a key, and never a second opinion of a backend's condition.
"""

from understudy.core.shortlist import client_models_of, is_serving
from understudy.core.snapshot import Address, Duty, RoutingSnapshot, Target
from understudy.core.tally import BackendTally, Tally

# JSON as msgspec and json write it.
Json = str | int | float | bool | list[str] | None


def backends_status(snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> list[dict[str, Json]]:
    """One object per backend, in the plan's order. `_for_s` is how much longer, `since_s` how long already, in seconds.

    `models` are the clients' names, None while the list is unknown; times are rounded to milliseconds.
    """
    return [_backend_status(target, tally.of(target.backend.name), now_s) for target in snapshot.targets]


def _backend_status(target: Target, counts: BackendTally, now_s: float) -> dict[str, Json]:
    backend, state = target.backend, target.state
    names = list(dict.fromkeys(name for name, _ in client_models_of(target)))
    ttft_s = counts.ttft_ewma_s
    return {
        "name": backend.name,
        "url": _url(backend.address),
        "engine": str(state.engine),
        "version": state.version,
        "role": str(backend.role),
        "color": str(backend.color),
        "weight": backend.weight,
        "condition": str(state.condition),
        "duty": str(state.duty),
        "reason": state.reason or _why_idle(target),
        "restarting": state.is_restarting,
        "degraded": state.is_degraded,
        "since_s": round(max(0.0, now_s - state.since_at_s), 3),
        "models": None if state.models is None else names,
        "in_flight": counts.in_flight,
        "in_flight_max": backend.in_flight_max,
        "ejected_for_s": round(max(0.0, counts.ejected_until_s - now_s), 3),
        "half_open": counts.is_half_open(now_s),
        "attempts_total": counts.attempts_total,
        "failures_total": counts.failures_total,
        "ttft_ewma_s": None if ttft_s is None else round(ttft_s, 3),
        "resting_for_s": round(max(0.0, counts.rest_until_s - now_s), 3),
    }


def _why_idle(target: Target) -> str:
    """Return why a backend that answers its probes gets no request, where that is not shown otherwise; "" where it gets them."""
    is_out = target.state.is_restarting and target.state.duty is Duty.READY and is_serving(target)
    return "gets no request before it has generated a token" if is_out else ""


def _url(address: Address) -> str:
    return f"{address.scheme}://{address.authority}{address.prefix}"
