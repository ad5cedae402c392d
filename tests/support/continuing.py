"""Engines that are asked to go on with a broken answer, for plays of the data plane in memory.

`until_asked` answers the questions that come before (llama.cpp's, vLLM's and Ollama's alike) as a template would that keeps an
open assistant's message as it is; each character is one token. What is generated then the play says byte by byte.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from support.answers import chunk, head_bytes, sse, stream_head
from support.stage import OPENING, Stage, chat, delta
from support.targets import UP, target
from support.transports import MemoryTransport, settle
from understudy.core.snapshot import EngineKind, Target

LLAMA = replace(UP, engine=EngineKind.LLAMACPP)
OLLAMA = replace(UP, engine=EngineKind.OLLAMA)
BEGUN = stream_head() + chunk(OPENING + delta("Hel"))
QUESTIONS = ("/apply-template", "/tokenize", "/detokenize")
QUESTIONS_MAX = 16


@dataclass(frozen=True, slots=True)
class Request:
    """One request as an engine gets it. `head` in lower case; `body` {} where it is no JSON."""

    path: str
    head: bytes
    body: dict[str, Any]

    @property
    def is_question(self) -> bool:
        """Whether it generates nothing."""
        return self.path in QUESTIONS or "_debug_render_only" in self.body

    @property
    def partial(self) -> str:
        """The text that is to be gone on with, the last message's."""
        return str(self.body["messages"][-1]["content"])


def llamas(count: int) -> tuple[Target, ...]:
    """Make gpu0, gpu1 and so on, all of them llama.cpp."""
    return tuple(target(number, LLAMA) for number in range(count))


def requests_of(data: bytes) -> list[Request]:
    """Read the requests that were written to an engine, one behind the other."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")[1:]
        length = next((int(field.partition(b":")[2]) for field in fields if field.startswith(b"content-length:")), 0)
        body, data = rest[:length], rest[length:]
        found.append(Request(head.split(b" ")[1].decode(), head.lower(), json.loads(body) if body[:1] == b"{" else {}))
    return found


def answered(value: Any, status: int = 200, **fields: str) -> bytes:
    """Write a whole answer of JSON."""
    body = json.dumps(value).encode()
    more = {name.replace("_", "-"): told for name, told in fields.items()}
    return head_bytes(status, {"Content-Type": "application/json", **more, "Content-Length": str(len(body))}) + body


def rendered(messages: list[dict[str, Any]]) -> str:
    """Render a chat as this engine's template does; an assistant's message at the end stays open."""
    text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
    return text if messages and messages[-1]["role"] == "assistant" else f"{text}<assistant>"


def told(request: Request) -> dict[str, Any]:
    """Return what the engine tells when it is asked a question."""
    body = request.body
    if request.path == "/detokenize":
        text = "".join(chr(token) for token in body["tokens"])
        return {"prompt": text, "content": text}
    if "_debug_render_only" in body:
        return {"_debug_info": {"rendered_template": rendered(body["messages"]) if "messages" in body else body["prompt"]}}
    text = rendered(body["messages"]) if "messages" in body else str(body.get("content", body.get("prompt")))
    return {"prompt": text, "tokens": [ord(character) for character in text], "count": len(text), "max_model_len": 4096}


def last_request(stage: Stage, number: int) -> Request:
    """Return the newest request on gpuN's last connection."""
    return requests_of(stage.engine(number).data)[-1]


async def until_asked(stage: Stage, number: int, *, closes: bool = False) -> Request:
    """Answer gpuN's questions until it is to generate; `closes`: each answer ends its connection."""
    for _ in range(QUESTIONS_MAX):
        request = last_request(stage, number)
        if not request.is_question:
            return request
        engine = stage.engine(number)
        engine.written.clear()
        engine.feed(answered(told(request), Connection="close" if closes else "keep-alive"))
        await settle()
    raise AssertionError("the questions do not end")


async def broken(stage: Stage, *fields: str, wire: bytes = BEGUN, is_gone: bool = False, **more: Any) -> MemoryTransport:
    """Ask for a chat that gpu0 begins and loses; what follows from that has happened. `is_gone`: it takes no connection more."""
    client = await stage.ask(chat(*fields, **more))
    await stage.say(0, wire)
    if is_gone:
        stage.network.failing[8000] = ConnectionRefusedError()
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    return client


def seam(number: int, characters: int) -> bytes:
    """Write the comment that tells where gpuN went on."""
    return b": understudy resumed on gpu%d after %d characters\n\n" % (number, characters)


def finish(reason: str = "stop") -> bytes:
    """Write the event of the end."""
    return sse({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def events_of(body: bytes) -> list[dict[str, Any]]:
    """Read the events of a stream, [DONE] and comments left out; AssertionError for half an event."""
    assert body.endswith(b"\n\n"), body[-80:]
    lines = [line for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line[6:]) for line in lines if line != b"data: [DONE]"]


def text_of(body: bytes) -> str:
    """Return the text that the events of a chat bring."""
    choices = [choice for event in events_of(body) for choice in event.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
