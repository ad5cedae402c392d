"""The command `understudy`: reads the command line and runs one command.

Imports only the file of the command that is asked for, so that `status` starts at once; help needs them all. Exit codes: 0
done, 1 it could not be done (one line on standard error), 2 wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from understudy import __version__

# Each file and its commands, in the order of the help.
_COMMANDS = {
    "serve": ("serve",),
    "check": ("check",),
    "demo": ("demo",),
    "status": ("status",),
    "operate": ("reload", "restart", "drain", "ready", "maintenance"),
    "rollout": ("switch", "rollback", "canary"),
    "compare": ("compare",),
    "sessions": ("sessions",),
    "alert": ("alert",),
    "schema": ("schema",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's) and return the exit code. Raises SystemExit(2) for wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser(arguments).parse_args(arguments)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        # As shells report an interrupted command: 128 and the signal's number.
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; nothing more can be said, not even by Python at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy", description="A failover proxy for self-hosted language models.")
    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = arguments[0] if arguments else ""
    owner = next((file for file, commands in _COMMANDS.items() if asked in commands), None)
    for file in [owner] if owner else _COMMANDS:
        import_module(f"understudy.cli.{file}").add(subparsers)
    return parser
