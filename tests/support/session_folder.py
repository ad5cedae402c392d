"""A folder of sessions as the blocking part of the file store has it, and every way in which a file of it can be spoilt."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.stored import CODECS, KEY, conversation
from understudy.sessions.record import Codec, Format
from understudy.sessions.session_files import SessionFiles, Taken

TTL_S = 3600.0


class Folder:
    """Sessions in a folder, with what was set aside and a clock that may be turned."""

    def __init__(self, path: Path, codec: Codec = CODECS["json"]) -> None:
        self.path = path
        self.codec = codec
        self.noted: list[tuple[str, str]] = []
        self.turned_s = 0.0
        self.files = SessionFiles(
            path, codec, lambda: time.time() + self.turned_s, lambda file, reason: self.noted.append((file, reason))
        )

    def file(self, session: str = "ada", suffix: str = ".session") -> Path:
        name = self.codec.name(session)
        return self.path / name[:2] / (name + suffix)

    def take(self, session: str = "ada") -> Taken:
        taken = self.files.take(self.codec.name(session), TTL_S)
        assert taken is not None
        return taken

    def keep(self, taken: Taken, revision: int, *texts: str, session: str = "ada", is_last: bool = True) -> None:
        self.files.keep(taken, session, conversation(revision, *texts), TTL_S, is_last=is_last)

    def put(self, revision: int, *texts: str, session: str = "ada") -> None:
        self.keep(self.take(session), revision, *texts, session=session)

    def texts(self, session: str = "ada") -> list[str] | None:
        found = self.files.read(self.codec.name(session), TTL_S)
        return None if found is None else [message.text for message in found[1].messages]

    def everything(self) -> list[str]:
        return sorted(path.name for path in self.path.rglob("*.*"))


def refuse_to_make(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have no file made any more, as on a disk that is full, read-only or broken."""
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)


def _newer(file: Path) -> None:
    file.write_bytes(b'{"understudy_session":2,"all":"else"}\n{}\n')


def _corrupted(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-10] + b"x" + data[-9:])


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() * 2)


def write_junk(file: Path) -> None:
    """Put something in the place of a session's file that is none."""
    file.write_bytes(os.urandom(100_000))


def _sealed(file: Path) -> None:
    file.write_bytes(b"".join(Codec(Format.JSON, KEY).encode("ada", conversation(1, "Hi"))))


def _elses(file: Path) -> None:
    file.write_bytes(b"".join(CODECS["json"].encode("eve", conversation(1, "Hi"))))


def _replaced(make: Callable[[Path], object], file: Path) -> None:
    file.unlink()
    make(file)


SPOILT = {
    "newer": (_newer, "newer"),
    "corrupted": (_corrupted, "corrupted"),
    "longer": (_longer, "corrupted"),
    "junk": (write_junk, "foreign"),
    "sealed": (_sealed, "sealed"),
    "another's": (_elses, "foreign"),
    "folder": (partial(_replaced, Path.mkdir), "foreign"),
    "pipe": (partial(_replaced, os.mkfifo), "foreign"),
    "link": (partial(_replaced, partial(os.symlink, "/etc/passwd")), "foreign"),
    "link to nothing": (partial(_replaced, partial(os.symlink, "nothing")), "foreign"),
}
