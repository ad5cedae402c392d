"""Fill in what a client leaves open, temperature and the like, under the name and in the place that each API has for it.

Called by dialects.prompting. One set of defaults is for all APIs, so what an API has no word for is left out rather than refused
by an engine. Pure. Never changes what a client has said, under whatever name it has said it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from understudy.dialects.raw_json import read_members

Members = Mapping[str, msgspec.Raw]
Changes = dict[str, Any]

NULL = msgspec.Raw(b"null")

DEFAULTS_REFUSED = frozenset(
    (
        # What is asked, of which model, and the system prompt, which has a setting of its own.
        *("model", "name", "messages", "prompt", "input", "system", "instructions"),
        *("images", "suffix", "context", "input_ids", "input_embeds", "prompt_embeds", "previous_response_id", "conversation"),
        # How the answer comes: a client reads one answer, streamed or not, and nothing else than it asked for.
        *("stream", "stream_options", "background", "n", "n_cmpl", "best_of", "use_beam_search", "echo", "_debug_render_only"),
        # Tools are run by the client that offers them; a choice without any is refused by most engines.
        *("tools", "functions", "tool_choice", "function_call"),
        # A template that is not the model's own, or none: Ollama refuses the one beside the other.
        *("raw", "template"),
    )
)
"""The keys that may not stand in defaults: only the client can know them."""

# What says the same under several names. Who gives one of them has given all.
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict")
_STOPS = ("stop", "stop_sequences")
_REPEATS = ("repeat_penalty", "repetition_penalty")
_SAME = {name: names for names in (_BOUNDS, _STOPS, _REPEATS) for name in names}

# Ollama's sampling and what loads its model (ollama api/types.go, Options and Runner, also of older versions). Anything else
# stands at the top of a body: think, format, keep_alive, truncate, shift, logprobs, top_logprobs.
_OPTIONS = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "tfs_z", "seed", "stop", "num_predict"),
        *("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty", "penalize_newline"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "num_keep"),
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa", "low_vram", "f16_kv"),
        *("logits_all", "vocab_only"),
    )
)
# What only Ollama's own API has; OpenAI's and Anthropic's servers refuse a member that they do not know.
_OLLAMA_ALONE = frozenset(
    (
        *("options", "think", "format", "keep_alive", "truncate", "shift", "tfs_z", "penalize_newline", "num_keep"),
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa", "low_vram", "f16_kv"),
        *("logits_all", "vocab_only"),
    )
)


@dataclass(frozen=True, slots=True)
class Naming:
    """What an API calls what others call otherwise.

    `names` has the configured name and the API's, `lists` what is a list even of one text, `absent` what is left out. With
    `has_options` what is in `_OPTIONS` stands in an object of that name.
    """

    names: Mapping[str, str]
    lists: frozenset[str] = frozenset()
    absent: frozenset[str] = _OLLAMA_ALONE
    has_options: bool = False


# max_completion_tokens stays what it is in a chat: OpenAI's newer models refuse max_tokens.
OPENAI_CHAT = Naming({**dict.fromkeys(_BOUNDS[2:], "max_tokens"), "stop_sequences": "stop"})
OPENAI_TEXT = Naming({**dict.fromkeys(_BOUNDS, "max_tokens"), "stop_sequences": "stop"})
OPENAI_RESPONSES = Naming({**dict.fromkeys(_BOUNDS, "max_output_tokens"), "stop_sequences": "stop"})
ANTHROPIC = Naming({**dict.fromkeys(_BOUNDS, "max_tokens"), "stop": "stop_sequences"}, frozenset(("stop_sequences",)))
OLLAMA = Naming(
    {**dict.fromkeys(_BOUNDS, "num_predict"), "stop_sequences": "stop", "repetition_penalty": "repeat_penalty"},
    frozenset(("stop",)),  # Options.FromMap refuses a text
    absent=frozenset(),
    has_options=True,
)


def filled(naming: Naming, members: Members, defaults: Iterable[tuple[str, str]]) -> Changes:
    """Return the members of a body that change when `defaults`, each a name and the JSON text of its value, are filled in.

    Of names for the same the first counts. null is as good as absent: in a body engines take it so, and a default that is null
    is none. Where a client's options are no object nothing is put into them, because the engine refuses them.
    """
    top: Changes = {}
    inner: Changes = {}
    options = _read_options(members) if naming.has_options else None
    for key, text in defaults:
        value = msgspec.Raw(text.encode("utf-8", "replace"))
        name = naming.names.get(key, key)
        if key in naming.absent:
            continue
        if not naming.has_options or (key != "options" and name not in _OPTIONS):
            _fill(top, members, naming, key, value)
        elif options is not None:
            inside = (read_members(value) or {}) if key == "options" else {key: value}
            for inner_key, inner_value in inside.items():
                _fill(inner, options, naming, inner_key, inner_value)
    if inner:
        top["options"] = {**(options or {}), **inner}
    return top


def kind_of(value: msgspec.Raw) -> bytes:
    """Return the first byte of a value, which tells its type: an n is null."""
    return bytes(memoryview(value)[:1])


def _read_options(members: Members) -> Members | None:
    options = members.get("options", NULL)
    return {} if options == NULL else read_members(options)


def _fill(changes: Changes, told: Members, naming: Naming, key: str, value: msgspec.Raw) -> None:
    name = naming.names.get(key, key)
    same = _SAME.get(name, (name,))
    if value == NULL or any(one in changes or told.get(one, NULL) != NULL for one in same):
        return
    is_bare = name in naming.lists and kind_of(value) == b'"'
    changes[name] = msgspec.Raw(b"[" + bytes(value) + b"]") if is_bare else value
