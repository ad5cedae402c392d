"""Write the status document: what `understudy status` shows and GET /api/status sends.

Called by daemon, which gathers the facts, and by admin.api for what a reload came to. Pure; core.status writes the backends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from understudy import __version__
from understudy.errors import Mistake


class ReloadOutcome(Protocol):
    """What a reload came to; config.reload.ReloadResult is one."""

    @property
    def ok(self) -> bool:
        """Whether the new settings are in force."""

    @property
    def changed(self) -> Sequence[str]:
        """What is in force now and was not before, one line each."""

    @property
    def needs_restart(self) -> Sequence[str]:
        """The keys of which the file says something else than what runs until a restart."""

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """Why it was refused; empty when it was not."""


@dataclass(frozen=True, slots=True)
class LastReload:
    """The newest reload: what asked for it, how long ago, and what came of it."""

    trigger: str
    ago_s: float
    outcome: ReloadOutcome


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """Everything of the daemon that the status shows. `source` is the file, "" when started with URLs alone.

    `generation` is the routing snapshot's; `backends` come from core.status.
    """

    uptime_s: float
    is_ready: bool
    is_draining: bool
    source: str
    generation: int
    last_reload: LastReload | None
    listen: tuple[str, ...]
    in_flight: int
    waiting: int
    connections: int
    log_lines_dropped: int
    backends: Sequence[Mapping[str, Any]]


def status_document(facts: DaemonFacts) -> dict[str, Any]:
    """Return the schema Status of admin.openapi, as JSON values."""
    last = facts.last_reload
    reload = None if last is None else {"trigger": last.trigger, "ago_s": round(last.ago_s, 1), **reload_document(last.outcome)}
    return {
        "version": __version__,
        "uptime_s": round(facts.uptime_s, 1),
        "ready": facts.is_ready,
        "draining": facts.is_draining,
        "listen": list(facts.listen),
        "config": {"source": facts.source, "generation": facts.generation, "last_reload": reload},
        "in_flight": facts.in_flight,
        "waiting": facts.waiting,
        "connections": facts.connections,
        "log_lines_dropped": facts.log_lines_dropped,
        "backends": [dict(each) for each in facts.backends],
    }


def reload_document(outcome: ReloadOutcome) -> dict[str, Any]:
    """Return the schema Reload of admin.openapi, as JSON values."""
    return {
        "ok": outcome.ok,
        "changed": list(outcome.changed),
        "needs_restart": list(outcome.needs_restart),
        "mistakes": [_mistake(each) for each in outcome.mistakes],
    }


def _mistake(mistake: Mistake) -> dict[str, Any]:
    return {
        "path": mistake.path,
        "found": mistake.found,
        "want": mistake.want,
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "text": str(mistake),
    }
