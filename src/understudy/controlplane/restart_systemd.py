"""Restart by systemd: `systemctl restart UNIT`, and what systemd knows of the unit's end.

Called by controlplane.restart_means. Speaks to systemd by systemctl alone, which needs no library and gets the operator's polkit
or sudo-less rights; asks nobody for a password. Never waits within systemctl: a stop may take 90 s by systemd's own rules, and
to end a waiting systemctl would leave its job to systemd all the same.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_command import Commands
from understudy.telemetry.console import printable

# systemd.unit(5), "unit names": so many of these characters. None begins with a dash here, though systemd's own -.slice does.
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}")
_SHOW_S_MAX: Final = 5.0
_LOOK_AGAIN_S: Final = 0.1
_LOOK_AGAIN_S_MAX: Final = 2.0
_FINE: Final = frozenset({"", "success"})
# As systemctl's versions write it that there is none.
_NO_JOB: Final = frozenset({"", "0"})
# org.freedesktop.systemd1(5).
_SHOWN: Final = ("Type", "ActiveState", "SubState", "Result", "ExecMainStatus", "Job")


async def restart_unit(commands: Commands, unit: str, timeout_s: float) -> MeansOutcome:
    """Have systemd restart `unit`, and see for up to `timeout_s` what comes of it; its job goes on after that.

    Before that, and after a failure, systemd is asked why the unit ended.
    """
    if not _UNIT.fullmatch(unit):
        return MeansOutcome(
            is_done=False, words=f'"{printable(unit)[:100]}" is no name of a unit; want one such as ollama.service'
        )
    # A restart forgets the result, so what the unit died of is asked first.
    before = await _shown(commands, unit, timeout_s)
    outcome = await commands.run(("systemctl", "--no-ask-password", "restart", "--no-block", "--", unit), timeout_s)
    if outcome.is_done:
        outcome = await _outcome_of_job(commands, unit, timeout_s)
    return replace(outcome, was_out_of_memory=outcome.was_out_of_memory or before.get("Result") == "oom-kill")


async def _outcome_of_job(commands: Commands, unit: str, timeout_s: float) -> MeansOutcome:
    """Look at the unit until systemd has no more to do for it."""
    shown: Mapping[str, str] = {}
    pause_s = _LOOK_AGAIN_S
    try:
        async with asyncio.timeout(timeout_s):
            while not _is_settled(shown):
                shown = await _shown(commands, unit, timeout_s) or shown
                if _is_settled(shown):
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LOOK_AGAIN_S_MAX)
    except TimeoutError:
        state = f"{shown.get('ActiveState', 'nothing')} ({shown.get('SubState', 'nothing')})"
        words = f"the unit did not run within {timeout_s:g}s, and systemd goes on with it; systemd says of it: {state}"
        return MeansOutcome(is_done=False, words=words)
    result, state = shown.get("Result", ""), shown["ActiveState"]
    if state == "active" or (state == "inactive" and shown.get("Type") == "oneshot" and result in _FINE):
        return MeansOutcome(is_done=True)
    status = shown.get("ExecMainStatus", "")
    return MeansOutcome(
        is_done=False,
        words=f"the unit does not run; systemd says of it: {state}, {result or 'unknown'}, exit status {status or 'unknown'}",
        was_out_of_memory=result == "oom-kill",
    )


def _is_settled(shown: Mapping[str, str]) -> bool:
    """Tell whether no job is left and the unit is neither coming nor going; what systemd tries again by itself has failed."""
    if shown.get("Job", "") not in _NO_JOB or not shown.get("ActiveState"):
        return False
    return shown["ActiveState"] in {"active", "inactive", "failed"} or shown.get("SubState", "").startswith("auto-restart")


async def _shown(commands: Commands, unit: str, timeout_s: float) -> dict[str, str]:
    """Ask for what systemd says of the unit; nothing where it does not tell."""
    argv = ("systemctl", "--no-ask-password", "show", "-p", ",".join(_SHOWN), "--", unit)
    outcome = await commands.run(argv, min(timeout_s, _SHOW_S_MAX))
    return dict(line.partition("=")[::2] for line in outcome.output) if outcome.is_done else {}
