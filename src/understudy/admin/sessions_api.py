"""Answer what an operator asks and orders of the kept conversations: list, show, import, delete, purge.

Added to the admin port by admin.api, whose guard and pace every request here has passed. Reads ids, bounds and records out of
requests and writes what came of them; what is done happens behind the `SessionsOperator`. Conversations are shown to whoever
may use the admin port, and never logged.

An id may hold any character. As a part of the path it stands percent-encoded, and a client may tidy away an id such as `..`
before it sends it; as `?id=` it always arrives.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec
from aiohttp import web

from understudy.admin.reply import error_reply, json_reply
from understudy.core.conversation import Conversation
from understudy.sessions.store import ID_BYTES_MAX, PAGE_MAX, Conflict, HeldElsewhere, Page, StoreError, Summary

RECORD_BYTES_MAX = 64 * 1024 * 1024
RECORD_S_MAX = 60.0
_COUNT_DEFAULT = 100
# A dot would leave out a line end.
_BY_PATH = r"/api/sessions/{id:[\s\S]+}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SessionsOperator(Protocol):
    """What the admin port needs of the session store. All methods may raise `StoreError`; an unknown cursor ends the listing."""

    async def page(self, cursor: str, count: int) -> Page:
        """List about `count` sessions (1 to PAGE_MAX) from `cursor` on, "" from the start."""
        ...

    async def show(self, session: str) -> tuple[Summary, Conversation] | None:
        """Read one session; None: there is none."""
        ...

    async def delete(self, session: str) -> bool:
        """Remove one session; False: there was none."""
        ...

    async def purge(self, older_than_s: float) -> int:
        """Remove every session that has not changed for so many seconds, 0: all of them. Returns how many."""
        ...

    async def put(self, session: str, conversation: Conversation) -> None:
        """Keep the conversation in place of whatever the session has. May raise `HeldElsewhere` and `Conflict`, too."""
        ...


class _Purge(msgspec.Struct, forbid_unknown_fields=True):
    older_than_s: Annotated[float, msgspec.Meta(ge=0)]


class _Refused(Exception):  # noqa: N818  an answer on its way, no fault
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.reply = error_reply(status, code, words)


def add_sessions(router: web.UrlDispatcher, find: Callable[[], SessionsOperator | None]) -> None:
    """Add the endpoints; `find` gives the store at each request, None where there is none. Call it on the running loop."""
    answers = _SessionAnswers()
    for method, path, answer in (
        ("POST", "/api/sessions/purge", answers.purge),
        ("GET", "/api/sessions", answers.list_or_show),
        ("PUT", "/api/sessions", answers.put),
        ("DELETE", "/api/sessions", answers.delete),
        ("GET", _BY_PATH, answers.show),
        ("DELETE", _BY_PATH, answers.delete),
    ):
        router.add_route(method, path, _told(find, answer))


def _told(
    find: Callable[[], SessionsOperator | None], answer: Callable[[SessionsOperator, web.Request], Awaitable[web.Response]]
) -> Handler:
    """Turn what may stand between a request and its answer into answers."""

    async def reply(request: web.Request) -> web.Response:
        sessions = find()
        if sessions is None:
            return error_reply(404, "no_store", "no conversations are kept: sessions.store is none")
        try:
            return await answer(sessions, request)
        except _Refused as refused:
            return refused.reply
        except StoreError as error:
            return error_reply(503, f"store_{error.loss}", error.detail or f"the session store: {error.loss}")
        except (HeldElsewhere, Conflict):
            return error_reply(409, "session_held", "the session is being changed by others; try again", {"Retry-After": "1"})

    return reply


class _SessionAnswers:
    """The answers, one an endpoint."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Conversation)
        # One record at a time, since each may take 64 MiB.
        self._importing = asyncio.Lock()

    async def list_or_show(self, sessions: SessionsOperator, request: web.Request) -> web.Response:
        if "id" in request.query:
            return await self.show(sessions, request)
        limit = request.query.get("limit", str(_COUNT_DEFAULT))
        if not re.fullmatch(r"[0-9]{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= PAGE_MAX:
            raise _Refused(400, "limit_invalid", f"found a limit that is no number from 1 to {PAGE_MAX}; want one that is")
        page = await sessions.page(request.query.get("cursor", ""), int(limit))
        return json_reply(200, {"sessions": [*map(_told_summary, page.summaries)], "cursor": page.cursor or None})

    async def show(self, sessions: SessionsOperator, request: web.Request) -> web.Response:
        session = _session_of(request)
        found = await sessions.show(session)
        if found is None:
            raise _unknown()
        summary, conversation = found
        return json_reply(200, {"id": session, "bytes": summary.size_bytes, **msgspec.to_builtins(conversation)})

    async def delete(self, sessions: SessionsOperator, request: web.Request) -> web.Response:
        session = _session_of(request)
        if not await sessions.delete(session):
            raise _unknown()
        return json_reply(200, {"id": session, "deleted": True})

    async def purge(self, sessions: SessionsOperator, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Purge)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _Refused(
                400, "purge_invalid", f'found a body that is none ({error}); want {{"older_than_s": SECONDS}}'
            ) from error
        return json_reply(200, {"deleted": await sessions.purge(asked.older_than_s)})

    async def put(self, sessions: SessionsOperator, request: web.Request) -> web.Response:
        session = _session_of(request)
        async with self._importing:
            conversation = self._decoded(await _read_record(request))
        await sessions.put(session, conversation)
        return json_reply(200, {"id": session})

    def _decoded(self, record: bytes | bytearray) -> Conversation:
        want = "a record as `understudy sessions export` writes it"
        try:
            conversation = self._decoder.decode(record)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _Refused(400, "record_invalid", f"found a body that is none ({error}); want {want}") from error
        if not conversation.messages:
            raise _Refused(400, "record_invalid", f"found no messages; want {want}")
        return conversation


def _told_summary(summary: Summary) -> dict[str, Any]:
    return {
        "id": summary.session,
        "revision": summary.revision,
        "messages": summary.messages,
        "bytes": summary.size_bytes,
        "changed_at": summary.changed_at_unix_s,
        "begun_at": summary.begun_at_unix_s,
        "model": summary.model,
        "backend": summary.backend,
        "color": summary.color,
    }


def _session_of(request: web.Request) -> str:
    """Return the id, from the path or else from the query."""
    given = [request.match_info["id"]] if "id" in request.match_info else request.query.getall("id", [])
    if len(given) != 1:
        raise _Refused(400, "id_wanted", f"found {len(given) or 'no'} ids; want one: ?id=ID")
    length = len(given[0].encode("utf-8", "surrogatepass"))
    if not 1 <= length <= ID_BYTES_MAX:
        raise _Refused(400, "id_invalid", f"found an id of {length} bytes; want 1 to {ID_BYTES_MAX}")
    return given[0]


async def _read_record(request: web.Request) -> bytearray:
    """Read the body, which may be larger than all others of this port."""
    record = bytearray()
    try:
        async with asyncio.timeout(RECORD_S_MAX):
            async for piece in request.content.iter_any():
                record += piece
                if len(record) > RECORD_BYTES_MAX:
                    break
    except TimeoutError:
        raise _Refused(408, "record_slow", f"the record did not arrive within {RECORD_S_MAX:.0f} s") from None
    if len(record) > RECORD_BYTES_MAX:
        raise _Refused(413, "record_too_large", f"found a record of more than {RECORD_BYTES_MAX} bytes; want a smaller one")
    return record


def _unknown() -> _Refused:
    return _Refused(404, "session_unknown", "there is no such session")
