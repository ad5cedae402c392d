"""Which settings the daemon starts with, and what is said when it cannot start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.cli import serve
from understudy.cli.main import main
from understudy.config import load
from understudy.config.load import NO_OVERRIDES, Overrides
from understudy.errors import ConfigError

FILE = "backends:\n  - name: gpu\n    url: http://gpu1:8000\n"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "DEFAULT_PATHS", (Path("understudy.yaml"), tmp_path / "etc.yaml"))
    return tmp_path


def names(file: Path | None = None, urls: list[str] | None = None) -> tuple[list[str], Path | None]:
    settings, source = serve.find_settings(file, urls or [], NO_OVERRIDES)
    return [backend.name for backend in settings.backends], source


def test_the_named_file_is_read(empty_folder: Path) -> None:
    path = empty_folder / "other.yaml"
    path.write_text(FILE)
    assert names(path) == (["gpu"], path)


def test_the_file_beside_comes_before_the_systems(empty_folder: Path) -> None:
    (empty_folder / "etc.yaml").write_text(FILE.replace("gpu\n", "etc\n"))
    assert names()[0] == ["etc"]
    (empty_folder / "understudy.yaml").write_text(FILE)
    assert names() == (["gpu"], Path("understudy.yaml"))


def test_urls_need_no_file(empty_folder: Path) -> None:
    (empty_folder / "understudy.yaml").write_text(FILE)
    assert names(urls=["http://a:1", "http://b:2"]) == (["primary", "backup"], None)


def test_without_anything_the_ollama_here_is_served() -> None:
    settings, source = serve.find_settings(None, [], NO_OVERRIDES)
    assert [backend.url.authority for backend in settings.backends] == ["127.0.0.1:11434"]
    assert source is None


def test_the_command_line_overrides_the_addresses() -> None:
    settings, _ = serve.find_settings(None, [], Overrides(("127.0.0.1:1", "[::1]:2"), "127.0.0.1:3"))
    assert [str(each) for each in (*settings.listen, settings.admin.listen)] == ["127.0.0.1:1", "[::1]:2", "127.0.0.1:3"]


def test_a_named_file_that_is_missing_is_a_mistake(empty_folder: Path) -> None:
    with pytest.raises(ConfigError):
        names(empty_folder / "none.yaml")


def test_mistakes_are_said_one_a_line_and_1(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = empty_folder / "bad.yaml"
    path.write_text("backends:\n  - name: GPU\n    url: gpu1\n")
    assert main(["serve", "-c", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"understudy: {path}:") for line in lines)


def test_a_file_and_urls_together_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", "-c", "x.yaml", "http://a:1"])
    assert left.value.code == 2
    assert "a file or URLs, not both" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line_and_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        program = [
            sys.executable,
            "-m",
            "understudy",
            "serve",
            "http://127.0.0.1:9",
            "--listen",
            address,
            "--admin",
            "127.0.0.1:0",
        ]
        ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == f"understudy: cannot listen on {address}: Address already in use\n"


def test_closed_standard_streams_are_held() -> None:
    """A socket that became file descriptor 2 would get everything that C libraries write there."""
    program = "import os; from understudy.cli.serve import _hold_standard_streams as hold; os.close(2); hold(); os.fstat(2)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_loop_runs_the_daemon_to_its_exit_code() -> None:
    async def main_part() -> int:
        return 7

    assert serve._run_loop(main_part()) == 7


def test_plain_asyncio_does_where_uvloop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main_part() -> int:
        return os.getpid()

    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert serve._run_loop(main_part()) == os.getpid()
