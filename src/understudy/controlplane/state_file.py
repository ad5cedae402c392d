"""Keep what must survive the daemon in small files of the state folder: the rollout with its secret, and counts of restarts.

Driven by controlplane.rollout_driver and controlplane.supervisor, a file each: read once at the start, written whole or not at
all, in a thread of its own. Knows where the files lie, what they say and how they are written. Never decides what is in force,
and never overwrites what it cannot read.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from understudy.core.color import Color
from understudy.core.restart_kept import Kept
from understudy.core.rollout import Rollout

STATE_BYTES_MAX: Final = 64 * 1024
# An operator who waits for a switch does not wait longer for a disk that hangs.
KEEP_S_MAX: Final = 5.0
SECRET_BYTES: Final = 32
CORRUPT: Final = ".corrupt"

ROLLOUT: Final = "rollout"
RESTARTS: Final = "restarts"

_VERSION: Final = 1
_What = TypeVar("_What")
_SECRET = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")
_NO_FOLDER: Final = "there is no state folder: none of STATE_DIRECTORY, XDG_STATE_HOME and HOME is set, or no file was given"
# FUSE and some network file systems cannot sync a folder, and need not.
_UNSYNCABLE: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


@dataclass(frozen=True, slots=True)
class State:
    """What is kept. `cookie_secret` is 32 random bytes as hex."""

    rollout: Rollout
    cookie_secret: str = field(repr=False)


class StateUnreadableError(Exception):
    """The content is none of ours, or of another version; says which, in words."""


class _Version(msgspec.Struct):
    version: int


class _Content(msgspec.Struct):
    version: int
    rollout: Rollout
    cookie_secret: str


class _Restarts(msgspec.Struct):
    version: int
    restarts: dict[str, Kept]


def file_id(source: Path) -> str:
    """Tell by 12 characters the daemons of one machine apart, each of which runs by a file of its own."""
    return hashlib.sha256(os.fsencode(source.absolute())).hexdigest()[:12]


def state_path(env: Mapping[str, str], source: Path | None, what: str = ROLLOUT) -> Path | None:
    """Return where the daemon that runs by the file `source` keeps `what`; None where there is no place for it.

    The folder is systemd's STATE_DIRECTORY (the first of those in it, systemd.exec(5)), else understudy in XDG_STATE_HOME, else
    in ~/.local/state (XDG Base Directory Specification: a relative path is ignored). The name has the file's id.
    """
    if source is None:
        return None
    name = f"{what}-{file_id(source)}.json"
    candidates = (
        (env.get("STATE_DIRECTORY", "").partition(":")[0],),
        (env.get("XDG_STATE_HOME", ""), "understudy"),
        (env.get("HOME", ""), ".local", "state", "understudy"),
    )
    return next((Path(*parts, name) for parts in candidates if Path(parts[0]).is_absolute()), None)


def encode_state(state: State) -> bytes:
    """Return the file's content: JSON that a person can read."""
    return _encode(_Content(_VERSION, state.rollout, state.cookie_secret))


def decode_state(content: bytes) -> State:
    """Return what the file says. Raises `StateUnreadableError`."""
    kept = _decode(content, _Content)
    rollout = kept.rollout
    shares = (*rollout.shares, *rollout.file_shares)
    if (
        Color.NONE in (rollout.active, rollout.file_active)
        or not all(0.0 <= share <= 1.0 for share in shares)
        or not 0 <= rollout.step < max(1, len(rollout.shares))
    ):
        raise StateUnreadableError("found a rollout that cannot be")
    if not _SECRET.fullmatch(kept.cookie_secret):
        raise StateUnreadableError(f"found a cookie_secret that is not {SECRET_BYTES} bytes as hex")
    return State(rollout, kept.cookie_secret)


def encode_restarts(restarts: Mapping[str, Kept]) -> bytes:
    """Return the content of the file that counts restarts, by the backends' names: JSON that a person can read."""
    return _encode(_Restarts(_VERSION, dict(restarts)))


def decode_restarts(content: bytes) -> Mapping[str, Kept]:
    """Return what that file says. Raises `StateUnreadableError`."""
    return _decode(content, _Restarts).restarts


def _encode(content: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _decode(content: bytes, shape: type[_What]) -> _What:
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != _VERSION:
            raise StateUnreadableError(f"found version {version}; want {_VERSION}: another understudy has written it")
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateUnreadableError(f"found what is no state: {error}") from error


class StateFile:
    """One file that is replaced whole. `path` None: there is no place for it. May block; raises OSError with words."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """Return the content, None where there is no file. Raises OSError, also for a link, what is no file, and one too long."""
        if self.path is None:
            return None
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            # Where the folder is a file nothing can have been kept; that nothing can be is for `write` to say.
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "found a link; want a file", str(self.path)) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "not a regular file", str(self.path))
            content = b""
            while len(content) <= STATE_BYTES_MAX and (more := os.read(descriptor, STATE_BYTES_MAX + 1 - len(content))):
                content += more
        finally:
            os.close(descriptor)
        if len(content) > STATE_BYTES_MAX:
            raise OSError(0, f"longer than {STATE_BYTES_MAX} bytes", str(self.path))
        return content

    def write(self, content: bytes) -> None:
        """Put `content` in place of what was there, on the disk before this returns; folders are made. Raises OSError."""
        if self.path is None:
            raise OSError(0, _NO_FOLDER)
        if len(content) > STATE_BYTES_MAX:
            raise OSError(0, f"longer than {STATE_BYTES_MAX} bytes", str(self.path))
        _make(self.path.parent)
        temporary = f"{self.path.name}.{os.getpid()}.tmp"
        with _opened(self.path.parent) as folder:
            # One may be left of a process that had the same number, and a link must not lead us elsewhere.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                os.rename(temporary, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            _sync(folder)

    def set_aside(self) -> None:
        """Rename the file out of the way, in place of what was set aside before. Raises OSError."""
        if self.path is not None:
            self.path.rename(f"{self.path}{CORRUPT}")


class FileKeeper(Generic[_What]):
    """Reads what was kept, and keeps one state after the other: of several that wait only the newest, so that the last word wins.

    `tell` is called on the loop with "state.unreadable" or "state.not_kept", the `file` and the `reason`. `decode` may raise
    `StateUnreadableError`. A process that ends waits for the write that is under way.
    """

    def __init__(
        self,
        file: StateFile,
        tell: Callable[[str, dict[str, object]], None],
        *,
        encode: Callable[[_What], bytes],
        decode: Callable[[bytes], _What],
    ) -> None:
        self._file = file
        self._tell = tell
        self._encode = encode
        self._decode = decode
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._why_never = "" if file.path is not None else _NO_FOLDER
        # Set on the loop.
        self._newest = b""
        self._last: asyncio.Future[str] | None = None
        # Set by whoever writes. b"": nobody knows what the file says.
        self._written = b""
        # Set on the loop before a job is given to the thread, taken back by the job before it looks for the newest.
        self._is_waiting = False

    @property
    def is_kept(self) -> bool:
        """Whether the newest state is on the disk."""
        return bool(self._newest) and self._newest == self._written

    def read(self) -> _What | None:
        """Return what was kept, None: nothing. What cannot be read is told and put aside, and never overwritten."""
        try:
            content = self._file.read()
            state = self._decode(content) if content is not None else None
        except (OSError, StateUnreadableError) as error:
            try:
                self._file.set_aside()
            except OSError as stuck:
                self._why_never = f"what was kept can neither be read nor be put aside: {self._words_of(stuck)}"
            reason = self._words_of(error) if isinstance(error, OSError) else str(error)
            self._tell("state.unreadable", {"file": self._name, "reason": reason})
            return None
        if state is not None:
            self._newest = self._written = self._encode(state)
        return state

    def put_now(self, state: _What) -> None:
        """Write before this returns: for the start, when the loop has nothing else to do."""
        self._newest = self._encode(state)
        self._tell_loss(self._why_never or self._write_newest())

    def put(self, state: _What) -> None:
        """Begin to write. To be called on the loop."""
        self._newest = self._encode(state)
        if self._why_never:
            self._tell_loss(self._why_never)
            return
        if self._is_waiting:
            return
        self._is_waiting = True
        try:
            self._last = asyncio.get_running_loop().run_in_executor(self._executor, self._write_newest)
        except RuntimeError as error:
            self._is_waiting = False
            self._tell_loss(f"the system gives no thread: {error}")
            return
        self._last.add_done_callback(self._on_written)

    async def settle(self) -> bool:
        """Wait until the newest content is kept, at most `KEEP_S_MAX`; returns whether it is."""
        if self._last is not None and not self._last.done():
            try:
                async with asyncio.timeout(KEEP_S_MAX):
                    while self._last is not None and not self._last.done():
                        # Others may wait for the same write, and a newer content may have come meanwhile.
                        await asyncio.shield(self._last)
            except TimeoutError:
                self._tell_loss(f"the disk has not answered for {KEEP_S_MAX:g} s")
        return self.is_kept

    def _write_newest(self) -> str:
        """Write it unless it is written; returns why it could not be."""
        self._is_waiting = False
        content = self._newest
        if content == self._written:
            return ""
        self._written = b""
        try:
            self._file.write(content)
        except OSError as error:
            return self._words_of(error)
        self._written = content
        return ""

    def _on_written(self, done: asyncio.Future[str]) -> None:
        if not done.cancelled():
            self._tell_loss(done.result())

    @property
    def _name(self) -> str | None:
        return str(self._file.path) if self._file.path is not None else None

    def _words_of(self, error: OSError) -> str:
        """Say it with the path, unless that is the file's, which is told beside it."""
        words = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {words}" if isinstance(error.filename, str) and error.filename != self._name else words

    def _tell_loss(self, why: str) -> None:
        if why:
            self._tell("state.not_kept", {"file": self._name, "reason": why})


class StateKeeper(FileKeeper[State]):
    """Keeps the rollout and its secret."""

    def __init__(self, file: StateFile, tell: Callable[[str, dict[str, object]], None]) -> None:
        super().__init__(file, tell, encode=encode_state, decode=decode_state)


class RestartsKeeper(FileKeeper[Mapping[str, Kept]]):
    """Keeps the counts of restarts."""

    def __init__(self, file: StateFile, tell: Callable[[str, dict[str, object]], None]) -> None:
        super().__init__(file, tell, encode=encode_restarts, decode=decode_restarts)


def _make(folder: Path) -> None:
    """Make the folders that are not there, for their owner alone, outermost first, so that they survive a loss of power."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
        with _opened(each.parent) as parent:
            _sync(parent)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    # A link to a folder is followed: systemd makes one for a unit with DynamicUser (systemd.exec(5)).
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise
