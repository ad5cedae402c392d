"""Plays of time that passes: deadlines, suspicion, clients that take nothing, and comments to a client that waits."""

from dataclasses import replace

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, head_bytes, stream_head
from support.continuing import BEGUN, LLAMA, answered, broken, events_of, llamas, text_of, until_asked
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import DOWN, target, targets
from support.transports import settle
from understudy.core.snapshot import FailoverRules, ResumeRule, Timeouts
from understudy.errors import FailureKind

K = FailureKind
COMMENT = b":\n\n"
SHORT = Timeouts(keepalive_s=2.0)


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


# --- deadlines


@pytest.mark.parametrize("wire", [b"", stream_head() + chunk(OPENING)])
async def test_backend_that_sends_no_content_in_time_is_passed_by(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *targets(2), timeouts=Timeouts(first_token_s=10.0))
    client = await stage.ask(chat())
    await stage.say(0, wire)
    await stage.pass_time(9.8)
    assert 8001 not in stage.network.opened
    await stage.pass_time(0.8)
    await stage.say(1, stream_of("a"))
    assert kinds(stage) == [K.FIRST_TOKEN_TIMEOUT, None]
    assert dechunk(client.data)[2]


async def test_signs_of_life_without_content_do_not_prolong_the_first_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(first_token_s=10.0))
    client = await stage.ask(chat())
    await stage.say(0, stream_head())
    for _ in range(6):
        await stage.pass_time(2.0)
        if not client.data:
            await stage.say(0, chunk(b": ping\n\n"))
    assert client.data.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("sign", [b"", chunk(b": ping\n\n")])
async def test_stream_that_falls_silent_is_broken_off(monkeypatch: pytest.MonkeyPatch, sign: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=FailoverRules(resume=ResumeRule.OFF))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    for _ in range(31):
        await stage.pass_time(1.0)
        if sign and not client.is_closing():
            await stage.say(0, sign)
    assert b"stream_interrupted" in client.data
    assert stage.record.failure is K.STALLED
    assert stage.engine(0).is_aborted


async def test_exchange_that_outlasts_its_total_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2), timeouts=Timeouts(total_s=5.0))
    client = await stage.ask(chat())
    await stage.pass_time(5.6)
    assert client.data.startswith(b"HTTP/1.1 504 ")
    assert stage.record.failure is K.TOTAL_TIMEOUT
    assert stage.tally.of("gpu0").failures_total == 0
    assert 8001 not in stage.network.opened


async def test_silent_stream_of_a_backend_that_refuses_connections_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(stall_s=30.0), failover=FailoverRules(resume=ResumeRule.OFF))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    await stage.pass_time(1.7)
    assert stage.suspected[:1] == ["gpu0"]
    asked_at_s = stage.clock.now_s
    stage.tally.of("gpu0").evidence.on_probe(asked_at_s, asked_at_s, is_good=False, is_refusing=True)
    await stage.pass_time(0.2)
    assert not client.is_closing()
    await stage.pass_time(0.3)
    assert b"stream_interrupted" in client.data
    assert stage.record.failure is K.STALLED


async def test_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    client.is_stuck = True
    await stage.say(0, BEGUN, chunk(delta("x" * 300_000)))
    await stage.pass_time(62.0)
    assert client.is_aborted
    assert stage.engine(0).is_aborted
    assert stage.record.failure is K.CLIENT_SLOW
    assert stage.tally.of("gpu0").failures_total == 0


# --- suspicion


async def test_backend_of_a_stream_that_pauses_is_probed_long_before_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    await stage.pass_time(1.4)
    assert stage.suspected == []
    await stage.pass_time(0.5)
    assert set(stage.suspected) == {"gpu0"}
    await stage.say(0, chunk(delta("lo") + FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[2]
    assert kinds(stage) == [None]


async def test_backend_that_writes_is_not_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(chat())
    await stage.say(0, BEGUN)
    for _ in range(20):
        await stage.pass_time(1.0)
        await stage.say(0, chunk(delta("x")))
    assert stage.suspected == []


async def test_probe_that_fails_during_a_pause_is_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen backend is given up within seconds, not after `stall`."""
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    await stage.pass_time(2.1)
    began_at_s = stage.clock.now_s
    await stage.pass_time(1.5)
    stage.tally.of("gpu0").evidence.on_probe(began_at_s, stage.clock.now_s, is_good=False)
    await stage.pass_time(0.1)
    await until_asked(stage, 1)
    await stage.say(1, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.STALLED, None]


async def test_backend_that_answers_its_probes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    for _ in range(25):
        await stage.pass_time(1.0)
        stage.tally.of("gpu0").evidence.on_probe(stage.clock.now_s, stage.clock.now_s, is_good=True)
    await stage.say(0, chunk(delta("lo") + FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[2]
    assert kinds(stage) == [None]


async def test_first_content_later_than_all_before_makes_its_backend_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2))
    for _ in range(30):
        stage.tally.of("gpu0").pace.add(60, 0.5)
    client = await stage.ask(chat())
    await stage.pass_time(4.9)
    assert stage.suspected == []
    await stage.pass_time(1.0)
    assert set(stage.suspected) == {"gpu0"}
    for _ in range(2):
        stage.tally.of("gpu0").evidence.on_probe(stage.clock.now_s, stage.clock.now_s, is_good=False)
    await stage.pass_time(0.1)
    await stage.say(1, stream_of("a"))
    assert dechunk(client.data)[2]
    assert kinds(stage) == [K.FIRST_TOKEN_TIMEOUT, None]


async def test_going_on_has_its_own_time_to_first_content(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3), timeouts=Timeouts(first_token_s=10.0))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.pass_time(9.0)
    assert not stage.engine(1).is_aborted
    await stage.pass_time(1.6)
    assert stage.engine(1).is_aborted
    await until_asked(stage, 2)
    await stage.say(2, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.FIRST_TOKEN_TIMEOUT, None]


async def test_whole_exchange_has_its_bound_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), timeouts=Timeouts(total_s=5.0))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.pass_time(5.6)
    assert events_of(dechunk(client.data)[1])[-1]["error"]["code"] == "stream_interrupted"
    assert stage.engine(1).is_aborted
    assert (stage.record.failure, stage.in_flight) == (K.TOTAL_TIMEOUT, 0)


async def test_time_in_which_the_daemon_did_not_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), timeouts=Timeouts(first_token_s=10.0, total_s=20.0))
    client = await broken(stage)
    await until_asked(stage, 1)
    stage.clock.now_s += 500.0
    await stage.pass_time(0.3)
    await stage.say(1, stream_of("lo"))
    assert text_of(dechunk(client.data)[1]) == "Hello"


# --- comments to a client that waits


async def test_client_that_waits_for_the_first_content_hears_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(chat("X-Request-ID: mine"))
    await stage.pass_time(1.9)
    assert client.data == b""
    await stage.pass_time(0.6)
    head, body, _ = dechunk(client.data)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    for field in (
        b"Content-Type: text/event-stream",
        b"X-Request-ID: mine",
        b"X-Understudy-Backend: gpu0",
        b"Cache-Control: no-cache",
    ):
        assert field in head
    assert body == COMMENT
    await stage.pass_time(2.0)
    assert dechunk(client.data)[1] == COMMENT * 2
    await stage.say(0, stream_of("Hel", "lo"))
    assert dechunk(client.data)[1:] == (COMMENT * 2 + OPENING + delta("Hel") + delta("lo") + FINISH + DONE, True)
    assert client.data.count(b"HTTP/1.1") == 1
    assert not client.is_closing()
    assert (stage.record.status, stage.record.failure) == (200, None)
    assert stage.record.ttft_s == pytest.approx(4.5, abs=0.2)


async def test_attempt_that_fails_behind_an_early_head_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(2), timeouts=SHORT)
    client = await stage.ask(chat())
    await stage.pass_time(2.5)
    await stage.say(0, answered({"error": "x"}, 500))
    await stage.say(1, stream_of("a"))
    assert dechunk(client.data)[1:] == (COMMENT + OPENING + delta("a") + FINISH + DONE, True)


async def test_failure_behind_an_early_head_is_told_in_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(chat())
    await stage.pass_time(2.5)
    await stage.say(0, answered({"error": "x"}, 500))
    _, body, is_whole = dechunk(client.data)
    error = events_of(body)[-1]["error"]
    assert (error["code"], is_whole, client.is_closing()) == ("server_error", False, True)
    assert "gpu0" in error["message"]
    assert DONE not in body
    assert (stage.record.failure, stage.in_flight) == (K.SERVER_ERROR, 0)
    assert stage.record.status == 200


@pytest.mark.parametrize(
    "wire",
    [
        answered({"error": {"message": "too many tokens"}}, 400),
        answered({"error": {"message": "too many tokens"}}, 400)[:-3],
        head_bytes(200, {"Content-Type": "application/json", "Content-Length": "2"}) + b"{}",
        stream_head("application/json", 422) + chunk(b'{"error": {"message": "too many tokens"}}') + LAST_CHUNK,
    ],
)
async def test_clients_own_fault_behind_an_early_head_is_told_in_an_event(monkeypatch: pytest.MonkeyPatch, wire: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT, failover=FailoverRules(hold_s=0.0))
    client = await stage.ask(chat())
    await stage.pass_time(2.5)
    await stage.say(0, wire)
    stage.engine(0).end()
    await settle()
    _, body, is_whole = dechunk(client.data)
    assert "error" in events_of(body)[-1]
    assert (is_whole, client.is_closing(), stage.in_flight, len(stage.records)) == (False, True, 0, 1)
    assert stage.errors == []


async def test_request_that_is_held_hears_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1, DOWN), timeouts=SHORT)
    client = await stage.ask(chat())
    await stage.pass_time(4.5)
    assert dechunk(client.data)[1] == COMMENT * 2
    stage.publish(*targets(1))
    await settle()
    await stage.say(0, stream_of("a"))
    assert dechunk(client.data)[1] == COMMENT * 2 + OPENING + delta("a") + FINISH + DONE


@pytest.mark.parametrize(
    "ask",
    [
        chat(version="1.0"),
        chat(stream=False),
        request("POST", "/api/chat", b'{"model": "qwen", "messages": []}'),
        request("GET", "/v1/files"),
    ],
)
async def test_who_cannot_read_comments_gets_none(monkeypatch: pytest.MonkeyPatch, ask: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(ask)
    await stage.pass_time(10.0)
    assert client.data == b""


async def test_comments_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=Timeouts(keepalive_s=0.0))
    client = await stage.ask(chat())
    await stage.pass_time(60.0)
    assert client.data == b""


async def test_client_hears_comments_while_its_answer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    for _ in range(8):
        await stage.pass_time(1.0)
        await stage.say(0, chunk(delta("x")))
    assert COMMENT not in dechunk(client.data)[1]
    await stage.pass_time(5.0)
    assert dechunk(client.data)[1].endswith(delta("x") + COMMENT * 2)


async def test_client_hears_comments_while_nobody_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, LLAMA), target(1, DOWN), timeouts=SHORT, failover=FailoverRules(hold_s=20.0))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    stage.network.failing[8000] = ConnectionRefusedError()
    stage.publish(*(target(number, replace(LLAMA, condition=DOWN.condition)) for number in range(2)))
    stage.engine(0).lose(ConnectionResetError())
    await stage.pass_time(6.5)
    assert 2 <= dechunk(client.data)[1].count(COMMENT) <= 3
    stage.publish(target(0, replace(LLAMA, condition=DOWN.condition)), target(1, LLAMA))
    await settle()
    await until_asked(stage, 1)
    await stage.say(1, stream_of("lo"))
    _, body, is_whole = dechunk(client.data)
    assert (text_of(body), is_whole) == ("Hello", True)
    assert stage.record.waited_s == pytest.approx(6.5, abs=0.3)
    assert stage.in_flight == 0


async def test_lines_of_ollama_have_no_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}'))
    line = b'{"response": "a", "done": false}\n'
    await stage.say(0, stream_head(NDJSON) + chunk(line))
    await stage.pass_time(10.0)
    assert dechunk(client.data)[1] == line


async def test_who_waits_keeps_the_order_through_a_stop_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are forgiven the time before the first one's deadline is looked at."""
    stage = Stage(monkeypatch, target(0, in_flight_max=1), failover=FailoverRules(hold_s=500.0))
    await stage.ask(chat())
    waiting = [await stage.ask(chat()) for _ in range(3)]
    stage.clock.now_s += 100.0
    waiting[0].end()
    waiting[0].lose()
    await stage.pass_time(1.0)
    assert len(stage.relay.line) == 2
    assert stage.errors == []


async def test_mistake_of_our_own_while_somebody_is_woken_ends_that_exchange_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, DOWN), failover=FailoverRules(hold_s=60.0))
    client, other = await stage.ask(chat()), await stage.ask(chat())
    first = next(exchange for exchange in stage.relay.running if exchange.downstream.transport is client)
    monkeypatch.setattr(first.exchange, "on_wake", lambda *_: 1 / 0)
    stage.publish(target(0))
    await settle()
    await stage.say(0, stream_of("a"))
    assert client.data.startswith(b"HTTP/1.1 500 ")
    assert dechunk(other.data)[2]
    assert [type(error) for error in stage.errors] == [ZeroDivisionError]
