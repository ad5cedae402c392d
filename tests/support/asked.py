"""A server on a free port of the play's own loop: it answers by path and notes what was asked, for plays of single fetches."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from support.answers import body_bytes, head_bytes

# Bytes of a whole answer, or what to do with the connection once a request's head is read.
Reply = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(value: object = b"", status: int = 200, **headers: str) -> bytes:
    """Make the bytes of a whole answer."""
    body = body_bytes(value)
    return head_bytes(status, {"Content-Length": str(len(body)), **headers}) + body


class AskedServer:
    """Answers GET requests by `answers`; paths without an entry get 404. Use as an async context manager."""

    def __init__(self, answers: dict[str, Reply] | None = None) -> None:
        self.answers = answers if answers is not None else {}
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.at_once_most = 0
        self.port = 0
        self._at_once = 0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()

    async def wait_asked(self, count: int) -> None:
        """Return when at least `count` requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.asked) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self._at_once += 1
            self.at_once_most = max(self.at_once_most, self._at_once)
            path = head.split(b" ", 2)[1].decode()
            async with self._changed:
                self.heads.append(head)
                self.asked.append(path)
                self._changed.notify_all()
            answer = self.answers.get(path, reply({"detail": "Not Found"}, 404))
            if callable(answer):
                await answer(reader, writer)
            else:
                writer.write(answer)
                await writer.drain()
            self._at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
