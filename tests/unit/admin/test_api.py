"""The admin port's answers, asked over real sockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from support.admin_stage import REFUSED, StageOperator, listener
from understudy.admin.api import AGE_S_MAX, Sparing, make_app
from understudy.admin.feed import SUBSCRIBERS_MAX
from understudy.admin.guard import Guard, Pace
from understudy.admin.port import AdminPort
from understudy.config.reload import ReloadResult
from understudy.core.snapshot import Duty

TOKEN = {"Authorization": "Bearer s3cret"}


@asynccontextmanager
async def asking(operator: StageOperator, token: str = "", pace: Pace | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the admin port and a client of it; close both."""
    sock = listener()
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"
    port = AdminPort(make_app(operator, Guard(token, "127.0.0.1"), pace))
    await port.start(sock)
    try:
        async with aiohttp.ClientSession(base) as client:
            yield client
    finally:
        operator.feed.end()
        await port.stop()


async def fetch(client: aiohttp.ClientSession, path: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
    """Ask and return the status and the JSON."""
    async with client.request(method, path, **more) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


async def test_liveness_is_plain_text() -> None:
    async with asking(StageOperator()) as client, client.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "OK\n")


async def test_readiness_says_yes_and_no_with_the_facts() -> None:
    operator = StageOperator()
    async with asking(operator) as client:
        assert await fetch(client, "/readyz") == (200, {"ready": True, "usable": ["pi"], "stopping": False})
        operator.ready = False
        assert await fetch(client, "/readyz") == (503, {"ready": False, "usable": [], "stopping": False})


async def test_readiness_shows_strangers_the_verdict_only() -> None:
    async with asking(StageOperator(), "s3cret") as client:
        assert await fetch(client, "/readyz") == (200, {"ready": True})
        assert (await fetch(client, "/readyz", headers=TOKEN))[1]["usable"] == ["pi"]


async def test_status_is_the_operators() -> None:
    operator = StageOperator()
    async with asking(operator) as client:
        assert await fetch(client, "/api/status") == (200, operator.document)


async def test_metrics_are_prometheus_text() -> None:
    async with asking(StageOperator()) as client, client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.read() == b"understudy_waiting 0.0\n"


async def test_a_restart_is_asked_for_and_may_be_refused() -> None:
    operator = StageOperator()
    async with asking(operator) as client:
        assert await fetch(client, "/api/backends/pi/restart", "POST") == (200, {"name": "pi", "restarting": True})
        assert operator.restarted == ["pi"]
        operator.restart_refusal = "it is being restarted already"
        status, answer = await fetch(client, "/api/backends/pi/restart", "POST")
        assert (status, answer["error"]) == (
            409,
            {"code": "restart_refused", "message": "it is being restarted already"},
        )
        assert (await fetch(client, "/api/backends/gpu9/restart", "POST"))[0] == 404


@pytest.mark.parametrize(("verb", "duty"), [("drain", "draining"), ("ready", "ready"), ("maintenance", "maintenance")])
async def test_a_duty_is_set(verb: str, duty: str) -> None:
    operator = StageOperator()
    async with asking(operator) as client:
        assert await fetch(client, f"/api/backends/pi/{verb}", "POST") == (200, {"name": "pi", "duty": duty})
    assert operator.duties == {"pi": Duty(duty)}


async def test_a_backend_that_does_not_exist_is_named() -> None:
    async with asking(StageOperator()) as client:
        status, answer = await fetch(client, "/api/backends/gpu9/drain", "POST")
        assert (status, answer["error"]["code"]) == (404, "backend_unknown")
        assert "'gpu9'" in answer["error"]["message"]


async def test_a_reload_says_what_it_did() -> None:
    operator = StageOperator()
    operator.result = ReloadResult(ok=True, changed=("balance: fastest",), needs_restart=("listen",))
    async with asking(operator) as client:
        assert await fetch(client, "/api/reload", "POST") == (
            200,
            {"ok": True, "changed": ["balance: fastest"], "needs_restart": ["listen"], "mistakes": []},
        )


async def test_a_refused_reload_says_where_the_mistake_is() -> None:
    operator = StageOperator()
    operator.result = REFUSED
    async with asking(operator) as client:
        status, answer = await fetch(client, "/api/reload", "POST")
        assert (status, answer["ok"]) == (422, False)
        assert answer["mistakes"] == ["understudy.yaml:7:5: backends[1].url: found gpu1; want a URL"]


async def test_the_token_is_asked_for_and_taken() -> None:
    async with asking(StageOperator(), "s3cret") as client:
        async with client.get("/api/status") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="understudy"'
        assert (await fetch(client, "/api/status", headers=TOKEN))[0] == 200
        assert (await fetch(client, "/api/reload", "POST", headers={"Authorization": "Bearer x"}))[0] == 401


async def test_another_machines_name_is_refused() -> None:
    async with asking(StageOperator()) as client:
        status, answer = await fetch(client, "/api/status", headers={"Host": "evil.example"})
        assert (status, answer["error"]["code"]) == (403, "host_refused")


async def test_an_order_from_a_foreign_page_is_refused() -> None:
    operator = StageOperator()
    async with asking(operator) as client:
        status, _ = await fetch(client, "/api/backends/pi/drain", "POST", headers={"Origin": "https://evil.example"})
    assert status == 403
    assert operator.duties == {"pi": Duty.READY}


async def test_what_does_not_exist_and_what_is_not_possible_are_json() -> None:
    async with asking(StageOperator()) as client:
        assert await fetch(client, "/nothing") == (404, {"error": {"code": "not_found", "message": "there is no /nothing here"}})
        async with client.get("/api/reload") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert (await response.json())["error"]["code"] == "method_not_allowed"


async def test_a_fault_of_ours_is_told_and_the_port_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    operator = StageOperator()
    operator.bug = RuntimeError("a bug")
    async with asking(operator) as client:
        assert (await fetch(client, "/api/status"))[0] == 500
        operator.bug = None
        assert (await fetch(client, "/api/status"))[0] == 200
    assert "a bug" in caplog.text


async def test_the_first_page_lists_the_endpoints() -> None:
    async with asking(StageOperator()) as client, client.get("/") as response:
        assert response.content_type == "text/html"
        assert "POST /api/backends/{name}/drain" in await response.text()


async def test_the_document_is_served() -> None:
    async with asking(StageOperator()) as client:
        assert (await fetch(client, "/api/openapi.json"))[1]["openapi"] == "3.1.0"


async def test_events_reach_a_listener_as_they_happen() -> None:
    operator = StageOperator()
    async with asking(operator) as client, client.get("/api/events") as response:
        assert response.content_type == "text/event-stream"
        assert await response.content.readline() == b": understudy events\n"
        operator.feed.tell("backend.went_down", {"backend": "pi"})
        lines = [await response.content.readline() for _ in range(4)]
        assert lines[2] == b"event: backend.went_down\n"
        assert b'"backend":"pi"' in lines[3]


async def test_the_end_of_the_feed_ends_the_stream() -> None:
    operator = StageOperator()
    async with asking(operator) as client, client.get("/api/events") as response:
        await response.content.readline()
        operator.feed.end()
        assert (await response.content.read()).endswith(b"retry: 2000\n\n")


async def test_too_many_listeners_are_refused() -> None:
    operator = StageOperator()
    held = [operator.feed.subscribe() for _ in range(SUBSCRIBERS_MAX)]
    async with asking(operator) as client:
        assert (await fetch(client, "/api/events"))[0] == 503
    assert all(held)


async def test_requests_beyond_the_pace_are_refused() -> None:
    async with asking(StageOperator(), pace=Pace(per_s=0.001, burst=1, wait_s_max=0.01)) as client:
        assert (await fetch(client, "/api/status"))[0] == 200
        assert (await fetch(client, "/api/status"))[0] == 429


def test_a_costly_answer_is_not_made_for_everybody() -> None:
    """Making it takes 2 ms; at a share of 5 % it is made every 40 ms."""
    now_s, made = 100.0, 0

    def make() -> bytes:
        nonlocal now_s, made
        now_s, made = now_s + 0.002, made + 1
        return b"%d" % made

    answer = Sparing(make, lambda: now_s)
    assert [answer(), answer(), answer()] == [b"1"] * 3
    now_s += 0.041
    assert answer() == b"2"


def test_no_answer_is_older_than_its_bound() -> None:
    now_s, took_s = 100.0, 5.0

    def make() -> bytes:
        nonlocal now_s
        now_s += took_s
        return b"%f" % now_s

    answer = Sparing(make, lambda: now_s)
    first = answer()
    now_s += AGE_S_MAX
    assert answer() != first
