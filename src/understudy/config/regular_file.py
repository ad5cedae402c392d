"""Read a file that an operator named, and nothing that only looks like one.

Called by config.load and config.substitution. A named pipe would hold the daemon until somebody writes to it, a device might
never end. Moves bytes, knows nothing of what they mean.
"""

import os
import stat
from pathlib import Path


def read_regular_file(path: Path | str, bytes_max: int) -> bytes:
    """Return the file's bytes, at most `bytes_max` of them. Raises OSError, also for a folder, a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(0, "not a path") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        content = b""
        while len(content) < bytes_max and (more := os.read(descriptor, bytes_max - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)
