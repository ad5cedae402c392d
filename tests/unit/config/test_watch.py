"""Real folders, real links: which places are watched, and that a change there is told."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from understudy.config.watch import folders_of, looks, signature


def folders(path: Path) -> set[str]:
    return {folder for folder, _, _ in folders_of(path)}


def test_a_plain_file_is_watched_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "u.yaml").touch()
    assert folders(tmp_path / "u.yaml") == {str(tmp_path)}


def test_a_config_map_is_watched_where_its_link_is_swapped(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "u.yaml").touch()
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "u.yaml").symlink_to("..data/u.yaml")
    assert folders(tmp_path / "u.yaml") == {str(tmp_path), str(tmp_path / "..data"), str(tmp_path / "..1")}


def test_a_link_further_up_is_watched_too(tmp_path: Path) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "1" / "u.yaml").touch()
    (tmp_path / "current").symlink_to("releases/1")
    watched = folders(tmp_path / "current" / "u.yaml")
    assert {str(tmp_path), str(tmp_path / "current"), str(tmp_path / "releases" / "1")} <= watched


def test_links_that_lead_round_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert folders(tmp_path / "a") == {str(tmp_path)}


def test_a_folder_that_is_gone_is_not_watched(tmp_path: Path) -> None:
    assert folders(tmp_path / "gone" / "u.yaml") == set()


def test_the_signature_changes_with_the_content_and_with_what_the_path_leads_to(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    seen = {signature(file)}
    file.write_text("a", encoding="utf-8")
    seen.add(signature(file))
    file.write_text("ab", encoding="utf-8")
    seen.add(signature(file))
    (tmp_path / "new").write_text("cd", encoding="utf-8")
    (tmp_path / "new").rename(file)
    seen.add(signature(file))
    os.utime(file, ns=(1, 1))
    seen.add(signature(file))
    assert len(seen) == 5


async def changes(file: Path, times: AsyncGenerator[None, None]) -> None:
    """Return as soon as a look shows that the file is another one."""
    before = signature(file)
    while signature(file) == before:
        await anext(times)


async def test_a_change_is_seen_by_one_of_the_next_looks(tmp_path: Path) -> None:
    file = tmp_path / "u.yaml"
    file.touch()
    async with asyncio.timeout(20), contextlib.aclosing(looks(file, untold_look_s=0.01)) as times:
        await anext(times)
        for text in ("one", "other"):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(changes(file, times))
                await asyncio.sleep(0)
                file.write_text(text, encoding="utf-8")


async def test_a_folder_that_is_gone_is_looked_for_until_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "u.yaml"
    async with asyncio.timeout(20), contextlib.aclosing(looks(file, look_s=0.01, untold_look_s=0.01)) as times:
        for _ in range(3):
            await anext(times)
        file.parent.mkdir()
        file.touch()
        await anext(times)
        file.unlink()
        file.parent.rename(tmp_path / "away")
        for _ in range(3):
            await anext(times)


@pytest.mark.parametrize("error", [OSError(28, "no space left on device"), RuntimeError("notify failed")])
async def test_without_notices_the_file_is_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_paths: str, **_options: object) -> None:
        raise error

    monkeypatch.setattr("understudy.config.watch.awatch", refuse)
    file = tmp_path / "u.yaml"
    async with asyncio.timeout(20), contextlib.aclosing(looks(file, look_s=0.01)) as times:
        for _ in range(5):
            await anext(times)
