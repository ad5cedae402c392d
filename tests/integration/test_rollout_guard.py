"""The guard over the wire: a green that is worse by far is rolled back with one message, one that is equal goes on."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.answers import LAST_CHUNK, SSE, begun_stream, chunk, stream_head, whole
from support.daemon import Daemon
from support.faults import SERVER_ERROR
from support.flips_talk import CHAT, ColorEngine, ask_all, chat_request, color_of, colored_daemon, order
from support.personas import openai_chat_events
from support.steps import Answer, answer, pause, send
from support.waiting import until
from support.wire import Reply

GUARD = {"errors": "5%", "ttft_p95": "2x", "speed": "0.5x", "window": "60s", "min_exchanges": 20}
# The guard looks every five seconds.
LOOKS_TIMEOUT_S = 20.0
GAP_S = 0.004


@pytest.fixture
def blue() -> Iterator[ColorEngine]:
    """Run the blue engine."""
    with ColorEngine("b0", "blue", gap_s=GAP_S) as engine:
        yield engine


@pytest.fixture
def green() -> Iterator[ColorEngine]:
    """Run the green one, just as fast."""
    with ColorEngine("g0", "green", gap_s=GAP_S) as engine:
        yield engine


class Load:
    """What clients of new sessions were answered, in order."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.failed: list[BaseException] = []

    @property
    def colors(self) -> set[str]:
        """Who answered."""
        return {color_of(reply.text) for reply in self.replies}


@contextmanager
def loaded(daemon: Daemon, clients: int = 6) -> Iterator[Load]:
    """Let clients ask all the time, each in a new session."""
    load, numbers, is_over = Load(), itertools.count(), threading.Event()

    def be_clients() -> None:
        while not is_over.is_set():
            requests = [chat_request(session=f"load-{next(numbers)}", stream=True) for _ in range(4 * clients)]
            try:
                load.replies.extend(ask_all(daemon.port, requests, clients))
            except BaseException as error:  # noqa: BLE001  # told to the play, whose thread this is not
                load.failed.append(error)
                return

    thread = threading.Thread(target=be_clients)
    thread.start()
    try:
        yield load
    finally:
        is_over.set()
        thread.join(30)
    assert not load.failed, load.failed


def started(
    stack: ExitStack, folder: Path, blue: ColorEngine, green: ColorEngine, *, ejects: bool = False, **rollout: Any
) -> Daemon:
    """Start a guarded daemon; without ejection whatever is wrong with green goes on reaching the guard."""
    health = {} if ejects else {"max_fails": 0}
    made = colored_daemon(folder, blue.entry(), green.entry(), rollout={"guard": GUARD, **rollout}, health=health)
    daemon = stack.enter_context(made)
    daemon.wait_condition("up")
    return daemon


def guard(daemon: Daemon) -> dict[str, Any]:
    """Return what the status tells of the guard, {} while it watches nobody."""
    told: dict[str, Any] = daemon.admin("/api/rollout").json()["guard"] or {}
    return told


def late(say: str, gap_s: float) -> Answer:
    """Stream an answer whose pieces come `gap_s` after one another, the first one, too."""
    pieces = [step for event in openai_chat_events(say, engine="ollama") for step in (pause(gap_s), send(chunk(event)))]
    return answer(send(stream_head(SSE)), *pieces, send(LAST_CHUNK))


WORSE: dict[str, tuple[Answer, str]] = {
    "answers 500": (whole(500, SERVER_ERROR), "errors"),
    "says nothing": (begun_stream([*openai_chat_events("x", engine="ollama")[1:]], send(LAST_CHUNK)), "errors"),
    "is a hundred times slower": (late("green I am", 100 * GAP_S), "time to first content"),
}


@pytest.mark.parametrize("how", WORSE)
def test_a_green_that_is_worse_is_rolled_back_with_one_message_that_has_the_numbers(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine, how: str
) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        load = stack.enter_context(loaded(daemon))
        until(lambda: len(load.replies) > 60, "blue known")
        bad, words = WORSE[how]
        green.always(bad)
        order(daemon, "switch?color=green")
        event = daemon.wait_event("rollout.rolled_back", timeout_s=LOOKS_TIMEOUT_S)
        assert (event["active"], event["was"], event["word"]) == ("blue", "green", "guard")
        assert words in event["reason"]
        assert event["figures"]["candidate"]["exchanges"] >= GUARD["min_exchanges"], event
        assert event["figures"]["other"]["exchanges"] >= GUARD["min_exchanges"], event
        if words == "errors":
            assert event["figures"]["candidate"]["errors"] > 0.5, event
            assert event["figures"]["other"]["errors"] == 0.0, event
        else:
            assert event["figures"]["candidate"]["ttft_p95_s"] > 100 * GAP_S > event["figures"]["other"]["ttft_p95_s"], event
        known = len(load.replies)
        until(lambda: len(load.replies) > known + 60, "more load")
        told = daemon.admin("/api/rollout").json()
        assert (told["active"], told["word"], told["guard"]) == ("blue", "guard", None)
        assert len(daemon.events("rollout.rolled_back")) == 1
    assert {reply.status for reply in load.replies} == {200}
    assert not any(reply.is_cut for reply in load.replies)
    assert {color_of(reply.text) for reply in load.replies[-20:]} == {"blue"}


def test_a_green_that_is_worse_by_a_known_amount_is_rolled_back_with_that_amount(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    """Three in twenty fail, where one in twenty may; each of them is repeated on blue."""
    green.breaks, green.faults = 0.15, (whole(500, SERVER_ERROR),)
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        load = stack.enter_context(loaded(daemon))
        until(lambda: len(load.replies) > 200, "blue known")
        order(daemon, "switch?color=green")
        event = daemon.wait_event("rollout.rolled_back", timeout_s=LOOKS_TIMEOUT_S)
        # The look that finds it is the first at which it was seen to be that bad, and so rather worse than it is.
        assert 0.1 < event["figures"]["candidate"]["errors"] < 0.35, event
        assert "more than 5% worse" in event["reason"]
    assert {reply.status for reply in load.replies} == {200}


def test_a_green_that_is_ejected_for_its_errors_is_rolled_back_all_the_same(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    """Ejection spares the clients, and must not spare the guard."""
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, ejects=True)
        load = stack.enter_context(loaded(daemon))
        until(lambda: len(load.replies) > 60, "blue known")
        green.always(whole(500, SERVER_ERROR))
        order(daemon, "switch?color=green")
        until(lambda: daemon.events("rollout.rolled_back"), "a rollback", timeout_s=12.0)
    assert {reply.status for reply in load.replies} == {200}


def test_an_equal_green_goes_on_after_a_switch(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        load = stack.enter_context(loaded(daemon))
        until(lambda: len(load.replies) > 100, "blue known")
        order(daemon, "switch?color=green")
        until(lambda: guard(daemon).get("verdict") == "holds", "a look that holds", timeout_s=LOOKS_TIMEOUT_S)
        first = guard(daemon)["figures"]["candidate"]["exchanges"]
        until(
            lambda: (guard(daemon).get("figures") or {}).get("candidate", {}).get("exchanges", 0) > first,
            "another look",
            timeout_s=LOOKS_TIMEOUT_S,
        )
        assert (guard(daemon)["watching"], guard(daemon)["verdict"]) == ("green", "holds")
        assert daemon.admin("/api/rollout").json()["active"] == "green"
        assert not daemon.events("rollout.rolled_back")
    assert {reply.status for reply in load.replies} == {200}


def test_a_canary_steps_on_only_while_the_guard_holds_and_ends_in_a_switch(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, canary=["30%", "60%", "100%"], every="500ms")

        def canary() -> dict[str, Any]:
            told: dict[str, Any] = daemon.admin("/api/rollout").json()["canary"] or {}
            return told

        # Its time is over, and nobody has asked anything.
        until(lambda: canary()["next_step_in_s"] == 0 and canary()["waits_for"].startswith("the guard: "), f"{canary()}")
        assert (canary()["share"], canary()["step"]) == (0.3, 1)
        with loaded(daemon) as load:
            event = daemon.wait_event("rollout.switched", timeout_s=2 * LOOKS_TIMEOUT_S)
            known = len(load.replies)
            until(lambda: len(load.replies) > known + 60, "more load")
        assert (event["active"], event["was"], event["word"]) == ("green", "blue", "canary")
        assert [step["share"] for step in daemon.events("rollout.stepped")] == [0.6]
        assert load.colors == {"blue", "green"}
        assert {reply.status for reply in load.replies} == {200}
        assert {color_of(reply.text) for reply in load.replies[-20:]} == {"green"}


def test_a_canary_that_fails_ends_before_its_next_step(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        green.always(whole(500, SERVER_ERROR))
        daemon = started(stack, tmp_path, blue, green, canary=["50%", "75%", "100%"], every="500ms")
        with loaded(daemon) as load:
            event = daemon.wait_event("rollout.rolled_back", timeout_s=LOOKS_TIMEOUT_S)
        assert (event["active"], event["was"], event["share"], event["word"]) == ("blue", "green", 0.5, "guard")
        assert not daemon.events("rollout.stepped")
        assert daemon.admin("/api/rollout").json()["canary"] is None
        assert load.colors == {"blue"}
        assert {reply.status for reply in load.replies} == {200}
        refused = daemon.admin("/api/rollout/rollback", method="POST")
        assert (refused.status, daemon.ask(CHAT, {"model": "tiny", "messages": []}).status) == (409, 200)
