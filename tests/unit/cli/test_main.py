"""The command line: which commands there are, how they end, and that the quick ones start quickly."""

import re
import subprocess
import sys

import pytest

from understudy import __version__
from understudy.cli import main as main_module
from understudy.cli import status as status_module
from understudy.cli.main import main

COMMANDS = [
    *("serve", "check", "demo", "status", "reload", "restart", "drain", "ready", "maintenance"),
    *("switch", "rollback", "canary"),
    *("compare", "sessions", "alert", "schema"),
]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^    (\w+)", shown, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"understudy {command}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"understudy {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["perform"], ["status", "--loud"]])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: understudy")


def test_every_file_of_commands_registers_what_the_table_says() -> None:
    for file, commands in main_module._COMMANDS.items():
        parser = main_module._parser([commands[0]])
        (choices,) = [action.choices for action in parser._actions if action.choices]
        assert tuple(choices) == commands, file


def test_an_interrupted_command_ends_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_module, "call", interrupted)
    assert main(["status"]) == 130


def test_a_reader_that_left_is_no_traceback() -> None:
    program = [sys.executable, "-m", "understudy", "schema"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_status_loads_no_framework() -> None:
    """It starts in the time that Python itself takes, because nothing heavy is imported."""
    program = (
        "import sys\nfrom understudy.cli.main import main\nmain(['status', '--admin', 'unix:/none'])\n"
        "heavy = {'asyncio', 'pydantic', 'aiohttp', 'httpx', 'structlog', 'uvloop', 'msgspec', 'yaml'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr == "understudy: no daemon answers at unix:/none: no such file or directory\n\n"
