"""The admin port's word on kept conversations, asked over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema
import msgspec
import pytest
import yarl

from support.admin_sessions import NOW_UNIX_S, StageSessions, conversation, keeping
from support.admin_stage import StageOperator, listener
from understudy.admin import sessions_api
from understudy.admin.api import make_app
from understudy.admin.guard import Guard, Pace
from understudy.admin.openapi import document
from understudy.admin.port import AdminPort
from understudy.core.conversation import Conversation
from understudy.sessions.store import Conflict, HeldElsewhere, Loss, StoreError

HELLO = conversation("hello", "good evening")
ODD_IDS = [
    "a/b",
    "..",
    "../..",
    "./a",
    "//",
    "a%2Fb",
    "100%",
    "?id=x&y#z",
    "a b+c",
    "Grüße ☕",
    "purge",
    "\n\x00",
    ";a=b",
    "'\"<>\\",
]


@asynccontextmanager
async def asking(operator: StageOperator, token: str = "", pace: Pace | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the admin port and a client of it; close both."""
    sock = listener()
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"
    port = AdminPort(make_app(operator, Guard(token, "127.0.0.1"), pace))
    await port.start(sock)
    try:
        async with aiohttp.ClientSession() as client:
            client._base_url = yarl.URL(base)
            yield client
    finally:
        await port.stop()


async def fetch(client: aiohttp.ClientSession, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
    """Ask, with the path as it is written here, and return the status and the JSON."""
    url = yarl.URL(str(client._base_url).rstrip("/") + path, encoded=True)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with client.request(method, url, data=data, **more) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


def fits(answer: object, schema: str) -> None:
    schemas = document()["components"]
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{schema}", "components": schemas})


async def test_sessions_are_listed_page_by_page() -> None:
    operator, _ = keeping(a=HELLO, b=conversation("x", "y", revision=3), c=HELLO)
    async with asking(operator) as client:
        status, first = await fetch(client, "GET", "/api/sessions?limit=2")
        assert (status, [each["id"] for each in first["sessions"]], first["cursor"]) == (200, ["a", "b"], "2")
        status, rest = await fetch(client, "GET", f"/api/sessions?limit=2&cursor={first['cursor']}")
        assert (status, [each["id"] for each in rest["sessions"]], rest["cursor"]) == (200, ["c"], None)
    fits(first, "Sessions")
    assert first["sessions"][1] == {
        "id": "b",
        "revision": 3,
        "messages": 2,
        "bytes": first["sessions"][1]["bytes"],
        "changed_at": NOW_UNIX_S,
        "begun_at": 0.0,
        "model": "qwen2.5",
        "backend": "pi",
        "color": "",
    }


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e2", "٣", "99999"])
async def test_a_limit_is_a_number_within_its_bounds(limit: str) -> None:
    async with asking(keeping()[0]) as client:
        status, answer = await fetch(client, "GET", f"/api/sessions?limit={quote(limit)}")
    assert (status, answer["error"]["code"]) == (400, "limit_invalid")


async def test_one_session_is_shown_whole() -> None:
    operator, _ = keeping(a=HELLO)
    async with asking(operator) as client:
        by_path = await fetch(client, "GET", "/api/sessions/a")
        assert by_path == await fetch(client, "GET", "/api/sessions?id=a")
    status, answer = by_path
    fits(answer, "Session")
    assert (status, answer["id"], answer["model"]) == (200, "a", "qwen2.5")
    assert answer["messages"] == [
        {"speaker": "user", "parts": [{"kind": "text", "text": "hello"}]},
        {"speaker": "assistant", "parts": [{"kind": "text", "text": "good evening"}]},
    ]


@pytest.mark.parametrize("session", ODD_IDS)
async def test_an_id_of_any_characters_is_found_by_path_and_by_query(session: str) -> None:
    operator, sessions = keeping()
    written = quote(session, safe="").replace(".", "%2E")
    async with asking(operator) as client:
        assert await fetch(client, "PUT", f"/api/sessions?id={written}", msgspec.to_builtins(HELLO)) == (200, {"id": session})
        assert sessions.kept == {session: HELLO}
        for path in (f"/api/sessions/{written}", f"/api/sessions?id={written}"):
            sessions.kept = {session: HELLO}
            status, answer = await fetch(client, "GET", path)
            assert (status, answer["id"]) == (200, session)
            assert await fetch(client, "DELETE", path) == (200, {"id": session, "deleted": True})
            assert sessions.kept == {}


@pytest.mark.parametrize("written", ["..", "../x", "a/b", "a//b/"])
async def test_a_path_that_nobody_tidied_is_taken_as_it_stands(written: str) -> None:
    operator, _ = keeping(**{written: HELLO})
    async with asking(operator) as client:
        assert (await fetch(client, "GET", f"/api/sessions/{written}"))[1]["id"] == written


@pytest.mark.parametrize("written", ["../../healthz", "%2E%2E/%2E%2E/healthz", "..%2F..%2Freadyz"])
async def test_no_id_leads_around_the_token(written: str) -> None:
    operator, _ = keeping(**{"../../healthz": HELLO})
    async with asking(operator, "s3cret") as client:
        assert (await fetch(client, "GET", f"/api/sessions/{written}"))[0] == 401


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_that_is_not_there_is_404(method: str) -> None:
    async with asking(keeping()[0]) as client:
        for path in ("/api/sessions/gone", "/api/sessions?id=gone"):
            status, answer = await fetch(client, method, path)
            assert (status, answer["error"]["code"]) == (404, "session_unknown")


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/api/sessions"), ("PUT", "/api/sessions"), ("GET", "/api/sessions?id=a&id=b")]
)
async def test_one_id_is_wanted(method: str, path: str) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        status, answer = await fetch(client, method, path, msgspec.to_builtins(HELLO))
    assert (status, answer["error"]["code"]) == (400, "id_wanted")
    assert sessions.kept == {"a": HELLO}


@pytest.mark.parametrize("session", ["", "x" * 257, "ü" * 129])
async def test_an_id_has_its_bounds(session: str) -> None:
    async with asking(keeping()[0]) as client:
        status, answer = await fetch(client, "GET", f"/api/sessions?id={quote(session)}")
    assert (status, answer["error"]["code"]) == (400, "id_invalid")


async def test_old_sessions_are_purged() -> None:
    operator, sessions = keeping(new=HELLO, old=conversation("x", changed_at_unix_s=NOW_UNIX_S - 7200))
    async with asking(operator) as client:
        assert await fetch(client, "POST", "/api/sessions/purge", {"older_than_s": 3600}) == (200, {"deleted": 1})
        assert list(sessions.kept) == ["new"]
        assert await fetch(client, "POST", "/api/sessions/purge", {"older_than_s": 0}) == (200, {"deleted": 1})
    assert sessions.kept == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"{", *({"older_than_s": value} for value in (-1, "1h", True, None)), {"older_than_s": 1, "id": "a"}],
)
async def test_a_purge_that_is_unclear_removes_nothing(body: object) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        status, answer = await fetch(client, "POST", "/api/sessions/purge", body)
    assert (status, answer["error"]["code"]) == (400, "purge_invalid")
    assert (sessions.purged_s, sessions.kept) == ([], {"a": HELLO})


async def test_what_was_shown_can_be_put_back() -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        _, shown = await fetch(client, "GET", "/api/sessions?id=a")
        sessions.kept = {"a": conversation("other")}
        assert (await fetch(client, "PUT", "/api/sessions?id=a", shown))[0] == 200
    assert sessions.kept == {"a": HELLO}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", {}, {"messages": []}, {"messages": "x"}, {"messages": [{}]}, {"messages": [{"speaker": "nobody"}]},
     {"messages": [{"speaker": "user", "parts": [{"kind": "film"}]}]}, b"[" * 100_000],
)  # fmt: skip
async def test_a_record_that_cannot_be_read_replaces_nothing(body: object) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        status, answer = await fetch(client, "PUT", "/api/sessions?id=a", body)
    assert (status, answer["error"]["code"]) == (400, "record_invalid")
    assert "; want a record as `understudy sessions export` writes it" in answer["error"]["message"]
    assert sessions.kept == {"a": HELLO}


async def test_a_record_may_be_larger_than_other_bodies_up_to_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, sessions = keeping()
    large = conversation("x" * 300_000)
    async with asking(operator) as client:
        assert (await fetch(client, "PUT", "/api/sessions?id=a", msgspec.to_builtins(large)))[0] == 200
        monkeypatch.setattr(sessions_api, "RECORD_BYTES_MAX", 200_000)
        status, answer = await fetch(client, "PUT", "/api/sessions?id=b", msgspec.to_builtins(large))
        assert (status, answer["error"]["code"]) == (413, "record_too_large")
        assert (await fetch(client, "POST", "/api/sessions/purge", b" " * 100_000))[0] == 413
    assert list(sessions.kept) == ["a"]


async def test_a_record_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_api, "RECORD_S_MAX", 0.01)

    async def first_half() -> AsyncIterator[bytes]:
        yield b'{"messages":'
        await answered.wait()

    operator, sessions = keeping()
    answered = asyncio.Event()
    async with asking(operator) as client:
        url = client._base_url
        assert url is not None
        async with client.put(url.with_path("/api/sessions").with_query(id="a"), data=first_half()) as response:
            assert response.status == 408
            answered.set()
    assert sessions.kept == {}


CALLS = [
    ("GET", "/api/sessions", None),
    ("GET", "/api/sessions/a", None),
    ("GET", "/api/sessions?id=a", None),
    ("DELETE", "/api/sessions/a", None),
    ("DELETE", "/api/sessions?id=a", None),
    ("POST", "/api/sessions/purge", {"older_than_s": 0}),
    ("PUT", "/api/sessions?id=a", msgspec.to_builtins(HELLO)),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_without_a_store_there_is_nothing(method: str, path: str, body: object) -> None:
    async with asking(StageOperator()) as client:
        assert await fetch(client, method, path, body) == (
            404,
            {"error": {"code": "no_store", "message": "no conversations are kept: sessions.store is none"}},
        )


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_a_store_that_fails_says_why(method: str, path: str, body: object) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        sessions.fault = StoreError(Loss.UNAVAILABLE, "cache:6379: connection refused")
        error = {"code": "store_unavailable", "message": "cache:6379: connection refused"}
        assert await fetch(client, method, path, body) == (503, {"error": error})
        sessions.fault = StoreError(Loss.SLOW)
        error = {"code": "store_slow", "message": "the session store: slow"}
        assert await fetch(client, method, path, body) == (503, {"error": error})


@pytest.mark.parametrize("outcome", [HeldElsewhere(), Conflict(None)])
async def test_a_session_that_others_change_is_not_changed_now(outcome: Exception) -> None:
    operator, sessions = keeping(a=HELLO)
    sessions.fault = outcome
    async with asking(operator) as client:
        status, answer = await fetch(client, "PUT", "/api/sessions?id=a", msgspec.to_builtins(HELLO))
    assert (status, answer["error"]["code"]) == (409, "session_held")


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_the_token_is_asked_for_before_all_else(method: str, path: str, body: object) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator, "s3cret") as client:
        assert (await fetch(client, method, path, body))[0] == 401
        assert (await fetch(client, method, path, body, headers={"Authorization": "Bearer s3cret"}))[0] == 200
    assert isinstance(sessions, StageSessions)


@pytest.mark.parametrize(("method", "path", "body"), [call for call in CALLS if call[0] != "GET"])
async def test_a_foreign_page_changes_nothing(method: str, path: str, body: object) -> None:
    operator, sessions = keeping(a=HELLO)
    async with asking(operator) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            status, answer = await fetch(client, method, path, body, headers=headers)
            assert (status, answer["error"]["code"]) == (403, "cross_site")
        assert (await fetch(client, method, path, body, headers={"Host": "evil.example"}))[0] == 403
    assert (sessions.kept, sessions.purged_s) == ({"a": HELLO}, [])


async def test_a_foreign_name_reads_nothing() -> None:
    operator, _ = keeping(a=HELLO)
    async with asking(operator) as client:
        assert (await fetch(client, "GET", "/api/sessions/a", headers={"Host": "evil.example"}))[0] == 403


async def test_the_pace_holds_for_sessions_too() -> None:
    operator, _ = keeping(a=HELLO)
    async with asking(operator, pace=Pace(per_s=0.001, burst=1, wait_s_max=0.01)) as client:
        assert (await fetch(client, "GET", "/api/sessions"))[0] == 200
        assert (await fetch(client, "DELETE", "/api/sessions/a"))[0] == 429


async def test_a_fault_of_ours_shows_nothing_of_a_conversation(caplog: pytest.LogCaptureFixture) -> None:
    operator, sessions = keeping(a=conversation("hunter2"))
    sessions.fault = RuntimeError("a bug")
    async with asking(operator) as client:
        assert (await fetch(client, "GET", "/api/sessions/a"))[0] == 500
    assert "hunter2" not in caplog.text


def test_a_record_that_is_written_reads_as_itself() -> None:
    assert msgspec.convert(msgspec.to_builtins(HELLO), Conversation) == HELLO
