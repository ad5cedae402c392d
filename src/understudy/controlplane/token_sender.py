"""Send the questions for a token over HTTP, each over a connection of its own, bounded in time and bytes.

Used by controlplane.token_prober. Like controlplane.fetcher, whose addresses, TLS settings and connections it uses, with bodies.
Never raises for what a backend does, and reads no more of an answer than tells whether it holds a token.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import httpx

from understudy.controlplane.fetcher import Fetcher, failure_of
from understudy.controlplane.shadow_request import BROKEN, read_pieces
from understudy.core.snapshot import Backend
from understudy.engines.contract import ProbeAnswer
from understudy.engines.token_probe import TokenAsking, TokenRequest
from understudy.errors import MEANING, FailureKind

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
_ELSEWHERE: Final = frozenset({FailureKind.REFUSED, FailureKind.UNREACHABLE, FailureKind.CONNECT_TIMEOUT})

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
                        answer, kind = await self._send(backend, request)
                    if kind is not None:
                        sent = replace(sent, reason=MEANING[kind].words, is_reached=kind not in _UNREACHED)
                    elif request.body:
                        sent = replace(sent, posted_s=loop.time() - began_at_s, is_reached=True)
                except TimeoutError:
                    sent = replace(sent, reason=f"no token within {bound_s:g}s", is_reached=True)
                request = asking.send(answer)
        except StopIteration as end:
            told: _Told = end.value
        return told, sent

    async def _send(self, backend: Backend, request: TokenRequest) -> tuple[ProbeAnswer | None, FailureKind | None]:
        try:
            hosts = await self._hosts(backend.address.host)
        except OSError as exc:
            return None, failure_of(exc, has_head=False)
        kind: FailureKind | None = None
        for host in hosts:
            response: httpx.Response | None = None
            try:
                async with self._client(backend, backend.timeouts.connect_s) as client:
                    async with client.stream(**_question(backend, host, request)) as response:
                        body = bytearray()
                        async for piece in read_pieces(response):
                            body += piece
                            if len(body) >= READ_BYTES_MAX:
                                break
                    return ProbeAnswer(response.status_code, dict(response.headers), bytes(body)), None
            except BROKEN as exc:
                kind = failure_of(exc, has_head=response is not None)
                if kind not in _ELSEWHERE:
                    break
        return None, kind


def _question(backend: Backend, host: str, request: TokenRequest) -> dict[str, Any]:
    """Return the arguments of httpx that send `request` to `host`, under the backend's own name."""
    address = backend.address
    # Not compressed, so that the bound on what we read is also the bound on what we hold.
    headers = {"host": address.authority, "accept-encoding": "identity", "user-agent": "understudy-probe"}
    if request.body:
        headers["content-type"] = "application/json"
    if backend.api_key:
        headers["authorization"] = f"Bearer {backend.api_key}"
    return {
        "method": "POST" if request.body else "GET",
        "url": f"{address.scheme}://{replace(address, host=host).authority}{address.prefix}{request.path}",
        "headers": headers,
        "content": request.body or None,
        # The certificate is checked against the name, whichever of its addresses we ask.
        "extensions": {"sni_hostname": address.host},
    }
