"""Give every tool call of a stored conversation an id, and every result the id and the name of the call it answers.

Called by the dialects' `write_messages`: OpenAI's and Anthropic's APIs need ids, Ollama's may have none, and a conversation may
change its dialect. The same messages always get the same ids. Drops no message (core.conversation leaves out half exchanges).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import msgspec

from understudy.core.message import Call, Message, Speaker


def with_ids(messages: Sequence[Message], is_fitting: Callable[[str], Any]) -> list[Message]:
    """Return a copy of each of `messages`, in order, in which ids and names of tool calls and their results are complete.

    An id that is absent or not `is_fitting` is replaced by a numbered one, the same at the call and at its result. A result
    without an id answers the first open call of its name, one that tells no name either the first open call at all; one that
    answers none gets an id of its own.
    """
    if not any(message.calls or message.speaker is Speaker.TOOL for message in messages):
        return list(messages)
    ids = _Ids(messages, is_fitting)
    completed: list[Message] = []
    names: dict[str, str] = {}
    open_calls: list[Call] = []
    for message in messages:
        if message.calls:
            calls = tuple(msgspec.structs.replace(call, id=ids.fitting(call.id)) for call in message.calls)
            open_calls = list(calls)
            names.update((call.id, call.name) for call in calls)
            completed.append(msgspec.structs.replace(message, calls=calls))
        elif message.speaker is Speaker.TOOL:
            call_id = ids.fitting(message.call_id) if message.call_id else _answered(open_calls, message.name)
            call_id = call_id or ids.fitting("")
            open_calls = [call for call in open_calls if call.id != call_id]
            name = message.name or names.get(call_id, "")
            completed.append(msgspec.structs.replace(message, call_id=call_id, name=name))
        else:
            completed.append(message)
    return completed


def _answered(open_calls: list[Call], name: str) -> str:
    return next((call.id for call in open_calls if not name or call.name == name), "")


class _Ids:
    """The ids of one writing: which are in use, and what stands for those that do not fit."""

    def __init__(self, messages: Sequence[Message], is_fitting: Callable[[str], Any]) -> None:
        self._is_fitting = is_fitting
        self._standing_for: dict[str, str] = {}
        self._fresh = self._numbered({call_id for message in messages for call_id in _ids_of(message)})

    def fitting(self, call_id: str) -> str:
        """Return `call_id` if it fits, the one that stands for it, or a new one."""
        if not call_id:
            return next(self._fresh)
        if self._is_fitting(call_id):
            return call_id
        if call_id not in self._standing_for:
            self._standing_for[call_id] = next(self._fresh)
        return self._standing_for[call_id]

    @staticmethod
    def _numbered(used: set[str]) -> Iterator[str]:
        # Nine letters and digits: the one form that Mistral's templates take ("Tool call IDs should be alphanumeric strings
        # with length 9!"), and every other engine takes it, too.
        numbered = (f"call{number:05d}" for number in count(1))
        return (call_id for call_id in numbered if call_id not in used)


def _ids_of(message: Message) -> Iterator[str]:
    yield message.call_id
    yield from (call.id for call in message.calls)
