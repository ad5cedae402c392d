"""The commands that move conversations between blue and green: switch, rollback, canary.

Each sends one order to the running daemon's admin port and prints what came of it; whether it is possible is the daemon's to
say. The comparison of the two colors is cli.compare.
"""

import argparse
from typing import TYPE_CHECKING, Any

from understudy.cli.admin_call import CallError, add_admin_option, call, say_error

if TYPE_CHECKING:
    from collections.abc import Callable

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

# The code of a refusal that --force overrules.
_OVERRULED = "switch_refused"
_NOT_KEPT = "not kept across a restart: it could not be written to the state folder"
_CANARY_WANTED = "want a share such as 10%, steps such as 5%,25%,100%, off, or file"


def add(subparsers: "Subparsers") -> None:
    """Register the commands."""
    switching = _command(subparsers, "switch", "give the new conversations to blue or green", run_switch)
    switching.add_argument("color", metavar="blue|green", choices=("blue", "green"), help="the color to be active")
    switching.add_argument("--force", action="store_true", help="even where that color cannot serve what the other one serves")
    returning = _command(subparsers, "rollback", "end the canary, or else take back the last switch", run_rollback)
    returning.add_argument(
        "--sessions", action="store_true", help="take back the conversations that began on the color that is left, too"
    )
    trying = _command(subparsers, "canary", "give a share of the new conversations to the other color", run_canary)
    trying.add_argument(
        "share",
        metavar="SHARE|off|file",
        type=_canary,
        help="10%%, or steps such as 5%%,25%%,100%%; off: none; file: what rollout.canary says",
    )


def _command(
    subparsers: "Subparsers", name: str, words: str, run: "Callable[[argparse.Namespace], int]"
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=words)
    add_admin_option(parser)
    parser.set_defaults(run=run)
    return parser


def run_switch(args: argparse.Namespace) -> int:
    """Make a color active and print which was before; 1 when it was refused."""
    try:
        told = call(args.admin, "POST", "/api/rollout/switch", body={"color": args.color, "force": args.force}).value
    except CallError as error:
        say_error(f"{error}; --force does it all the same" if error.code == _OVERRULED and not args.force else error)
        return 1
    if told.get("was") != told.get("active"):
        print(f"{args.color} takes the new conversations (was {_text(told.get('was'))})")
    elif told.get("changed"):
        print(f"{args.color} was active already; the canary is over")
    else:
        print(f"{args.color} was active already")
    return _ended(told)


def run_rollback(args: argparse.Namespace) -> int:
    """Take back the canary or the last switch and print which; 1 when there is nothing to take back."""
    from understudy.cli.rollout_line import other_color

    try:
        told = call(args.admin, "POST", "/api/rollout/rollback", body={"sessions": args.sessions}).value
    except CallError as error:
        say_error(error)
        return 1
    active = _text(told.get("active"))
    if told.get("was") != told.get("active"):
        print(f"{active} takes the new conversations again (was {_text(told.get('was'))})")
    else:
        print(f"the canary is over: {active} takes all new conversations")
    if args.sessions:
        print(f"the conversations that began on {other_color(active)} go to {active}, too")
    return _ended(told)


def run_canary(args: argparse.Namespace) -> int:
    """Begin or end a canary and print what is in force; 1 when it was refused."""
    from understudy.cli.rollout_line import canary_words

    try:
        told = call(args.admin, "POST", "/api/rollout/canary", body=args.share).value
    except CallError as error:
        say_error(error)
        return 1
    rollout = told.get("rollout")
    canary = rollout.get("canary") if isinstance(rollout, dict) else None
    active = _text(told.get("active"))
    if isinstance(canary, dict):
        print(canary_words(canary, active, of=" of the new conversations go"))
        return _ended(told)
    is_over = "the canary is over" if told.get("changed") else "there was no canary"
    print(f"{is_over}: {active} takes all new conversations")
    return _ended(told)


def _ended(told: dict[str, Any]) -> int:
    """Say what of an order that was carried out may surprise later; return the exit code."""
    if told.get("kept") is False:
        print(_NOT_KEPT)
    return 0


def _canary(text: str) -> dict[str, Any]:
    """Return the order that the admin port takes, from what stands on the command line."""
    from understudy.config.quantities import Unreadable, read_share

    # As a list is written in the file, with spaces.
    steps = [step.strip() for step in text.split(",")]
    if steps in (["off"], ["file"]):
        return {"share": 0 if steps == ["off"] else "file"}
    try:
        for step in steps:
            read_share(step)
    except Unreadable as error:
        raise argparse.ArgumentTypeError(_CANARY_WANTED) from error
    return {"steps": steps} if len(steps) > 1 else {"share": steps[0]}


def _text(value: object) -> str:
    from understudy.telemetry.console import printable

    return "" if value is None else printable(str(value))
