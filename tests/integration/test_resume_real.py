"""Two real llama.cpp servers: wherever the first one's answer is cut, the second makes the uncut answer of it, byte for byte.

Greedy and in f32, so that the servers write the same; `cache_prompt: false` makes the second read the whole prompt each time.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, backend, settings
from support.endings import Story, whole_story
from support.llama import LlamaServer
from support.relay_that_cuts import CuttingRelay
from support.tiny_model import tiny_model
from support.waiting import until
from support.wire import Wire, ask, request_bytes
from support.writing_cast import CHAT, MESSAGES, TEXT

GREEDY = {"model": "tiny", "stream": True, "temperature": 0, "cache_prompt": False}
ASKED = [{"role": "user", "content": "good evening"}]
TOKENS = 200
BODIES: dict[str, dict[str, Any]] = {
    CHAT: GREEDY | {"messages": ASKED, "max_tokens": TOKENS, "stream_options": {"include_usage": True}},
    TEXT: GREEDY | {"prompt": "good evening", "max_tokens": TOKENS},
    MESSAGES: GREEDY | {"messages": ASKED, "max_tokens": TOKENS},
}
SECTIONS: dict[str, Any] = {
    "health": {"interval": "2s", "timeout": "3s", "max_fails": 0},
    "failover": {"budget": "100%"},
    "timeouts": {"stall": "2s"},
}


class Stage:
    """Two servers, the first behind a relay that cuts, and the daemon before both."""

    def __init__(self, first: LlamaServer, second: LlamaServer, relay: CuttingRelay, daemon: Daemon) -> None:
        self.first, self.second, self.relay, self.daemon = first, second, relay, daemon

    def ask(self, path: str, **more: Any) -> Story:
        """Ask for the greedy answer and read it whole."""
        return whole_story(self.daemon.ask(path, BODIES[path] | more))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Iterator[Stage]:
    """Run everything once for the file; no play harms a server."""
    model = tiny_model(models_folder)
    with LlamaServer(model, "gpu0") as first, LlamaServer(model, "gpu1") as second, CuttingRelay("gpu0", first.port) as relay:
        wanted = settings(backend(relay, "auto"), backend(second, "auto"), **SECTIONS)
        with Daemon(wanted, tmp_path_factory.mktemp("real")) as daemon:
            daemon.wait_condition("up")
            yield Stage(first, second, relay, daemon)


def free_slots(server: LlamaServer) -> list[Any]:
    """Return the server's slots when all of them are free."""
    slots = ask(server.port, "/slots").json()
    return list(slots) if not any(slot["is_processing"] for slot in slots) else []


@pytest.mark.parametrize("path", BODIES)
def test_every_cut_of_a_real_answer_makes_the_same_text(stage: Stage, path: str) -> None:
    uncut = stage.ask(path)
    events = len(uncut.events)
    assert events > 120, "about a token an event"
    different = []
    # The last events hold no text; a cut after the finish is another play.
    # A message opens with two events, and only after the first text is there something to go on with.
    for after in range(3 if path == MESSAGES else 2, events - 4):
        stage.relay.cut(after)
        story = stage.ask(path)
        if (story.text, story.finish) != (uncut.text, uncut.finish):
            different.append((after, story.seams))
        assert [name for name, _ in story.seams] == ["gpu1"], f"cut after {after} events"
    assert not different, f"{len(different)} of {events - 6} cuts gave another text: {different[:5]}"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_tokens_of_a_real_answer_are_counted_right_over_the_seam(stage: Stage, path: str) -> None:
    uncut = stage.ask(path)
    assert uncut.usage["completion_tokens"] == TOKENS
    for after in (3, 20, 77, 121):
        stage.relay.cut(after)
        assert stage.ask(path).usage == uncut.usage, f"cut after {after} events"


@pytest.mark.parametrize("extra_bytes", [1, 20, 90, 150])
def test_half_received_events_are_not_taken_for_received(stage: Stage, extra_bytes: int) -> None:
    uncut = stage.ask(CHAT)
    for how in ("reset", "close"):
        for after in (2, 15, 40):
            stage.relay.cut(after, extra_bytes=extra_bytes, how=how)
            assert stage.ask(CHAT).text == uncut.text, f"{how} after {after} events"


def test_a_real_answer_that_falls_silent_goes_on_and_its_slot_is_freed(tmp_path: Path, models_folder: Path) -> None:
    model = tiny_model(models_folder, layers=64)
    with ExitStack() as stack:
        first = stack.enter_context(LlamaServer(model, "gpu0"))
        second = stack.enter_context(LlamaServer(model, "gpu1"))
        relay = stack.enter_context(CuttingRelay("gpu0", first.port))
        wanted = settings(backend(relay, "auto"), backend(second, "auto"), **SECTIONS)
        daemon = stack.enter_context(Daemon(wanted, tmp_path))
        daemon.wait_condition("up")
        body = BODIES[CHAT] | {"max_tokens": 3000}
        relay.cut(10, how="silence")
        with Wire(daemon.port, deadline_s=20.0) as wire:
            wire.send(request_bytes("POST", CHAT, body))
            pieces = wire.read_pieces(wire.read_head())
            received = b""
            while b"understudy resumed on gpu1" not in received:
                received += next(pieces)
            # The first server would write on for seconds; the attempt that was given up makes it stop.
            until(lambda: free_slots(first), "slots of the silent server free", timeout_s=3.0)
            assert not free_slots(second)
        # And so does the client's leaving, at the server that went on.
        until(lambda: free_slots(second), "slots of the second server free", timeout_s=3.0)
        daemon.wait_idle()


def test_a_killed_real_server_is_gone_on_from_and_the_text_is_the_same(tmp_path: Path, models_folder: Path) -> None:
    model = tiny_model(models_folder, layers=64)
    body = BODIES[CHAT] | {"max_tokens": 400}
    health = {"interval": "200ms", "timeout": "3s", "rise": 1, "max_fails": 0}
    with LlamaServer(model, "gpu0") as first, LlamaServer(model, "gpu1") as second:
        uncut = whole_story(ask(second.port, CHAT, body)).text
        wanted = settings(backend(first, "auto"), backend(second, "auto"), **(SECTIONS | {"health": health}))
        with Daemon(wanted, tmp_path) as daemon:
            for count in (3, 30):
                daemon.wait_condition("up")
                with Wire(daemon.port, deadline_s=20.0) as wire:
                    wire.send(request_bytes("POST", CHAT, body))
                    head = wire.read_head()
                    pieces = wire.read_pieces(head)
                    received = b"".join(next(pieces) for _ in range(count))
                    first.kill()
                    received += b"".join(pieces)
                assert head.get("X-Understudy-Backend") == "gpu0"
                assert _text(received) == uncut
                assert b": understudy resumed on gpu1 after " in received
                first.start()


def _text(data: bytes) -> str:
    events = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def test_a_frozen_real_server_is_gone_on_from(tmp_path: Path, models_folder: Path) -> None:
    model = tiny_model(models_folder, layers=64)
    body = BODIES[CHAT] | {"max_tokens": 400}
    health = {"interval": "500ms", "timeout": "500ms", "rise": 1, "fall": 2, "max_fails": 0}
    with LlamaServer(model, "gpu0") as first, LlamaServer(model, "gpu1") as second:
        uncut = whole_story(ask(second.port, CHAT, body)).text
        wanted = settings(backend(first, "auto"), backend(second, "auto"), **(SECTIONS | {"health": health}))
        with Daemon(wanted, tmp_path) as daemon:
            daemon.wait_condition("up")
            with Wire(daemon.port, deadline_s=20.0) as wire:
                wire.send(request_bytes("POST", CHAT, body))
                pieces = wire.read_pieces(wire.read_head())
                received = b"".join(next(pieces) for _ in range(5))
                first.freeze()
                try:
                    received += b"".join(pieces)
                finally:
                    first.thaw()
            assert _text(received) == uncut
            assert received.endswith(b"data: [DONE]\n\n")
