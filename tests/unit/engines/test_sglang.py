"""Plays of an SGLang's answers; shapes from engines.md section 1."""

from support.probing import answer, play
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import ProbeAnswer
from understudy.engines.sglang import probe_sglang

ENTRY = '{"id":"m","object":"model","owned_by":"sglang","max_model_len":4096}'
SGLANG: dict[str, ProbeAnswer | None] = {
    "/ready": answer(b""),
    "/v1/models": answer(b'{"object":"list","data":[' + ENTRY.encode() + b"]}"),
    "/v1/messages": answer({"detail": "Method Not Allowed"}, 405),
}


def test_an_sglang_that_is_ready_is_good() -> None:
    """/health would generate a token."""
    dialogue = play(probe_sglang(), SGLANG)
    assert (dialogue.told.seen, dialogue.told.engine) == (Seen.GOOD, EngineKind.SGLANG)
    assert dialogue.told.dialects == (DialectName.OPENAI, DialectName.ANTHROPIC)
    assert dialogue.told.models == (Model("m", ENTRY),)
    assert dialogue.asked == ["/ready", "/v1/models", "/v1/messages"]
    assert play(probe_sglang(dialogue.told), SGLANG).asked == ["/ready", "/v1/models"]


def test_an_sglang_that_is_not_ready_is_loading() -> None:
    finding = play(probe_sglang(), SGLANG | {"/ready": answer(b"", 503)}).told
    assert (finding.seen, finding.reason) == (Seen.LOADING, "answered 503")


def test_an_older_sglang_without_ready_and_messages_speaks_openai() -> None:
    finding = play(probe_sglang(), {"/v1/models": SGLANG["/v1/models"]}).told
    assert (finding.seen, finding.dialects) == (Seen.GOOD, (DialectName.OPENAI,))


def test_an_sglang_that_fails_or_is_silent_is_bad() -> None:
    for broken in ({"/ready": None}, {"/ready": answer(b"", 500)}, {"/v1/models": None}):
        assert play(probe_sglang(), SGLANG | broken).told.seen is Seen.BAD
