"""What the admin port shows of the running daemon: status, readiness, metrics; every figure read where it is kept.

Called by daemon.wiring for admin. Changes nothing.
"""

from typing import TYPE_CHECKING, Any

from understudy import __version__
from understudy.core.shortlist import is_usable
from understudy.core.status import backends_status
from understudy.telemetry.metrics import Moment
from understudy.telemetry.session_counts import CacheMoment, SessionMoment
from understudy.telemetry.upkeep_counts import ChannelMoment

if TYPE_CHECKING:
    from understudy.daemon.wiring import Daemon
    from understudy.telemetry.objective_counts import ObjectiveMoment


def status_of(daemon: "Daemon") -> dict[str, Any]:
    """Return what `understudy status` shows; durations in seconds."""
    snapshot, now_s = daemon.published.current, daemon.clock()
    last = daemon.reloader.last
    return {
        "version": __version__,
        "uptime_s": round(now_s - daemon.started_at_s, 3),
        "generation": snapshot.generation,
        "ready": readiness_of(daemon)[0],
        "stopping": daemon.is_stopping,
        "listen": daemon.addresses,
        "file": str(daemon.source) if daemon.source else None,
        "balance": str(snapshot.plan.balance),
        "running": len(daemon.relay.running),
        "waiting": len(daemon.relay.line),
        "connections": len(daemon.relay.clients.connections),
        "reload": None if last is None else {"at": daemon.last_reload_at, **last.facts()},
        "rollout": daemon.rollout.status() if daemon.rollout is not None else None,
        "alerts": daemon.upkeep.alerts.status() if daemon.upkeep.alerts is not None else None,
        "objectives": daemon.upkeep.objectives.status() if daemon.upkeep.objectives is not None else None,
        "backends": [one | daemon.upkeep.status_of(str(one["name"])) for one in backends_status(snapshot, daemon.tally, now_s)],
    }


def readiness_of(daemon: "Daemon") -> tuple[bool, dict[str, Any]]:
    """Return whether requests can be answered, and why not."""
    snapshot = daemon.published.current
    usable = [target.backend.name for target in snapshot.targets if is_usable(target)]
    facts: dict[str, Any] = {"usable": usable, "stopping": daemon.is_stopping, "backends": len(snapshot.targets)}
    if daemon.keeper is not None:
        facts["sessions"] = daemon.keeper.facts()
    return bool(usable) and not daemon.is_stopping, facts


def metrics_of(daemon: "Daemon") -> bytes:
    """Return the metrics as Prometheus text."""
    daemon.ledger.flush()
    relay = daemon.relay
    moment = Moment(
        daemon.published.current,
        daemon.tally,
        daemon.clock(),
        waiting=len(relay.line),
        connections=len(relay.clients.connections),
        log_lines_dropped=daemon.log.dropped_total,
        sessions=_sessions(daemon),
        cache=CacheMoment(len(relay.answers), relay.answers.kept_bytes) if relay.answers.is_on else None,
        objectives=_objectives(daemon),
        channels=_channels(daemon),
        shadows=daemon.colors.shadows.counts if daemon.colors.shadows is not None else None,
    )
    return daemon.metrics_kept.render(moment)


def _channels(daemon: "Daemon") -> tuple[ChannelMoment, ...]:
    alerts = daemon.upkeep.alerts
    rows = alerts.status() if alerts is not None else []
    return tuple(ChannelMoment(row["name"], row["sent"], row["failed"], row["pending"]) for row in rows)


def _objectives(daemon: "Daemon") -> "ObjectiveMoment | None":
    watch, reader = daemon.upkeep.objectives, daemon.upkeep.figures
    if watch is None or reader is None:
        return None
    from understudy.telemetry.objective_counts import ObjectiveMoment

    return ObjectiveMoment(watch.standings, {name: reading.figures for name, reading in reader.readings().items()})


def _sessions(daemon: "Daemon") -> SessionMoment | None:
    keeper = daemon.keeper
    if keeper is None:
        return None
    size_bytes = keeper.swept.size_bytes if keeper.swept is not None else 0
    is_up = int(keeper.loss is None)
    return SessionMoment(
        keeper.sessions, size_bytes, keeper.held, keeper.waiting, store_up=is_up, kept=keeper.kept, lost=keeper.lost
    )
