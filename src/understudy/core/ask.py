"""What a client asked, whatever the dialect: the facts that choosing a backend and trying again depend on.

Made by dialects from a request's head and body, read by core.balancer and core.exchange. Holds no bytes of the prompt.
"""

from enum import StrEnum

import msgspec


class DialectName(StrEnum):
    """The three APIs that clients speak."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    ANTHROPIC = "anthropic"


class Ask(msgspec.Struct, frozen=True):
    """One client request, reduced to what decisions need. A msgspec struct because one is made for every request: 0.5 µs less.

    `dialect` is None where the path tells none. `model` is the client's name for it, "" when the request names none.
    `is_generating` marks the requests that only generate and may be repeated (docs/failure-model.md); `is_streaming` whether
    the client asked for the answer piece by piece. `session` is X-Session-ID, "" when absent. `prefer` names the backend that
    holds a stored conversation's cache, `color` the one it began with; both are wishes, "" for none.
    """

    dialect: DialectName | None = None
    path: str = ""
    model: str = ""
    is_generating: bool = False
    is_streaming: bool = False
    session: str = ""
    prefer: str = ""
    color: str = ""
