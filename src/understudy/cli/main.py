"""The command `understudy`: reads the command line and runs one command.

Imports no more than argparse and the thin command files, so that --help and status start at once. Exit codes: 0 done, 1 it
could not be done (one line on standard error), 2 wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from understudy import __version__
from understudy.cli import check, demo, operate, schema, serve, status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's) and return the exit code. Raises SystemExit(2) for wrong usage."""
    args = _parser().parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy", description="A failover proxy for self-hosted language models.")
    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (serve, check, demo, status, operate, schema):
        group.add(subparsers)
    return parser
