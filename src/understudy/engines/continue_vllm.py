"""How vLLM goes on with an answer: continue_final_message, the prompt's text or the token ids.

Called through engines.continuation. Measured with vLLM 0.32 (engines.md 3.1). Its Anthropic path cannot: it does not hand on
that the last message is to be continued.
"""

from dataclasses import dataclass
from typing import Any, Final

from understudy.core.transcript import Case, Continuation, Means, Shape, Spent
from understudy.engines.broken import (
    COMPLETION_TOKENS,
    SENTINEL,
    TRIAL,
    Asking,
    Cut,
    Fit,
    Outcome,
    Shown,
    ask_json,
    counted,
    encode,
    fit_of,
    going_on,
    spent,
    spoken,
    template_key,
    template_members,
    tokens_left,
    with_partial,
    without,
)
from understudy.engines.token_ids import ids_to_continue

_FLAGS: Final = {"add_generation_prompt": False, "continue_final_message": True}
_CHAT_KEYS: Final = (
    *("messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template", "chat_template_kwargs", "documents"),
    *("max_completion_tokens", "add_generation_prompt", "continue_final_message", "include_reasoning", "reasoning_effort"),
    *("response_format", "mm_processor_kwargs", "logprobs", "top_logprobs"),
)
# More without a space is no word.
WORD_CHARACTERS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What /tokenize told: the ids, and how many the model's context holds, 0 where that was left out."""

    ids: list[int]
    most: int

    @property
    def room(self) -> int | None:
        """How many tokens fit behind them."""
        return self.most - len(self.ids) if self.most else None


def continue_chat(cut: Cut) -> Asking[Outcome]:
    """Go on with the chat, tool parser included."""
    shown = yield from _try_template(cut)
    trimmed = cut.space_at_end if shown.fit is Fit.TRIMMED else ""
    # Text behind the prompt says exactly what the client has.
    if shown.fit is Fit.NONE or (not cut.cases and (shown.fit is Fit.OTHER or trimmed)):
        return None
    if trimmed and Case.LOGPROBS in cut.cases:
        # What is swallowed is half a token, whose probability is told whole.
        return None
    swallow = trimmed or _half_token(cut)
    if swallow == cut.text and cut.cases:
        # Nothing else goes on with these cases, and an empty message will not do.
        swallow = ""
    text = cut.text.removesuffix(swallow)
    # Without the flag, a chat that ends with the assistant was answered by a new turn.
    partial = spoken(cut, text)
    messages = with_partial(cut.ask.get("messages"), partial, joins=bool(cut.ask.get("continue_final_message")))
    if messages is None or not text:
        return None
    # What is swallowed is not delivered as far as this engine's own counts go: it writes it again.
    delivered = cut.broken.transcript.tokens if not swallow else None
    if delivered is None and cut.is_counted:
        delivered = yield from _count_in_chat(cut, partial)
    left = tokens_left(cut, delivered, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return (yield from _spent(cut, delivered))
    ask = {**_going_on(cut, left, delivered), **_FLAGS, "messages": messages}
    return Continuation(Means.VLLM_CHAT, cut.path, encode(ask), cut.shape, delivered, swallow)


def continue_text(cut: Cut) -> Asking[Outcome]:
    """Go on with plain text: the prompt, given or as its ids read, and the text behind it."""
    prompt = cut.given_prompt
    if cut.shape is Shape.OPENAI_CHAT:
        rendered = yield from _tokenize_prompt(cut)
        prompt = (yield from read_ids(cut, rendered.ids)) if rendered is not None else None
    if prompt is None:
        return None
    swallow = _half_token(cut)
    text = cut.text.removesuffix(swallow)
    delivered = yield from _count(cut, prompt, text)
    left = tokens_left(cut, delivered, _tokens_max(cut))
    # A rendered prompt has its first token already; a second one makes another answer (engines.md 3.1).
    form = {"add_special_tokens": False} if cut.shape is Shape.OPENAI_CHAT else {}
    if left is None:
        told = yield from _tokenize(cut, {"prompt": prompt + text, **form})
        left = told.room if told is not None else None
    if left is None:
        return None
    if left <= 0:
        return (yield from _spent(cut, delivered))
    ask = {**_as_text(cut, prompt + text, left, delivered), **form}
    return Continuation(Means.VLLM_TEXT, "/v1/completions", encode(ask), Shape.OPENAI_TEXT, delivered, swallow)


def continue_ids(cut: Cut) -> Asking[Outcome]:
    """Go on with the very tokens that were written, where the first request had asked for them (`resume: exact`)."""
    transcript = cut.broken.transcript
    if not transcript.prompt_ids or not transcript.ids:
        return None
    # The same prompt, or the backend has another template or vocabulary.
    prompt = yield from _tokenize_prompt(cut)
    if prompt is None or prompt.ids != transcript.prompt_ids:
        return None
    found = yield from ids_to_continue(cut, read_ids)
    if found is None:
        return None
    ids, undelivered = found
    left = tokens_left(cut, len(ids), _tokens_max(cut))
    if left is None and prompt.room is not None:
        left = prompt.room - len(ids)
    if left is None:
        return None
    if left <= 0:
        return spent(cut, len(ids))
    ask = _as_text(cut, transcript.prompt_ids + ids, left, len(ids))
    return Continuation(Means.VLLM_IDS, "/v1/completions", encode(ask), Shape.OPENAI_TEXT, len(ids), undelivered=undelivered)


def count(cut: Cut) -> Asking[Spent | None]:
    """Ask how many tokens the prompt and the answer have, which has its finish and lacks its usage."""
    prompt = yield from _tokenize_prompt(cut)
    text = (yield from read_ids(cut, prompt.ids)) if prompt is not None else None
    if prompt is None or text is None:
        return None
    return counted(cut, len(prompt.ids), (yield from _count(cut, text, cut.text)))


def _spent(cut: Cut, delivered: int | None) -> Asking[Spent]:
    """Return the counts of an answer that has all its tokens; the prompt's are asked for where the client is told of them."""
    told = (yield from _tokenize_prompt(cut)) if cut.broken.wish.wants_usage else None
    return spent(cut, delivered, len(told.ids) if told is not None else None)


def read_ids(cut: Cut, ids: list[int]) -> Asking[str | None]:
    """Ask what token ids stand for, special tokens included."""
    answer = yield from ask_json("/detokenize", {**cut.model_member, "tokens": ids})
    prompt = answer.get("prompt")
    return prompt if isinstance(prompt, str) else None


def _half_token(cut: Cut) -> str:
    """Return the end of the text that may be half a token, so that it is better written again and swallowed.

    While stop strings are looked for, this engine holds characters back, and what it has sent may end inside a token
    (engines.md 2.3); asked for the rest of one, a model writes something else. A space at the end is the start of the next word's
    token. A whole word comes again as it was only where nothing is drawn by lot.
    """
    if not cut.broken.wish.stops or Case.LOGPROBS in cut.cases:
        return ""
    start = max(0, cut.text.rfind(" "))
    if len(cut.text) - start > WORD_CHARACTERS_MAX:
        return ""
    is_greedy = cut.ask.get("temperature") == 0
    return cut.text[start:] if is_greedy or cut.text[start:] == " " else ""


def _tokens_max(cut: Cut) -> int | None:
    bound = cut.broken.wish.tokens_max
    said = cut.broken.transcript.tokens or cut.broken.transcript.pieces
    # More than that came from an engine with another default.
    if bound is None and cut.shape is Shape.OPENAI_TEXT and said < COMPLETION_TOKENS:
        return COMPLETION_TOKENS
    return bound


def _going_on(cut: Cut, left: int | None, delivered: int | None) -> dict[str, Any]:
    ask = going_on(cut, left, delivered)
    if cut.broken.is_exact:
        ask["return_token_ids"] = True
    return ask


def _as_text(cut: Cut, prompt: Any, left: int, delivered: int | None) -> dict[str, Any]:
    # Without a bound it would be 16, and so with null (normalize_null_max_tokens in openai/completion/protocol.py).
    return {**without(_going_on(cut, left, delivered), *_CHAT_KEYS), "prompt": prompt, "max_tokens": left}


def _tokenize(cut: Cut, ask: dict[str, Any]) -> Asking[_Tokens | None]:
    answer = yield from ask_json("/tokenize", {**cut.model_member, **ask})
    tokens, most = answer.get("tokens"), answer.get("max_model_len")
    return _Tokens(tokens, most if isinstance(most, int) else 0) if isinstance(tokens, list) else None


def _tokenize_prompt(cut: Cut) -> Asking[_Tokens | None]:
    """Ask for the tokens of the request's own prompt."""
    if cut.shape is Shape.OPENAI_TEXT:
        keys = ("prompt", "add_special_tokens")
        return (yield from _tokenize(cut, {key: cut.ask[key] for key in keys if key in cut.ask}))
    flags = {key: cut.ask[key] for key in _FLAGS if key in cut.ask}
    return (yield from _tokenize(cut, {**template_members(cut.ask), **flags, "messages": cut.ask.get("messages")}))


def _try_template(cut: Cut) -> Asking[Shown]:
    """Ask what the model's template does with an assistant's message at the end, unless that is known."""
    key = template_key(cut, "text")
    known = cut.abilities.shown.get(key)
    if known is not None:
        return known
    members = template_members(cut.ask)
    before = yield from _tokenize(cut, {**members, "messages": list(TRIAL)})
    trial = [*TRIAL, {"role": "assistant", "content": SENTINEL}]
    behind = yield from _tokenize(cut, {**members, "messages": trial, **_FLAGS})
    if before is None or behind is None:
        return Shown(Fit.NONE)
    prompt = yield from read_ids(cut, before.ids)
    shown = yield from read_ids(cut, behind.ids)
    if prompt is None or shown is None:
        return Shown(Fit.NONE)
    return cut.abilities.learn(key, Shown(fit_of(prompt, shown, SENTINEL)))


def _count_in_chat(cut: Cut, partial: dict[str, Any]) -> Asking[int | None]:
    """Ask how many tokens the partial message has in a short chat with the request's own tools, which are rendered, too."""
    members = template_members(cut.ask)
    before = yield from _tokenize(cut, {**members, "messages": list(TRIAL)})
    behind = yield from _tokenize(cut, {**members, "messages": [*TRIAL, partial], **_FLAGS})
    return max(0, len(behind.ids) - len(before.ids)) if before is not None and behind is not None else None


def _count(cut: Cut, prompt: str, text: str) -> Asking[int | None]:
    """Ask how many tokens the text has behind the prompt."""
    if cut.broken.transcript.tokens is not None and text == cut.text:
        return cut.broken.transcript.tokens
    if not cut.is_counted:
        return None
    before = yield from _tokenize(cut, {"prompt": prompt, "add_special_tokens": False})
    behind = yield from _tokenize(cut, {"prompt": prompt + text, "add_special_tokens": False})
    return max(0, len(behind.ids) - len(before.ids)) if before is not None and behind is not None else None
