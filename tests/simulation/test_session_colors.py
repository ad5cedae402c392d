"""Kept conversations on two colors, in memory: where each goes on after a switch, a recall, a try, and what is kept of that."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from support.color_stage import colored
from support.session_stage import SessionStage, is_ended, later
from support.stage import stream_of
from support.talk import assistant, user
from understudy.core.color import Color, RolloutRules, Stick
from understudy.core.conversation import Conversation
from understudy.core.rollout import Rollout
from understudy.dataplane.coloring import Coloring


class ColoredSessions(SessionStage):
    """Conversations on two colors: gpu0 is blue, gpu1 green."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rollout: Rollout, **rules: Any) -> None:
        super().__init__(monkeypatch, colored(0, Color.BLUE), colored(1, Color.GREEN))
        current = self.published.current
        plan = replace(current.plan, rollout=RolloutRules(is_on=True, **rules))
        self.published.current = replace(current, plan=plan, rollout=rollout)
        self.relay.coloring = Coloring(self.published, b"a secret", lambda: 1000.0)

    async def turn(self, question: str, *fields: str) -> tuple[int, str]:
        """Say something; returns who answered, and the color that is kept afterwards."""
        before = {number: len(self.network.opened.get(8000 + number, ())) for number in (0, 1)}
        await self.say_to("s", question, fields=fields)
        await later()
        [number] = [each for each in (0, 1) if len(self.network.opened.get(8000 + each, ())) > before[each]]
        await self.say(number, stream_of("a2"))
        await later()
        return number, self.store.kept["s"].color


GREEN_NOW = Rollout(active=Color.GREEN, changed_at_unix_s=900.0)
BLUE_BEFORE = Conversation(1, messages=(user("q1"), assistant("a1")), color="blue", begun_at_unix_s=100.0)


async def test_a_kept_conversation_stays_on_its_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, GREEN_NOW)
    stage.store.kept["s"] = BLUE_BEFORE
    assert await stage.turn("q2") == (0, "blue")


async def test_one_that_has_stayed_long_enough_moves_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, GREEN_NOW, stick_s_max=50.0)
    stage.store.kept["s"] = BLUE_BEFORE
    assert await stage.turn("q2") == (1, "green")
    assert stage.store.kept["s"].colored_at_unix_s > 0


async def test_one_that_was_recalled_moves_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, replace(GREEN_NOW, blue_recalled_unix_s=900.0))
    stage.store.kept["s"] = BLUE_BEFORE
    assert await stage.turn("q2") == (1, "green")


async def test_one_that_began_without_colors_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, GREEN_NOW)
    stage.store.kept["s"] = msgspec.structs.replace(BLUE_BEFORE, color="")
    assert await stage.turn("q2") == (1, "green")


async def test_a_try_of_the_other_color_leaves_it_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, GREEN_NOW)
    stage.store.kept["s"] = BLUE_BEFORE
    assert await stage.turn("q2", "X-Understudy-Color: green") == (1, "blue")


async def test_nothing_stays_where_the_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColoredSessions(monkeypatch, GREEN_NOW, stick=Stick.NONE)
    stage.store.kept["s"] = BLUE_BEFORE
    assert await stage.turn("q2") == (1, "green")


async def test_a_color_that_no_file_tells_is_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the store: it would reach heads and metrics."""
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Conversation(1, messages=(user("q1"), assistant("a1")), color="green\r\nX-Evil: 1")
    client = await stage.say_to("s", "q2")
    await later()
    await stage.say(0, stream_of("a2"))
    await later()
    assert is_ended(client)
    assert b"X-Evil" not in client.data
