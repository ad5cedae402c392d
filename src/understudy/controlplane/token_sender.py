"""Send the questions for a token over HTTP, each over a connection of its own, bounded in time and bytes.

Used by controlplane.token_prober. Asks as controlplane.fetcher does, with bodies.
Never raises for what a backend does, and reads no more of an answer than tells whether it holds a token.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from understudy.controlplane.fetcher import Fetcher, Question, Silence
from understudy.core.snapshot import Backend
from understudy.engines.contract import ProbeAnswer
from understudy.engines.token_probe import TokenAsking, TokenRequest
from understudy.errors import FailureKind

# A list of models in memory, or metrics, are larger than any answer of one token.
READ_BYTES_MAX: Final = 1024 * 1024

_UNREACHED: Final = frozenset(
    {
        FailureKind.REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.NAME_UNRESOLVED,
        FailureKind.TLS_FAILED,
    }
)

_Told = TypeVar("_Told")


@dataclass(frozen=True, slots=True)
class Sent:
    """How the questions went.

    `reason` says in words why the last unanswered one was so; `is_reached` False: there was no connection. `posted_s` is how many
    seconds the last answer to a question with a body took.
    """

    reason: str = ""
    is_reached: bool = True
    posted_s: float = 0.0


class TokenSender(Fetcher):
    """Sends the questions."""

    async def fetch(self, backend: Backend, asking: TokenAsking[_Told], bound_s: float) -> tuple[_Told, Sent]:
        """Answer every question of `asking` within `bound_s` seconds; when they are over the rest counts as not answered."""
        loop = asyncio.get_running_loop()
        until_at_s = loop.time() + bound_s
        sent = Sent()
        try:
            request = next(asking)
            while True:
                began_at_s = loop.time()
                answer: ProbeAnswer | None = None
                try:
                    async with asyncio.timeout_at(until_at_s):
                        heard = await self._send(backend, request)
                    if isinstance(heard, Silence):
                        sent = replace(sent, reason=heard.words, is_reached=heard.kind not in _UNREACHED)
                    else:
                        answer = heard
                        sent = replace(sent, posted_s=loop.time() - began_at_s, is_reached=True) if request.body else sent
                except TimeoutError:
                    sent = replace(sent, reason=f"no token within {bound_s:g}s", is_reached=True)
                request = asking.send(answer)
        except StopIteration as end:
            told: _Told = end.value
        return told, sent

    async def _send(self, backend: Backend, request: TokenRequest) -> ProbeAnswer | Silence:
        question = Question(request.path, "POST" if request.body else "GET", request.body)
        return await self.ask(backend, question, backend.timeouts.connect_s, bytes_max=READ_BYTES_MAX)
