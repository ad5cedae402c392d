"""A scripted engine that really writes: it answers every request from a scripted model in its own dialect, and breaks on demand.

Everything else is as with any scripted engine (support.scripted): probes, scripts, what was seen. Plays tell it where its next
answers break, and ask it what it was asked to generate.
"""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from support.answers import whole
from support.breaks import Break, Kind, Utterance, played
from support.scripted import Received, ScriptedEngine
from support.scripted_model import ScriptedModel
from support.steps import Answer


class Dialect(Protocol):
    """What an engine answers to POST requests, by its model; None for a path it does not have."""

    model: ScriptedModel

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request."""


class WritingEngine(ScriptedEngine):
    """One engine of kind `engine` that writes by `dialect`. Use as a context manager.

    `breaks` says how its next generated answers end, one each; after these they are whole, or as `breaks_always` says.
    `generated` holds the bodies of the requests that it answered with generated text, in order, with their paths.
    """

    def __init__(self, name: str, dialect: Dialect, *, engine: str, models: tuple[str, ...] = ("tiny",)) -> None:
        super().__init__(name, engine=engine, models=models)
        self.dialect = dialect
        self.gap_s = 0.0
        self.generated: list[tuple[str, dict[str, Any]]] = []
        self.breaks_always: Break | None = None
        self._breaks: deque[Break | None] = deque()
        self.checks_models = True
        self._forbid_get()

    def breaks(self, kind: Kind, *, after: int) -> None:
        """Break the next answer that has no break yet: `after` pieces come, then `kind` happens."""
        self._breaks.append(Break(kind, after))

    def spares(self) -> None:
        """Leave the next answer that has no break yet whole."""
        self._breaks.append(None)

    def fresh(self) -> None:
        """Forget scripts, breaks and what was seen."""
        super().fresh()
        self.gap_s = 0.0
        self.generated.clear()
        self.breaks_always = None
        self._breaks.clear()
        self._forbid_get()

    def _forbid_get(self) -> None:
        """Answer 405 where only POST is served, which tells a probe that the engine speaks Anthropic's dialect."""
        if self._persona.engine in ("vllm", "ollama"):
            self.on("/v1/messages", whole(405, {"detail": "Method Not Allowed"}))

    def _choose(self, request: Received, *, is_probe: bool) -> Answer:
        if is_probe or self._always is not None:
            return super()._choose(request, is_probe=is_probe)
        body: dict[str, Any] = json.loads(request.body or b"{}")
        asked = str(body.get("model", self.models[0])).removesuffix(":latest")
        if self.checks_models and asked not in [model.removesuffix(":latest") for model in self.models]:
            return whole(404, self._persona.model_missing(asked))
        answer = self.dialect.answer(request.path, body)
        if not isinstance(answer, Utterance):
            return answer or self._persona.not_found()
        self.generated.append((request.path, body))
        broken = self._breaks.popleft() if self._breaks else self.breaks_always
        is_streamed = bool(body.get("stream", request.path.startswith("/api/")))
        return played(answer, broken, is_streamed=is_streamed, gap_s=self.gap_s)
