"""Tell what an engine's answer that is not a success means.

`classify` is called by dataplane.relay for generating requests and by the probes of this room. It reads the status first and
the JSON shape second; where an engine has nothing but text to tell (`TEXTS`), the start of the error's own message is compared,
never the whole body. Never decides what to do about it: that is errors.MEANING and core.exchange.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from understudy.core.snapshot import EngineKind
from understudy.errors import FailureKind

RETRY_AFTER_S_MAX: Final = 60.0
# An error message is a line or two. More of a body is never looked at as text: it may repeat the prompt.
TEXT_CHARACTERS_MAX: Final = 1024
BODY_BYTES_MAX: Final = 64 * 1024

_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_ANY: Final = EngineKind.AUTO


@dataclass(frozen=True, slots=True)
class _Text:
    """One thing that an engine tells in words only. `phrase` is compared in lower case; AUTO stands for every engine."""

    status: int
    engine: EngineKind
    phrase: str
    kind: FailureKind


# Source: engines.md section 5, there each with version and file. A phrase is the shortest part that no other message has.
TEXTS: Final = (
    # llama.cpp: /slots?fail_on_no_slot=1 and forks that refuse instead of queueing, same shape as "Loading model".
    _Text(503, _ANY, "no slot available", FailureKind.BUSY),
    _Text(503, _ANY, "loading model", FailureKind.LOADING),
    # Ollama, server/sched.go (ErrMaxQueue).
    _Text(503, _ANY, "server busy, please try again", FailureKind.BUSY),
    # vLLM, --max-num-queued-reqs; and the middleware of elastic expert parallelism, whose error is a bare string.
    _Text(503, _ANY, "engine is currently busy", FailureKind.BUSY),
    _Text(503, _ANY, "model is currently scaling", FailureKind.LOADING),
    # SGLang, srt/managers/scheduler.py.
    _Text(503, _ANY, "request queue is full", FailureKind.BUSY),
    _Text(503, _ANY, "aborted by a higher priority request", FailureKind.BUSY),
    # torch (vLLM, SGLang), ggml ("cudaMalloc failed: out of memory") and the allocators behind them.
    _Text(500, _ANY, "out of memory", FailureKind.OUT_OF_MEMORY),
    _Text(500, _ANY, "outofmemory", FailureKind.OUT_OF_MEMORY),
    # Ollama, llm/server.go: "model requires more system memory (44.0 GiB) than is available (7.6 GiB)".
    _Text(500, _ANY, "requires more system memory", FailureKind.OUT_OF_MEMORY),
    _Text(500, _ANY, "failed to allocate", FailureKind.OUT_OF_MEMORY),
    # llama.cpp in router mode answers 400, not 404: tools/server/server-models.cpp, router_validate_model.
    _Text(400, EngineKind.LLAMACPP, "' not found", FailureKind.MODEL_MISSING),
    _Text(400, EngineKind.LLAMACPP, "model is not loaded", FailureKind.MODEL_MISSING),
    # llama.cpp's answer to a path that it does not have.
    _Text(404, _ANY, "file not found", FailureKind.UNSUPPORTED),
)

_PLAIN: Final = {
    429: FailureKind.BUSY,
    500: FailureKind.SERVER_ERROR,
    501: FailureKind.UNSUPPORTED,
    502: FailureKind.UNAVAILABLE,
    503: FailureKind.UNAVAILABLE,
    504: FailureKind.UNAVAILABLE,
    # "Overloaded", as Anthropic's own API answers it and gateways in front of engines do.
    529: FailureKind.BUSY,
}


class _Error(msgspec.Struct):
    """The inner object of OpenAI's, Anthropic's and llama.cpp's errors. Any: engines put numbers and null into every field."""

    message: object = None
    type: object = None
    param: object = None


class _Body(msgspec.Struct):
    """Every shape of engines.md section 5 at once: an `error` string or object, SGLang's top level, FastAPI's `detail`."""

    error: object = None
    message: object = None
    type: object = None
    param: object = None
    detail: object = None


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error body, reduced. `message` is at most TEXT_CHARACTERS_MAX long; `is_json` is False for text and for cut JSON."""

    message: str = ""
    type: str = ""
    param: str = ""
    detail: str = ""
    is_json: bool = False


_READER: Final = msgspec.json.Decoder(_Body)


def read_error(body: bytes) -> ErrorAnswer:
    """Reduce an error body to the fields that tell something; a body that is no JSON object becomes its own message.

    Raises nothing, whatever the body is.
    """
    try:
        found = _READER.decode(body[:BODY_BYTES_MAX])
    except (ValueError, RecursionError):
        return ErrorAnswer(message=body[:TEXT_CHARACTERS_MAX].decode("utf-8", "replace"))
    error = _Error(found.message, found.type, found.param)
    if isinstance(found.error, str):
        error = _Error(found.error)
    elif isinstance(found.error, dict):
        error = _Error(found.error.get("message"), found.error.get("type"), found.error.get("param"))
    return ErrorAnswer(_text(error.message), _text(error.type), _text(error.param), _text(found.detail), is_json=True)


def _text(value: object) -> str:
    return value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else ""


def classify(engine: EngineKind, *, status: int, retry_after: str, body: bytes) -> FailureKind | None:
    """Say what an engine's answer to a generating request means; None: pass it on, it is a plain answer or the client's fault.

    `retry_after` is the field's value, "" when absent. `body` may be cut; its first 64 KiB are read. AUTO, for an engine that
    is not known yet, is treated like any. Source: engines.md section 5.
    """
    if status < 400:
        return None
    plain = _PLAIN.get(status, FailureKind.SERVER_ERROR if status >= 500 else None)
    if status not in {400, 404, 500, 503}:
        return plain
    error = read_error(body)
    words = error.message.lower()
    for text in TEXTS:
        if text.status == status and text.engine in {_ANY, engine} and text.phrase in words:
            return text.kind
    if status == 404:
        return _missing(error)
    if status == 503:
        return _unavailable(error, retry_after)
    return plain


def _missing(error: ErrorAnswer) -> FailureKind | None:
    """Tell a 404 of a generating path: the model is missing, or the path is, or something else that the client named."""
    # "404 page not found" (gin) and {"detail":"Not Found"} (FastAPI) are paths that this engine does not have.
    if not error.is_json or error.detail:
        return FailureKind.UNSUPPORTED
    # vLLM and SGLang name the field: "model", or "response_id" for a Responses object that lives elsewhere.
    if error.param not in {"", "model"}:
        return None
    return FailureKind.MODEL_MISSING


def _unavailable(error: ErrorAnswer, retry_after: str) -> FailureKind:
    # llama.cpp's own type; on a generating path it has no other 503 than "Loading model".
    if error.type == "unavailable_error":
        return FailureKind.LOADING
    # vLLM's admission control (http.HTTPStatus.phrase). A dead vLLM core answers 500.
    if error.type == "Service Unavailable" or retry_after.strip():
        return FailureKind.BUSY
    return FailureKind.UNAVAILABLE


def retry_after_s(text: str) -> float:
    """Read a Retry-After field in its seconds form, capped at 60 s; 0.0 for anything else, dates included.

    Dates are left out because no engine sends any and they would need the wall clock (RFC 9110, 10.2.3).
    """
    stripped = text.strip(" \t")
    return min(float(stripped), RETRY_AFTER_S_MAX) if _DIGITS.fullmatch(stripped) else 0.0
