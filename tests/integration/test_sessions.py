"""Conversations that outlive backends and daemons: what engines are given turn by turn, over the wire, kept in files."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.breaks import Kind
from support.daemon import Daemon, backend, settings
from support.engine_ollama import Habits, OllamaDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import ScriptedModel
from support.waiting import until
from support.wire import Reply, Wire, request_bytes
from support.writing_engine import WritingEngine

CHAT, OLLAMA, MESSAGES, TEXT, GENERATE = (
    "/v1/chat/completions",
    "/api/chat",
    "/v1/messages",
    "/v1/completions",
    "/api/generate",
)


@pytest.fixture
def ollamas() -> Iterator[list[WritingEngine]]:
    """Two engines that speak all three dialects and write alike."""
    with ExitStack() as stack:
        model = ScriptedModel()
        yield [
            stack.enter_context(WritingEngine(f"gpu{number}", OllamaDialect(model, Habits(is_native=True)), engine="ollama"))
            for number in range(2)
        ]


class Talk:
    """Somebody who talks to a daemon in one session, sending only what is new."""

    def __init__(self, daemon: Daemon, session: str = "s") -> None:
        self.daemon = daemon
        self.session = session

    def say(
        self, text: str, path: str = CHAT, *, stream: bool = True, headers: dict[str, str] | None = None, **more: Any
    ) -> Reply:
        """Ask; the answer must be whole."""
        body = {"model": "tiny", "stream": stream, **more}
        if path in (TEXT, GENERATE):
            body |= {"prompt": text}
        else:
            body.setdefault("messages", [{"role": "user", "content": text}])
        if path in (MESSAGES, TEXT):
            body.setdefault("max_tokens", 400)
        reply = self.daemon.ask(path, body, headers={"X-Session-ID": self.session, **(headers or {})})
        assert reply.status == 200, reply
        return reply


def started(stack: ExitStack, folder: Path, engines: list[WritingEngine], **sections: Any) -> Daemon:
    """Start a daemon in front of `engines` that keeps conversations in FOLDER/kept."""
    sessions = {"store": f"file:{folder / 'kept'}", **sections.pop("sessions", {})}
    wanted = settings(*(backend(engine, "ollama") for engine in engines), sessions=sessions, **sections)
    daemon = stack.enter_context(Daemon(wanted, folder))
    daemon.wait_condition("up")
    return daemon


def given(engine: WritingEngine) -> list[tuple[str, str]]:
    """Return (role, text) of the messages in the engine's last request."""
    return [(message["role"], flat(message["content"])) for message in engine.generated[-1][1]["messages"]]


def flat(content: Any) -> str:
    """Return the text of a content, whatever its form."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def kept(daemon: Daemon, session: str = "s") -> list[tuple[str, str, str]]:
    """Return (speaker, text, mark) of what is kept, as the admin port shows it."""
    record = daemon.admin(f"/api/sessions/{session}").json()
    return [
        (message["speaker"], "".join(part.get("text", "") for part in message.get("parts", ())), message.get("mark", "whole"))
        for message in record.get("messages", ())
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, OLLAMA, MESSAGES])
def test_a_client_sends_only_what_is_new(tmp_path: Path, ollamas: list[WritingEngine], path: str, *, stream: bool) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas))
        first = talk.say("one", path, stream=stream)
        second = talk.say("two", path, stream=stream)
        assert given(ollamas[0]) == [("user", "one"), ("assistant", first.text), ("user", "two")]
        talk.say("three", path, stream=stream)
        assert given(ollamas[0])[3:] == [("assistant", second.text), ("user", "three")]
        assert [first.head.get("X-Understudy-Session"), second.head.get("X-Understudy-Session")] == ["new", "appended"]


def test_a_conversation_may_change_its_dialect_with_every_turn(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk, said = Talk(started(stack, tmp_path, ollamas)), []
        for turn, path in enumerate((CHAT, OLLAMA, MESSAGES, CHAT, MESSAGES, OLLAMA)):
            answer = talk.say(f"question {turn}", path, stream=turn % 2 == 0).text
            said += [("user", f"question {turn}"), ("assistant", answer)]
            assert given(ollamas[0]) == said[:-1]


def test_texts_go_on_as_they_stand(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas))
        first = talk.say("Once upon a time", TEXT).text
        talk.say(" and then", TEXT)
        assert ollamas[0].generated[-1][1]["prompt"] == f"Once upon a time{first} and then"
        talk = Talk(talk.daemon, "t")
        first = talk.say("one", GENERATE).text
        talk.say("two", GENERATE)
        assert ollamas[0].generated[-1][1]["prompt"] == f"one\n\n{first}\n\ntwo"


def test_a_conversation_goes_on_from_the_backup_and_after_a_restart(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas))
        first = talk.say("one").text
        ollamas[0].refuse()
        ollamas[0].drop_connections()
        second = talk.say("two")
        assert second.backend == "gpu1"
        assert given(ollamas[1]) == [("user", "one"), ("assistant", first), ("user", "two")]
        assert talk.daemon.stop() == 0
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas[1:]))
        talk.say("three")
        assert given(ollamas[1])[2:] == [("user", "two"), ("assistant", second.text), ("user", "three")]


@pytest.mark.parametrize("stream", [True, False])
def test_who_has_seen_the_end_may_rely_on_it_whatever_happens_next(
    tmp_path: Path, ollamas: list[WritingEngine], *, stream: bool
) -> None:
    """Killed at once after each answer, again and again."""
    said: list[tuple[str, str]] = []
    for turn in range(6):
        with ExitStack() as stack:
            talk = Talk(started(stack, tmp_path, ollamas))
            answer = talk.say(f"question {turn}", stream=stream).text
            talk.daemon.send_signal(signal.SIGKILL)
            said += [("user", f"question {turn}"), ("assistant", answer)]
            assert given(ollamas[0]) == said[:-1]


def test_a_resumed_answer_is_kept_as_the_whole_it_is(tmp_path: Path) -> None:
    with ExitStack() as stack:
        model = ScriptedModel()
        engines = [stack.enter_context(WritingEngine(f"gpu{n}", VllmDialect(model), engine="vllm")) for n in range(2)]
        wanted = settings(
            *(backend(engine, "vllm") for engine in engines), sessions={"store": f"file:{tmp_path / 'kept'}", "format": "msgpack"}
        )
        talk = Talk(stack.enter_context(Daemon(wanted, tmp_path)))
        talk.daemon.wait_condition("up")
        engines[0].breaks(Kind.RESET, after=5)
        answer = talk.say("one")
        assert b"understudy resumed" in answer.body
        assert kept(talk.daemon) == [("user", "one", "whole"), ("assistant", answer.text, "whole")]


def test_a_torn_answer_is_kept_as_far_as_it_came_and_may_be_asked_for_again(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas[:1], failover={"resume": False}))
        ollamas[0].breaks(Kind.RESET, after=3)
        torn = talk.say("one").text
        assert torn
        until(lambda: kept(talk.daemon) == [("user", "one", "whole"), ("assistant", torn, "torn")], "it is kept")
        again = talk.say("one")
        assert given(ollamas[0]) == [("user", "one")]
        assert again.head.get("X-Understudy-Session") == "retried"
        assert kept(talk.daemon) == [("user", "one", "whole"), ("assistant", again.text, "whole")]


def test_an_abandoned_answer_is_kept_as_far_as_it_came(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas))
        ollamas[0].gap_s = 0.05
        body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "one"}]}
        wire = stack.enter_context(Wire(talk.daemon.port))
        wire.send(request_bytes("POST", CHAT, body, headers={"X-Session-ID": "s"}))
        wire.read_until(b'"content":"')
        wire.close()
        until(lambda: talk.daemon.admin("/api/sessions/s").status == 200, "it is kept")
        speaker, text, mark = kept(talk.daemon)[-1]
        assert (speaker, mark) == ("assistant", "abandoned")
        assert text
        ollamas[0].gap_s = 0.0
        talk.say("two")
        assert given(ollamas[0]) == [("user", "one"), ("assistant", text), ("user", "two")]


def test_requests_of_one_session_are_put_in_order_also_between_two_daemons(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        folders = [tmp_path / name for name in ("a", "b")]
        for folder in folders:
            folder.mkdir()
        shared = {"store": f"file:{tmp_path / 'kept'}"}
        talks = [Talk(started(stack, folder, ollamas, sessions=shared)) for folder in folders]
        for engine in ollamas:
            engine.gap_s = 0.002
        threads = [threading.Thread(target=talks[number % 2].say, args=(f"question {number}",)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        said = kept(talks[0].daemon)
        assert len(said) == 20
        assert sorted(text for speaker, text, _ in said if speaker == "user") == [f"question {number}" for number in range(10)]
        assert [speaker for speaker, _, _ in said] == ["user", "assistant"] * 10
        assert talks[1].daemon.admin("/api/sessions/s").json()["revision"] == 10


def test_who_waits_too_long_gets_409(tmp_path: Path, ollamas: list[WritingEngine]) -> None:
    with ExitStack() as stack:
        talk = Talk(started(stack, tmp_path, ollamas, sessions={"lock_wait": "200ms"}))
        ollamas[0].gap_s = 0.2
        first = threading.Thread(target=talk.say, args=("one",))
        first.start()
        until(lambda: bool(ollamas[0].generated), "the first is being answered")
        body = {"model": "tiny", "messages": [{"role": "user", "content": "two"}]}
        reply = talk.daemon.ask(CHAT, body, headers={"X-Session-ID": "s"})
        assert (reply.status, reply.json()["error"]["code"]) == (409, "session_held")
        ollamas[0].gap_s = 0.0
        first.join(60)
