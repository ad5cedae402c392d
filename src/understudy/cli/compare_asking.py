"""Send a prompt to one side, and measure the answer that comes.

Called by cli.compare for the prompts and by cli.compare_judge for its questions. Every answer is bounded in time and size, and
whatever a server does is part of what was measured: nothing is raised for it. Tries nothing twice, follows no redirect, keeps no
cookie, uses no proxy of the environment; every request has a connection of its own.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from socket import gaierror
from typing import Any, Final

import httpx

from understudy.cli.compare_prompts import Entry
from understudy.cli.compare_sides import COLOR_HEADER, KEY_VARIABLE, Side
from understudy.core.color import Color
from understudy.dialects.contract import StreamKind
from understudy.dialects.events import read_json
from understudy.dialects.framing import Event, Splitter, split
from understudy.dialects.pieces import Piece, counts_of, read_chunk
from understudy.dialects.prompting import with_prompt
from understudy.errors import MEANING, FailureKind

PATH: Final = "/v1/chat/completions"
TEXT_CHARACTERS_MAX: Final = 1024 * 1024
# More than any context has room for; what counts beyond it does not count.
TOKENS_MAX: Final = 10_000_000
_CONNECT_S_MAX: Final = 10.0
# After the end was told there is only the end of the connection to wait for.
_AFTER_END_S_MAX: Final = 1.0
# Below it the whole answer came at once, and a speed would be the network's.
_SPEED_S_MIN: Final = 0.01
_BODY_BYTES_MAX: Final = 1024 * 1024
_WORDS_MAX: Final = 200

_CAUSES: Final[tuple[tuple[type[BaseException], FailureKind], ...]] = (
    (gaierror, FailureKind.NAME_UNRESOLVED),
    (ssl.SSLError, FailureKind.TLS_FAILED),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (httpx.ConnectTimeout, FailureKind.CONNECT_TIMEOUT),
    (httpx.ConnectError, FailureKind.UNREACHABLE),
)


@dataclass(slots=True)
class Answer:
    """What one side gave. `error` says in words why there is no whole answer, "" there is; what came of it is kept all the same.

    `ttft_s` is from sending, connecting included, to the first content; `speed` is characters a second after that, `token_speed`
    tokens a second; each None where it cannot be told. `is_estimated`: the side did not count, `tokens` are the pieces of the
    stream. `faults` are errors of form. `is_unreached`: there was no connection. Its repr leaves out what was said.
    """

    text: str = field(default="", repr=False)
    thought: str = field(default="", repr=False)
    calls: int = 0
    tokens: int = 0
    is_estimated: bool = False
    ttft_s: float | None = None
    speed: float | None = None
    token_speed: float | None = None
    duration_s: float = 0.0
    is_truncated: bool = False
    faults: tuple[str, ...] = ()
    error: str = ""
    is_unreached: bool = False
    backend: str = ""


class _Reading:
    """An answer while it comes in."""

    def __init__(self, started_at_s: float) -> None:
        self._started_at_s = started_at_s
        self._splitter = Splitter(StreamKind.SSE)
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._characters = 0
        self._first_characters = 0
        self._pieces = 0
        self._calls: set[int] = set()
        self._tokens: int | None = None
        self._malformed = 0
        self._first_at_s: float | None = None
        self._last_at_s = started_at_s
        self._finish = ""
        self.is_done = False
        self.has_head = False
        self.is_unreached = False
        self.error = ""
        self.backend = ""

    def feed(self, data: bytes, now_s: float) -> None:
        """Take the next bytes of the stream, which came at `now_s`."""
        self._take_all(self._splitter.feed(data), now_s)
        if self._splitter.is_overlong:
            self.error = "sent an event that is too large"

    def end(self, now_s: float) -> None:
        """Take what stands at the stream's end without the blank line that ends an event."""
        self._take_all(split(self._splitter.rest(), StreamKind.SSE), now_s)

    def _take_all(self, events: list[Event], now_s: float) -> None:
        for event in events:
            if event.data and not self.error:
                self._take(event, now_s)

    def _take(self, event: Event, now_s: float) -> None:
        piece = read_chunk(event.name, event.data or b"")
        if piece.is_done:
            self.is_done = True
        elif piece.is_error:
            words = _error_words(event.data or b"")
            self.error = "reported an error inside its answer" + (f": {words}" if words else "")
        elif piece.is_unreadable and not isinstance(read_json(event.data or b""), dict):
            self._malformed += 1
        else:
            self._take_piece(piece, now_s)

    def _take_piece(self, piece: Piece, now_s: float) -> None:
        self._finish = piece.finish or self._finish
        counts = (counts_of(piece.usage)[1], piece.tokens)
        self._tokens = next((count for count in counts if count is not None and 0 <= count <= TOKENS_MAX), self._tokens)
        if not (piece.text or piece.reasoning or piece.tool_calls):
            return
        self._pieces += 1
        self._texts.append(piece.text)
        self._thoughts.append(piece.reasoning)
        self._calls.update(_index_of(call) for call in piece.tool_calls or () if isinstance(call, dict))
        self._last_at_s = now_s
        self._characters += len(piece.text) + len(piece.reasoning)
        if self._first_at_s is None:
            self._first_at_s, self._first_characters = now_s, self._characters
        if self._characters > TEXT_CHARACTERS_MAX:
            self.error = f"gave more than {TEXT_CHARACTERS_MAX} characters"

    def answer(self, now_s: float, *, wants_json: bool) -> Answer:
        """Return what was measured."""
        text = "".join(self._texts)
        tokens = self._pieces if self._tokens is None else self._tokens
        first_at_s = self._first_at_s
        elapsed_s = 0.0 if first_at_s is None else self._last_at_s - first_at_s
        elapsed_s = elapsed_s if elapsed_s >= _SPEED_S_MIN else 0.0
        later_characters = self._characters - self._first_characters
        return Answer(
            text=text,
            thought="".join(self._thoughts),
            calls=len(self._calls),
            tokens=tokens,
            is_estimated=self._tokens is None,
            ttft_s=None if first_at_s is None else first_at_s - self._started_at_s,
            speed=later_characters / elapsed_s if later_characters and elapsed_s else None,
            token_speed=(tokens - 1) / elapsed_s if tokens > 1 and elapsed_s else None,
            duration_s=now_s - self._started_at_s,
            is_truncated=self._finish == "length",
            faults=() if self.error else tuple(self._faults(text, wants_json=wants_json)),
            error=self.error,
            is_unreached=self.is_unreached,
            backend=self.backend,
        )

    def _faults(self, text: str, *, wants_json: bool) -> Iterator[str]:
        if self._malformed:
            yield f"{self._malformed} malformed event{'s' * (self._malformed > 1)}"
        if not self.is_done:
            yield "no end of the stream ([DONE])"
        if not self._finish:
            yield "no finish reason"
        if not (text or self._calls):
            yield "an empty answer"
        elif wants_json and text and self._finish != "length" and not _is_json(text):
            yield "JSON was asked for, and it is none"


@asynccontextmanager
async def opened(side: Side) -> AsyncIterator[httpx.AsyncClient]:
    """Open what sends to `side`."""
    headers = {"User-Agent": "understudy-compare", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
    transport = httpx.AsyncHTTPTransport(
        # As the daemon: authorities that this machine trusts.
        verify=ssl.create_default_context() if side.url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=False,
        uds=side.socket or None,
        # An idle connection may be closed just when it is used again, and that would be counted as an error.
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    async with httpx.AsyncClient(transport=transport, headers=headers, cookies=jar, trust_env=False, timeout=None) as client:  # noqa: S113  every use has its own
        yield client


async def fetch_answer(client: httpx.AsyncClient, side: Side, entry: Entry, model: str, timeout_s: float) -> Answer:
    """Ask `side` for an answer to `entry`, for at most `timeout_s` seconds. Raises nothing."""
    loop = asyncio.get_running_loop()
    reading = _Reading(loop.time())
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            await _read_stream(client, side, body_of(side, entry, model), reading, deadline)
    except TimeoutError:
        if not reading.is_done:
            reading.error = reading.error or f"gave no whole answer within {timeout_s:g}s"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        if not reading.is_done:
            reading.error = reading.error or _words(error, has_head=reading.has_head)
            reading.is_unreached = not reading.has_head and _cause(error) is not None
    return reading.answer(loop.time(), wants_json=entry.wants_json)


def body_of(side: Side, entry: Entry, model: str) -> bytes:
    """Return the request's body as `side` gets it; `model` is the one for entries that name none."""
    body = {"model": model_of(side, entry, model), "messages": entry.messages, **entry.fields}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    return with_prompt(PATH, json.dumps(body).encode(), side.prompt)


def model_of(side: Side, entry: Entry, model: str) -> str:
    """Return the name of the model that `side` is asked for."""
    wanted = entry.model or model
    return side.model or dict(side.models).get(wanted, wanted)


async def _read_stream(client: httpx.AsyncClient, side: Side, body: bytes, reading: _Reading, deadline: asyncio.Timeout) -> None:
    loop = asyncio.get_running_loop()
    headers = headers_of(side) | {b"Content-Type": b"application/json"}
    timeout = httpx.Timeout(None, connect=_CONNECT_S_MAX)
    async with client.stream("POST", side.url + PATH, content=body, headers=headers, timeout=timeout) as response:
        reading.has_head = True
        reading.backend = response.headers.get("X-Understudy-Backend", "")
        reading.error = await _refusal(side, response)
        if reading.error:
            return
        async for data in response.aiter_bytes():
            was_done = reading.is_done
            reading.feed(data, loop.time())
            if reading.error:
                return
            if reading.is_done and not was_done:
                deadline.reschedule(min(deadline.when() or 0.0, loop.time() + _AFTER_END_S_MAX))
        reading.end(loop.time())


def headers_of(side: Side) -> dict[bytes, bytes]:
    """Return the fields that every request to `side` has."""
    headers = {}
    if side.key:
        headers[b"Authorization"] = b"Bearer " + side.key
    if side.asked_color is not Color.NONE:
        headers[COLOR_HEADER.encode()] = str(side.asked_color).encode()
    return headers


async def _refusal(side: Side, response: httpx.Response) -> str:
    """Say why this is not the stream that was asked for; "" where it is."""
    if response.status_code != 200:
        words = _error_words(await _read(response))
        return f"answered {response.status_code}" + (f": {words}" if words else "")
    color = response.headers.get(COLOR_HEADER, "").strip().lower()
    if side.asked_color is not Color.NONE and color != str(side.asked_color):
        if not color:
            return f"does not say which color answered (no {COLOR_HEADER})"
        # The daemon lets whom it does not trust choose no color, and says nothing of it.
        return f"answered by {color[:_WORDS_MAX]}; is {KEY_VARIABLE} a trusted client's?"
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return "" if kind == "text/event-stream" else f"gave no stream of events ({kind[:_WORDS_MAX] or 'no Content-Type'})"


async def fetch_models(client: httpx.AsyncClient, side: Side, timeout_s: float) -> list[str] | str:
    """Return the names of the models that `side` lists, as the prompts call them; or in words why there is no list."""
    timeout = httpx.Timeout(None, connect=_CONNECT_S_MAX)
    try:
        async with asyncio.timeout(timeout_s):
            async with client.stream("GET", f"{side.url}/v1/models", headers=headers_of(side), timeout=timeout) as response:
                body = await _read(response)
    except TimeoutError:
        return f"gave no list of its models within {timeout_s:g}s"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        return _words(error, has_head=False)
    value = read_json(body)
    entries = value.get("data") if isinstance(value, dict) else None
    if response.status_code != 200 or not isinstance(entries, list):
        return f"gave no list of its models (it answered {response.status_code})"
    names = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    asked = {own: client_name for client_name, own in side.models}
    found = [asked.get(name, name) for name in names]
    return found if side.listed is None else [name for name in found if name in side.listed]


async def _read(response: httpx.Response) -> bytes:
    """Read the body's first bytes; the rest is left, and with it the connection."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data[: _BODY_BYTES_MAX - len(body)]
        if len(body) >= _BODY_BYTES_MAX:
            break
    return bytes(body)


def _error_words(data: bytes) -> str:
    """Return what an error says of itself, in any engine's shape; "" where it says nothing."""
    value = read_json(data)
    error = value.get("error") if isinstance(value, dict) else None
    told: Any = error or (value if isinstance(value, dict) else None)
    if isinstance(told, dict):
        told = told.get("message") or told.get("detail")
    return told[:_WORDS_MAX].strip() if isinstance(told, str) else ""


def _index_of(call: dict[str, Any]) -> int:
    index = call.get("index", 0)
    return index if isinstance(index, int) else 0


def _is_json(text: str) -> bool:
    from understudy.cli.compare_expectations import read_json_text

    return not read_json_text(text)[1]


def _words(error: BaseException, *, has_head: bool) -> str:
    """Say what happened, by the errors behind it and never by their text."""
    if has_head:
        return MEANING[FailureKind.BODY_CUT].words
    if (kind := _cause(error)) is not None:
        return MEANING[kind].words
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return MEANING[FailureKind.LOST_BEFORE_HEAD].words
    return f"could not be asked ({type(error).__name__})"


def _cause(error: BaseException) -> FailureKind | None:
    """Return why there was no connection, None where there was one."""
    chain = list(_chain(error))
    return next((kind for cause, kind in _CAUSES if any(isinstance(each, cause) for each in chain)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Everything that `error` was raised from; several addresses of one name come as a group."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _chain(each)
        error = error.__cause__ or error.__context__
