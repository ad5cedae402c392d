"""Restart by a hook: one POST to a URL, and what it answers.

Called by controlplane.restart_means; controlplane.restart_docker reads answers by it. Follows no redirect, reads no proxy
settings of the environment, keeps no connection, and never shows the URL, which may hold a secret.
"""

import asyncio
import ssl
from typing import Any, Final

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from understudy.controlplane.fetcher import failure_of
from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_output import Output
from understudy.errors import MEANING

ANSWER_BYTES_MAX: Final = 64 * 1024
USER_AGENT: Final = "understudy-restart"
# Everything by which httpx and aiohttp say that there is no answer.
BROKEN: Final = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError, ValueError)


async def restart_by_hook(url: str, backend: str, timeout_s: float) -> MeansOutcome:
    """Send `{"backend": NAME}` to `url`; any 2xx means that it is done. The answer's last lines are the outcome's output."""
    has_head = False
    try:
        async with asyncio.timeout(timeout_s):
            wanted, auth = _split(url)
            async with _client(wanted) as client, client.stream("POST", wanted, json={"backend": backend}, auth=auth) as response:
                has_head = True
                body = await read_answer(response, ANSWER_BYTES_MAX)
    except TimeoutError:
        return MeansOutcome(is_done=False, words=f"the hook gave no answer within {timeout_s:g}s")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        return MeansOutcome(
            is_done=False, words="the hook's URL is none that can be sent to; want http://HOST/PATH or https://HOST/PATH"
        )
    except BROKEN as exc:
        return MeansOutcome(is_done=False, words=f"the hook {MEANING[failure_of(exc, has_head=has_head)].words}")
    said = lines_of(body)
    if response.is_success:
        return MeansOutcome(is_done=True, output=said)
    return MeansOutcome(is_done=False, words=f"the hook answered {response.status_code}; want 2xx", output=said)


async def read_answer(response: httpx.Response, bytes_max: int) -> bytes:
    """Read the body's first `bytes_max` bytes; the rest is left, and with it the connection."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece[: bytes_max - len(body)]
        if len(body) >= bytes_max:
            break
    return bytes(body)


def lines_of(body: bytes) -> tuple[str, ...]:
    """Return the last lines of an answer, cut and printable."""
    output = Output(lambda: 0.0)
    output.feed(body)
    output.end()
    return output.lines


def _client(url: httpx.URL) -> httpx.AsyncClient:
    # An empty context for plain http: httpx would otherwise load its list of authorities.
    verify = ssl.create_default_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = AiohttpTransport(verify=verify, trust_env=False, limits=httpx.Limits(max_connections=1))
    headers = {"accept-encoding": "identity", "user-agent": USER_AGENT}
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=httpx.Timeout(None), headers=headers)


def _split(url: str) -> tuple[httpx.URL, Any]:
    """Return the URL without its user and password, and these; aiohttp refuses to get them in both places."""
    wanted = httpx.URL(url)
    if wanted.scheme not in {"http", "https"} or not wanted.host:
        raise httpx.InvalidURL("no http")
    if not wanted.userinfo:
        return wanted, None
    return wanted.copy_with(username=None, password=None), (wanted.username, wanted.password)
