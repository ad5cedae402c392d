"""How each engine answers probes and tells a text, byte for byte as recorded (docs/failure-model.md, engines).

A persona gives a scripted engine its manners; what it says is `words`, cut at spaces, one event a word. Pure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.answers import NDJSON, head_bytes, line, sse, stream, whole
from support.steps import Answer, answer, hang, send

DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "171K",
    "quantization_level": "unknown",
    "context_length": 8192,
    "embedding_length": 64,
}


def pieces_of(words: str) -> list[str]:
    """Cut a text into pieces that add up to it: every piece but the first begins with its space."""
    first, *rest = words.split(" ")
    return [first, *(f" {word}" for word in rest)]


@dataclass(frozen=True, slots=True)
class Persona:
    """One engine's manners. `probes` makes the answers to its GET paths for a list of models; `server` is its Server field."""

    engine: str
    server: str
    dialects: tuple[str, ...]
    probes: Callable[[Sequence[str]], Mapping[str, Any]]
    unknown: Any
    model_missing: Callable[[str], Any]

    def probe_answers(self, models: Sequence[str]) -> dict[str, Answer]:
        """Answers by path, with the engine's own Server field."""
        fields = {"Server": self.server} if self.server else {}
        return {path: whole(200, value, fields) for path, value in self.probes(models).items()}

    def not_found(self) -> Answer:
        """Answer a path that this engine does not have."""
        return whole(404, self.unknown, {"Server": self.server} if self.server else {})


def _openai_list(models: Sequence[str], owner: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    entries = [{"id": m, "object": "model", "created": 1, "owned_by": owner, **(extra or {})} for m in models]
    return {"object": "list", "data": entries}


def _tagged(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


def _ollama(models: Sequence[str]) -> dict[str, Any]:
    entries = [
        {"name": _tagged(m), "model": _tagged(m), "size": 701272, "digest": "39ea5744", "details": DETAILS} for m in models
    ]
    tags = [e | {"modified_at": "2026-08-21T10:00:00Z", "capabilities": ["completion"]} for e in entries]
    loaded = [e | {"expires_at": "2318-01-01T00:00:00Z", "size_vram": 0, "context_length": 4096} for e in entries]
    listed: dict[str, Any] = _openai_list([_tagged(m) for m in models], "library")
    return {
        "/": "Ollama is running",
        "/api/version": {"version": "0.32.15"},
        "/api/tags": {"models": tags},
        "/api/ps": {"models": loaded},
        # An Ollama without models lists null, not an empty array.
        "/v1/models": listed if models else {"object": "list", "data": None},
    }


def _vllm(models: Sequence[str]) -> dict[str, Any]:
    metrics = (
        '# TYPE vllm:engine_sleep_state gauge\nvllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0\n'
        'vllm:engine_sleep_state{engine="0",sleep_state="weights_offloaded"} 0.0\n'
        'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0\n'
    )
    return {
        "/health": b"",
        "/ping": b"",
        "/version": {"version": "0.32.0"},
        "/load": {"server_load": 0},
        "/metrics": metrics,
        "/v1/models": _openai_list(models, "vllm", {"root": "tiny-hf", "parent": None, "max_model_len": 4096, "permission": []}),
    }


def _llamacpp(models: Sequence[str]) -> dict[str, Any]:
    meta = {"n_vocab": 754, "n_ctx": 4096, "n_ctx_train": 8192, "n_embd": 64, "n_params": 170560, "size": 682240}
    listed = _openai_list(models, "llamacpp", {"aliases": [], "meta": meta})
    named = [{"name": m, "model": m, "type": "model", "capabilities": ["completion"], "details": DETAILS} for m in models]
    return {
        "/health": {"status": "ok"},
        "/v1/health": {"status": "ok"},
        "/v1/models": {"models": named, **listed},
        "/props": {"total_slots": 2, "model_path": "tiny.gguf", "is_sleeping": False},
    }


def _sglang(models: Sequence[str]) -> dict[str, Any]:
    return {
        "/": "SGLang is running",
        "/ready": b"",
        "/v1/models": _openai_list(models, "sglang", {"root": "tiny-hf", "parent": None, "max_model_len": 4096}),
    }


def _openai(models: Sequence[str]) -> dict[str, Any]:
    return {"/v1/models": _openai_list(models, "somebody")}


FASTAPI_404 = {"detail": "Not Found"}
LLAMACPP_404 = {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}
LLAMACPP_LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}

PERSONAS = {
    "ollama": Persona(
        "ollama",
        "",
        ("openai", "ollama", "anthropic"),
        _ollama,
        "404 page not found",
        lambda m: {"error": f"model '{m}' not found"},
    ),
    "vllm": Persona(
        "vllm",
        "uvicorn",
        ("openai", "anthropic"),
        _vllm,
        FASTAPI_404,
        lambda m: {
            "error": {"message": f"The model `{m}` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
        },
    ),
    "llamacpp": Persona("llamacpp", "llama.cpp", ("openai", "anthropic"), _llamacpp, LLAMACPP_404, lambda m: LLAMACPP_404),
    "sglang": Persona(
        "sglang",
        "uvicorn",
        ("openai", "anthropic"),
        _sglang,
        FASTAPI_404,
        lambda m: {"object": "error", "message": f"The model {m} does not exist", "type": "NotFoundError", "code": 404},
    ),
    "openai": Persona("openai", "", ("openai",), _openai, {"detail": "Not Found"}, lambda m: {"error": {"message": m}}),
}


def openai_event(delta: Mapping[str, Any], finish: str | None = None, *, model: str = "tiny") -> bytes:
    """Write one chat completion chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})


def openai_role(engine: str = "vllm", *, model: str = "tiny") -> bytes:
    """Write the opening chunk that carries no content; llama.cpp says null where vLLM says an empty text."""
    return openai_event({"role": "assistant", "content": None if engine == "llamacpp" else ""}, model=model)


def openai_chat_events(words: str, *, engine: str = "vllm", model: str = "tiny") -> list[bytes]:
    """Write a good chat stream with the engine's own ending."""
    pieces = pieces_of(words)
    if engine == "ollama":
        events = [openai_event({"role": "assistant", "content": piece}, model=model) for piece in pieces]
        return [*events, openai_event({}, "stop", model=model), sse("[DONE]")]
    events = [openai_role(engine, model=model), *(openai_event({"content": piece}, model=model) for piece in pieces)]
    if engine == "vllm":
        # The last piece itself carries the reason.
        events[-1] = openai_event({"content": pieces[-1]}, "stop", model=model)
    else:
        events.append(openai_event({}, "stop", model=model))
    return [*events, sse("[DONE]")]


def openai_chat(words: str, *, model: str = "tiny") -> dict[str, Any]:
    """Make a whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": len(words.split()), "total_tokens": 3 + len(words.split())}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def openai_text_events(words: str, *, model: str = "tiny") -> list[bytes]:
    """Write a good /v1/completions stream."""

    def event(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return sse({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": model, "choices": [choice]})

    return [*(event(piece) for piece in pieces_of(words)), event("", "stop"), sse("[DONE]")]


def ollama_line(piece: str, *, is_chat: bool = True, model: str = "tiny") -> dict[str, Any]:
    """Make one line of an Ollama stream that is not the last."""
    said: dict[str, Any] = {"message": {"role": "assistant", "content": piece}} if is_chat else {"response": piece}
    return {"model": model, "created_at": "2026-08-21T10:00:00Z", **said, "done": False}


def ollama_last(piece: str = "", *, is_chat: bool = True, model: str = "tiny") -> dict[str, Any]:
    """Make the line with the counters that ends an Ollama answer."""
    counts = {"total_duration": 5_000_000, "load_duration": 1, "prompt_eval_count": 3, "eval_count": 3, "eval_duration": 9}
    return ollama_line(piece, is_chat=is_chat, model=model) | {"done": True, "done_reason": "stop"} | counts


def ollama_lines(words: str, *, is_chat: bool = True, model: str = "tiny") -> list[bytes]:
    """Write a good NDJSON stream."""
    lines = [line(ollama_line(piece, is_chat=is_chat, model=model)) for piece in pieces_of(words)]
    return [*lines, line(ollama_last(is_chat=is_chat, model=model))]


def named(event: dict[str, Any]) -> bytes:
    """Write one Anthropic event: its name stands before its data."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def anthropic_events(words: str, *, model: str = "tiny") -> list[bytes]:
    """Write a good /v1/messages stream."""
    message = anthropic_message("", model=model) | {"content": [], "stop_reason": None}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces_of(words)
    ]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return [named(event) for event in events]


def anthropic_message(words: str, *, model: str = "tiny") -> dict[str, Any]:
    """Make a whole message."""
    usage = {"input_tokens": 3, "output_tokens": 3}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    return {
        **head,
        "content": [{"type": "text", "text": words}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def tell(path: str, body: Mapping[str, Any], words: str, *, engine: str) -> Answer:
    """Answer a generating request as `engine` does: the words, streamed or whole, in the path's dialect; 404 elsewhere."""
    model = str(body.get("model", "tiny"))
    is_streaming = bool(body.get("stream", path in ("/api/chat", "/api/generate")))
    if path in ("/api/chat", "/api/generate"):
        is_chat = path == "/api/chat"
        lines = ollama_lines(words, is_chat=is_chat, model=model)
        return stream(lines, NDJSON) if is_streaming else whole(200, ollama_last(words, is_chat=is_chat, model=model))
    if path == "/v1/messages":
        return stream(anthropic_events(words, model=model)) if is_streaming else whole(200, anthropic_message(words, model=model))
    if path == "/v1/completions" and is_streaming:
        return stream(openai_text_events(words, model=model))
    if path == "/v1/chat/completions" and is_streaming:
        return stream(openai_chat_events(words, engine=engine, model=model))
    if path == "/v1/chat/completions":
        return whole(200, openai_chat(words, model=model))
    return whole(200, {"object": "answer", "model": model, "words": words})


def early_refusal(status: int, value: Any) -> Answer:
    """Refuse before the request's body was read, and wait for the peer to leave, as a server does that lingers."""
    body = json.dumps(value).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    return answer(send(head_bytes(status, fields) + body), hang(), reads_body=False)
