"""Short ways to write neutral messages in plays."""

from understudy.core.conversation import Conversation, Given
from understudy.core.message import Call, Message, Speaker, Wholeness, spoken


def user(text: str) -> Message:
    """Somebody asks."""
    return spoken(Speaker.USER, text)


def raw(text: str) -> Message:
    """A prompt that is plain text."""
    return spoken(Speaker.USER, text, is_raw=True)


def system(text: str) -> Message:
    """What is said before all else."""
    return spoken(Speaker.SYSTEM, text)


def assistant(text: str, mark: Wholeness = Wholeness.WHOLE, *, is_raw: bool = False) -> Message:
    """An answer, received as `mark` says."""
    return spoken(Speaker.ASSISTANT, text, mark=mark, is_raw=is_raw)


def calls(*names: str, text: str = "") -> Message:
    """An answer that calls tools; each call's id is "id-" and the name."""
    return spoken(Speaker.ASSISTANT, text, calls=tuple(Call(name, "{}", f"id-{name}") for name in names))


def result(name: str, text: str = "done") -> Message:
    """What a tool gave."""
    return spoken(Speaker.TOOL, text, call_id=f"id-{name}", name=name)


def kept(*messages: Message, said_first: str = "", revision: int = 1) -> Conversation:
    """A conversation in the store."""
    return Conversation(revision=revision, system=(system(said_first),) if said_first else (), messages=messages)


def given(*messages: Message) -> Given:
    """What a client sends; leading system messages are told apart as dialects do."""
    first = 0
    while first < len(messages) and messages[first].speaker is Speaker.SYSTEM:
        first += 1
    return Given(messages[:first], messages[first:])
