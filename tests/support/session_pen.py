"""Write a client's messages in any dialect, with whatever may differ between two copies of one message chosen by chance.

Called by support.session_requests. Texts cut into parts, members that are null, thoughts sent back or not, white space around an
answer, other spellings of arguments: none of it makes another message (docs/sessions.md). Pure but for the dice it is given.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from support.session_model import Call, Said
from support.session_wire import CHAT, MESSAGES, OLLAMA

TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
    }
    for name in ("look", "listen")
]
CHATS = (CHAT, OLLAMA, MESSAGES)


class Pen:
    """One client's way of writing."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice

    def chat(self, path: str, system: Sequence[Said], messages: Sequence[Said]) -> dict[str, Any]:
        """Write the messages of a chat, and the system messages where `path` has them."""
        if path == MESSAGES:
            body: dict[str, Any] = {"messages": self._anthropic(messages), "max_tokens": 400}
            if system:
                body["system"] = self._parts("\n\n".join(said.text for said in system))
            return body
        write = self._openai if path == CHAT else self._ollama
        return {"messages": [write(said) for said in (*system, *messages)]}

    def history(self, messages: Sequence[Said], *, keeps_ids: bool = True) -> list[Said]:
        """Copy messages as a client may send them back; without `keeps_ids` it calls the calls by ids of its own."""
        ids: dict[str, str] = {}
        if not keeps_ids:
            ids = {call.id: f"own-{call.id}" for said in messages for call in said.calls if call.id}
        copied = []
        for said in messages:
            calls = tuple(replace(call, id=ids.get(call.id, call.id)) for call in said.calls)
            text = self._around(said.text) if said.speaker == "assistant" else said.text
            copied.append(replace(said, text=text, calls=calls, answers=ids.get(said.answers, said.answers)))
        return copied

    def _is(self, share: float) -> bool:
        return self._dice.random() < share

    def _around(self, text: str) -> str:
        """Write an answer's text with other white space around it, or with or without a thought before it."""
        if not text.strip() or self._is(0.6):
            return text
        thought, closed, rest = text.lstrip().partition("</think>")
        if closed and thought.startswith("<think>"):
            return rest if rest.strip() and self._is(0.5) else text
        bare = text.strip()
        return self._dice.choice([bare, f"\n{bare} ", f" {bare}\n\n", f"<think>hm, hm</think>\n{bare}"])

    def _parts(self, text: str) -> Any:
        """Write a text as it is or as a list of parts."""
        if not text or self._is(0.7):
            return text
        cut = self._dice.randrange(len(text))
        pieces = [piece for piece in (text[:cut], text[cut:]) if piece.strip()]
        return [{"type": "text", "text": piece} for piece in (pieces if "".join(pieces) == text else [text])]

    def _spelled(self, call: Call) -> str:
        """Write arguments as one JSON text or another."""
        arguments = json.loads(call.arguments)
        return self._dice.choice(
            [json.dumps(arguments), json.dumps(arguments, indent=1), json.dumps(arguments, separators=(",", ":"))]
        )

    def _openai(self, said: Said) -> dict[str, Any]:
        role = self._dice.choice(["system", "developer"]) if said.speaker == "system" else said.speaker
        message: dict[str, Any] = {"role": role, "content": self._parts(said.text)}
        if said.speaker == "tool":
            return {**message, "tool_call_id": said.answers}
        if said.speaker == "user" and self._is(0.1):
            message["name"] = "ada"
        if said.speaker == "assistant":
            absent: dict[str, Any] = {
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "reasoning_content": "hm",
            }
            message |= {key: value for key, value in absent.items() if self._is(0.2)}
        if said.calls:
            message["content"] = message["content"] or self._dice.choice(["", None])
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": self._spelled(call)}}
                for call in said.calls
            ]
        return message

    def _ollama(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": said.speaker, "content": said.text}
        if said.speaker == "tool":
            message |= {"tool_name": said.tool} if said.tool else {}
            return message | ({"tool_call_id": said.answers} if said.answers else {})
        if said.speaker == "assistant" and self._is(0.2):
            message["thinking"] = "hm"
        if said.calls:
            message["tool_calls"] = [
                ({"id": call.id} if call.id else {}) | {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
                for call in said.calls
            ]
        return message

    def _anthropic(self, messages: Sequence[Said]) -> list[dict[str, Any]]:
        """Write a chat without system messages; results go into one message, and what the user says next may, too."""
        written: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for said in messages:
            if said.speaker == "tool":
                results.append({"type": "tool_result", "tool_use_id": said.answers, "content": self._parts(said.text)})
                continue
            if results and said.speaker == "user" and self._is(0.5):
                written.append({"role": "user", "content": [*results, {"type": "text", "text": said.text}]})
            else:
                written += [{"role": "user", "content": results}] if results else []
                written.append({"role": said.speaker, "content": self._blocks(said)})
            results = []
        return [*written, *([{"role": "user", "content": results}] if results else [])]

    def _blocks(self, said: Said) -> Any:
        if not said.calls:
            return self._parts(said.text)
        texts = [{"type": "text", "text": said.text}] if said.text else []
        called = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)} for call in said.calls
        ]
        return [*texts, *called]
