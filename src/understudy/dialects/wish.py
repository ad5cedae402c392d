"""Read from a request's body what a continuation of its answer must heed: bounds, stop strings, and what makes it hard.

Called by dataplane.resuming at a break, so its cost does not matter; `shape_of` with every first content. Errs on the side of a
`Case`: one too many is an honest end, one too few a corrupted answer. Never writes a request (engines).
"""

from collections.abc import Iterator
from typing import Any

from understudy.core.transcript import OLLAMA_SHAPES, Case, Refusal, Shape, Wish
from understudy.dialects.events import read_json

_SHAPES = {
    "/v1/chat/completions": Shape.OPENAI_CHAT,
    "/v1/completions": Shape.OPENAI_TEXT,
    "/api/chat": Shape.OLLAMA_CHAT,
    "/api/generate": Shape.OLLAMA_TEXT,
    "/v1/messages": Shape.ANTHROPIC,
}
# A longer stop string is none that anybody writes by hand.
STOP_CHARACTERS_MAX = 1024
_OPENAI = (Shape.OPENAI_CHAT, Shape.OPENAI_TEXT)
_BOUNDS = ("max_completion_tokens", "max_tokens", "n_predict")
_COUNTS = ("n", "n_cmpl", "best_of")
_JSON_KEYS = ("json_schema", "guided_json", "output_format")
_GRAMMAR_KEYS = (
    *("grammar", "guided_regex", "guided_grammar", "guided_choice"),  # llama.cpp, vLLM until 0.12
    *("regex", "ebnf", "structural_tag"),  # SGLang
)
_JSON_FORMATS = ("json_object", "json_schema", "json")
# Of vLLM's structured_outputs.
_JSON_OUTPUTS = frozenset(("json", "json_object"))
_SILENT_OUTPUTS = frozenset(("disable_any_whitespace", "disable_fallback", "disable_additional_properties", "whitespace_pattern"))
# Text that the answer has before or instead of what is generated, or a prompt that is no text.
_FORM_KEYS = ("echo", "suffix", "prompt_embeds", "input_ids", "input_embeds")
_FREE_TOOL_CHOICES = (None, "auto", "none")
# Content parts that are text to the model; anything else is a picture or a sound to it.
_TEXT_PARTS = frozenset(
    ("text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference")
)


def shape_of(path: str) -> Shape | None:
    """Return how the answer to a POST to `path` reads when streamed; None where it is no generated text that could go on."""
    return _SHAPES.get(path.partition("?")[0])


def read_wish(path: str, body: bytes) -> Wish | Refusal:
    """Read the body of a generating request. NOT_TEXT for other paths, UNREADABLE for a body that is no JSON object."""
    shape = shape_of(path)
    if shape is None:
        return Refusal.NOT_TEXT
    ask = read_json(body)
    if not isinstance(ask, dict):
        return Refusal.UNREADABLE
    options = ask.get("options")
    options = options if isinstance(options, dict) else {}
    if shape in _OPENAI:
        tokens_max, stops = _first_bound(ask, _BOUNDS), ask.get("stop")
    elif shape in OLLAMA_SHAPES:
        tokens_max, stops = _first_bound(options, ("num_predict",)), options.get("stop")
    else:
        tokens_max, stops = _first_bound(ask, ("max_tokens",)), ask.get("stop_sequences")
    stream_options = ask.get("stream_options")
    has_usage_event = isinstance(stream_options, dict) and stream_options.get("include_usage")
    stop_strings = _stops(stops)
    cases = set(_cases(shape, ask))
    if any(len(stop) > STOP_CHARACTERS_MAX for stop in stop_strings):
        # Looking for the beginning of one takes time by the square of its length.
        stop_strings, cases = (), cases | {Case.PROMPT_FORM}
    return Wish(
        shape,
        tokens_max,
        stop_strings,
        frozenset(cases),
        # A collected answer always has its usage.
        wants_usage=shape in _OPENAI and (bool(has_usage_event) or not ask.get("stream")),
        wants_token_ids=bool(ask.get("return_token_ids")),
    )


def _first_bound(ask: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    """Return the first bound of `keys` that is one: engines take 0 for none or answer nothing, and below 0 for none."""
    for key in keys:
        value = _whole(ask.get(key))
        if value is not None:
            return value if value > 0 else None
    return None


def _whole(value: Any) -> int | None:
    """Read a whole number as engines do, which take "7" and 7.0 for 7."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


def _stops(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(stop for stop in values if isinstance(stop, str) and stop)


def _cases(shape: Shape, ask: dict[str, Any]) -> Iterator[Case]:
    """Yield what the request alone makes hard, some of it more than once."""
    if any((_whole(ask.get(key)) or 1) > 1 for key in _COUNTS) or ask.get("use_beam_search"):
        yield Case.SEVERAL_CHOICES
    yield from _tool_cases(ask)
    yield from _format_cases(shape, ask)
    if _is_asked(ask, "logprobs", "top_logprobs", "prompt_logprobs", "n_probs"):
        yield Case.LOGPROBS
    modalities = ask.get("modalities")
    if ask.get("audio") or (isinstance(modalities, list) and modalities not in ([], ["text"])):
        yield Case.AUDIO
    yield from _part_cases(ask.get("messages"))
    if ask.get("images"):
        yield Case.IMAGES
    yield from _prompt_cases(shape, ask)


def _is_asked(ask: dict[str, Any], *keys: str) -> bool:
    """Whether one of `keys` asks for something. For `logprobs` 0 does, too: the chosen token's own."""
    return any(
        value is not None and value is not False and (value != 0 or key in ("logprobs", "prompt_logprobs"))
        for key, value in ((key, ask.get(key)) for key in keys)
    )


def _tool_cases(ask: dict[str, Any]) -> Iterator[Case]:
    if not (ask.get("tools") or ask.get("functions")):
        return
    choice = ask.get("tool_choice", ask.get("function_call"))
    if isinstance(choice, dict) and choice.get("type") in ("auto", "none"):
        choice = choice["type"]
    if choice not in _FREE_TOOL_CHOICES:
        # A call is forced by a grammar, which no continuation takes up in its middle.
        yield Case.GRAMMAR
    if choice != "none":
        yield Case.TOOLS_OFFERED


def _format_cases(shape: Shape, ask: dict[str, Any]) -> Iterator[Case]:
    wanted = ask.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in _JSON_FORMATS:
        yield Case.JSON_MODE
    elif kind not in (None, "text", "auto"):
        yield Case.GRAMMAR
    if any(ask.get(key) for key in _JSON_KEYS) or (shape in OLLAMA_SHAPES and ask.get("format")):
        yield Case.JSON_MODE
    outputs = ask.get("structured_outputs")
    if isinstance(outputs, dict):
        asked = {key for key, value in outputs.items() if value} - _SILENT_OUTPUTS
        if asked:
            yield Case.JSON_MODE if asked <= _JSON_OUTPUTS else Case.GRAMMAR
    elif outputs:
        yield Case.GRAMMAR
    config = ask.get("output_config")
    if isinstance(config, dict) and config.get("format"):
        yield Case.JSON_MODE
    if any(ask.get(key) for key in _GRAMMAR_KEYS):
        yield Case.GRAMMAR


def _part_cases(messages: Any) -> Iterator[Case]:
    """Yield what the parts of messages are besides text; a tool's result has parts, too."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        if message.get("images"):
            yield Case.IMAGES
        if message.get("audio"):
            yield Case.AUDIO
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            kind = part.get("type", "text")
            if isinstance(kind, str) and "audio" in kind:
                yield Case.AUDIO
            elif not isinstance(kind, str) or kind not in _TEXT_PARTS:
                yield Case.IMAGES
            yield from _part_cases([part])


def _prompt_cases(shape: Shape, ask: dict[str, Any]) -> Iterator[Case]:
    if any(ask.get(key) for key in _FORM_KEYS) or (shape is Shape.OLLAMA_TEXT and ask.get("context")):
        yield Case.PROMPT_FORM
    if ask.get("include_reasoning") is False:
        # What vLLM has thought is part of its prompt, and nobody has seen it.
        yield Case.PROMPT_FORM
    prompt = ask.get("prompt")
    if prompt is not None and shape in (Shape.OPENAI_TEXT, Shape.OLLAMA_TEXT) and not isinstance(prompt, str):
        if isinstance(prompt, list) and all(isinstance(part, str) for part in prompt):
            if len(prompt) > 1:
                yield Case.SEVERAL_CHOICES
        else:
            yield Case.PROMPT_FORM
