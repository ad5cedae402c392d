"""Tell whether a request fixes its answer: an engine that is asked the same twice is meant to say the same twice.

Called by dataplane.caching, and only while answers are kept. Errs on the side of no, which costs one more question to an engine.
Never compares two requests (core.answer_cache), and knows nothing of how exactly an engine keeps to it.
"""

from collections.abc import Callable
from typing import Any

import msgspec

# What is measured or ranked is computed, without any chance.
_WITHOUT_CHANCE = frozenset(("/v1/embeddings", "/v1/rerank", "/api/embed", "/api/embeddings"))
# -1 means a random seed in every engine: vLLM (sampling_params.py), Ollama (sample/samplers.go), and llama.cpp, which reads seeds
# as 32 bits, so that this one, too, is its LLAMA_DEFAULT_SEED (llama.h). 0 is a seed like any other. Other negative ones are
# random in some versions of Ollama only, and larger ones are cut to 32 bits by some, so that neither counts as one.
_RANDOM_SEED = 0xFFFFFFFF


class _Sampling(msgspec.Struct):
    """How tokens are chosen. null is as good as absent in every engine."""

    temperature: int | float | None = None
    seed: int | float | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether chance has no part in it: the likeliest token each time, or a seed of the client's."""
        seed = self.seed
        return self.temperature == 0 or (seed is not None and 0 <= seed < _RANDOM_SEED and seed == int(seed))


class _OpenAI(_Sampling):
    """A body of OpenAI's API. Of /v1/responses: what answers later, or from what the server keeps."""

    background: Any = None
    previous_response_id: Any = None
    conversation: Any = None


class _Ollama(msgspec.Struct):
    """A body of Ollama's API. One that says nothing has the model loaded or unloaded, which is no question."""

    options: _Sampling | None = None
    prompt: str = ""
    messages: tuple[msgspec.Raw, ...] = ()


class _Anthropic(msgspec.Struct):
    """A body of Anthropic's API, which has no seed."""

    temperature: int | float | None = None


_DECODE_OPENAI = msgspec.json.Decoder(_OpenAI).decode
_DECODE_OLLAMA = msgspec.json.Decoder(_Ollama).decode
_DECODE_ANTHROPIC = msgspec.json.Decoder(_Anthropic).decode


def _is_fixed_openai(body: bytes) -> bool:
    ask = _DECODE_OPENAI(body)
    return ask.is_fixed and not (ask.background or ask.previous_response_id or ask.conversation)


def _is_fixed_ollama(body: bytes) -> bool:
    ask = _DECODE_OLLAMA(body)
    return ask.options is not None and ask.options.is_fixed and bool(ask.prompt or ask.messages)


def _is_fixed_anthropic(body: bytes) -> bool:
    return _DECODE_ANTHROPIC(body).temperature == 0


_READERS: dict[str, Callable[[bytes], bool]] = {
    "/v1/chat/completions": _is_fixed_openai,
    "/v1/completions": _is_fixed_openai,
    "/v1/responses": _is_fixed_openai,
    "/api/chat": _is_fixed_ollama,
    "/api/generate": _is_fixed_ollama,
    "/v1/messages": _is_fixed_anthropic,
}


def is_repeatable(path: str, body: bytes) -> bool:
    """Tell whether the body of a POST to `path` fixes the answer: by temperature 0, by a seed, or because no chance is in it.

    Ollama's own paths have both keys under `options`. False for a body that is not strict JSON or gives either key another type,
    for a path that generates nothing, and for a request that is not about an answer alone. Raises nothing. Most requests have
    neither key and cost a search for them.
    """
    path = path.partition("?")[0]
    if path in _WITHOUT_CHANCE:
        return True
    is_fixed = _READERS.get(path)
    if is_fixed is None or (b'"temperature"' not in body and b'"seed"' not in body):
        return False
    try:
        return is_fixed(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
