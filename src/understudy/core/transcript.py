"""What a client has received of a streamed answer, and whether another backend can go on with it.

A `Transcript` is folded by dialects from the bytes that passed, when an answer broke or grew large, a `Wish` read by them from
the request's body, when it broke. `cases_of` names what makes a continuation harder than plain text, `CARRIES` (the
loss contract, shown in docs/failure-model.md) which engine's means carries which case. Pure; writes no request (engines) and no
event (dialects).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Shape(StrEnum):
    """How the events of a generated answer read."""

    OPENAI_CHAT = "openai_chat"  # SSE of /v1/chat/completions
    OPENAI_TEXT = "openai_text"  # SSE of /v1/completions
    OLLAMA_CHAT = "ollama_chat"  # NDJSON of /api/chat
    OLLAMA_TEXT = "ollama_text"  # NDJSON of /api/generate
    ANTHROPIC = "anthropic"  # SSE of /v1/messages


OLLAMA_SHAPES = (Shape.OLLAMA_CHAT, Shape.OLLAMA_TEXT)


class Means(StrEnum):
    """One engine's own means to continue a text (docs/failure-model.md, resume)."""

    LLAMACPP_CHAT = "llamacpp_chat"  # the chat with a trailing assistant message, which llama.cpp continues
    LLAMACPP_TEXT = "llamacpp_text"  # the rendered or given prompt and the text so far, to /v1/completions
    LLAMACPP_IDS = "llamacpp_ids"  # the same as token ids
    VLLM_CHAT = "vllm_chat"  # continue_final_message without a generation prompt
    VLLM_TEXT = "vllm_text"  # /v1/completions without special tokens
    VLLM_IDS = "vllm_ids"  # /v1/completions with token ids
    SGLANG_CHAT = "sglang_chat"  # continue_final_message
    SGLANG_TEXT = "sglang_text"  # /v1/completions
    OLLAMA_RAW = "ollama_raw"  # the prompt as Ollama renders it and the text so far, raw
    OLLAMA_CHAT = "ollama_chat"  # a trailing assistant message, where a sentinel has shown that the template continues it


class Case(StrEnum):
    """What makes an answer harder to continue than plain text."""

    SEVERAL_CHOICES = "several_choices"  # n above 1, best_of, several prompts: each breaks at its own point
    TOOLS_OFFERED = "tools_offered"  # the request has tools, none is called yet: what follows must still be parsed for calls
    TOOL_CALL = "tool_call"  # a tool call has begun
    REASONING = "reasoning"  # the model was still thinking
    REASONED = "reasoned"  # the model has thought, the text has begun
    JSON_MODE = "json_mode"  # response_format, json_schema, Ollama's format
    GRAMMAR = "grammar"  # a grammar, regex or choice of the engine's own
    LOGPROBS = "logprobs"  # probabilities belong to tokens, which the seam may cut otherwise
    IMAGES = "images"  # the prompt has pictures
    AUDIO = "audio"  # the prompt or the answer has sound
    PROMPT_FORM = "prompt_form"  # echo, suffix, a prompt of token ids: text that no continuation can stand in for


class Refusal(StrEnum):
    """Why a broken answer is not continued; the word in the log and the metrics."""

    TURNED_OFF = "turned_off"  # failover.resume: false
    DECLINED = "declined"  # the client sent X-Understudy-No-Resume
    NOT_TEXT = "not_text"  # no answer of generated text: embeddings, rerank, /v1/responses
    UNREADABLE = "unreadable"  # the request or an event cannot be read
    CASE = "case"  # one of `Case`, which the engine's means do not carry
    NO_MEANS = "no_means"  # the engine, or this model's template, continues no text
    TOO_LONG = "too_long"  # the transcript outgrew its bound
    REPEATING = "repeating"  # the engine stopped an endless repetition, which going on would only repeat
    NO_BACKEND = "no_backend"  # none that could go on came within hold
    BARREN = "barren"  # continuations yielded nothing, or there were too many


_TEXTUAL: frozenset[Case] = frozenset()
_PARSED = frozenset({Case.TOOLS_OFFERED, Case.IMAGES, Case.LOGPROBS})

# The loss contract. What is in no row is carried by nobody: an honest end. The evidence is in docs/failure-model.md.
CARRIES: Mapping[Means, frozenset[Case]] = MappingProxyType(
    {
        Means.LLAMACPP_CHAT: _PARSED | {Case.JSON_MODE, Case.REASONING, Case.REASONED},
        Means.LLAMACPP_TEXT: _TEXTUAL,
        Means.LLAMACPP_IDS: _TEXTUAL,
        Means.VLLM_CHAT: _PARSED,
        Means.VLLM_TEXT: _TEXTUAL,
        Means.VLLM_IDS: _TEXTUAL,
        Means.SGLANG_CHAT: _PARSED,
        Means.SGLANG_TEXT: _TEXTUAL,
        Means.OLLAMA_RAW: _TEXTUAL,
        # No JSON: Ollama begins the grammar anew for models whose template it renders itself, and nothing tells which it does.
        Means.OLLAMA_CHAT: frozenset({Case.TOOLS_OFFERED, Case.IMAGES}),
    }
)

# Ollama ends a stream on purpose, without any finish, after the same token this often (engines.md, 2.2).
REPEATS_MAX = 30


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for that a continuation must heed. `tokens_max` None: no bound; `stops` without empty ones.

    `cases` are those that the request alone tells. `wants_usage`: the client gets a usage event (OpenAI's
    stream_options.include_usage). `wants_token_ids`: the client itself asked for what `resume: exact` would take out.
    """

    shape: Shape
    tokens_max: int | None = None
    stops: tuple[str, ...] = ()
    cases: frozenset[Case] = frozenset()
    wants_usage: bool = False
    wants_token_ids: bool = False


@dataclass(slots=True)
class CallDraft:
    """A tool call as far as it has come: the pieces of its arguments are a JSON text once all are there (dialects.calls).

    `place` tells which pieces are its own: the index of the call or of Anthropic's content block, -1 where none is told. `given`
    are the arguments that stood where it began; they count while no piece has come.
    """

    place: int = -1
    name: str = ""
    id: str = ""
    given: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else self.given


@dataclass(slots=True)
class Transcript:
    """What the client has received, as meaning. Grows with every fold; owned by one exchange.

    `text` and `reasoning` in characters as received. `pieces` counts the events that had either; `piece` is the last such text
    and `repeats` how often it came in a row. `tokens` is the exact number of tokens generated so far where the engine told,
    else None. `prompt_ids` and `ids` are token ids (`ids` of whole events, `ids_text_pieces` how much of them has text, see
    dialects); empty unless asked for. `finish` is the finish reason once it came. `head` holds the fields that stay the same in
    all events of the stream (id, object, created, model, ...), as the first backend wrote them; `choice` likewise those of a
    choice. `usage` is the last usage seen, `timed` the tokens of prompt and answer as the timings beside llama.cpp's finish tell
    them. `calls` are the tool calls of the first choice; the text is that of all choices, `choices` of them.
    `is_unreadable`: an error came, or an event that says more than is known here, so that nothing can go on with this; what is
    known of such events is here. `has_gap`: nothing is known of one, so that text may be missing.
    """

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    pieces: int = 0
    piece: str = ""
    repeats: int = 0
    tokens: int | None = None
    prompt_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    finish: str = ""
    has_tool_call: bool = False
    calls: list[CallDraft] = field(default_factory=list)
    has_audio: bool = False
    choices: int = 0
    head: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    timed: tuple[int, int] | None = None
    is_unreadable: bool = False
    has_gap: bool = False
    # What else the events of a continuation depend on; dialects' alone.
    has_text_template: bool = False  # `head` and `choice` are those of an event with text
    cut_ids: list[int] = field(default_factory=list)  # ids since the last text: of a character that is not complete yet
    is_after_seam: bool = False  # no text has come since the last seam
    reasoning_keys: tuple[str, ...] = ()  # the names by which the first backend calls its reasoning
    has_usage_each: bool = False  # vLLM's continuous_usage_stats
    is_usage_sent: bool = False  # the usage event behind the finish has come
    open_block: tuple[int, str] | None = None  # index and type of Anthropic's open content block
    blocks: int = 0  # how many content blocks have begun

    @property
    def text(self) -> str:
        """The answer's text so far."""
        if len(self.texts) > 1:
            self.texts = ["".join(self.texts)]
        return self.texts[0] if self.texts else ""

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        if len(self.reasonings) > 1:
            self.reasonings = ["".join(self.reasonings)]
        return self.reasonings[0] if self.reasonings else ""

    @property
    def size_characters(self) -> int:
        """How many characters are kept of the answer: text, reasoning and calls."""
        calls = sum(len(call.name) + len(call.id) + len(call.arguments) for call in self.calls)
        return len(self.text) + len(self.reasoning) + calls


@dataclass(frozen=True, slots=True)
class Continuation:
    """The request that makes a backend go on with an answer; written by engines, sent by dataplane, its answer read by dialects.

    `body` is sent as a POST of JSON to `path`; its stream reads as `shape`. `delivered_tokens` is how many tokens of the prompt
    it counts are the client's already, None where the engine cannot tell: then the transcript's pieces stand for them. `swallow`
    is what the continuation may begin with although the client has it (white space that the template strips from the end),
    `undelivered` what the engine takes for said but the client has not received: it goes before the new text.
    """

    means: Means
    path: str
    body: bytes
    shape: Shape
    delivered_tokens: int | None = None
    swallow: str = ""
    undelivered: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """Nothing is left to generate: the answer has as many tokens as the client allowed. Counts are None where nobody told."""

    prompt_tokens: int | None
    completion_tokens: int | None


def cases_of(wish: Wish, transcript: Transcript) -> frozenset[Case]:
    """Return what a continuation of this answer must carry."""
    cases = set(wish.cases)
    if transcript.choices > 1:
        cases.add(Case.SEVERAL_CHOICES)
    if transcript.has_tool_call:
        cases.add(Case.TOOL_CALL)
    if transcript.has_audio:
        cases.add(Case.AUDIO)
    if transcript.reasonings:
        cases.add(Case.REASONED if transcript.texts else Case.REASONING)
    return frozenset(cases)


def is_carried(means: Means, cases: frozenset[Case]) -> bool:
    """Whether an engine's means carries all of `cases`."""
    return cases <= CARRIES[means]
