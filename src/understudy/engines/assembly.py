"""Ask for an answer as a stream although the client wants it whole, and put it together as the engine would have.

`as_streamed` tells for which requests the whole that comes out is known to equal the engine's own, member by member, and writes
the request; `assemble` writes the answer. Called by the data plane; assembled_openai and assembled_ollama of dialects join the
events. What is not known to be equal is not asked for as a stream. Only times and ids differ, as they do when an engine is asked
twice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from understudy.core.snapshot import EngineKind
from understudy.dialects import assembled_ollama, assembled_openai
from understudy.dialects.assembled_openai import Style

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
OLLAMA_CHAT = "/api/chat"
OLLAMA_TEXT = "/api/generate"

_TRUE = b"true"
_USAGE = b'{"include_usage":true}'
_NOTHING = frozenset((b"null", b"false", b"0", b"[]", b'""', b"{}"))


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What no engine's answer changes its shape for, or what each of them leaves unread.
_SAMPLING = _keys(
    "model temperature top_p seed stop max_tokens max_completion_tokens presence_penalty frequency_penalty logit_bias user store "
    "metadata safety_identifier prompt_cache_key"
)
_LLAMACPP = _SAMPLING | _keys(
    "n_predict top_k min_p typical_p top_n_sigma xtc_probability xtc_threshold dynatemp_range dynatemp_exponent repeat_last_n "
    "repeat_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau "
    "mirostat_eta min_keep samplers ignore_eos cache_prompt n_keep id_slot grammar json_schema response_format "
    "timings_per_token"
)
_LLAMACPP_CHAT = _LLAMACPP | _keys(
    "messages tool_choice parallel_tool_calls chat_template_kwargs reasoning_effort thinking_budget_tokens"
)
_OLLAMA = _SAMPLING | _keys("messages reasoning reasoning_effort response_format tools tool_choice parallel_tool_calls")
_OLLAMA_NATIVE = _keys("model format options keep_alive think truncate shift")

_VLLM = _SAMPLING | _keys(
    "top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens "
    "skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side allowed_token_ids bad_words "
    "add_special_tokens priority response_format structured_outputs"
)
_VLLM_CHAT = _VLLM | _keys(
    "messages tool_choice parallel_tool_calls reasoning_effort thinking_token_budget add_generation_prompt "
    "continue_final_message documents chat_template chat_template_kwargs mm_processor_kwargs"
)

# These may stand in a request as long as they ask for nothing.
_UNASKED = _keys("tools functions top_logprobs n_probs echo suffix best_of return_progress verbose audio")


@dataclass(frozen=True, slots=True)
class _Proof:
    """For one engine and path: the members that are known to leave stream and whole alike, and what to write into the request.

    `needs` must be there and say something. `is_prefill_joined`: the whole begins with the client's own last message, which the
    stream leaves out. `versions`: how the engine's version must begin.
    """

    known: frozenset[str]
    needs: str
    writes: Mapping[str, bytes]
    is_prefill_joined: bool = False
    versions: tuple[str, ...] = ("",)


# Each with its evidence. llama.cpp: asked both ways (tests/integration/test_assembly.py, b11549); timings_per_token tells whether
# the last tokens' text was sent (assembled_openai). Ollama: server/routes.go reads the same channel of lines for both and adds up
# text, thinking and, when tools were offered, tool calls; middleware/openai.go writes both from the same structures.
# vLLM: asked both ways, 0.32.0, without a parser for reasoning or tools.
_LLAMACPP_WRITES = {"stream": _TRUE, "stream_options": _USAGE, "timings_per_token": _TRUE}
_WRITES = {"stream": _TRUE, "stream_options": _USAGE}
# vLLM writes every member, null or not, and other versions have others.
_VLLM_VERSIONS = ("0.32.",)
_PROOFS: Mapping[tuple[EngineKind, str], _Proof] = {
    (EngineKind.LLAMACPP, CHAT): _Proof(_LLAMACPP_CHAT, "messages", _LLAMACPP_WRITES, is_prefill_joined=True),
    (EngineKind.LLAMACPP, TEXT): _Proof(_LLAMACPP | {"prompt"}, "prompt", _LLAMACPP_WRITES),
    (EngineKind.VLLM, CHAT): _Proof(_VLLM_CHAT, "messages", _WRITES, versions=_VLLM_VERSIONS),
    (EngineKind.VLLM, TEXT): _Proof(_VLLM | {"prompt"}, "prompt", _WRITES, versions=_VLLM_VERSIONS),
    (EngineKind.OLLAMA, CHAT): _Proof(_OLLAMA, "messages", _WRITES),
    (EngineKind.OLLAMA, TEXT): _Proof(_SAMPLING | {"prompt", "suffix"}, "prompt", _WRITES),
    (EngineKind.OLLAMA, OLLAMA_CHAT): _Proof(_OLLAMA_NATIVE | {"messages", "tools"}, "messages", {"stream": _TRUE}),
    (EngineKind.OLLAMA, OLLAMA_TEXT): _Proof(
        _OLLAMA_NATIVE | {"prompt", "suffix", "images", "system", "template", "raw", "context"}, "prompt", {"stream": _TRUE}
    ),
}

_CHAT_NAME = b'"chat.completion"'
_TEXT_NAME = b'"text_completion"'
_JSON = b"application/json"

# Recorded, b11549; server-task.cpp, to_json_oaicompat and to_json_oaicompat_chat.
LLAMACPP_CHAT_STYLE = Style(
    name=_CHAT_NAME,
    members=("choices", "created", "model", "system_fingerprint", "object", "usage", "id", "timings"),
    choice=("finish_reason", "index", "message"),
    message=("role", "content", "reasoning_content"),
    content_type=b"application/json; charset=utf-8",
    can_withhold=True,
)
LLAMACPP_TEXT_STYLE = replace(
    LLAMACPP_CHAT_STYLE, name=_TEXT_NAME, choice=("text", "index", "logprobs", "finish_reason"), message=()
)

# Read: openai/openai.go, ChatCompletion, Completion and their choices. Go's JSON encoder ends with a line end.
OLLAMA_CHAT_STYLE = Style(
    name=_CHAT_NAME,
    members=("id", "object", "created", "model", "system_fingerprint", "choices", "usage"),
    choice=("index", "message", "finish_reason"),
    message=("role", "content", "reasoning", "tool_calls"),
    content_type=_JSON,
    end=b"\n",
)
OLLAMA_TEXT_STYLE = replace(OLLAMA_CHAT_STYLE, name=_TEXT_NAME, choice=("text", "index", "finish_reason"), message=())

# Recorded, 0.32.0; entrypoints/openai/chat_completion/protocol.py, completion/protocol.py.
_VLLM_HEAD = ("id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage")
_VLLM_TAIL = ("kv_transfer_params", "ec_transfer_params", "metrics")
VLLM_CHAT_STYLE = Style(
    name=_CHAT_NAME,
    members=(*_VLLM_HEAD, "prompt_logprobs", "prompt_token_ids", "prompt_text", *_VLLM_TAIL),
    choice=("index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"),
    message=("role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"),
    content_type=_JSON,
    usage=("prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"),
    is_full=True,
)
VLLM_TEXT_STYLE = replace(
    VLLM_CHAT_STYLE,
    name=_TEXT_NAME,
    members=(*_VLLM_HEAD, *_VLLM_TAIL),
    choice=(
        *("index", "text", "logprobs", "finish_reason", "stop_reason"),
        *("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts"),
    ),
    message=(),
)

_STYLES: Mapping[tuple[EngineKind, str], Style] = {
    (EngineKind.LLAMACPP, CHAT): LLAMACPP_CHAT_STYLE,
    (EngineKind.LLAMACPP, TEXT): LLAMACPP_TEXT_STYLE,
    (EngineKind.OLLAMA, CHAT): OLLAMA_CHAT_STYLE,
    (EngineKind.OLLAMA, TEXT): OLLAMA_TEXT_STYLE,
    (EngineKind.VLLM, CHAT): VLLM_CHAT_STYLE,
    (EngineKind.VLLM, TEXT): VLLM_TEXT_STYLE,
}


class _Role(msgspec.Struct):
    role: str = ""


class _Roles(msgspec.Struct):
    messages: list[_Role] = []


ASSEMBLED = frozenset(engine for engine, _ in _PROOFS)
"""The engines of which any answer is put together here."""

_DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE_ROLES = msgspec.json.Decoder(_Roles).decode


def as_streamed(engine: EngineKind, path: str, body: bytes, version: str = "") -> bytes | None:
    """Return `body` asking for a stream whose whole is known to equal the engine's own answer to `body`; None when it is not.

    `version` is the engine's, "" when unknown. Only the members that ask for the stream change or are added, every other byte
    stays. Raises nothing.
    """
    proof = _PROOFS.get((engine, path))
    if proof is None or not version.startswith(proof.versions):
        return None
    members = _members(body)
    if members is None or not _is_proven(proof, members) or (proof.is_prefill_joined and _ends_with_assistant(body)):
        return None
    if engine is EngineKind.OLLAMA and _is_elsewhere(members.get("model", b"")):
        return None
    for key, value in proof.writes.items():
        changed = _with_member(body, members, key, value)
        if changed is None:
            return None
        body = changed
    return body


def assemble(engine: EngineKind, path: str, body: bytes, data: bytes) -> tuple[bytes, bytes] | None:
    """Return the body and the content type of the answer that `engine` would have given to `body` whole; None when it cannot.

    `data` is all events of the stream that `as_streamed` asked for, continuations included. None: an error, an answer without
    its finish, or one in which something stands that only the engine could put into a whole answer (see assembled_openai).
    """
    style = _STYLES.get((engine, path))
    if style is not None:
        return assembled_openai.assemble(style, data)
    if engine is EngineKind.OLLAMA and path in (OLLAMA_CHAT, OLLAMA_TEXT):
        has_tools = (_members(body) or {}).get("tools", b"null") not in _NOTHING
        return assembled_ollama.assemble(data, is_chat=path == OLLAMA_CHAT, has_tools=has_tools)
    return None


def _members(body: bytes) -> dict[str, bytes] | None:
    try:
        body.decode()
        return {key: bytes(value) for key, value in _DECODE(body).items()}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_proven(proof: _Proof, members: Mapping[str, bytes]) -> bool:
    if members.get("stream", b"null") not in _NOTHING or members.get("n", b"null") not in (b"null", b"1"):
        return False
    needed = members.get(proof.needs, b"null")
    # What an engine would refuse goes to it as it came.
    if needed in _NOTHING or not needed.startswith(b'"' if proof.needs == "prompt" else b"["):
        return False
    others = members.keys() - proof.known - {"n", "stream"}
    # False is no logprobs; 0 is those of the tokens themselves (vLLM's text completions).
    if members.get("logprobs", b"null") not in (b"null", b"false"):
        return False
    return all(members[key] == b"null" or (key in _UNASKED and members[key] in _NOTHING) for key in others - {"logprobs"})


def _ends_with_assistant(body: bytes) -> bool:
    try:
        messages = _DECODE_ROLES(body).messages
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return True
    return not messages or messages[-1].role == "assistant"


def _is_elsewhere(model: bytes) -> bool:
    """Tell whether Ollama passes the request on to ollama.com, whose answers are not its own."""
    return model.endswith((b':cloud"', b'-cloud"'))


def _with_member(body: bytes, members: Mapping[str, bytes], key: str, value: bytes) -> bytes | None:
    """Return `body` with the top-level `key` set to `value`; None where it cannot be told which bytes to change."""
    name = b'"' + key.encode() + b'"'
    if key not in members:
        start = body.index(b"{") + 1
        return b"".join((body[:start], name, b":", value, b",", body[start:]))
    found = list(re.finditer(name + rb"[ \t\r\n]*:[ \t\r\n]*", body))
    if len(found) != 1:
        return None
    end = found[0].end() + len(members[key])
    changed = b"".join((body[: found[0].start()], name, b":", value, body[end:]))
    # The one hit may stand deeper inside; then the top-level member has not changed.
    return changed if (_members(changed) or {}).get(key) == value else None
