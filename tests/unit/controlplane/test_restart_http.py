"""Plays of hooks over real sockets."""

import asyncio
import json
import socket

import pytest
from aiohttp import web

from support.answers import head_bytes
from support.asked import AskedServer, Reply, reply
from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_http import ANSWER_BYTES_MAX, restart_by_hook


async def posted(answer: Reply, *, timeout_s: float = 10.0) -> MeansOutcome:
    async with AskedServer({"/hook?token=secret": answer}) as server:
        outcome = await restart_by_hook(f"http://127.0.0.1:{server.port}/hook?token=secret", "gpu0", timeout_s)
        assert "secret" not in outcome.words
        assert len(server.asked) == 1
        return outcome


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_2xx_means_that_it_is_done(status: int) -> None:
    assert await posted(reply(b"", status)) == MeansOutcome(is_done=True)


@pytest.mark.parametrize("status", [301, 307, 404, 500])
async def test_any_other_answer_is_a_failure_and_a_redirect_is_not_followed(status: int) -> None:
    outcome = await posted(reply(b"no\x1b[31m such\nmachine", status, Location="/elsewhere"))
    assert (outcome.is_done, outcome.words) == (False, f"the hook answered {status}; want 2xx")
    assert outcome.output == ("no such", "machine")


async def test_the_hook_gets_the_backends_name_and_the_user_of_the_url() -> None:
    asked: list[tuple[str, str, object]] = []

    async def hook(request: web.Request) -> web.Response:
        asked.append((request.method, request.headers.get("authorization", ""), json.loads(await request.text())))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    outcome = await restart_by_hook(f"http://me:secret@127.0.0.1:{port}/hook", "gpu0", 10.0)
    await runner.cleanup()
    assert outcome.is_done
    assert asked == [("POST", "Basic bWU6c2VjcmV0", {"backend": "gpu0"})]


async def test_a_hook_that_does_not_answer_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    outcome = await posted(hang, timeout_s=0.1)
    assert outcome.words == "the hook gave no answer within 0.1s"


async def test_an_answer_without_end_is_read_to_a_bound() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(head_bytes(200, {"Content-Length": str(1 << 40)}))
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    outcome = await posted(flood)
    assert outcome.is_done
    # What was read, and what stood in buffers on the way.
    assert sent < ANSWER_BYTES_MAX + 16 * 1024 * 1024


async def test_a_hook_that_breaks_off_is_no_success() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")

    assert not (await posted(cut)).is_done


async def test_a_hook_that_speaks_no_http_is_no_success() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n\r\n")

    assert not (await posted(say)).is_done


async def test_a_hook_that_nobody_answers_at_refuses() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await restart_by_hook(f"http://127.0.0.1:{unused.getsockname()[1]}/secret", "gpu0", 10.0)
    assert outcome.words == "the hook refused the connection"


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await posted(reply())).is_done


@pytest.mark.parametrize(
    "url", ["", "hook", "ftp://secret/", "http://", "http://secret:port/", "http://[secret/", "http://xn--/secret"]
)
async def test_what_is_no_url_is_said_in_words_without_it(url: str) -> None:
    outcome = await restart_by_hook(url, "gpu0", 10.0)
    assert not outcome.is_done
    assert outcome.words.startswith("the hook")
    assert "secret" not in outcome.words
