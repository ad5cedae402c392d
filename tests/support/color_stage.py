"""A data plane with two colors for plays: gpu0 is blue, gpu1 green, and the play says which is active and what time it is."""

from dataclasses import replace
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, stream_head
from support.stage import DONE, FINISH, OPENING, Stage, delta
from support.targets import target
from support.transports import MemoryTransport
from understudy.core.color import Color, RolloutRules
from understudy.core.rollout import Rollout
from understudy.core.snapshot import Target
from understudy.dataplane.coloring import Coloring

SECRET = b"a secret of sixteen"
UNIX_S = 1_800_000_000.0
ANSWER = stream_head() + chunk(OPENING + delta("Hi")) + chunk(FINISH + DONE) + LAST_CHUNK


def colored(number: int, color: Color, **more: Any) -> Target:
    """Return gpuN as one of a color."""
    one = target(number, **more)
    return replace(one, backend=replace(one.backend, color=color))


class ColorStage(Stage):
    """`unix_s` is the wall clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pool: Target, trusted: tuple[str, ...] = (), **rules: Any) -> None:
        super().__init__(monkeypatch, *(pool or (colored(0, Color.BLUE), colored(1, Color.GREEN))))
        self.unix_s = UNIX_S
        current = self.published.current
        plan = replace(current.plan, rollout=RolloutRules(is_on=True, **rules), trusted_keys=trusted)
        self.published.current = replace(current, plan=plan)
        self.relay.apply(plan)
        self.coloring = self.relay.coloring = Coloring(self.published, SECRET, lambda: self.unix_s)

    def roll(self, rollout: Rollout) -> None:
        """Put another rollout into force."""
        self.published.current = replace(self.published.current, rollout=rollout)
        self.relay.on_published(self.published.current)

    async def answered_by(self, data: bytes) -> tuple[int, MemoryTransport]:
        """Send a request, let whichever engine gets it answer; return its number and the client's side."""
        before = {port: len(seen) for port, seen in self.network.opened.items()}
        sent = {port: [len(one.data) for one in seen] for port, seen in self.network.opened.items()}
        client = await self.ask(data)
        for port, seen in self.network.opened.items():
            asked = [len(one.data) for one in seen]
            if len(seen) > before.get(port, 0) or asked != sent.get(port, []):
                await self.say(port - 8000, ANSWER)
                return port - 8000, client
        raise AssertionError("no engine was asked")
