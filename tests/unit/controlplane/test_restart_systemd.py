"""Plays of units, with a systemctl that notes what it is asked and says what the play wants."""

import os
from pathlib import Path

import pytest

from understudy.controlplane.restart_command import Commands
from understudy.controlplane.restart_systemd import restart_unit

SYSTEMCTL = """#!/bin/sh
echo "$@" >>{folder}/asked
case "$2" in
show) cat {folder}/shown.$(grep -c show {folder}/asked) ;;
restart) cat {folder}/said; exit $(cat {folder}/status) ;;
esac
"""


class Systemd:
    """A machine whose systemd answers as the play says: `shown` before and after, `status` and `said` of the restart."""

    def __init__(self, folder: Path, *, shown: tuple[str, str], status: int = 0, said: str = "") -> None:
        self._asked = folder / "asked"
        self.commands = Commands({"PATH": f"{folder}:{os.environ['PATH']}"})
        for number, text in enumerate(shown, start=1):
            (folder / f"shown.{number}").write_text(text)
        (folder / "status").write_text(str(status))
        (folder / "said").write_text(said)
        program = folder / "systemctl"
        program.write_text(SYSTEMCTL.format(folder=folder))
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines()


FINE = "Result=success\nExecMainStatus=0\n"
KILLED = "Result=oom-kill\nExecMainStatus=9\n"


async def test_a_unit_is_restarted_and_asked_about_first(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(FINE, FINE))
    outcome = await restart_unit(systemd.commands, "ollama.service", 10.0)
    assert (outcome.is_done, outcome.words, outcome.was_out_of_memory) == (True, "", False)
    assert systemd.asked == [
        "--no-ask-password show -p Result -p ExecMainStatus -- ollama.service",
        "--no-ask-password restart -- ollama.service",
    ]


async def test_a_unit_that_memory_ran_out_for_is_restarted_and_that_is_said(tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(KILLED, FINE)).commands, "vllm@0", 10.0)
    assert (outcome.is_done, outcome.was_out_of_memory) == (True, True)


async def test_a_unit_that_does_not_start_says_what_systemd_says(tmp_path: Path) -> None:
    shown = (FINE, "Result=exit-code\nExecMainStatus=203\n")
    systemd = Systemd(tmp_path, shown=shown, status=1, said="Job for ollama.service failed.\n")
    outcome = await restart_unit(systemd.commands, "ollama.service", 10.0)
    assert not outcome.is_done
    assert outcome.words == "systemctl ended with exit status 1; systemd says of the unit: exit-code, exit status 203"
    assert outcome.output == ("Job for ollama.service failed.",)
    assert outcome.exit_status == 1


async def test_a_unit_that_runs_out_of_memory_again_is_seen(tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(FINE, KILLED), status=1).commands, "ollama", 10.0)
    assert outcome.was_out_of_memory
    assert "oom-kill" in outcome.words


async def test_a_unit_that_does_not_exist_adds_nothing_to_what_systemctl_says(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(FINE, FINE), status=5, said="Failed to restart x.service: Unit x.service not found.")
    outcome = await restart_unit(systemd.commands, "x", 10.0)
    assert outcome.words == "systemctl ended with exit status 5"
    assert outcome.output == ("Failed to restart x.service: Unit x.service not found.",)


async def test_a_machine_without_systemd_says_so(tmp_path: Path) -> None:
    outcome = await restart_unit(Commands({"PATH": str(tmp_path)}), "ollama", 10.0)
    assert outcome.words == "systemctl cannot be started: there is no such program"


@pytest.mark.parametrize("unit", ["", "--force", "-H", "a b", "a;b", "a\nb", "../x", "a*", "x" * 256])
async def test_what_is_no_name_of_a_unit_is_given_to_nobody(unit: str, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(FINE, FINE))
    outcome = await restart_unit(systemd.commands, unit, 10.0)
    assert "is no name of a unit; want one such as ollama.service" in outcome.words
    assert outcome.words.isprintable()
    assert not (tmp_path / "asked").exists()
