"""An operator at the admin port and at the command line: what is shown is so, and what is said is done."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.answers import LAST_CHUNK, begun_stream, chunk, whole
from support.daemon import Daemon, backend, settings
from support.personas import openai_chat_events
from support.scripted import ScriptedEngine
from support.steps import Gate, hold, send
from support.waiting import until
from support.wire import Wire, chat, request_bytes, said
from understudy.telemetry.events import EVENTS

CHAT = "/v1/chat/completions"
TOKEN = {"Authorization": "Bearer open-sesame"}


@pytest.fixture
def pair(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> Iterator[Daemon]:
    """Run a daemon in front of gpu0 and gpu1, both up."""
    with Daemon(settings(backend(gpu0), backend(gpu1), failover={"hold": "200ms"}), tmp_path) as daemon:
        daemon.wait_condition("up")
        yield daemon


def command(daemon: Daemon, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run `understudy` as an operator does."""
    environment = {**os.environ, "UNDERSTUDY_ADMIN_TOKEN": token, "NO_COLOR": "1"}
    called = [sys.executable, "-m", "understudy", *words, "--admin", daemon.admin_url]
    return subprocess.run(called, capture_output=True, text=True, timeout=15, env=environment, check=False)


def post(daemon: Daemon, path: str, headers: Mapping[str, str] | None = None) -> int:
    """Post to the admin port and return the status."""
    return daemon.admin(path, method="POST", headers=headers).status


# Duties.


@pytest.mark.parametrize("duty", ["drain", "maintenance"])
def test_a_backend_taken_out_finishes_what_it_has_and_gets_nothing_new(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon, duty: str
) -> None:
    gate = Gate()
    events = openai_chat_events("good evening from gpu0")
    gpu0.then(begun_stream(events[:3], hold(gate), send(*map(chunk, events[3:]), LAST_CHUNK)))
    with Wire(pair.port) as wire:
        wire.send(request_bytes("POST", CHAT, chat(stream=True)))
        pieces = wire.read_pieces(wire.read_head())
        first = next(pieces)
        assert post(pair, f"/api/backends/gpu0/{duty}") == 200
        assert {pair.ask(body=chat()).backend for _ in range(5)} == {"gpu1"}
        shown = pair.status()["gpu0"]
        assert (shown["in_flight"], shown["duty"]) == (1, {"drain": "draining"}.get(duty, duty))
        gate.open()
        assert said(first + b"".join(pieces)) == "good evening from gpu0"
    pair.wait_idle()
    assert pair.status()["gpu0"]["failures_total"] == 0
    assert post(pair, "/api/backends/gpu0/ready") == 200
    until(lambda: pair.ask(body=chat()).backend == "gpu0", "gpu0 at work again")
    pair.wait_event("backend.changed_duty", backend="gpu0", duty="ready")
    told = [event["duty"] for event in pair.events("backend.changed_duty", backend="gpu0")]
    assert told == [{"drain": "draining"}.get(duty, duty), "ready"]


def test_a_backend_in_maintenance_is_not_probed_and_one_that_drains_is(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon
) -> None:
    assert post(pair, "/api/backends/gpu0/maintenance") == 200
    assert post(pair, "/api/backends/gpu1/drain") == 200
    # A probe that was under way may still end.
    gpu1.fresh()
    gpu1.wait_for(lambda seen: len(seen.probes) > 2)
    seen_before = len(gpu0.seen.probes)
    gpu1.fresh()
    gpu1.wait_for(lambda seen: len(seen.probes) > 6)
    assert len(gpu0.seen.probes) == seen_before
    assert post(pair, "/api/backends/gpu0/ready") == 200
    gpu0.wait_for(lambda seen: len(seen.probes) > seen_before)


def test_a_duty_survives_a_reload(gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon) -> None:
    assert post(pair, "/api/backends/gpu0/drain") == 200
    pair.rewrite(settings(backend(gpu0, weight=3), backend(gpu1)))
    until(lambda: pair.status()["gpu0"]["weight"] == 3, "the new weight")
    assert pair.status()["gpu0"]["duty"] == "draining"
    assert pair.ask(body=chat()).backend == "gpu1"


def test_with_every_backend_taken_out_clients_get_503_and_the_daemon_is_not_ready(
    gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon
) -> None:
    assert pair.admin("/readyz").json() == {"ready": True, "usable": ["gpu0", "gpu1"], "stopping": False, "backends": 2}
    for name in ("gpu0", "gpu1"):
        assert post(pair, f"/api/backends/{name}/drain") == 200
    reply = pair.ask(body=chat())
    assert (reply.status, reply.json()["error"]["code"]) == (503, "none_usable")
    assert int(reply.head.get("Retry-After")) >= 1
    assert pair.admin("/readyz").status == 503
    assert pair.ask("/healthz").status == 200
    assert not gpu0.seen.requests
    assert not gpu1.seen.requests
    assert post(pair, "/api/backends/gpu1/ready") == 200
    assert pair.ask(body=chat()).backend == "gpu1"
    assert pair.admin("/readyz").status == 200


def test_the_daemon_is_not_ready_while_nothing_is_up_and_recovers_by_itself(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    gpu0.refuse()
    with Daemon(settings(backend(gpu0), failover={"hold": "100ms"}), tmp_path) as daemon:
        daemon.wait_condition("down")
        assert daemon.admin("/readyz").status == 503
        assert daemon.ask(body=chat()).status in (502, 503)
        gpu0.listen()
        until(lambda: daemon.admin("/readyz").status == 200, "a ready daemon")
        assert daemon.ask(body=chat()).status == 200
        daemon.wait_event("pool.became_empty")
        daemon.wait_event("pool.recovered")


# The command line.


def test_the_commands_show_and_change_duties(gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon) -> None:
    pair.ask(body=chat())
    shown = command(pair, "status")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("gpu")] == ["gpu0", "gpu1"]
    status = json.loads(command(pair, "status", "--json").stdout)
    assert [entry["attempts_total"] for entry in status["backends"]] == [1, 0]
    for verb, duty in (("drain", "draining"), ("maintenance", "maintenance"), ("ready", "ready")):
        done = command(pair, verb, "gpu0")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("gpu0 ")
        assert pair.status()["gpu0"]["duty"] == duty
    unknown = command(pair, "drain", "gpu7")
    assert unknown.returncode == 1
    assert len(unknown.stderr.splitlines()) == 1
    assert "gpu7" in unknown.stderr


def test_the_reload_command_prints_what_changed_or_why_not(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0), balance="ordered"), tmp_path) as daemon:
        daemon.wait_condition("up")
        nothing = command(daemon, "reload")
        assert (nothing.returncode, nothing.stdout) == (0, "reloaded: nothing changed\n")
        daemon.rewrite(settings(backend(gpu0), backend(gpu1), balance="round_robin"))
        # The watcher may be the first to see it; then its event tells what the command no longer can.
        done = command(daemon, "reload")
        assert done.returncode == 0
        until(
            lambda: _changes(daemon) == {"backends: gpu1 added", "balance: ordered -> round_robin"},
            f"both changes told: {done.stdout}",
        )
        daemon.rewrite("backends: [{name: gpu0, url: 5}]")
        refused = command(daemon, "reload")
        assert refused.returncode == 1
        assert f"{daemon.file}:1:" in refused.stderr
        assert "backends[0].url" in refused.stderr
        assert list(daemon.status()) == ["gpu0", "gpu1"]


def _changes(daemon: Daemon) -> set[str]:
    return {line for event in daemon.events("config.reloaded") for line in event["changed"]}


def test_a_command_to_a_daemon_that_is_gone_says_so_in_one_line(pair: Daemon) -> None:
    pair.stop()
    for words in (["status"], ["reload"], ["drain", "gpu0"]):
        failed = command(pair, *words)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert len(failed.stderr.splitlines()) == 1
        assert pair.admin_url.removeprefix("http://") in failed.stderr


# What is told.


def test_metrics_count_what_happened(gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon) -> None:
    for _ in range(3):
        assert pair.ask(body=chat()).backend == "gpu0"
    gpu0.then(whole(500, {"error": "broken"}))
    assert pair.ask(body=chat()).backend == "gpu1"
    gpu0.then(whole(400, {"error": "not like this"}))
    assert pair.ask(body=chat()).status == 400
    # A scrape may be some seconds old, so that scraping costs little.
    until(lambda: pair.metric("understudy_exchanges_total") == 5, "five exchanges")
    assert pair.metric("understudy_exchanges_total", backend="gpu1") == 1
    assert pair.metric("understudy_attempts_total", backend="gpu0") == 5
    assert pair.metric("understudy_retries_total") == 1
    assert pair.metric("understudy_backend_condition", backend="gpu0", condition="up") == 1
    assert pair.metric("understudy_backend_condition", backend="gpu0", condition="down") == 0
    assert pair.metric("understudy_backend_in_flight") == 0
    assert pair.metric("understudy_first_content_seconds_count") >= 4
    families = list(text_string_to_metric_families(pair.admin("/metrics").body.decode()))
    assert all(family.documentation for family in families)
    assert all(family.name.startswith(("understudy", "process", "python")) for family in families)


def test_events_reach_every_listener_as_they_happen(gpu0: ScriptedEngine, gpu1: ScriptedEngine, pair: Daemon) -> None:
    with Wire(pair.admin_port) as one, Wire(pair.admin_port) as other:
        listeners = [one, other]
        for listener in listeners:
            listener.send(request_bytes("GET", "/api/events"))
            head = listener.read_head()
            assert (head.status, head.get("Content-Type")) == (200, "text/event-stream")
            listener.read_until(b"retry: 2000\n\n")
        pair.ask(body=chat("a secret"), headers={"X-Request-ID": "mine"})
        post(pair, "/api/backends/gpu0/drain")
        for listener in listeners:
            told = b""
            while b"backend.changed_duty" not in told or not told.endswith(b"\n\n"):
                told += listener.read_until(b"\n\n")
            events = dict(_events(told))
            assert set(events) <= set(EVENTS)
            assert (events["exchange.finished"]["request_id"], events["exchange.finished"]["backend"]) == ("mine", "gpu0")
            assert (events["backend.changed_duty"]["backend"], events["backend.changed_duty"]["duty"]) == ("gpu0", "draining")
            assert b"secret" not in told
        pair.send_signal(signal.SIGTERM)
        assert all(listener.read_to_end() is not None for listener in listeners)
        assert pair.wait_ended() == 0


def _events(told: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and data of each event in a chunked stream of them."""
    name = ""
    for raw in told.splitlines():
        if raw.startswith(b"event: "):
            name = raw[7:].decode()
        elif raw.startswith(b"data: "):
            yield name, json.loads(raw[6:])


# Who may ask.


def test_with_a_token_only_who_has_it_is_answered(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(gpu0), admin={"token": "${ADMIN_SECRET}"})
    with Daemon(wanted, tmp_path, environment={"ADMIN_SECRET": "open-sesame"}) as daemon:
        until(lambda: daemon.admin("/readyz").status == 200, "a ready daemon")
        assert daemon.admin("/readyz").json() == {"ready": True}
        assert daemon.admin("/healthz").status == 200
        paths = ("/", "/metrics", "/api/status", "/api/events", "/api/openapi.json")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic open-sesame"}):
            replies = [daemon.admin(path, headers=headers) for path in paths]
            assert {reply.status for reply in replies} == {401}
            assert all("Bearer" in reply.head.get("WWW-Authenticate") for reply in replies)
            assert post(daemon, "/api/reload", headers) == 401
            assert post(daemon, "/api/backends/gpu0/drain", headers) == 401
        assert daemon.admin("/api/status", headers=TOKEN).json()["backends"][0]["duty"] == "ready"
        assert post(daemon, "/api/backends/gpu0/drain", TOKEN) == 200
        assert command(daemon, "status", token="open-sesame").returncode == 0
        refused = command(daemon, "ready", "gpu0", token="wrong")
        assert refused.returncode == 1
        assert "token" in refused.stderr.lower()
        assert "open-sesame" not in "\n".join(daemon.log)


def test_a_web_page_of_another_site_cannot_act(pair: Daemon) -> None:
    foreign = (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
        {"Origin": "null"},
    )
    for headers in foreign:
        assert post(pair, "/api/backends/gpu0/drain", headers) == 403
    assert pair.admin("/api/status", headers={"Host": "evil.example:9901"}).status == 403
    assert pair.status()["gpu0"]["duty"] == "ready"


# The description.


def test_real_answers_are_as_the_openapi_document_says(gpu0: ScriptedEngine, tmp_path: Path) -> None:
    with Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        daemon.wait_condition("up")
        document = daemon.admin("/api/openapi.json").json()
        cases = [
            ("get", "/", "/", 200),
            ("get", "/healthz", "/healthz", 200),
            ("get", "/readyz", "/readyz", 200),
            ("get", "/metrics", "/metrics", 200),
            ("get", "/api/status", "/api/status", 200),
            ("get", "/api/openapi.json", "/api/openapi.json", 200),
            ("post", "/api/reload", "/api/reload", 200),
            ("get", "/api/status", "/api/status", 200),
            *(("post", "/api/backends/{name}/" + verb, f"/api/backends/gpu0/{verb}", 200) for verb in ("drain", "maintenance")),
            ("get", "/readyz", "/readyz", 503),
            ("post", "/api/backends/{name}/ready", "/api/backends/gpu0/ready", 200),
            ("post", "/api/backends/{name}/ready", "/api/backends/gpu7/ready", 404),
        ]
        for method, path, target, status in cases:
            _check(document, method, path, daemon.admin(target, method=method.upper()), status)
        daemon.rewrite("backends: []")
        _check(document, "post", "/api/reload", daemon.admin("/api/reload", method="POST"), 422)
        _check(document, "get", "/api/status", daemon.admin("/api/status"), 200)
        _check(document, "get", "/api/status", daemon.admin("/api/status", headers={"Host": "evil.example"}), 403)
        assert daemon.admin("/api/nothing").status == 404
        assert daemon.admin("/api/status", method="DELETE").status == 405


def _check(document: dict[str, Any], method: str, path: str, reply: Any, status: int) -> None:
    """Hold one answer against what the document says of it."""
    assert reply.status == status, (method, path, reply)
    ((content_type, described),) = document["paths"][path][method]["responses"][str(status)]["content"].items()
    assert reply.head.get("Content-Type").partition(";")[0] == content_type.partition(";")[0]
    if "schema" in described:
        jsonschema.Draft202012Validator({**described["schema"], "components": document["components"]}).validate(reply.json())
