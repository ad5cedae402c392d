"""A play of the rollout's driver: real parts around it, two clocks to turn, and everything that was told."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from threading import Event

from understudy.controlplane.publisher import Publisher, first_snapshot
from understudy.controlplane.rollout_driver import RolloutDriver
from understudy.controlplane.state_file import StateFile, decode_state
from understudy.core.ask import DialectName
from understudy.core.color import Color, RolloutRules
from understudy.core.comparison import Comparison
from understudy.core.health import Seen
from understudy.core.snapshot import Address, Backend, EngineKind, Model, Published, RoutingPlan, RoutingSnapshot
from understudy.engines.contract import Finding

BLUE, GREEN = Color.BLUE, Color.GREEN
B1 = Backend("b1", Address("http", "b1", 8000), color=BLUE)
G1 = Backend("g1", Address("http", "g1", 8000), color=GREEN)
QWEN = Model("qwen")
GOOD = Finding(Seen.GOOD, EngineKind.VLLM, "1", (DialectName.OPENAI,), (QWEN,))
DOWN = Finding(Seen.LOADING, reason="still loading")
RULES = RolloutRules(is_on=True, every_s=60.0)
SECRET = "5e" * 32


def kept_active(path: Path) -> Color | None:
    """Return which color the state folder has as active, None: no state."""
    content = StateFile(path).read()
    return decode_state(content).rollout.active if content is not None else None


class HeldFile(StateFile):
    """A disk that answers when it is let; `writes` are the contents that reached it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_let = Event()
        self.has_begun = Event()
        self.writes: list[bytes] = []

    def write(self, content: bytes) -> None:
        """Wait to be let, then write."""
        self.has_begun.set()
        self.is_let.wait(30)
        self.writes.append(content)
        super().write(content)


class Play:
    """A daemon's start with blue and green, each a backend that is not probed yet. `file` None: one at `path`."""

    def __init__(
        self, path: Path | None, rules: RolloutRules = RULES, *, now_s: float = 1000.0, file: StateFile | None = None
    ) -> None:
        self.now_s = now_s
        self.unix_s = 1_800_000_000.0 + now_s
        self.told: list[tuple[str, dict[str, object]]] = []
        self.changes: list[RoutingSnapshot] = []
        self.ejected: Collection[str] = ()
        self.comparison = Comparison()
        self.plan = RoutingPlan((B1, G1), rollout=rules)
        self.published = Published(first_snapshot(self.plan, now_s))
        self.publisher = Publisher(self.published, lambda: self.now_s, self.changes.append, lambda *_: None)
        self.driver = RolloutDriver(
            self.published,
            self.publisher,
            self.comparison,
            file or StateFile(path),
            clock=lambda: self.now_s,
            wall=lambda: self.unix_s,
            tell=lambda event, fields: self.told.append((event, fields)),
            ejected=lambda: self.ejected,
            secret=lambda: SECRET,
        )
        if rules.is_on:
            self.driver.begin()

    def find(self, finding: Finding = GOOD, *names: str) -> "Play":
        """Probe those backends, or both."""
        for name in names or ("b1", "g1"):
            self.publisher.on_finding(name, finding)
        return self

    def reload(self, rules: RolloutRules, *backends: Backend) -> str:
        """Offer another plan as daemon does; returns why it was refused."""
        plan = replace(self.plan, rollout=rules, backends=backends or self.plan.backends)
        rollout, why = self.driver.offered(plan)
        if not why:
            self.plan = plan
            self.publisher.set_plan(plan, rollout)
            self.driver.on_published_plan()
        return why

    def pass_s(self, seconds: float) -> None:
        """Let time pass, half a second at a time."""
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            self.unix_s += 0.5
            self.driver.tick()

    def answer(self, color: Color, answers: int, failures: int = 0) -> None:
        """Let attempts at a color end, now."""
        for _ in range(answers):
            self.comparison.on_answer(color, 0.2, 100.0, self.now_s)
        for _ in range(failures):
            self.comparison.on_failure(color, self.now_s)

    @property
    def active(self) -> Color:
        """The published one."""
        return self.published.current.rollout.active

    @property
    def share(self) -> float:
        """The published one."""
        return self.published.current.rollout.share

    def events(self) -> list[str]:
        """Return the names of what was told."""
        return [event for event, _ in self.told]
