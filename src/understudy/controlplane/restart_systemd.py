"""Restart by systemd: `systemctl restart UNIT`, and what systemd knows of the unit's end.

Called by controlplane.restart_means. Speaks to systemd by systemctl alone, which needs no library and gets the operator's polkit
or sudo-less rights; asks nobody for a password.
"""

import re
from dataclasses import replace
from typing import Final

from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_command import Commands
from understudy.telemetry.console import printable

# systemd.unit(5), "unit names": so many of these characters. None begins with a dash here, though systemd's own -.slice does.
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}")
_SHOW_S_MAX: Final = 5.0
_FINE: Final = frozenset({"", "success"})


async def restart_unit(commands: Commands, unit: str, timeout_s: float) -> MeansOutcome:
    """Restart `unit`. Before that, and after a failure, systemd is asked why the unit ended."""
    if not _UNIT.fullmatch(unit):
        return MeansOutcome(
            is_done=False, words=f'"{printable(unit)[:100]}" is no name of a unit; want one such as ollama.service'
        )
    # A restart forgets the result, so what the unit died of is asked first.
    result, _ = await _result_of(commands, unit, timeout_s)
    is_out_of_memory = result == "oom-kill"
    outcome = await commands.run(("systemctl", "--no-ask-password", "restart", "--", unit), timeout_s)
    words = outcome.words
    if not outcome.is_done and outcome.exit_status is not None:
        result, main_status = await _result_of(commands, unit, timeout_s)
        is_out_of_memory = is_out_of_memory or result == "oom-kill"
        if result not in _FINE:
            words += f"; systemd says of the unit: {result}, exit status {main_status or 'unknown'}"
    return replace(outcome, words=words, was_out_of_memory=outcome.was_out_of_memory or is_out_of_memory)


async def _result_of(commands: Commands, unit: str, timeout_s: float) -> tuple[str, str]:
    """Ask how the unit ended last: its Result and ExecMainStatus (systemd.exec(5)), "" where systemd does not tell."""
    argv = ("systemctl", "--no-ask-password", "show", "-p", "Result", "-p", "ExecMainStatus", "--", unit)
    outcome = await commands.run(argv, min(timeout_s, _SHOW_S_MAX))
    if not outcome.is_done:
        return "", ""
    said = dict(line.partition("=")[::2] for line in outcome.output)
    return said.get("Result", ""), said.get("ExecMainStatus", "")
