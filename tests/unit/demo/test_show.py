"""The demo's words, its file and its table; the whole show is played in tests/integration."""

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from understudy.config.load import load_text
from understudy.demo.children import DemoError
from understudy.demo.show import Client, Told, explain, file_text, table


def test_the_file_is_one_that_the_daemon_takes() -> None:
    settings = load_text(file_text([("pi", "http://127.0.0.1:1"), ("laptop", "http://127.0.0.1:2")]), {})
    assert [(backend.name, backend.role) for backend in settings.backends] == [("pi", "primary"), ("laptop", "backup")]
    assert settings.admin.listen.port == settings.listen[0].port == 0


def test_the_table_is_aligned_whatever_the_names() -> None:
    backends = [
        {"name": "pi", "role": "primary", "condition": "down", "reason": "refused the connection"},
        {"name": "a-long-name", "role": "backup", "condition": "warming", "reason": ""},
    ]
    lines = table(backends)
    assert len({line.index(word) for line, word in zip(lines, ("CONDITION", "down", "warming"), strict=True)}) == 1
    assert lines[1].endswith("refused the connection")
    assert lines[2].endswith("-")


@pytest.mark.parametrize(
    ("told", "is_killed", "words"),
    [
        (Told("", "pi", 1, 0.0, 0.0), False, "to pi, the primary"),
        (Told("", "laptop", 2, 0.0, 0.0), True, "tried pi, found nobody there, and had laptop answer"),
        (Told("", "laptop", 1, 0.0, 0.0), True, "knew already that pi is gone"),
    ],
)
def test_the_explanation_says_what_the_daemon_really_did(told: Told, is_killed: bool, words: str) -> None:
    assert words in explain(told, is_killed=is_killed)


class Answering:
    """A server on the loopback that answers every request with what `body` and `status` say."""

    def __init__(self) -> None:
        self.body, self.status = b"", 200

    async def answer(self, _request: web.Request) -> web.Response:
        """Answer one request."""
        headers = {"X-Understudy-Backend": "pi", "X-Understudy-Attempts": "2"}
        return web.Response(body=self.body, status=self.status, headers=headers)


@pytest.fixture
async def answering() -> AsyncIterator[tuple[Answering, int]]:
    """Run it; return it and its port."""
    server = Answering()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.answer)
    async with TestServer(app) as running:
        assert running.port is not None
        yield server, running.port


async def ask(port: int) -> Told:
    """Ask as the demo's client does, beside the loop that serves it."""
    import asyncio

    client = Client(port, port)
    try:
        return await asyncio.to_thread(client.ask, "who?")
    finally:
        client.close()


def stream(*events: object, done: bool = True) -> bytes:
    """Write an OpenAI stream."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return "".join(lines).encode()


WORDS = {"choices": [{"delta": {"content": " good evening"}}]}


async def test_an_answer_is_told_with_who_gave_it_after_how_many_attempts(answering: tuple[Answering, int]) -> None:
    server, port = answering
    server.body = stream({"choices": [{"delta": {"role": "assistant"}}]}, WORDS, {"choices": []})
    told = await ask(port)
    assert (told.text, told.backend, told.attempts) == ("good evening", "pi", 2)
    assert 0.0 < told.first_words_s <= told.all_words_s


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, b"nobody", "answered 503: nobody"),
        (200, stream(WORDS, done=False), "broke off"),
        (200, stream(WORDS, {"error": {"message": "lost it"}}), "broke off: lost it"),
    ],
)
async def test_what_is_no_whole_answer_ends_the_demo(
    answering: tuple[Answering, int], status: int, body: bytes, words: str
) -> None:
    server, port = answering
    server.status, server.body = status, body
    with pytest.raises(DemoError, match=words):
        await ask(port)
