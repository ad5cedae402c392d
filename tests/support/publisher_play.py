"""Plays of a publisher: two backends, what probes may find of them, and everything that it publishes and tells."""

from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import Address, Backend, BackendState, EngineKind, Model, Published, RoutingPlan, RoutingSnapshot
from understudy.engines.contract import Finding
from understudy.errors import MEANING, FailureKind

PI = Backend("pi", Address("http", "192.168.1.100", 11434))
LAPTOP = Backend("laptop", Address("http", "192.168.1.101", 11434))
QWEN, LLAMA = Model("qwen:latest"), Model("llama:latest")
GOOD = Finding(Seen.GOOD, EngineKind.OLLAMA, "0.15.1", tuple(DialectName), (QWEN, LLAMA))
BAD = Finding(Seen.BAD, reason="timed out")
REFUSED = Finding(Seen.BAD, reason=MEANING[FailureKind.REFUSED].words, is_refusing=True)
ASLEEP = Finding(Seen.LOADING, EngineKind.OLLAMA, reason="asleep", is_asleep=True)


class Play:
    """A publisher with a clock to turn and everything it said."""

    def __init__(self, *backends: Backend) -> None:
        self.now_s = 1000.0
        self.changes: list[RoutingSnapshot] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.published = Published(first_snapshot(RoutingPlan(backends or (PI, LAPTOP)), self.now_s))
        tell = self.events.append
        self.publisher = Publisher(
            self.published, lambda: self.now_s, self.changes.append, lambda event, fields: tell((event, fields))
        )

    def find(self, *findings: Finding, name: str = "pi") -> BackendState:
        """Find one after the other, a second apart."""
        for finding in findings:
            self.now_s += 1.0
            self.publisher.on_finding(name, finding)
        return self.state(name)

    def state(self, name: str = "pi") -> BackendState:
        """Return the published state of a backend."""
        return next(target.state for target in self.published.current.targets if target.backend.name == name)

    def told(self) -> list[str]:
        """Return the names of the events so far."""
        return [event for event, _ in self.events]
