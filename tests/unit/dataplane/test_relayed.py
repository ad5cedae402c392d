"""Plays of one exchange on its way: attempts, waits and deadlines carried out as decided, and nothing left behind."""

import json

import pytest

from support.answers import LAST_CHUNK, chunk, head_bytes, stream_head
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import DOWN, target, targets
from support.transports import settle
from understudy.core.snapshot import HealthRules, Limits
from understudy.errors import FailureKind

K = FailureKind
BEGUN = stream_head() + chunk(OPENING + delta("Hel"))
REST = chunk(delta("lo") + FINISH + DONE) + LAST_CHUNK


def reply(status: int, body: bytes = b"{}", **fields: str) -> bytes:
    """Write an answer with a length."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return head_bytes(status, {"Content-Type": "application/json", **more, "Content-Length": str(len(body))}) + body


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


# --- connections to backends


async def test_connection_is_used_again_for_the_next_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    for _ in range(3):
        client = await stage.ask(chat())
        await stage.say(0, stream_of("a"))
        assert dechunk(client.data)[2]
    assert len(stage.network.opened[8000]) == 1


async def test_request_that_may_not_be_repeated_gets_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    for _ in range(2):
        await stage.ask(request("GET", "/v1/files"))
        await stage.say(0, reply(200))
    assert len(stage.network.opened[8000]) == 2


async def test_stale_connection_costs_the_client_nothing_and_the_backend_no_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat())
    await stage.say(0, stream_of("a"))
    client = await stage.ask(chat())
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await stage.say(0, stream_of("b"))
    assert b"X-Understudy-Attempts: 1\r\n" in client.data
    assert [attempt.failure for attempt in stage.records[-1].attempts] == [None]
    assert stage.tally.of("gpu0").failures_total == 0
    assert stage.in_flight == 0


async def test_whole_request_reaches_each_backend_it_is_tried_at(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, api_key="sk-0"), target(1))
    await stage.ask(chat("Authorization: Bearer sk-client", extra=[1, 2]))
    first = stage.engine(0).data
    await stage.say(0, reply(500))
    second = stage.engine(1).data
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    assert b"Host: 127.0.0.1:8000\r\n" in first
    assert b"Host: 127.0.0.1:8001\r\n" in second
    assert b"Bearer sk-0\r\n" in first
    assert b"sk-client" not in first
    assert b"Bearer sk-client\r\n" in second


async def test_client_is_named_to_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat("X-Forwarded-For: 198.51.100.1", "Via: 1.1 edge"))
    sent = stage.engine(0).data
    assert b"X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n" in sent
    assert b"Via: 1.1 edge, 1.1 understudy\r\n" in sent
    assert b"X-Request-ID: " in sent


# --- further attempts


async def test_backend_that_refuses_is_passed_by_and_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    stage.network.failing[8000] = ConnectionRefusedError()
    client = await stage.ask(chat())
    await stage.say(1, stream_of("a"))
    assert b"X-Understudy-Backend: gpu1\r\nX-Understudy-Attempts: 2\r\n" in client.data
    assert kinds(stage) == [K.REFUSED, None]
    assert stage.observed == [("gpu0", K.REFUSED), ("gpu1", None)]
    assert (stage.tally.of("gpu0").failures_total, stage.tally.of("gpu1").failures_total) == (1, 0)


async def test_server_error_is_blamed_only_when_another_backend_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    await stage.ask(chat())
    await stage.say(0, reply(500))
    assert stage.tally.of("gpu0").failures_total == 0
    await stage.say(1, stream_of("a"))
    assert stage.tally.of("gpu0").failures_total == 1


async def test_server_error_everywhere_is_the_requests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, reply(500))
    await stage.say(1, reply(500))
    assert client.data.startswith(b"HTTP/1.1 502 ")
    assert [stage.tally.of(name).failures_total for name in ("gpu0", "gpu1")] == [0, 0]
    error = json.loads(client.data.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "server_error"
    assert "gpu0" in error["message"]
    assert "gpu1" in error["message"]


async def test_busy_backend_rests_as_long_as_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    await stage.ask(chat())
    await stage.say(0, reply(429, Retry_After="30"))
    await stage.say(1, stream_of("a"))
    assert stage.tally.of("gpu0").rest_until_s == stage.clock.now_s + 30.0
    assert stage.tally.of("gpu0").failures_total == 0
    await stage.ask(chat())
    assert len(stage.network.opened[8000]) == 1


async def test_missing_model_is_told_in_the_engines_own_words_and_its_list_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, reply(404, b'{"error": {"message": "no qwen here"}}'))
    assert client.data.startswith(b"HTTP/1.1 404 ")
    assert client.data.endswith(b'{"error": {"message": "no qwen here"}}')
    assert stage.observed == [("gpu0", K.MODEL_MISSING)]


async def test_unrepeatable_request_is_not_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(request("POST", "/v1/files", b"abc"))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert client.data.startswith(b"HTTP/1.1 502 ")
    assert 8001 not in stage.network.opened


async def test_poison_is_stopped_at_the_second_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(3))
    client = await stage.ask(chat())
    for number in range(2):
        stage.engine(number).lose(ConnectionResetError())
        await settle()
    assert client.data.startswith(b"HTTP/1.1 502 ")
    assert 8002 not in stage.network.opened


# --- waiting


async def test_request_is_held_until_a_backend_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    client = await stage.ask(chat())
    assert len(stage.relay.line) == 1
    await stage.pass_time(2.0)
    stage.publish(*targets(1))
    await settle()
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[2]
    assert stage.record.waited_s == pytest.approx(2.0)
    assert len(stage.relay.line) == 0


async def test_request_that_is_held_in_vain_is_told_after_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    stage.network.failing[8000] = ConnectionRefusedError()
    client = await stage.ask(chat())
    await stage.pass_time(4.9)
    assert client.data == b""
    await stage.pass_time(0.3)
    assert client.data.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in client.data
    assert stage.record.is_last_resort
    assert not stage.relay.running


async def test_only_backend_that_restarts_within_hold_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    stage.network.failing[8000] = ConnectionRefusedError()
    client = await stage.ask(chat())
    await stage.pass_time(3.0)
    del stage.network.failing[8000]
    await stage.pass_time(0.3)
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[2]
    assert stage.record.failure is None


async def test_full_backend_serves_who_waits_in_the_order_of_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, in_flight_max=1))
    clients = [await stage.ask(chat()) for _ in range(3)]
    assert len(stage.network.opened[8000]) == 1
    for client in clients:
        assert client.data == b""
        await stage.say(0, stream_of("a"))
        assert dechunk(client.data)[2]
    assert stage.tally.of("gpu0").attempts_total == 3


async def test_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN), limits=Limits(waiting_max=2))
    clients = [await stage.ask(chat()) for _ in range(3)]
    assert [client.data[:12] for client in clients] == [b"", b"", b"HTTP/1.1 503"]
    assert stage.record.failure is K.NO_ROOM


async def test_client_that_leaves_the_line_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN))
    client = await stage.ask(chat())
    client.lose()
    assert len(stage.relay.line) == 0
    assert (stage.record.failure, stage.record.status) == (K.CLIENT_GONE, 499)


# --- clients that leave


@pytest.mark.parametrize("wire", [b"", stream_head() + chunk(OPENING), BEGUN])
async def test_client_that_leaves_stops_the_engine_and_blames_nobody(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, wire)
    client.lose(ConnectionResetError())
    assert stage.engine(0).is_aborted
    assert stage.in_flight == 0
    assert stage.record.failure is K.CLIENT_GONE
    assert stage.tally.of("gpu0").failures_total == 0
    assert 8001 not in stage.network.opened


async def test_place_of_a_client_that_left_goes_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, in_flight_max=1))
    first, second = await stage.ask(chat()), await stage.ask(chat())
    first.lose()
    await settle()
    await stage.say(0, stream_of("a"))
    assert dechunk(second.data)[2]


async def test_half_closed_client_gets_its_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    client.end()
    await stage.pass_time(1.0)
    await stage.say(0, REST)
    assert client.data.endswith(LAST_CHUNK)
    assert delta("lo") + FINISH + DONE in dechunk(client.data)[1]
    assert client.is_closing()


# --- slow clients


async def test_client_that_does_not_keep_up_holds_its_engine_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    client.is_stuck = True
    await stage.say(0, BEGUN, chunk(delta("x" * 300_000)))
    assert stage.engine(0).is_paused
    await stage.pass_time(59.0)
    client.drain()
    assert not stage.engine(0).is_paused
    await stage.say(0, REST)
    assert dechunk(client.data)[2]


async def test_backend_that_does_not_accept_in_time_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    stage.network.silent.add(8000)
    client = await stage.ask(chat())
    await stage.pass_time(2.1)
    await stage.say(1, stream_of("a"))
    assert kinds(stage) == [K.CONNECT_TIMEOUT, None]
    assert dechunk(client.data)[2]


# --- ejection


async def test_backend_that_fails_again_and_again_is_ejected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = HealthRules(max_fails=2)
    stage = Stage(monkeypatch, target(0, health=rules), target(1, health=rules))
    stage.network.failing[8000] = ConnectionRefusedError()
    for _ in range(4):
        await stage.ask(chat())
        await stage.say(1, stream_of("a"))
    assert [event for event, _ in stage.events] == ["backend.was_ejected"]
    assert stage.network.asked.count(("127.0.0.1", 8000)) == 2


async def test_ejected_backend_returns_with_its_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = HealthRules(max_fails=1, fail_timeout_s=10.0)
    stage = Stage(monkeypatch, target(0, health=rules), target(1, health=rules))
    stage.network.failing[8000] = ConnectionRefusedError()
    await stage.ask(chat())
    await stage.say(1, stream_of("a"))
    del stage.network.failing[8000]
    await stage.pass_time(10.5)
    client = await stage.ask(chat())
    await stage.say(0, stream_of("a"))
    assert b"X-Understudy-Backend: gpu0\r\n" in client.data
    assert [event for event, _ in stage.events] == ["backend.was_ejected", "backend.returned"]


async def test_model_is_asked_for_under_the_backends_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    await (stage := Stage(monkeypatch, target(0, models=(("public", "qwen"),)))).ask(chat(model="public"))
    assert json.loads(stage.engine(0).data.partition(b"\r\n\r\n")[2])["model"] == "qwen"
