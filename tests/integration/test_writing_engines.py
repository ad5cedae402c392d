"""The engines that plays break go on as the real ones do, with every trap of theirs: asked directly, without the daemon."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.breaks import SILENT, Kind, Utterance
from support.chat_template import Template
from support.engine_llamacpp import Habits as LlamaCppHabits
from support.engine_llamacpp import LlamaCppDialect
from support.engine_ollama import Habits, OllamaDialect
from support.engine_sglang import SglangDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import ASSISTANT, BOS, SPECIALS, ScriptedModel, bytes_of, ids_of
from support.steps import Answer
from support.wire import CutShortError, Wire, ask, chat, request_bytes, said
from support.writing_engine import Dialect, WritingEngine

GOLDEN = Path(__file__).parents[1] / "golden"
ASKED = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "who is there?"}]
MODEL = ScriptedModel()
DIALECTS: dict[str, Dialect] = {
    "vllm": VllmDialect(MODEL),
    "ollama": OllamaDialect(MODEL),
    "llamacpp": LlamaCppDialect(MODEL),
    "sglang": SglangDialect(MODEL),
}


def written(dialect: Dialect, path: str, **body: Any) -> str:
    """Ask for a stream and return its text."""
    answer = dialect.answer(path, {"model": "tiny", "stream": True, **body})
    assert isinstance(answer, Utterance), answer
    return said(b"".join([*answer.opening, *answer.pieces, *answer.closing]))


def pieces_of(dialect: Dialect, path: str, **body: Any) -> list[str]:
    """Ask for a stream and return the text of each of its pieces."""
    answer = dialect.answer(path, {"model": "tiny", "stream": True, **body})
    assert isinstance(answer, Utterance), answer
    return [said(piece) for piece in answer.pieces]


def told(answer: Utterance | Answer | None) -> dict[str, Any]:
    """Read the JSON of an answer that is no stream."""
    assert isinstance(answer, Answer)
    return dict(json.loads(b"".join(_sent(answer)).partition(b"\r\n\r\n")[2]))


def _sent(answer: Answer) -> Iterator[bytes]:
    for step in answer.steps:
        for cell in step.__closure__ or ():
            if isinstance(cell.cell_contents, tuple):
                yield from cell.cell_contents


def beginnings(pieces: Sequence[str]) -> list[str]:
    """Return everything a client may have received: the text up to each piece, without none and all of it."""
    texts = ["".join(pieces[:i]) for i in range(1, len(pieces))]
    return [text for text in dict.fromkeys(texts) if text and text != "".join(pieces)]


def continued(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """Put what was said so far behind the messages."""
    return [*messages, {"role": "assistant", "content": text}]


def test_the_model_goes_on_from_every_byte_of_what_it_said() -> None:
    for prompt in (f"{BOS}<|im_start|>user\nhello<|im_end|>\n{ASSISTANT}".encode(), b"Once upon a time"):
        whole = MODEL.rest(prompt)
        assert len(whole) > 60
        assert [i for i in range(len(whole) + 1) if MODEL.rest(prompt + whole[:i]) != whole[i:]] == []


def test_tokens_of_a_beginning_are_the_beginning_of_the_tokens() -> None:
    ids = ids_of(MODEL.rest(b"Once upon a time"))
    assert all(ids_of(bytes_of(ids[:i])) == ids[:i] for i in range(len(ids)))


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (f"{BOS}{BOS}{ASSISTANT}", "a second beginning"),
        (f"{ASSISTANT}hello<|im_end|>\n", "turn is over"),
        (f"{ASSISTANT}hello<|im_end|>\n<|im_start|>user\nso", "not the assistant's turn"),
        (f"{ASSISTANT}This it never said", "not what this model said"),
    ],
)
def test_the_model_says_what_is_wrong_with_a_prompt(prompt: str, why: str) -> None:
    assert why in MODEL.rest(prompt.encode()).decode()


@pytest.mark.parametrize("kind", DIALECTS)
def test_all_engines_say_the_same_in_a_chat_streamed_or_not(kind: str) -> None:
    texts = {
        written(DIALECTS[kind], "/v1/chat/completions", messages=ASKED),
        written(DIALECTS["vllm"], "/v1/chat/completions", messages=ASKED),
    }
    answer = DIALECTS[kind].answer("/v1/chat/completions", {"model": "tiny", "messages": ASKED})
    assert isinstance(answer, Utterance)
    assert {answer.whole["choices"][0]["message"]["content"]} == texts


VLLM_WAYS: dict[str, Any] = {
    "continue_final_message": lambda text: (
        "/v1/chat/completions",
        {"messages": continued(ASKED, text), "add_generation_prompt": False, "continue_final_message": True},
    ),
    "text without special tokens": lambda text: (
        "/v1/completions",
        {"prompt": Template().asking(ASKED) + text, "add_special_tokens": False, "max_tokens": 500},
    ),
    "token ids": lambda text: ("/v1/completions", {"prompt": ids_of(Template().asking(ASKED) + text), "max_tokens": 500}),
}


@pytest.mark.parametrize("way", VLLM_WAYS)
def test_vllm_goes_on_by_its_own_means_from_every_piece(way: str) -> None:
    pieces = pieces_of(DIALECTS["vllm"], "/v1/chat/completions", messages=ASKED)
    for text in beginnings(pieces):
        path, body = VLLM_WAYS[way](text)
        assert text + written(DIALECTS["vllm"], path, **body) == "".join(pieces)


def test_vllm_traps() -> None:
    pieces = pieces_of(DIALECTS["vllm"], "/v1/chat/completions", messages=ASKED)
    whole, text = "".join(pieces), "".join(pieces[:5])
    path, chat_path = "/v1/completions", "/v1/chat/completions"
    asking = Template().asking(ASKED) + text
    assert "second beginning" in written(DIALECTS["vllm"], path, prompt=asking, max_tokens=500)
    new_turn = written(DIALECTS["vllm"], chat_path, messages=continued(ASKED, text))
    assert not whole.endswith(new_turn)
    flags = {"add_generation_prompt": False, "continue_final_message": True}
    assert "not the assistant's turn" in written(DIALECTS["vllm"], chat_path, messages=ASKED, **flags)
    both = DIALECTS["vllm"].answer(chat_path, {"messages": ASKED, "add_generation_prompt": True, "continue_final_message": True})
    assert "Cannot set both" in told(both)["error"]["message"]
    grammar = {"response_format": {"type": "json_object"}, **flags}
    assert written(DIALECTS["vllm"], chat_path, messages=continued(ASKED, text), **grammar) == whole
    assert written(DIALECTS["vllm"], chat_path, messages=continued(ASKED, ""), **flags) == whole


def test_vllm_gives_the_whole_prompt_when_it_ends_inside_a_character() -> None:
    ids = ids_of(Template().asking(ASKED) + "caf\u00e9")[:-1]
    assert "who is there?" in written(DIALECTS["vllm"], "/v1/completions", prompt=ids, max_tokens=500)


def test_a_template_that_trims_loses_the_space_at_the_end_and_one_that_drops_reasoning_refuses() -> None:
    model = ScriptedModel("one two  three")
    flags = {"add_generation_prompt": False, "continue_final_message": True}
    body = {"messages": continued(ASKED, "one two  "), **flags}
    assert written(VllmDialect(model, Template(trims=True)), "/v1/chat/completions", **body) == "  three"
    assert written(VllmDialect(model), "/v1/chat/completions", **body) == "three"
    dropping = VllmDialect(model, Template(drops_think=True))
    refused = dropping.answer("/v1/chat/completions", {"messages": continued(ASKED, "<think>so</think>one"), **flags})
    assert "does not appear in the chat" in told(refused)["error"]["message"]


def test_vllm_renders_for_whoever_asks_its_tokenizer() -> None:
    asked = {"messages": continued(ASKED, "SENTINEL "), "add_generation_prompt": False, "continue_final_message": True}
    for template, end in ((Template(), "SENTINEL "), (Template(trims=True), "SENTINEL")):
        dialect = VllmDialect(MODEL, template)
        tokens = told(dialect.answer("/tokenize", asked))["tokens"]
        text = told(dialect.answer("/detokenize", {"tokens": tokens}))["prompt"]
        assert text.startswith(BOS)
        assert text.endswith(f"{ASSISTANT}{end}")
    plain = told(DIALECTS["vllm"].answer("/tokenize", {"prompt": "one"}))
    assert plain["tokens"][0] == SPECIALS[BOS]
    assert plain["count"] == 2
    assert VllmDialect(MODEL, has_tokenizer_paths=False).answer("/tokenize", asked) is None


def test_vllm_counts_and_gives_ids_when_asked() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = {"messages": ASKED, "stream": True, "return_token_ids": True, "stream_options": options}
    answer = DIALECTS["vllm"].answer("/v1/chat/completions", asked)
    assert isinstance(answer, Utterance)
    first = json.loads(answer.opening[0].removeprefix(b"data: "))
    events = [json.loads(piece.removeprefix(b"data: ")) for piece in answer.pieces]
    ids = [number for event in events for number in event["choices"][0]["token_ids"]]
    assert first["prompt_token_ids"] == ids_of(Template().asking(ASKED))
    assert bytes_of(ids[:-1]).decode() == said(b"".join(answer.pieces))
    usage = json.loads(answer.closing[0].removeprefix(b"data: "))["usage"]
    assert [event["usage"]["completion_tokens"] for event in events][-1] == len(ids) == usage["completion_tokens"]
    assert usage["prompt_tokens"] == len(first["prompt_token_ids"])


def test_vllm_text_lags_behind_with_stop_strings_and_llamacpp_holds_back_only_what_may_be_one() -> None:
    model = ScriptedModel("one two three four five")
    lagging = pieces_of(VllmDialect(model), "/v1/chat/completions", messages=ASKED, stop=["four"])
    assert ("".join(lagging), lagging[0]) == ("one two three ", "")
    holding = pieces_of(LlamaCppDialect(model), "/v1/chat/completions", messages=ASKED, stop=["four"])
    assert ("".join(holding), holding[0]) == ("one two three ", "one")


def test_bounds_end_an_answer_and_the_finish_says_which() -> None:
    for kind, path, key in [("vllm", "/v1/chat/completions", "max_tokens"), ("ollama", "/v1/chat/completions", "max_tokens")]:
        answer = DIALECTS[kind].answer(path, {"model": "tiny", "messages": ASKED, key: 3})
        assert isinstance(answer, Utterance)
        assert answer.whole["choices"][0]["finish_reason"] == "length"
        assert answer.whole["usage"]["completion_tokens"] == 3
    ignored = DIALECTS["ollama"].answer("/v1/chat/completions", {"model": "m", "messages": ASKED, "max_completion_tokens": 3})
    assert isinstance(ignored, Utterance)
    assert ignored.whole["choices"][0]["finish_reason"] == "stop"
    native = DIALECTS["ollama"].answer("/api/chat", {"model": "m", "messages": ASKED, "options": {"num_predict": 3}})
    assert isinstance(native, Utterance)
    assert (native.whole["done_reason"], native.whole["eval_count"]) == ("length", 3)


@pytest.mark.parametrize("habits", [Habits(), Habits(has_last_branch=True), Habits(is_native=True)])
def test_ollama_goes_on_raw_whatever_its_template(habits: Habits) -> None:
    dialect = OllamaDialect(MODEL, habits)
    pieces = pieces_of(dialect, "/api/chat", messages=ASKED)
    rendered = told(dialect.answer("/api/chat", {"model": "m", "messages": ASKED, "_debug_render_only": True}))
    prompt = rendered["_debug_info"]["rendered_template"]
    for text in beginnings(pieces):
        assert text + written(dialect, "/api/generate", prompt=prompt + text, raw=True) == "".join(pieces)


def test_ollama_goes_on_from_a_last_message_only_where_its_template_leaves_it_open() -> None:
    for habits, goes_on in [(Habits(), False), (Habits(has_last_branch=True), True), (Habits(is_native=True), True)]:
        dialect = OllamaDialect(MODEL, habits)
        pieces = pieces_of(dialect, "/api/chat", messages=ASKED)
        whole, text = "".join(pieces), "".join(pieces[:4])
        for path in ("/api/chat", "/v1/chat/completions"):
            assert (text + written(dialect, path, messages=continued(ASKED, text)) == whole) is goes_on
        asked = {"model": "m", "messages": continued(ASKED, "SENTINEL"), "_debug_render_only": True}
        rendered = told(dialect.answer("/api/chat", asked))["_debug_info"]["rendered_template"]
        assert rendered.endswith("SENTINEL") is goes_on


def test_ollama_traps() -> None:
    dialect = OllamaDialect(MODEL, Habits(has_last_branch=True))
    pieces = pieces_of(dialect, "/api/chat", messages=ASKED)
    whole, text = "".join(pieces), "".join(pieces[:4])
    prompt = dialect.chat_prompt(ASKED) + text
    assert "second beginning" in written(dialect, "/api/generate", prompt=BOS + prompt, raw=True)
    assert written(dialect, "/v1/completions", prompt=prompt) not in (whole, whole[len(text) :])
    assert written(dialect, "/api/generate", prompt=prompt, raw=True, format="json") == whole
    parts = [{"type": "text", "text": text[:4]}, {"type": "text", "text": text[4:]}]
    merged = [*ASKED, {"role": "assistant", "content": parts}]
    assert "not what this model said" in written(dialect, "/v1/chat/completions", messages=merged)
    assert told(dialect.answer("/api/generate", {"model": "m", "prompt": "a", "raw": True, "context": [1]}))["error"]


def test_ollama_drops_old_messages_silently_unless_it_must_not() -> None:
    dialect = OllamaDialect(MODEL, Habits(context_tokens=40))
    long = [{"role": "user", "content": "hello " * 30}, {"role": "assistant", "content": "yes"}, *ASKED]
    short = OllamaDialect(MODEL).chat_prompt(ASKED)
    answer = dialect.answer("/api/chat", {"model": "m", "messages": long})
    assert isinstance(answer, Utterance)
    assert answer.whole["prompt_eval_count"] <= 41
    assert len(ids_of(short)) < 40
    assert "error" in told(dialect.answer("/api/chat", {"model": "m", "messages": long, "truncate": False}))


def test_ollama_ends_an_endless_repetition_without_a_finish() -> None:
    dialect = OllamaDialect(ScriptedModel("la" + " la" * 60))
    lines = pieces_of(dialect, "/api/chat", messages=ASKED)
    assert lines == ["la"] + [" la"] * 30
    answer = dialect.answer("/v1/chat/completions", {"model": "m", "messages": ASKED})
    assert isinstance(answer, Utterance)
    assert b"[DONE]" not in b"".join([*answer.pieces, *answer.closing])
    assert (answer.whole["choices"][0]["finish_reason"], answer.whole["usage"]["total_tokens"]) == (None, 0)


def test_reasoning_is_told_apart_as_each_engine_does() -> None:
    model = ScriptedModel("<think>hmm so</think>one two")
    cases: list[tuple[Dialect, str, str]] = [
        (VllmDialect(model), "/v1/chat/completions", "reasoning"),
        (LlamaCppDialect(model, LlamaCppHabits(thinks=True)), "/v1/chat/completions", "reasoning_content"),
        (OllamaDialect(model, Habits(thinks=True)), "/api/chat", "thinking"),
    ]
    for dialect, path, name in cases:
        answer = dialect.answer(path, {"model": "m", "stream": True, "messages": ASKED})
        assert isinstance(answer, Utterance)
        data = b"".join(answer.pieces)
        assert said(data) == "one two"
        assert f'"{name}":"hmm"'.encode() in data
    raw = OllamaDialect(model, Habits(thinks=True))
    prompt = raw.chat_prompt(ASKED) + "<think>hmm"
    assert written(raw, "/api/generate", prompt=prompt, raw=True) == " so</think>one two"


def test_tool_calls_come_in_pieces_or_whole() -> None:
    model = ScriptedModel('sure <tool_call>{"name": "now", "arguments": {"zone": "utc"}}</tool_call>')
    streaming: list[Dialect] = [VllmDialect(model), LlamaCppDialect(model)]
    for dialect in streaming:
        answer = dialect.answer("/v1/chat/completions", {"model": "m", "messages": ASKED, "tools": [{"a": 1}], "stream": True})
        assert isinstance(answer, Utterance)
        deltas = [json.loads(piece.removeprefix(b"data: "))["choices"][0] for piece in answer.pieces]
        calls = [call for choice in deltas for call in choice["delta"].get("tool_calls", [])]
        assert calls[0]["function"]["name"] == "now"
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        assert json.loads(arguments) == {"zone": "utc"}
        assert deltas[-1]["finish_reason"] == "tool_calls"
    lines = OllamaDialect(model).answer("/api/chat", {"model": "m", "messages": ASKED, "tools": [{"a": 1}], "stream": True})
    assert isinstance(lines, Utterance)
    calls = [json.loads(piece)["message"].get("tool_calls") for piece in lines.pieces]
    assert [call for call in calls if call] == [
        [{"id": "call_1", "function": {"index": 0, "name": "now", "arguments": {"zone": "utc"}}}]
    ]


def test_llamacpp_goes_on_by_its_own_means_from_every_piece() -> None:
    dialect = LlamaCppDialect(MODEL)
    pieces = pieces_of(dialect, "/v1/chat/completions", messages=ASKED)
    for text in beginnings(pieces):
        assert text + written(dialect, "/v1/chat/completions", messages=continued(ASKED, text)) == "".join(pieces)
        prompt = told(dialect.answer("/apply-template", {"messages": continued(ASKED, text)}))["prompt"]
        assert text + written(dialect, "/v1/completions", prompt=prompt) == "".join(pieces)


def test_llamacpp_traps() -> None:
    pieces = pieces_of(DIALECTS["llamacpp"], "/v1/chat/completions", messages=ASKED)
    whole, text = "".join(pieces), "".join(pieces[:4])
    assert "derailed" in written(DIALECTS["llamacpp"], "/v1/chat/completions", messages=continued(ASKED, ""))
    answer = DIALECTS["llamacpp"].answer("/v1/chat/completions", {"messages": continued(ASKED, text)})
    assert isinstance(answer, Utterance)
    assert answer.whole["choices"][0]["message"]["content"] == whole
    closed = LlamaCppDialect(MODEL, LlamaCppHabits(prefills=False))
    assert written(closed, "/v1/chat/completions", messages=continued(ASKED, text)) != whole[len(text) :]
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    assert written(closed, "/v1/chat/completions", messages=continued(ASKED, text), **flags) == whole[len(text) :]
    old = LlamaCppDialect(MODEL, LlamaCppHabits(thinks=True, refuses_thinking_prefill=True))
    refused = told(old.answer("/v1/chat/completions", {"messages": continued(ASKED, text)}))
    assert "incompatible with enable_thinking" in refused["error"]["message"]


def test_sglang_goes_on_with_its_flag_and_takes_the_text_for_the_users_without() -> None:
    pieces = pieces_of(DIALECTS["sglang"], "/v1/chat/completions", messages=ASKED)
    for text in beginnings(pieces):
        path = "/v1/chat/completions"
        messages = continued(ASKED, text)
        assert text + written(DIALECTS["sglang"], path, messages=messages, continue_final_message=True) == "".join(pieces)
        assert text + written(DIALECTS["sglang"], path, messages=messages) != "".join(pieces)


def shape_of(value: Any) -> Any:
    """Return the keys of an object at every depth, the values left out."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items() if key not in ("timings", "prompt_tokens_details")}
    return [shape_of(item) for item in value[:1]] if isinstance(value, list) else None


@pytest.mark.parametrize(
    ("file", "kind", "path", "body"),
    [
        ("llamacpp/chat.sse", "llamacpp", "/v1/chat/completions", {"messages": ASKED, "stream_options": {"include_usage": True}}),
        ("llamacpp/completions.sse", "llamacpp", "/v1/completions", {"prompt": "Once"}),
        ("ollama/chat.ndjson", "ollama", "/api/chat", {"messages": ASKED}),
        ("ollama/generate.ndjson", "ollama", "/api/generate", {"prompt": "Once"}),
        ("sglang/chat.sse", "sglang", "/v1/chat/completions", {"messages": ASKED}),
    ],
)
def test_first_and_last_events_have_the_fields_of_the_golden_stream(file: str, kind: str, path: str, body: Any) -> None:
    answer = DIALECTS[kind].answer(path, {"model": "tiny", "stream": True, **body})
    assert isinstance(answer, Utterance)
    ours = [*answer.opening, *answer.pieces, *answer.closing]
    golden = [event for event in (GOLDEN / file).read_bytes().splitlines() if event]
    for at in (0, -1 if path.startswith("/api/") else -2):
        mine, theirs = (json.loads(events[at].removeprefix(b"data: ")) for events in (ours, golden))
        assert shape_of(mine) == shape_of(theirs)


@pytest.fixture(scope="module")
def wired() -> Iterator[WritingEngine]:
    """Run one vLLM for the plays of breaks."""
    with WritingEngine("gpu0", VllmDialect(MODEL), engine="vllm") as engine:
        yield engine


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("after", [0, 1, 7, 10**6])
def test_every_break_leaves_what_came_before_and_no_good_end(wired: WritingEngine, kind: Kind, after: int) -> None:
    wired.fresh()
    whole = ask(wired.port, body=chat(stream=True))
    assert not whole.is_cut
    wired.breaks(kind, after=after)
    body = b""
    with Wire(wired.port, deadline_s=0.3 if kind in SILENT else 5.0) as wire:
        wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        is_clean = False
        try:
            for piece in wire.read_pieces(wire.read_head()):
                body += piece
                if b": keep-alive" in body:
                    break
            else:
                is_clean = True
        except (CutShortError, TimeoutError, ValueError, ConnectionError):
            pass
    assert is_clean is (kind in (Kind.CLEAN_END, Kind.ERROR, Kind.MALFORMED))
    events = [event for event in body.split(b"\n\n")[:-1] if event.startswith(b'data: {"id":"chatcmpl-0')]
    assert len(events) - 1 == min(after, whole.body.count(b'"delta"') - 1)
    assert kind in (Kind.ERROR, Kind.MALFORMED) or b"[DONE]" not in body
    assert ask(wired.port, body=chat(stream=True)).text == whole.text
    assert len(wired.generated) == 3
