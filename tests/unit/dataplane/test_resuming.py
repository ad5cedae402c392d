"""Plays between a break and the moment when the answer goes on: whether it may, what is asked, who leaves meanwhile."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, sse, stream_head
from support.continuing import (
    BEGUN,
    LLAMA,
    answered,
    broken,
    events_of,
    last_request,
    llamas,
    text_of,
    told,
    until_asked,
)
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import CHAT_PATH, DOWN, UP, target
from support.transports import MemoryTransport, settle
from understudy.core.balancer import Choice
from understudy.core.record import AttemptRecord
from understudy.core.snapshot import BackendState, FailoverRules, ResumeRule, Timeouts
from understudy.core.transcript import Refusal
from understudy.dataplane import received, resuming
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.resuming import ABILITIES_MAX, QUESTIONS_MAX, AbilityMemo
from understudy.engines.continuation import Abilities, Question
from understudy.errors import FailureKind

K = FailureKind
REST = stream_of("lo")
HELD = FailoverRules(hold_s=20.0)


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


def honest_end(client: MemoryTransport) -> str:
    """Return the message of an answer that ends with an error, openly cut."""
    _, body, is_whole = dechunk(client.data)
    assert not is_whole
    assert client.is_closing()
    assert DONE not in body
    errors = [event["error"] for event in events_of(body) if "error" in event]
    assert [error["code"] for error in errors] == ["stream_interrupted"]
    return str(errors[0]["message"])


# --- whether it may


@pytest.mark.parametrize(
    ("fields", "more", "refusal", "words"),
    [
        (["X-Understudy-No-Resume: 1"], {}, Refusal.DECLINED, "the request declined to be continued"),
        ([], {"n": 2}, Refusal.CASE, "an answer of this kind is not continued"),
        ([], {"response_format": {"type": "grammar"}}, Refusal.CASE, "an answer of this kind is not continued"),
    ],
)
async def test_answer_that_may_not_go_on_ends_honestly(
    monkeypatch: pytest.MonkeyPatch, fields: list[str], more: dict[str, Any], refusal: Refusal, words: str
) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, *fields, **more)
    assert words in honest_end(client)
    assert 8001 not in stage.network.opened
    assert (stage.record.not_resumed, stage.record.failure, stage.in_flight) == (refusal, K.BODY_CUT, 0)


async def test_answer_goes_on_only_where_the_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), failover=FailoverRules(resume=ResumeRule.OFF))
    assert "continuing is turned off" in honest_end(await broken(stage))
    assert stage.record.not_resumed is Refusal.TURNED_OFF


async def test_answer_of_responses_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(request("POST", "/v1/responses", b'{"model": "qwen", "stream": true, "input": "x"}'))
    await stage.say(0, stream_head() + chunk(sse({"type": "response.output_text.delta", "delta": "Hel"})))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert b"an answer of this path is not continued" in client.data
    assert stage.record.not_resumed is Refusal.NOT_TEXT


async def test_answer_that_cannot_be_read_ends_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, wire=BEGUN + chunk(sse({"choices": 7})))
    assert b"what had come of it cannot be read" in client.data
    assert stage.record.not_resumed is Refusal.UNREADABLE
    assert stage.in_flight == 0


async def test_answer_of_which_half_an_event_is_out_ends_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, wire=BEGUN + chunk(b'data: {"x": "' + b"y" * 70_000))
    body = dechunk(client.data)[1]
    assert b"stream_interrupted" in body.rpartition(b"\n\ndata: ")[2]
    assert (stage.record.not_resumed, 8001 in stage.network.opened) == (Refusal.UNREADABLE, False)


async def test_answer_that_outgrew_what_is_kept_ends_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dataplane.answer.FOLD_BYTES", 500)
    monkeypatch.setattr(received, "TEXT_CHARACTERS_MAX", 100)
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, wire=BEGUN + b"".join(chunk(delta(f"word {n} ")) for n in range(40)))
    assert "too long to be continued" in honest_end(client)
    assert [event for event, _ in stage.events] == ["exchange.outgrew_transcript"]
    assert stage.record.not_resumed is Refusal.TOO_LONG


async def test_answer_that_was_folded_on_its_way_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dataplane.answer.FOLD_BYTES", 500)
    monkeypatch.setattr("understudy.dataplane.continued.FOLD_BYTES", 500)
    words = [f"word {n} " for n in range(40)]
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, wire=BEGUN + b"".join(chunk(delta(word)) for word in words))
    assert (await until_asked(stage, 1)).partial == "Hel" + "".join(words)
    await stage.say(1, stream_head() + b"".join(chunk(delta(word)) for word in words))
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    assert (await until_asked(stage, 0)).partial == "Hel" + "".join(words * 2)
    await stage.say(0, REST)
    assert text_of(dechunk(client.data)[1]) == "Hel" + "".join(words * 2) + "lo"


async def test_answer_that_outgrows_its_bound_while_it_goes_on_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dataplane.continued.FOLD_BYTES", 100)
    monkeypatch.setattr(received, "TEXT_CHARACTERS_MAX", 100)
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + b"".join(chunk(delta(f"word {n} ")) for n in range(40)))
    assert [event for event, _ in stage.events] == ["exchange.outgrew_transcript"]
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    assert "too long to be continued" in honest_end(client)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_answer_that_has_its_finish_is_completed_without_asking_anybody(
    monkeypatch: pytest.MonkeyPatch, is_reset: bool
) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN + chunk(FINISH))
    stage.engine(0).lose(ConnectionResetError()) if is_reset else stage.engine(0).feed(LAST_CHUNK)
    await settle()
    assert dechunk(client.data)[1:] == (OPENING + delta("Hel") + FINISH + DONE, True)
    assert 8001 not in stage.network.opened
    assert (stage.record.failure, stage.record.resumed_on, stage.in_flight) == (None, (), 0)
    assert not client.is_closing()


async def test_answer_that_has_all_its_tokens_is_completed_without_generating(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, max_tokens=3)
    while not stage.records:
        stage.engine(1).feed(answered(told(last_request(stage, 1))))
        await settle()
    _, body, is_whole = dechunk(client.data)
    assert (is_whole, body.endswith(DONE), text_of(body)) == (True, True, "Hel")
    assert events_of(body)[-1]["choices"][0]["finish_reason"] == "length"
    assert (stage.record.failure, stage.in_flight) == (None, 0)
    assert not client.is_closing()


async def test_what_is_left_of_the_bound_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    await broken(stage, max_tokens=10)
    assert (await until_asked(stage, 1)).body["max_tokens"] == 7


# --- questions


async def test_questions_go_over_one_connection_with_the_backends_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, LLAMA), target(1, LLAMA, api_key="sk-1", models=(("qwen", "own-name"),)))
    stage.publish(target(0, LLAMA), target(1, LLAMA, api_key="sk-1"))
    await broken(stage, "Authorization: Bearer sk-client", "traceparent: 00-a-b-01", "X-Request-ID: mine", "Cookie: secret")
    asked = last_request(stage, 1)
    assert asked.path == "/apply-template"
    assert b"authorization: bearer sk-1" in asked.head
    assert b"traceparent: 00-a-b-01" in asked.head
    assert b"x-request-id: mine" in asked.head
    assert b"sk-client" not in asked.head
    assert b"cookie" not in asked.head
    await until_asked(stage, 1)
    assert len(stage.network.opened[8001]) == 1


async def test_what_a_template_does_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    for paths in (["/apply-template", "/apply-template", CHAT_PATH], [CHAT_PATH]):
        await broken(stage)
        seen = [last_request(stage, 1).path]
        while seen[-1] != CHAT_PATH:
            stage.engine(1).feed(answered(told(last_request(stage, 1))))
            await settle()
            seen.append(last_request(stage, 1).path)
        await stage.say(1, REST)
        assert seen == paths


@pytest.mark.parametrize("state", [LLAMA, UP], ids=["llamacpp", "vllm"])
async def test_questions_may_each_need_a_connection_of_their_own(monkeypatch: pytest.MonkeyPatch, state: BackendState) -> None:
    stage = Stage(monkeypatch, target(0, state), target(1, state))
    client = await broken(stage)
    await until_asked(stage, 1, closes=True)
    assert len(stage.network.opened[8001]) == (3 if state is LLAMA else 5)
    assert all(engine.is_closing() for engine in stage.network.opened[8001][:-1])
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, None]
    assert stage.in_flight == 0


async def test_question_that_gets_no_answer_is_a_failure_of_that_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.LOST_BEFORE_HEAD, None]
    assert stage.tally.of("gpu1").failures_total == 1


async def test_question_that_is_answered_in_half_is_a_failure_of_that_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    await stage.say(1, answered({"prompt": "x"})[:-4])
    stage.engine(1).end()
    await settle()
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert kinds(stage) == [K.BODY_CUT, K.BODY_CUT, None]
    assert dechunk(client.data)[2]


async def test_question_that_stays_unanswered_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3), timeouts=Timeouts(first_token_s=10.0))
    client = await broken(stage)
    await stage.pass_time(10.6)
    assert stage.engine(1).is_aborted
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.FIRST_TOKEN_TIMEOUT, None]


async def test_connection_that_the_next_question_needs_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(3))
    client = await broken(stage)
    stage.network.failing[8001] = ConnectionRefusedError()
    await stage.say(1, answered(told(last_request(stage, 1)), Connection="close"))
    await until_asked(stage, 2)
    await stage.say(2, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert kinds(stage) == [K.BODY_CUT, K.REFUSED, None]
    assert stage.in_flight == 0


async def test_plan_without_an_end_is_a_mistake_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> Iterator[Question]:
        while True:
            yield Question("/tokenize", b"{}")

    monkeypatch.setattr(resuming, "continuation", endless)
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    for _ in range(QUESTIONS_MAX):
        await stage.say(1, answered({"tokens": []}))
    assert [type(error) for error in stage.errors] == [RuntimeError]
    assert "understudy failed" in honest_end(client)
    assert (stage.record.failure, stage.in_flight) == (K.INTERNAL, 0)


# --- waiting for somebody who can


async def test_answer_waits_for_a_backend_and_goes_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1), failover=HELD)
    client = await broken(stage, is_gone=True)
    await stage.pass_time(3.0)
    assert not client.is_closing()
    del stage.network.failing[8000]
    await stage.pass_time(0.3)
    await until_asked(stage, 0)
    await stage.say(0, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert stage.record.waited_s == pytest.approx(3.0, abs=0.5)
    assert (len(stage.relay.line), stage.in_flight) == (0, 0)


async def test_answer_that_nobody_takes_up_in_time_ends_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    client = await broken(stage, is_gone=True)
    await stage.pass_time(4.5)
    assert not client.is_closing()
    await stage.pass_time(1.0)
    message = honest_end(client)
    assert message.startswith("the answer broke off: gpu0 broke off in the middle of its answer; gpu0 refused the connection")
    assert message.count("refused") == 1
    assert "no backend that could go on came in time" in message
    assert stage.record.not_resumed is Refusal.NO_BACKEND
    assert (len(stage.relay.line), stage.in_flight) == (0, 0)


async def test_stop_ends_an_answer_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, LLAMA), target(1, DOWN), failover=HELD)
    client = await broken(stage, is_gone=True)
    stage.relay.stop()
    await settle()
    assert "understudy is stopping" in honest_end(client)
    assert len(stage.relay.line) == 0


async def test_answer_in_line_goes_on_with_the_first_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, LLAMA), target(1, LLAMA, in_flight_max=1))
    stage.publish(target(1, LLAMA, in_flight_max=1))
    other = await stage.ask(chat())
    stage.publish(target(0, LLAMA), target(1, LLAMA, in_flight_max=1))
    client = await broken(stage, is_gone=True)
    assert len(stage.relay.line) == 1
    await stage.say(1, stream_of("other"))
    assert dechunk(other.data)[2]
    await until_asked(stage, 1)
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"


# --- clients meanwhile


@pytest.mark.parametrize("phase", ["connecting", "asked", "asked again", "going on", "gone on", "waiting"])
@pytest.mark.parametrize("is_reset", [True, False])
async def test_client_that_leaves_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, phase: str, is_reset: bool) -> None:
    stage = Stage(monkeypatch, *llamas(1 if phase == "waiting" else 2), failover=HELD)
    if phase == "connecting":
        stage.network.silent.add(8001)
    client = await broken(stage, is_gone=phase == "waiting")
    if phase == "asked again":
        await stage.say(1, answered(told(last_request(stage, 1)), Connection="close"))
    elif phase.endswith("on"):
        await until_asked(stage, 1)
        if phase == "gone on":
            await stage.say(1, stream_head() + chunk(delta("lo")))
    client.lose(ConnectionResetError() if is_reset else None)
    await settle()
    assert all(engine.is_closing() for engine in stage.network.opened.get(8001, []))
    assert (stage.in_flight, len(stage.relay.line), len(stage.relay.running)) == (0, 0, 0)
    assert not stage.relay.pool._connecting
    assert (stage.record.failure, stage.record.status) == (K.CLIENT_GONE, 200)
    assert stage.tally.of("gpu1").failures_total == 0
    await stage.pass_time(25.0)
    assert len(stage.records) == 1
    assert not stage.errors


# --- what is remembered


async def test_what_was_learnt_of_a_model_is_forgotten_with_its_engines_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    await stage.ask(chat())
    (running,) = stage.relay.running
    memo = AbilityMemo()

    def known(state: BackendState, model: str = "qwen") -> Abilities:
        return memo.of(RunningAttempt(running, Choice(target(0, state), model), AttemptRecord("gpu0"), 0.0))

    first = known(LLAMA)
    assert known(LLAMA) is first
    for state in (replace(LLAMA, version="2.0"), replace(LLAMA, since_at_s=9.0), UP):
        assert known(state) is not first
    assert known(LLAMA, "other") is not first
    for number in range(ABILITIES_MAX):
        known(LLAMA, f"model-{number}")
    assert len(memo._known) == ABILITIES_MAX
    assert known(LLAMA) is not first
