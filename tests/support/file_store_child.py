"""Processes that do to a folder of sessions what only a process can: hold, race, die in the middle of a write, meet a bad disk.

Started by the plays of the file store as `python -m support.file_store_child ROLE PATH ...`; answers on standard output in JSON.
What a role finds is judged by the play, not here.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from support.stored import CODECS, conversation
from understudy.core.conversation import Conversation
from understudy.core.message import Speaker, spoken
from understudy.sessions.file_store import FileStore
from understudy.sessions.session_files import SessionFiles
from understudy.sessions.store import Conflict, HeldElsewhere, Hold, StoreError

TESTS = Path(__file__).parents[1]
CODEC = CODECS["json"]
SESSION = "kitchen-7"
TTL_S = 3600.0


def start(role: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a role; `prefix` is a command that runs it elsewhere, such as in a mount namespace of its own."""
    command = [*prefix, sys.executable, "-m", "support.file_store_child", role, *map(str, arguments)]
    return subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def answer_of(role: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Any:
    """Run a role to its end and return what it found."""
    child = start(role, *arguments, prefix=prefix)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0, f"{role} ended with {child.returncode}: {said!r}"
    return json.loads(said)


def mounting(folder: Path) -> tuple[str, ...] | None:
    """Return the command in front of a child that may mount, None where no child may: as root, else as root of its own."""
    for prefix in (("unshare", "-m"), ("unshare", "-rm")):
        trial = (*prefix, "mount", "-t", "tmpfs", "none", str(folder))
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run(trial, check=False, capture_output=True).returncode == 0:
                return prefix
    return None


def files_of(path: Path) -> SessionFiles:
    """Return the blocking part of a store, which needs no threads."""
    return SessionFiles(path, CODEC, time.time, lambda file, reason: None)


def store_of(path: Path) -> FileStore:
    """Return a store that expects nothing to be set aside."""
    return FileStore(path, CODEC, ttl_s=TTL_S, report=lambda event, fields: None)


def seed(path: Path, *texts: str, revision: int = 1) -> None:
    """Keep a conversation of that revision in place of the one before."""
    files = files_of(path)
    taken = files.take(CODEC.name(SESSION), TTL_S)
    assert taken is not None
    files.keep(taken, SESSION, conversation(revision, *texts), TTL_S, is_last=True)


def tell(found: object) -> None:
    """Answer the play."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def hold(path: Path) -> None:
    """Hold the session until killed."""
    taken = files_of(path).take(CODEC.name(SESSION), TTL_S)
    tell({"held": taken is not None})
    sys.stdin.read()


# --- racing


def add(path: Path, who: str, count: str, locks: str) -> None:
    """Add messages to the session, each in a turn of its own, as a daemon would: merged anew after each lost race."""

    async def play() -> dict[str, int]:
        store = store_of(path)
        await store.open()
        tally = {"kept": 0, "conflicts": 0}
        for index in range(int(count)):
            held = await store.hold(SESSION, 30.0)
            tally["conflicts"] += await _add_one(held, f"{who}-{index}")
            tally["kept"] += 1
            await held.release()
        await store.close()
        return tally

    with mock.patch.object(fcntl, "flock", _no_locks) if locks == "without" else contextlib.nullcontext():
        tell(asyncio.run(play()))


def _no_locks(fd: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "no locks")


async def _add_one(held: Hold, text: str) -> int:
    current, conflicts = held.conversation, 0
    while True:
        before = current or Conversation()
        messages = (*before.messages, spoken(Speaker.USER, text))
        try:
            await held.keep(msgspec.structs.replace(before, revision=before.revision + 1, messages=messages))
        except Conflict as conflict:
            current, conflicts = conflict.current, conflicts + 1
        else:
            return conflicts


# --- dying

# Every call of the system that take and keep make.
CALLS = ("open", "write", "read", "utime", "fsync", "close", "rename", "unlink", "ftruncate", "posix_fallocate", "fstat", "stat")


def die(path: Path) -> None:
    """Be killed before each call of a write in turn, and in the middle of each write, always with an old revision there.

    Prints for each the call, and what is found of which revision and files afterwards.
    """
    path.mkdir()
    found = []
    for step in range(1, 1000):
        place = path / str(step)
        seed(place, "old")
        child = os.fork()
        if not child:
            _write_until_killed(place, step)
        _, status = os.waitpid(child, 0)
        read = files_of(place).read(CODEC.name(SESSION), TTL_S)
        text = read[1].messages[0].text if read is not None else None
        left = sorted(file.suffix for file in place.rglob("*.*"))
        files = files_of(place)
        taken = files.take(CODEC.name(SESSION), TTL_S)
        is_free = taken is not None
        if taken is not None:
            revision = read[1].revision if read is not None else 0
            files.keep(taken, SESSION, conversation(revision + 1, "next"), TTL_S, is_last=True)
        found.append({"step": step, "found": text, "left": left, "is_free": is_free, "is_killed": os.WIFSIGNALED(status)})
        if not os.WIFSIGNALED(status):
            break
    tell(found)


def _write_until_killed(place: Path, step: int) -> None:
    count = 0

    def counted(real: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            if real is write:
                write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    write = os.write
    for name in CALLS:
        setattr(os, name, partial(counted, getattr(os, name)))
    seed(place, "new", revision=2)
    os._exit(0)


# --- bad disks


def bad_disk(path: Path, way: str) -> None:
    """Keep sessions on a disk that is full, then read-only, then well again. `way`: a mount of 1 MiB, or injected errors."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(_mounted(path) if way == "mount" else _injected())
        tell(asyncio.run(_meet(path, disk)))


async def _meet(path: Path, disk: Callable[[str], None]) -> dict[str, Any]:
    store = store_of(path / "sessions")
    await store.open()
    seen: dict[str, Any] = {"before": await _try(store, 1)}
    for condition in ("full", "well", "read-only", "well again"):
        disk(condition.split()[0])
        if condition == "read-only":
            other = store_of(path / "sessions")
            await other.open()
            await other.close()
        seen[condition] = await _try(store, 2 + sum(1 for each in seen.values() if each["kept"] is True) - 1)
    await store.close()
    seen["left"] = sorted(file.suffix for file in (path / "sessions").rglob("*.*"))
    return seen


async def _try(store: FileStore, revision: int) -> dict[str, Any]:
    """Hold, keep, delete another one, list and sweep."""
    seen: dict[str, Any] = {}
    held = await store.hold(SESSION, 0.0)
    seen["loss"] = held.loss
    seen["revision"] = held.conversation.revision if held.conversation else 0
    try:
        await held.keep(conversation(revision, "x" * 300_000))
        seen["kept"] = True
    except StoreError as error:
        seen["kept"] = error.loss
    await held.release()
    read = await store.read(SESSION)
    seen["read"] = read[1].revision if read else 0
    new = await store.hold("never seen before", 0.0)
    seen["new"] = [new.loss, new.conversation]
    await new.release()
    seen["listed"] = len((await store.page("", 10)).summaries)
    seen["swept"] = (await store.sweep()).sessions
    return seen


@contextlib.contextmanager
def _mounted(path: Path) -> Iterator[Callable[[str], None]]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=True)

    def become(condition: str) -> None:
        filler = path / "filler"
        if condition == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", path], check=True)
            return
        subprocess.run(["mount", "-o", "remount,rw", path], check=True)
        filler.unlink(missing_ok=True)
        if condition == "full":
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

    yield become
    subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def _injected() -> Iterator[Callable[[str], None]]:
    """The errors of such disks where nothing can be mounted, given at the calls that give them."""
    number = 0
    reals = {name: getattr(os, name) for name in ("open", "write", "posix_fallocate", "rename", "unlink", "mkdir")}

    def call(name: str, *arguments: Any, **more: Any) -> Any:
        writes = name != "open" or arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        is_full = number == errno.ENOSPC and name in {"write", "posix_fallocate"}
        if (number == errno.EROFS and writes) or is_full:
            raise OSError(number, os.strerror(number))
        return reals[name](*arguments, **more)

    def become(condition: str) -> None:
        nonlocal number
        number = {"full": errno.ENOSPC, "read-only": errno.EROFS}.get(condition, 0)

    for name in reals:
        setattr(os, name, partial(call, name))
    yield become
    for name, real in reals.items():
        setattr(os, name, real)


def refused(path: Path) -> None:
    """Use folders that another user has made, as nobody where this runs as root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(_use_refused(path))


async def _use_refused(path: Path) -> None:
    seen: dict[str, Any] = {}
    for name in ("unentered", "unwritten", "unentered/below", "unwritten/below"):
        try:
            await store_of(path / name).open()
        except StoreError as error:
            seen[name] = [error.loss, error.detail]
    store = store_of(path / "unwritten")
    held = await store.hold(SESSION, 0.0)
    seen["hold"] = [held.loss, held.conversation.revision if held.conversation else 0]
    try:
        await held.keep(conversation(2, "new"))
    except StoreError as error:
        seen["keep"] = error.loss
    await held.release()
    seen["swept"] = (await store.sweep()).sessions
    tell(seen)


def hang(path: Path) -> None:
    """End while a write hangs in the disk: the process must not wait for it."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(".tmp"):
            real(fd)
            return
        while True:
            time.sleep(60)

    async def play() -> dict[str, Any]:
        store = store_of(path)
        await store.open()
        held = await store.hold(SESSION, 0.0)
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(0.05):
                await held.keep(conversation(2, "new"))
        except TimeoutError:
            seen["keep"] = "timed out"
        await held.release()
        try:
            await store.hold(SESSION, 0.0)
        except HeldElsewhere:
            seen["hold"] = "held elsewhere"
        await store._threads.close(0.01)
        return seen

    with mock.patch.object(os, "fsync", fsync):
        tell(asyncio.run(play()))


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {role.__name__: role for role in (hold, add, die, bad_disk, refused, hang)}
    roles[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
