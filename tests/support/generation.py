"""How engines turn a model's tokens into pieces of an answer: whole characters, stop strings, bounds, reasoning, tool calls.

Pure. Engines differ in what they hold back and for how long; `Manner` says it (recorded: docs/failure-model.md, engines).
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from support.scripted_model import END_ID, bytes_of, ids_of

THINK, UNTHINK = "<think>", "</think>"
TOOL, UNTOOL = "<tool_call>", "</tool_call>"
CALL = re.compile(re.escape(TOOL) + r"(.*?)" + re.escape(UNTOOL), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where an answer ends: `tokens_max` None for no bound, `stops` without empty ones."""

    tokens_max: int | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step of the engine yields. `finish` is set on the last one; `kind` is text, reasoning or tool_call.

    `tokens` counts all tokens generated so far, the end token too. `stop` is the stop string that ended it.
    """

    text: str
    ids: tuple[int, ...]
    tokens: int
    finish: str | None = None
    stop: str | None = None
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Manner:
    """`shows_empty`: a step without a whole character is still a piece. `lags`: with stop strings, the text lags by the longest.

    `finishes_apart`: the finish comes in a piece of its own, without text.
    """

    shows_empty: bool = False
    lags: bool = False
    finishes_apart: bool = True


VLLM = Manner(shows_empty=True, lags=True, finishes_apart=False)
LLAMACPP = Manner()


def spoken(rest: bytes, bounds: Bounds, manner: Manner) -> list[Piece]:
    """Cut what the model writes into the pieces that an engine of this manner sends."""
    ids = [*ids_of(rest), END_ID]
    is_long = bounds.tokens_max is not None and len(ids) > bounds.tokens_max
    if is_long:
        ids = ids[: bounds.tokens_max]
    text, steps = _decode(ids)
    end, stop = _first_stop(text, bounds.stops)
    if stop is not None:
        count = next(i for i, (length, _) in enumerate(steps) if length >= end + len(stop)) + 1
        steps, ids, text = [(min(length, end), number) for length, number in steps[:count]], ids[:count], text[:end]
    finish = "length" if is_long and stop is None else "stop"
    pieces = list(_pieces(text, steps, bounds.stops, manner))
    if manner.finishes_apart:
        return [*pieces, Piece("", (), len(ids), finish, stop)]
    last = pieces.pop() if pieces else Piece("", (), 0)
    return [*pieces, replace(last, finish=finish, stop=stop)]


def _decode(ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text and, for each token, how many characters are whole after it; an unfinished last character is dropped."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, steps = "", []
    for number in ids:
        if number != END_ID:
            text += decoder.decode(bytes_of([number]))
        steps.append((len(text), number))
    return text, steps


def _first_stop(text: str, stops: Iterable[str]) -> tuple[int, str | None]:
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    return min(found) if found else (len(text), None)


def _pieces(text: str, steps: Sequence[tuple[int, int]], stops: Sequence[str], manner: Manner) -> Iterator[Piece]:
    sent = 0
    ids: tuple[int, ...] = ()
    for nth, (length, number) in enumerate(steps, start=1):
        ids = (*ids, number)
        is_last = nth == len(steps)
        ready = length if is_last else max(sent, length - _held_back(text[:length], stops, manner))
        if ready == sent and not is_last and not manner.shows_empty:
            continue
        if ready == sent and is_last and manner.finishes_apart:
            return
        yield Piece(text[sent:ready], ids, nth)
        sent, ids = ready, ()


def _held_back(text: str, stops: Sequence[str], manner: Manner) -> int:
    """How many characters stay back because a stop string might begin in them."""
    if not stops:
        return 0
    if manner.lags:
        return max(map(len, stops)) - 1
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)


def told_apart(pieces: Iterable[Piece], *, said: str, has_tools: bool) -> list[Piece]:
    """Mark what is reasoning and what a tool call; the tags themselves vanish. `said` is what the answer holds already.

    A tool call's pieces come as the model wrote them; a piece that would mix two kinds is divided. Tags are single pieces here,
    because made-up texts put them on borders of tokens.
    """
    marked: list[Piece] = []
    kind = _kind_after(said, has_tools=has_tools)
    pending = ""
    held: tuple[int, ...] = ()
    for piece in pieces:
        pending += piece.text
        held += piece.ids
        kind, parts, pending = _split(pending, kind, has_tools=has_tools, is_last=piece.finish is not None)
        shown = [(text, what) for text, what in parts if text]
        for text, what in shown[:-1]:
            marked.append(Piece(text, (), piece.tokens, kind=what))
        if shown or not piece.text or piece.finish is not None:
            text, what = shown[-1] if shown else ("", kind if piece.finish is None and kind == "reasoning" else "text")
            marked.append(replace(piece, text=text, kind=what, ids=held))
            held = ()
    return marked


def _kind_after(said: str, *, has_tools: bool) -> str:
    if THINK in said and UNTHINK not in said:
        return "reasoning"
    return "tool_call" if has_tools and said.count(TOOL) > said.count(UNTOOL) else "text"


def _split(text: str, kind: str, *, has_tools: bool, is_last: bool) -> tuple[str, list[tuple[str, str]], str]:
    parts: list[tuple[str, str]] = []
    while True:
        tags = {"text": {THINK: "reasoning"} | ({TOOL: "tool_call"} if has_tools else {})}
        tags |= {"reasoning": {UNTHINK: "text"}, "tool_call": {UNTOOL: "text"}}
        found = [(text.index(tag), tag) for tag in tags[kind] if tag in text]
        if not found:
            break
        at, tag = min(found)
        parts.append((text[:at], kind))
        text, kind = text[at + len(tag) :], tags[kind][tag]
    keep = 0 if is_last else max((n for tag in tags[kind] for n in range(1, len(tag)) if text.endswith(tag[:n])), default=0)
    parts.append((text[: len(text) - keep], kind))
    return kind, parts, text[len(text) - keep :]


def call_of(text: str) -> dict[str, Any]:
    """Read a tool call as the model wrote it: {"name": ..., "arguments": {...}}."""
    call: dict[str, Any] = json.loads(text)
    return call
