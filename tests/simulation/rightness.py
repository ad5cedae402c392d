"""Compare what a client got with the one right answer, which the engine that began it would have given had nothing happened.

Pure. A broken answer must be a beginning of the right one, a finished one all of it, whoever wrote which part.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from simulation.client import Asked, Wanted
from simulation.language import Said
from simulation.writing import KINDS, Make, Matter, right_utterance
from support.breaks import Utterance
from support.scripted_model import ids_of
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import EngineKind

# These count the tokens that the client has; others are counted by their events.
COUNTING = frozenset({Make.VLLM, Make.LLAMACPP})
# Tokens by which two engines' prompts may differ (the first one), and that a cut between two tokens may cost.
SEAM_TOKENS = 3
TAG_TOKENS = len(ids_of("<think></think>"))

AT_THE_BOUND = frozenset({"length", "max_tokens"})

Wrong = tuple[str, str]


def right_answer(asked: Asked, make: Make, *, is_bounded: bool = True) -> Said | None:
    """Return what the engine says to `asked`, None where it refuses; not `is_bounded`: without its bound and its stop."""
    unbounded = asked if is_bounded else replace(asked, tokens_max=0, stop="")
    utterance = right_utterance(make, asked.path, unbounded.body())
    if utterance is None:
        return None
    if asked.wanted is Wanted.WHOLE:
        return asked.speech.read_whole(_json(utterance))
    return asked.speech.read_stream(b"".join((*utterance.opening, *utterance.pieces, *utterance.closing)))


def _json(utterance: Utterance) -> bytes:
    return json.dumps(utterance.whole, ensure_ascii=False).encode()


def compare(
    asked: Asked, said: Said, make: Make, record: ExchangeRecord, others: Sequence[Make], *, ends_well: bool
) -> Iterator[Wrong]:
    """Yield what is wrong with an answer that an engine of `make` began and `others` went on with.

    `ends_well`: its last part came without a fault.
    """
    seams = record.resumed_on
    right = right_answer(asked, make)
    if right is None:
        if said.has_content:
            yield "nobody else's text", f"{make} refuses this, and the client got {said.text[:100]!r}"
        return
    if said.seams != list(seams)[: len(said.seams)] and asked.wanted is Wanted.STREAM:
        yield "a seam is shown", f"the client saw {said.seams}, the record {seams}"
    # Nobody counts the tags around thoughts.
    is_counted = {make, *others} <= COUNTING and asked.matter is not Matter.THOUGHT
    yield from _compare_text(asked, said, make, right, is_counted=not seams or is_counted)
    yield from _compare_parts(said, right)
    if not said.is_finished:
        return
    if said.finish != right.finish and (not seams or {said.finish, right.finish} != {"length", "stop"}):
        yield "what looks whole is whole", f"finish {said.finish!r}, right is {right.finish!r}"
    if asked.wanted is Wanted.STREAM and seams and said.seams != list(seams):
        yield "a seam is shown", f"the client saw {said.seams}, the record {seams}"
    # Ollama alone wraps the prompt of a completion in its template.
    kinds = {KINDS[one] for one in (make, *others)}
    if asked.path == "/v1/completions" and len(kinds) > 1 and EngineKind.OLLAMA in kinds:
        return
    if said.usage is not None or (ends_well and _tells_usage(asked, record)):
        # An end that was cut off is counted by what came.
        yield from _compare_usage(said, right, len(seams) + (not ends_well))


def _tells_usage(asked: Asked, record: ExchangeRecord) -> bool:
    """Whether the last who wrote was an engine that counts: not when nothing but the end was missing, or left to generate."""
    last = record.attempts[-1]
    is_broken = any(one.failure is not None for one in record.attempts)
    return not is_broken or (last.failure is None and record.resumed_on[-1:] == (last.backend,) and not asked.tokens_max)


def _compare_text(asked: Asked, said: Said, make: Make, right: Said, *, is_counted: bool) -> Iterator[Wrong]:
    whole = right
    if asked.tokens_max and right.finish in AT_THE_BOUND and not is_counted:
        # Where nobody counted what was delivered, its events stand for its tokens.
        whole = right_answer(asked, make, is_bounded=False) or right
    for name in ("text", "reasoning"):
        got, all_of_it, bounded = getattr(said, name), getattr(whole, name), getattr(right, name)
        if not all_of_it.startswith(got):
            at = next((i for i, (one, other) in enumerate(zip(got, all_of_it, strict=False)) if one != other), len(all_of_it))
            there, here = all_of_it[max(0, at - 20) : at + 20], got[max(0, at - 20) : at + 30]
            yield "the text is a beginning of the right one", f"{name} differs at {at}: {here!r}, right is {there!r}"
        elif said.is_finished and whole is right and got != all_of_it:
            yield "what looks whole is whole", f"{len(got)} of {len(all_of_it)} characters of {name}"
        elif said.is_finished and whole is not right and abs(_tokens(got) - _tokens(bounded)) > _spread(bounded):
            yield "bounds are kept", f"{_tokens(got)} tokens of {name}, right are {_tokens(bounded)}"


def _tokens(text: str) -> int:
    return len(ids_of(text))


def _spread(text: str) -> int:
    return SEAM_TOKENS + 2 * (len(text.encode()) - len(text)) + text.count("  ") + text.count("\n") + TAG_TOKENS


def _compare_parts(said: Said, right: Said) -> Iterator[Wrong]:
    for index, (name, arguments) in said.calls.items():
        wanted = right.calls.get(index)
        if wanted is None or wanted[0] != name or not wanted[1].startswith(arguments):
            yield "a tool call is whole or broken, never wrong", f"{name}({arguments}), right is {wanted}"
        elif said.is_finished and wanted[1] != arguments:
            yield "a tool call is whole or broken, never wrong", f"finished with {arguments}"
    if said.is_finished and len(said.calls) != len(right.calls):
        yield "a tool call is whole or broken, never wrong", f"{len(said.calls)} calls, right are {len(right.calls)}"
    if right.reasoning and said.text and said.reasoning != right.reasoning:
        yield "the text is a beginning of the right one", "text came before the reasoning was over"
    if right.probable and said.probable != said.text:
        yield "log probabilities belong to their text", f"{said.probable[-60:]!r} beside {said.text[-60:]!r}"
    for index, text in said.others.items():
        if not right.others.get(index, "").startswith(text):
            yield "the text is a beginning of the right one", f"choice {index} is {text[-60:]!r}"
    if said.is_finished and said.others != right.others:
        yield "what looks whole is whole", f"{len(said.others)} further choices, right are {len(right.others)}"


def _compare_usage(said: Said, right: Said, seams: int) -> Iterator[Wrong]:
    if right.usage is None:
        return
    if said.usage is None:
        yield "usage adds up", f"none, right is {right.usage}"
        return
    prompt, completion, total = said.usage
    apart = seams * SEAM_TOKENS
    # Counted by events, a part of the answer's own tokens is taken for the prompt's.
    moved = apart + (_spread(right.text + right.reasoning) if seams else 0)
    if (
        prompt + completion != total
        or min(said.usage) < 0
        or abs(total - right.usage[2]) > apart
        or abs(prompt - right.usage[0]) > moved
        or abs(completion - right.usage[1]) > moved
    ):
        yield "usage adds up", f"{said.usage}, right is {right.usage} with {seams} seams"
