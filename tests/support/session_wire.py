"""What stands in requests, answers and the admin port's records of conversations, read back as support.session_model's messages.

Requests are read alike whether a client wrote them or the daemon gave them to an engine. Asked by support.session_play and its
neighbours. Pure; strict: what is no message of its dialect fails the play.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from support.session_model import GAP, Asked, Call, Kept, Merged, Said, match
from support.wire import Reply

CHAT, OLLAMA, MESSAGES, TEXT, GENERATE = (
    "/v1/chat/completions",
    "/api/chat",
    "/v1/messages",
    "/v1/completions",
    "/api/generate",
)


@dataclass(frozen=True, slots=True)
class View:
    """What an engine is given. `system` where it stands apart from the messages; `lines` one a message; `prompt` of a text."""

    path: str
    system: str = ""
    lines: tuple[str, ...] = ()
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer as its client has it. `is_ended`: it has seen the end. `has_more`: it was told reasoning, or why it finished.

    `is_malformed`: some event of it is none, so that nobody can tell what was said.
    """

    said: Said
    is_ended: bool
    has_more: bool = False
    is_malformed: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether the client has nothing of it."""
        return self.said.is_nothing and not self.has_more


# --- requests


def read_request(path: str, body: Mapping[str, Any], *, mode: str = "", is_reset: bool = False) -> Asked:
    """Read a request of any of the five paths."""
    if path in (TEXT, GENERATE):
        is_raw = path == TEXT or bool(body.get("raw"))
        system = (Said("system", body["system"]),) if body.get("system") else ()
        asked = (Said("user", body["prompt"], is_raw=is_raw),)
        return Asked(system, asked, "raw" if is_raw else "prompt", mode, is_reset, bool(body.get("context")))
    messages = [said for message in body["messages"] for said in _messages(message)]
    if path == MESSAGES:
        system = (Said("system", flat(body["system"])),) if body.get("system") else ()
        return Asked(system, tuple(messages), "chat", mode, is_reset)
    leading = next((at for at, said in enumerate(messages) if said.speaker != "system"), len(messages))
    return Asked(tuple(messages[:leading]), tuple(messages[leading:]), "chat", mode, is_reset)


def flat(content: Any) -> str:
    """Return the text of a content, whatever its form."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def _messages(message: Mapping[str, Any]) -> list[Said]:
    """Read one message of any chat; Anthropic's may hold results of tools and a text."""
    role, content = message["role"], message.get("content")
    blocks = content if isinstance(content, list) else []
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    calls += [Call(block["name"], spelled(block["input"]), block["id"]) for block in blocks if block["type"] == "tool_use"]
    results = [block for block in blocks if block["type"] == "tool_result"]
    found = [Said("tool", flat(block.get("content")), answers=block["tool_use_id"]) for block in results]
    if role == "tool":
        name = message.get("tool_name") or message.get("name") or ""
        return [Said("tool", flat(content), answers=message.get("tool_call_id") or "", tool=name)]
    if len(blocks) > len(results) or not results:
        found.append(Said("system" if role == "developer" else role, flat(content), tuple(calls)))
    return found


def _call(value: Mapping[str, Any]) -> Call:
    function = value["function"]
    return Call(function["name"], spelled(function["arguments"]), value.get("id") or "")


def spelled(arguments: Any) -> str:
    """Write arguments, a JSON text or a value, in the one spelling of the model."""
    value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return json.dumps(value, sort_keys=True)


# --- what an engine is given


def lines(messages: Sequence[Said]) -> list[str]:
    """Write messages so that what must be equal is: of ids only which call of the message before a result answers."""
    written: list[str] = []
    calls: tuple[Call, ...] = ()
    at = 0
    while at < len(messages):
        said = messages[at]
        if said.speaker != "tool":
            calls = said.calls
            told = "".join(f" [{call.name}({call.arguments})]" for call in calls)
            written.append(f"{said.speaker}: {said.text!r}{told}")
            at += 1
            continue
        end = at
        while end < len(messages) and messages[end].speaker == "tool":
            end += 1
        results = messages[at:end]
        for result, place in zip(results, match(calls, results), strict=True):
            written.append(f"tool, call {place}: {result.text!r}")
        at = end
    return written


def given(path: str, body: Mapping[str, Any]) -> View:
    """Return what an engine was given."""
    asked = read_request(path, body)
    if asked.form != "chat":
        return View(path, flat(body.get("system")), prompt=asked.messages[0].text)
    if path == MESSAGES:
        return View(path, flat(body.get("system")), tuple(lines(asked.messages)))
    return View(path, lines=tuple(lines((*asked.system, *asked.messages))))


def wanted(path: str, asked: Asked, merged: Merged) -> View:
    """Return what an engine must be given."""
    system = GAP.join(said.text for said in merged.system)
    if asked.form != "chat":
        return View(path, "" if asked.form == "raw" else system, prompt=merged.prompt)
    if path != MESSAGES:
        return View(path, lines=tuple(lines((*merged.system, *merged.before, *asked.messages))))
    # Its API has no place for system messages between the others, nor for messages and texts without anything but white space.
    later = [said.text for said in merged.before if said.speaker == "system"]
    before = [replace(said, text=said.text if said.text.strip() else "") for said in merged.before if said.speaker != "system"]
    before = [said for said in before if not said.is_nothing or said.speaker == "tool"]
    return View(path, GAP.join(filter(None, (system, *later))), tuple(lines((*before, *asked.messages))))


def own_messages(path: str, body: Mapping[str, Any]) -> list[bytes]:
    """Return the bytes of the messages that a client sends, leading system messages left out, as support.wire writes them."""
    messages = [] if path in (TEXT, GENERATE) else list(body["messages"])
    while path != MESSAGES and messages and messages[0]["role"] in ("system", "developer"):
        del messages[0]
    return [json.dumps(message).encode() for message in messages]


# --- answers


def read_reply(reply: Reply) -> Heard:
    """Read an answer, streamed or whole, as far as it came."""
    is_stream = reply.head.get("Content-Type").startswith(("text/event-stream", "application/x-ndjson"))
    heard = read_body(reply.body, is_stream=is_stream)
    return replace(heard, is_ended=heard.is_ended and not reply.is_cut)


def read_body(body: bytes, *, is_stream: bool) -> Heard:
    """Read an answer's body; half events at its end are not read."""
    said = _Answer()
    if not is_stream:
        said.is_ended = True
        said.add(json.loads(body))
        return said.heard()
    end = body.rfind(b"\n") + 1
    for raw in body[:end].split(b"\n"):
        payload = raw.removeprefix(b"data:").strip()
        said.is_ended |= payload == b"[DONE]"
        if payload.startswith(b"{"):
            try:
                said.add(json.loads(payload))
            except ValueError:
                said.is_malformed = True
    return said.heard()


class _Answer:
    """An answer that is being read. Calls by their place, each with its name, its id and the pieces of its arguments."""

    def __init__(self) -> None:
        self.is_ended = False
        self.is_malformed = False
        self._text = ""
        self._has_more = False
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event of a stream, or the whole body."""
        for choice in event.get("choices") or ():
            self._has_more |= bool(choice.get("finish_reason"))
            self._take(choice.get("delta") or choice.get("message") or {"content": choice.get("text")})
        if "done" in event:
            self.is_ended |= bool(event["done"])
            self._take(event.get("message") or {"content": event.get("response"), "thinking": event.get("thinking")})
        self._has_more |= bool(
            event.get("done_reason") or event.get("stop_reason") or (event.get("delta") or {}).get("stop_reason")
        )
        kind = event.get("type")
        self.is_ended |= kind == "message_stop"
        if kind == "message":
            for block in event["content"]:
                self._text += block.get("text", "")
        if kind == "content_block_delta":
            self._text += event["delta"].get("text", "")

    def _take(self, message: Mapping[str, Any]) -> None:
        self._text += message.get("content") or ""
        self._has_more |= bool(message.get("reasoning") or message.get("thinking"))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            draft = self._calls.setdefault(call.get("index", len(self._calls)), {"name": "", "id": "", "arguments": ""})
            draft["name"] += function.get("name") or ""
            draft["id"] += call.get("id") or ""
            arguments = function.get("arguments", "")
            draft["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def heard(self) -> Heard:
        """Return what has come; a call that lacks some of its arguments is none."""
        calls = tuple(
            Call(draft["name"], spelled(draft["arguments"]), draft["id"])
            for draft in self._calls.values()
            if _is_object(draft["arguments"])
        )
        return Heard(Said("assistant", self._text, calls), self.is_ended, self._has_more, self.is_malformed)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def loss_told(reply: Reply) -> str:
    """Return why a turn was not kept, as the answer tells it in its head or in a comment before its last event; "" where not."""
    mark = b": understudy session not kept: "
    if mark in reply.body:
        return reply.body.partition(mark)[2].partition(b"\n")[0].decode()
    return reply.head.get("X-Understudy-Session-Loss")


# --- records of the admin port


def read_record(messages: Iterable[Mapping[str, Any]]) -> list[Said]:
    """Read messages as the admin port shows them."""
    found = []
    for message in messages:
        calls = tuple(
            Call(call["name"], spelled(call.get("arguments", "{}")), call.get("id", "")) for call in message.get("calls", ())
        )
        found.append(
            Said(
                message["speaker"],
                flat(message.get("parts", ())),
                calls,
                message.get("call_id", ""),
                message.get("name", ""),
                message.get("mark", "whole"),
                message.get("is_raw", False),
            )
        )
    return found


def record_lines(record: Mapping[str, Any] | None) -> list[str]:
    """Write what the admin port shows of a session as it is compared with `kept_lines`."""
    if record is None:
        return []
    messages = read_record(record["messages"])
    return _kept_lines(record["revision"], read_record(record.get("system", ())), messages)


def kept_lines(kept: Kept) -> list[str]:
    """Write what the model has of a session as it is compared with `record_lines`."""
    return _kept_lines(kept.revision, kept.system, kept.messages) if kept.messages else []


def _kept_lines(revision: int, system: Sequence[Said], messages: Sequence[Said]) -> list[str]:
    marks = [said.mark for said in messages if said.speaker == "assistant"]
    return [f"revision {revision}", *lines(system), *lines(messages), f"{marks}"]
