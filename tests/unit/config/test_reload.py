"""Real files, edited the ways that people, editors and clusters edit them, under a running watch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from understudy.config.load import Overrides, load_file, load_text
from understudy.config.reload import Reloader
from understudy.config.schema import Settings
from understudy.errors import Mistake

A = "backends: [{name: a, url: 'http://a'}]\n"
B = "backends: [{name: b, url: 'http://b'}]\n"
BAD = "backends: [{name: b, url: 'b'}]\n"


class Desk:
    """An operator's desk: a file, the reloader that follows it, and everything that it offered and told."""

    def __init__(self, file: Path, env: dict[str, str] | None = None) -> None:
        self.file = file
        self.env = env or {}
        self.offered: list[Settings] = []
        self.refusal: Mistake | None = None
        self.events: list[tuple[str, dict[str, object]]] = []
        self._told = asyncio.Event()
        self.reloader = self.start()

    def start(self, overrides: Overrides | None = None) -> Reloader:
        overrides = overrides or Overrides()
        running = load_file(self.file, self.env, overrides)
        return Reloader(self.file, self.env, running, self.take, self.tell, overrides=overrides, settle_s=0.05)

    def take(self, settings: Settings) -> Mistake | None:
        if self.refusal is None:
            self.offered.append(settings)
        return self.refusal

    def tell(self, name: str, fields: dict[str, object]) -> None:
        self.events.append((name, fields))
        self._told.set()

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self._told.clear()
                await self._told.wait()

    async def until_running(self, name: str) -> None:
        await self.until(lambda: self.reloader.running.backends[0].name == name)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.reloader.watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    file = tmp_path / "understudy.yaml"
    file.write_text(A, encoding="utf-8")
    return Desk(file)


async def test_a_changed_file_is_offered_whole_and_told(desk: Desk) -> None:
    desk.write(B)
    result = desk.reloader.reload("SIGHUP")
    assert result.ok
    assert result.changed == ("backends: a removed", "backends: b added")
    assert [settings.backends[0].name for settings in desk.offered] == ["b"]
    assert desk.events == [("config.reloaded", {"trigger": "SIGHUP", "changed": list(result.changed), "needs_restart": []})]
    assert desk.reloader.last is result


async def test_a_file_with_mistakes_changes_nothing_and_is_told(desk: Desk) -> None:
    desk.write(BAD)
    result = desk.reloader.reload("admin")
    assert not result.ok
    assert str(result.mistakes[0]).startswith(f"{desk.file}:1:27: backends[0].url: found b; want a URL")
    assert desk.offered == []
    assert desk.reloader.running.backends[0].name == "a"
    assert desk.events == [("config.refused", {"trigger": "admin", "mistakes": [str(result.mistakes[0])]})]


async def test_an_unchanged_file_offers_nothing_and_answers_whoever_asked(desk: Desk) -> None:
    for _ in range(50):
        assert desk.reloader.reload("SIGHUP").changed == ()
    assert desk.offered == []
    assert desk.names() == ["config.reloaded"] * 50


async def test_what_needs_a_restart_is_named_each_time_and_the_rest_is_in_force(desk: Desk) -> None:
    desk.write(B + "listen: '127.0.0.1:1'\nlog: {level: debug, format: json}\n")
    result = desk.reloader.reload("SIGHUP")
    assert result.needs_restart == ("listen", "log.format")
    assert result.changed == ("backends: a removed", "backends: b added", "log.level: info -> debug")
    assert str(desk.offered[0].listen[0]) == "127.0.0.1:8080"
    assert desk.reloader.reload("SIGHUP").needs_restart == ("listen", "log.format")
    assert len(desk.offered) == 1


async def test_the_command_line_still_wins_on_a_reload(desk: Desk) -> None:
    reloader = desk.start(Overrides(listen=("127.0.0.1:1",)))
    desk.write(B + "listen: '127.0.0.1:2'\n")
    assert reloader.reload("SIGHUP").needs_restart == ()
    assert str(desk.offered[0].listen[0]) == "127.0.0.1:1"


async def test_a_new_secret_in_an_unchanged_file_is_taken_without_being_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter1\n", encoding="utf-8")
    file = tmp_path / "understudy.yaml"
    file.write_text(f"backends: [{{name: a, url: 'http://a', api_key: '${{file:{tmp_path}/key}}'}}]\n", encoding="utf-8")
    desk = Desk(file)
    (tmp_path / "key").write_text("hunter2\n", encoding="utf-8")
    assert desk.reloader.reload("SIGHUP").changed == ("backends.a.api_key: changed",)
    assert desk.offered[0].backends[0].api_key == "hunter2"
    assert "hunter" not in str(desk.events)


async def test_without_a_file_there_is_nothing_to_reload() -> None:
    offered: list[Settings] = []
    reloader = Reloader(None, {}, load_text(A, {}), offered.append, lambda _name, _fields: None)
    await reloader.watch()
    result = reloader.reload("SIGHUP")
    assert not result.ok
    assert "started without one" in str(result.mistakes[0])
    assert offered == []


async def test_a_file_written_in_place_is_taken(desk: Desk) -> None:
    async with desk.watched():
        desk.write(B)
        await desk.until_running("b")
    assert desk.events[0][1]["trigger"] == "file"


async def test_an_editors_rename_is_taken(desk: Desk) -> None:
    async with desk.watched():
        for text, name in ((B, "b"), (A, "a")):
            swap = desk.file.with_suffix(".swp")
            swap.write_text(text, encoding="utf-8")
            swap.rename(desk.file)
            await desk.until_running(name)


async def test_a_config_maps_swapped_link_is_taken(tmp_path: Path) -> None:
    for version, text in (("..1", A), ("..2", B)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "understudy.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "understudy.yaml").symlink_to("..data/understudy.yaml")
    desk = Desk(tmp_path / "understudy.yaml")
    async with desk.watched():
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await desk.until_running("b")
    assert "config.refused" not in desk.names()


async def test_a_file_that_is_gone_is_told_once_and_taken_when_it_is_back(desk: Desk) -> None:
    async with desk.watched():
        desk.file.unlink()
        await desk.until(lambda: desk.names() == ["config.refused"])
        assert desk.reloader.running.backends[0].name == "a"
        desk.write(A)
        await desk.until(lambda: len(desk.events) > 1)
    assert desk.names() == ["config.refused", "config.reloaded"]
    assert desk.offered == []
    assert desk.reloader.last is not None
    assert desk.reloader.last.ok


async def test_a_file_with_a_mistake_is_told_once_however_often_it_is_touched(desk: Desk) -> None:
    async with desk.watched():
        desk.write(BAD)
        await desk.until(lambda: bool(desk.events))
        desk.write(BAD)
        desk.file.touch()
        desk.write(B)
        await desk.until_running("b")
    assert desk.names() == ["config.refused", "config.reloaded"]


async def test_a_burst_of_changes_ends_in_the_last_one(desk: Desk) -> None:
    async with desk.watched():
        for number in range(200):
            desk.write(f"backends: [{{name: n{number}, url: 'http://a'}}]\n")
            # Half a file, and no file at all, are part of a burst.
            if number % 10 == 0:
                desk.write("backends: [{name: ")
                desk.file.unlink()
            await asyncio.sleep(0)
        await desk.until_running("n199")
    assert desk.reloader.last is not None
    assert desk.reloader.last.ok


async def test_a_watch_that_begins_late_takes_what_changed_before_it_and_else_says_nothing(desk: Desk) -> None:
    desk.write(B + "# a comment\n")
    async with desk.watched():
        await desk.until_running("b")
    assert desk.names() == ["config.reloaded"]


async def test_an_unchanged_file_is_silent_when_the_watch_begins(desk: Desk) -> None:
    async with desk.watched():
        desk.file.touch()
        desk.write(A)
        desk.write(B)
        await desk.until_running("b")
    assert desk.names() == ["config.reloaded"]


async def test_what_cannot_be_put_into_force_is_refused_whole_and_tried_again_when_asked(desk: Desk) -> None:
    desk.refusal = Mistake("rollout.active", "green, but nobody is there", "blue")
    desk.write(B)
    result = desk.reloader.reload("admin")
    assert not result.ok
    assert str(result.mistakes[0]) == f"{desk.file}: rollout.active: found green, but nobody is there; want blue"
    assert desk.names() == ["config.refused"]
    assert desk.reloader.running.backends[0].name == "a"
    desk.refusal = None
    assert desk.reloader.reload("admin").ok
    assert desk.reloader.running.backends[0].name == "b"
