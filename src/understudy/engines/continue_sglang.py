"""How SGLang goes on with an answer: continue_final_message, or the prompt and the text behind it.

Called through engines.continuation. From its source alone (engines.md 3.1): the chat is rendered with the generation prompt and
the tokens of the partial come behind it, whatever the template is, so there is nothing to try.
"""

from understudy.core.transcript import Continuation, Means, Shape
from understudy.engines.broken import (
    COMPLETION_TOKENS,
    Asking,
    Cut,
    Outcome,
    encode,
    going_on,
    spent,
    spoken,
    tokens_left,
    with_partial,
)


def continue_chat(cut: Cut) -> Asking[Outcome]:
    """Go on with the chat. Without the flag a trailing assistant's message would be turned into the user's."""
    yield from ()
    messages = cut.ask.get("messages")
    joins = bool(cut.ask.get("continue_final_message"))
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not joins and isinstance(last, dict) and last.get("role") == "assistant":
        # It was read as the user's, which it would no longer be with another message behind it.
        return None
    messages = with_partial(messages, spoken(cut, cut.text), joins=joins)
    if messages is None:
        return None
    left = tokens_left(cut, None, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return spent(cut, None)
    ask = {**going_on(cut, left, None), "messages": messages, "continue_final_message": True}
    return Continuation(Means.SGLANG_CHAT, cut.path, encode(ask), Shape.OPENAI_CHAT)


def continue_text(cut: Cut) -> Asking[Outcome]:
    """Go on with plain text."""
    yield from ()
    prompt = cut.given_prompt
    if prompt is None:
        return None
    transcript, bound = cut.broken.transcript, cut.broken.wish.tokens_max
    if bound is None and (transcript.tokens or transcript.pieces) < COMPLETION_TOKENS:
        bound = COMPLETION_TOKENS
    left = tokens_left(cut, None, bound)
    if left is not None and left <= 0:
        return spent(cut, None)
    ask = {**going_on(cut, left, None), "prompt": prompt + cut.text}
    if left is not None:
        ask["max_tokens"] = left
    return Continuation(Means.SGLANG_TEXT, cut.path, encode(ask), Shape.OPENAI_TEXT)
