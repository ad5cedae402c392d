"""The floors of docs/architecture.md hold: a file imports only from lower floors, and the pure ones stay pure."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tidy.source_tree import PACKAGE, TOP

CONTRACTS = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
PURE_ROOMS = {"core", "dialects", "engines", "errors"}
# What a pure file must not touch, by any road: the clock, the network, chance, files, threads and the frameworks.
IMPURE = {"asyncio", "socket", "time", "random", "os", "structlog", "pydantic", "httptools", "httpx", "aiohttp"}


def rooms() -> set[str]:
    """List the rooms that exist: packages and modules directly below the package."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}


def contract(kind: str, source: str = "") -> dict[str, list[str]]:
    """Find the contract of one type, and among several the one whose sources hold `source`."""
    return next(one for one in CONTRACTS if one["type"] == kind and (not source or source in one["source_modules"]))


def test_every_contract_is_kept() -> None:
    """In a process of its own, because import-linter silences other libraries' loggers in the one it runs in."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_stands_on_a_floor() -> None:
    floors = contract("layers")["layers"]
    placed = {room for floor in floors for room in re.findall(r"\w+", floor)}
    assert rooms() <= placed
    assert len(floors) == 9


def test_the_pure_rooms_are_named_in_the_contract_that_keeps_them_pure() -> None:
    pure = contract("forbidden", "understudy.core")
    assert {name.removeprefix("understudy.") for name in pure["source_modules"]} == PURE_ROOMS
    assert set(pure["forbidden_modules"]) >= IMPURE


def test_the_data_plane_is_kept_from_the_frameworks() -> None:
    assert set(contract("forbidden", "understudy.dataplane")["forbidden_modules"]) >= {"pydantic", "httpx", "aiohttp"}


def test_every_room_is_in_the_picture_of_the_house() -> None:
    picture = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [room for room in sorted(rooms()) if not re.search(rf"`{room}(\.py|/)?`", picture)]
    assert not missing, f"docs/architecture.md does not name {missing}"
