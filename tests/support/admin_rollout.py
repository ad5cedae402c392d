"""A rollout in memory, as the admin port sees one, and that port asked, for tests of the admin room and its callers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import yarl

from support.admin_stage import StageOperator, listener
from understudy.admin.api import make_app
from understudy.admin.guard import Guard, Pace
from understudy.admin.port import AdminPort
from understudy.admin.rollout_api import RolloutOperator
from understudy.core.color import Color, RolloutRules
from understudy.core.rollout import Rollout, Word, rolled_back, step_due_at_unix_s, switched, with_canary
from understudy.core.switching import SwitchOutcome

BEGUN_AT_UNIX_S = 1_800_000_000.0
RULES = RolloutRules(is_on=True)


class StageRollout(RolloutOperator):
    """What a test says is in force, at a clock that moves a second an order.

    `refusal` is why the colors are not changed unless forced; `file_shares` is the canary of the file.
    """

    def __init__(self, active: Color = Color.BLUE, file_shares: tuple[float, ...] = ()) -> None:
        self.rollout = Rollout(active=active, file_shares=file_shares)
        self.refusal = ""
        self.is_kept = True
        self.guard: dict[str, Any] | None = None
        self.shadow: dict[str, Any] | None = None
        self.recalls: list[bool] = []
        self.now_unix_s = BEGUN_AT_UNIX_S

    async def switch(self, to: Color, *, is_forced: bool) -> SwitchOutcome:
        """Switch, unless the test refuses."""
        if self.refusal and not is_forced:
            return SwitchOutcome(self.rollout, self.refusal, is_changed=False)
        return self._came_to(switched(self.rollout, to, Word.COMMAND, self._tick()))

    async def roll_back(self, *, takes_sessions: bool) -> SwitchOutcome:
        """Take back what there is."""
        self.recalls.append(takes_sessions)
        after = rolled_back(self.rollout, Word.COMMAND, self._tick(), takes_sessions=takes_sessions)
        if after is None:
            return SwitchOutcome(self.rollout, "there is no switch and no canary to take back", is_changed=False)
        return self._came_to(after)

    async def set_canary(self, shares: tuple[float, ...] | None) -> SwitchOutcome:
        """Begin or end one, unless the test refuses."""
        if self.refusal:
            return SwitchOutcome(self.rollout, self.refusal, is_changed=False)
        if shares is None and not self.rollout.file_shares:
            return SwitchOutcome(self.rollout, "the file has no canary", is_changed=False)
        shares = self.rollout.file_shares if shares is None else shares
        if not shares and not self.rollout.shares:
            return SwitchOutcome(self.rollout, is_changed=False, is_kept=self.is_kept)
        return self._came_to(with_canary(self.rollout, shares, Word.COMMAND, self._tick()))

    def status(self) -> dict[str, Any]:
        """Tell what the schema Rollout asks for."""
        state = self.rollout
        due_at_unix_s = step_due_at_unix_s(state, RULES)
        canary = {
            "color": state.inactive.value,
            "share": state.share,
            "step": state.step + 1,
            "steps": list(state.shares),
            "word": state.canary_word.value,
            "next_step_in_s": due_at_unix_s - self.now_unix_s if due_at_unix_s else None,
            "waits_for": "time" if due_at_unix_s else "",
        }
        return {
            "active": state.active.value,
            "word": state.word.value,
            "since": state.switched_at_unix_s,
            "previous": state.previous.value,
            "file_active": state.file_active.value,
            "stick": RULES.stick.value,
            "canary": canary if state.shares else None,
            "guard": self.guard,
            "shadow": self.shadow,
            "reason": state.reason,
            "kept": self.is_kept,
        }

    def begin(self, **changes: Any) -> None:
        """Let something have been in force before, without an order."""
        self.rollout = replace(self.rollout, **changes)

    def _tick(self) -> float:
        self.now_unix_s += 1.0
        return self.now_unix_s

    def _came_to(self, after: Rollout) -> SwitchOutcome:
        is_changed, self.rollout = after != self.rollout, after
        return SwitchOutcome(after, is_changed=is_changed, is_kept=self.is_kept)


def rolling(active: Color = Color.BLUE, file_shares: tuple[float, ...] = ()) -> tuple[StageOperator, StageRollout]:
    """Return an operator with a rollout, and the rollout."""
    operator = StageOperator()
    operator.rollout = rollout = StageRollout(active, file_shares)
    return operator, rollout


@asynccontextmanager
async def asking(operator: StageOperator, token: str = "", pace: Pace | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the admin port and a client of it; close both."""
    sock = listener()
    port = AdminPort(make_app(operator, Guard(token, "127.0.0.1"), pace))
    await port.start(sock)
    try:
        async with aiohttp.ClientSession() as client:
            client._base_url = yarl.URL(f"http://127.0.0.1:{sock.getsockname()[1]}")
            yield client
    finally:
        await port.stop()


async def fetch(client: aiohttp.ClientSession, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
    """Ask, with the path as it is written here, and return the status and the JSON."""
    url = yarl.URL(str(client._base_url).rstrip("/") + path, encoded=True)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with client.request(method, url, data=data, **more) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())
