"""Plays of answers that are put together here, or that lack nothing but their last events."""

import json
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, sse, stream_head
from support.continuing import BEGUN, answered, broken, events_of, last_request, llamas, text_of, told, until_asked
from support.stage import DONE, FINISH, Stage, chat, dechunk
from support.transports import MemoryTransport, settle
from understudy.errors import FailureKind

K = FailureKind
MESSAGES = [{"role": "user", "content": "x"}]


def whole(client: MemoryTransport) -> tuple[int, Any]:
    """Return status and JSON of a whole answer."""
    head, _, body = client.data.partition(b"\r\n\r\n")
    assert client.data.count(b"HTTP/1.1 ") == 1
    return int(head.split(b" ")[1]), json.loads(body)


def kinds(stage: Stage) -> list[FailureKind | None]:
    """What became of each attempt of the only exchange."""
    return [attempt.failure for attempt in stage.record.attempts]


# --- answers that are put together


def event(text: str | None, finish: str | None = None) -> bytes:
    """Write one of llama.cpp's events; no text is the first or the last one's."""
    head = {"created": 7, "id": "c", "model": "m", "system_fingerprint": "b1", "object": "chat.completion.chunk"}
    delta = {"content": text} if text is not None else {} if finish else {"role": "assistant", "content": None}
    return sse({"choices": [{"finish_reason": finish, "index": 0, "delta": delta}], **head})


def usage(prompt: int, completion: int) -> bytes:
    """Write the event that counts."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    head = {"created": 7, "id": "c", "model": "m", "system_fingerprint": "b1", "object": "chat.completion.chunk"}
    return sse({"choices": [], **head, "usage": counts, "timings": {"predicted_n": completion}})


HALF = stream_head() + chunk(event(None) + event("Hel"))


async def half_an_answer(stage: Stage, *fields: str, **more: Any) -> MemoryTransport:
    """Ask for a whole answer of which gpu0 has sent a part."""
    client = await stage.ask(chat(*fields, stream=False, messages=MESSAGES, **more))
    await stage.say(0, HALF)
    return client


async def test_whole_answer_that_breaks_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage)
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert (await until_asked(stage, 1)).partial == "Hel"
    assert client.data == b""
    await stage.say(1, stream_head() + chunk(event(None) + event("lo")) + chunk(event(None, "stop") + usage(20, 1) + DONE))
    status, answer = whole(client)
    assert (status, answer["choices"][0]["message"]["content"], answer["id"]) == (200, "Hello", "c")
    assert answer["usage"]["completion_tokens"] == 4
    assert "understudy" not in client.data.partition(b"\r\n\r\n")[2].decode()
    assert b"X-Understudy-Backend: gpu0\r\nX-Understudy-Attempts: 2\r\n" in client.data
    assert kinds(stage) == [K.BODY_CUT, None]
    assert (stage.record.resumed_on, stage.record.failure, stage.in_flight) == (("gpu1",), None, 0)
    assert not client.is_closing()


@pytest.mark.parametrize(
    ("fields", "more"), [(["X-Understudy-No-Resume: 1"], {}), ([], {"grammar": "root ::= x"})], ids=["declined", "case"]
)
async def test_whole_answer_that_cannot_be_gone_on_with_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch, fields: list[str], more: dict[str, Any]
) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage, *fields, **more)
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert last_request(stage, 1).body["messages"] == MESSAGES
    await stage.say(1, stream_head() + chunk(event(None) + event("Hi") + event(None, "stop") + usage(5, 1) + DONE) + LAST_CHUNK)
    assert whole(client)[1]["choices"][0]["message"]["content"] == "Hi"
    assert b"X-Understudy-Backend: gpu1\r\nX-Understudy-Attempts: 2\r\n" in client.data
    assert (stage.record.resumed_on, kinds(stage), stage.in_flight) == ((), [K.BODY_CUT, None], 0)


async def test_whole_answer_that_is_lost_for_good_is_an_error_response(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    client = await half_an_answer(stage)
    stage.network.failing[8000] = ConnectionRefusedError()
    stage.engine(0).lose(ConnectionResetError())
    await stage.pass_time(12.0)
    status, answer = whole(client)
    assert status in (502, 503)
    assert "error" in answer
    assert (stage.in_flight, len(stage.relay.line)) == (0, 0)
    assert not client.is_closing()


async def test_whole_answer_with_all_its_tokens_is_counted_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to generate, and a whole answer tells the tokens of its prompt, which the next backend counts."""
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage, max_tokens=3)
    stage.network.failing[8000] = ConnectionRefusedError()
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    engine = stage.engine(1)
    while engine.written:
        asked = last_request(stage, 1)
        assert asked.is_question
        engine.written.clear()
        engine.feed(answered(told(asked)))
        await settle()
    answer = whole(client)[1]
    assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("Hel", "length")
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["prompt_tokens"] == len("<user>x<assistant>")
    assert stage.in_flight == 0


@pytest.mark.parametrize("phase", ["collected", "asked", "going on"])
async def test_client_of_a_whole_answer_that_leaves_stops_everybody(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage)
    if phase != "collected":
        stage.engine(0).lose(ConnectionResetError())
        await settle()
    if phase == "going on":
        await until_asked(stage, 1)
        await stage.say(1, stream_head() + chunk(event(None) + event("lo")))
    client.lose()
    await settle()
    opened = [engine for each in stage.network.opened.values() for engine in each]
    assert all(engine.is_closing() for engine in opened)
    assert (stage.in_flight, stage.record.failure, stage.record.status) == (0, K.CLIENT_GONE, 499)


async def test_whole_answer_that_ends_without_its_terminator_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage)
    await stage.say(0, chunk(event("lo") + event(None, "stop") + usage(5, 2)))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert whole(client)[1]["choices"][0]["message"]["content"] == "Hello"
    assert 8001 not in stage.network.opened
    assert stage.record.failure is None


async def test_whole_answer_with_an_error_inside_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage)
    await stage.say(0, chunk(event("l") + sse({"error": {"message": "CUDA error"}}) + event("!")))
    assert (await until_asked(stage, 1)).partial == "Hell"
    await stage.say(1, stream_head() + chunk(event("o") + event(None, "stop") + usage(20, 1) + DONE) + LAST_CHUNK)
    assert whole(client)[1]["choices"][0]["message"]["content"] == "Hello"
    assert kinds(stage) == [K.ERROR_EVENT, None]


async def test_whole_answer_that_is_too_long_to_be_kept_is_asked_for_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dataplane.answer.FOLD_BYTES", 500)
    monkeypatch.setattr("understudy.dataplane.received.COLLECTED_BYTES_MAX", 5_000)
    stage = Stage(monkeypatch, *llamas(1))
    client = await half_an_answer(stage)
    await stage.say(0, *(chunk(event("x" * 400)) for _ in range(20)))
    assert stage.engine(0, 0).is_aborted
    assert last_request(stage, 0).body["stream"] is False
    await stage.say(0, answered({"choices": [{"message": {"content": "x"}}]}))
    assert whole(client)[1]["choices"][0]["message"]["content"] == "x"
    assert [attempt.failure for attempt in stage.record.attempts] == [None, None]
    assert stage.in_flight == 0


# --- streams that lack their last events


@pytest.mark.parametrize("reason", ["stop", "length"])
async def test_stream_that_lacks_its_terminator_gets_it_and_its_connection_stays(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN + chunk(FINISH.replace(b"stop", reason.encode())))
    stage.engine(0).end()
    await settle()
    _, body, is_whole = dechunk(client.data)
    assert (body.count(b"finish_reason"), body.endswith(DONE), is_whole, client.is_closing()) == (1, True, True, False)
    assert stage.record.failure is None
    assert 8001 not in stage.network.opened


async def test_place_of_an_answer_that_is_spent_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage, max_tokens=3)
    while not stage.records:
        assert last_request(stage, 1).is_question
        stage.engine(1).feed(answered(told(last_request(stage, 1))))
        await settle()
    body = dechunk(client.data)[1]
    assert (text_of(body), events_of(body)[-1]["choices"][0]["finish_reason"]) == ("Hel", "length")
    assert stage.in_flight == 0
    assert kinds(stage) == [K.BODY_CUT, None]


async def test_whole_answer_that_nobody_can_go_on_with_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await half_an_answer(stage)
    stage.network.failing[8000] = ConnectionRefusedError()
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    for _ in range(2):
        await until_asked(stage, 1)
        await stage.say(1, answered({"error": {"message": "Cannot continue"}}, 400))
    await stage.pass_time(5.5)
    assert last_request(stage, 1).body["messages"] == MESSAGES
    await stage.say(1, stream_head() + chunk(event(None) + event("Hi") + event(None, "stop") + usage(5, 1) + DONE) + LAST_CHUNK)
    assert whole(client)[1]["choices"][0]["message"]["content"] == "Hi"
    assert (stage.in_flight, stage.record.not_resumed) == (0, None)
