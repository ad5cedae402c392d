"""Put a comparison where it was wanted: on standard output, and as a page in a file that is never half written.

Called by cli.compare once all answers are in. Whatever goes wrong is an OSError that names the place; knows nothing of what is
written.
"""

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

STDOUT = "standard output"


def print_text(text: str) -> None:
    """Write to standard output, what its encoding does not have as escapes. Raises OSError with `STDOUT` for its filename."""
    try:
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is still kept for it would be tried again at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror or type(error).__name__, STDOUT) from error


def refuse_unwritable(page: Path) -> None:
    """Raise OSError where `page` could not be written; creates and changes nothing."""
    folder = page.resolve().parent
    if page.is_dir():
        number = errno.EISDIR
    elif not folder.exists():
        number = errno.ENOENT
    elif not folder.is_dir():
        number = errno.ENOTDIR
    elif not os.access(*((page, os.W_OK) if _is_in_place(page) else (folder, os.W_OK | os.X_OK))):
        number = errno.EACCES
    else:
        return
    raise OSError(number, os.strerror(number), str(page))


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both are one regular file, whatever their names."""
    return one.is_file() and other.is_file() and one.samefile(other)


def write_page(page: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all where `page` is or becomes a regular file. Raises OSError that names it."""
    data = text.encode("utf-8", errors="replace")
    try:
        if _is_in_place(page):
            with page.open("wb") as target:
                target.write(data)
        else:
            _replace(page.resolve(), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror or type(error).__name__, str(page)) from error


def _replace(page: Path, data: bytes) -> None:
    unfinished = page.with_name(f".understudy-compare-{os.getpid()}")
    try:
        with unfinished.open("xb") as target:
            if page.exists():
                os.fchmod(target.fileno(), stat.S_IMODE(page.stat().st_mode))
            target.write(data)
        unfinished.replace(page)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _is_in_place(page: Path) -> bool:
    """Whether it is written where it is: a device, a pipe, or a file in a folder in which nothing new may be made."""
    if not page.exists():
        return False
    return not page.is_file() or not os.access(page.resolve().parent, os.W_OK | os.X_OK)
