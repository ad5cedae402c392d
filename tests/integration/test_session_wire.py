"""Sessions as they come over the wire: hostile ids, great histories, many at once, hasty clients, and what is never told."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pytest

from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hold
from support.waiting import until
from support.wire import Reply, Wire, chat, request_bytes

CHAT = "/v1/chat/completions"
ANSWER = "good evening from gpu0"
MARKER = "zanzibar"
KEPT = re.compile(r"([0-9a-f]{2})(/\1[0-9a-f]{62}\.session)?")
HOSTILE = {
    "a path": b"../../etc/passwd",
    "an absolute path": b"/etc/passwd",
    "dots": b"..",
    "an encoded nul": b"%00",
    "encoded slashes": b"..%2f..%2fetc",
    "a name of ours": b"a.lock",
    "a pattern": b"*?[a-z]{1}$(id)`id`",
    "quotes": b"\"'\\",
    "spaces inside": b"a \t b",
    "letters of many scripts": "\u00fcn\u00ef \u901a\u4e49 \U0001f3ad e\u0301".encode(),
    "256 bytes": b"x" * 256,
    "256 bytes of UTF-8": "\u00e9".encode() * 128,
}
REFUSED = {
    "257 bytes": [b"x" * 257],
    "256 characters": ["\u00e9".encode() * 256],
    "no UTF-8": [b"\xff\xfe"],
    "half a character": ["\u00e9".encode()[:1]],
    "half of a pair": [b"\xed\xa0\x80"],
    "two": [b"a", b"b"],
    "a nul": [b"a\x00b"],
    "a carriage return": [b"a\rb"],
}


class Stage:
    """A daemon that keeps conversations below `folder`, and the engine behind it."""

    def __init__(self, daemon: Daemon, engine: ScriptedEngine, folder: Path) -> None:
        self.daemon = daemon
        self.engine = engine
        self.folder = folder

    def ask(self, text: str, *sessions: bytes, **more: Any) -> Reply:
        """Say something with these X-Session-ID fields, byte for byte."""
        with Wire(self.daemon.port) as wire:
            wire.send(asking(text, *sessions, **more))
            return wire.read_reply()

    def given(self) -> list[str]:
        """Return the texts of the messages in the engine's last request."""
        return texts(self.engine.seen.requests[-1].json())


def texts(body: Any) -> list[str]:
    """Return what the messages of a request say."""
    return [message["content"] for message in body["messages"]]


def asking(text: str, *sessions: bytes, stream: bool = True, version: bytes = b"1.1") -> bytes:
    """Make the bytes of a question with these X-Session-ID fields."""
    head, body = request_bytes("POST", CHAT, chat(text, stream=stream)).split(b"\r\n\r\n", 1)
    fields = b"".join(b"\r\nX-Session-ID: " + session for session in sessions)
    return head.replace(b"HTTP/1.1", b"HTTP/" + version) + fields + b"\r\n\r\n" + body


@contextmanager
def keeping(folder: Path, *, log: str = "info", **sessions: Any) -> Iterator[Stage]:
    """Start a daemon that keeps conversations, in front of one engine."""
    with ExitStack() as stack:
        engine = stack.enter_context(ScriptedEngine("gpu0", engine="ollama"))
        # It speaks Anthropic's dialect, too.
        engine.on("/v1/messages", whole(405, {"detail": "Method Not Allowed"}))
        kept = folder / "kept"
        wanted = settings(
            backend(engine, "ollama"), sessions={"store": f"file:{kept}", **sessions}, log={"level": log, "format": "json"}
        )
        daemon = stack.enter_context(Daemon(wanted, folder))
        daemon.wait_condition("up")
        yield Stage(daemon, engine, kept)


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Share one daemon among the plays that may."""
    with keeping(tmp_path_factory.mktemp("wire")) as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """Hand it over with nothing seen."""
    shared_stage.engine.fresh()
    return shared_stage


# Ids.


@pytest.mark.parametrize("session", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_id_is_a_session_and_never_a_path(stage: Stage, session: bytes) -> None:
    for turn, merging in enumerate(("new", "appended"), start=1):
        reply = stage.ask(f"question {turn}", session)
        assert (reply.status, reply.head.get("X-Understudy-Session")) == (200, merging)
    assert stage.given() == ["question 1", ANSWER, "question 2"]
    names = [str(path.relative_to(stage.folder)) for path in stage.folder.rglob("*")]
    assert not [name for name in names if not KEPT.fullmatch(name)]
    assert sorted(path.name for path in stage.folder.parent.iterdir()) == ["kept", "understudy.yaml"]
    shown = stage.daemon.admin(f"/api/sessions?id={quote(session, safe='')}")
    assert (shown.status, shown.json()["id"].encode()) == (200, session)


@pytest.mark.parametrize("sessions", REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_no_id_is_refused(stage: Stage, sessions: Sequence[bytes]) -> None:
    reply = stage.ask("one", *sessions)
    assert reply.status == 400
    assert reply.json()["error"]
    assert not stage.engine.seen.requests


@pytest.mark.parametrize("sessions", [[b""], [b"  \t "], [b"", b""]], ids=["empty", "white space", "twice empty"])
def test_an_empty_id_is_none(stage: Stage, sessions: Sequence[bytes]) -> None:
    for _ in range(2):
        reply = stage.ask("one", *sessions)
        assert (reply.status, reply.head.get("X-Understudy-Session")) == (200, "")
        assert stage.given() == ["one"]


def test_an_id_said_twice_is_one_and_space_around_it_is_none_of_it(stage: Stage) -> None:
    stage.ask("one", b"twice", b"twice")
    stage.ask("two", b" \t twice \t ")
    assert stage.given() == ["one", ANSWER, "two"]


# Connections.


def test_one_connection_carries_many_sessions(stage: Stage) -> None:
    sessions = [b"kept open a", b"kept open b", b""]
    with Wire(stage.daemon.port) as wire:
        for turn in range(3):
            for session in sessions:
                wire.send(asking(f"{session.decode()} {turn}", session, stream=turn != 1))
                assert wire.read_reply().text == ANSWER
    for session in sessions:
        said = [texts(request.json()) for request in stage.engine.seen.requests]
        mine = [given for given in said if given[-1] == f"{session.decode()} 2"]
        spoken = [f"{session.decode()} {turn}" for turn in range(3)]
        assert mine == [[spoken[0], ANSWER, spoken[1], ANSWER, spoken[2]] if session else spoken[2:]]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_pipelined_requests_of_one_session_are_turns_of_it(stage: Stage, *, stream: bool) -> None:
    session = f"pipelined {stream}".encode()
    with Wire(stage.daemon.port) as wire:
        wire.send(b"".join(asking(f"question {turn}", session, stream=stream) for turn in range(5)))
        replies = [wire.read_reply() for _ in range(5)]
    assert [reply.head.get("X-Understudy-Session") for reply in replies] == ["new", *["appended"] * 4]
    assert stage.given() == [*(said for turn in range(4) for said in (f"question {turn}", ANSWER)), "question 4"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_clients_of_every_manner_have_their_turns(stage: Stage, *, stream: bool) -> None:
    """HTTP/1.0, a half-close behind the request, byte by byte, chunked, and asking whether to go on."""
    session = f"manners {stream}".encode()
    with Wire(stage.daemon.port) as wire:
        wire.send(asking("old", session, stream=stream, version=b"1.0"))
        reply = wire.read_reply()
        assert (reply.text, reply.is_cut, wire.is_closed_by_peer()) == (ANSWER, False, True)
    with Wire(stage.daemon.port) as wire:
        wire.send(asking("half", session, stream=stream))
        wire.finish_sending()
        assert wire.read_reply().text == ANSWER
    with Wire(stage.daemon.port) as wire:
        wire.send_bytewise(asking("slow", session, stream=stream))
        assert wire.read_reply().text == ANSWER
        head, body = asking("chunked", session, stream=stream).split(b"\r\n\r\n", 1)
        length = b"Content-Length: %d" % len(body)
        wire.send(head.replace(length, b"Transfer-Encoding: chunked") + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert wire.read_reply().text == ANSWER
        head, body = asking("polite", session, stream=stream).split(b"\r\n\r\n", 1)
        wire.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert wire.read_head().status == 100
        wire.send(body)
        assert wire.read_reply().text == ANSWER
    assert stage.given()[::2] == ["old", "half", "slow", "chunked", "polite"]
    marks = [message.get("mark") for message in stage.daemon.admin(f"/api/sessions?id={quote(session)}").json()["messages"]]
    assert marks == [None] * 10


# Many at once.


def test_two_hundred_sessions_at_once_stay_apart(stage: Stage) -> None:
    gate = Gate()
    stage.engine.always(answer(hold(gate), *whole(200, openai_chat(ANSWER, model="tiny")).steps))
    numbers = range(200)
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(stage.daemon.port)) for _ in numbers]
        for turn in (1, 2):
            for number, wire in enumerate(wires):
                wire.send(asking(f"{number} of turn {turn}", f"crowd {number}".encode(), stream=False))
            stage.engine.wait_requests(turn * len(numbers))
            if turn == 1:
                assert stage.daemon.metric("understudy_sessions_held") == len(numbers)
                gate.open()
            assert {wire.read_reply().text for wire in wires} == {ANSWER}
    given = sorted(texts(request.json()) for request in stage.engine.seen.requests[len(numbers) :])
    assert given == sorted([f"{number} of turn 1", ANSWER, f"{number} of turn 2"] for number in numbers)
    until(lambda: stage.daemon.metric("understudy_sessions_held") == 0, "every session let go")


def test_sessions_that_come_and_go_leave_nothing_in_memory(stage: Stage) -> None:
    """As many bytes pass as would show if a third of them stayed."""

    def talk(first: int, count: int) -> None:
        for number in range(first, first + count):
            for turn in range(2):
                assert stage.ask(f"{turn}" * 300_000, f"come and gone {number}".encode()).status == 200
        stage.engine.fresh()

    talk(0, 15)
    before, files = stage.daemon.resident_bytes(), stage.daemon.open_files()
    talk(15, 40)
    assert stage.daemon.resident_bytes() - before < 40 * 2 * 300_000 / 3
    # Some connections come and go.
    assert stage.daemon.open_files() < files + 20
    assert stage.daemon.metric("understudy_sessions_waiting") == 0


# Great ones.


class Bystander:
    """Somebody else, who asks small questions as fast as they are answered while a play goes on; `count` of them were."""

    def __init__(self, daemon: Daemon) -> None:
        self.count = 0
        self.wrong: list[Reply] = []
        self._daemon = daemon
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="bystander", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.count, "the first answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(30)

    def _ask(self) -> None:
        while not self._is_over.is_set():
            reply = self._daemon.ask(CHAT, chat("small", stream=True))
            if reply.text != ANSWER:
                self.wrong.append(reply)
            self.count += 1


MANY = [{"role": ("user", "assistant")[i % 2], "content": f"{i:05d} {'word ' * 95}"} for i in range(19_999)]
LONG = [{"role": "user", "content": "word " * 2_000_000}]
MORE = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": "more"}]


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Keep conversations that may be great."""
    with keeping(tmp_path_factory.mktemp("roomy"), bytes_max="64MiB", messages_max=100_000) as stage:
        yield stage


@pytest.mark.parametrize("history", [MANY, LONG], ids=["many messages", "a long one"])
def test_a_history_of_ten_megabytes_holds_nobody_up(roomy: Stage, history: list[Any]) -> None:
    """Sent whole, sent whole again with one more question, and gone on with by a small request."""
    session = f"of {len(history)}"
    answered = []
    with Bystander(roomy.daemon) as bystander:
        for messages, merging in ((history, "new"), ([*history, *MORE], "recognised"), (MORE[1:], "appended")):
            roomy.engine.fresh()
            body = json.dumps({"model": "tiny", "stream": True, "messages": messages}).encode()
            count = bystander.count
            reply = roomy.daemon.ask(CHAT, body, headers={"X-Session-ID": session}, deadline_s=60)
            answered.append(bystander.count - count)
            assert (reply.status, reply.text, reply.head.get("X-Understudy-Session")) == (200, ANSWER, merging)
            assert b"not kept" not in reply.body
    assert sum(answered) >= len(answered), "others were answered meanwhile"
    assert not bystander.wrong
    given = max((request.json()["messages"] for request in roomy.engine.seen.requests), key=len)
    assert given == [*history, *MORE, *MORE]
    until(lambda: roomy.daemon.metric("understudy_sessions_held") == 0, "the session let go")


def test_what_is_kept_of_a_great_history_is_within_its_bounds(stage: Stage) -> None:
    """A mebibyte and 200 messages where the file says nothing else: old turns fall off, and a turn beyond that is lost."""
    for session, messages, loss in (("many", MANY, b""), ("long", LONG, b"too_large")):
        body = json.dumps({"model": "tiny", "stream": True, "messages": messages}).encode()
        reply = stage.daemon.ask(CHAT, body, headers={"X-Session-ID": session}, deadline_s=60)
        assert (reply.status, reply.text) == (200, ANSWER)
        assert reply.body.count(b": understudy session not kept: too_large") == bool(loss)
        assert stage.engine.seen.requests[-1].json()["messages"] == messages
    assert stage.daemon.admin("/api/sessions?id=long").status == 404
    kept = stage.daemon.admin("/api/sessions?id=many").json()
    assert (len(kept["messages"]), kept["fallen"]) == (200, len(MANY) + 1 - 200)
    assert kept["bytes"] <= 1024 * 1024
    stage.ask("more", b"many")
    assert stage.given() == [*(message["content"] for message in MANY[-199:]), ANSWER, "more"]


# What is never told.


def test_no_log_says_what_was_said_nor_in_which_session(tmp_path: Path) -> None:
    """Not at debug, not by refusals, losses and files set aside, not of those who operate."""
    with keeping(tmp_path, log="debug") as stage:
        stage.engine.say = f"{MARKER} says the engine"
        for path in (CHAT, "/api/chat", "/v1/messages", "/v1/completions", "/api/generate"):
            for turn in range(2):
                body = chat(f"{MARKER} {turn}", stream=True, prompt=MARKER, max_tokens=9)
                assert stage.daemon.ask(path, body, headers={"X-Session-ID": MARKER + path}).status == 200
        fields: list[dict[str, str]] = [
            {"X-Session-ID": MARKER * 40},
            {"X-Session-ID": MARKER, "X-Session-Mode": MARKER},
            {"X-Session-ID": MARKER, "X-Session-Reset": MARKER},
            {"X-Session-ID": MARKER, "X-Session-On-Error": MARKER},
        ]
        assert {stage.daemon.ask(CHAT, chat(MARKER), headers=each).status for each in fields} == {400}
        picture = [{"type": "image_url", "image_url": {"url": f"http://127.0.0.1/{MARKER}"}}]
        odd: list[tuple[str, Any, int]] = [
            (CHAT, [{"role": MARKER, "content": MARKER}], 400),
            (CHAT, [{"role": "user", "content": picture}], 200),
            ("/api/chat", [{"role": "user", "content": MARKER}], 409),
        ]
        for path, messages, status in odd:
            body = {"model": "tiny", "messages": messages}
            assert stage.daemon.ask(path, body, headers={"X-Session-ID": MARKER}).status == status
        assert stage.daemon.ask(CHAT, chat(MARKER, n=2), headers={"X-Session-ID": MARKER}).status == 200
        for file in list(stage.folder.rglob("*.session")):
            file.write_text(MARKER)
        assert stage.ask(MARKER, MARKER.encode()).head.get("X-Understudy-Session-Loss") == "unreadable"
        for target, method in (
            (f"?id={MARKER}", "GET"),
            (f"/{MARKER}", "GET"),
            (f"?cursor={MARKER}", "GET"),
            (f"/{MARKER}", "DELETE"),
        ):
            stage.daemon.admin(f"/api/sessions{target}", method=method)
        assert MARKER not in stage.daemon.admin("/metrics").body.decode()
        assert MARKER not in stage.daemon.admin("/api/status").body.decode()
        for event in ("session.lost", "session.set_aside", "session.swept"):
            stage.daemon.wait_event(event)
        assert stage.daemon.stop() == 0
        assert not [line for line in stage.daemon.log if MARKER in line]
