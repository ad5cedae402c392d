"""Blue and green over the wire: flips under load, switches that are refused, forced or end badly, and whose word it was.

The same load in full size is `PYTHONPATH=tests python -m support.flips`.
"""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.answers import LAST_CHUNK, begun_stream, chunk
from support.daemon import Daemon
from support.flips import Setting, play
from support.flips_talk import CHAT, ColorEngine, ask_all, chat_request, color_of, colored_daemon, order
from support.personas import openai_chat_events
from support.steps import Gate, hold, send
from support.waiting import until
from support.wire import Reply, Wire, ask, chat
from support.writing_cast import cast

LOADS = {
    "without a store": Setting(requests=1200, flips=12, seed=1),
    "with a store": Setting(requests=800, flips=10, seed=2, is_stored=True),
    "rollbacks that take sessions": Setting(requests=1000, flips=16, seed=3, takes_sessions=True),
    "shadows, and engines that fail some requests": Setting(requests=1000, flips=10, seed=4, shadow="30%", breaks=0.03),
    "restarts": Setting(requests=800, flips=6, restarts=2, seed=5, is_stored=True),
}


@pytest.fixture
def blue() -> Iterator[ColorEngine]:
    """Run the blue engine."""
    with ColorEngine("b0", "blue") as engine:
        yield engine


@pytest.fixture
def green() -> Iterator[ColorEngine]:
    """Run the green one."""
    with ColorEngine("g0", "green") as engine:
        yield engine


def started(stack: ExitStack, folder: Path, *engines: ColorEngine, **sections: Any) -> Daemon:
    """Start a daemon in front of these engines, all up."""
    daemon = stack.enter_context(colored_daemon(folder, *(engine.entry() for engine in engines), **sections))
    daemon.wait_condition("up")
    return daemon


def restarted(daemon: Daemon) -> Daemon:
    """Stop it in order and start it with the file that is there now."""
    assert daemon.stop() == 0
    daemon.__exit__(None, None, None)
    daemon.__enter__()
    daemon.wait_condition("up")
    return daemon


def told(daemon: Daemon) -> tuple[str, str]:
    """Return what is active and whose word it was."""
    rollout = daemon.admin("/api/rollout").json()
    return rollout["active"], rollout["word"]


def heard(daemon: Daemon, words: str = "", *, session: str = "", **headers: str) -> str:
    """Return the color that answers; header and text must agree."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()} | ({"X-Session-ID": session} if session else {})
    reply = daemon.ask(CHAT, chat(words or session or "who is there?"), headers=fields)
    assert (reply.status, reply.head.get("X-Understudy-Color")) == (200, color_of(reply.text)), reply
    return color_of(reply.text)


def command(daemon: Daemon, *words: str) -> tuple[int, str]:
    """Run an understudy command against the daemon; its exit status and all it said."""
    done = subprocess.run(
        [sys.executable, "-m", "understudy", *words, "--admin", daemon.admin_url], capture_output=True, timeout=20, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("load", LOADS)
def test_flips_under_load_fail_nobody_and_no_conversation_sees_both_colors(tmp_path: Path, load: str) -> None:
    figures = play(LOADS[load], tmp_path)
    assert sum(figures.flips.values()) == LOADS[load].flips + LOADS[load].restarts
    assert figures.new_checked > 20
    assert figures.moves or not LOADS[load].takes_sessions


def test_a_stream_that_runs_at_a_flip_and_at_the_way_back_ends_where_it_began(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    gate = Gate()
    events = openai_chat_events(blue.say, engine="ollama")
    blue.then(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        wire = stack.enter_context(Wire(daemon.port))
        wire.send(chat_request(session="s", stream=True))
        head = wire.read_head()
        pieces = wire.read_pieces(head)
        first = next(pieces)
        order(daemon, "switch?color=green")
        assert heard(daemon, "another") == "green"
        assert heard(daemon, "the same", session="s") == "blue"
        order(daemon, "rollback?sessions=true")
        gate.open()
        reply = Reply(head, first + b"".join(pieces))
        assert (reply.text, head.get("X-Understudy-Color")) == (blue.say, "blue")


# Switches that are refused, and those that are forced.


def test_a_switch_to_a_dead_green_is_refused_with_the_reason_and_forced_it_costs_nobody_an_answer(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        green.refuse()
        green.drop_connections()
        daemon.wait_condition("down", "g0")
        refused = order(daemon, "switch?color=green", 409)["error"]
        assert refused["code"] == "switch_refused"
        assert re.search(r"no backend of green is usable: g0 \(down", refused["message"]), refused
        assert heard(daemon) == "blue"
        status, said = command(daemon, "switch", "green")
        assert (status, "g0 (down" in said, "--force" in said, "Traceback" in said) == (1, True, True, False), said
        until(lambda: len(daemon.events("rollout.refused", to="green", word="command")) == 2, f"two refusals; {daemon.log[-5:]}")
        status, said = command(daemon, "switch", "green", "--force")
        assert (status, told(daemon)) == (0, ("green", "command")), said
        assert daemon.wait_event("rollout.switched")["forced"] is True
        replies = ask_all(daemon.port, [chat_request(f"question {number}", session=f"s{number % 20}") for number in range(100)])
        assert {(reply.status, reply.text, reply.head.get("X-Understudy-Color")) for reply in replies} == {
            (200, blue.say, "blue")
        }
        # Its return changes no voice: they began on blue.
        green.listen()
        daemon.wait_condition("up", "g0")
        assert [heard(daemon, session="s7"), heard(daemon, session="new")] == ["blue", "green"]


def test_a_switch_to_a_green_without_a_model_names_it(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        blue.list_models("tiny", "large")
        daemon = started(stack, tmp_path, blue, green)
        refused = order(daemon, "switch?color=green", 409)["error"]["message"]
        assert re.search(r"green has no large(:latest)?, which blue serves", refused), refused
        assert told(daemon) == ("blue", "file")
        order(daemon, "switch?color=green&force=true")
        assert heard(daemon, "for tiny") == "green"
        large = daemon.ask(CHAT, chat("for large", model="large"))
        assert (large.status, color_of(large.text)) == (200, "blue")


def test_a_green_that_dies_in_the_middle_of_the_switch_costs_nobody_an_answer(tmp_path: Path) -> None:
    """Both write alike, so that a whole answer can be told from one with a gap or a repeat."""
    rounds = [[chat_request(f"question {number}", stream=number % 3 > 0) for number in range(60)] for _ in range(3)]
    with cast("b0", "ollama") as blue, cast("g0", "ollama") as green, ExitStack() as stack:
        entries = [
            {"name": engine.name, "url": engine.url, "engine": "ollama", "color": color}
            for engine, color in ((blue, "blue"), (green, "green"))
        ]
        daemon = stack.enter_context(colored_daemon(tmp_path, *entries))
        daemon.wait_condition("up")
        wanted = [reply.text for reply in ask_all(daemon.port, rounds[0])]
        assert all(wanted)
        blue.gap_s = green.gap_s = 0.005
        replies: list[list[Reply]] = []
        load = threading.Thread(target=lambda: replies.extend(ask_all(daemon.port, each) for each in rounds))
        load.start()
        blue.wait_for(lambda seen: len(seen.requests) > 80)
        order(daemon, "switch?color=green")
        until(lambda: len(green.generated) >= 10, "green answering")
        green.refuse()
        green.drop_connections()
        load.join(60)
        assert len(replies) == len(rounds)
        bad = [
            reply
            for each in replies
            for reply, text in zip(each, wanted, strict=True)
            if (reply.status, reply.text) != (200, text)
        ]
        assert not bad, (len(bad), bad[:2])
        assert any(event.get("resumed_on") for event in daemon.events("exchange.finished")), "no stream was lost in its middle"
        daemon.wait_idle()


# Whose word it is.


def test_a_command_outlives_a_restart_and_the_file_wins_when_it_says_something_else(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, rollout={"active": "blue"})

        def file_says(color: str) -> None:
            daemon.rewrite(yaml.safe_load(daemon.file.read_text()) | {"rollout": {"active": color}})

        assert told(daemon) == ("blue", "file")
        assert command(daemon, "switch", "green")[0] == 0
        assert told(daemon) == ("green", "command")
        restarted(daemon)
        assert (told(daemon), heard(daemon, "after a restart")) == (("green", "command"), "green")
        said = command(daemon, "status")[1]
        assert re.search(r"green is active \(by command, .* ago; the file says blue\)", said), said
        # The same word again, with another number beside it, is no later word.
        daemon.rewrite(yaml.safe_load(daemon.file.read_text()) | {"balance": "round_robin"})
        daemon.wait_event("config.reloaded")
        assert told(daemon) == ("green", "command")
        file_says("green")
        until(lambda: told(daemon) == ("green", "file"), "the file's word")
        file_says("blue")
        until(lambda: told(daemon) == ("blue", "file"), "the file's word")
        assert heard(daemon, "after the file") == "blue"
        # A word that the file says while the daemon is down is a later one, too.
        order(daemon, "switch?color=green")
        order(daemon, "switch?color=blue")
        file_says("green")
        restarted(daemon)
        assert (told(daemon), heard(daemon, "after another restart")) == (("green", "file"), "green")


def test_a_switch_that_was_acknowledged_survives_a_kill(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        for color in ("green", "blue", "green"):
            assert order(daemon, f"switch?color={color}")["kept"] is True
            daemon.send_signal(signal.SIGKILL)
            daemon.wait_ended()
            daemon.__exit__(None, None, None)
            daemon.__enter__()
            daemon.wait_condition("up")
            assert (told(daemon), heard(daemon, f"after a kill on {color}")) == ((color, "command"), color)


def test_a_session_waits_for_its_color_where_that_was_not_probed_yet_after_a_restart(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    """The daemon listens half a second after its start, whoever has been probed by then."""
    gate = Gate()
    with ExitStack() as stack:
        kept = {"store": f"file:{tmp_path / 'kept'}"}
        daemon = started(stack, tmp_path, blue, green, sessions=kept, health={"timeout": "5s"}, failover={"hold": "5s"})
        order(daemon, "switch?color=green")
        assert heard(daemon, session="s") == "green"
        assert daemon.stop() == 0
        daemon.__exit__(None, None, None)
        green.late_probes(gate)
        daemon.__enter__()
        assert (daemon.status()["g0"]["condition"], told(daemon)) == ("unknown", ("green", "command"))
        with Wire(daemon.port) as wire:
            wire.send(chat_request(session="s"))
            daemon.status()
            gate.open()
            reply = wire.read_reply()
        assert (reply.status, color_of(reply.text)) == (200, "green"), reply


def test_two_conversations_that_begin_with_the_same_words_keep_each_its_color(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    """Neither has a session's name; both come from one address, as behind a web front end."""
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        first = daemon.ask(CHAT, chat("hello"))
        order(daemon, "switch?color=green")
        assert heard(daemon, "hello") == "green"
        answered = {"role": "assistant", "content": first.text}
        messages = [{"role": "user", "content": "hello"}, answered, {"role": "user", "content": "go on"}]
        on = daemon.ask(CHAT, {"model": "tiny", "messages": messages})
        assert [color_of(first.text), color_of(on.text)] == ["blue", "blue"]


def test_a_rollback_takes_back_a_session_whose_answer_runs_and_is_kept_in_a_store(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    gate = Gate()
    events = openai_chat_events(green.say, engine="ollama")
    green.then(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, sessions={"store": f"file:{tmp_path / 'kept'}"})
        order(daemon, "switch?color=green")
        wire = stack.enter_context(Wire(daemon.port))
        wire.send(chat_request(session="running", stream=True))
        pieces = wire.read_pieces(wire.read_head())
        next(pieces)
        assert heard(daemon, session="over") == "green"
        assert command(daemon, "rollback", "--sessions")[0] == 0
        gate.open()
        assert list(pieces)
        assert [heard(daemon, session="over"), heard(daemon, session="running")] == ["blue", "blue"]


def test_a_rollback_alone_leaves_sessions_where_they_are(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        order(daemon, "switch?color=green")
        assert heard(daemon, session="s") == "green"
        order(daemon, "rollback")
        assert [heard(daemon, session="s"), heard(daemon, session="new")] == ["green", "blue"]
        assert order(daemon, "rollback", 409)["error"]["code"] == "switch_refused"


# Trying it.


def test_a_client_may_ask_for_a_color_and_its_session_stays_there(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        assert heard(daemon, X_Understudy_Color="green") == "green"
        assert heard(daemon) == "blue"
        assert heard(daemon, session="s", X_Understudy_Color="green") == "green"
        assert heard(daemon, "go on", session="s") == "green"
        wrong = daemon.ask(CHAT, chat(), headers={"X-Understudy-Color": "red"})
        assert wrong.status == 400
        assert "want blue or green" in wrong.json()["error"]["message"]


def test_a_browser_walks_around_in_green_with_a_signed_cookie(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, rollout={"preview": True})
        cookie = daemon.ask("/switch/green").head.get("Set-Cookie").partition(";")[0]
        assert heard(daemon, Cookie=f"theme=dark; {cookie}") == "green"
        assert heard(daemon) == "blue"
        assert heard(daemon, Cookie=cookie[:-1] + ("0" if cookie[-1] != "0" else "1")) == "blue"
        assert heard(daemon, Cookie=cookie.replace("preview", "conversation")) == "blue"
        assert "Max-Age=0" in daemon.ask("/switch/off").head.get("Set-Cookie")
        restarted(daemon)
        assert heard(daemon, Cookie=cookie) == "green", "the key that signs it outlives a restart"
        daemon.rewrite(yaml.safe_load(daemon.file.read_text()) | {"rollout": {"preview": False}})
        daemon.wait_event("config.reloaded")
        assert daemon.ask("/switch/green").status == 404
        assert heard(daemon, Cookie=cookie) == "blue"


def test_a_cookie_keeps_a_conversation_on_its_color(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green, rollout={"stick": "cookie"})
        first = daemon.ask(CHAT, chat())
        cookie = first.head.get("Set-Cookie").partition(";")[0]
        order(daemon, "switch?color=green")
        assert [heard(daemon, Cookie=cookie), heard(daemon)] == ["blue", "green"]


def test_what_a_color_adds_to_a_prompt_reaches_its_engines(tmp_path: Path, blue: ColorEngine, green: ColorEngine) -> None:
    with ExitStack() as stack:
        rollout = {"green": {"system": "Be brief.", "defaults": {"temperature": 0.25}}}
        daemon = started(stack, tmp_path, blue, green, rollout=rollout)
        body = {"model": "tiny", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]}
        for color in ("blue", "green"):
            assert color_of(ask(daemon.port, CHAT, body, headers={"X-Understudy-Color": color}).text) == color
        assert blue.seen.requests[-1].json()["messages"] == body["messages"]
        assert "temperature" not in blue.seen.requests[-1].json()
        given = green.seen.requests[-1].json()
        assert given["temperature"] == 0.25
        assert [message["role"] for message in given["messages"]] == ["system", "user"]
        assert re.fullmatch(r"Be brief\.\s+Be kind\.", given["messages"][0]["content"]), given
        daemon.ask(CHAT, body | {"temperature": 0.9}, headers={"X-Understudy-Color": "green"})
        assert green.seen.requests[-1].json()["temperature"] == 0.9


# The canary.


def test_a_canary_of_ten_percent_gets_about_that_and_the_same_ones_after_a_restart(
    tmp_path: Path, blue: ColorEngine, green: ColorEngine
) -> None:
    requests = [chat_request(session=f"session-{number}") for number in range(2000)]
    with ExitStack() as stack:
        daemon = started(stack, tmp_path, blue, green)
        status, said = command(daemon, "canary", "10%")
        assert status == 0, said

        def colors() -> list[str]:
            replies = ask_all(daemon.port, requests)
            assert {reply.status for reply in replies} == {200}
            return [color_of(reply.text) for reply in replies]

        first = colors()
        # Of 2000 at a tenth, 200 with a standard deviation of 13.4.
        assert 145 <= first.count("green") <= 255
        assert colors() == first
        restarted(daemon)
        # Nobody remembers them now.
        assert daemon.admin("/api/rollout").json()["canary"]["share"] == 0.1
        assert colors() == first
        assert command(daemon, "canary", "off")[0] == 0
        assert heard(daemon, session="new") == "blue"
