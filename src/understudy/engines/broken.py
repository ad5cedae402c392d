"""An answer that broke off, as engines' recipes see it, and what they have learnt of a model: the vocabulary of continuing.

Used by engines.continuation and the recipes behind it. Holds values and writes the members that every continuation changes;
which recipe fits is engines.continuation's decision, sending and remembering are dataplane's.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Case, Continuation, Means, Shape, Spent, Transcript, Wish
from understudy.dialects.events import read_json
from understudy.engines.contract import ProbeAnswer

# What a chat template is tried with. It ends in a space, which shows templates that trim.
SENTINEL: Final = "understudy sentinel "
REASON_SENTINEL: Final = "understudy thought"
TRIAL: Final = ({"role": "user", "content": "Hello."},)

# What /v1/completions of vLLM and SGLang generates when nobody says how much (openai/completion/protocol.py,
# srt/entrypoints/openai/protocol.py).
COMPLETION_TOKENS: Final = 16

# A client can make as many kinds of request as it likes; each is learnt anew once there are more.
SHOWN_MAX: Final = 64
KEY_CHARACTERS_MAX: Final = 2048

# Members of a chat request that reach its template.
TEMPLATE_KEYS: Final = (
    *("tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_format", "reasoning_effort", "reasoning"),
    *("enable_thinking", "thinking", "think", "chat_template", "documents", "mm_processor_kwargs", "add_special_tokens"),
)
_BOUNDS: Final = ("max_completion_tokens", "max_tokens", "n_predict")

# Of the first server alone, or events that a continuation must not have.
_UNWANTED: Final = ("id_slot", "request_id", "return_progress", "return_prompt_text", "response_fields", "verbose")


@dataclass(frozen=True, slots=True)
class Question:
    """A POST of JSON that generates nothing. `path` starts with "/"."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that broke.

    `body` is as the backend that goes on would have got it, `failed` the means that it has just refused, `begun_by` the engine
    that had the prompt first.
    """

    path: str
    body: bytes
    wish: Wish
    transcript: Transcript
    is_exact: bool = False
    failed: frozenset[Means] = frozenset()
    begun_by: EngineKind = EngineKind.AUTO


class Fit(StrEnum):
    """What a template does with an assistant's message at the end that is to be gone on with."""

    SAME = "same"  # it stands right behind what the model would have been asked with, as it is
    TRIMMED = "trimmed"  # the same, but white space at its end is gone
    OTHER = "other"  # the text ends with it, but something else stands before it
    NONE = "none"  # it is closed, changed or gone


@dataclass(frozen=True, slots=True)
class Shown:
    """What a trial has shown of a template: its `fit`, and the end of the trial's prompt without the answer, "" where unknown.

    No more than the end, because it outlives its request and a client's tools and documents stand further up.
    """

    fit: Fit
    tail: str = ""


@dataclass(slots=True)
class Abilities:
    """What was learnt of one model of one backend: which trial showed what. Kept and forgotten by dataplane."""

    shown: dict[str, Shown] = field(default_factory=dict)

    def learn(self, key: str, shown: Shown) -> Shown:
        """Remember a trial's outcome, unless its key is huge."""
        if len(key) <= KEY_CHARACTERS_MAX:
            if len(self.shown) >= SHOWN_MAX:
                del self.shown[next(iter(self.shown))]
            self.shown[key] = shown
        return shown


@dataclass(frozen=True, slots=True)
class Cut:
    """One broken answer together with its request as read; `ask` is never changed. `cases` is what its continuation carries."""

    broken: Broken
    ask: dict[str, Any]
    cases: frozenset[Case]
    abilities: Abilities

    @property
    def path(self) -> str:
        """The request's path without its query."""
        return self.broken.path.partition("?")[0]

    @property
    def shape(self) -> Shape:
        """How the client's stream reads."""
        return self.broken.wish.shape

    @property
    def text(self) -> str:
        """The text that the client has."""
        return self.broken.transcript.text

    @property
    def reasoning(self) -> str:
        """The reasoning that the client has."""
        return self.broken.transcript.reasoning

    @property
    def model_member(self) -> dict[str, Any]:
        """The request's `model` as a member of a question, {} where it names none."""
        return {"model": self.ask["model"]} if "model" in self.ask else {}

    @property
    def space_at_end(self) -> str:
        """The white space that the text ends with."""
        return self.text[len(self.text.rstrip()) :]

    @property
    def given_prompt(self) -> str | None:
        """The request's own `prompt` where it is one text, be it alone in a list."""
        prompt = self.ask.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        return prompt if isinstance(prompt, str) else None

    @property
    def is_counted(self) -> bool:
        """Whether it matters how many tokens the client has: for a bound, or for the usage that it is told."""
        wish = self.broken.wish
        return wish.tokens_max is not None or wish.wants_usage or wish.shape is not Shape.OPENAI_CHAT


_Told = TypeVar("_Told")

# Questions in progress: yields what to ask next, is sent the answer (None: there was none) and returns what it was told.
Asking = Generator[Question, ProbeAnswer | None, _Told]
# What a recipe comes to; None: this means is not for this answer.
Outcome = Continuation | Spent | None


def encode(value: Any) -> bytes:
    """Encode JSON, lone surrogates included, which clients send and engines take."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def ask_json(path: str, value: dict[str, Any]) -> Asking[dict[str, Any]]:
    """Ask, and return the JSON object of a 200; {} for anything else."""
    answer = yield Question(path, encode(value))
    if answer is None or answer.status != 200:
        return {}
    told = read_json(answer.body)
    return told if isinstance(told, dict) else {}


def without(ask: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return `ask` without `keys`."""
    return {key: value for key, value in ask.items() if key not in keys}


def template_members(ask: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a chat request that its template sees, but the messages; `tools` only where they are used."""
    members: dict[str, Any] = {key: ask[key] for key in ("model", *TEMPLATE_KEYS) if key in ask}
    if ask.get("tools"):
        members["tools"] = ask["tools"]
    return members


def openai_tools(tools: Any) -> list[Any]:
    """Write Anthropic's tools as engines hand them to a template (llama.cpp: convert_anthropic_to_oai; Ollama: anthropic/)."""
    told = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [
        {
            "type": "function",
            "function": {
                "name": tool.get("name", ""),
                "description": tool.get("description", ""),
                "parameters": tool.get("input_schema", {}),
            },
        }
        for tool in told
    ]


def template_key(cut: Cut, kind: str) -> str:
    """Return the name under which the trial for requests such as this one is remembered. Which tools there are is no matter."""
    members = {**without(template_members(cut.ask), "model"), "tools": bool(cut.ask.get("tools"))}
    return f"{kind} {json.dumps(members, sort_keys=True)}"


def spoken(cut: Cut, text: str) -> dict[str, Any]:
    """Return the assistant's message with what the client has, and `text` in place of the answer's text."""
    message = {"role": "assistant", "content": text}
    return {**message, "reasoning_content": cut.reasoning} if cut.reasoning else message


def with_partial(messages: Any, partial: dict[str, Any], *, joins: bool) -> list[Any] | None:
    """Return `messages` with the assistant's `partial` at the end; None when they are no list.

    `joins`: the request's own last message, if it is the assistant's, is what the answer went on with, so that the partial
    belongs into it. It stays one message: engines close the first of two, or refuse them.
    """
    if not isinstance(messages, list):
        return None
    last = messages[-1] if messages else None
    if not joins or not isinstance(last, dict) or last.get("role") != "assistant":
        return [*messages, partial]
    text, content = partial["content"], last.get("content")
    if content is None or isinstance(content, str):
        joined: Any = (content or "") + text
    elif isinstance(content, list) and content and isinstance(content[-1], dict) and isinstance(content[-1].get("text"), str):
        joined = [*content[:-1], {**content[-1], "text": content[-1]["text"] + text}]
    else:
        return None
    return [*messages[:-1], {**last, **partial, "content": joined}]


def tokens_left(cut: Cut, delivered: int | None, tokens_max: int | None) -> int | None:
    """Return how many more tokens may be generated, None for no bound."""
    if tokens_max is None:
        return None
    transcript = cut.broken.transcript
    if delivered is None:
        delivered = transcript.tokens if transcript.tokens is not None else transcript.pieces
    return tokens_max - delivered


def going_on(cut: Cut, left: int | None, delivered: int | None) -> dict[str, Any]:
    """Return the request's members as every continuation has them: streamed, with usage, with what is left of its bounds."""
    ask = without(cut.ask, *_UNWANTED)
    ask["stream"] = True
    if cut.shape in (Shape.OPENAI_CHAT, Shape.OPENAI_TEXT):
        own = cut.ask.get("stream_options")
        ask["stream_options"] = {**(own if isinstance(own, dict) else {}), "include_usage": True}
    if left is not None:
        ask |= {key: left for key in _BOUNDS if ask.get(key) is not None}
    # Counts new tokens only (engines.md 3.3).
    least = ask.get("min_tokens")
    if isinstance(least, int) and least > 0:
        said = delivered if delivered is not None else cut.broken.transcript.pieces
        ask["min_tokens"] = max(0, least - said)
    return ask


def spent(cut: Cut, delivered: int | None, prompt_tokens: int | None = None) -> Spent:
    """Return what there is to tell of an answer that has all its tokens."""
    transcript = cut.broken.transcript
    if prompt_tokens is None and transcript.prompt_ids:
        prompt_tokens = len(transcript.prompt_ids)
    if delivered is None:
        # Where nobody counts, it has as many as the client allowed.
        delivered = transcript.tokens if transcript.tokens is not None else cut.broken.wish.tokens_max
    return Spent(prompt_tokens, delivered)


def counted(cut: Cut, prompt_tokens: int | None, delivered: int | None) -> Spent:
    """Return the counts of an answer that has its finish: what was delivered, and the token that ended it.

    A stop string's own tokens are nowhere to be seen, so that the count is not known there.
    """
    wish, finish = cut.broken.wish, cut.broken.transcript.finish
    if finish == "length" and wish.tokens_max is not None:
        return Spent(prompt_tokens, wish.tokens_max)
    if delivered is None or (finish == "stop" and wish.stops):
        return Spent(prompt_tokens, None)
    return Spent(prompt_tokens, delivered + (finish == "stop"))


def fit_of(prompt: str, shown: str, sentinel: str) -> Fit:
    """Tell from a trial's `prompt` alone and from what it reads with `sentinel` as the answer how the template takes one."""
    if not prompt or not shown:
        return Fit.NONE
    if shown == prompt + sentinel:
        return Fit.SAME
    if shown == prompt + sentinel.rstrip():
        return Fit.TRIMMED
    return Fit.OTHER if shown.endswith(sentinel) else Fit.NONE
