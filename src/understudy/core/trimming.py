"""What falls off the front of a conversation: whole turns, the oldest first, until it is within its bounds.

Called by dataplane.turn before a conversation is kept. Never the system message, never half a tool round. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from understudy.core.conversation import Conversation
from understudy.core.message import ImagePart, Message, OtherPart, Part, Speaker, TextPart

# What a message takes besides its text: names, punctuation, times.
_OVERHEAD_BYTES = 64
# What a token is taken for where no engine has counted.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a conversation is kept; `tokens_max` 0: no bound."""

    messages_max: int = 200
    bytes_max: int = 1024 * 1024
    tokens_max: int = 0


def trim(conversation: Conversation, bounds: Bounds) -> Conversation | None:
    """Return the conversation within its bounds; None when its last turn alone is beyond them.

    Of a last turn that is too long its earlier tool rounds fall off before that.
    """
    sizes = [size_bytes(message) for message in conversation.messages]
    if sum(map(size_bytes, conversation.system)) > bounds.bytes_max:
        return None
    if not sizes:
        return conversation
    costs = _costs(conversation, sizes)
    starts = turn_starts(conversation.messages)
    count, left_bytes, left_tokens, position = len(sizes), sum(sizes), sum(costs), 0
    for start in starts:
        for fallen in range(position, start):
            left_bytes -= sizes[fallen]
            left_tokens -= costs[fallen]
        position = start
        if _fits(count - start, left_bytes, left_tokens, bounds):
            return _kept(conversation, conversation.messages[start:])
    return _shorter_turn(conversation, position, sizes, costs, bounds)


def _shorter_turn(
    conversation: Conversation, start: int, sizes: Sequence[int], costs: Sequence[float], bounds: Bounds
) -> Conversation | None:
    """Return the conversation with nothing but its last turn, from `start` on, without as many tool rounds as it takes."""
    messages = conversation.messages
    left = set(range(start, len(messages)))
    left_bytes, left_tokens = sum(sizes[start:]), sum(costs[start:])
    for one in _tool_rounds(messages, start):
        left -= one
        left_bytes -= sum(sizes[position] for position in one)
        left_tokens -= sum(costs[position] for position in one)
        if _fits(len(left), left_bytes, left_tokens, bounds):
            return _kept(conversation, tuple(messages[position] for position in sorted(left)))
    return None


def size_bytes(message: Message) -> int:
    """Return about how many bytes a message takes where it is kept."""
    size = _OVERHEAD_BYTES + _length(message.reasoning) + sum(_part_bytes(part) for part in message.parts)
    return size + sum(_OVERHEAD_BYTES + _length(call.arguments) for call in message.calls)


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Return where each turn begins: at the first thing said to the assistant after it has answered."""
    to_assistant = (Speaker.USER, Speaker.SYSTEM)
    return [
        position
        for position, message in enumerate(messages)
        if position == 0 or (message.speaker in to_assistant and messages[position - 1].speaker not in to_assistant)
    ]


def _kept(conversation: Conversation, messages: tuple[Message, ...]) -> Conversation:
    fallen = len(conversation.messages) - len(messages)
    if not fallen:
        return conversation
    return msgspec.structs.replace(conversation, messages=messages, fallen=conversation.fallen + fallen)


def _fits(messages: int, size: int, tokens: float, bounds: Bounds) -> bool:
    is_short = messages <= bounds.messages_max and size <= bounds.bytes_max
    # Shares of tokens are no whole numbers.
    return is_short and (not bounds.tokens_max or tokens <= bounds.tokens_max + 0.5)


def _costs(conversation: Conversation, sizes: Sequence[int]) -> list[float]:
    """Return the tokens of each message: what its turn is known to have cost, else its share by size of what is left.

    Where the last answer told no usage, an estimate by size stands for turns of unknown cost.
    """
    total = conversation.prompt_tokens + conversation.completion_tokens
    costs = [float(message.tokens) for message in conversation.messages]
    starts = turn_starts(conversation.messages)
    untold = [
        position
        for start, end in zip(starts, [*starts[1:], len(costs)], strict=True)
        if not sum(costs[start:end])
        for position in range(start, end)
    ]
    if not total:
        # The last answer told nothing, as streams do that are not asked for their usage.
        for position in untold:
            costs[position] = max(0, sizes[position] - _OVERHEAD_BYTES) / BYTES_PER_TOKEN
        return costs
    untold_bytes = sum(sizes[position] for position in untold)
    rest = max(0.0, total - sum(costs))
    for position in untold:
        costs[position] = rest * sizes[position] / untold_bytes
    return costs


def _tool_rounds(messages: Sequence[Message], start: int) -> list[set[int]]:
    """Return the positions of each tool round from `start` on that something follows: the calls with their results."""
    rounds: list[set[int]] = []
    for position in range(start, len(messages)):
        message = messages[position]
        if message.calls:
            rounds.append({position})
        elif message.speaker is Speaker.TOOL and rounds and position - 1 in rounds[-1]:
            rounds[-1].add(position)
    return [one for one in rounds if max(one) < len(messages) - 1]


def _part_bytes(part: Part) -> int:
    if isinstance(part, TextPart):
        return _length(part.text)
    if isinstance(part, ImagePart):
        return len(part.data) + len(part.url)
    return _length(part.value) if isinstance(part, OtherPart) else 0


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
