"""Tell which engine answers at an address. Called through engines.probe for `engine: auto`; source: engines.md section 1.

Goes by what an engine says of itself, never by which paths it has: SGLang serves Ollama's paths, and llama.cpp's list has
Ollama's shape. Never asks more than two questions.
"""

from typing import Final

from understudy.core.snapshot import EngineKind
from understudy.engines.contract import Asking, ProbeAnswer, ProbeRequest
from understudy.engines.listing import read_openai_list

_OWNERS: Final = {"vllm": EngineKind.VLLM, "sglang": EngineKind.SGLANG, "llamacpp": EngineKind.LLAMACPP}
_GREETINGS: Final = ((b"Ollama is running", EngineKind.OLLAMA), (b"SGLang is running", EngineKind.SGLANG))


def detect() -> Asking[tuple[EngineKind | None, ProbeAnswer | None]]:
    """Ask until the engine is told; OPENAI when none is, None when there was no answer. With it the answer of /v1/models."""
    answer = yield ProbeRequest("/v1/models")
    if answer is None:
        return None, None
    found = _by_list(answer)
    if found is not None:
        return found, answer
    greeting = yield ProbeRequest("/")
    if greeting is None:
        # Ollama is told by this answer alone: to guess without it would deny it to Ollama's clients.
        return None, answer
    if greeting.status == 200:
        for text, engine in _GREETINGS:
            if greeting.body.startswith(text):
                return engine, answer
    return EngineKind.OPENAI, answer


def _by_list(answer: ProbeAnswer) -> EngineKind | None:
    # llama.cpp signs every answer, also "Loading model" and a refused key.
    if answer.headers.get("server", "").startswith("llama.cpp"):
        return EngineKind.LLAMACPP
    listed = read_openai_list(answer.body) if answer.status == 200 else ()
    if isinstance(listed, str):
        return None
    return next((_OWNERS[one.owner] for one in listed if one.owner in _OWNERS), None)
