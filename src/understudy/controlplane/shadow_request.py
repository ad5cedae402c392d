"""Whom a shadow goes to and what is sent: the choice of a backend, the request as that one is to get it, and the connection.

Called by controlplane.shadows. Sends over a connection of its own each time: a reset on a reused one would tell nothing of the
backend. Chooses by the snapshot and the live counts and changes neither.
"""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from understudy.controlplane.fetcher import BROKEN, Fetcher, failure_of
from understudy.core.color import Color, RolloutRules
from understudy.core.shadowing import SHADOW_FIELDS, ShadowAsk
from understudy.core.shortlist import is_usable, own_name, speaks
from understudy.core.snapshot import Backend, Role, RoutingSnapshot, Target
from understudy.core.tally import BackendTally
from understudy.dialects.contract import Dialect
from understudy.dialects.prompting import with_prompt
from understudy.errors import FailureKind

# A larger request has no shadow: to put another model and prompt into a MiB takes the loop, and so the clients, 2 ms.
SENT_BYTES_MAX: Final = 1024 * 1024

_KEYS: Final = frozenset({b"authorization", b"x-api-key"})
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_ELSEWHERE: Final = frozenset({FailureKind.REFUSED, FailureKind.UNREACHABLE, FailureKind.CONNECT_TIMEOUT})


def pick_target(
    snapshot: RoutingSnapshot,
    asked: ShadowAsk,
    tally_of: Callable[[str], BackendTally],
    shadows_of: Callable[[str], int],
    now_s: float,
) -> Target | None:
    """Return the backend of exactly that color with the most room, a primary if any; None where none can take it.

    A shadow takes only what clients leave: a backend with a bound has room up to half of it, shadows included, and one that
    traffic has found failing or busy is left alone.
    """
    best: Target | None = None
    best_key = (False, 0.0)
    for target in snapshot.targets:
        backend = target.backend
        if asked.color is Color.NONE or backend.color is not asked.color or not is_usable(target):
            continue
        counts = tally_of(backend.name)
        at_once = counts.in_flight + shadows_of(backend.name)
        if backend.in_flight_max and at_once * 2 >= backend.in_flight_max:
            continue
        if counts.ejected_until_s or counts.rest_until_s > now_s:
            continue
        if not speaks(target, asked.dialect) or own_name(target, asked.model) is None:
            continue
        key = (backend.role is Role.BACKUP, at_once / backend.weight)
        if best is None or key < best_key:
            best, best_key = target, key
    return best


def body_for(asked: ShadowAsk, dialect: Dialect, target: Target, rules: RolloutRules) -> bytes:
    """Return the request's body under that backend's name for the model, with its own prompt and its color's."""
    body, path = asked.body, path_of(asked)
    model = own_name(target, asked.model)
    if model and model != asked.model:
        body = dialect.with_model(body, model)
    prompt = rules.prompt_of(asked.color).under(target.backend.prompt)
    return body if prompt.is_empty else with_prompt(path, body, prompt)


def path_of(asked: ShadowAsk) -> str:
    """Return the path without its query."""
    return asked.path.partition("?")[0]


class ShadowSender(Fetcher):
    """Sends shadows by the means of probes: the same addresses and TLS settings, no proxies, no redirects."""

    @contextlib.asynccontextmanager
    async def send(self, asked: ShadowAsk, backend: Backend, body: bytes) -> AsyncIterator[httpx.Response]:
        """Send the request and hand out the answer once its head is here; what is not read of it by then is left.

        Raises one of `BROKEN`. Addresses that cannot be connected to are passed over, each after `timeouts.connect_s` seconds at
        most; nothing else bounds the time.
        """
        hosts = await self._hosts(backend.address.host)
        async with contextlib.AsyncExitStack() as stack:
            for host in hosts:
                client = await stack.enter_async_context(self._abrupt_client(backend, stack))
                try:
                    response = await stack.enter_async_context(client.stream("POST", **_question(asked, backend, host, body)))
                except BROKEN as exc:
                    if host == hosts[-1] or failure_of(exc, has_head=False) not in _ELSEWHERE:
                        raise
                else:
                    yield response
                    return

    def _abrupt_client(self, backend: Backend, stack: contextlib.AsyncExitStack) -> httpx.AsyncClient:
        """Return a client whose connections are gone when `stack` ends, also while a backend takes nothing of what is sent.

        Closed in order they would wait with the rest of the request for as long as such a backend hangs.
        """

        def opened(info: tuple[Any, ...]) -> socket.socket:
            sock = socket.socket(*info[:3])
            stack.callback(_drop, sock)
            return sock

        context = self._trust() if backend.address.scheme == "https" else self._plain
        transport = AiohttpTransport(
            verify=context,
            trust_env=False,
            client=lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1, ssl=context, socket_factory=opened)),
        )
        timeout = httpx.Timeout(None, connect=backend.timeouts.connect_s)
        return httpx.AsyncClient(transport=transport, trust_env=False, timeout=timeout)


def _drop(sock: socket.socket) -> None:
    """End a connection at once, with all that was not sent."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        sock.shutdown(socket.SHUT_RDWR)


def _question(asked: ShadowAsk, backend: Backend, host: str, body: bytes) -> dict[str, Any]:
    """Return the arguments of httpx that send the request to `host`, under the backend's own name."""
    address = backend.address
    headers: dict[bytes, bytes] = {
        b"host": address.authority.encode(),
        b"content-type": b"application/json",
        # Not compressed, so that the bound on what we read is also the bound on what we hold.
        b"accept-encoding": b"identity",
        b"user-agent": b"understudy-shadow",
    }
    dropped = _KEYS if backend.api_key else frozenset()
    headers.update((name, value) for name, value in asked.fields if name in SHADOW_FIELDS and name not in dropped)
    headers[b"x-request-id"] = asked.request_id + b"-shadow"
    if backend.api_key:
        headers[b"authorization"] = b"Bearer " + backend.api_key.encode()
    return {
        "url": f"{address.scheme}://{replace(address, host=host).authority}{address.prefix}{asked.path}",
        "headers": list(headers.items()),
        "content": body,
        # The certificate is checked against the name, whichever of its addresses we ask.
        "extensions": {"sni_hostname": address.host},
    }
