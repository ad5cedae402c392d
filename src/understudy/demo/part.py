"""What the small engine says: the prompt it reads, the answer it makes up, and the rest of an answer that has begun.

Called by demo.engine. Pure and repeatable: the same prompt gets the same answer from every copy of the engine, and a prompt that
ends with the beginning of its own answer gets what is missing of it, as with a real model that reads its own words.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LINES = (
    "The lead learns the part; the understudy learns it too, and waits in the wings. ",
    "When the lead cannot go on, the understudy does, and the audience hears the whole play. ",
    "Nobody in the stalls has to know who was meant to speak. ",
    "One port, several engines behind it, and an answer as long as one of them stands. ",
    "A light goes out, another is lit, and the scene continues. ",
    "Rehearse the failure, and the evening will be dull in the best of ways. ",
)
ANSWERS = tuple((LINES[i] + LINES[(i + 1) % len(LINES)]).rstrip() for i in range(len(LINES)))
ANSWER_CHARACTERS_MAX = max(map(len, ANSWERS))
EMBEDDING_DIMENSIONS = 8

START, END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Part:
    """What one request asks the engine to say. `tokens` are the answer's pieces in order, already cut to the asked length.

    `prompt_tokens` counts all of the prompt, and with it what the prompt already has of the answer.
    """

    model: str
    prompt_tokens: int
    tokens: tuple[str, ...]
    is_cut: bool

    @property
    def text(self) -> str:
        """The whole answer, or the rest of it."""
        return "".join(self.tokens)

    @property
    def reason(self) -> str:
        """Why the answer ends, in the word that both dialects use."""
        return "length" if self.is_cut else "stop"


def render(messages: Sequence[Any]) -> str:
    """Write a chat as the one text that a model reads, in ChatML, and open the assistant's turn.

    Where the last message is the assistant's, its turn stays open, so that the model goes on with it: not every template of a
    real engine has this branch (Ollama's documentation of templates calls it the last message).
    """
    turns = [_turn(message) for message in messages if isinstance(message, Mapping)]
    closed = turns[:-1] if turns and turns[-1][0] == "assistant" else turns
    open_words = turns[-1][1] if len(closed) < len(turns) else ""
    return "".join(f"{START}{role}\n{words}{END}\n" for role, words in closed) + f"{START}assistant\n{open_words}"


def compose(prompt: str, model: str, tokens_max: int | None) -> Part:
    """Make up what follows `prompt`, a text as `render` writes it or any other: its answer, or the rest of one that it holds.

    `tokens_max` counts what is new, as with every engine (None: no bound).
    """
    asked, said = _told_apart(prompt)
    tokens = _tokens(_answer(zlib.crc32(asked.encode(errors="replace")))[len(said) :])
    # As with a real model, whose end is a token of its own: the last word at the bound leaves no room for it.
    is_cut = tokens_max is not None and tokens_max <= len(tokens)
    prompt_tokens = max(1, len(_tokens(asked)) + len(_tokens(said)))
    return Part(model, prompt_tokens, tokens[:tokens_max] if is_cut else tokens, is_cut)


def embed(text: str) -> list[float]:
    """Make up a repeatable vector of `EMBEDDING_DIMENSIONS` numbers between -1 and 1."""
    return [zlib.crc32(f"{i} {text}".encode(errors="replace")) / 2**31 - 1 for i in range(EMBEDDING_DIMENSIONS)]


def _turn(message: Mapping[str, Any]) -> tuple[str, str]:
    """Read a message's role and text, which is a string or a list of text parts."""
    content = message.get("content")
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(message.get("role") or "user"), str(content or "")


def _told_apart(prompt: str) -> tuple[str, str]:
    """Split `prompt` into what was asked and what has been said of its answer ("" when none of it).

    The shortest beginning whose answer the rest of the prompt begins is taken. So it stays the same one when more of that answer
    is added: were there a shorter one for the longer prompt, it would have been one for the shorter prompt, too.
    """
    start = max(0, len(prompt) - ANSWER_CHARACTERS_MAX)
    checksum = zlib.crc32(prompt[:start].encode(errors="replace"))
    for i in range(start, len(prompt)):
        if _answer(checksum).startswith(prompt[i:]):
            return prompt[:i], prompt[i:]
        checksum = zlib.crc32(prompt[i].encode(errors="replace"), checksum)
    return prompt, ""


def _answer(checksum: int) -> str:
    return ANSWERS[checksum % len(ANSWERS)]


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\s*\S+", text))
