"""What cannot go on ends honestly: tool calls, several choices, constrained answers, repetition; nothing doubled or corrupted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.answers import LAST_CHUNK, begun_stream, whole
from support.breaks import PROMPT, Kind
from support.endings import honest_end, whole_story
from support.resume_stage import Stages, count_of, staged
from support.scripted_model import ScriptedModel
from support.steps import send
from support.wire import Reply
from support.writing_cast import CHAT, MESSAGES, OLLAMA_CHAT, OLLAMA_TEXT, TEXT, Scene

TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
CALL = 'so <tool_call>{"name": "now", "arguments": {"zone": "utc", "places": ["here", "there"]}}</tool_call>'
THOUGHT = "<think>hmm that is a question</think>one two three four"
JSON_TEXT = '{"colour": "green", "sizes": [1, 2, 3], "is_good": true}'
CHATS = (Scene("vllm", "vllm", CHAT), Scene("llamacpp", "llamacpp", CHAT), Scene("ollama", "ollama", OLLAMA_CHAT))
NATIVE = Scene("native ollama", "native ollama", OLLAMA_CHAT)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Share stages among the plays of this file."""
    made = Stages(tmp_path_factory.mktemp("stages"))
    yield made
    made.close()


def text_or_honest_end(reply: Reply, uncut: str) -> str:
    """Check that an answer is either the whole one or broke off honestly; return which: "whole" or "broken off"."""
    if reply.is_cut:
        assert uncut.startswith(honest_end(reply))
        return "broken off"
    assert whole_story(reply).text == uncut
    return "whole"


def arguments_of(reply: Reply) -> tuple[list[str], str]:
    """Gather the names of the tool calls in a stream, and all of their arguments."""
    names: list[str] = []
    arguments = ""
    for raw in reply.body.splitlines():
        payload = raw.removeprefix(b"data: ")
        event = json.loads(payload) if payload.startswith(b"{") else {}
        deltas = [choice["delta"] for choice in event.get("choices", ())] + [event.get("message") or {}]
        for call in [call for delta in deltas for call in delta.get("tool_calls") or ()]:
            names += [call["function"]["name"]] if call["function"].get("name") else []
            given = call["function"].get("arguments", "")
            arguments += given if isinstance(given, str) else json.dumps(given)
    return names, arguments


@pytest.mark.parametrize("scene", CHATS, ids=str)
def test_a_tool_call_is_never_doubled_nor_joined_from_two_runs(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene).plays(ScriptedModel(CALL))
    uncut = stage.ask(scene, tools=TOOLS)
    whole_call = arguments_of(uncut)
    assert json.loads(whole_call[1]) == {"zone": "utc", "places": ["here", "there"]}
    pieces = uncut.body.count(b'"delta"') or uncut.body.count(b"\n")
    for after in range(1, pieces):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        reply = stage.ask(scene, tools=TOOLS)
        names, arguments = arguments_of(reply)
        assert len(names) <= 1, f"cut after {after} pieces"
        if reply.is_cut:
            honest_end(reply)
            assert whole_call[1].startswith(arguments), f"cut after {after} pieces"
        else:
            assert (names, arguments) == whole_call, f"cut after {after} pieces"
            assert reply.body.count(b'"tool_calls"') > 0
        if names and json.loads(whole_call[1]) != _json_or_none(arguments):
            assert reply.is_cut, f"cut inside the call, after {after} pieces"


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", CHAT), Scene("llamacpp", "llamacpp", CHAT)], ids=str)
def test_several_choices_end_honestly(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    for after in (2, 5, 9):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        assert honest_end(stage.ask(scene, n=2))
        assert stage.engines[1].generated == []


@pytest.mark.parametrize("scene", [*CHATS, NATIVE, Scene("ollama", "ollama", CHAT), Scene("vllm", "llamacpp", CHAT)], ids=str)
@pytest.mark.parametrize("kind", ["json", "schema"])
def test_json_is_whole_or_broken_off_honestly(stages: Stages, scene: Scene, kind: str) -> None:
    schema = {"type": "object"}
    wanted: dict[str, Any] = {"type": "json_object"}
    wanted = wanted if kind == "json" else {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    asked: dict[str, Any] = {"response_format": wanted}
    if scene.path == OLLAMA_CHAT:
        asked = {"format": "json" if kind == "json" else schema}
    stage = stages.of(scene).plays(ScriptedModel(JSON_TEXT))
    uncut, pieces = count_of(stage, scene)
    ends = set()
    for after in range(1, pieces - 1, 5):
        stage.fresh()
        stage.engines[0].breaks(Kind.CLOSED, after=after)
        ends.add(text_or_honest_end(stage.ask(scene, **asked), uncut.text))
    assert len(ends) == 1, "it is the same wherever the cut is"


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", CHAT), Scene("llamacpp", "llamacpp", CHAT)], ids=str)
def test_probabilities_belong_to_their_text_or_the_answer_ends_honestly(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    uncut = whole_story(stage.ask(scene, logprobs=True))
    for after in range(1, 12):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        reply = stage.ask(scene, logprobs=True)
        if text_or_honest_end(reply, uncut.text) == "whole":
            choices = [event["choices"][0] for event in whole_story(reply).events if event["choices"]]
            tokens = [entry["token"] for choice in choices for entry in (choice.get("logprobs") or {}).get("content") or ()]
            assert "".join(tokens) == uncut.text, f"cut after {after} pieces"


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", TEXT), Scene("llamacpp", "llamacpp", TEXT)], ids=str)
@pytest.mark.parametrize(
    "asked", [{"echo": True}, {"suffix": "the end"}, {"n": 2}, {"logprobs": 1}, {"guided_regex": "a+"}, {"grammar": "x"}], ids=str
)
def test_odd_completions_are_whole_or_broken_off_honestly(stages: Stages, scene: Scene, asked: dict[str, Any]) -> None:
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    stage.engines[0].breaks(Kind.RESET, after=5)
    text_or_honest_end(stage.ask(scene, **asked), uncut.text)


@pytest.mark.parametrize(
    "scene",
    [
        Scene("vllm", "vllm", CHAT),
        Scene("llamacpp", "llamacpp", CHAT),
        Scene("ollama", "ollama", OLLAMA_CHAT),
        Scene("native ollama", "native ollama", OLLAMA_CHAT),
        Scene("ollama", "ollama", CHAT),
    ],
    ids=str,
)
def test_reasoning_never_turns_into_text_nor_text_into_reasoning(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene).plays(ScriptedModel(THOUGHT))
    uncut = whole_story(stage.ask(scene))
    for after in range(1, 12):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        reply = stage.ask(scene)
        if text_or_honest_end(reply, uncut.text) == "whole":
            assert thought_of(reply) == thought_of(stage.ask(scene)), f"cut after {after} pieces"


def thought_of(reply: Reply) -> str:
    """Gather the reasoning of a stream under whatever name."""
    text = ""
    for raw in reply.body.splitlines():
        payload = raw.removeprefix(b"data: ")
        event = json.loads(payload) if payload.startswith(b"{") else {}
        said_in = [choice["delta"] for choice in event.get("choices", ())] + [event.get("message") or {}]
        text += "".join(str(part.get(name) or "") for part in said_in for name in ("reasoning", "reasoning_content", "thinking"))
    return text


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", MESSAGES), Scene("ollama", "ollama", MESSAGES)], ids=str)
def test_messages_end_honestly_where_the_engine_starts_a_new_turn(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    for kind in PROMPT:
        stage.fresh()
        stage.engines[0].breaks(kind, after=5)
        assert text_or_honest_end(stage.ask(scene), uncut.text) == "broken off"


def test_ollama_that_cannot_render_goes_on_from_a_last_message_where_that_is_shown_or_ends_honestly(stages: Stages) -> None:
    scene = Scene("ollama that cannot render", "ollama that cannot render", OLLAMA_CHAT)
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    stage.engines[0].breaks(Kind.RESET, after=5)
    text_or_honest_end(stage.ask(scene), uncut.text)


@pytest.mark.parametrize("path", [OLLAMA_CHAT, OLLAMA_TEXT, CHAT])
def test_an_endless_repetition_is_not_gone_on_with(stages: Stages, path: str) -> None:
    scene = Scene("ollama", "ollama", path)
    stage = stages.of(scene).plays(ScriptedModel("la" + " la" * 60))
    text = honest_end(stage.ask(scene))
    assert text == "la" + " la" * 30
    assert stage.engines[1].generated == []


def test_continuations_that_yield_nothing_are_not_tried_for_ever(tmp_path: Path) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    with staged(tmp_path, *["vllm"] * 6) as stage:
        uncut, _ = count_of(stage, scene)
        stage.engines[0].breaks(Kind.RESET, after=5)
        for engine in stage.engines[1:]:
            engine.breaks(Kind.RESET, after=0)
        text_or_honest_end(stage.ask(scene), uncut.text)
        assert sum(len(engine.generated) for engine in stage.engines) <= 6


def test_an_answer_whose_finish_has_come_is_completed_without_asking_anyone(stages: Stages) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    for kind in (Kind.RESET, Kind.CLOSED, Kind.CLEAN_END):
        stage.fresh()
        stage.engines[0].breaks(kind, after=10**6)
        story = whole_story(stage.ask(scene))
        assert (story.text, story.finish) == (uncut.text, uncut.finish)
        assert stage.engines[1].generated == []


def test_a_backend_that_refuses_to_go_on_is_passed_over(tmp_path: Path) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    with staged(tmp_path, "vllm", "vllm", "vllm") as stage:
        uncut, _ = count_of(stage, scene)
        stage.engines[1].always(whole(400, {"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}))
        stage.engines[0].breaks(Kind.RESET, after=5)
        story = whole_story(stage.ask(scene))
        assert story.text == uncut.text
        assert [name for name, _ in story.seams] == ["gpu2"]


def test_half_an_event_before_a_break_never_reaches_the_client(stages: Stages) -> None:
    for scene in (Scene("vllm", "vllm", CHAT), Scene("ollama", "ollama", OLLAMA_CHAT), Scene("llamacpp", "llamacpp", MESSAGES)):
        stage = stages.of(scene)
        for kind in (Kind.INSIDE_CHARACTER, Kind.INSIDE_EVENT):
            stage.fresh()
            stage.engines[0].breaks(kind, after=5)
            reply = stage.ask(scene)
            reply.body.decode()
            whole_story(reply)


def test_an_answer_that_no_one_can_read_ends_honestly(stages: Stages) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    stage = stages.of(scene)
    odd = b'data: {"choices": [{"index": 0, "delta": {"content": ["not", "a", "text"]}}]}\n\n'
    good = b'data: {"choices": [{"index": 0, "delta": {"content": "good"}}]}\n\n'
    stage.engines[0].then(begun_stream([good, odd], send(LAST_CHUNK)))
    reply = stage.ask(scene)
    assert reply.is_cut
    assert reply.body.rstrip().rpartition(b"\n\n")[2].startswith(b'data: {"error"')
    assert stage.engines[1].generated == []
