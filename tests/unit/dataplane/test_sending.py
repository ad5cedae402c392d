"""Plays of what a backend is sent: the client's bytes, but for the model's name and what the file lets be asked for besides."""

import json
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, sse, stream_head
from support.continuing import BEGUN, LLAMA, OLLAMA, answered, last_request, llamas, text_of, until_asked
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request
from support.targets import DOWN, UP, target, targets
from support.transports import settle
from understudy.core.snapshot import BackendState, FailoverRules, ResumeRule

EXACT = FailoverRules(resume=ResumeRule.EXACT)
MESSAGES = [{"role": "user", "content": "x"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 0}}


def sent(stage: Stage, number: int = 0) -> bytes:
    """Return the body that gpuN was sent."""
    return stage.engine(number).data.partition(b"\r\n\r\n")[2]


def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Write one of llama.cpp's events."""
    head = {"created": 7, "id": "c", "model": "m", "system_fingerprint": "b1", "object": "chat.completion.chunk"}
    return sse({"choices": [{"finish_reason": finish, "index": 0, "delta": delta}], **head, **more})


def ending(finish: str = "stop", tokens: int = 2) -> bytes:
    """Write the end of one of llama.cpp's streams, which it generated `tokens` for."""
    usage = {**json.loads(event({})[6:]), "choices": [], "usage": USAGE, "timings": {"predicted_n": tokens}}
    return event({}, finish) + sse(usage) + DONE


def whole_text(data: bytes) -> str:
    """Return the text of a whole answer."""
    return str(json.loads(data.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])


# --- as it came


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"qwen", "stream" :true,"messages":[],"x":1.50}',
        '{"model": "qwen", "stream": true, "messages": [{"content": "\u00e9\\u00e9"}]}'.encode(),
        b'{"model": "qwen", "stream": true, "messages": [], "stream": true}',
    ],
)
async def test_body_goes_on_byte_for_byte(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    stage = Stage(monkeypatch, *targets(1))
    await stage.ask(request("POST", "/v1/chat/completions", body))
    assert sent(stage) == body


async def test_only_the_models_name_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, models=(("public", "qwen"),)))
    await stage.ask(request("POST", "/v1/chat/completions", b'{"x":1.50, "model" : "public","stream":true}'))
    assert sent(stage) == b'{"x":1.50, "model" : "qwen","stream":true}'


async def test_who_goes_on_is_asked_by_its_own_name_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, LLAMA, models=(("public", "qwen"),)), target(1, LLAMA, models=(("public", "qwen"),)))
    await stage.ask(chat(model="public"))
    await stage.say(0, BEGUN)
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert last_request(stage, 1).body["model"] == "qwen"


# --- token ids


async def test_ids_are_asked_for_and_kept_from_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=EXACT)
    client = await stage.ask(chat())
    assert json.loads(sent(stage))["return_token_ids"] is True
    first = sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_token_ids": [1, 2]})
    second = sse({"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [3]}]})
    await stage.say(0, stream_head() + chunk(first) + chunk(second) + chunk(FINISH + DONE) + LAST_CHUNK)
    body = dechunk(client.data)[1]
    assert b"token_ids" not in body
    assert text_of(body) == "a"
    assert stage.record.sent_bytes == len(body)


@pytest.mark.parametrize("rule", list(ResumeRule))
async def test_ids_are_asked_for_only_where_the_file_says_so(monkeypatch: pytest.MonkeyPatch, rule: ResumeRule) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=FailoverRules(resume=rule))
    await stage.ask(chat())
    assert (b"return_token_ids" in sent(stage)) == (rule is ResumeRule.EXACT)


@pytest.mark.parametrize(
    ("fields", "more"), [(["X-Understudy-No-Resume: 1"], {}), ([], {"stream": False}), ([], {"return_token_ids": False})]
)
async def test_ids_are_not_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch, fields: list[str], more: dict[str, Any]) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=EXACT)
    await stage.ask(chat(*fields, **more))
    assert b'"return_token_ids":true' not in sent(stage)


async def test_client_that_asked_for_ids_itself_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1), failover=EXACT)
    client = await stage.ask(chat(return_token_ids=True))
    told = sse({"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [3]}]})
    await stage.say(0, stream_head() + chunk(told + FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[1] == told + FINISH + DONE


async def test_answer_goes_on_by_the_very_tokens_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(3), failover=FailoverRules(resume=ResumeRule.EXACT))
    client = await stage.ask(chat())
    prompt, ids = [ord(one) for one in "<assistant>"], [ord(one) for one in "Hel"]

    def piece(text: str, **more: object) -> bytes:
        return sse({"choices": [{"index": 0, "delta": {"content": text}, "token_ids": [ord(one) for one in text]}], **more})

    await stage.say(0, stream_head() + chunk(piece("", prompt_token_ids=prompt)) + chunk(piece("Hel")))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    asked = await until_asked(stage, 1)
    assert (asked.path, asked.body["prompt"], asked.body["return_token_ids"]) == ("/v1/completions", prompt + ids, True)
    text = sse({"choices": [{"index": 0, "text": "lo", "token_ids": [ord("l"), ord("o")], "finish_reason": None}]})
    await stage.say(1, stream_head() + chunk(text))
    stage.engine(1).lose(ConnectionResetError())
    await settle()
    assert (await until_asked(stage, 2)).body["prompt"] == [*prompt, *ids, ord("l"), ord("o")]
    end = sse({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    await stage.say(2, stream_head() + chunk(end + DONE) + LAST_CHUNK)
    body = dechunk(client.data)[1]
    assert (text_of(body), b"token_ids" in body, dechunk(client.data)[2]) == ("Hello", False, True)


# --- whole answers asked for as streams


async def test_whole_answer_is_asked_for_as_a_stream_and_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    client = await stage.ask(chat(stream=False, messages=MESSAGES))
    asked = json.loads(sent(stage))
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    await stage.say(0, stream_head() + chunk(event({"role": "assistant", "content": None})), chunk(event({"content": "Hel"})))
    assert client.data == b""
    await stage.say(0, chunk(event({"content": "lo"})) + chunk(ending()))
    assert client.data == b""
    await stage.say(0, LAST_CHUNK)
    head, _, body = client.data.partition(b"\r\n\r\n")
    answer = json.loads(body)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/json" in head
    assert b"Content-Length: %d" % len(body) in head
    assert (whole_text(client.data), answer["object"], answer["usage"]) == ("Hello", "chat.completion", USAGE)
    assert not client.is_closing()
    assert (stage.record.status, stage.record.failure, stage.in_flight) == (200, None, 0)
    assert stage.record.sent_bytes == len(body)
    assert stage.relay.pool.take(stage.published.current.targets[0].backend) is not None


@pytest.mark.parametrize(
    ("state", "fields", "rules"),
    [
        (LLAMA, {"messages": MESSAGES}, FailoverRules(assemble=False)),
        (LLAMA, {"messages": MESSAGES, "n": 2}, FailoverRules()),
        (LLAMA, {"messages": MESSAGES, "unheard_of": 2}, FailoverRules()),
        (UP, {"messages": MESSAGES}, FailoverRules()),
    ],
)
async def test_whole_answer_that_is_not_known_to_be_the_same_is_asked_for_as_it_is(
    monkeypatch: pytest.MonkeyPatch, state: BackendState, fields: dict[str, Any], rules: FailoverRules
) -> None:
    stage = Stage(monkeypatch, target(0, state), failover=rules)
    client = await stage.ask(chat(stream=False, **fields))
    assert json.loads(sent(stage))["stream"] is False
    await stage.say(0, answered({"choices": [{"message": {"content": "Hello"}}]}))
    assert whole_text(client.data) == "Hello"


async def test_whole_answer_that_comes_although_a_stream_was_asked_for_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    client = await stage.ask(chat(stream=False, messages=MESSAGES))
    await stage.say(0, answered({"choices": [{"message": {"content": "Hello"}}]}))
    assert whole_text(client.data) == "Hello"


async def test_answer_of_which_the_engine_kept_something_back_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its token limit llama.cpp keeps back what may become a stop string: only a whole answer has it."""
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat(stream=False, messages=MESSAGES))
    begun = event({"role": "assistant", "content": None}) + event({"content": "Hel"}, timings={"predicted_n": 1})
    await stage.say(0, stream_head() + chunk(begun + ending("length", 2)) + LAST_CHUNK)
    assert client.data == b""
    assert last_request(stage, 0).body["stream"] is False
    assert 8001 not in stage.network.opened
    await stage.say(0, answered({"choices": [{"message": {"content": "Hel<"}}]}))
    assert whole_text(client.data) == "Hel<"
    assert (stage.record.failure, stage.in_flight, len(stage.records)) == (None, 0, 1)
    assert stage.tally.of("gpu0").failures_total == 0


async def test_ollamas_whole_answers_are_put_together_from_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, target(0, OLLAMA), target(1, DOWN))
    body = json.dumps({"model": "qwen", "stream": False, "messages": MESSAGES}).encode()
    client = await stage.ask(request("POST", "/api/chat", body))
    assert json.loads(sent(stage))["stream"] is True
    lines = [{"model": "qwen", "message": {"role": "assistant", "content": text}, "done": False} for text in ("Hel", "lo")]
    last = {
        "model": "qwen",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "eval_count": 2,
    }
    wire = b"".join(json.dumps(line).encode() + b"\n" for line in (*lines, last))
    await stage.say(0, stream_head("application/x-ndjson") + chunk(wire) + LAST_CHUNK)
    answer = json.loads(client.data.partition(b"\r\n\r\n")[2])
    assert (answer["message"]["content"], answer["done"], answer["eval_count"]) == ("Hello", True, 2)


async def test_client_of_a_whole_answer_is_shown_no_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(1))
    client = await stage.ask(chat(stream=False, messages=MESSAGES))
    await stage.say(0, stream_head() + chunk(OPENING + delta("Hel")))
    await stage.pass_time(20.0)
    assert client.data == b""
