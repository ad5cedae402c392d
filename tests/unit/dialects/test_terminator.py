"""The event after which nothing of an answer follows is known from a text that only says so."""

import pytest

from understudy.dialects.contract import StreamKind
from understudy.dialects.terminator import may_end, terminator_at

PIECE = b'data: {"choices":[{"delta":{"content":"a [DONE] b"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
LINE = b'{"message":{"content":"\\"done\\":true"},"done":false}\n'
LAST = b'{"message":{"content":""},"done":true}\n'


@pytest.mark.parametrize(
    ("kind", "before", "rest"),
    [
        (StreamKind.SSE, PIECE, DONE),
        (StreamKind.SSE, PIECE, DONE + b": bye\n\n"),
        (StreamKind.SSE, b"", b"data: [DONE]"),
        (StreamKind.SSE, PIECE, b'event: message_stop\ndata: {"type":"message_stop"}\n\n' + DONE),
        (StreamKind.SSE, PIECE, b'data: {"type":"message_stop"}\n\n'),
        (StreamKind.SSE, b'event: content\ndata: {"text":"message_stop"}\n\n', b""),
        (StreamKind.SSE, PIECE + PIECE, b""),
        (StreamKind.SSE, b"data: [DONE\r\n\r\n", b"data: [DONE]\r\n\r\n"),
        (StreamKind.NDJSON, LINE, LAST),
        (StreamKind.NDJSON, LINE, LAST.strip()),
        (StreamKind.NDJSON, LINE + b'{"done": "true", "a": "\\"done\\": true"}\n', b""),
        (StreamKind.NDJSON, b'not json "done":true\n', LAST),
        (StreamKind.SSE, b"", b""),
    ],
)
def test_it_is_found_where_it_begins(kind: StreamKind, before: bytes, rest: bytes) -> None:
    assert terminator_at(before + rest, kind) == len(before)
    assert may_end(before + rest, kind) or not rest
