"""How llama.cpp goes on with an answer: the chat with the partial as its last message, or the rendered prompt and the text.

Called through engines.continuation. Measured with build 11549 (tests/integration/test_resume_real.py): with
f32 arithmetic every cut of a greedy answer at a chunk's border goes on byte for byte.
"""

from typing import Any, Final

from understudy.core.transcript import Case, Continuation, Means, Shape, Spent
from understudy.engines.broken import (
    REASON_SENTINEL,
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
    openai_tools,
    spent,
    spoken,
    template_key,
    template_members,
    tokens_left,
    with_partial,
    without,
)
from understudy.engines.token_ids import ids_to_continue

# Builds take a last assistant's message for a beginning by themselves; the words are for those that were told not to
# (--no-prefill-assistant). Older builds do not know them and need not.
_FLAGS: Final = {"continue_final_message": True, "add_generation_prompt": False}
_CHAT_KEYS: Final = (
    *("messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_format", "reasoning_effort"),
    *("max_completion_tokens", "n_predict", "continue_final_message", "add_generation_prompt", "response_format"),
)
# Enough of a prompt for the tokens around its end: words of any vocabulary are shorter.
_TAIL_CHARACTERS: Final = 256


def continue_chat(cut: Cut) -> Asking[Outcome]:
    """Go on with the chat, parsers and grammars included; the partial is its last message, which this engine opens again."""
    shown = yield from _try_template(cut)
    has_other_way = not cut.cases and cut.shape is Shape.OPENAI_CHAT
    if shown.fit is Fit.NONE or (shown.fit is Fit.OTHER and has_other_way):
        return None
    swallow = cut.space_at_end if shown.fit is Fit.TRIMMED else ""
    text = cut.text.removesuffix(swallow)
    if swallow and Case.LOGPROBS in cut.cases:
        # What is swallowed is half a token, whose probability is told whole.
        return None
    if not text and not cut.reasoning:
        # An empty message is rendered without the assistant's head (engines.md 3.3).
        return None
    messages = with_partial(cut.ask.get("messages"), spoken(cut, text), joins=True)
    if messages is None:
        return None
    delivered = yield from _count(cut, shown.tail, text)
    left = tokens_left(cut, delivered, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return (yield from _spent(cut, delivered))
    ask = {**going_on(cut, left, delivered), "messages": messages}
    if cut.shape is Shape.OPENAI_CHAT:
        ask |= _FLAGS
    return Continuation(Means.LLAMACPP_CHAT, cut.path, encode(ask), cut.shape, delivered, swallow)


def continue_text(cut: Cut) -> Asking[Outcome]:
    """Go on with plain text: the prompt, given or rendered, and the text behind it."""
    prompt = yield from _prompt(cut)
    if prompt is None:
        return None
    delivered = yield from _count(cut, prompt, cut.text)
    left = tokens_left(cut, delivered, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return (yield from _spent(cut, delivered))
    return Continuation(
        Means.LLAMACPP_TEXT,
        "/v1/completions",
        encode(_as_text(cut, prompt + cut.text, left, delivered)),
        Shape.OPENAI_TEXT,
        delivered,
    )


def continue_ids(cut: Cut) -> Asking[Outcome]:
    """Go on with the very tokens that another backend wrote and told, where this one reads them alike."""
    transcript = cut.broken.transcript
    if not transcript.prompt_ids or not transcript.ids:
        return None
    prompt = yield from _prompt(cut)
    # The same prompt, or the backend has another template or vocabulary.
    if prompt is None or (yield from _tokens(cut, prompt)) != transcript.prompt_ids:
        return None
    found = yield from ids_to_continue(cut, read_ids)
    if found is None:
        return None
    ids, undelivered = found
    left = tokens_left(cut, len(ids), cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return spent(cut, len(ids))
    ask = _as_text(cut, transcript.prompt_ids + ids, left, len(ids))
    return Continuation(Means.LLAMACPP_IDS, "/v1/completions", encode(ask), Shape.OPENAI_TEXT, len(ids), undelivered=undelivered)


def count(cut: Cut) -> Asking[Spent | None]:
    """Ask how many tokens the prompt and the answer have, which has its finish and lacks its usage."""
    prompt = yield from _prompt(cut)
    ids = (yield from _tokens(cut, prompt)) if prompt is not None else None
    if prompt is None or ids is None:
        return None
    return counted(cut, len(ids), (yield from _count(cut, prompt, cut.text)))


def _spent(cut: Cut, delivered: int | None) -> Asking[Spent]:
    """Return the counts of an answer that has all its tokens; the prompt's are asked for where the client is told of them."""
    told = (yield from count(cut)) if cut.broken.wish.wants_usage else None
    return spent(cut, delivered, told.prompt_tokens if told is not None else None)


def read_ids(cut: Cut, ids: list[int]) -> Asking[str | None]:
    """Ask what token ids stand for, special tokens included."""
    answer = yield from ask_json("/detokenize", {**cut.model_member, "tokens": ids})
    content = answer.get("content")
    return content if isinstance(content, str) else None


def _prompt(cut: Cut) -> Asking[str | None]:
    """Return the prompt's text, given or rendered; without its first token, which this engine adds by itself."""
    if cut.shape is not Shape.OPENAI_CHAT:
        return cut.given_prompt
    prompt = (yield from ask_json("/apply-template", _rendering(cut, cut.ask.get("messages")))).get("prompt")
    return prompt if isinstance(prompt, str) else None


def _as_text(cut: Cut, prompt: Any, left: int | None, delivered: int | None) -> dict[str, Any]:
    ask = {**without(going_on(cut, left, delivered), *_CHAT_KEYS), "prompt": prompt}
    if left is not None:
        ask["max_tokens"] = left
    return ask


def _rendering(cut: Cut, messages: Any) -> dict[str, Any]:
    members = template_members(cut.ask)
    if cut.shape is Shape.ANTHROPIC and "tools" in members:
        members["tools"] = openai_tools(members["tools"])
        members.pop("tool_choice", None)
    return {**members, "messages": messages}


def _try_template(cut: Cut) -> Asking[Shown]:
    """Ask what the model's template does with an assistant's message at the end, unless that is known."""
    thought = cut.cases & {Case.REASONING, Case.REASONED}
    kind = next(iter(thought), "text")
    key = template_key(cut, f"{cut.shape} {kind}")
    known = cut.abilities.shown.get(key)
    if known is not None:
        return known
    prompt = yield from ask_json("/apply-template", _rendering(cut, list(TRIAL)))
    message = {"role": "assistant", "content": "" if kind is Case.REASONING else SENTINEL}
    if thought:
        message["reasoning_content"] = REASON_SENTINEL
    trial = _rendering(cut, [*TRIAL, message])
    if cut.shape is Shape.OPENAI_CHAT:
        trial |= _FLAGS
    answer = yield from ask_json("/apply-template", trial)
    before, shown = _text(prompt), _text(answer)
    if thought:
        whole = REASON_SENTINEL in shown and shown.endswith(REASON_SENTINEL if kind is Case.REASONING else SENTINEL)
        fit = Fit.OTHER if whole else Fit.NONE
    else:
        fit = fit_of(before, shown, SENTINEL)
    found = Shown(fit, before[-_TAIL_CHARACTERS:])
    # No answer is no knowledge.
    return cut.abilities.learn(key, found) if before and shown else found


def _text(answer: dict[str, Any]) -> str:
    prompt = answer.get("prompt")
    return prompt if isinstance(prompt, str) else ""


def _count(cut: Cut, prompt: str, text: str) -> Asking[int | None]:
    """Ask how many tokens the text has where it stands; None when nobody wants to know, or the engine does not tell."""
    if cut.broken.transcript.tokens is not None and text == cut.text:
        return cut.broken.transcript.tokens
    if not cut.is_counted:
        return None
    tail = prompt[-_TAIL_CHARACTERS:]
    before = yield from _tokens(cut, tail)
    behind = yield from _tokens(cut, tail + cut.reasoning + text)
    return max(0, len(behind) - len(before)) if before is not None and behind is not None else None


def _tokens(cut: Cut, text: str) -> Asking[list[int] | None]:
    answer = yield from ask_json("/tokenize", {**cut.model_member, "content": text, "add_special": True, "parse_special": True})
    tokens = answer.get("tokens")
    return tokens if isinstance(tokens, list) else None
