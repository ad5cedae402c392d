"""Plays of the data plane's hub: what is answered without a backend, who is let in, and how it stops."""

import json
from dataclasses import replace

import pytest

from support.answers import chunk, stream_head
from support.downstream_play import Play
from support.stage import OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import CHAT_PATH, DOWN, UP, target, targets
from support.transports import MemoryTransport, settle
from understudy.core.snapshot import Duty, FailoverRules, Limits, Model, ResumeRule, Timeouts
from understudy.dataplane.attempt import RunningAttempt
from understudy.errors import FailureKind

K = FailureKind


def status_of(client: MemoryTransport) -> int:
    """The status of the first answer."""
    return int(client.data.split(b" ")[1])


def body_of(client: MemoryTransport) -> bytes:
    """The body of the only answer."""
    return client.data.partition(b"\r\n\r\n")[2]


# --- what needs no backend


@pytest.mark.parametrize(("method", "body"), [("GET", b"OK\n"), ("HEAD", b"")])
async def test_daemon_says_that_it_lives_whatever_its_backends_do(
    monkeypatch: pytest.MonkeyPatch, method: str, body: bytes
) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    client = await stage.ask(request(method, "/healthz"))
    assert (status_of(client), body_of(client)) == (200, body)
    assert stage.records == []
    assert not client.is_closing()


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/ps"])
async def test_models_of_the_usable_backends_are_listed_without_asking_them(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def entries(name: str) -> Model:
        return Model(name, json.dumps({"id": name}), json.dumps({"name": name}), json.dumps({"name": name}))

    stage = Stage(
        monkeypatch,
        target(0, replace(UP, models=(entries("a"),))),
        target(1, replace(UP, models=(entries("a"), entries("b")))),
        target(2, replace(DOWN, models=(entries("c"),))),
        target(3, replace(UP, models=(entries("d"),), duty=Duty.MAINTENANCE)),
    )
    client = await stage.ask(request("GET", path))
    listed = json.loads(body_of(client))
    names = [entry.get("id") or entry["name"] for entry in listed.get("data", listed.get("models"))]
    assert names == ["a", "b"]
    assert stage.network.opened == {}
    stage.publish(target(0, replace(UP, models=(entries("e"),))))
    again = await stage.ask(request("GET", path))
    assert b'"e"' in body_of(again)


async def test_list_without_a_usable_backend_is_no_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2, DOWN))
    client = await stage.ask(request("GET", "/v1/models"))
    assert status_of(client) == 503
    assert b"Retry-After: 1\r\n" in client.data


@pytest.mark.parametrize("path", ["/api/pull", "/API//pull", "/api/%70ull", "/v1/../api/delete"])
async def test_path_that_manages_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("POST", path, b'{"model": "qwen"}'))
    assert status_of(client) == 403
    assert "allow_admin_paths" in json.loads(body_of(client))["error"]
    assert stage.network.opened == {}


@pytest.mark.parametrize(("path", "has_type"), [(CHAT_PATH, "error"), ("/v1/messages", "error"), ("/api/chat", "error")])
async def test_body_that_cannot_be_read_is_told_in_the_clients_dialect(
    monkeypatch: pytest.MonkeyPatch, path: str, has_type: str
) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("POST", path, b'{"model": '))
    assert status_of(client) == 400
    told = json.loads(body_of(client))
    assert has_type in told
    assert isinstance(told["error"], str) is path.startswith("/api")
    assert stage.network.opened == {}
    assert not client.is_closing()


@pytest.mark.parametrize(
    "wire", [b"junk\r\n\r\n", chat("Content-Length: 7"), request("POST", CHAT_PATH, b"", "Transfer-Encoding: x")]
)
async def test_request_that_is_none_is_told_and_noted(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(wire)
    assert (status_of(client), stage.record.status) == (400, 400)
    assert b"Connection: close\r\n" in client.data
    assert json.loads(body_of(client))["error"]["message"]


async def test_too_large_a_body_is_told_in_the_clients_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=FailoverRules(body_bytes_max=100))
    client = await stage.ask(request("POST", "/api/chat", b"x" * 101))
    assert status_of(client) == 413
    assert isinstance(json.loads(body_of(client))["error"], str)
    assert stage.record.path == "/api/chat"


async def test_clients_own_request_id_is_kept_and_others_are_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    own = await stage.ask(request("GET", "/v1/models", b"", "X-Request-ID: mine-1"))
    given = [await stage.ask(request("GET", "/v1/models")) for _ in range(2)]
    assert b"X-Request-ID: mine-1\r\n" in own.data
    ids = [record.request_id for record in stage.records]
    assert ids[0] == "mine-1"
    assert ids[1] != ids[2]
    assert all(f"X-Request-ID: {name}\r\n".encode() in client.data for name, client in zip(ids[1:], given, strict=True))


# --- what is relayed


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/messages", "/api/chat"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD"])
async def test_only_post_generates(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    """A browser asks with OPTIONS before it posts; the engine answers that, and nothing is repeated once sent."""
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(request(method, path))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert status_of(client) == 502
    assert 8001 not in stage.network.opened


async def test_path_that_nobody_knows_is_relayed_and_its_errors_are_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("GET", "/anything?a=b"))
    assert stage.engine(0).data.startswith(b"GET /anything?a=b HTTP/1.1\r\n")
    stage.engine(0).lose()
    await settle()
    assert json.loads(body_of(client))["error"]["code"] == "lost_before_head"


async def test_unknown_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(model="nobody-has-it"))
    assert status_of(client) == 404
    assert "nobody-has-it" in json.loads(body_of(client))["error"]["message"]


async def test_requests_on_one_connection_are_answered_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(stream=False) + request("GET", "/healthz"))
    body = b'{"choices": []}'
    await stage.say(0, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + body)
    assert client.data.count(b"HTTP/1.1 200 OK") == 2
    assert client.data.endswith(b"OK\n")


async def test_mistake_of_our_own_ends_one_exchange_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(stage.relay.pool, "connect", fail)
    client = await stage.ask(chat())
    assert status_of(client) == 500
    assert [str(error) for error in stage.errors] == ["ours"]
    assert stage.in_flight == 0
    assert not stage.relay.running
    assert status_of(await stage.ask(request("GET", "/healthz"))) == 200


# --- reloads


async def test_new_limits_hold_from_the_next_request_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    plan = replace(
        stage.published.current.plan,
        limits=Limits(waiting_max=7),
        timeouts=Timeouts(stall_s=1.0),
        failover=FailoverRules(budget=0.5, body_bytes_max=10),
        allow_admin_paths=True,
    )
    stage.published.current = replace(stage.published.current, plan=plan)
    stage.relay.on_published(stage.published.current)
    assert status_of(await stage.ask(chat())) == 413
    await stage.ask(request("POST", "/api/pull", b"{}"))
    assert stage.engine(0).data.startswith(b"POST /api/pull ")


async def test_running_exchange_keeps_its_backend_when_that_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    stage.publish(target(1))
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[2]
    assert stage.in_flight == 0


async def test_counts_of_removed_backends_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    stage.tally.of("gpu0").failures_total = 9
    stage.publish(target(1))
    assert stage.tally.of("gpu0").failures_total == 0


# --- stopping


async def test_stopping_daemon_refuses_new_requests_and_finishes_running_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    running, idle = await stage.ask(chat()), await stage.ask(request("GET", "/healthz"))
    stage.relay.stop_taking()
    assert idle.is_closing()
    late = await stage.ask(chat())
    assert status_of(late) == 503
    assert stage.records[-1].failure is K.STOPPING
    assert late.is_closing()
    await stage.say(0, stream_of("a"))
    assert dechunk(running.data)[2]
    assert running.is_closing()


async def test_stream_that_outlasts_the_drain_ends_in_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    streaming, waiting = await stage.ask(chat()), await stage.ask(chat())
    stage.engine(0, 0).feed(stream_head() + chunk(OPENING + delta("Hel")))
    stage.relay.stop_taking()
    stage.relay.stop()
    await settle()
    assert b"stream_interrupted" in streaming.data
    assert status_of(waiting) == 503
    assert not stage.relay.running
    assert stage.in_flight == 0
    assert all(transport.is_closing() for transport in stage.network.opened[8000])
    assert {record.failure for record in stage.records} == {K.STOPPING}


async def test_those_in_line_are_told_when_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    client = await stage.ask(chat())
    stage.relay.stop()
    await settle()
    assert status_of(client) == 503
    assert len(stage.relay.line) == 0


async def test_time_in_which_the_daemon_did_not_run_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(stall_s=5.0), failover=FailoverRules(resume=ResumeRule.OFF))
    client = await stage.ask(chat())
    await stage.say(0, stream_head() + chunk(OPENING + delta("Hel")))
    stage.clock.now_s += 100.0
    await settle()
    assert not client.is_closing()
    await stage.pass_time(6.0)
    assert stage.record.failure is K.STALLED


async def test_one_who_reads_no_answers_gets_no_further_ones() -> None:
    """Pipelined requests that are answered at once must not pile their answers up."""
    play = Play()
    play.connection.pause_writing()
    play.client.feed(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    await settle()
    assert len(play.host.taken) == 1
    play.connection.resume_writing()
    await settle()
    assert len(play.host.taken) == 50


async def test_exchanges_are_moved_away_from_a_backend_that_is_about_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    stage.relay.leave("gpu1")
    assert set(stage.network.opened) == {8000}
    stage.relay.leave("gpu0")
    await settle()
    assert stage.engine(0).is_closing()
    await stage.say(1, stream_of("hello"))
    assert b"hello" in client.data
    assert stage.record.attempts[0].failure is K.RESTARTING
    assert stage.observed == [("gpu1", None)]


async def test_whoever_measures_hears_of_every_attempts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gauge:
        def __init__(self) -> None:
            self.heard: list[tuple[str, FailureKind | None]] = []

        def on_attempt(self, attempt: RunningAttempt, kind: FailureKind | None, now_s: float) -> None:
            self.heard.append((attempt.name, kind))

    stage = Stage(monkeypatch, *targets(2))
    gauge = Gauge()
    stage.relay.gauges = (gauge,)
    await stage.ask(chat())
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await stage.say(1, stream_of("hello"))
    assert gauge.heard == [("gpu0", K.LOST_BEFORE_HEAD), ("gpu1", None)]
