"""The commands that tell the running daemon what to do: reload, drain, ready, maintenance, restart."""

import argparse
from typing import TYPE_CHECKING

from understudy.cli.admin_call import CallError, add_admin_option, call, say_error

if TYPE_CHECKING:
    from collections.abc import Callable

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

_DUTIES = {
    "drain": ("give a backend no new exchange; its own go on", "takes no new exchange"),
    "ready": ("give a backend exchanges again", "takes exchanges"),
    "maintenance": ("give a backend neither exchanges nor probes", "gets neither exchanges nor probes"),
}


def add(subparsers: "Subparsers") -> None:
    """Register the commands."""
    reload = subparsers.add_parser("reload", help="read the file again; prints what changed or why it was refused")
    add_admin_option(reload)
    reload.set_defaults(run=run_reload)
    restart = subparsers.add_parser("restart", help="restart a backend by the means in the file; its exchanges are moved first")
    restart.add_argument("name", metavar="NAME", help="the backend's name")
    add_admin_option(restart)
    restart.set_defaults(run=run_restart)
    for verb, (words, done) in _DUTIES.items():
        parser = subparsers.add_parser(verb, help=words)
        parser.add_argument("name", metavar="NAME", help="the backend's name")
        add_admin_option(parser)
        parser.set_defaults(run=_duty_runner(verb, done))


def run_restart(args: argparse.Namespace) -> int:
    """Ask for a restart of one backend; returns when it has begun, 1 when it was refused."""
    from urllib.parse import quote

    try:
        call(args.admin, "POST", f"/api/backends/{quote(args.name, safe='')}/restart")
    except CallError as error:
        say_error(error)
        return 1
    print(f"{args.name} is being restarted; understudy status says how it goes")
    return 0


def run_reload(args: argparse.Namespace) -> int:
    """Ask for a reload and print what came of it; 1 when it was refused."""
    from understudy.telemetry.console import printable

    try:
        answer = call(args.admin, "POST", "/api/reload")
    except CallError as error:
        say_error(error)
        return 1
    if not answer.value.get("ok"):
        for mistake in answer.value.get("mistakes") or ["the daemon did not say why"]:
            say_error(f"refused: {mistake}")
        return 1
    changed = answer.value.get("changed") or ()
    print("reloaded" if changed else "reloaded: nothing changed")
    for line in changed:
        print(f"  {printable(str(line))}")
    needs_restart = ", ".join(map(str, answer.value.get("needs_restart") or ()))
    if needs_restart:
        print(f"as before until a restart: {printable(needs_restart)}")
    return 0


def _duty_runner(verb: str, done: str) -> "Callable[[argparse.Namespace], int]":
    def run(args: argparse.Namespace) -> int:
        from urllib.parse import quote

        try:
            call(args.admin, "POST", f"/api/backends/{quote(args.name, safe='')}/{verb}")
        except CallError as error:
            say_error(error)
            return 1
        print(f"{args.name} {done}")
        return 0

    return run
