"""The engines that plays of resuming are about, by name, all of them writing for one scripted model. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from support.chat_template import Template
from support.engine_llamacpp import LlamaCppDialect
from support.engine_ollama import Habits, OllamaDialect
from support.engine_sglang import SglangDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import ScriptedModel
from support.writing_engine import Dialect, WritingEngine

# By name: the engine's kind, and how it writes.
ENGINES: Mapping[str, tuple[str, Callable[[ScriptedModel], Dialect]]] = {
    "vllm": ("vllm", VllmDialect),
    "vllm that trims": ("vllm", lambda model: VllmDialect(model, Template(trims=True))),
    "llamacpp": ("llamacpp", LlamaCppDialect),
    "sglang": ("sglang", SglangDialect),
    "ollama": ("ollama", OllamaDialect),
    "ollama with a last branch": ("ollama", lambda model: OllamaDialect(model, Habits(has_last_branch=True))),
    "native ollama": ("ollama", lambda model: OllamaDialect(model, Habits(is_native=True))),
    "ollama that cannot render": ("ollama", lambda model: OllamaDialect(model, Habits(is_native=True, can_render=False))),
}

QUESTION = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "who is there?"}]
CHAT, TEXT, OLLAMA_CHAT, OLLAMA_TEXT, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/api/chat",
    "/api/generate",
    "/v1/messages",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Who gives the answer first, who is there to go on with it, and what is asked."""

    first: str
    second: str
    path: str

    def body(self, **more: Any) -> dict[str, Any]:
        """Write the request's body."""
        asked: dict[str, Any] = {"model": "tiny", "stream": True}
        if self.path == TEXT:
            asked |= {"prompt": "Once upon a time", "max_tokens": 500}
        elif self.path == OLLAMA_TEXT:
            asked |= {"prompt": "Once upon a time"}
        else:
            asked |= {"messages": QUESTION}
        if self.path == MESSAGES:
            asked |= {"messages": QUESTION[1:], "system": "be kind", "max_tokens": 500}
        return asked | more

    def __str__(self) -> str:
        return f"{self.first} to {self.second}, {self.path}"


# What goes on, by engine and dialect.
SCENES = (
    Scene("vllm", "vllm", CHAT),
    Scene("vllm", "vllm", TEXT),
    Scene("vllm that trims", "vllm that trims", CHAT),
    Scene("llamacpp", "llamacpp", CHAT),
    Scene("llamacpp", "llamacpp", TEXT),
    Scene("llamacpp", "llamacpp", MESSAGES),
    Scene("sglang", "sglang", CHAT),
    Scene("sglang", "sglang", TEXT),
    Scene("ollama", "ollama", OLLAMA_CHAT),
    Scene("ollama", "ollama", OLLAMA_TEXT),
    Scene("ollama", "ollama", CHAT),
    Scene("ollama with a last branch", "ollama with a last branch", OLLAMA_CHAT),
    Scene("native ollama", "native ollama", OLLAMA_CHAT),
    Scene("native ollama", "native ollama", CHAT),
    Scene("ollama", "vllm", CHAT),
    Scene("ollama", "llamacpp", CHAT),
    Scene("vllm", "llamacpp", CHAT),
    Scene("llamacpp", "vllm", CHAT),
    Scene("vllm", "ollama", CHAT),
    Scene("llamacpp", "ollama", CHAT),
    Scene("vllm", "sglang", CHAT),
)


def cast(name: str, engine: str, model: ScriptedModel | None = None) -> WritingEngine:
    """Make one engine, not yet running."""
    kind, write = ENGINES[engine]
    return WritingEngine(name, write(model or ScriptedModel()), engine=kind)


def kind_of(engine: str) -> str:
    """Return what the file calls the engine."""
    return ENGINES[engine][0]
