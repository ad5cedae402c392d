"""The command that asks whether alerts arrive: `understudy alert test`.

Has the running daemon send one test message to every channel of its file and prints what came of each; the daemon names the
channels, without their secrets.
"""

import argparse
from typing import TYPE_CHECKING

from understudy.cli.admin_call import CallError, add_admin_option, call, say_error

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser("alert", help="whether alerts reach the people they are for")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    test = actions.add_parser("test", help="send one test message to every channel and print what came of it")
    add_admin_option(test)
    test.set_defaults(run=run_test)


def run_test(args: argparse.Namespace) -> int:
    """Print one line a channel; 1 when one did not take the message."""
    from understudy.telemetry.console import printable

    try:
        told = call(args.admin, "POST", "/api/alerts/test").value.get("channels")
    except CallError as error:
        say_error(error)
        return 1
    channels = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    for channel in channels:
        words = f": {channel.get('words')}" if not channel.get("ok") else ""
        print(printable(f"{'sent' if channel.get('ok') else 'failed':<6}  {channel.get('name')}{words}"))
    return 0 if channels and all(channel.get("ok") for channel in channels) else 1
