"""Find the event after which nothing of an answer follows: [DONE], message_stop, Ollama's last line.

Called by dataplane.withheld with whole events as they pass. A text that only says such a word is none. Pure.
"""

from understudy.dialects.contract import StreamKind
from understudy.dialects.events import read_json
from understudy.dialects.framing import event_ends, split


def may_end(data: bytes, kind: StreamKind) -> bool:
    """Whether a terminator may stand in `data`: a cheap search that spares the look at each event."""
    if kind is StreamKind.SSE:
        return b"[DONE]" in data or b"message_stop" in data
    return b'"done":true' in data or b'"done": true' in data


def terminator_at(data: bytes, kind: StreamKind) -> int:
    """Return where the first terminator begins in `data`, whole events (the last may lack its end); its length for none."""
    begun = 0
    for end in (*event_ends(data, kind), len(data)):
        if end > begun and _is_terminator(data[begun:end], kind):
            return begun
        begun = end
    return len(data)


def _is_terminator(event: bytes, kind: StreamKind) -> bool:
    if not may_end(event, kind):
        return False
    for name, data in split(event, kind):
        if data is None:
            continue
        if kind is StreamKind.SSE and (data.strip() == b"[DONE]" or name == b"message_stop"):
            return True
        value = read_json(data)
        if isinstance(value, dict) and (value.get("done") is True or value.get("type") == "message_stop"):
            return True
    return False
