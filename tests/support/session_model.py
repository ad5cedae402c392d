"""The rule of docs/sessions.md written down once more: what an engine must be given in a session, and what must be kept of it.

Asked by support.session_play, which holds a real daemon against it. Written from the page alone and on purpose by another way
than src/understudy/core; imports nothing of the product. Pure: values in, values out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

GAP = "\n\n"
ANY = "any"
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_ASKING = ("user", "system")


@dataclass(frozen=True, slots=True)
class Call:
    """An assistant's call of a tool; `arguments` is JSON in one spelling, `id` "" where its dialect tells none."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One message. Of a tool's result `answers` is the call's id and `tool` the tool's name, as far as they are told."""

    speaker: str
    text: str = ""
    calls: tuple[Call, ...] = ()
    answers: str = ""
    tool: str = ""
    mark: str = "whole"
    is_raw: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is said."""
        return not (self.text or self.calls)


@dataclass(frozen=True, slots=True)
class Kept:
    """One session in the store. `told` is all that its client has heard and said, what has fallen off included.

    `backend` gave the last answer; "" where the play cannot know.
    """

    revision: int = 0
    system: tuple[Said, ...] = ()
    messages: tuple[Said, ...] = ()
    told: tuple[Said, ...] = ()
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client sends. `form`: chat, raw (a text that goes on) or prompt (one turn as a text); texts have one message.

    `mode` is X-Session-Mode, "" without. `has_context`: it sends Ollama's `context` and so keeps the memory itself.
    """

    system: tuple[Said, ...]
    messages: tuple[Said, ...]
    form: str = "chat"
    mode: str = ""
    is_reset: bool = False
    has_context: bool = False


@dataclass(frozen=True, slots=True)
class Merged:
    """What must come of a request: the word for it (ANY: the page has none), what stands before the client's messages, and so on.

    `system` are all system messages that the engine must get first. `prompt` is the whole text of a text's path. `new` is what
    the client adds to the conversation, `asked` the conversation up to the answer.
    """

    word: str
    system: tuple[Said, ...]
    before: tuple[Said, ...]
    new: tuple[Said, ...]
    asked: Kept
    prompt: str = ""


def essence(said: Said) -> tuple[object, ...]:
    """Return what makes two messages the same: who speaks, the text and the calls; not ids, nor an answer's space and thought."""
    text = said.text
    if said.speaker == "assistant":
        thought = _THOUGHT.match(text)
        text = (text[thought.end() :] if thought else text).strip()
    return said.speaker, text, tuple((call.name, call.arguments) for call in said.calls)


# --- merging


def merge(kept: Kept, asked: Asked) -> Merged:
    """Return what must come of `asked`: the first row of the page's table that is true."""
    if not kept.messages or asked.is_reset:
        return _anew("new", kept, asked)
    if asked.mode == "replace":
        return _anew("replaced", kept, asked)
    if asked.has_context:
        return replace(_behind(ANY, kept, asked), prompt=asked.messages[0].text, system=asked.system)
    if asked.mode == "append":
        return _behind("appended", kept, asked)
    return _found_out(kept, asked)


def _found_out(kept: Kept, asked: Asked) -> Merged:
    """Return what must come of messages of which the client does not say what they are."""
    known = _known(kept.messages, asked.messages) if asked.form == "chat" else _known_text(kept, asked)
    if known is not None:
        return _recognised(kept, asked, known)
    turn = _broken_turn(kept.messages)
    if turn:
        size = len(turn) + 1
        before = replace(kept, messages=kept.messages[:-size], told=kept.told[:-size])
        if [*map(essence, turn)] == [*map(essence, asked.messages[: len(turn)])]:
            return _behind("retried", before, asked)
        without = _known(before.messages, asked.messages) if asked.form == "chat" and before.messages else None
        if without is not None:
            return replace(_recognised(before, asked, without), word="retried")
    # An answer at the end is one that the client has begun itself.
    if asked.form == "chat" and any(said.speaker == "assistant" for said in asked.messages[:-1]):
        return _anew("replaced", kept, asked)
    return _behind("appended", kept, asked)


def _anew(word: str, kept: Kept, asked: Asked) -> Merged:
    """What the client sent is the conversation."""
    conversation = replace(kept, system=asked.system, messages=asked.messages, told=asked.messages)
    prompt = asked.messages[0].text if asked.form != "chat" else ""
    return Merged(word, asked.system, (), asked.messages, conversation, prompt)


def _behind(word: str, kept: Kept, asked: Asked) -> Merged:
    """What the client sent comes after what is kept."""
    system = asked.system or kept.system
    conversation = replace(kept, system=system, messages=(*kept.messages, *asked.messages), told=(*kept.told, *asked.messages))
    before = paired(kept.messages, asked.messages)
    prompt = ""
    if asked.form != "chat":
        # Behind the completions' path there is no other place for the system message.
        first = system if asked.form == "raw" else ()
        prompt = text_of((*first, *kept.messages, *asked.messages))
    return Merged(word, system, before, asked.messages, conversation, prompt)


def _recognised(kept: Kept, asked: Asked, known: int) -> Merged:
    """The first `known` messages (of a text: characters) are the history, or its end."""
    system = asked.system or kept.system
    if asked.form == "chat":
        size = min(known, len(kept.messages))
        new = _with_kept_ids(asked.messages[known:], asked.messages[known - size : known], kept.messages[-size:])
        before = paired(kept.messages[: max(0, len(kept.messages) - known)], asked.messages)
        prompt = ""
    else:
        prompt, before = asked.messages[0].text, ()
        rest = prompt[known:]
        if kept.messages and not (kept.messages[-1].is_raw and asked.form == "raw"):
            rest = rest.removeprefix(GAP)
        new = (replace(asked.messages[0], text=rest),) if rest else ()
    conversation = replace(kept, system=system, messages=(*kept.messages, *new), told=(*kept.told, *new))
    return Merged("recognised", system, before, new, conversation, prompt)


def _with_kept_ids(new: Sequence[Said], copy: Sequence[Said], kept: Sequence[Said]) -> tuple[Said, ...]:
    """Return new messages whose results name calls as they are kept, not as the client's copy of them does: ids do not matter."""
    named: dict[str, Call] = {}
    for sent, said in zip(copy, kept, strict=True):
        named |= {call.id: own for call, own in zip(sent.calls, said.calls, strict=True) if call.id != own.id}
    return tuple(
        replace(said, answers=named[said.answers].id, tool=named[said.answers].name) if said.answers in named else said
        for said in new
    )


def _known(kept: Sequence[Said], sent: Sequence[Said]) -> int | None:
    """Return how many of `sent` are the history: all of it at the front, or its end there, or all of it behind what fell off."""
    history, given = [*map(essence, kept)], [*map(essence, sent)]
    if given[: len(history)] == history:
        return len(history)
    for known in range(len(given), 0, -1):
        size = min(known, len(history))
        if given[known - size : known] == history[-size:]:
            return known
    return None


def _known_text(kept: Kept, asked: Asked) -> int | None:
    """Return how many characters of a prompt are the text that is kept; None where it does not begin with it."""
    prompt = asked.messages[0].text
    texts = [text_of((*kept.system, *kept.messages))] if asked.form == "raw" else []
    texts.append(text_of(kept.messages))
    for text in texts:
        # What has fallen off stands before what is kept in the text of a client that keeps everything.
        at = prompt.rfind(text) if len(kept.told) > len(kept.messages) else 0
        if text and at >= 0 and prompt[at:].startswith(text):
            return at + len(text)
    return None


def _broken_turn(kept: Sequence[Said]) -> Sequence[Said]:
    """Return what the last answer answers, all that was said since the one before, where it did not come whole; else nothing."""
    if kept[-1].speaker != "assistant" or kept[-1].mark == "whole":
        return ()
    start = len(kept) - 1
    while start and kept[start - 1].speaker != "assistant":
        start -= 1
    return kept[start:-1]


def text_of(messages: Sequence[Said]) -> str:
    """Return messages as one text: raw ones joined as they are, all others with an empty line between them."""
    text = ""
    for at, said in enumerate(messages):
        is_joined = not at or (said.is_raw and messages[at - 1].is_raw)
        text += said.text if is_joined else GAP + said.text
    return text


# --- tool calls


def paired(messages: Sequence[Said], following: Sequence[Said] = ()) -> tuple[Said, ...]:
    """Return `messages` without calls that the next messages do not answer and results without their call."""
    left: list[Said] = []
    every = (*messages, *following)
    at = 0
    while at < len(messages):
        head = messages[at]
        end = at + 1
        while head.speaker != "tool" and end < len(every) and every[end].speaker == "tool":
            end += 1
        results = every[at + 1 : end]
        found = match(head.calls, results)
        own = replace(head, calls=tuple(call for place, call in enumerate(head.calls) if place in found))
        if head.speaker != "tool" and not (head.calls and own.is_nothing):
            left.append(own)
        # Of what follows nothing is ours to give.
        here = zip(results[: len(messages) - at - 1], found, strict=False)
        left += [result for result, place in here if place is not None]
        at = end
    return tuple(left)


def match(calls: Sequence[Call], results: Sequence[Said]) -> list[int | None]:
    """Return for each result which call it answers: by its id; one that tells none by the tool's name, else the next."""
    free = list(range(len(calls)))
    found: list[int | None] = []
    for result in results:
        fitting = [index for index in free if result.answers and calls[index].id == result.answers]
        if not fitting and not (result.answers and all(calls[index].id for index in free)):
            fitting = [index for index in free if not result.tool or calls[index].name == result.tool]
        found.append(fitting[0] if fitting else None)
        free = [index for index in free if index != found[-1]]
    return found


# --- keeping


def after_race(current: Kept, merged: Merged, asked: Asked) -> Merged:
    """Return a turn as it is put after what others have kept meanwhile: of a history only what follows its last answer."""
    new = merged.new or asked.messages
    start = max((at + 1 for at, said in enumerate(new[:-1]) if said.speaker == "assistant"), default=0)
    system = asked.system or current.system
    told = (*current.told, *new[start:])
    conversation = replace(current, system=system, messages=(*current.messages, *new[start:]), told=told)
    return replace(merged, new=new[start:], asked=conversation)


def kept_after(merged: Merged, answer: Said, messages_max: int, backend: str = "") -> Kept | None:
    """Return what is kept once `merged` was answered; None where the turn is too long to be kept."""
    asked = merged.asked
    messages = (*asked.messages, answer)
    told = (*asked.told, answer)
    if asked.messages[-1:] and asked.messages[-1].speaker == "assistant":
        # The client had begun the answer itself.
        begun = asked.messages[-1]
        answer = replace(answer, text=begun.text + answer.text, calls=begun.calls + answer.calls)
        messages, told = (*asked.messages[:-1], answer), (*asked.told[:-1], answer)
    left = trimmed(messages, messages_max)
    if left is None:
        return None
    return replace(asked, revision=asked.revision + 1, messages=left, told=told, backend=backend)


def taken(kept: Kept, merged: Merged, answer: Said, messages_max: int, backend: str = "") -> Kept:
    """Return the session after a turn that may be too long to be kept, which only its client then knows of."""
    after = kept_after(merged, answer, messages_max, backend)
    return replace(kept, told=(*merged.asked.told, answer)) if after is None else after


def trimmed(messages: Sequence[Said], messages_max: int) -> tuple[Said, ...] | None:
    """Return the newest turns that are not too many; of a last turn that is too long all but its first tool exchanges."""
    starts = [
        at for at, said in enumerate(messages) if not at or (said.speaker in _ASKING and messages[at - 1].speaker not in _ASKING)
    ]
    for start in starts:
        if len(messages) - start <= messages_max:
            return tuple(messages[start:])
    turn = list(messages[starts[-1] :])
    at = 0
    while at < len(turn):
        end = at + 1
        while end < len(turn) and turn[end].speaker == "tool":
            end += 1
        if turn[at].calls and end < len(turn):
            del turn[at:end]
            if len(turn) <= messages_max:
                return tuple(turn)
        else:
            at += 1
    return None
