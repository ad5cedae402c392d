"""What a client can tell of a streamed answer: that it is whole and one single answer, or that it broke off, honestly.

Reads any dialect. `whole_story` fails the play when a stream shows that two backends wrote it, but for the seams it owns up to.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from support.wire import Reply, said

SEAM = re.compile(rb"^: understudy resumed on (\S+) after (\d+) characters$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Story:
    """A whole answer. `seams`: (backend, characters before it); `usage` as the dialect counts, {} when it does not."""

    text: str
    finish: str
    seams: tuple[tuple[str, int], ...]
    usage: dict[str, int]
    events: tuple[dict[str, Any], ...]


def whole_story(reply: Reply) -> Story:
    """Read a whole answer; AssertionError when it is cut, has an error, a second head, finish, role or identity."""
    assert reply.status == 200, reply
    assert not reply.is_cut, f"cut: {reply.body[-600:]!r}"
    assert b"derailed" not in reply.body, reply.body[-600:]
    if "ndjson" in reply.head.get("Content-Type"):
        return _ndjson_story(reply)
    events, seams = _events(reply.body)
    assert not [event for event in events if "error" in event], events[-1]
    if events[0].get("type") == "message_start":
        return _anthropic_story(reply, events, seams)
    return _openai_story(reply, events, seams)


def _events(body: bytes) -> tuple[list[dict[str, Any]], tuple[tuple[str, int], ...]]:
    *blocks, rest = body.split(b"\n\n")
    assert rest == b"", f"half an event at the end: {rest!r}"
    datas = [line[6:] for block in blocks for line in block.split(b"\n") if line.startswith(b"data: ")]
    seams = tuple((name.decode(), int(count)) for name, count in SEAM.findall(body))
    return [json.loads(data) for data in datas if data != b"[DONE]"], seams


def _openai_story(reply: Reply, events: list[dict[str, Any]], seams: tuple[tuple[str, int], ...]) -> Story:
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert reply.body.count(b"[DONE]") == 1
    # llama.cpp stamps each event with the second it is written in.
    is_llamacpp = str(events[0].get("system_fingerprint")).startswith("b")
    for name in ("id", "model", "object", *(() if is_llamacpp else ("created",))):
        values = {json.dumps(event.get(name)) for event in events}
        assert len(values) == 1, f"{name} changes: {values}"
    choices = [choice for event in events for choice in event["choices"]]
    assert {choice["index"] for choice in choices} == {0}
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(finishes) == 1, finishes
    roles = [choice["delta"].get("role") for choice in choices if "delta" in choice]
    is_ollama = events[0].get("system_fingerprint") == "fp_ollama"  # which repeats the role in every chunk
    assert is_ollama or len([role for role in roles if role]) == (1 if roles else 0), roles
    leaked = [
        key
        for event in events
        for part in (event, *event["choices"])
        for key in ("token_ids", "prompt_token_ids")
        if part.get(key)
    ]
    assert not leaked, leaked
    usages = [event["usage"] for event in events if event.get("usage")]
    usage = {key: value for key, value in (usages[-1] if usages else {}).items() if key.endswith("_tokens")}
    return Story(said(reply.body), finishes[0], seams, usage, tuple(events))


def _anthropic_story(reply: Reply, events: list[dict[str, Any]], seams: tuple[tuple[str, int], ...]) -> Story:
    kinds = [event["type"] for event in events]
    order = [kind for kind in kinds if kind not in ("content_block_delta", "ping")]
    expected = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    assert order == expected, order
    assert {event["index"] for event in events if "index" in event} == {0}
    usage = {key: value for key, value in events[-2]["usage"].items() if key.endswith("_tokens")}
    return Story(said(reply.body), events[-2]["delta"]["stop_reason"], seams, usage, tuple(events))


def _ndjson_story(reply: Reply) -> Story:
    assert reply.body.endswith(b"\n")
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line.get("done") for line in lines] == [False] * (len(lines) - 1) + [True], lines[-1]
    assert len({line["model"] for line in lines}) == 1
    seams = tuple(
        (seam["backend"], seam["after_characters"]) for seam in (line.get("understudy_resumed") for line in lines) if seam
    )
    usage = {key: lines[-1][key] for key in ("prompt_eval_count", "eval_count")}
    return Story(said(reply.body), lines[-1]["done_reason"], seams, usage, tuple(lines))


def honest_end(reply: Reply) -> str:
    """Return the text of an answer that broke off and says so: an error event, nothing like an end, connection closed."""
    assert reply.status == 200, reply
    assert b"derailed" not in reply.body, reply.body[-600:]
    assert reply.is_cut, f"not cut: {reply.body[-600:]!r}"
    assert b"[DONE]" not in reply.body
    if "ndjson" in reply.head.get("Content-Type"):
        lines = [json.loads(line) for line in reply.body.splitlines()]
        assert "error" in lines[-1], lines[-1]
        assert not any(line.get("done") for line in lines)
        return said(b"\n".join(reply.body.splitlines()[:-1]))
    events, _ = _events(reply.body)
    assert [event for event in events if "error" in event] == [events[-1]], events[-2:]
    if events[-1].get("type") != "error":
        assert events[-1]["error"]["code"] == "stream_interrupted", events[-1]
    assert b"message_stop" not in reply.body
    return said(reply.body)
