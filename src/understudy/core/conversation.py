"""A session's conversation: what is kept of it, how a client's messages are merged with it, and what falls off its front.

Called by dataplane.turn with what dialects read of a request or an answer; kept by sessions. The rule of merging is told to
operators in docs/sessions.md. Pure: no clock, no store, no wire format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from understudy.core.message import Call, Mark, Message, Speaker, identity, spoken

# A last message that is said again and again is looked for this often: each look may take as long as the history is.
_LOOKS_MAX = 64
# What stands between two texts that belong to different messages, where a prompt is one text.
TEXT_GAP = "\n\n"


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session as it is kept. `revision` grows by one with every change, 0: never kept.

    `system` is said before all else and never falls off; `messages` in order. `model` is the client's name for it, `backend` and
    `color` are those of the last answer. Tokens are the last answer's usage, 0 where the engine told none; `fallen` counts the
    messages that have fallen off. Times are the wall clock's.
    """

    revision: int = 0
    system: tuple[Message, ...] = ()
    messages: tuple[Message, ...] = ()
    model: str = ""
    backend: str = ""
    color: str = ""
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

    AUTO: messages that begin with all that is kept, or with its end, are the history and what follows is new; messages that
    repeat those of the last turn, whose answer its client did not get whole, take that turn's place; other messages among which
    is one of an assistant's are another history; all else is new.
    """
    if not kept.messages:
        return _merged(Merging.NEW, kept, given, before=(), new=given.messages)
    if mode is Mode.REPLACE:
        return _replaced(kept, given)
    if mode is Mode.AUTO:
        new = _new_text(kept, given) if given.is_text else _new_messages(kept.messages, given.messages)
        if new is not None:
            # What the client leaves out at the front still goes before; a text path has its whole prompt already.
            known = len(given.messages) - len(new)
            before = () if given.is_text else kept.messages[: max(0, len(kept.messages) - known)]
            asked = kept.messages
            return _merged(Merging.RECOGNISED, kept, given, before=before, new=new, asked=asked)
        if _is_retry(kept.messages, given.messages):
            before = kept.messages[: len(kept.messages) - 1 - len(given.messages)]
            return _merged(Merging.RETRIED, kept, given, before=before, new=given.messages)
        if not given.is_text and any(message.speaker is Speaker.ASSISTANT for message in given.messages):
            return _replaced(kept, given)
    return _merged(Merging.APPENDED, kept, given, before=kept.messages, new=given.messages)


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


def _new_messages(kept: Sequence[Message], given: Sequence[Message]) -> tuple[Message, ...] | None:
    """Return what follows the history in `given`; None when `given` has neither all of `kept` nor its end at its front."""
    history, sent = [identity(message) for message in kept], [identity(message) for message in given]
    looks = 0
    for end in range(len(sent), 0, -1):
        if sent[end - 1] != history[-1]:
            continue
        looks += 1
        if looks > _LOOKS_MAX:
            break
        length = min(end, len(history))
        # The same question once more is a question.
        is_history = any(message.speaker is not Speaker.USER for message in given[end - length : end])
        if is_history and sent[end - length : end] == history[len(history) - length :]:
            return tuple(given[end:])
    return None


def _new_text(kept: Conversation, given: Given) -> tuple[Message, ...] | None:
    """Return what a prompt adds to the text that is kept; None when it does not begin with it."""
    if given.has_context:
        return given.messages
    asked = given.messages[0]
    first = kept.system if asked.is_raw else ()
    for known in (text_of((*first, *kept.messages)), text_of(kept.messages)):
        if known and asked.text.startswith(known):
            rest = asked.text[len(known) :]
            return (msgspec.structs.replace(asked, parts=spoken(Speaker.USER, rest).parts),) if rest else ()
    return None


def _is_retry(kept: Sequence[Message], given: Sequence[Message]) -> bool:
    """Whether the last answer was not received whole and `given` is what it answered."""
    if kept[-1].speaker is not Speaker.ASSISTANT or kept[-1].mark is Mark.WHOLE or not given:
        return False
    asked = kept[-1 - len(given) : -1]
    previous = kept[: -1 - len(given)]
    is_whole_turn = not previous or previous[-1].speaker is Speaker.ASSISTANT
    return is_whole_turn and len(asked) == len(given) and [*map(identity, asked)] == [*map(identity, given)]


# --- tool calls


def paired(messages: Sequence[Message], following: Sequence[Message] = ()) -> tuple[Message, ...]:
    """Return `messages` without calls that have no result and results that have no call; `following` come after them.

    Engines refuse a history with half a tool exchange. A message that said nothing else is left out.
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
