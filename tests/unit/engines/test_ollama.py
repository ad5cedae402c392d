"""Plays of an Ollama's answers; shapes from engines.md section 1."""

from dataclasses import replace

from support.probing import answer, play
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import ProbeAnswer
from understudy.engines.ollama import probe_ollama

ALL = (DialectName.OPENAI, DialectName.OLLAMA, DialectName.ANTHROPIC)

OLLAMA: dict[str, ProbeAnswer | None] = {
    "/api/version": answer({"version": "0.32.15"}),
    "/api/tags": answer(b'{"models":[{"name":"a:latest","model":"a:latest","size":7},{"name":"b:1b","size":8}]}'),
    "/v1/models": answer(b'{"object":"list","data":[{"id":"a:latest","owned_by":"library"},{"id":"b:1b"}]}'),
    "/api/ps": answer(b'{"models":[{"name":"b:1b","size_vram":0}]}'),
    "/v1/messages": answer(b"405 method not allowed", 405),
}


def test_everything_an_ollama_lists_is_kept_as_it_wrote_it() -> None:
    finding = play(probe_ollama(), OLLAMA).told
    assert (finding.seen, finding.engine, finding.version, finding.dialects) == (Seen.GOOD, EngineKind.OLLAMA, "0.32.15", ALL)
    assert finding.models == (
        Model(
            "a:latest",
            '{"id":"a:latest","owned_by":"library"}',
            '{"name":"a:latest","model":"a:latest","size":7}',
            is_loaded=False,
        ),
        Model("b:1b", '{"id":"b:1b"}', '{"name":"b:1b","size":8}', '{"name":"b:1b","size_vram":0}'),
    )


def test_an_empty_ollama_is_good_and_serves_nothing() -> None:
    """Its /v1/models then says null, not []."""
    empty = OLLAMA | {"/api/tags": answer({"models": []}), "/v1/models": answer(b'{"object":"list","data":null}')}
    finding = play(probe_ollama(), empty).told
    assert finding.seen is Seen.GOOD
    assert finding.models == ()


def test_an_ollama_without_the_messages_path_does_not_speak_anthropic() -> None:
    old = OLLAMA | {"/v1/messages": answer(b"404 page not found", 404)}
    assert play(probe_ollama(), old).told.dialects == ALL[:2]


def test_the_dialects_are_asked_for_again_only_when_the_version_changed() -> None:
    first = play(probe_ollama(), OLLAMA).told
    again = play(probe_ollama(first), OLLAMA)
    assert "/v1/messages" not in again.asked
    assert again.told == first
    updated = play(probe_ollama(replace(first, version="0.13.0")), OLLAMA)
    assert "/v1/messages" in updated.asked


def test_lists_that_only_complete_the_picture_may_be_missing() -> None:
    finding = play(probe_ollama(), OLLAMA | {"/v1/models": None, "/api/ps": answer(b"<html>", 502)}).told
    assert finding.seen is Seen.GOOD
    assert finding.models is not None
    assert [model.name for model in finding.models] == ["a:latest", "b:1b"]


def test_other_software_on_the_port_is_not_taken_for_an_ollama() -> None:
    finding = play(probe_ollama(), {"/api/version": answer(b"<html>Welcome</html>")}).told
    assert (finding.seen, finding.reason) == (Seen.BAD, "/api/version gave no version")


def test_a_list_that_cannot_be_read_is_bad() -> None:
    finding = play(probe_ollama(), OLLAMA | {"/api/tags": answer(b'{"models":[')}).told
    assert (finding.seen, finding.reason) == (Seen.BAD, "/api/tags gave a list that is not JSON")


def test_a_list_that_fails_is_bad() -> None:
    finding = play(probe_ollama(), OLLAMA | {"/api/tags": answer({"error": "disk gone"}, 500)}).told
    assert (finding.seen, finding.reason) == (Seen.BAD, "answered 500: disk gone")


def test_no_answer_is_bad_and_leaves_the_reason_to_who_asked() -> None:
    dialogue = play(probe_ollama(), {"/api/version": None})
    assert (dialogue.told.seen, dialogue.told.reason) == (Seen.BAD, "")
    assert dialogue.asked == ["/api/version"]
