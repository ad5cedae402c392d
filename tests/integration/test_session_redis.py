"""Conversations in a real Redis: from another daemon, and while Redis is killed, paused and brought back under load."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, backend, settings
from support.engine_ollama import Habits, OllamaDialect
from support.redis_server import RedisServer
from support.scripted_model import ScriptedModel
from support.waiting import until
from support.wire import Reply
from support.writing_engine import WritingEngine

CHAT = "/v1/chat/completions"
# What Redis acknowledges is on its disk.
SAFE = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
def engine() -> Iterator[WritingEngine]:
    with WritingEngine("gpu0", OllamaDialect(ScriptedModel(), Habits(is_native=True)), engine="ollama") as one:
        yield one


def started(stack: ExitStack, folder: Path, engine: WritingEngine, server: RedisServer, **sessions: Any) -> Daemon:
    """Start a daemon that keeps conversations in `server`, as one of the machines would that share it."""
    folder.mkdir(exist_ok=True)
    wanted = settings(backend(engine, "ollama"), sessions={"store": server.url, "timeout": "500ms", **sessions})
    daemon = stack.enter_context(Daemon(wanted, folder))
    daemon.wait_condition("up")
    return daemon


def say(daemon: Daemon, text: str, session: str = "s", **more: Any) -> Reply:
    """Ask one thing in a session."""
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": text}]}
    return daemon.ask(CHAT, body, headers={"X-Session-ID": session}, **more)


def given(engine: WritingEngine) -> list[str]:
    """Return the texts of the engine's last request."""
    return [message["content"] for message in engine.generated[-1][1]["messages"]]


def kept(daemon: Daemon, session: str = "s") -> list[str]:
    """Return the texts that are kept."""
    record = daemon.admin(f"/api/sessions/{session}").json()
    return ["".join(part.get("text", "") for part in message.get("parts", ())) for message in record.get("messages", ())]


def wait_more(count: Callable[[], int], what: str) -> None:
    """Return once `count` has grown by some."""
    before = count()
    until(lambda: count() > before + 6, what, timeout_s=60)


def test_a_conversation_goes_on_from_another_machine(tmp_path: Path, engine: WritingEngine) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        one, other = (started(stack, tmp_path / name, engine, server) for name in ("one", "other"))
        first = say(one, "one").text
        second = say(other, "two")
        assert second.head.get("X-Understudy-Session") == "appended"
        assert given(engine) == ["one", first, "two"]
        one.send_signal(signal.SIGKILL)
        say(other, "three")
        assert given(engine) == ["one", first, "two", second.text, "three"]


def test_two_machines_keep_one_session_in_order(tmp_path: Path, engine: WritingEngine) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        daemons = [started(stack, tmp_path / name, engine, server) for name in ("one", "other")]
        engine.gap_s = 0.002
        asking = [threading.Thread(target=say, args=(daemons[number % 2], f"question {number}")) for number in range(12)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
        texts = kept(daemons[0])
        assert len(texts) == 24
        assert sorted(texts[::2]) == sorted(f"question {number}" for number in range(12))


def test_nothing_that_was_acknowledged_is_lost_when_redis_dies_under_load(tmp_path: Path, engine: WritingEngine) -> None:
    """Every answer whose end came without a word of loss is there afterwards, in its place."""
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(SAFE))
        daemon = started(stack, tmp_path / "one", engine, server)
        acknowledged: dict[str, list[str]] = {}
        is_over = threading.Event()

        def talk(number: int) -> None:
            for turn in range(100_000):
                if is_over.is_set():
                    return
                # Another session after some turns, since a scripted engine reads long conversations slowly.
                session, question = f"s{number}-{turn // 8}", f"question {number} {turn}"
                reply = say(daemon, question, session)
                assert reply.status == 200, reply
                if b"session not kept" not in reply.body and not reply.head.get("X-Understudy-Session-Loss"):
                    acknowledged.setdefault(session, []).extend((question, reply.text))

        talking = [threading.Thread(target=talk, args=(number,)) for number in range(6)]
        for thread in talking:
            thread.start()
        for _ in range(3):
            wait_more(lambda: len(acknowledged), "turns are kept")
            server.kill()
            wait_more(lambda: int(daemon.metric("understudy_sessions_lost_total")), "losses are told")
            server.start()
        wait_more(lambda: len(acknowledged), "turns are kept again")
        is_over.set()
        for thread in talking:
            thread.join(60)
        for session, texts in acknowledged.items():
            there = iter(kept(daemon, session))
            assert all(text in there for text in texts), f"{session} lost something that was acknowledged"
        assert daemon.events("store.became_unavailable")
        assert daemon.events("store.recovered")


def test_a_redis_that_stands_still_costs_the_history_and_comes_back(tmp_path: Path, engine: WritingEngine) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(SAFE))
        daemon = started(stack, tmp_path / "one", engine, server)
        first = say(daemon, "one").text
        server.freeze()
        reply = say(daemon, "two")
        assert reply.status == 200
        assert given(engine) == ["two"]
        assert reply.head.get("X-Understudy-Session-Loss") == "slow"
        ready = daemon.admin("/readyz")
        assert (ready.status, ready.json()["sessions"]["store"]) == (200, "slow")
        refused = daemon.ask(
            CHAT,
            {"model": "tiny", "messages": [{"role": "user", "content": "three"}]},
            headers={"X-Session-ID": "s", "X-Session-On-Error": "refuse"},
        )
        assert (refused.status, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert refused.head.get("Retry-After")
        server.thaw()

        def is_back() -> bool:
            return say(daemon, "four").head.get("X-Understudy-Session") == "appended"

        until(is_back, "the conversation is back", timeout_s=30)
        assert given(engine)[:2] == ["one", first]
        assert daemon.admin("/readyz").json()["sessions"] == {"store": "up"}


def test_who_talks_without_a_session_notices_nothing_of_a_redis_that_is_gone(tmp_path: Path, engine: WritingEngine) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        server.kill()
        daemon = started(stack, tmp_path / "one", engine, server)
        reply = daemon.ask(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": "one"}]})
        assert reply.status == 200
        assert "X-Understudy-Session" not in str(reply.head.fields)
        assert daemon.events("store.became_unavailable", reason="unavailable")
