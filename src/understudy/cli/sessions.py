"""The commands on kept conversations: sessions list, show, delete, purge, export, import.

All of them ask the running daemon's admin port; none opens the store itself. Whatever a client or a model wrote is printed so
that it cannot speak to the terminal.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from understudy.cli.admin_call import CallError, add_admin_option, call, say_error

if TYPE_CHECKING:
    from collections.abc import Callable

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name

# What the admin port gives at most in one page.
_PAGE = 1000
_LIMIT = 1000
# Removing a great many from a slow disk takes its time.
_PURGE_S_MAX = 600.0
_COLUMNS = ("SESSION", "MESSAGES", "CHANGED", "SIZE", "MODEL", "BACKEND")


def add(subparsers: "Subparsers") -> None:
    """Register the commands."""
    parser = subparsers.add_parser("sessions", help="kept conversations: list, show, delete, purge, export, import")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = _command(commands, "list", "what is kept, the last changed first", run_list)
    listing.add_argument("--json", action="store_true", help="as JSON, one line")
    listing.add_argument("--limit", metavar="N", type=_limit, default=_LIMIT, help=f"at most so many (default {_LIMIT})")
    showing = _command(commands, "show", "one conversation, to read", run_show)
    showing.add_argument("session", metavar="ID", help="its X-Session-ID")
    showing.add_argument("--json", action="store_true", help="as JSON, one line")
    deleting = _command(commands, "delete", "forget one conversation", run_delete)
    deleting.add_argument("session", metavar="ID", help="its X-Session-ID")
    purging = _command(commands, "purge", "forget all conversations, or all old ones", run_purge)
    purging.add_argument(
        "--older-than", metavar="DURATION", type=_duration_s, default=0.0, help="only what has not changed for so long: 12h, 30m"
    )
    purging.add_argument("--yes", action="store_true", help="do not ask")
    exporting = _command(commands, "export", "write all conversations, one line of JSON each", run_export)
    exporting.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="where to, for you alone (default: standard output)"
    )
    importing = _command(commands, "import", "keep what export has written, in place of what is there", run_import)
    importing.add_argument("file", metavar="FILE", nargs="?", default="-", help="where from (default: standard input)")


def _command(
    commands: "Subparsers", name: str, words: str, run: "Callable[[argparse.Namespace], int]"
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words)
    add_admin_option(parser)
    parser.set_defaults(run=lambda args: _said(run, args))
    return parser


def _said(run: "Callable[[argparse.Namespace], int]", args: argparse.Namespace) -> int:
    try:
        return run(args)
    except BrokenPipeError:
        raise
    except CallError as error:
        say_error(error)
    except OSError as error:
        say_error(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}" if error.filename else error)
    return 1


# --- the commands


def run_list(args: argparse.Namespace) -> int:
    """Print a table, or the summaries as JSON with whether there are more."""
    found = list(islice(fetch_summaries(args.admin), args.limit + 1))
    has_more = len(found) > args.limit
    summaries = sorted(found[: args.limit], key=lambda each: _number(each.get("changed_at")), reverse=True)
    if args.json:
        import json

        # ASCII only: nothing in it can speak to the terminal.
        print(json.dumps({"sessions": summaries, "more": has_more}))
        return 0
    print("\n".join(table(summaries)) if summaries else "no conversation is kept")
    if has_more:
        print(f"... and more than these {args.limit}; --limit says how many", file=sys.stderr)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one conversation to read, or as JSON."""
    record = call(args.admin, "GET", _path_of(args.session)).value
    if args.json:
        import json

        print(json.dumps(record))
        return 0
    import time

    from understudy.cli.session_transcript import transcript

    print("\n".join(transcript(record, time.time())))
    return 0


def run_delete(args: argparse.Namespace) -> int:
    """Forget one conversation; 1 when there is none."""
    call(args.admin, "DELETE", _path_of(args.session))
    print(f"{_text(args.session)} is forgotten")
    return 0


def run_purge(args: argparse.Namespace) -> int:
    """Forget all conversations or the old ones, after asking; 1 when the answer is no or nobody can be asked."""
    if not args.yes:
        if not sys.stdin.isatty():
            say_error("nothing was forgotten: nobody can be asked here, so --yes is needed")
            return 1
        if not _confirms(args.older_than):
            say_error("nothing was forgotten")
            return 1
    answer = call(args.admin, "POST", "/api/sessions/purge", body={"older_than_s": args.older_than}, timeout_s=_PURGE_S_MAX)
    print(f"{_text(answer.value.get('deleted'))} forgotten")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write all conversations as lines of JSON."""
    from understudy.cli.session_lines import export_to

    return export_to(args.admin, args.file)


def run_import(args: argparse.Namespace) -> int:
    """Keep what the lines say; 1 when one of them could not be kept."""
    from understudy.cli.session_lines import import_from

    return import_from(args.admin, args.file)


# --- what they are made of


def fetch_summaries(admin: str) -> Iterator[dict[str, Any]]:
    """Yield what is told of every session, page by page. Raises CallError."""
    cursor = ""
    while True:
        page = call(admin, "GET", f"/api/sessions?limit={_PAGE}&cursor={quote(cursor, safe='')}").value
        yield from (each for each in page.get("sessions") or () if isinstance(each, dict))
        following = str(page.get("cursor") or "")
        if following in ("", cursor):
            return
        cursor = following


def _path_of(session: str) -> str:
    """Return the path that asks for one session. Raises CallError for an id that no session can have."""
    try:
        return f"/api/sessions?id={quote(session, safe='')}"
    except UnicodeEncodeError as error:
        # An argument that is not UTF-8 comes with surrogates (PEP 383).
        raise CallError("found an id that is not UTF-8; want one as `understudy sessions list` shows it") from error


def table(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return a header and one row a session."""
    import time

    now_unix_s = time.time()
    rows = [_COLUMNS, *(_row(each, now_unix_s) for each in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(summary: dict[str, Any], now_unix_s: float) -> tuple[str, ...]:
    from understudy.cli.session_transcript import ago, size

    return (
        _text(summary.get("id")),
        _text(summary.get("messages")),
        ago(_number(summary.get("changed_at")), now_unix_s),
        size(_number(summary.get("bytes"))),
        _text(summary.get("model")),
        _text(summary.get("backend")),
    )


def _confirms(older_than_s: float) -> bool:
    from understudy.config.quantities import write_duration

    which = f" that has not changed for {write_duration(older_than_s)}" if older_than_s else ""
    try:
        return input(f"Forget every conversation{which}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("want a whole number from 1 to 1000000")
    return int(text)


def _duration_s(text: str) -> float:
    from understudy.config.quantities import Unreadable, read_duration

    try:
        return read_duration(text)
    except Unreadable as error:
        raise argparse.ArgumentTypeError(f"want {error.want}") from error


def _text(value: object) -> str:
    from understudy.telemetry.console import printable

    return "" if value is None else printable(str(value))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
