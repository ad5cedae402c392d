"""A stream whose text is whole is ended without another backend."""

import pytest

from support.spliced import GOLDEN, events, read, received, sse
from understudy.core.transcript import Shape, Spent, Transcript, Wish
from understudy.dialects.endings import closing, cut_short, writer_of
from understudy.dialects.writer import OllamaWriter, OpenAIWriter
from understudy.dialects.writer_anthropic import AnthropicWriter

CHAT, TEXT, OLLAMA, MESSAGES = Shape.OPENAI_CHAT, Shape.OPENAI_TEXT, Shape.OLLAMA_CHAT, Shape.ANTHROPIC
SPENT = Spent(30, 9)
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("shape", "writer"), [(CHAT, OpenAIWriter), (TEXT, OpenAIWriter), (OLLAMA, OllamaWriter), (MESSAGES, AnthropicWriter)]
)
def test_each_shape_has_its_writer(shape: Shape, writer: type) -> None:
    assert isinstance(writer_of(Wish(shape), Transcript(), None, 0.0), writer)


@pytest.mark.parametrize(
    ("shape", "name", "until", "missing"),
    [
        (CHAT, "llamacpp/chat.sse", 6, DONE),
        (CHAT, "llamacpp/chat.sse", 7, DONE),
        (TEXT, "llamacpp/completions.sse", 4, DONE),
        (OLLAMA, "ollama/chat.ndjson", 3, b""),
        (MESSAGES, "llamacpp/messages.sse", 7, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    ],
)
def test_a_stream_that_has_its_finish_only_lacks_its_terminator(shape: Shape, name: str, until: int, missing: bytes) -> None:
    assert closing(Wish(shape), received(shape, b"".join(events(name)[:until]))) == missing


def test_usage_is_added_where_it_is_known_and_did_not_come() -> None:
    wish = Wish(CHAT, wants_usage=True)
    used = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    before = received(CHAT, sse({"id": "a", **finish, **used}))
    usage, done = read(closing(wish, before) or b"")
    assert usage == {"id": "a", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    assert done == "[DONE]"
    assert closing(wish, received(CHAT, sse(finish))) == DONE
    assert closing(wish, received(CHAT, sse(finish, {"choices": [], **used}))) == DONE


def test_a_stream_without_a_finish_cannot_be_closed() -> None:
    assert closing(Wish(CHAT), received(CHAT, events("llamacpp/chat.sse")[1])) is None


def test_a_stream_of_several_answers_or_one_that_cannot_be_read_cannot_be_closed() -> None:
    finish = {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}
    assert closing(Wish(CHAT), received(CHAT, sse(finish))) is None
    unreadable = received(CHAT, (GOLDEN / "llamacpp/chat.sse").read_bytes() + b"data: {\n\n")
    assert closing(Wish(CHAT), unreadable) is None


@pytest.mark.parametrize(
    ("shape", "name", "until", "finish"),
    [
        (CHAT, "llamacpp/chat.sse", 3, "length"),
        (TEXT, "vllm/completions.sse", 1, "length"),
        (MESSAGES, "llamacpp/messages.sse", 3, "max_tokens"),
    ],
)
def test_an_answer_that_has_all_its_tokens_ends_with_length(shape: Shape, name: str, until: int, finish: str) -> None:
    before = b"".join(events(name)[:until])
    data = cut_short(Wish(shape), received(shape, before), SPENT)
    whole = received(shape, before + data)
    assert received(shape, before).finish == ""
    assert (whole.finish, whole.text) == (finish, received(shape, before).text)
    assert data.endswith(closing(Wish(shape), whole) or b"nothing")
    assert b"understudy" not in data


def test_its_usage_is_told_as_far_as_it_is_known() -> None:
    transcript = received(CHAT, events("llamacpp/chat.sse")[1])
    wish = Wish(CHAT, wants_usage=True)
    assert read(cut_short(wish, transcript, SPENT))[1]["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 9,
        "total_tokens": 39,
    }
    assert b"usage" not in cut_short(wish, transcript, Spent(None, 9))
    assert b"usage" not in cut_short(Wish(CHAT), transcript, SPENT)
    llamacpp = received(TEXT, events("llamacpp/completions.sse")[0])
    finish, done = read(cut_short(Wish(TEXT), llamacpp, SPENT))
    assert (finish["choices"][0]["finish_reason"], finish["usage"]["total_tokens"], done) == ("length", 39, "[DONE]")


def test_ollamas_last_line_is_all_it_takes() -> None:
    transcript = received(OLLAMA, events("ollama/chat.ndjson")[0])
    (last,) = read(cut_short(Wish(OLLAMA), transcript, SPENT))
    assert last == {
        "model": "m",
        "created_at": "2026-08-21T10:00:00.000001Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "length",
        "prompt_eval_count": 30,
        "eval_count": 9,
    }
