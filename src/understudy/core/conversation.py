"""A session's conversation: what is kept of it, how a client's messages are merged with it, and what falls off its front.

Called by dataplane.turn with what dialects read of a request or an answer; kept by sessions. The rule of merging is told to
operators in docs/sessions.md. Pure: no clock, no store, no wire format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from understudy.core.message import Mark, Message, Speaker, TextPart, identity

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

    `is_text`: the prompt of a text path, of which `messages` has one, raw or not.
    """

    system: tuple[Message, ...] = ()
    messages: tuple[Message, ...] = ()
    is_text: bool = False


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


class Bounds(msgspec.Struct, frozen=True):
    """How much of a conversation is kept; `tokens_max` 0: no bound."""

    messages_max: int = 200
    bytes_max: int = 1024 * 1024
    tokens_max: int = 0
