"""The file of a running daemon is changed in every way files are changed: taken whole or refused whole, and no request fails."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.answers import LAST_CHUNK, begun_stream, chunk
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat_events
from support.scripted import ScriptedEngine
from support.steps import Gate, hold, send
from support.waiting import until
from support.wire import Wire, chat, request_bytes, said

RELOADS = 50
REQUESTS = 10_000
CLIENTS = 4


@pytest.fixture
def daemon(gpu0: ScriptedEngine, tmp_path: Path) -> Iterator[Daemon]:
    """Run a daemon in front of gpu0, which weighs 1."""
    with Daemon(weighing(gpu0, 1), tmp_path) as daemon:
        daemon.wait_condition("up")
        yield daemon


def weighing(engine: ScriptedEngine, weight: int) -> dict[str, Any]:
    """Write a file that differs in one number."""
    return settings(backend(engine, weight=weight))


def wait_weight(daemon: Daemon, weight: int) -> None:
    """Return once the backend weighs this much."""
    until(lambda: daemon.status()["gpu0"]["weight"] == weight, f"weight {weight}; {daemon.log[-3:]}")


def test_a_changed_file_is_taken_without_being_asked(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    daemon.rewrite(weighing(gpu0, 2))
    wait_weight(daemon, 2)
    assert daemon.wait_event("config.reloaded")["changed"] == ["backends.gpu0.weight: 1 -> 2"]
    assert daemon.status()["gpu0"]["condition"] == "up"


def test_a_file_written_in_place_is_taken_when_it_is_whole(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    """Editors that do not rename leave half a file for a moment."""
    text = yaml.safe_dump(weighing(gpu0, 3))
    with daemon.file.open("w") as file:
        for start in range(0, len(text), 20):
            file.write(text[start : start + 20])
            file.flush()
    wait_weight(daemon, 3)


WRONG = {
    "no YAML": "backends: [",
    "half a file": "listen: 127.0.0.1:0\nbackends:\n  - name: gpu0\n    ur",
    "empty": "",
    "a mistake": "backends: [{name: gpu0, url: gpu0}]",
    "an unknown key": "backends: [{name: gpu0, url: 'http://a', wieght: 2}]",
    "no text": "\x00\x01\x02",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_once_and_the_old_settings_go_on(gpu0: ScriptedEngine, daemon: Daemon, case: str) -> None:
    daemon.rewrite(WRONG[case])
    refused = daemon.wait_event("config.refused")
    assert refused["mistakes"]
    assert all(str(daemon.file) in mistake for mistake in refused["mistakes"])
    assert daemon.ask(body=chat()).text == "good evening from gpu0"
    status = daemon.admin("/api/status").json()
    assert (status["reload"]["ok"], status["reload"]["mistakes"]) == (False, refused["mistakes"])
    daemon.rewrite(weighing(gpu0, 4))
    wait_weight(daemon, 4)
    assert len(daemon.events("config.refused")) == 1


def test_a_deleted_file_is_told_and_taken_when_it_is_back(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    daemon.file.unlink()
    daemon.wait_event("config.refused")
    assert daemon.ask(body=chat()).status == 200
    daemon.rewrite(weighing(gpu0, 5))
    wait_weight(daemon, 5)


def test_a_file_that_became_a_folder_is_told_and_taken_when_it_is_back(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    """What no user may read, an administrator may: a folder is unreadable to both."""
    daemon.file.unlink()
    daemon.file.mkdir()
    until(lambda: daemon.events("config.refused"), "a refusal")
    assert daemon.ask(body=chat()).status == 200
    daemon.file.rmdir()
    daemon.rewrite(weighing(gpu0, 6))
    wait_weight(daemon, 6)


def test_a_swapped_link_to_a_folder_is_followed(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as FILE -> ..data/FILE, and swaps ..data -> ..TIMESTAMP by a rename."""
    daemon = Daemon(weighing(gpu0, 1), tmp_path)
    name = daemon.file.name

    def publish(version: str, weight: int) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / name).write_text(yaml.safe_dump(weighing(gpu0, weight)))
        fresh = tmp_path / "..data_tmp"
        fresh.symlink_to(folder.name)
        fresh.replace(tmp_path / "..data")

    publish("first", 1)
    daemon.file.unlink()
    daemon.file.symlink_to(Path("..data") / name)
    with daemon:
        for weight in (2, 3, 4):
            publish(str(weight), weight)
            wait_weight(daemon, weight)
    assert not daemon.events("config.refused")


def test_a_file_changed_a_hundred_times_ends_as_it_was_left(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    for number in range(100):
        daemon.rewrite(weighing(gpu0, 10 + number) if number % 3 else "backends: [")
    daemon.rewrite(weighing(gpu0, 200))
    wait_weight(daemon, 200)
    told = len(daemon.events("config.refused")) + len(daemon.events("config.reloaded"))
    assert told <= 10, "a burst is one change"
    assert daemon.ask(body=chat()).status == 200


def test_what_needs_a_restart_is_named_and_the_rest_is_taken(gpu0: ScriptedEngine, daemon: Daemon) -> None:
    wanted = weighing(gpu0, 7) | {"listen": "127.0.0.1:1", "log": {"format": "console"}}
    wanted["admin"] = {"listen": "127.0.0.1:2", "token": "secret"}
    daemon.rewrite(wanted)
    wait_weight(daemon, 7)
    daemon.hang_up()
    told = daemon.wait_event("config.reloaded", trigger="SIGHUP")
    assert set(told["needs_restart"]) == {"listen", "admin.listen", "admin.token", "log.format"}
    assert set(daemon.admin("/api/status").json()["reload"]["needs_restart"]) == set(told["needs_restart"])
    assert "secret" not in "\n".join(daemon.log)
    assert daemon.ask(body=chat()).status == 200


def test_a_backend_removed_in_the_middle_of_its_answer_finishes_it(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    gate = Gate()
    events = openai_chat_events("good evening from gpu0")
    gpu0.always(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with Daemon(settings(backend(gpu0), backend(gpu1)), tmp_path) as daemon, Wire(daemon.port) as wire:
        daemon.wait_condition("up")
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        head = wire.read_head()
        pieces = wire.read_pieces(head)
        first = next(pieces)
        daemon.rewrite(settings(backend(gpu1)))
        until(lambda: list(daemon.status()) == ["gpu1"], "gpu0 removed")
        assert daemon.ask(body=chat()).backend == "gpu1"
        gate.open()
        assert said(first + b"".join(pieces)) == "good evening from gpu0"
        assert head.get("X-Understudy-Backend") == "gpu0"
        # Its connections are given up with it.
        gpu0.wait_for(lambda seen: seen.connections_open == 0)


def test_no_request_fails_during_fifty_reloads(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    """Backends are added, removed and put in another order while ten thousand requests run."""
    files = [
        settings(backend(gpu0), backend(gpu1)),
        settings(backend(gpu1)),
        settings(backend(gpu1, weight=2), backend(gpu0), balance="round_robin"),
        settings(backend(gpu0)),
    ]
    asked = request_bytes("POST", "/v1/chat/completions", chat())
    done = [0] * CLIENTS
    failed: list[str] = []

    def be_a_client(number: int, port: int) -> None:
        with Wire(port) as wire:
            while done[number] < REQUESTS // CLIENTS and not failed:
                wire.send(asked)
                reply = wire.read_reply()
                if reply.status != 200 or not reply.text.startswith("good evening from gpu"):
                    failed.append(repr(reply))
                done[number] += 1

    with Daemon(files[0], tmp_path) as daemon:
        daemon.wait_condition("up")
        clients = [threading.Thread(target=be_a_client, args=(number, daemon.port)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for number in range(1, RELOADS + 1):
            due = number * REQUESTS // (RELOADS + 1)
            until(lambda due=due: sum(done) >= due or failed, "the next share of requests", timeout_s=20.0)  # type: ignore[misc]  # a loop's value bound as a default
            daemon.rewrite(files[number % len(files)])
            daemon.send_signal(signal.SIGHUP)
        for client in clients:
            client.join(20.0)
        assert not failed, failed[:3]
        assert sum(done) == REQUESTS
        daemon.wait_idle()
        assert len(daemon.events("config.reloaded")) >= RELOADS // 2
        assert not daemon.events("config.refused")
        assert {event["status"] for event in daemon.events("exchange.finished")} == {200}
