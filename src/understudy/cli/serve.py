"""The command serve: find the settings, run the daemon in the foreground, say in one line what keeps it from running."""

import argparse
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.admin_call import say_error
from understudy.errors import ConfigError

if TYPE_CHECKING:
    from understudy.config.load import Overrides
    from understudy.config.schema import Settings

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the daemon in the foreground",
        description="Run the daemon. Without a file and URLs: ./understudy.yaml, /etc/understudy/understudy.yaml, else one "
        "backend at http://127.0.0.1:11434.",
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="the file to read")
    parser.add_argument("--listen", metavar="HOST:PORT", action="append", default=[], help="instead of the file's; may repeat")
    parser.add_argument("--admin", metavar="HOST:PORT", default="", help="where the admin port listens, instead of the file's")
    parser.add_argument("urls", metavar="URL", nargs="*", help="backends without a file: the first is primary, others backups")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Run until the daemon ends; returns its exit code, 1 when it could not begin."""
    if args.config is not None and args.urls:
        args.usage_error("give a file or URLs, not both")
    _hold_standard_streams()
    _leave_out_ornaments()
    from understudy.config.load import Overrides

    overrides = Overrides(tuple(args.listen), args.admin)
    try:
        settings, source = find_settings(args.config, args.urls, overrides)
        from understudy.daemon.start import run as run_daemon

        return _run_loop(run_daemon(settings, source=source, env=os.environ, overrides=overrides))
    except ConfigError as error:
        for mistake in error.mistakes:
            say_error(mistake)
    except OSError as error:
        # The operator's: a port that is taken, an address that is not ours, a lack of permission.
        say_error(error.strerror or error)
    return 1


def find_settings(file: Path | None, urls: list[str], overrides: "Overrides") -> "tuple[Settings, Path | None]":
    """Return the settings and the file they came from, None for URLs alone. Raises ConfigError."""
    from understudy.config.load import DEFAULT_URL, find_file, from_urls, load_file

    if urls:
        return from_urls(urls, overrides), None
    found = file or find_file()
    if found is None:
        return from_urls([DEFAULT_URL], overrides), None
    return load_file(found, os.environ, overrides), found


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.run(main)
    return uvloop.run(main)


def _leave_out_ornaments() -> None:
    """Keep structlog and httpx from loading what makes things pretty or small: 6 MiB, and a daemon needs neither."""
    for name in ("rich", "click", "pygments", "zstandard", "brotli", "brotlicffi"):
        if name not in sys.modules:
            # The import system answers ImportError for a module that is None, which both take for "not installed".
            sys.modules[name] = None  # type: ignore[assignment]  # the import system reads None as absent


def _hold_standard_streams() -> None:
    """Open the null device where a standard stream was closed: else a client's connection could become standard error."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
