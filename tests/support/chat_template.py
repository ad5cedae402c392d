"""ChatML as a template renders it, with what templates do to messages besides. Pure; every scripted engine renders with it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.scripted_model import ASSISTANT, BOS, END, START

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """`trims`: as with `| trim`, the space around each message goes. `drops_think`: as R1's and Qwen3's, which delete reasoning.

    `continues`: it leaves a last message of the assistant open, as Go templates with a branch for the last message do.
    `has_bos`: the text begins with the token itself, as templates of HF models do.
    """

    trims: bool = False
    drops_think: bool = False
    continues: bool = False
    has_bos: bool = True

    def closed(self, messages: Sequence[Message], tools: Any = None) -> str:
        """Render the messages, all of them ended."""
        text = BOS if self.has_bos else ""
        if tools:
            text += f"{START}tools\n{json.dumps(tools)}{END}\n"
        return text + "".join(f"{START}{message['role']}\n{self._said(message)}{END}\n" for message in messages)

    def asking(self, messages: Sequence[Message], tools: Any = None) -> str:
        """Render the messages and the header of the assistant's turn."""
        return self.closed(messages, tools) + ASSISTANT

    def open(self, messages: Sequence[Message], tools: Any = None) -> str:
        """Render the messages, the last of them without its end. Raises ValueError when the template deletes parts of it."""
        last = messages[-1]
        if self.drops_think and "<think>" in text_of(last):
            raise ValueError(f"continue_final_message is set but the final message does not appear in the chat: {text_of(last)}")
        return self.closed(messages[:-1], tools) + f"{START}{last['role']}\n{self._said(last)}"

    def _said(self, message: Message) -> str:
        text = text_of(message)
        calls = message.get("tool_calls")
        if calls:
            text += "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)
        return text.strip() if self.trims else text


def text_of(message: Message) -> str:
    """Return a message's text; parts are joined."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)
