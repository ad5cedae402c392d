"""The data plane in memory with a session store in memory: what engines are given, what is kept, what clients see."""

import json
from dataclasses import replace
from typing import Any

import pytest

from support.answers import head_bytes
from support.memory_store import MemoryStore
from support.stage import Stage, dechunk, request
from support.targets import targets
from support.transports import MemoryTransport, settle
from understudy.core.conversation import Conversation
from understudy.core.message import Message
from understudy.core.snapshot import FailoverRules, SessionRules, Target
from understudy.dataplane.turns import Turns
from understudy.sessions.keeper import Keeper

CHAT = "/v1/chat/completions"
WALL_S = 1_800_000_000.0


class SessionStage(Stage):
    """A stage whose conversations are kept in `store`; ended turns are in `events` as session.lost where they were."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *pool: Target,
        rules: SessionRules = SessionRules(is_on=True),  # noqa: B008  # frozen
        failover: FailoverRules = FailoverRules(hold_s=0.0),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(monkeypatch, *(pool or targets(1)), failover=failover)
        snapshot = self.published.current
        self.published.current = replace(snapshot, plan=replace(snapshot.plan, sessions=rules))
        self.store = MemoryStore()
        self.keeper = Keeper(self.store, clock=self.clock, wall=lambda: WALL_S, tell=self.tell)
        self.turns = self.relay.turns = Turns(
            self.keeper, self.published, wall=lambda: WALL_S, tell=self.tell, report=self.report
        )

    async def say_to(self, session: str, *texts: str, stream: bool = True, path: str = CHAT, **more: Any) -> MemoryTransport:
        """Connect a client that asks with these user messages in `session`; header fields go by `fields`."""
        fields = [f"X-Session-ID: {session}", *more.pop("fields", ())]
        body = {"model": "qwen", "stream": stream, "messages": [{"role": "user", "content": text} for text in texts], **more}
        return await self.ask(request("POST", path, json.dumps(body).encode(), *fields))

    def asked(self, number: int = 0, nth: int = -1) -> dict[str, Any]:
        """Return the JSON that gpuN was sent last, on its nth connection."""
        data = self.engine(number, nth).data
        body = data[data.rindex(b"POST ") :].partition(b"\r\n\r\n")[2]
        value: dict[str, Any] = json.loads(body)
        return value

    def given(self, number: int = 0, nth: int = -1) -> list[str]:
        """Return "role: content" of the messages that gpuN was given last."""
        return [f"{message['role']}: {message['content']}" for message in self.asked(number, nth)["messages"]]

    def kept(self, session: str) -> list[str]:
        """Return "speaker: text" of what is kept, marks told."""
        conversation = self.store.kept.get(session, Conversation())
        return [told(message) for message in (*conversation.system, *conversation.messages)]


def told(message: Message) -> str:
    """Write a message as plays compare it."""
    mark = "" if message.mark == "whole" else f" ({message.mark})"
    return f"{message.speaker}: {message.text}{mark}"


def whole(text: str, **more: Any) -> bytes:
    """Write an answer to a chat that is no stream."""
    message = {"role": "assistant", "content": text}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}).encode()
    return head_bytes(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body


def head_of(client: MemoryTransport) -> dict[str, str]:
    """Return the fields of the client's last answer, names in lower case."""
    head = client.data[client.data.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")[0].decode()
    return {name.lower(): value for name, _, value in (field.partition(": ") for field in head.split("\r\n")[1:])}


def is_ended(client: MemoryTransport) -> bool:
    """Whether the last chunk of a streamed answer has come."""
    return dechunk(client.data)[2]


async def later() -> None:
    """Let everything happen that can."""
    for _ in range(4):
        await settle()
