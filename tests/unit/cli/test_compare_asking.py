"""One prompt to one side: what is sent, what is measured, and that whatever a server does is said in words, in time."""

import json
from typing import Any

import pytest

from support.answers import LAST_CHUNK, begun_stream, chunk, compact_sse, sse, stream, stream_head, whole
from support.scripted import ScriptedEngine
from support.steps import Answer as Steps
from support.steps import answer, close, hang, reset, send
from understudy.cli import compare_asking
from understudy.cli.compare_asking import Answer, body_of, fetch_answer, fetch_models, opened
from understudy.cli.compare_expectations import Expectation, compile_schema
from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_sides import Side
from understudy.core.color import Color, Prompt

MESSAGES: list[Any] = [{"role": "user", "content": "Who is there?"}]
ENTRY = Entry(1, 1, MESSAGES, fields={"temperature": 0})
DONE = b"data: [DONE]\n\n"


def said(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    return compact_sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more})


WHOLE = (said("good "), said("evening"), said(finish="stop"), DONE)


async def asked(url: str, entry: Entry = ENTRY, timeout_s: float = 10.0, **side: Any) -> Answer:
    one = Side("side", url, **side)
    async with opened(one) as client:
        return await fetch_answer(client, one, entry, "tiny", timeout_s)


@pytest.fixture
def engine() -> Any:
    with ScriptedEngine() as running:
        yield running


async def test_an_answer_is_measured(engine: ScriptedEngine) -> None:
    usage = compact_sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    engine.always(stream([b": a comment\n\n", *WHOLE[:3], usage, DONE]))
    found = await asked(engine.url)
    assert (found.text, found.tokens, found.is_estimated, found.error, found.faults) == ("good evening", 2, False, "", ())
    assert found.ttft_s is not None
    assert 0.0 < found.ttft_s <= found.duration_s < 10.0


async def test_the_request_is_a_stream_with_usage_of_the_model_asked_for(engine: ScriptedEngine) -> None:
    await asked(engine.url, key=b"hunter2", asked_color=Color.GREEN)
    (request,) = engine.seen.requests
    assert request.path == "/v1/chat/completions"
    assert request.header("authorization") == "Bearer hunter2"
    assert request.header("x-understudy-color") == "green"
    assert request.json() == {
        "model": "tiny",
        "messages": MESSAGES,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_backend_gets_its_own_name_of_the_model_and_its_prompt() -> None:
    side = Side("pi", "http://pi", models=(("tiny", "tiny:q4"),), prompt=Prompt("Be brief.", defaults=(("top_p", "0.5"),)))
    body = json.loads(body_of(side, ENTRY, "tiny"))
    assert (body["model"], body["top_p"], body["temperature"]) == ("tiny:q4", 0.5, 0)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert json.loads(body_of(side, Entry(1, 1, MESSAGES, model="large"), "tiny"))["model"] == "large"
    assert json.loads(body_of(Side("pi", "http://pi", model="mine"), ENTRY, "tiny"))["model"] == "mine"


async def test_where_nobody_counts_the_pieces_are_counted(engine: ScriptedEngine) -> None:
    engine.always(stream(WHOLE))
    found = await asked(engine.url)
    assert (found.tokens, found.is_estimated) == (2, True)


@pytest.mark.parametrize("count", ["1" + "0" * 400, "-1", "10000001", "1.5", "true", '"2"'])
async def test_a_count_that_cannot_be_is_none(engine: ScriptedEngine, count: str) -> None:
    usage = sse('{"choices": [], "usage": {"completion_tokens": COUNT}}'.replace("COUNT", count))
    timed = '{"choices": [{"index": 0, "delta": {}, "finish_reason": null}], "timings": {"predicted_n": COUNT}}'
    timings = sse(timed.replace("COUNT", count))
    engine.always(stream([*WHOLE[:3], usage, timings, DONE]))
    found = await asked(engine.url)
    assert (found.text, found.tokens, found.is_estimated) == ("good evening", 2, True)


async def test_speed_is_characters_and_tokens_after_the_first_content(engine: ScriptedEngine) -> None:
    reading = compare_asking._Reading(0.0)
    reading.feed(said("good "), 1.0)
    reading.feed(said("evening "), 1.5)
    reading.feed(said("you"), 3.0)
    found = reading.answer(3.5, wants_json=False)
    assert (found.ttft_s, found.speed, found.token_speed) == (1.0, 11 / 2, 2 / 2)


async def test_a_call_with_an_index_of_another_kind_is_a_call(engine: ScriptedEngine) -> None:
    call = compact_sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": []}]}, "finish_reason": None}]})
    engine.always(stream([call, said(finish="tool_calls"), DONE]))
    assert (await asked(engine.url)).calls == 1


async def test_thoughts_and_calls_are_told_apart_from_the_text(engine: ScriptedEngine) -> None:
    thought = compact_sse({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]})
    call = compact_sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a"}]}, "finish_reason": None}]})
    engine.always(stream([thought, call, said(finish="tool_calls"), DONE]))
    found = await asked(engine.url)
    assert (found.thought, found.text, found.calls, found.faults) == ("hm", "", 1, ())


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        (WHOLE[:3], ("no end of the stream ([DONE])",)),
        (WHOLE[:2], ("no end of the stream ([DONE])", "no finish reason")),
        ((WHOLE[0], sse('{"choi'), *WHOLE[1:]), ("1 malformed event",)),
        ((said(finish="stop"), DONE), ("an empty answer",)),
        ((*WHOLE[:3], b"data: [DONE]"), ()),
    ],
)
async def test_faults_of_form_are_told(engine: ScriptedEngine, events: tuple[bytes, ...], faults: tuple[str, ...]) -> None:
    engine.always(stream(events))
    found = await asked(engine.url)
    assert (found.error, found.faults) == ("", faults)


async def test_json_that_is_none_is_a_fault_unless_it_was_cut(engine: ScriptedEngine) -> None:
    entry = Entry(1, 1, MESSAGES, expect=Expectation(validate=compile_schema({})))
    engine.always(stream(WHOLE))
    assert (await asked(engine.url, entry)).faults == ("JSON was asked for, and it is none",)
    engine.always(stream([said('{"a"'), said(finish="length"), DONE]))
    found = await asked(engine.url, entry)
    assert (found.faults, found.is_truncated) == ((), True)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (whole(404, {"error": {"message": "no such model"}}), "answered 404: no such model"),
        (whole(500, b"\x00oops"), "answered 500"),
        (whole(200, {"choices": []}), "gave no stream of events (application/json)"),
        (stream([WHOLE[0], sse({"error": "out of\x1b memory"})]), "reported an error inside its answer: out of\x1b memory"),
        (begun_stream(WHOLE[:1], close()), "broke off in the middle of its answer"),
        (begun_stream(WHOLE[:1], reset()), "broke off in the middle of its answer"),
        (answer(close()), "closed the connection without an answer"),
        (answer(send(b"not http\r\n\r\n"), close()), "closed the connection without an answer"),
    ],
)
async def test_what_is_no_answer_is_said_in_words(engine: ScriptedEngine, steps: Steps, told: str) -> None:
    engine.always(steps)
    assert (await asked(engine.url)).error == told


async def test_what_came_before_the_break_is_kept(engine: ScriptedEngine) -> None:
    engine.always(begun_stream(WHOLE[:1], close()))
    found = await asked(engine.url)
    assert (found.text, found.faults) == ("good ", ())


async def test_who_hangs_is_left_in_time(engine: ScriptedEngine) -> None:
    engine.always(begun_stream(WHOLE[:1], hang()))
    assert (await asked(engine.url, timeout_s=0.2)).error == "gave no whole answer within 0.2s"


async def test_who_does_not_close_after_the_end_is_left_without_a_word(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_asking, "_AFTER_END_S_MAX", 0.05)
    engine.always(begun_stream(WHOLE, hang()))
    found = await asked(engine.url)
    assert (found.error, found.faults) == ("", ())
    assert found.duration_s < 5.0


async def test_who_is_not_there_is_told(engine: ScriptedEngine) -> None:
    assert not (await asked(engine.url)).is_unreached
    engine.refuse()
    found = await asked(engine.url)
    assert (found.error, found.is_unreached) == ("refused the connection", True)
    assert (await asked("http://nobody.invalid")).error == "has a name that does not resolve"
    assert (await asked("http://localhost", socket="/nowhere/at.all")).error == "could not be reached"


async def test_a_text_without_end_is_ended(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_asking, "TEXT_CHARACTERS_MAX", 6)
    engine.always(stream(WHOLE))
    assert (await asked(engine.url)).error == "gave more than 6 characters"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"X-Understudy-Color": "green", "X-Understudy-Backend": "gpu1"}, ""),
        ({"X-Understudy-Color": "blue"}, "answered by blue; is UNDERSTUDY_KEY a trusted client's?"),
        ({}, "does not say which color answered (no X-Understudy-Color)"),
    ],
)
async def test_the_color_that_was_asked_must_have_answered(engine: ScriptedEngine, headers: dict[str, str], told: str) -> None:
    engine.always(answer(send(stream_head(headers=headers), *map(chunk, WHOLE), LAST_CHUNK)))
    found = await asked(engine.url, asked_color=Color.GREEN)
    assert (found.error, found.backend) == (told, headers.get("X-Understudy-Backend", ""))


async def test_models_are_listed_by_the_names_that_prompts_use(engine: ScriptedEngine) -> None:
    engine.list_models("a", "b", "c")
    side = Side("pi", engine.url, models=(("client-b", "b"),), listed=("client-b", "c"))
    async with opened(side) as client:
        assert await fetch_models(client, side, 5.0) == ["client-b", "c"]
        engine.refuse()
        assert await fetch_models(client, side, 5.0) == "refused the connection"


async def test_a_list_that_is_none_is_told(engine: ScriptedEngine) -> None:
    side = Side("pi", f"{engine.url}/nowhere")
    async with opened(side) as client:
        assert await fetch_models(client, side, 5.0) == "gave no list of its models (it answered 404)"


def test_what_was_said_is_in_no_repr() -> None:
    assert "hunter" not in repr(Answer("hunter2", "hunter3")) + repr(Side("a", "http://a", key=b"hunter4"))
