"""Carry out one probe over HTTP: send what an engine's probe asks, or its progress, bounded in time and bytes.

Called by controlplane.prober and by `understudy check --probe`; whoever else asks backends something does it by `Fetcher.ask`.
Every question goes over a connection of its own, so that a probe also tells whether the backend accepts connections. Follows no
redirect, reads no proxy settings of the environment, never raises for what a backend does.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import Backend, EngineKind
from understudy.engines import Finding, ProbeAnswer, ProbeRequest, probe
from understudy.engines.contract import PROBE_BODY_BYTES_MAX, Asking
from understudy.engines.progress import Figures, progress
from understudy.errors import MEANING, FailureKind

# What stands behind an error of httpx, most telling first. A broken connection is not here: what it means depends on how far
# the answer had come.
_CAUSES: Final[tuple[tuple[type[BaseException], FailureKind], ...]] = (
    (socket.gaierror, FailureKind.NAME_UNRESOLVED),
    (UnicodeError, FailureKind.NAME_UNRESOLVED),  # a name that IDNA cannot write
    (ssl.SSLError, FailureKind.TLS_FAILED),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (httpx.ConnectTimeout, FailureKind.CONNECT_TIMEOUT),
)


# Everything by which httpx and aiohttp say that there is no answer, or no more of it.
BROKEN: Final = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError)

Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
_Told = TypeVar("_Told")


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `path` starts with "/", the backend's prefix is put before it; a `body` is JSON; `agent` says who asks."""

    path: str
    method: str = "GET"
    body: bytes = field(default=b"", repr=False)
    agent: str = "understudy-probe"


@dataclass(frozen=True, slots=True)
class Silence:
    """Why a question was not answered, and that in words."""

    kind: FailureKind
    words: str


class Fetcher:
    """Sends probes. Holds the TLS settings, which cost time and memory, and makes them when the first https backend is asked.

    `resolve` gives the addresses of a name, best first, and raises OSError for a name that has none; so probes go where traffic
    goes, also while names do not resolve. None: every question looks the name up anew.
    """

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve
        # An empty context: httpx would otherwise load its list of authorities for plain http, too.
        self._plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trusting: ssl.SSLContext | None = None

    async def fetch_finding(
        self, backend: Backend, engine: EngineKind, known: Finding | None = None, *, before: EngineKind = EngineKind.AUTO
    ) -> Finding:
        """Probe `backend` as `engine`; takes at most `health.timeout_s` seconds. `known` and `before` as in engines.probe.

        When the time is up, the remaining questions count as not answered; a finding that they would only have completed stands.
        """
        finding, reason = await self._fetch_all(backend, probe(engine, known, before=before))
        if finding.wants_key and not backend.api_key:
            # Its clients may well have keys of their own, which are passed on; only the list stays unknown.
            engine = EngineKind.OPENAI if finding.engine is EngineKind.AUTO else finding.engine
            dialects = finding.dialects or (DialectName.OPENAI,)
            return replace(finding, seen=Seen.GOOD, reason="", engine=engine, dialects=dialects)
        if finding.seen is not Seen.GOOD and not finding.reason:
            return replace(finding, reason=reason, is_refusing=reason == MEANING[FailureKind.REFUSED].words)
        return finding

    async def fetch_figures(self, backend: Backend, engine: EngineKind) -> Figures | None:
        """Ask for the figures of the work that goes on (engines.progress); None where there are none, or no answer in time."""
        figures, _ = await self._fetch_all(backend, progress(engine))
        return figures

    async def _fetch_all(self, backend: Backend, asking: Asking[_Told]) -> tuple[_Told, str]:
        """Answer every question of `asking`. Returns what it was told, and in words why the last unanswered question was so."""
        deadline_at_s = asyncio.get_running_loop().time() + backend.health.timeout_s
        answer: ProbeAnswer | None = None
        reason = ""
        try:
            request = next(asking)
            while True:
                answer, said = await self._fetch_in_time(backend, request, deadline_at_s)
                reason = said or reason
                request = asking.send(answer)
        except StopIteration as end:
            told: _Told = end.value
        return told, reason

    async def _fetch_in_time(
        self, backend: Backend, request: ProbeRequest, deadline_at_s: float
    ) -> tuple[ProbeAnswer | None, str]:
        late = f"no answer within {backend.health.timeout_s:g}s"
        if asyncio.get_running_loop().time() >= deadline_at_s:
            return None, late
        try:
            async with asyncio.timeout_at(deadline_at_s):
                answer = await self.ask(backend, Question(request.path), backend.health.timeout_s)
        except TimeoutError:
            return None, late
        return (None, answer.words) if isinstance(answer, Silence) else (answer, "")

    async def ask(
        self, backend: Backend, question: Question, connect_s: float, *, bytes_max: int = PROBE_BODY_BYTES_MAX
    ) -> ProbeAnswer | Silence:
        """Send one question, at each of the backend's addresses until it can be connected to.

        Connecting is bounded, per address, and how much of the body is read; all else is for the caller to bound. Raises nothing
        for what a backend does.
        """
        try:
            hosts = await self._hosts(backend.address.host)
        except OSError as exc:
            return _silence(exc, has_head=False)
        # A dead address must leave time for the next one.
        connect_s /= len(hosts)
        silence = Silence(FailureKind.UNREACHABLE, "")
        for host in hosts:
            response: httpx.Response | None = None
            try:
                async with self._client(backend, connect_s) as client:
                    async with client.stream(**_arguments(backend, host, question)) as response:
                        body = await _read(response, bytes_max)
                    return ProbeAnswer(response.status_code, dict(response.headers), body)
            except BROKEN as exc:
                silence = _silence(exc, has_head=response is not None)
                if not isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout)):
                    break
        return silence

    async def _hosts(self, host: str) -> tuple[str, ...]:
        if self._resolve is None or _is_literal(host):
            return (host,)
        return await self._resolve(host) or (host,)

    def _client(self, backend: Backend, connect_s: float | None) -> httpx.AsyncClient:
        # aiohttp is loaded for the admin port anyway; httpx's own transport would bring httpcore and anyio, 4.7 MiB more.
        transport = AiohttpTransport(
            verify=self._trust() if backend.address.scheme == "https" else self._plain,
            trust_env=False,
            limits=httpx.Limits(max_connections=1),
        )
        return httpx.AsyncClient(transport=transport, trust_env=False, timeout=httpx.Timeout(None, connect=connect_s))

    def _trust(self) -> ssl.SSLContext:
        if self._trusting is None:
            self._trusting = ssl.create_default_context()
        return self._trusting


def _arguments(backend: Backend, host: str, question: Question) -> dict[str, Any]:
    """Return the arguments of httpx that send the question to `host`, under the backend's own name."""
    address = backend.address
    # Not compressed, so that the bound on what we read is also the bound on what we hold.
    headers = {"host": address.authority, "accept-encoding": "identity", "user-agent": question.agent}
    if question.body:
        headers["content-type"] = "application/json"
    if backend.api_key:
        headers["authorization"] = f"Bearer {backend.api_key}"
    return {
        "method": question.method,
        "url": f"{address.scheme}://{replace(address, host=host).authority}{address.prefix}{question.path}",
        "headers": headers,
        "content": question.body or None,
        # The certificate is checked against the name, whichever of its addresses we ask.
        "extensions": {"sni_hostname": address.host},
    }


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _read(response: httpx.Response, bytes_max: int) -> bytes:
    """Read the body's first bytes; the rest is left, and with it the connection."""
    body = bytearray()
    async for piece in read_pieces(response):
        body += piece[: bytes_max - len(body)]
        if len(body) >= bytes_max:
            break
    return bytes(body)


async def read_pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises one of `BROKEN`."""
    try:
        async for piece in response.aiter_raw():
            yield piece
    except RuntimeError as exc:
        # All that aiohttp says of a body that could not be read any further while nobody was reading (StreamReader._wait).
        raise httpx.ReadError("broke between two reads") from exc


def _silence(exc: BaseException, *, has_head: bool) -> Silence:
    kind = failure_of(exc, has_head=has_head)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(exc)):
        return Silence(kind, "has a certificate that is not trusted")
    return Silence(kind, MEANING[kind].words)


def failure_of(exc: BaseException, *, has_head: bool) -> FailureKind:
    """Tell by the errors behind `exc`, never by its text, why there was no answer; `has_head`: its head had come."""
    chain = tuple(_chain(exc))
    if not has_head and any(isinstance(one, (aiohttp.ServerDisconnectedError, ConnectionResetError)) for one in chain):
        return FailureKind.LOST_BEFORE_HEAD
    for cause, kind in _CAUSES:
        if any(isinstance(one, cause) for one in chain):
            return kind
    if has_head:
        return FailureKind.BODY_CUT
    if any(isinstance(one, (HttpProcessingError, aiohttp.ClientResponseError)) for one in chain):
        return FailureKind.HEAD_MALFORMED
    return FailureKind.UNREACHABLE if isinstance(exc, httpx.ConnectError) else FailureKind.LOST_BEFORE_HEAD


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Everything that `exc` was raised from; several addresses of one name come as a group."""
    while exc is not None:
        yield exc
        if isinstance(exc, BaseExceptionGroup):
            for one in exc.exceptions:
                yield from _chain(one)
        exc = exc.__cause__ or exc.__context__
