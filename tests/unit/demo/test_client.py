"""The demo's client reads answers and seams as they come, and takes nothing for whole that is not."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from understudy.demo.children import DemoError
from understudy.demo.client import Client, Reading, Seam, Told


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
    assert (told.text, told.backend, told.attempts) == (" good evening", "pi", 2)
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


def event(words: str, **head: object) -> str:
    """Write one line of a stream."""
    return "data: " + json.dumps({"id": "a", "choices": [{"delta": {"content": words}}], **head})


def test_a_seam_is_noted_with_its_place_its_backend_and_the_silence() -> None:
    reading = Reading(started_at_s=1.0)
    reading.read(event("good"), 2.0)
    reading.read(": understudy resumed on laptop after 4 characters", 2.4)
    reading.read("", 2.4)
    assert reading.seams == []
    reading.read(event(" evening"), 2.5)
    reading.read(event(" all"), 3.0)
    assert (reading.text, reading.pieces, reading.seams) == ("good evening all", 3, [Seam("laptop", 4, 0.5)])


def test_other_comments_are_no_seams() -> None:
    reading = Reading(started_at_s=0.0)
    for line in (":", ": keep-alive", ": understudy waits"):
        reading.read(line, 1.0)
    reading.read(event("good"), 2.0)
    assert reading.seams == []


def test_a_seam_elsewhere_than_the_daemon_says_ends_the_demo() -> None:
    reading = Reading(started_at_s=0.0)
    reading.read(event("good"), 1.0)
    with pytest.raises(DemoError, match="after 5 characters was told where the client has 4"):
        reading.read(": understudy resumed on laptop after 5 characters", 1.0)


@pytest.mark.parametrize("head", [{"id": "b"}, {"created": 7}, {"model": "other"}])
def test_an_answer_that_becomes_another_one_ends_the_demo(head: dict[str, object]) -> None:
    reading = Reading(started_at_s=0.0)
    reading.read(event("good"), 1.0)
    with pytest.raises(DemoError, match="became another one"):
        reading.read(event(" evening", **head), 2.0)


async def test_whoever_asks_is_told_of_every_piece_as_it_comes(answering: tuple[Answering, int]) -> None:
    server, port = answering
    server.body = stream({"choices": [{"delta": {"role": "assistant"}}]}, WORDS, WORDS, {"choices": []})
    heard: list[int] = []
    client = Client(port, port)
    try:
        await asyncio.to_thread(client.ask, "who?", heard.append)
    finally:
        client.close()
    assert heard == [1, 2]
