"""Broken streams for plays: golden streams as lists of events, transcripts of them, and what a splice makes of the rest."""

import json
from pathlib import Path
from typing import Any

from understudy.core.transcript import Continuation, Means, Shape, Transcript, Wish
from understudy.dialects.contract import StreamKind
from understudy.dialects.fold import fold
from understudy.dialects.framing import event_ends, split
from understudy.dialects.splice import Splice, Spliced

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {".sse": StreamKind.SSE, ".ndjson": StreamKind.NDJSON}


def events(name: str) -> list[bytes]:
    """Return the whole events of a golden stream, each with its end."""
    data = (GOLDEN / name).read_bytes()
    ends = event_ends(data, KINDS[Path(name).suffix])
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def sse(*values: dict[str, Any]) -> bytes:
    """Write server-sent events."""
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


def ndjson(*values: dict[str, Any]) -> bytes:
    """Write lines."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def read(data: bytes) -> list[Any]:
    """Return the JSON of all events of a stream, [DONE] as it is; comments are left out."""
    kind = StreamKind.NDJSON if data.startswith(b"{") else StreamKind.SSE
    found = [event.data for event in split(data, kind) if event.data is not None]
    return ["[DONE]" if event == b"[DONE]" else json.loads(event) for event in found]


def received(shape: Shape, data: bytes) -> Transcript:
    """Return what a client has after `data`."""
    transcript = Transcript()
    fold(transcript, shape, data)
    return transcript


def spliced(
    wish: Wish,
    before: bytes | Transcript,
    after: bytes,
    *,
    shape: Shape | None = None,
    earlier_s: float = 0.0,
    **facts: Any,
) -> tuple[Spliced, Splice]:
    """Break a stream behind `before` and go on with `after`, at once and to its clean end. `facts` are of the continuation."""
    transcript = before if isinstance(before, Transcript) else received(wish.shape, before)
    going_on = Continuation(Means.LLAMACPP_CHAT, "/", b"", shape or wish.shape, **facts)
    splice = Splice(wish, transcript, going_on, backend="gpu1", earlier_s=earlier_s)
    first, last = splice.feed(after), splice.end()
    both = Spliced(
        first.data + last.data,
        first.kept + last.kept,
        first.is_content or last.is_content,
        last.is_complete,
        last.is_error,
    )
    return both, splice


def text_of(shape: Shape, data: bytes) -> str:
    """Return the text of a stream."""
    return received(shape, data).text
