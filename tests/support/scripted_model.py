"""A language model that is a function: the same prompt gives the same text, a prompt with that text's beginning gives its rest.

Whatever is wrong with a continuation's prompt shows as words in the answer. What it says in a conversation depends on every byte
before the assistant's turn, so another template, a lost message or a second turn give another text, as with a real model. Pure;
scripted engines (support.engine_*) read and write for it.

Tokens: special tokens, up to four letters with the space before them, any other byte alone. So some characters have several
tokens, as in byte-fallback vocabularies, and a beginning that ends between two tokens has the beginning of the tokens.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

BOS, START, END = "<s>", "<|im_start|>", "<|im_end|>"
ASSISTANT = f"{START}assistant\n"
SPECIALS = {BOS: 1, START: 2, END: 3}
END_ID = SPECIALS[END]
SPECIAL_NAMES = {number: name for name, number in SPECIALS.items()}
BYTE_0, WORD_0 = 16, 1024
TOKEN = re.compile(rb"<s>|<\|im_start\|>|<\|im_end\|>| ?[A-Za-z]{1,4}|[\x00-\xff]", re.DOTALL)

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MARKS = (".", ",", "!", "\n", " caf\u00e9", " \u2248", " \U0001f600", "  ")


def ids_of(text: str | bytes) -> list[int]:
    """Cut a text into tokens; special tokens are found in it, as engines do in rendered prompts."""
    data = text.encode() if isinstance(text, str) else text
    return [_id(piece) for piece in TOKEN.findall(data)]


def _id(piece: bytes) -> int:
    if special := SPECIALS.get(piece.decode("latin-1")):
        return special
    if len(piece) == 1:
        return BYTE_0 + piece[0]
    return WORD_0 + int.from_bytes(piece, "big")


def bytes_of(ids: Sequence[int]) -> bytes:
    """Return the bytes that these tokens stand for. Raises ValueError for a token that no text gives."""
    return b"".join(_piece(number) for number in ids)


def _piece(number: int) -> bytes:
    if number in SPECIAL_NAMES:
        return SPECIAL_NAMES[number].encode()
    if BYTE_0 <= number < BYTE_0 + 256:
        return bytes([number - BYTE_0])
    if number >= WORD_0:
        value = number - WORD_0
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    raise ValueError(f"no token has the id {number}")


def words_of(key: bytes, words: int) -> str:
    """Write so many made-up words, the same for the same key, with characters of several bytes among them."""
    dice = random.Random(blake2b(key, digest_size=8).digest())
    text = ""
    for i in range(words):
        word = "".join(dice.choices(SYLLABLES, k=dice.randint(1, 3)))
        text += f" {word}" if i else word.capitalize()
        if dice.random() < 0.25:
            text += dice.choice(MARKS)
    return text


@dataclass(frozen=True, slots=True)
class Scene:
    """A prompt as the model understands it. `said` is how much of the answer it holds already; `wrong` why it cannot go on."""

    key: bytes
    said: bytes = b""
    wrong: str = ""


class ScriptedModel:
    """`says` answers everything with the same text; else made-up ones of `words` words, or what `write` makes of the prompt."""

    def __init__(self, says: str = "", *, words: int = 24, write: Callable[[str], str] | None = None) -> None:
        self._says = says
        self._words = words
        self._write = write

    def text(self, key: bytes) -> str:
        """Return the whole answer to a prompt that ends where the answer begins."""
        if self._write is not None:
            return self._write(key.decode(errors="replace"))
        return self._says or words_of(key, self._words)

    def rest(self, prompt: bytes) -> bytes:
        """Return what the model writes after `prompt`: the answer, its rest, or words that tell what is wrong with the prompt."""
        scene = self.scene(prompt)
        whole = self.text(scene.key).encode()
        if scene.wrong:
            return f"[derailed: {scene.wrong}]".encode()
        if not whole.startswith(scene.said):
            return b"[derailed: the answer so far is not what this model said]"
        return whole[len(scene.said) :]

    def scene(self, prompt: bytes) -> Scene:
        """Split a prompt into what was asked and what has been answered."""
        body = prompt.removeprefix(BOS.encode())
        if BOS.encode() in body:
            return Scene(body, wrong="a second beginning of the text")
        before, header, after = body.rpartition(ASSISTANT.encode())
        if START.encode() not in body:
            return self._plain_scene(body)
        if not header or START.encode() in after:
            return Scene(body, wrong="it is not the assistant's turn")
        if END.encode() in after:
            return Scene(body, wrong="the assistant's turn is over")
        return Scene(before + header, after)

    def _plain_scene(self, body: bytes) -> Scene:
        """Find the earliest place from which on the prompt is what the model itself would have said there."""
        for cut in range(1, len(body)):
            if body[cut:].startswith(self._first_piece(body[:cut])) and self.text(body[:cut]).encode().startswith(body[cut:]):
                return Scene(body[:cut], body[cut:])
        return Scene(body)

    def _first_piece(self, key: bytes) -> bytes:
        """Return a cheap beginning of the text, shorter than any piece that is ever cut off."""
        if self._says or self._write:
            return b""
        dice = random.Random(blake2b(key, digest_size=8).digest())
        return "".join(dice.choices(SYLLABLES, k=dice.randint(1, 3))).capitalize()[:1].encode()
