"""Questions for a token over real sockets: what is sent, what comes back, and what is said of no answer."""

import asyncio
import json
import socket
import time
from collections.abc import Generator

from support.asked import AskedServer, reply
from understudy.controlplane.token_sender import READ_BYTES_MAX, Sent, TokenSender
from understudy.core.snapshot import Address, Backend, Timeouts
from understudy.engines.contract import ProbeAnswer
from understudy.engines.token_probe import TokenRequest

BODY = json.dumps({"max_tokens": 1}).encode()


def asking(*requests: TokenRequest) -> Generator[TokenRequest, ProbeAnswer | None, list[ProbeAnswer | None]]:
    answers: list[ProbeAnswer | None] = [None] * len(requests)
    for at, request in enumerate(requests):
        answers[at] = yield request
    return answers


def backend(port: int, host: str = "127.0.0.1", key: str = "") -> Backend:
    return Backend("b", Address("http", host, port, "/up"), api_key=key, timeouts=Timeouts(connect_s=1.0))


async def took_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the body that came."""
    writer.write(reply(await reader.readexactly(len(BODY))))
    await writer.drain()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(len(BODY))
    await reader.read()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(BODY))
    writer.write(reply(b"x" * 100)[:-50])
    await writer.drain()


async def test_questions_are_sent_in_order_with_the_backends_prefix_and_key() -> None:
    async with AskedServer({"/up/api/ps": reply({"models": []}), "/up/api/chat": took_body}) as server:
        questions = asking(TokenRequest("/api/ps"), TokenRequest("/api/chat", BODY))
        (ps, chat), sent = await TokenSender().fetch(backend(server.port, key="ours"), questions, 10.0)
    assert ps is not None
    assert chat is not None
    assert (ps.status, chat.status, chat.body) == (200, 200, BODY)
    head = server.heads[1].decode().lower()
    assert head.startswith("post /up/api/chat ")
    assert "authorization: bearer ours" in head
    assert "content-type: application/json" in head
    assert (sent.reason, sent.is_reached) == ("", True)
    assert 0.0 < sent.posted_s < 10.0


async def test_an_engine_that_hangs_costs_the_bound_and_no_more() -> None:
    began_at_s = time.monotonic()
    async with AskedServer({"/up/x": hang}) as server:
        answers, sent = await TokenSender().fetch(backend(server.port), asking(TokenRequest("/x", BODY), TokenRequest("/x")), 0.2)
    assert answers == [None, None]
    assert sent == Sent("no token within 0.2s")
    assert time.monotonic() - began_at_s < 5.0


async def test_an_answer_that_breaks_off_is_none() -> None:
    async with AskedServer({"/up/x": break_off}) as server:
        answers, sent = await TokenSender().fetch(backend(server.port), asking(TokenRequest("/x", BODY)), 10.0)
    assert (answers, sent) == ([None], Sent("broke off in the middle of its answer"))


async def test_no_more_is_read_than_tells_something() -> None:
    async with AskedServer({"/up/x": reply(b"x" * (3 * READ_BYTES_MAX))}) as server:
        (answer,), _ = await TokenSender().fetch(backend(server.port), asking(TokenRequest("/x")), 10.0)
    assert answer is not None
    assert READ_BYTES_MAX <= len(answer.body) < 2 * READ_BYTES_MAX


async def test_where_nobody_listens_that_is_said() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        answers, sent = await TokenSender().fetch(backend(port), asking(TokenRequest("/x", BODY)), 10.0)
    assert (answers, sent) == ([None], Sent("refused the connection", is_reached=False))


async def test_a_name_that_does_not_resolve_is_said() -> None:
    async def resolve(host: str) -> tuple[str, ...]:
        raise socket.gaierror(socket.EAI_NONAME, host)

    answers, sent = await TokenSender(resolve).fetch(backend(1, "gpu.invalid"), asking(TokenRequest("/x")), 10.0)
    assert (answers, sent) == ([None], Sent("has a name that does not resolve", is_reached=False))


async def test_of_several_addresses_one_that_accepts_is_found() -> None:
    async def resolve(host: str) -> tuple[str, ...]:
        return "127.0.0.2", "127.0.0.1"

    async with AskedServer({"/up/x": reply(b"yes")}) as server:
        (answer,), _ = await TokenSender(resolve).fetch(backend(server.port, "gpu.invalid"), asking(TokenRequest("/x")), 10.0)
    assert answer is not None
    assert answer.body == b"yes"
