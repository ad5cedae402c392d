"""A stream breaks after its first content and goes on from another backend as the same stream, whatever broke and wherever.

Engines are scripted (support.writing_cast): what they write tells by itself when it was continued wrongly.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.breaks import PROMPT, SILENT, Kind
from support.endings import honest_end, whole_story
from support.resume_stage import FAILOVER, Stages, count_of, staged
from support.scripted_model import ScriptedModel
from support.wire import Reply, Wire, request_bytes
from support.writing_cast import CHAT, MESSAGES, OLLAMA_CHAT, SCENES, TEXT, Scene, kind_of


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Share stages among the plays of this file."""
    made = Stages(tmp_path_factory.mktemp("stages"))
    yield made
    made.close()


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_an_answer_cut_at_any_piece_goes_on_as_the_same_answer(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    uncut, pieces = count_of(stage, scene)
    assert not uncut.seams
    for after in range(pieces):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        story = whole_story(stage.ask(scene))
        assert (story.text, story.finish) == (uncut.text, uncut.finish), f"cut after {after} pieces: {story.seams}"
        assert len(stage.engines[0].generated) == 1, f"cut after {after} pieces"


@pytest.mark.parametrize(
    ("scene", "kind"),
    # Silence takes its time, and the second engine has no part in seeing it.
    [(scene, kind) for scene in SCENES for kind in Kind if kind not in SILENT or scene.first == scene.second],
    ids=str,
)
def test_every_kind_of_break_is_seen_and_the_answer_goes_on(stages: Stages, scene: Scene, kind: Kind) -> None:
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    stage.engines[0].breaks(kind, after=6)
    reply = stage.ask(scene)
    story = whole_story(reply)
    assert (story.text, story.finish) == (uncut.text, uncut.finish)
    assert [name for name, _ in story.seams] == ["gpu1"]
    assert reply.backend == "gpu0", "the head was sent before the break"
    assert uncut.text[: story.seams[0][1]], "the seam is somewhere inside the text"


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene.first == scene.second], ids=str)
@pytest.mark.parametrize("limit", [9, 20])
def test_a_bound_on_tokens_holds_over_the_seam(stages: Stages, scene: Scene, limit: int) -> None:
    stage = stages.of(scene)
    bound = {"options": {"num_predict": limit}} if scene.path.startswith("/api/") else {"max_tokens": limit}
    uncut = whole_story(stage.ask(scene, **bound))
    assert uncut.finish in ("length", "max_tokens")
    # Where the engine has no tokenizer to ask, a token is what came as a piece, and characters of several tokens count less.
    is_exact = kind_of(scene.second) in ("vllm", "llamacpp")
    for after in range(1, limit):
        stage.fresh()
        stage.engines[0].breaks(Kind.CLOSED, after=after)
        story = whole_story(stage.ask(scene, **bound))
        assert story.finish == uncut.finish
        if is_exact:
            assert story.text == uncut.text, f"cut after {after} pieces"
        else:
            assert story.text.startswith(uncut.text), f"cut after {after} pieces"
            assert len(story.text) - len(uncut.text) <= 30


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene.first == scene.second], ids=str)
def test_a_stop_string_ends_the_answer_wherever_the_seam_is(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene).plays(ScriptedModel("one two three four five six"))
    stop = {"options": {"stop": ["ee fo"]}} if scene.path.startswith("/api/") else {"stop": ["ee fo"]}
    stop = {"stop_sequences": ["ee fo"]} if scene.path == MESSAGES else stop
    uncut = whole_story(stage.ask(scene, **stop))
    assert uncut.text == "one two thr"
    for after in range(1, 8):
        stage.fresh()
        stage.engines[0].breaks(Kind.RESET, after=after)
        story = whole_story(stage.ask(scene, **stop))
        assert (story.text, story.finish) == (uncut.text, uncut.finish), f"cut after {after} pieces"


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_usage_adds_up_over_the_seam(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    options: dict[str, Any] = {} if scene.path.startswith("/api/") else {"stream_options": {"include_usage": True}}
    uncut = whole_story(stage.ask(scene, **options)).usage
    stage.fresh()
    stage.engines[0].breaks(Kind.RESET, after=8)
    usage = whole_story(stage.ask(scene, **options)).usage
    assert usage.keys() == uncut.keys()
    assert min(usage.values()) > 0
    if kind_of(scene.first) == kind_of(scene.second) and kind_of(scene.first) in ("vllm", "llamacpp"):
        assert usage == uncut
    elif scene.path != MESSAGES:
        # Whatever counts as delivered, prompt and answer together are the same tokens.
        assert abs(sum(usage.values()) - sum(uncut.values())) <= 2


def test_several_backends_may_die_in_turn(tmp_path: Path) -> None:
    for engines, path in [(["vllm"] * 4, CHAT), (["ollama"] * 4, OLLAMA_CHAT), (["ollama", "vllm", "llamacpp", "vllm"], CHAT)]:
        folder = tmp_path / f"{engines[0]}-{engines[1]}"
        folder.mkdir()
        scene = Scene(engines[0], engines[1], path)
        with staged(folder, *engines) as stage:
            uncut, _ = count_of(stage, scene)
            for seed in range(25):
                dice = random.Random(seed)
                stage.fresh()
                for engine in stage.engines[:3]:
                    engine.breaks(dice.choice(PROMPT), after=dice.randint(1, 9))
                story = whole_story(stage.ask(scene))
                assert (story.text, story.finish) == (uncut.text, uncut.finish), f"seed {seed}: {story.seams}"
                assert len(story.seams) >= 2, f"seed {seed}"


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", CHAT), Scene("vllm", "vllm", TEXT)], ids=str)
def test_exact_mode_goes_on_by_token_ids_and_the_client_sees_none(tmp_path: Path, scene: Scene) -> None:
    with staged(tmp_path, "vllm", "vllm", failover=FAILOVER | {"resume": "exact"}) as stage:
        uncut, pieces = count_of(stage, scene)
        for after in range(1, pieces - 1):
            stage.fresh()
            stage.engines[0].breaks(Kind.RESET, after=after)
            story = whole_story(stage.ask(scene))
            assert (story.text, story.finish) == (uncut.text, uncut.finish), f"cut after {after} pieces"
            assert stage.engines[0].generated[0][1]["return_token_ids"] is True
            if after > 1:
                assert isinstance(stage.engines[1].generated[0][1]["prompt"], list), f"cut after {after} pieces"


def test_a_client_that_asked_for_ids_gets_them_in_exact_mode_too(tmp_path: Path) -> None:
    with staged(tmp_path, "vllm", failover=FAILOVER | {"resume": "exact"}) as stage:
        reply = stage.ask(Scene("vllm", "vllm", CHAT), return_token_ids=True)
        assert b'"token_ids":[' in reply.body
        assert b'"prompt_token_ids":[' in reply.body


def test_the_first_request_is_untouched_unless_exact(stages: Stages) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    stage = stages.of(scene)
    stage.ask(scene)
    assert stage.engines[0].generated == [(CHAT, scene.body())]


def test_the_only_backend_may_be_the_one_that_goes_on_when_it_is_back_within_hold(tmp_path: Path) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    health = {"interval": "200ms", "timeout": "500ms", "rise": 1, "fall": 1, "max_fails": 0}
    with staged(tmp_path, "vllm", health=health, failover={"budget": "100%", "hold": "20s"}) as stage:
        uncut, _ = count_of(stage, scene)
        (engine,) = stage.engines
        engine.gap_s = 0.02
        engine.breaks(Kind.RESET, after=10)
        with Wire(stage.daemon.port, deadline_s=20.0) as wire:
            wire.send(request_bytes("POST", scene.path, scene.body()))
            head = wire.read_head()
            pieces = wire.read_pieces(head)
            body = next(pieces)
            engine.refuse()
            stage.daemon.wait_condition("down", timeout_s=10.0)
            engine.listen()
            body += b"".join(pieces)
        story = whole_story(Reply(head, body))
        assert story.text == uncut.text
        assert [name for name, _ in story.seams] == ["gpu0"]


def test_a_stream_that_nobody_can_go_on_with_ends_honestly_after_hold(tmp_path: Path) -> None:
    for engine, path in (("vllm", CHAT), ("vllm", TEXT), ("ollama", OLLAMA_CHAT), ("llamacpp", MESSAGES)):
        folder = tmp_path / f"{engine}{path.replace('/', '-')}"
        folder.mkdir()
        scene = Scene(engine, engine, path)
        with staged(folder, engine, failover=FAILOVER | {"hold": "300ms"}) as stage:
            uncut, _ = count_of(stage, scene)
            stage.engines[0].breaks_always = None
            stage.engines[0].breaks(Kind.RESET, after=5)
            stage.engines[0].gap_s = 0.02
            with Wire(stage.daemon.port) as wire:
                wire.send(request_bytes("POST", scene.path, scene.body()))
                head = wire.read_head()
                stage.engines[0].refuse()
                rest = wire.read_to_end()
            assert uncut.text.startswith(_text_of_chunks(head.raw, rest))


def _text_of_chunks(head: bytes, rest: bytes) -> str:
    """Read what came of a chunked stream that was closed, as an honest end."""
    with _Replayed(head + rest) as wire:
        return honest_end(wire.read_reply())


class _Replayed(Wire):
    """A wire whose bytes have come already."""

    def __init__(self, data: bytes) -> None:
        self._deadline_s = 5.0
        self._kept = data

    def close(self) -> None:
        """Leave nothing open: there is no socket."""

    def _receive(self) -> bytes:
        return b""


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", CHAT), Scene("ollama", "ollama", OLLAMA_CHAT)], ids=str)
def test_a_client_may_decline(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    stage.engines[0].breaks(Kind.RESET, after=5)
    text = honest_end(stage.ask(scene, {"X-Understudy-No-Resume": "1"}))
    assert text
    assert uncut.text.startswith(text)
    assert stage.engines[1].generated == []
    stage.fresh()
    stage.engines[0].breaks(Kind.RESET, after=5)
    assert whole_story(stage.ask(scene, {"X-Understudy-No-Resume": "0"})).text == uncut.text
    assert "x-understudy-no-resume" not in {name.lower() for name, _ in stage.engines[0].seen.requests[-1].headers}


def test_an_operator_may_turn_it_off(tmp_path: Path) -> None:
    scene = Scene("vllm", "vllm", CHAT)
    with staged(tmp_path, "vllm", "vllm", failover=FAILOVER | {"resume": False}) as stage:
        # Events are not looked into then: one that cannot be read reaches the client as it came, who sees it by itself.
        for kind in [kind for kind in PROMPT if kind is not Kind.MALFORMED]:
            stage.fresh()
            stage.engines[0].breaks(kind, after=5)
            assert honest_end(stage.ask(scene)), kind
            assert stage.engines[1].generated == []
            # Before the first content nothing is resumed, only repeated.
            stage.engines[0].breaks(kind, after=0)
            assert whole_story(stage.ask(scene)).text


@pytest.mark.parametrize("scene", [Scene("vllm", "vllm", TEXT), Scene("llamacpp", "llamacpp", TEXT)], ids=str)
def test_silence_is_no_end_of_a_text_either(stages: Stages, scene: Scene) -> None:
    stage = stages.of(scene)
    uncut, _ = count_of(stage, scene)
    for kind in SILENT:
        stage.fresh()
        stage.engines[0].breaks(kind, after=4)
        assert whole_story(stage.ask(scene)).text == uncut.text
        stage.engines[0].wait_for(lambda seen: seen.peers_left >= 1)
