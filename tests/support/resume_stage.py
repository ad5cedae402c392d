"""A daemon before engines that write, for plays about answers that break and go on (support.writing_cast, support.breaks)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.daemon import Daemon, backend, settings
from support.endings import Story, whole_story
from support.scripted_model import ScriptedModel
from support.wire import Reply
from support.writing_cast import Scene, cast, kind_of
from support.writing_engine import WritingEngine

# No engine is blamed for what a play makes it do, so that it can be broken again at once.
HEALTH = {"interval": "2s", "timeout": "3s", "max_fails": 0}
FAILOVER = {"budget": "100%", "hold": "1s"}
TIMEOUTS = {"stall": "1s", "first_token": "3s"}


class Stage:
    """Engines, in order of preference, and the daemon before them."""

    def __init__(self, engines: list[WritingEngine], daemon: Daemon, model: ScriptedModel) -> None:
        self.engines, self.daemon = engines, daemon
        self._model = model

    def fresh(self) -> None:
        """Empty all scripts."""
        for engine in self.engines:
            engine.fresh()

    def plays(self, model: ScriptedModel | None = None) -> "Stage":
        """Let all engines run this model from now on; the one they began with when there is none."""
        for engine in self.engines:
            engine.dialect.model = model or self._model
        return self

    def ask(self, scene: Scene, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """Ask what the scene asks."""
        return self.daemon.ask(scene.path, scene.body(**more), headers=headers)


@contextmanager
def staged(folder: Path, *engines: str, model: ScriptedModel | None = None, **sections: Any) -> Iterator[Stage]:
    """Run engines gpu0, gpu1, ... of these kinds with one model, and a daemon."""
    with ExitStack() as stack:
        told = model or ScriptedModel()
        running = [stack.enter_context(cast(f"gpu{i}", engine, told)) for i, engine in enumerate(engines)]
        entries = [backend(engine, kind_of(kind)) for engine, kind in zip(running, engines, strict=True)]
        wanted = settings(*entries, **({"health": HEALTH, "failover": FAILOVER, "timeouts": TIMEOUTS} | sections))
        daemon = stack.enter_context(Daemon(wanted, folder))
        daemon.wait_condition("up")
        yield Stage(running, daemon, told)


def count_of(stage: Stage, scene: Scene) -> tuple[Story, int]:
    """Return the uncut answer and how many pieces it has."""
    uncut = whole_story(stage.ask(scene))
    pieces = len([event for event in uncut.events if event.get("done") is not True])
    stage.fresh()
    return uncut, pieces


class Stages:
    """One stage a pair of engines, made when first asked for and kept: starting a daemon takes longer than any play."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._made: dict[tuple[str, str], Stage] = {}

    def of(self, scene: Scene) -> Stage:
        """Return the scene's stage with empty scripts and the usual model."""
        pair = (scene.first, scene.second)
        if pair not in self._made:
            folder = self._folder / f"stage-{len(self._made)}"
            folder.mkdir()
            self._made[pair] = self._stack.enter_context(staged(folder, *pair))
        self._made[pair].fresh()
        return self._made[pair].plays()

    def close(self) -> None:
        """End all of them."""
        self._stack.close()
