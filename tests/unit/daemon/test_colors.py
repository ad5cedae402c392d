"""Plays of a daemon with two colors: what is wired with a plan that has them, what a reload changes, what survives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.collector import spared_collector
from support.daemon import backend, settings
from support.running import Running, eventually, serving
from support.scripted import ScriptedEngine
from support.stage import chat
from understudy.admin.openapi import document
from understudy.config.reload import ReloadResult
from understudy.core.color import Color

collector = spared_collector


@pytest.fixture
def engines() -> Iterator[tuple[ScriptedEngine, ScriptedEngine]]:
    with ScriptedEngine("one") as one, ScriptedEngine("two") as two:
        yield one, two


def both(engines: tuple[ScriptedEngine, ScriptedEngine], **rollout: Any) -> dict[str, Any]:
    one, two = engines
    return settings(backend(one, color="blue"), backend(two, color="green"), rollout=rollout)


async def color_of(running: Running, *fields: str) -> bytes:
    answered = await running.ask(chat(*fields, model="tiny"))
    return answered.partition(b"X-Understudy-Color: ")[2].partition(b"\r\n")[0]


class Desk:
    """A file on disk, and a state folder, for daemons one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "understudy.yaml"
        self.env = {"STATE_DIRECTORY": str(folder / "state")}

    def write(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.file.write_text(json.dumps(wanted))
        return wanted

    async def reload(self, running: Running, wanted: dict[str, Any]) -> ReloadResult:
        self.write(wanted)
        return await running.daemon.reload()


async def test_without_colors_there_is_nothing_of_them(engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path) -> None:
    async with serving(settings(backend(engines[0])), tmp_path) as running:
        assert running.daemon.rollout is None
        assert running.daemon.relay.coloring is None
        assert await color_of(running) == b""


async def test_a_switch_moves_the_new_conversations(engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path) -> None:
    async with serving(both(engines), tmp_path) as running:
        rollout = running.daemon.rollout
        assert rollout is not None
        assert await color_of(running, "X-Session-ID: a") == b"blue"
        outcome = await rollout.switch(Color.GREEN, is_forced=False)
        assert (outcome.refusal, outcome.rollout.active) == ("", Color.GREEN)
        assert await color_of(running) == b"green"
        assert await color_of(running, "X-Session-ID: a") == b"blue"
        back = await rollout.roll_back(takes_sessions=False)
        assert back.rollout.active is Color.BLUE
        assert await color_of(running) == b"blue"
        assert (await running.told("rollout.switched"))["active"] == "green"


async def test_what_is_in_force_is_shown_as_described(engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path) -> None:
    wanted = both(engines, shadow="100%", guard={"errors": "2%"})
    async with serving(wanted, tmp_path) as running:
        rollout = running.daemon.rollout
        assert rollout is not None
        await rollout.set_canary((0.5,))
        described = document()["components"]["schemas"]["Rollout"]["properties"]
        assert set(rollout.status()) == set(described)
        assert running.daemon.status()["rollout"] == rollout.status()
        await color_of(running)
        assert b'understudy_rollout_active{color="blue"} 1.0' in running.daemon.metrics()
        await eventually(lambda: b"understudy_shadows_total" in running.daemon.metrics(), "a shadow in the metrics")


async def test_a_switch_survives_a_restart_until_the_file_says_something_else(
    engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path
) -> None:
    desk = Desk(tmp_path)
    wanted = desk.write(both(engines))
    async with serving(wanted, tmp_path, desk.file, desk.env) as running:
        rollout = running.daemon.rollout
        assert rollout is not None
        assert (await rollout.switch(Color.GREEN, is_forced=False)).is_kept
    async with serving(wanted, tmp_path, desk.file, desk.env) as running:
        assert await color_of(running) == b"green"
        assert running.daemon.status()["rollout"]["word"] == "command"
        assert (await desk.reload(running, both(engines, active="green"))).ok
        assert (await desk.reload(running, both(engines, active="blue"))).ok
        assert await color_of(running) == b"blue"
        assert running.daemon.status()["rollout"]["word"] == "file"


async def test_a_file_that_flips_to_nobody_is_refused_whole(
    engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path
) -> None:
    desk = Desk(tmp_path)
    wanted = desk.write(both(engines))
    engines[1].refuse()
    async with serving(wanted, tmp_path, desk.file, desk.env) as running:
        generation = running.daemon.status()["generation"]
        result = await desk.reload(running, both(engines, active="green"))
        assert not result.ok
        [mistake] = result.mistakes
        assert mistake.path == "rollout.active"
        assert "green" in str(mistake)
        assert "two (down" in str(mistake)
        assert running.daemon.status()["generation"] == generation
        assert await color_of(running) == b"blue"


async def test_colors_may_come_and_go_with_the_file(engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    one, two = engines
    plain = desk.write(settings(backend(one), backend(two)))
    async with serving(plain, tmp_path, desk.file, desk.env) as running:
        assert (await desk.reload(running, both(engines, stick="cookie", guard={"errors": "1%"}, shadow="10%"))).ok
        relay = running.daemon.relay
        assert None not in (relay.coloring, relay.witness, relay.shadowing, running.daemon.rollout)
        answered = await running.ask(chat(model="tiny"))
        assert b"Set-Cookie: understudy_color=blue." in answered
        assert (await desk.reload(running, both(engines))).ok
        assert relay.witness is None
        assert (await desk.reload(running, plain)).ok
        assert (relay.coloring, running.daemon.rollout) == (None, None)
        assert await color_of(running) == b""
