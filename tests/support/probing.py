"""Plays a backend to an engine's probe without any network: answers by path, and notes what was asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from understudy.engines.contract import Asking, ProbeAnswer

Told = TypeVar("Told")


def answer(value: Any = b"", status: int = 200, **headers: str) -> ProbeAnswer:
    """Make an answer; anything but bytes becomes JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ProbeAnswer(status, headers, body)


@dataclass(slots=True)
class Dialogue(Generic[Told]):
    """One probe played to its end: what it was `told`, and the paths it asked, in order."""

    told: Told
    asked: list[str] = field(default_factory=list)


def play(asking: Asking[Told], answers: Mapping[str, ProbeAnswer | None]) -> Dialogue[Told]:
    """Answer every question by its path; None is no answer, and a path without an entry is 404."""
    asked: list[str] = []
    try:
        request = next(asking)
        while True:
            asked.append(request.path)
            request = asking.send(answers.get(request.path, answer({"detail": "Not Found"}, 404)))
    except StopIteration as end:
        return Dialogue(end.value, asked)
