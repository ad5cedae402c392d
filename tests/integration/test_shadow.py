"""Shadows over the wire: whatever becomes of the inactive color's answers, clients have theirs, as fast; the daemon ends."""

import asyncio
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.answers import LAST_CHUNK, begun_stream, chunk, whole
from support.daemon import Daemon, seconds_since
from support.flips_talk import CHAT, ColorEngine, Link, ask_all, chat_request, color_of, colored_daemon, wrong_with
from support.personas import openai_chat, openai_chat_events
from support.steps import Answer, Gate, answer, hang, hold, pause, repeat, reset, send
from support.waiting import until
from support.wire import Reply, Wire

IN_FLIGHT_MAX = 3
REQUESTS = [chat_request(f"question {number}", stream=number % 2 == 0) for number in range(200)]


@pytest.fixture
def blue() -> Iterator[ColorEngine]:
    """Run the blue engine, which takes its time in the middle of its streams."""
    with ColorEngine("b0", "blue", gap_s=0.01) as engine:
        yield engine


@pytest.fixture
def green() -> Iterator[ColorEngine]:
    """Run the green one, which gets the shadows."""
    with ColorEngine("g0", "green") as engine:
        yield engine


def started(stack: ExitStack, folder: Path, blue: ColorEngine, green: ColorEngine, **rollout: Any) -> Daemon:
    """Start a daemon that sends every exchange to green, too."""
    wanted = {"shadow": "100%", "shadow_in_flight_max": IN_FLIGHT_MAX, **rollout}
    made = colored_daemon(folder, blue.entry(), green.entry(), rollout=wanted, log={"level": "debug"})
    daemon = stack.enter_context(made)
    daemon.wait_condition("up")
    return daemon


def reshadow(daemon: Daemon, share: str) -> None:
    """Let the file have another share."""
    wanted = yaml.safe_load(daemon.file.read_text())
    wanted["rollout"]["shadow"] = share
    known = len(daemon.events("config.reloaded"))
    daemon.rewrite(wanted)
    until(lambda: len(daemon.events("config.reloaded")) > known, "a reload")


def facts(daemon: Daemon) -> dict[str, Any]:
    """Return what the status tells of shadows."""
    told: dict[str, Any] = daemon.admin("/api/rollout").json()["shadow"]
    return told


def median_s(daemon: Daemon, count: int = 100) -> float:
    """Ask one after the other; how long an answer takes, all of them right."""
    lasted_s: list[float] = []
    with Wire(daemon.port) as wire:
        for number in range(count):
            began_at_s = time.monotonic()
            wire.send(chat_request(f"one {number}"))
            reply = wire.read_reply()
            lasted_s.append(seconds_since(began_at_s))
            assert (reply.status, color_of(reply.text)) == (200, "blue"), reply
    return statistics.median(lasted_s)


def assert_all_right(replies: list[Reply], blue: ColorEngine) -> None:
    """Every answer is whole, and blue's."""
    bad = [
        why
        for number, reply in enumerate(replies)
        if (why := wrong_with(reply, CHAT, is_streamed=number % 2 == 0, says={"b0": blue.say}))
    ]
    assert not bad, bad[:3]


def test_a_green_that_accepts_and_never_answers_costs_clients_no_time_and_no_answer(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    green.always(answer(hang()))
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, shadow="0%")
        median_s(daemon, 20)
        without_s = median_s(daemon)
        reshadow(daemon, "100%")
        with_s = median_s(daemon)
        assert with_s < 2 * without_s + 0.005, (with_s, without_s)
        assert_all_right(ask_all(daemon.port, REQUESTS), blue)
        seen = facts(daemon)
        assert seen["in_flight"] == IN_FLIGHT_MAX
        assert len(green.seen.requests) == IN_FLIGHT_MAX
        assert daemon.status()["g0"]["condition"] == "up"
        began_at_s = time.monotonic()
        assert daemon.stop() == 0
        assert seconds_since(began_at_s) < 3.0


FAULTS: dict[str, Answer] = {
    "resets": answer(reset()),
    "resets in mid-stream": begun_stream(openai_chat_events("green I was")[:2], reset()),
    "never answers": answer(hang()),
    "never ends": begun_stream([], repeat(chunk(openai_chat_events("green I was")[0]), gap_s=0.02)),
    "answers late": answer(pause(0.3), *whole(200, openai_chat("green at last")).steps),
}


@pytest.mark.parametrize("fault", ["resets", "resets in mid-stream"])
def test_a_green_that_fails_its_shadows_is_blamed_for_nothing(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine, fault: str
) -> None:
    green.always(FAULTS[fault])
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, guard={"errors": "1%", "min_exchanges": 5, "window": "60s"})
        assert_all_right(ask_all(daemon.port, REQUESTS), blue)
        until(lambda: facts(daemon)["in_flight"] == 0, "no shadow left")
        outcomes = {event["outcome"] for event in daemon.events("shadow.finished")}
        assert outcomes == {"failed"}
        status = daemon.status()["g0"]
        assert (status["condition"], status["in_flight"]) == ("up", 0)
        assert not daemon.events("backend.ejected")
        assert not daemon.events("rollout.rolled_back")


def test_a_shadow_is_compared_and_its_text_told_to_nobody(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, shadow_in_flight_max=32)
        assert_all_right(ask_all(daemon.port, REQUESTS[:20], clients=4), blue)
        until(lambda: len(daemon.events("shadow.finished")) == 20, "a shadow for each")
        for event in daemon.events("shadow.finished"):
            assert (event["outcome"], event["backend"], event["color"], event["failure"]) == ("answered", "g0", "green", None)
            assert 0.2 < event["likeness"] < 1.0
            assert event["client_duration_s"] > 0
        assert not any("green I am" in line or "blue I am" in line or "question" in line for line in daemon.log)
        assert len(green.seen.requests) == 20


def test_a_client_that_leaves_ends_no_shadow_and_frees_its_place(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    gate = Gate()
    events = openai_chat_events(blue.say, engine="ollama")
    blue.then(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        with Wire(daemon.port) as wire:
            wire.send(chat_request(stream=True))
            next(wire.read_pieces(wire.read_head()))
            green.wait_requests(1)
        event = daemon.wait_event("shadow.finished")
        assert (event["outcome"], event["likeness"]) == ("answered", None)
        until(lambda: facts(daemon)["in_flight"] == 0, "no shadow left")
        gate.open()


def test_shadows_that_run_when_the_file_turns_them_off_end_with_their_clients(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    gate = Gate()
    events = openai_chat_events(blue.say, engine="ollama")
    blue.then(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        wire = stack.enter_context(Wire(daemon.port))
        wire.send(chat_request(stream=True))
        pieces = wire.read_pieces(wire.read_head())
        next(pieces)
        green.wait_requests(1)
        reshadow(daemon, "0%")
        gate.open()
        assert list(pieces)
        reshadow(daemon, "100%")
        until(lambda: facts(daemon)["in_flight"] == 0, f"the shadow's end; {facts(daemon)}", timeout_s=5.0)


@pytest.mark.parametrize("fault", ["never answers", "never ends", "answers late"])
def test_a_stop_under_load_with_shadows_running_cuts_no_answer_and_is_prompt(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine, fault: str
) -> None:
    green.always(FAULTS[fault])
    blue.gap_s = 0.1
    replies: list[Reply] = []
    refused: list[str] = []

    def be_clients(port: int) -> None:
        async def client(number: int) -> None:
            link = Link()
            while True:
                try:
                    reply = await link.ask(port, chat_request(f"from {number}", stream=True))
                except OSError as error:
                    refused.append(str(error))
                    return
                if reply.status == 503:
                    return
                replies.append(reply)

        async def gathered() -> None:
            await asyncio.gather(*(client(number) for number in range(12)))

        asyncio.run(gathered())

    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        load = threading.Thread(target=be_clients, args=(daemon.port,))
        load.start()
        until(lambda: len(replies) > 20, "some load")
        began_at_s = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0
        assert seconds_since(began_at_s) < 3.0
        load.join(10)
        assert not load.is_alive()
        bad = [why for reply in replies if (why := wrong_with(reply, CHAT, is_streamed=True, says={"b0": blue.say}))]
        assert not bad, bad[:3]
