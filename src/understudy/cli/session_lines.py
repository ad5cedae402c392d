"""Carry kept conversations between the daemon and a file of lines, one record in JSON each.

Called by cli.sessions. A line is what GET /api/sessions?id=ID gives, the session's `id` included. A line that cannot be kept is
told with its place and the next one follows; what concerns the daemon or its store as a whole ends the work.
"""

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import quote

from understudy.cli.admin_call import CallError, call, say_error
from understudy.cli.sessions import fetch_summaries
from understudy.telemetry.console import printable

# What the admin port takes at most; the line has the id besides.
LINE_BYTES_MAX = 64 * 1024 * 1024 + 4096
_WANT = "a line as `understudy sessions export` writes it"
# Refusals that say something of one session and nothing of the next.
_OF_ONE_SESSION = frozenset(
    {
        "id_invalid",
        "record_invalid",
        "record_too_large",
        "session_held",
        "store_not_kept",
        "store_raced",
        "store_too_large",
        "store_unreadable",
    }
)


def export_to(admin: str, file: str) -> int:
    """Write every session to `file`, - for standard output; 1 when one of them could not be read. Raises CallError, OSError."""
    summaries = fetch_summaries(admin)
    # The daemon has answered before the file is emptied.
    first = next(summaries, None)
    exported = lost = 0
    with _opened_to_write(file) as target:
        for summary in chain((first,), summaries) if first else ():
            try:
                record = call(admin, "GET", f"/api/sessions?id={quote(str(summary.get('id')), safe='')}").value
            except CallError as error:
                # One that was listed may have expired since.
                if error.code == "session_unknown":
                    continue
                if error.code not in _OF_ONE_SESSION:
                    raise CallError(f"ended after {exported} conversations: {error}", error.status, error.code) from error
                say_error(f"{summary.get('id')}: {error}")
                lost += 1
            else:
                # ASCII only: nothing in it can speak to a terminal.
                target.write(json.dumps(record) + "\n")
                exported += 1
    if file != "-":
        print(f"{exported} exported to {printable(file)}")
    return 1 if lost else 0


def import_from(admin: str, file: str) -> int:
    """Keep every line of `file`, - for standard input; 1 when one of them could not be kept. Raises CallError, OSError."""
    imported = bad = 0
    name = "standard input" if file == "-" else file
    with _opened_to_read(file) as source:
        for number, line in enumerate(_lines(source), start=1):
            if not line.strip():
                continue
            try:
                _import_line(admin, line)
            except _BadLine as error:
                say_error(f"{name}:{number}: {error}")
                bad += 1
            except CallError as error:
                raise CallError(f"{name}:{number}: {error}; {imported} were imported", error.status, error.code) from error
            else:
                imported += 1
    print(f"{imported} imported" + (f", {bad} not" if bad else ""))
    return 1 if bad else 0


class _BadLine(Exception):  # noqa: N818  a verdict on a line, told to the operator with its place
    """What was found and what is wanted."""


def _import_line(admin: str, line: bytes) -> None:
    """Keep one line. Raises _BadLine, or CallError for what is not the line's fault."""
    if len(line) > LINE_BYTES_MAX:
        raise _BadLine(f"found a line of more than {LINE_BYTES_MAX} bytes; want a shorter one")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"found no JSON; want {_WANT}") from error
    session = record.pop("id", None) if isinstance(record, dict) else None
    if not isinstance(session, str):
        raise _BadLine(f"found no id; want {_WANT}")
    try:
        call(admin, "PUT", f"/api/sessions?id={quote(session, safe='')}", body=record)
    except UnicodeEncodeError as error:
        raise _BadLine(f"found an id with half a character; want {_WANT}") from error
    except CallError as error:
        if error.code in _OF_ONE_SESSION:
            raise _BadLine(str(error)) from error
        raise


def _lines(source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines; of one that is too long only its beginning, which is too long as well."""
    while line := source.readline(LINE_BYTES_MAX + 1):
        yield line
        while line and len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            line = source.readline(LINE_BYTES_MAX + 1)


def _opened_to_write(file: str) -> AbstractContextManager[IO[str]]:
    """Open a file that nobody else may read, whoever could before. Raises OSError."""
    if file == "-":
        return nullcontext(sys.stdout)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    target = os.fdopen(descriptor, "w", encoding="ascii")
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
    except OSError:
        target.close()
        raise
    return target


def _opened_to_read(file: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb")
