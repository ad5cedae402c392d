"""Answers that broke, for plays of the recipes that go on with them; engines answer from a function of path and body."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Case, Continuation, Means, Refusal, Spent, Transcript, Wish, cases_of
from understudy.dialects.wish import read_wish
from understudy.engines.broken import Abilities, Broken, Cut
from understudy.engines.continuation import continuation
from understudy.engines.contract import ProbeAnswer

CHAT, TEXT, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
HELLO = {"role": "user", "content": "Tell of the coast."}

# What an engine knows: a path and a request to the JSON object that it answers, None for a 404.
Engine = Callable[[str, dict[str, Any]], dict[str, Any] | None]


def chat(**members: Any) -> dict[str, Any]:
    """Make a chat request."""
    return {"model": "tiny", "messages": [HELLO], "stream": True, **members}


def received(text: str = "", reasoning: str = "", *, ids: tuple[list[int], list[int]] = ([], []), pieces: int = 1) -> Transcript:
    """Make a transcript; `ids` are those of the prompt and of the answer."""
    said, thought = [text] if text else [], [reasoning] if reasoning else []
    return Transcript(said, thought, pieces=pieces, choices=1, prompt_ids=ids[0], ids=ids[1])


def broken(path: str, ask: dict[str, Any], transcript: Transcript, **more: Any) -> Broken:
    """Make a broken answer to the request `ask`."""
    body = json.dumps(ask).encode()
    wish = read_wish(path, body)
    assert isinstance(wish, Wish)
    return Broken(path, body, wish, transcript, **more)


def cut(path: str, ask: dict[str, Any], transcript: Transcript, *cases: Case) -> Cut:
    """Make a cut for what is written from it."""
    one = broken(path, ask, transcript)
    return Cut(one, ask, cases_of(one.wish, transcript) | set(cases), Abilities())


@dataclass(slots=True)
class Plan:
    """A continuation as it was arrived at: the `outcome`, and the (path, body) of each question."""

    outcome: Continuation | Spent | Refusal
    asked: list[tuple[str, dict[str, Any]]]

    @property
    def paths(self) -> list[str]:
        """The paths that were asked, in order."""
        return [path for path, _ in self.asked]

    @property
    def going_on(self) -> Continuation:
        """The outcome, which must be a continuation."""
        assert isinstance(self.outcome, Continuation), self.outcome
        return self.outcome

    @property
    def body(self) -> dict[str, Any]:
        """The body of the continuation."""
        body: dict[str, Any] = json.loads(self.going_on.body)
        return body

    @property
    def means(self) -> Means:
        """The means of the continuation."""
        return self.going_on.means


def plan(kind: EngineKind, one: Broken, engine: Engine, abilities: Abilities | None = None) -> Plan:
    """Drive a continuation against `engine`."""
    asking = continuation(kind, one, Abilities() if abilities is None else abilities)
    asked: list[tuple[str, dict[str, Any]]] = []
    told: ProbeAnswer | None = None
    try:
        while True:
            question = asking.send(told)
            body = json.loads(question.body)
            asked.append((question.path, body))
            value = engine(question.path, body)
            told = ProbeAnswer(404) if value is None else ProbeAnswer(200, {}, json.dumps(value).encode())
    except StopIteration as end:
        return Plan(end.value, asked)
