"""Keeping backends well, over the wire: processes that hang, crash and refuse to end, and what clients, log and people see."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.alive import is_alive
from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.day_cast import Actor, Crowd, Mailman, actors, open_mailman, texts_of, upkeep_daemon
from support.scripted import ScriptedEngine
from support.steps import Gate, answer, hold
from support.waiting import until
from support.wire import chat

MAC = "aa:bb:cc:dd:ee:ff"
HOOK_SECRET = "HOOKSECRET01"
# A child that takes no notice of SIGTERM.
STUBBORN = ["sh", "-c", 'trap "" TERM; "$@" & wait; wait', "sh"]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Actor]]:
    """Cast two engines; neither runs."""
    with actors(tmp_path, "gpu0", "gpu1") as made:
        yield made


@pytest.fixture
def mailman() -> Iterator[Mailman]:
    """Run a webhook for alerts."""
    with open_mailman() as one:
        yield one


def command(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `understudy WORDS` against the daemon."""
    argv = [sys.executable, "-m", "understudy", *words, "--admin", daemon.admin_url]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def story(daemon: Daemon, name: str) -> list[str]:
    """Return the names of what was told of restarting that backend, in order."""
    return [event["event"] for event in daemon.events(backend=name) if event["event"].startswith("restart.")]


def stubborn(actor: Actor) -> dict[str, Any]:
    """Write the entry of a child that ends only by SIGKILL."""
    return actor.entry("run", restart={"run": [*STUBBORN, *actor.argv]})


def test_one_that_hangs_and_one_that_generates_nothing_are_restarted_one_after_the_other_and_told_of_once(
    tmp_path: Path, mailman: Mailman
) -> None:
    """Streams on them go on elsewhere; traffic comes back after one token. gpu1's health check says yes all the time."""
    with actors(tmp_path, "gpu0", "gpu1", "spare") as (gpu0, gpu1, spare):
        gpu0.start()
        barren_one = gpu1.entry("run", health={"generate": "suspicious"})
        entries = gpu0.entry("command"), barren_one, spare.entry("run", role="backup")
        daemon = upkeep_daemon(tmp_path, *entries, balance="round_robin", alerts=[{"url": mailman.url}])
        with daemon:
            daemon.wait_condition("up")
            with Crowd(daemon, texts_of(gpu0), clients=6, seed=1) as crowd:
                crowd.wait_answers(5, "gpu0")
                crowd.wait_answers(5, "gpu1")
                before = gpu0.pid, gpu1.pid
                gpu0.signal(signal.SIGSTOP)
                gpu1.mood("barren")
                crowd.wait_answers(10, "spare", timeout_s=20)
                for name in ("gpu0", "gpu1"):
                    done = daemon.wait_event("restart.succeeded", backend=name, timeout_s=30)
                    assert done["first_content_s"] > 0
                    crowd.wait_answers(5, name)
                until(lambda: mailman.mails, "a message", timeout_s=20)
    assert not crowd.lost, crowd.lost[:3]
    assert crowd.resumed, "streams went on elsewhere"
    assert [pid for pid in before if is_alive(pid)] == []
    assert daemon.events("backend.failed_generation", backend="gpu1")
    order = [event["event"] for event in daemon.events() if event["event"].startswith("restart.")]
    assert order == ["restart.started", "restart.succeeded"] * 2
    assert [len(story(daemon, name)) for name in ("gpu0", "gpu1", "spare")] == [2, 2, 0]
    assert len(mailman.mails) == 1, mailman.mails


def test_a_child_is_started_restarted_at_once_when_killed_and_on_an_operators_word_without_a_request_lost(
    tmp_path: Path, pair: list[Actor]
) -> None:
    gpu0, gpu1 = pair
    with upkeep_daemon(tmp_path, stubborn(gpu0), gpu1.entry("run", role="backup")) as daemon:
        daemon.wait_condition("up")
        with Crowd(daemon, texts_of(gpu1), clients=6, seed=2) as crowd:
            crowd.wait_answers(10, "gpu0")
            # From outside, the whole child: its leader has no use of SIGTERM.
            killed = daemon.events("child.started", backend="gpu0")[0]["pid"]
            os.killpg(killed, signal.SIGKILL)
            daemon.wait_event("restart.started", backend="gpu0", cause="exited", timeout_s=1.0)
            daemon.wait_event("restart.succeeded", backend="gpu0")
            crowd.wait_answers(10, "gpu0")
            stubborn_one = gpu0.pid
            asked = command(daemon, "restart", "gpu0")
            assert asked.returncode == 0, asked
            again = command(daemon, "restart", "gpu1")
            assert again.returncode == 1, "one of a color at a time"
            assert "gpu0 is being restarted" in again.stderr
            until(lambda: story(daemon, "gpu0").count("restart.succeeded") == 2, "restarted on the operator's word")
            crowd.wait_answers(10, "gpu0")
        assert not crowd.lost, crowd.lost[:3]
        assert not is_alive(stubborn_one)
        assert daemon.status()["gpu0"]["restart"]["phase"] == "watching"
        last = gpu0.pid, gpu1.pid
        assert daemon.stop() == 0
        assert [pid for pid in last if is_alive(pid)] == []
    assert story(daemon, "gpu0") == ["restart.started", "restart.succeeded"] * 2
    assert [event["cause"] for event in daemon.events("restart.started")] == ["exited", "operator"]


@pytest.mark.parametrize("status", [404, 401, 200])
def test_a_stranger_on_a_child_s_port_is_no_recovery_but_a_matter_for_a_person(tmp_path: Path, status: int) -> None:
    """However it answers, a key that it wants included: the child itself does not run."""
    with ScriptedEngine("gpu0", engine="openai") as stranger, ScriptedEngine("gpu1") as gpu1:
        if status != 200:
            stranger.on("/v1/models", whole(status))
            stranger.always(whole(status))
        restart = {"run": ["sleep", "1000"], "max": "2 per 1h", "backoff": "100ms", "ready": "5s"}
        entry = backend(stranger, "auto", restart=restart)
        with upkeep_daemon(tmp_path, entry, backend(gpu1, role="backup")) as daemon:
            daemon.wait_condition("up", "gpu1")
            assert daemon.ask(body=chat()).backend == "gpu1"
            told = daemon.wait_event("restart.gave_up", backend="gpu0", timeout_s=20.0)
            assert told["reason"] == f"port {stranger.port} is taken by another process"
            assert daemon.ask(body=chat()).backend == "gpu1"
            assert daemon.events("child.started", backend="gpu0") == []
            assert not {"restart.succeeded", "restart.recovered"} & set(story(daemon, "gpu0"))
            status_told = daemon.status()["gpu0"]
            assert (status_told["restart"]["phase"], status_told["restart"]["times"]) == ("gave_up", 2)


def test_a_child_that_outlives_a_killed_daemon_is_ended_by_the_next_one_which_has_its_port_then(
    tmp_path: Path, pair: list[Actor]
) -> None:
    gpu0, gpu1 = pair
    entries = stubborn(gpu0), gpu1.entry("run", role="backup")
    with upkeep_daemon(tmp_path, *entries) as daemon:
        daemon.wait_condition("up", "gpu0")
        left = daemon.events("child.started", backend="gpu0")[0]["pid"]
        daemon.send_signal(signal.SIGKILL)
        until(lambda: not is_alive(gpu1.pid), "a child ends with a daemon that is killed")
        assert is_alive(left), "it has no use of SIGTERM"
    with upkeep_daemon(tmp_path, *entries) as later:
        told = later.wait_event("child.was_left", backend="gpu0", pid=left)
        assert (told["ended"], is_alive(left)) == (True, False)
        until(lambda: later.ask(body=chat()).backend == "gpu0", "its own one answers")
        assert later.events("child.started", backend="gpu0")[0]["pid"] != left
        assert later.events("restart.started") == [], "its port was free"


def test_a_child_that_crashes_at_every_start_is_given_up_and_stays_so_over_a_restart_of_the_daemon(
    tmp_path: Path, pair: list[Actor], mailman: Mailman
) -> None:
    gpu0, gpu1 = pair
    entry = gpu0.entry("run", restart={"max": "3 per 1h", "backoff": "100ms"})
    wanted = {"alerts": [{"url": mailman.url, "events": ["restart.gave_up"]}]}
    with upkeep_daemon(tmp_path, entry, gpu1.entry("run", role="backup"), **wanted) as daemon:
        daemon.wait_condition("up")
        gpu0.mood("broken")
        gpu0.signal(signal.SIGKILL)
        gave_up = daemon.wait_event("restart.gave_up", backend="gpu0")
        assert (gave_up["times"], "exit status 3" in gave_up["reason"]) == (3, True), gave_up
        failed = daemon.events("restart.failed", backend="gpu0")
        assert [event["nth"] for event in daemon.events("restart.started")] == [1, 2, 3]
        assert all(event["exit_status"] == 3 and event["output"][-1] == "CUDA error: no device" for event in failed), failed
        pauses = [event["next_in_s"] for event in failed]
        assert pauses[0] < pauses[1], pauses
        assert daemon.ask(body=chat()).backend == "gpu1"
        until(lambda: mailman.mails, "a person is called", timeout_s=15)
        assert daemon.stop() == 0
    assert len(mailman.about("gpu0")) == 1, mailman.subjects
    with upkeep_daemon(tmp_path, entry, gpu1.entry("run", role="backup"), **wanted) as later:
        later.wait_condition("up", "gpu1")
        assert later.ask(body=chat()).backend == "gpu1"
        # A new daemon's log says, too, why it is not restarted.
        later.wait_event("restart.gave_up", backend="gpu0")
        status = later.status()["gpu0"]
        assert (status["restart"]["phase"], status["restarting"]) == ("gave_up", False)
        assert later.events("restart.started") == []
        gpu0.mood("")
        asked = command(later, "restart", "gpu0")
        assert asked.returncode == 0, asked
        later.wait_event("restart.succeeded", backend="gpu0")
        assert later.ask(body=chat()).backend == "gpu0"
        last = gpu0.pid, gpu1.pid
        later.send_signal(signal.SIGKILL)
        until(lambda: not any(map(is_alive, last)), "children end with a daemon that is killed", timeout_s=5)
    assert story(later, "gpu0") == ["restart.gave_up", "restart.started", "restart.succeeded"]


def test_one_that_was_given_up_gets_no_request_from_the_next_daemon_before_it_generates_again(
    tmp_path: Path, pair: list[Actor]
) -> None:
    """Its health check says yes all the time."""
    gpu0, gpu1 = pair
    entry = gpu0.entry("command", restart={"command": ["true"], "max": "1 per 1h", "ready": "1s"})
    entries = entry, gpu1.entry("run", role="backup")
    gpu0.start()
    with upkeep_daemon(tmp_path, *entries) as daemon:
        daemon.wait_condition("up")
        gpu0.mood("barren")
        assert command(daemon, "restart", "gpu0").returncode == 0
        daemon.wait_event("restart.gave_up", backend="gpu0")
    with upkeep_daemon(tmp_path, *entries) as later:
        for name in ("gpu0", "gpu1"):
            later.wait_condition("up", name)
        assert later.ask(body=chat()).backend == "gpu1"
        gave_up = later.wait_event("restart.gave_up", backend="gpu0")
        assert (gave_up["taken_out"], "generates nothing" in gave_up["reason"]) == (True, True), gave_up
        status = later.status()["gpu0"]
        assert (status["attempts_total"], status["restarting"]) == (0, False)
        assert (status["condition"], status["reason"]) == ("up", "gets no request before it has generated a token")
        assert "up, restarts have not helped" in command(later, "status").stdout
    gpu0.mood("")
    with upkeep_daemon(tmp_path, *entries) as last:
        last.wait_event("restart.recovered", backend="gpu0")
        assert last.ask(body=chat()).backend == "gpu0"
        status = last.status()["gpu0"]
        assert (status["reason"], status["restart"]["phase"], status["restart"]["reason"]) == ("", "gave_up", "")
        assert "restarts have not helped" not in command(last, "status").stdout
    assert story(later, "gpu0") + story(last, "gpu0") == ["restart.gave_up", "restart.recovered"]


def test_a_command_that_fails_is_told_with_its_exit_status_and_last_lines(tmp_path: Path, gpu0: ScriptedEngine) -> None:
    failing = ["sh", "-c", "echo begun; echo no such unit >&2; exit 7"]
    with upkeep_daemon(tmp_path, backend(gpu0, restart={"command": failing, "backoff": "10s"})) as daemon:
        daemon.wait_condition("up")
        assert command(daemon, "restart", "gpu0").returncode == 0
        failed = daemon.wait_event("restart.failed")
        assert (failed["exit_status"], failed["output"]) == (7, ["begun", "no such unit"])
        # Nothing ails it, so that it goes on without another.
        daemon.wait_event("restart.recovered")
        assert daemon.ask(body=chat()).status == 200
        assert story(daemon, "gpu0") == ["restart.started", "restart.failed", "restart.recovered"]


def test_a_hook_gets_one_post_and_its_url_reaches_no_log(tmp_path: Path, gpu0: ScriptedEngine, gpu1: ScriptedEngine) -> None:
    """The other engine's port plays the machine that restarts."""
    gpu1.always(whole(202))
    hook = f"{gpu1.url}/restart?token={HOOK_SECRET}"
    with upkeep_daemon(tmp_path, backend(gpu0, restart={"http": hook})) as daemon:
        daemon.wait_condition("up")
        assert command(daemon, "restart", "gpu0").returncode == 0
        daemon.wait_event("restart.succeeded")
        gpu1.always(whole(500, {"error": "no"}))
        assert command(daemon, "restart", "gpu0").returncode == 0
        assert "500" in daemon.wait_event("restart.failed")["reason"]
    assert [(seen.method, seen.path) for seen in gpu1.seen.requests] == [("POST", "/restart")] * 2
    assert HOOK_SECRET not in "".join(daemon.log)


def test_a_model_is_loaded_at_the_start_and_after_a_restart(tmp_path: Path) -> None:
    def loads() -> int:
        told = [seen.json() for seen in ollama.seen.requests if seen.path in ("/api/generate", "/api/chat")]
        return sum("keep_alive" in each and not each.get("prompt") and not each.get("messages") for each in told)

    with ScriptedEngine("pi", engine="ollama") as ollama:
        ollama.on("/api/ps", whole(200, {"models": []}))
        restart = {"command": ["true"], "after": 1, "backoff": "200ms"}
        with upkeep_daemon(tmp_path, backend(ollama, "ollama", warm=["tiny"], restart=restart)) as daemon:
            until(lambda: loads() == 1, "loaded at the start")
            ollama.on("/api/ps", None)
            daemon.wait_event("backend.warmed", backend="pi", model="tiny")
            until(lambda: daemon.status()["pi"]["warm"]["is_warm"], "shown as warm")
            ollama.refuse()
            ollama.on("/api/ps", whole(200, {"models": []}))
            daemon.wait_event("restart.started", backend="pi", cause="probes")
            ollama.listen()
            until(lambda: loads() == 2, "loaded after the restart")


def test_the_understudy_answers_until_the_primary_that_is_back_has_its_model_loaded(tmp_path: Path) -> None:
    def ask() -> str:
        return daemon.ask(body=chat()).backend

    warm = {"warm": ["tiny"]}
    with (
        ScriptedEngine("pi", engine="ollama") as pi,
        ScriptedEngine("laptop", engine="ollama") as laptop,
        upkeep_daemon(tmp_path, backend(pi, "ollama", **warm), backend(laptop, "ollama", role="backup", **warm)) as daemon,
    ):
        daemon.wait_condition("up")
        assert ask() == "pi"
        pi.refuse()
        pi.drop_connections()
        daemon.wait_condition("down", "pi")
        pi.on("/api/ps", whole(200, {"models": []}))
        loading = Gate()
        pi.always(answer(hold(loading), *whole(200, {"model": "tiny", "response": "", "done": True}).steps))
        pi.listen()
        daemon.wait_condition("up", "pi")
        loading.wait_reached()
        assert {ask() for _ in range(5)} == {"laptop"}
        pi.on("/api/ps", None)
        pi.always(None)
        loading.open()
        until(lambda: ask() == "pi", "it is warm")
        daemon.wait_event("backend.warmed", backend="pi")


def test_a_machine_that_sleeps_is_woken_when_it_is_wanted_and_not_otherwise(
    tmp_path: Path, gpu0: ScriptedEngine, gpu1: ScriptedEngine
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ears:
        ears.bind(("127.0.0.1", 0))
        ears.settimeout(1.5)
        wake = {"mac": MAC, "address": "127.0.0.1", "port": ears.getsockname()[1]}
        with upkeep_daemon(tmp_path, backend(gpu0, wake=wake), backend(gpu1, role="backup")) as daemon:
            daemon.wait_condition("up")
            gpu0.refuse()
            daemon.wait_condition("down", "gpu0")
            with pytest.raises(TimeoutError):
                ears.recv(2048)
            assert daemon.ask(body=chat()).backend == "gpu1"
            ears.settimeout(5)
            assert ears.recv(2048) == b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) * 16
            gpu0.listen()
            daemon.wait_condition("up")
            assert daemon.ask(body=chat()).backend == "gpu0"
            daemon.wait_event("backend.was_woken", backend="gpu0")


def test_a_promise_that_breaks_and_holds_again_is_told(tmp_path: Path, gpu0: ScriptedEngine) -> None:
    wanted = {"slo": {"errors": "50%", "window": "10s"}, "failover": {"hold": "100ms"}}
    with upkeep_daemon(tmp_path, backend(gpu0, health={"max_fails": 0}), **wanted) as daemon:
        daemon.wait_condition("up")
        gpu0.always(whole(500, {"error": {"message": "no"}}))
        for _ in range(40):
            daemon.ask(body=chat())
        broken = daemon.wait_event("slo.was_broken", objective="errors")
        assert broken["value"] > 0.5
        gpu0.always(None)

        def is_restored() -> bool:
            daemon.ask(body=chat())
            return bool(daemon.events("slo.was_restored", objective="errors"))

        until(is_restored, "restored", timeout_s=40)


def test_alerts_and_restarts_come_and_go_with_the_file(tmp_path: Path, gpu0: ScriptedEngine, mailman: Mailman) -> None:
    plain = settings(backend(gpu0))
    with Daemon(plain, tmp_path) as daemon:
        daemon.wait_condition("up")
        assert command(daemon, "alert", "test").returncode == 1
        refused = command(daemon, "restart", "gpu0")
        assert (refused.returncode, "restart:" in refused.stderr) == (1, True), refused
        daemon.rewrite(settings(backend(gpu0, restart={"command": ["true"]}), alerts=[{"url": mailman.url}]))
        daemon.hang_up()
        until(lambda: daemon.status()["gpu0"]["restart"], "a way to restart it")
        told = command(daemon, "alert", "test")
        assert told.returncode == 0, told
        assert mailman.subjects == ["Understudy: test"]
        assert command(daemon, "restart", "gpu0").returncode == 0
        daemon.wait_event("restart.succeeded", backend="gpu0")
        daemon.rewrite(plain)
        daemon.hang_up()
        until(lambda: not daemon.status()["gpu0"]["restart"], "no way to restart it")
        assert command(daemon, "alert", "test").returncode == 1
        assert command(daemon, "restart", "gpu0").returncode == 1
        assert daemon.ask(body=chat()).status == 200
