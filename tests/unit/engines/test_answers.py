"""Plays of engines' error answers, in the bytes of engines.md section 5."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.snapshot import EngineKind
from understudy.engines import classify, retry_after_s
from understudy.errors import FailureKind

K = FailureKind
E = EngineKind


def kind(engine: EngineKind, status: int, body: Any = b"", retry_after: str = "") -> FailureKind | None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(engine, status=status, retry_after=retry_after, body=data)


VLLM_BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
SGLANG_FULL = {"object": "error", "message": "The request queue is full.", "type": "ServiceUnavailable", "code": 503}
OLLAMA_MEMORY = {"error": "model requires more system memory (44.0 GiB) than is available (7.6 GiB)"}


@pytest.mark.parametrize(
    ("engine", "status", "body", "means"),
    [
        (E.OLLAMA, 503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, K.BUSY),
        (E.OLLAMA, 503, {"error": {"message": "server busy, please try again.", "type": "api_error"}}, K.BUSY),
        (E.VLLM, 503, {"error": {"message": VLLM_BUSY, "type": "Service Unavailable", "param": None, "code": 503}}, K.BUSY),
        (E.VLLM, 503, {"error": "The model is currently scaling. Please try again later."}, K.LOADING),
        (E.LLAMACPP, 503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, K.LOADING),
        (E.LLAMACPP, 503, {"error": {"code": 503, "message": "no slot available", "type": "unavailable_error"}}, K.BUSY),
        (E.SGLANG, 503, SGLANG_FULL, K.BUSY),
        # The engine is often not known yet.
        (E.AUTO, 503, SGLANG_FULL, K.BUSY),
        (E.OPENAI, 503, b"<html>Service Unavailable</html>", K.UNAVAILABLE),
        (E.OPENAI, 503, b"", K.UNAVAILABLE),
        (E.OPENAI, 429, {"error": {"message": "rate limit"}}, K.BUSY),
        (E.OPENAI, 529, b"", K.BUSY),
        (E.OPENAI, 502, b"", K.UNAVAILABLE),
        (E.OPENAI, 504, b"", K.UNAVAILABLE),
        (E.VLLM, 500, {"error": {"message": "x", "type": "InternalServerError", "code": 500}}, K.SERVER_ERROR),
        (E.OLLAMA, 500, {"error": "model runner has unexpectedly stopped"}, K.SERVER_ERROR),
        (E.OLLAMA, 500, OLLAMA_MEMORY, K.OUT_OF_MEMORY),
        (E.SGLANG, 500, {"object": "error", "message": "CUDA out of memory. Tried to allocate 2 GiB"}, K.OUT_OF_MEMORY),
        (E.SGLANG, 500, b"torch.OutOfMemoryError: CUDA", K.OUT_OF_MEMORY),
        (E.OPENAI, 507, b"", K.SERVER_ERROR),
        (E.LLAMACPP, 501, {"error": {"type": "not_supported_error"}}, K.UNSUPPORTED),
        (E.OLLAMA, 404, {"error": "model 'x' not found"}, K.MODEL_MISSING),
        (E.OLLAMA, 404, {"error": {"message": "model 'x' not found", "type": "not_found_error", "param": None}}, K.MODEL_MISSING),
        (E.VLLM, 404, {"error": {"message": "The model `x` does not exist.", "param": "model", "code": 404}}, K.MODEL_MISSING),
        (E.LLAMACPP, 400, {"error": {"message": "model 'x' not found", "type": "invalid_request_error"}}, K.MODEL_MISSING),
        (E.LLAMACPP, 400, {"error": {"message": "model is not loaded", "type": "invalid_request_error"}}, K.MODEL_MISSING),
        # A path that this engine does not have: another may.
        (E.VLLM, 404, {"detail": "Not Found"}, K.UNSUPPORTED),
        (E.OLLAMA, 404, b"404 page not found", K.UNSUPPORTED),
        (E.LLAMACPP, 404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, K.UNSUPPORTED),
        # Something that the client named, and that lives in one engine only.
        (E.VLLM, 404, {"error": {"message": "Response with id 'r' not found.", "param": "response_id"}}, None),
        # The client's own.
        (E.OLLAMA, 400, {"error": "model is required"}, None),
        (E.VLLM, 400, {"error": {"message": "tool 'x' not found"}}, None),
        (E.LLAMACPP, 400, {"error": {"type": "exceed_context_size_error", "message": "too long", "n_ctx": 4096}}, None),
        *((E.VLLM, status, {"error": "Unauthorized"}, None) for status in (401, 403, 405, 408, 413, 415, 422, 499)),
        (E.VLLM, 200, b"out of memory", None),
        (E.VLLM, 302, b"", None),
    ],
)
def test_an_answer_is_told_by_status_shape_and_only_then_by_words(
    engine: EngineKind, status: int, body: Any, means: FailureKind | None
) -> None:
    assert kind(engine, status, body) is means


def test_a_503_that_says_when_to_come_back_is_busy() -> None:
    assert kind(E.OPENAI, 503, b"", retry_after="5") is K.BUSY


def test_words_deep_in_a_body_do_not_count() -> None:
    """An error may repeat the prompt, and a prompt may speak of memory."""
    prompt = "x" * 2000 + " out of memory"
    assert kind(E.VLLM, 500, {"error": {"message": f"bad template: {prompt}"}}) is K.SERVER_ERROR
    assert kind(E.VLLM, 500, {"error": {"message": "failed"}, "prompt": "out of memory"}) is K.SERVER_ERROR


@given(st.sampled_from(list(E)), st.integers(100, 599), st.text(max_size=5), st.binary(max_size=300))
def test_no_answer_raises(engine: EngineKind, status: int, retry_after: str, body: bytes) -> None:
    classify(engine, status=status, retry_after=retry_after, body=body)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"error":' * 50_000, b'{"error":{"message":["x"],"type":{},"param":1}}', b"null"]
)
def test_hostile_bodies_are_plain_errors(body: bytes) -> None:
    assert kind(E.AUTO, 500, body) is K.SERVER_ERROR


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        (" 7 ", 7.0),
        ("3600", 60.0),
        *((text, 0.0) for text in ("", "0", "-1", "1.5", "1_0", "9" * 50, "\u00b2", "\u0663", "Wed, 21 Oct 2026 07:28:00 GMT")),
    ],
)
def test_retry_after_is_read_in_seconds_only_and_capped(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds
