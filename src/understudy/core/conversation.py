"""A session's conversation: how a client's messages are merged with what is kept of it, and what is kept once it is answered.

Called by dataplane.turn with what dialects read of a request or an answer; kept by sessions. The rule of merging is told to
operators in docs/sessions.md. Pure: no clock, no store, no wire format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from understudy.core.message import Call, Message, Speaker, TextPart, Wholeness, identity, spoken

# A last message that is said again and again is looked for this often: each look may take as long as the history is.
_LOOKS_MAX = 64
# What stands between two texts that belong to different messages, where a prompt is one text.
TEXT_GAP = "\n\n"


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session as it is kept. `revision` grows by one with every change, 0: never kept.

    `system` is said before all else and never falls off; `messages` in order. `model` is the client's name for it, `backend` that
    of the last answer, `color` the one it is on since `colored_at_unix_s` (0.0: since it began). Tokens are the last answer's
    usage, 0 where the engine told none; `fallen` counts the messages that have fallen off. Times are the wall clock's.
    """

    revision: int = 0
    system: tuple[Message, ...] = ()
    messages: tuple[Message, ...] = ()
    model: str = ""
    backend: str = ""
    color: str = ""
    colored_at_unix_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fallen: int = 0
    begun_at_unix_s: float = 0.0
    changed_at_unix_s: float = 0.0


class Mode(StrEnum):
    """X-Session-Mode: what a client says of the messages it sends."""

    AUTO = "auto"  # whether they are new or the whole history is found out
    OFF = "off"  # the session is neither read nor written
    APPEND = "append"  # they are new, whatever they say
    REPLACE = "replace"  # they are the whole conversation


class Merging(StrEnum):
    """What became of a client's messages; the word in X-Understudy-Session."""

    NEW = "new"  # nothing was kept before
    APPENDED = "appended"  # they came after what was kept
    RECOGNISED = "recognised"  # they begin with what was kept, or with its end
    RETRIED = "retried"  # they repeat those whose answer did not come whole
    REPLACED = "replaced"  # they are another history, which takes the place of what was kept


class Given(msgspec.Struct, frozen=True):
    """What a client has sent: its leading system messages and all that follow.

    `is_text`: the prompt of a text path, of which `messages` has one, raw or not. `has_context`: the client keeps the
    conversation itself (Ollama's `context`), so that its prompt is left alone.
    """

    system: tuple[Message, ...] = ()
    messages: tuple[Message, ...] = ()
    is_text: bool = False
    has_context: bool = False


@dataclass(frozen=True, slots=True)
class Merged:
    """What an engine is to be given, and what is kept once it has answered.

    `before` stands between the system messages and the client's own. `system` is what the request must be given, () where the
    client's own stands or there is none. `asked` is the conversation up to the answer; `new` are the messages of it that the
    client has added, which a lost race needs again. `prompt` is the whole prompt of a text path, None where the client's stands.
    """

    merging: Merging
    before: tuple[Message, ...]
    system: tuple[Message, ...]
    asked: Conversation
    new: tuple[Message, ...]
    prompt: str | None = None


def merge(kept: Conversation, given: Given, mode: Mode) -> Merged:
    """Merge what a client has sent with what is kept of its session; `mode` is not OFF.

    AUTO: messages that begin with all that is kept, or with its end, are the history and what follows is new; where the last
    answer did not come whole, those that ask for it again, or leave that turn out, take its place; other messages among which is
    one of an assistant's are another history; all else is new.
    """
    if not kept.messages:
        return _merged(Merging.NEW, kept, given, before=(), new=given.messages)
    if mode is Mode.REPLACE:
        return _replaced(kept, given)
    if mode is Mode.AUTO:
        found = _find_out(kept, given)
        if found is not None:
            return found
        # An answer that the client has begun itself, at the end, tells of no history.
        if not given.is_text and any(message.speaker is Speaker.ASSISTANT for message in given.messages[:-1]):
            return _replaced(kept, given)
    return _merged(Merging.APPENDED, kept, given, before=kept.messages, new=given.messages)


def _find_out(kept: Conversation, given: Given) -> Merged | None:
    """Return what comes of messages that are the history, be it without a last turn whose answer tore; else None."""
    recognised = _recognised(Merging.RECOGNISED, kept, kept.messages, given)
    earlier = _before_broken_turn(kept.messages) if recognised is None else None
    if recognised is not None or earlier is None:
        return recognised
    asked = kept.messages[len(earlier) : -1]
    if [*map(identity, asked)] == [*map(identity, given.messages[: len(asked)])]:
        return _merged(Merging.RETRIED, kept, given, before=earlier, new=given.messages)
    return _recognised(Merging.RETRIED, kept, earlier, given) if earlier and not given.is_text else None


def _recognised(merging: Merging, kept: Conversation, history: tuple[Message, ...], given: Given) -> Merged | None:
    """Return what comes of messages that begin with `history`, or its end; None where they do not."""
    if given.is_text:
        new = _new_text(kept, given)
        return None if new is None else _merged(merging, kept, given, before=(), new=new, asked=history)
    known = _known(history, given.messages)
    if known is None:
        return None
    # What the client leaves out at the front still goes before.
    size = min(known, len(history))
    before = history[: len(history) - size]
    new = _with_kept_ids(given.messages[known:], given.messages[known - size : known], history[len(history) - size :])
    return _merged(merging, kept, given, before=before, new=new, asked=history)


def _replaced(kept: Conversation, given: Given) -> Merged:
    """The client's messages are the conversation, with a system message or without."""
    bare = msgspec.structs.replace(kept, system=())
    return _merged(Merging.REPLACED, bare, given, before=(), new=given.messages)


def _merged(
    merging: Merging,
    kept: Conversation,
    given: Given,
    *,
    before: tuple[Message, ...],
    new: tuple[Message, ...],
    asked: tuple[Message, ...] | None = None,
) -> Merged:
    system = () if given.system else kept.system
    prompt = None
    if given.is_text and given.messages and not given.has_context and merging is not Merging.RECOGNISED:
        is_raw = given.messages[0].is_raw
        # A raw prompt has no other place for it.
        first = system if is_raw else ()
        prompt = text_of((*first, *before, *given.messages)) if first or before else None
        system = () if is_raw else system
    conversation = msgspec.structs.replace(
        kept, system=given.system or kept.system, messages=(*(before if asked is None else asked), *new)
    )
    return Merged(merging, paired(before, given.messages), system, conversation, new, prompt)


def text_of(messages: Sequence[Message]) -> str:
    """Return what was said as one text: raw texts joined as they stand, all others with a gap between them."""
    pieces: list[str] = []
    was_raw = True
    for message in messages:
        if pieces and not (was_raw and message.is_raw):
            pieces.append(TEXT_GAP)
        pieces.append(message.text)
        was_raw = message.is_raw
    return "".join(pieces)


# --- recognising


def _known(history: Sequence[Message], given: Sequence[Message]) -> int | None:
    """Return how many of `given` are the history: all of it at the front, its end there, or all of it behind what has fallen off.

    None where they are another one.
    """
    kept, sent = [identity(message) for message in history], [identity(message) for message in given]
    if sent[: len(kept)] == kept and any(message.speaker is not Speaker.USER for message in history):
        return len(kept)
    looks = 0
    for end in range(len(sent), 0, -1):
        if sent[end - 1] != kept[-1]:
            continue
        looks += 1
        if looks > _LOOKS_MAX:
            break
        size = min(end, len(kept))
        # The same question once more is a question.
        is_history = any(message.speaker is not Speaker.USER for message in given[end - size : end])
        if is_history and sent[end - size : end] == kept[len(kept) - size :]:
            return end
    return None


def _with_kept_ids(new: Sequence[Message], copy: Sequence[Message], history: Sequence[Message]) -> tuple[Message, ...]:
    """Return new messages whose results name calls as they are kept, not as the client's copy of the history does."""
    own = {
        sent.id: call
        for ours, theirs in zip(history, copy, strict=True)
        for call, sent in zip(ours.calls, theirs.calls, strict=True)
        if sent.id and sent.id != call.id
    }
    return tuple(
        msgspec.structs.replace(message, call_id=own[message.call_id].id, name=own[message.call_id].name)
        if message.speaker is Speaker.TOOL and message.call_id in own
        else message
        for message in new
    )


def _new_text(kept: Conversation, given: Given) -> tuple[Message, ...] | None:
    """Return what a prompt adds to the text that is kept; None when it does not begin with it."""
    if given.has_context:
        return given.messages
    asked = given.messages[0]
    first = kept.system if asked.is_raw else ()
    for known in (text_of((*first, *kept.messages)), text_of(kept.messages)):
        # What has fallen off stands before it in the text of a client that keeps everything.
        at = asked.text.rfind(known) if kept.fallen else 0
        if known and at >= 0 and asked.text.startswith(known, at):
            rest = asked.text[at + len(known) :]
            if not (asked.is_raw and kept.messages[-1].is_raw):
                # What joins the two texts belongs to neither.
                rest = rest.removeprefix(TEXT_GAP)
            others = tuple(part for part in asked.parts if not isinstance(part, TextPart))
            parts = (*spoken(Speaker.USER, rest).parts, *others)
            return (msgspec.structs.replace(asked, parts=parts),) if parts else ()
    return None


def _before_broken_turn(kept: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """Return what was kept before the last turn, where that has a question and its answer was not received whole; else None."""
    if kept[-1].speaker is not Speaker.ASSISTANT or kept[-1].mark is Wholeness.WHOLE:
        return None
    begun = len(kept) - 1
    while begun and kept[begun - 1].speaker is not Speaker.ASSISTANT:
        begun -= 1
    return kept[:begun] if begun < len(kept) - 1 else None


# --- what is kept


def after_race(current: Conversation, given: Given, merged: Merged) -> Conversation:
    """Return what was asked as it follows a conversation that others have changed meanwhile, who keep what they wrote.

    Of a history that came with it only what follows its last answer.
    """
    new = merged.new or given.messages
    last = max((position for position, one in enumerate(new[:-1]) if one.speaker is Speaker.ASSISTANT), default=-1)
    system = given.system or current.system
    return msgspec.structs.replace(current, system=system, messages=(*current.messages, *new[last + 1 :]))


def holds(current: Conversation, written: Conversation, new: int) -> bool:
    """Whether `current` has the last `new` messages of `written` in their place: they were kept, though nobody heard of it."""
    begun = written.fallen + len(written.messages) - new - current.fallen
    # Their times tell them from the same words said again.
    return begun >= 0 and current.messages[begun : begun + new] == written.messages[len(written.messages) - new :]


def conclude(asked: Conversation, answer: Message, revision: int, now_unix_s: float) -> Conversation:
    """Return what was asked with its answer, as `revision`; `asked` has this turn's facts and usage.

    The turn costs what the usage has grown by since the earlier ones.
    """
    total = asked.prompt_tokens + asked.completion_tokens
    cost = max(0, total - sum(message.tokens for message in asked.messages)) if total else 0
    return msgspec.structs.replace(
        asked,
        revision=revision,
        messages=(*asked.messages, msgspec.structs.replace(answer, tokens=cost)),
        begun_at_unix_s=asked.begun_at_unix_s or now_unix_s,
        changed_at_unix_s=now_unix_s,
    )


def dated(conversation: Conversation, now_unix_s: float) -> Conversation:
    """Return the conversation with the time at each message that has none."""
    messages = tuple(
        message if message.at_unix_s else msgspec.structs.replace(message, at_unix_s=now_unix_s)
        for message in conversation.messages
    )
    return msgspec.structs.replace(conversation, messages=messages)


# --- tool calls


def paired(messages: Sequence[Message], following: Sequence[Message] = ()) -> tuple[Message, ...]:
    """Return `messages` without calls that have no result and results that have no call; `following` come after them.

    Engines refuse a history with half a tool round. A message that said nothing else is left out.
    """
    whole: list[Message] = []
    every = (*messages, *following)
    open_calls: list[Call] = []
    for position, message in enumerate(messages):
        if message.speaker is Speaker.TOOL:
            call = _answered_call(open_calls, message)
            if call is not None:
                open_calls.remove(call)
                whole.append(message)
            continue
        open_calls = []
        if message.calls:
            unanswered = list(message.calls)
            for result in every[position + 1 :]:
                if result.speaker is not Speaker.TOOL:
                    break
                call = _answered_call(unanswered, result)
                if call is not None:
                    unanswered.remove(call)
            left = tuple(call for call in message.calls if not any(call is one for one in unanswered))
            open_calls = list(left)
            if not left and not message.parts:
                continue
            if len(left) < len(message.calls):
                message = msgspec.structs.replace(message, calls=left)  # noqa: PLW2901  the loop's own copy
        whole.append(message)
    return tuple(whole)


def _answered_call(calls: Sequence[Call], result: Message) -> Call | None:
    """Return which of `calls` a result answers: by its id, else by the tool's name, else the first."""
    for call in calls:
        if result.call_id and call.id == result.call_id:
            return call
    if result.call_id and all(call.id for call in calls):
        return None
    for call in calls:
        if result.name and call.name == result.name:
            return call
    return calls[0] if calls and not result.name else None
