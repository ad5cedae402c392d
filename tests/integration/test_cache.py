"""Answers to exact repeats: given at once or only when no backend can answer, and never to anybody else."""

from pathlib import Path
from typing import Any

import pytest

from support import faults
from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.wire import Reply, chat

ALWAYS = {"size": "1MB", "when": "always"}
NO_BACKEND = {"size": "1MB", "when": "no_backend"}


def told(reply: Reply) -> tuple[int, str, str]:
    """Return the status, what the client is told of the cache, and who made the answer."""
    return reply.status, reply.head.get("X-Understudy-Cache"), reply.backend


def lose(daemon: Daemon, *engines: ScriptedEngine) -> None:
    """Let the engines go, and the daemon notice."""
    for engine in engines:
        engine.refuse()
        engine.drop_connections()
    daemon.wait_condition("down")


def test_nothing_is_kept_unless_the_file_says_so(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        daemon.wait_condition("up")
        assert [told(daemon.ask(body=chat(temperature=0))) for _ in range(2)] == [(200, "", "gpu0")] * 2
        assert len(gpu0.seen.requests) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_an_exact_repeat_is_answered_without_asking_anybody(gpu0: ScriptedEngine, tmp_path: Path, *, stream: bool) -> None:
    with Daemon(settings(backend(gpu0), cache=ALWAYS), tmp_path) as daemon:
        daemon.wait_condition("up")
        first, second = (daemon.ask(body=chat(stream=stream, seed=7)) for _ in range(2))
        assert (told(first), told(second)) == ((200, "", "gpu0"), (200, "hit", "gpu0"))
        assert second.body == first.body
        assert second.head.get("Content-Type") == first.head.get("Content-Type")
        assert int(second.head.get("Age")) <= 2
        daemon.wait_event("exchange.finished", cached="hit", attempts=0, status=200, why="")
        others: list[tuple[dict[str, Any], dict[str, str]]] = [
            (chat(stream=stream), {}),
            (chat(stream=stream, seed=8), {}),
            (chat(stream=stream, seed=7), {"Authorization": "Bearer other"}),
            (chat(stream=stream, seed=7), {"Cache-Control": "no-cache"}),
        ]
        assert [told(daemon.ask(body=body, headers=headers)) for body, headers in others] == [(200, "", "gpu0")] * 4
        assert len(gpu0.seen.requests) == 5
        assert daemon.metric("understudy_cache_answers_total", when="hit") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_kept_stands_in_when_no_backend_can_answer(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path, *, stream: bool
) -> None:
    wanted = settings(backend(gpu0), backend(gpu1), cache=NO_BACKEND, failover={"hold": "200ms"})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        question = chat(stream=stream, temperature=0)
        replies = [daemon.ask(body=question) for _ in range(2)]
        assert [told(reply) for reply in replies] == [(200, "", "gpu0")] * 2
        lose(daemon, gpu0, gpu1)
        reply = daemon.ask(body=question)
        assert told(reply) == (200, "stale", "gpu0")
        assert (reply.body, reply.head.get("Age").isdecimal()) == (replies[1].body, True)
        assert daemon.ask(body=chat("another question", stream=stream, temperature=0)).status in {502, 503}
        daemon.wait_event("exchange.finished", cached="stale", level="warning", status=200, why="")
        gpu1.listen()
        daemon.wait_condition("up", "gpu1")
        assert told(daemon.ask(body=question)) == (200, "", "gpu1")


@pytest.mark.parametrize("fault", [*faults.AFTER_CONTENT_TOLD, "reset"])
def test_an_answer_that_broke_is_not_kept(gpu0: ScriptedEngine, tmp_path: Path, fault: str) -> None:
    with Daemon(settings(backend(gpu0), cache=ALWAYS, failover={"resume": "false", "hold": "200ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        question = chat(stream=True, seed=7)
        gpu0.then((faults.AFTER_CONTENT | faults.AFTER_CONTENT_TOLD)[fault]())
        assert "stream_interrupted" in daemon.ask(body=question).body.decode()
        assert told(daemon.ask(body=question)) == (200, "", "gpu0")
