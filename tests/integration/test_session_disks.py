"""Conversations on disks that are full, read-only or tampered with: every answer reaches its client, and what is lost is said.

A daemon gets a small disk in memory of its own: it runs in a mount namespace that ends with it.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.answers import LAST_CHUNK, begun_stream, chunk, whole
from support.daemon import Daemon, backend, settings
from support.engine_ollama import Habits, OllamaDialect
from support.personas import openai_chat, openai_chat_events
from support.scripted_model import ScriptedModel
from support.steps import Answer, Gate, answer, hold, send
from support.waiting import until
from support.wire import Reply, Wire, request_bytes
from support.writing_engine import WritingEngine

CHAT, OLLAMA, MESSAGES = "/v1/chat/completions", "/api/chat", "/v1/messages"
NOT_KEPT = b": understudy session not kept: "
LOST = "understudy_sessions_lost_total"
# As much as the tests' disks have; `nr_inodes` bounds how many files, folders included.
SMALL, FEW = "size=1m", "size=1m,nr_inodes=24"


class Kept:
    """A daemon, the engine behind it, and the folder in which it keeps conversations as seen from here."""

    def __init__(self, daemon: Daemon, engine: WritingEngine, path: Path, folder: Path) -> None:
        self.daemon = daemon
        self.engine = engine
        self.folder = folder
        self._path = path

    # Asking.

    def ask(self, text: str, path: str = CHAT, *, session: str = "s", stream: bool = True, **headers: str) -> Reply:
        """Say something in a session; `headers` are written with _ for -."""
        fields = {"X-Session-ID": session} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.daemon.ask(path, asked(text, stream=stream), headers=fields)

    def given(self) -> list[str]:
        """Return the texts of the messages in the engine's last request."""
        return [flat(message["content"]) for message in self.engine.generated[-1][1]["messages"]]

    # The disk.

    def fill(self) -> None:
        """Leave no byte and no file."""
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        with contextlib.suppress(OSError):
            for number in range(1024):
                (self.folder / f"ballast{number}").touch()

    def free(self) -> None:
        """Undo `fill`."""
        for ballast in self.folder.glob("ballast*"):
            ballast.unlink()

    def remount(self, how: str) -> None:
        """Make the disk read-only (ro) or writable (rw)."""
        into = ("nsenter", "-m", "-t", str(self.daemon.pid), "mount", "-o", f"remount,{how}", str(self._path))
        subprocess.run(into, check=True)

    def file_of(self, session: str, suffix: str = ".session") -> Path:
        """Return where docs/sessions.md says that a session is kept."""
        name = hashlib.sha256(session.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}{suffix}"

    # What is told.

    def store(self) -> str:
        """Return what /readyz says of the store; it is ready all the while."""
        reply = self.daemon.admin("/readyz")
        assert (reply.status, reply.json()["ready"]) == (200, True)
        told: str = reply.json()["sessions"]["store"]
        return told

    def losses(self, reason: str) -> int:
        """How many turns are told to be lost for `reason`."""
        return len(self.daemon.events("session.lost", reason=reason))

    def wait_lost(self, reason: str, count: int) -> None:
        """Return once events and metrics agree on so many lost turns, and no more; a scrape may be some milliseconds old."""
        until(lambda: self.losses(reason) >= count, f"{count} events of turns that are lost")
        until(lambda: self.daemon.metric(LOST, reason=reason) >= count, f"{count} lost turns counted")
        assert (self.losses(reason), self.daemon.metric(LOST, reason=reason)) == (count, count)


def asked(text: str, *, stream: bool) -> dict[str, Any]:
    """Make a request that each of the three chat paths takes."""
    return {"model": "tiny", "max_tokens": 400, "stream": stream, "messages": [{"role": "user", "content": text}]}


def interrupted(gate: Gate, *, stream: bool) -> Answer:
    """Answer a chat, with a rest until the gate opens."""
    if not stream:
        return answer(hold(gate), *whole(200, openai_chat("so it is", model="tiny")).steps)
    events = openai_chat_events("so it is", model="tiny")
    return begun_stream(events[:2], hold(gate), send(*map(chunk, events[2:]), LAST_CHUNK))


def flat(content: Any) -> str:
    """Return the text of a content, a string or a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@contextmanager
def keeping(folder: Path, options: str = "", **sessions: Any) -> Iterator[Kept]:
    """Start a daemon that keeps conversations on a disk with these mount options, in a plain folder where there are none."""
    path = folder / "disk"
    path.mkdir()
    launcher = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"', str(path)) if options else ()
    with ExitStack() as stack:
        dialect = OllamaDialect(ScriptedModel(words=8), Habits(is_native=True))
        engine = stack.enter_context(WritingEngine("gpu0", dialect, engine="ollama"))
        wanted = settings(backend(engine, "ollama"), sessions={"store": f"file:{path}", **sessions})
        daemon = stack.enter_context(Daemon(wanted, folder, launcher=launcher))
        daemon.wait_condition("up")
        yield Kept(daemon, engine, path, Path(f"/proc/{daemon.pid}/root{path}") if options else path)


@pytest.fixture(scope="module", params=["full", "read_only"])
def hindered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Kept]]:
    """Keep conversations on a disk that takes nothing, and say why it does not."""
    reason: str = request.param
    with keeping(tmp_path_factory.mktemp(reason), SMALL if reason == "full" else "ro") as kept:
        if reason == "full":
            kept.fill()
        yield reason, kept


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Keep conversations in a folder that is well."""
    with keeping(tmp_path_factory.mktemp("plain")) as kept:
        yield kept


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, OLLAMA, MESSAGES])
def test_a_disk_that_takes_nothing_costs_the_turn_and_not_the_answer(
    hindered: tuple[str, Kept], path: str, *, stream: bool
) -> None:
    reason, kept = hindered
    lost = kept.losses(reason)
    for turn in (1, 2):
        reply = kept.ask("one", path, stream=stream)
        assert (reply.status, reply.is_cut, bool(reply.text)) == (200, False, True)
        assert kept.given() == ["one"]
        assert reply.head.get("X-Understudy-Session") == "new"
        assert reply.head.get("X-Understudy-Session-Loss") == reason
        is_told = stream and path != OLLAMA
        assert reply.body.count(NOT_KEPT + reason.encode()) == is_told
        if is_told:
            _, before, last = reply.body.rpartition(NOT_KEPT)
            assert before
            assert last.count(b"data:") == 1
            assert b"[DONE]" in last or b"message_stop" in last
        kept.wait_lost(reason, lost + turn)
    assert kept.store() == reason
    assert kept.daemon.metric("understudy_session_store_up") == 0
    assert [event["reason"] for event in kept.daemon.events("store.became_unavailable")] == [reason]
    assert kept.daemon.admin("/api/sessions/s").status == 404
    assert not kept.daemon.events("store.recovered")


@pytest.mark.parametrize("wish", ["answer", "refuse"])
def test_a_disk_that_can_be_read_refuses_nobody(hindered: tuple[str, Kept], wish: str) -> None:
    reason, kept = hindered
    reply = kept.ask("one", X_Session_On_Error=wish)
    assert (reply.status, reply.head.get("X-Understudy-Session-Loss")) == (200, reason)


@pytest.mark.parametrize("options", [SMALL, FEW], ids=["bytes", "files"])
def test_a_disk_that_fills_up_and_is_freed_loses_the_turns_between(tmp_path: Path, options: str) -> None:
    with keeping(tmp_path, options) as kept:
        first = kept.ask("one")
        assert kept.store() == "up"
        kept.fill()
        for text, stream in (("lost", True), ("lost, too", False)):
            reply = kept.ask(text, stream=stream)
            assert (reply.status, reply.head.get("X-Understudy-Session-Loss")) == (200, "full")
            # What was kept can still be read.
            assert kept.given() == ["one", first.text, text]
        kept.wait_lost("full", 2)
        assert kept.store() == "full"
        kept.free()
        second = kept.ask("two")
        assert not second.head.get("X-Understudy-Session-Loss")
        assert kept.given() == ["one", first.text, "two"]
        assert kept.store() == "up"
        kept.ask("three")
        assert kept.given() == ["one", first.text, "two", second.text, "three"]
        kept.daemon.wait_event("store.recovered")
        assert len(kept.daemon.events("store.recovered")) == len(kept.daemon.events("store.became_unavailable")) == 1
        kept.wait_lost("full", 2)


def test_a_disk_that_becomes_read_only_is_read_and_comes_back(tmp_path: Path) -> None:
    with keeping(tmp_path, SMALL) as kept:
        first = kept.ask("one")
        kept.remount("ro")
        for stream in (True, False):
            reply = kept.ask("lost", stream=stream)
            assert (reply.status, reply.head.get("X-Understudy-Session-Loss")) == (200, "read_only")
            assert kept.given() == ["one", first.text, "lost"]
        kept.wait_lost("read_only", 2)
        assert kept.store() == "read_only"
        kept.remount("rw")
        assert not kept.ask("two").head.get("X-Understudy-Session-Loss")
        kept.daemon.wait_event("store.recovered")
        assert kept.store() == "up"
        kept.ask("three")
        assert kept.given()[:3] == ["one", first.text, "two"]
        assert not list(kept.folder.rglob("*.tmp"))


def test_a_disk_that_fills_up_during_an_answer_has_room_for_that_one(tmp_path: Path) -> None:
    """Room was held when the answer began; a turn that is larger than that is lost, which was not foreseen."""
    with keeping(tmp_path, SMALL) as kept:
        for text, stream, loss in (("one", True, ""), ("two", False, ""), ("wide", True, "full"), ("vast", False, "full")):
            gate = Gate()
            kept.engine.then(interrupted(gate, stream=stream))
            with Wire(kept.daemon.port) as wire:
                body = asked(text * 50_000 if loss else text, stream=stream)
                wire.send(request_bytes("POST", CHAT, body, headers={"X-Session-ID": text}))
                gate.wait_reached()
                kept.fill()
                gate.open()
                reply = wire.read_reply()
            assert (reply.status, reply.is_cut, bool(reply.text)) == (200, False, True)
            assert reply.body.count(NOT_KEPT + loss.encode()) == bool(stream and loss)
            # The head of an answer that is no stream is written at its end.
            assert reply.head.get("X-Understudy-Session-Loss") == ("" if stream else loss)
            assert kept.daemon.admin(f"/api/sessions/{text}").status == (404 if loss else 200)
            kept.free()
        kept.wait_lost("full", 2)
        assert not list(kept.folder.rglob("*.tmp"))


# What somebody has put where a session was.


def junk(file: Path) -> None:
    file.write_bytes(os.urandom(512))


def nothing(file: Path) -> None:
    file.write_bytes(b"")


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def folder(file: Path) -> None:
    file.unlink()
    (file / "full").mkdir(parents=True)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(file.with_suffix(".elsewhere"))


def other_session(file: Path) -> None:
    """A record that is whole, of another session."""
    others = [other for other in file.parents[1].rglob("*.session") if other != file and other.is_file()]
    shutil.copyfile(others[0], file)


@pytest.mark.parametrize("tamper", [junk, nothing, half, folder, pipe, link, other_session])
def test_what_cannot_be_read_is_set_aside_and_the_conversation_begins_anew(plain: Kept, tamper: Callable[[Path], None]) -> None:
    session = tamper.__name__
    plain.ask("another", session="another")
    plain.ask("forgotten", session=session)
    file = plain.file_of(session)
    tamper(file)
    reply = plain.ask("one", session=session)
    assert (reply.status, reply.head.get("X-Understudy-Session")) == (200, "new")
    assert reply.head.get("X-Understudy-Session-Loss") == "unreadable"
    assert plain.given() == ["one"]
    told = plain.daemon.wait_event("session.set_aside", file=file.name)
    assert told["level"] == "warning"
    assert list(file.parent.glob(f"{file.stem}*.corrupt"))
    plain.ask("two", session=session)
    assert plain.given() == ["one", reply.text, "two"]
    assert (plain.store(), plain.losses("unreadable")) == ("up", 0)


@pytest.mark.parametrize("tamper", [folder, pipe, link])
def test_what_stands_in_the_place_of_a_lock_hinders_nobody(plain: Kept, tamper: Callable[[Path], None]) -> None:
    session = f"lock {tamper.__name__}"
    first = plain.ask("one", session=session)
    lock = plain.file_of(session, ".lock")
    lock.touch()
    tamper(lock)
    assert not plain.ask("two", session=session).head.get("X-Understudy-Session-Loss")
    assert plain.given() == ["one", first.text, "two"]


def test_a_folder_that_was_removed_is_made_again(plain: Kept) -> None:
    plain.ask("forgotten", session="gone")
    shutil.rmtree(plain.folder)
    reply = plain.ask("one", session="gone")
    assert reply.head.get("X-Understudy-Session") == "new"
    plain.ask("two", session="gone")
    assert plain.given() == ["one", reply.text, "two"]


# A place that cannot even be read.


def test_what_cannot_even_be_asked_answers_or_refuses_as_told(tmp_path: Path) -> None:
    with keeping(tmp_path, on_error="refuse") as kept:
        kept.ask("one")
        shard = kept.file_of("s").parent
        shard.rename(tmp_path / "away")
        shard.touch()
        for said, stream in (("", True), ("", False), ("refuse", False), ("answer", True), ("answer", False)):
            kept.engine.generated.clear()
            reply = kept.ask("two", stream=stream, **({"X_Session_On_Error": said} if said else {}))
            if said == "answer":
                assert (reply.status, reply.head.get("X-Understudy-Session-Loss")) == (200, "refused")
                assert kept.given() == ["two"]
            else:
                assert (reply.status, reply.json()["error"]["code"]) == (503, "store_unavailable")
                assert int(reply.head.get("Retry-After")) > 0
                assert not kept.engine.generated
        assert kept.store() == "refused"
        shard.unlink()
        (tmp_path / "away").rename(shard)
        assert kept.ask("two").head.get("X-Understudy-Session") == "appended"
        kept.daemon.wait_event("store.recovered")
        # The rest of the folder is well, as the daemon may find in between.
        turns = [event["event"] for event in kept.daemon.events() if event["event"].startswith("store.")]
        assert (kept.store(), turns) == ("up", ["store.became_unavailable", "store.recovered"] * (len(turns) // 2))
