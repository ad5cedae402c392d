"""Tell when a file may have changed: at once where the system tells it, every few seconds where it does not.

Called by config.reload. Watches the folder of every link that leads to the file, because editors replace the file, a
Kubernetes ConfigMap swaps a link to a folder (`..data`), and releases swap a link further up. Looks without being told, too: a
network file system, a file mounted over the path and a folder that was replaced send no notice. Reads no content.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from watchfiles import awatch

# inotify has run out of watches or instances, or the folder is gone: look this often until it works again.
LOOK_S: Final = 2.0
# With inotify at work, look this often all the same.
UNTOLD_LOOK_S: Final = 5.0
LINKS_MAX: Final = 40

Signature = tuple[int, ...]


def signature(path: Path) -> Signature:
    """Return what changes whenever the file's content does, without reading it: inode, size, times; or why there is none."""
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or -1,)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


async def looks(path: Path, look_s: float = LOOK_S, untold_look_s: float = UNTOLD_LOOK_S) -> AsyncGenerator[None, None]:
    """Yield once now, and then whenever it is time to look at the file again. Ends only by being closed."""
    yield
    while True:
        folders = folders_of(path)
        if not folders:
            await asyncio.sleep(look_s)
            yield
            continue
        try:
            notices = awatch(
                *sorted({folder for folder, _, _ in folders}),
                watch_filter=None,
                debounce=200,
                step=50,
                rust_timeout=int(untold_look_s * 1000),
                yield_on_timeout=True,
                recursive=False,
                ignore_permission_denied=True,
            )
            async with contextlib.aclosing(notices):
                async for _ in notices:
                    yield
                    if folders_of(path) != folders:
                        break
            # What happened between two watches was told to neither.
            yield
        except (OSError, RuntimeError):
            # RuntimeError is what watchfiles makes of an error of its Rust part.
            await asyncio.sleep(look_s)
            yield


def folders_of(path: Path) -> frozenset[tuple[str, int, int]]:
    """Return every folder in which a change can give `path` another content, each with the device and inode it is now."""
    folders: set[str] = set()
    pending = [os.path.abspath(path)]  # noqa: PTH100  resolve() would skip the links that are to be watched
    for _ in range(LINKS_MAX):
        if not pending:
            break
        whole = Path(pending.pop())
        folders.add(str(whole.parent))
        for part in (whole, *whole.parents):
            with contextlib.suppress(OSError):
                # What a link leads to, with the rest of the path behind it, is the next path to look at.
                target = part.parent / part.readlink() / whole.relative_to(part)
                folders.add(str(part.parent))
                pending.append(str(target))
                break
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            status = Path(folder).stat()
            found.add((folder, status.st_dev, status.st_ino))
    return frozenset(found)
