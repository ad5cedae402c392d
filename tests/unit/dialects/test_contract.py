"""What every dialect promises alike: the contract, played against all three."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.ask import Ask
from understudy.dialects.contract import Dialect, Ending, Mark, StreamKind
from understudy.dialects.routes import GENERATING_PATHS

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS = {".sse": StreamKind.SSE, ".ndjson": StreamKind.NDJSON}
GENERATING = {"openai": "/v1/chat/completions", "ollama": "/api/chat", "anthropic": "/v1/messages"}

each_dialect = pytest.mark.parametrize("dialect", [dialect for dialect, _ in GENERATING_PATHS], ids=lambda dialect: dialect.name)
json_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_nests = json_leaves | st.lists(json_leaves) | st.dictionaries(st.text(), json_leaves)
json_values = json_nests | st.lists(json_nests) | st.dictionaries(st.text(), json_nests)


@each_dialect
@given(
    body=st.binary()
    | st.text(alphabet='{}[]":,\\u0model stream12enatrufls\ud800', max_size=60).map(lambda t: t.encode("utf-8", "replace"))
)
def test_any_bytes_as_a_body_give_an_ask_or_words_never_an_exception(dialect: Dialect, body: bytes) -> None:
    assert isinstance(dialect.read_ask(GENERATING[dialect.name], body, ""), Ask | str)
    assert isinstance(dialect.with_model(body, "other"), bytes)


@each_dialect
@given(data=st.binary(), kind=st.sampled_from(StreamKind), cut=st.integers(0, 40))
def test_any_bytes_as_a_stream_are_read_without_an_exception(dialect: Dialect, data: bytes, kind: StreamKind, cut: int) -> None:
    path = GENERATING[dialect.name]
    reader = dialect.reader(path, kind)
    assert all(isinstance(mark, Mark) for mark in (*reader.feed(data[:cut]), *reader.feed(data[cut:])))
    assert dialect.read_ending(path, kind, data) in Ending
    assert dialect.has_error(path, kind, data) in (True, False)


@each_dialect
@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*/*.*s*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_stream_reads_the_same_however_it_is_cut(dialect: Dialect, golden: Path) -> None:
    kind = KINDS[golden.suffix]
    data = golden.read_bytes()
    whole = dialect.reader("/", kind).feed(data)
    for size in (1, 2, 7, 1448):
        reader = dialect.reader("/", kind)
        assert tuple(mark for at in range(0, len(data), size) for mark in reader.feed(data[at : at + size])) == whole


@each_dialect
@pytest.mark.parametrize("kind", StreamKind)
@pytest.mark.parametrize("path", ["", "/v1/responses"])
def test_our_own_error_event_reads_as_an_error(dialect: Dialect, kind: StreamKind, path: str) -> None:
    path = path or GENERATING[dialect.name]
    event = dialect.error_event(path, StreamKind.SSE if path == "/v1/responses" else kind, "stalled", 'pi: "fell silent"\n')
    kind = StreamKind.SSE if path == "/v1/responses" else kind
    assert dialect.reader(path, kind).feed(event) == (Mark.ERROR,)
    assert dialect.has_error(path, kind, event)
    assert dialect.read_ending(path, kind, event) is Ending.ERROR


@each_dialect
def test_an_event_longer_than_the_bound_is_an_error_and_ends_the_reading(dialect: Dialect) -> None:
    reader = dialect.reader(GENERATING[dialect.name], StreamKind.SSE, 64)
    assert reader.feed(b": alive\n\ndata: ") == (Mark.COMMENT,)
    assert reader.feed(b"x" * 100) == (Mark.ERROR,)
    assert reader.is_overlong
    assert reader.feed(b"\n\ndata: [DONE]\n\n") == ()


@each_dialect
@given(value=json_values)
def test_any_json_event_has_marks(dialect: Dialect, value: object) -> None:
    """Types that no engine sends are OTHER or harmless, never an exception."""
    for wrapped in (
        value,
        {"choices": [value]},
        {"message": value, "done": value},
        {"type": "content_block_delta", "delta": value},
    ):
        data = b"data: " + json.dumps(wrapped).encode() + b"\n\n"
        assert dialect.reader(GENERATING[dialect.name], StreamKind.SSE).feed(data)


@each_dialect
def test_content_types_tell_streams_in_any_case_and_with_parameters(dialect: Dialect) -> None:
    assert dialect.stream_kind(b"Text/Event-Stream; charset=utf-8") is StreamKind.SSE
    assert dialect.stream_kind(b"application/x-ndjson") is StreamKind.NDJSON
    assert dialect.stream_kind(b"application/json") is None
    assert dialect.stream_kind(b"") is None
