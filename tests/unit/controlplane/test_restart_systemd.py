"""Plays of units, with a systemctl that notes what it is asked and says what the play wants."""

import os
from pathlib import Path

import pytest

from understudy.controlplane.restart_command import Commands
from understudy.controlplane.restart_systemd import restart_unit

SYSTEMCTL = """#!/bin/sh
echo "$@" >>{folder}/asked
case "$2" in
show) file={folder}/shown.$(grep -c show {folder}/asked); [ -e $file ] || file={folder}/shown.last; cat $file ;;
restart) cat {folder}/said; exit $(cat {folder}/status) ;;
esac
"""


class Systemd:
    """A machine whose systemd answers as the play says: `shown` one by one, the last for ever; `status` and `said` at restart."""

    def __init__(self, folder: Path, *, shown: tuple[str, ...], status: int = 0, said: str = "") -> None:
        self._asked = folder / "asked"
        self.commands = Commands({"PATH": f"{folder}:{os.environ['PATH']}"})
        for number, text in enumerate(shown, start=1):
            (folder / f"shown.{number}").write_text(text)
        (folder / "shown.last").write_text(shown[-1])
        (folder / "status").write_text(str(status))
        (folder / "said").write_text(said)
        program = folder / "systemctl"
        program.write_text(SYSTEMCTL.format(folder=folder))
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines()


def unit(state: str, sub: str, *, result: str = "success", status: int = 0, job: int = 0, kind: str = "simple") -> str:
    """Return what `systemctl show` prints, which leaves out a job that there is not."""
    told = f"Type={kind}\nActiveState={state}\nSubState={sub}\nResult={result}\nExecMainStatus={status}\n"
    return f"{told}Job={job}\n" if job else told


RUNS = unit("active", "running")
KILLED = unit("failed", "failed", result="oom-kill", status=9)
STOPPING = unit("deactivating", "stop-sigterm", job=7)
STARTING = unit("activating", "start", job=7)


async def test_a_unit_is_asked_about_restarted_without_waiting_and_looked_at(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(RUNS,))
    outcome = await restart_unit(systemd.commands, "ollama.service", 10.0)
    assert (outcome.is_done, outcome.words, outcome.was_out_of_memory) == (True, "", False)
    look = "--no-ask-password show -p Type,ActiveState,SubState,Result,ExecMainStatus,Job -- ollama.service"
    assert systemd.asked == [look, "--no-ask-password restart --no-block -- ollama.service", look]


async def test_a_unit_is_waited_for_while_its_job_lasts(tmp_path: Path) -> None:
    """At first the old run is still there, and active."""
    shown = (RUNS, unit("active", "running", job=7), STOPPING, STARTING, RUNS)
    systemd = Systemd(tmp_path, shown=shown)
    assert (await restart_unit(systemd.commands, "ollama", 10.0)).is_done
    assert len(systemd.asked) == 1 + len(shown)


@pytest.mark.parametrize("job", ["Job=\n", "Job=0\n", ""])
async def test_no_job_is_known_however_it_is_written(job: str, tmp_path: Path) -> None:
    assert (await restart_unit(Systemd(tmp_path, shown=(RUNS + job,)).commands, "ollama", 1.0)).is_done


async def test_a_unit_that_takes_too_long_has_one_job_that_goes_on(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(RUNS, STOPPING))
    outcome = await restart_unit(systemd.commands, "ollama", 0.5)
    assert not outcome.is_done
    assert outcome.words == (
        "the unit did not run within 0.5s, and systemd goes on with it; systemd says of it: deactivating (stop-sigterm)"
    )
    assert sum("restart" in line for line in systemd.asked) == 1


async def test_a_unit_of_which_systemd_says_nothing_is_not_done(tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(RUNS, "")).commands, "ollama", 0.3)
    assert outcome.words.endswith("systemd says of it: nothing (nothing)")


async def test_a_unit_that_memory_ran_out_for_is_restarted_and_that_is_said(tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(KILLED, RUNS)).commands, "vllm@0", 10.0)
    assert (outcome.is_done, outcome.was_out_of_memory) == (True, True)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (unit("failed", "failed", result="exit-code", status=203), "failed, exit-code, exit status 203"),
        (unit("activating", "auto-restart", result="exit-code", status=203), "activating, exit-code, exit status 203"),
        (unit("inactive", "dead", status=203), "inactive, success, exit status 203"),
    ],
)
async def test_a_unit_that_does_not_start_says_what_systemd_says(after: str, words: str, tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(RUNS, STARTING, after)).commands, "ollama", 10.0)
    assert not outcome.is_done
    assert outcome.words == f"the unit does not run; systemd says of it: {words}"


async def test_a_unit_that_runs_out_of_memory_again_is_seen(tmp_path: Path) -> None:
    outcome = await restart_unit(Systemd(tmp_path, shown=(RUNS, KILLED)).commands, "ollama", 10.0)
    assert outcome.was_out_of_memory
    assert "oom-kill" in outcome.words


async def test_a_unit_that_only_starts_something_else_has_done_so_when_it_is_over(tmp_path: Path) -> None:
    over = unit("inactive", "dead", kind="oneshot")
    assert (await restart_unit(Systemd(tmp_path, shown=(over, STARTING, over)).commands, "compose", 10.0)).is_done


async def test_a_unit_that_does_not_exist_adds_nothing_to_what_systemctl_says(tmp_path: Path) -> None:
    said = "Failed to restart x.service: Unit x.service not found."
    systemd = Systemd(tmp_path, shown=(unit("inactive", "dead"),), status=5, said=said)
    outcome = await restart_unit(systemd.commands, "x", 10.0)
    assert outcome.words == "systemctl ended with exit status 5"
    assert outcome.output == (said,)


async def test_a_machine_without_systemd_says_so(tmp_path: Path) -> None:
    outcome = await restart_unit(Commands({"PATH": str(tmp_path)}), "ollama", 10.0)
    assert outcome.words == "systemctl cannot be started: there is no such program"


@pytest.mark.parametrize("name", ["", "--force", "-H", "a b", "a;b", "a\nb", "../x", "a*", "x" * 256])
async def test_what_is_no_name_of_a_unit_is_given_to_nobody(name: str, tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, shown=(RUNS,))
    outcome = await restart_unit(systemd.commands, name, 10.0)
    assert "is no name of a unit; want one such as ollama.service" in outcome.words
    assert outcome.words.isprintable()
    assert not (tmp_path / "asked").exists()
