"""How Ollama goes on with an answer: the prompt as it renders it and the text behind it, raw; or the chat, where that works.

Called through engines.continuation. Measured with Ollama 0.32 (engines.md 3.1): raw is exact in every template set-up, the chat
only where a trial shows that the template leaves the assistant's last message open. Nothing counts tokens without generating.
"""

from typing import Any, Final

from understudy.core.transcript import Continuation, Means, Shape
from understudy.engines.broken import (
    SENTINEL,
    TRIAL,
    Asking,
    Cut,
    Fit,
    Outcome,
    Shown,
    ask_json,
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
)

_OPENAI: Final = (Shape.OPENAI_CHAT, Shape.OPENAI_TEXT)
# Members of /v1 that become options of the same name (openai/openai.go, FromChatRequest and FromCompleteRequest).
_V1_OPTIONS: Final = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
# Of a native request: what loads the model otherwise if it is missing, or how long it stays.
_KEPT: Final = ("keep_alive", "shift")


def continue_raw(cut: Cut) -> Asking[Outcome]:
    """Go on with plain text behind the prompt as the engine itself renders it."""
    left = tokens_left(cut, None, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return spent(cut, None)
    prompt = yield from _rendered(cut)
    if not prompt:
        return None
    options = _v1_options(cut) if cut.shape in _OPENAI else _options(cut)
    if left is not None:
        options["num_predict"] = left
    kept: dict[str, Any] = {name: cut.ask[name] for name in ("model", *_KEPT) if name in cut.ask}
    ask: dict[str, Any] = {
        **kept,
        "prompt": prompt + cut.text,
        "raw": True,
        "stream": True,
        # The oldest messages would be dropped in silence to make the rest fit.
        "truncate": False,
        "options": options,
    }
    return Continuation(Means.OLLAMA_RAW, "/api/generate", encode(ask), Shape.OLLAMA_TEXT)


def continue_chat(cut: Cut) -> Asking[Outcome]:
    """Go on with the chat, its tool parser included; the partial is its last message."""
    shown = yield from _try_template(cut)
    has_other_way = not cut.cases and cut.shape is not Shape.ANTHROPIC
    if shown.fit is Fit.NONE or (shown.fit is Fit.OTHER and has_other_way):
        return None
    swallow = cut.space_at_end if shown.fit is Fit.TRIMMED else ""
    text = cut.text.removesuffix(swallow)
    # Two messages of one role would be merged with an empty line between them.
    messages = with_partial(cut.ask.get("messages"), spoken(cut, text), joins=True)
    if messages is None or not text:
        return None
    left = tokens_left(cut, None, cut.broken.wish.tokens_max)
    if left is not None and left <= 0:
        return spent(cut, None)
    ask = {**going_on(cut, left, None), "messages": messages}
    if cut.shape is Shape.OLLAMA_CHAT:
        options = _options(cut)
        if left is not None:
            options["num_predict"] = left
        ask |= {"options": options, "truncate": False}
    return Continuation(Means.OLLAMA_CHAT, cut.path, encode(ask), cut.shape, swallow=swallow)


def _options(cut: Cut) -> dict[str, Any]:
    options = cut.ask.get("options")
    return dict(options) if isinstance(options, dict) else {}


def _v1_options(cut: Cut) -> dict[str, Any]:
    """Write the options that a request of /v1 has here: its own, and 1.0 where the model's file would say otherwise."""
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0}
    if cut.shape is Shape.OPENAI_TEXT:
        options |= {"frequency_penalty": 0.0, "presence_penalty": 0.0}
    options |= {key: cut.ask[key] for key in _V1_OPTIONS if cut.ask.get(key) is not None}
    if cut.broken.wish.stops:
        options["stop"] = list(cut.broken.wish.stops)
    return options


def _rendered(cut: Cut) -> Asking[str]:
    """Ask for the prompt as this model's template writes it; "" when the engine does not tell."""
    prompt = cut.ask.get("prompt")
    if cut.shape is Shape.OLLAMA_TEXT and cut.ask.get("raw"):
        return prompt if isinstance(prompt, str) else ""
    if cut.shape is Shape.OPENAI_TEXT:
        # Its own answer leaves the rendering out; /api/generate takes the same prompt (openai/openai.go, ToCompletion).
        return (yield from _render(cut, "/api/generate", {"model": cut.ask.get("model"), "prompt": cut.given_prompt}))
    return (yield from _render(cut, cut.path, cut.ask))


def _render(cut: Cut, path: str, ask: dict[str, Any]) -> Asking[str]:
    # Versions before August 2025 do not know the word and generate: one token, not an answer.
    bounded = {"max_tokens": 1} if path.startswith("/v1/") else {"options": {**_options(cut), "num_predict": 1}}
    answer = yield from ask_json(path, {**ask, **bounded, "stream": False, "_debug_render_only": True})
    info = answer.get("_debug_info")
    rendered = info.get("rendered_template") if isinstance(info, dict) else None
    return rendered if isinstance(rendered, str) else ""


def _try_template(cut: Cut) -> Asking[Shown]:
    """Ask what the model's template does with an assistant's message at the end, unless that is known."""
    key = template_key(cut, f"{cut.shape}")
    known = cut.abilities.shown.get(key)
    if known is not None:
        return known
    members = template_members(cut.ask)
    # Other options than those of the request, or another keep_alive, make Ollama load the model again.
    members |= {name: cut.ask[name] for name in ("options", *_KEPT) if name in cut.ask}
    path = cut.path
    if cut.shape is Shape.ANTHROPIC:
        path = "/api/chat"
        if "tools" in members:
            members["tools"] = openai_tools(members["tools"])
        for word in ("thinking", "tool_choice"):
            members.pop(word, None)
    prompt = yield from _render(cut, path, {**members, "messages": list(TRIAL)})
    trial = [*TRIAL, {"role": "assistant", "content": SENTINEL}]
    shown = yield from _render(cut, path, {**members, "messages": trial})
    found = Shown(fit_of(prompt, shown, SENTINEL))
    return cut.abilities.learn(key, found) if prompt and shown else found
