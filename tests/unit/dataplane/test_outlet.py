"""Plays of the client's side of an answer: its head, its framing, what is written between events, and clients that lag."""

import pytest

from support.answers import LAST_CHUNK, NDJSON, chunk, head_bytes, line, stream_head
from support.continuing import BEGUN, broken, llamas, text_of, until_asked
from support.stage import DONE, FINISH, OPENING, Stage, chat, dechunk, delta, request, stream_of
from support.targets import targets
from support.transports import settle
from understudy.core.snapshot import Limits, Timeouts
from understudy.dataplane.outlet import COPY_BYTES_MAX
from understudy.errors import FailureKind

K = FailureKind
REST = stream_of("lo")
COMMENT = b":\n\n"
SHORT = Timeouts(keepalive_s=2.0)


def fields_of(data: bytes) -> list[bytes]:
    """Return the field lines of a head in lower case."""
    return [field.lower() for field in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]


# --- heads and framing


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", [], []),
        ("1.1", ["Connection: close"], [b"connection: close"]),
        ("1.0", [], [b"connection: close"]),
        ("1.0", ["Connection: keep-alive"], [b"connection: keep-alive"]),
    ],
)
async def test_head_tells_whether_the_connection_stays(
    monkeypatch: pytest.MonkeyPatch, version: str, fields: list[str], expected: list[bytes]
) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat(*fields, version=version, stream=False))
    await stage.say(0, head_bytes(200, {"Content-Type": "application/json", "Content-Length": "2"}) + b"{}")
    assert [field for field in fields_of(client.data) if field.startswith(b"connection")] == expected
    assert client.is_closing() == (expected == [b"connection: close"])


async def test_body_without_a_length_lasts_until_the_end_for_an_old_client(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat("Connection: keep-alive", version="1.0"))
    await stage.say(0, stream_of("a"))
    assert b"connection: close" in fields_of(client.data)
    assert client.data.endswith(DONE)
    assert client.is_closing()


@pytest.mark.parametrize("size", [COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 5 * COPY_BYTES_MAX])
async def test_large_pieces_are_framed_as_small_ones_are(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    piece = delta("x" * (size - len(delta(""))))
    assert len(piece) == size
    await stage.say(0, BEGUN, chunk(piece), chunk(FINISH + DONE) + LAST_CHUNK)
    assert dechunk(client.data)[1:] == (OPENING + delta("Hel") + piece + FINISH + DONE, True)
    assert stage.record.sent_bytes == len(dechunk(client.data)[1])


async def test_answer_without_a_body_has_no_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("DELETE", "/v1/files/1"))
    await stage.say(0, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
    assert not [field for field in fields_of(client.data) if field.startswith((b"content-length", b"transfer-encoding"))]
    assert not client.is_closing()


# --- between events


async def test_error_behind_half_an_event_stands_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN, chunk(delta("x" * 100_000)[:90_000]))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    last = dechunk(client.data)[1].rstrip(b"\n").rpartition(b"\n\n")[2]
    assert last.startswith(b'data: {"error"')
    assert client.is_closing()


async def test_error_behind_half_a_line_stands_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}'))
    await stage.say(0, stream_head(NDJSON) + chunk(line({"response": "a", "done": False})))
    await stage.say(0, chunk(line({"response": "x" * 100_000, "done": False})[:90_000]))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    *_, last = dechunk(client.data)[1].splitlines()
    assert last.startswith(b'{"error"')


async def test_half_closed_client_of_lines_is_written_nothing_but_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(request("POST", "/api/generate", b'{"model": "qwen", "prompt": "x"}'))
    first = line({"response": "a", "done": False})
    await stage.say(0, stream_head(NDJSON) + chunk(first))
    client.end()
    await stage.pass_time(1.0)
    assert dechunk(client.data)[1] == first


async def test_half_closed_client_of_events_is_written_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *targets(1))
    client = await stage.ask(chat())
    await stage.say(0, BEGUN)
    client.end()
    assert dechunk(client.data)[1] == OPENING + delta("Hel") + COMMENT


# --- an answer that goes on


async def test_old_client_gets_the_rest_without_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat(version="1.0"))
    await stage.say(0, BEGUN)
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await until_asked(stage, 1)
    await stage.say(1, REST)
    body = client.data.partition(b"\r\n\r\n")[2]
    assert text_of(body) == "Hello"
    assert body.endswith(DONE)
    assert client.is_closing()


async def test_half_closed_client_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await broken(stage)
    client.end()
    await stage.pass_time(1.0)
    await until_asked(stage, 1)
    await stage.say(1, REST)
    assert text_of(dechunk(client.data)[1]) == "Hello"
    assert client.is_closing()


async def test_client_that_stops_reading_while_the_answer_goes_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2), limits=Limits(write_idle_s=10.0))
    client = await broken(stage)
    await until_asked(stage, 1)
    client.is_stuck = True
    await stage.say(1, stream_head() + chunk(delta("x" * 300_000)))
    assert stage.engine(1).is_paused
    await stage.pass_time(11.0)
    assert (client.is_aborted, stage.engine(1).is_aborted) == (True, True)
    assert (stage.record.failure, stage.in_flight) == (K.CLIENT_SLOW, 0)
    assert stage.tally.of("gpu1").failures_total == 0


async def test_client_that_takes_nothing_holds_the_backend_up_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *llamas(2))
    client = await stage.ask(chat())
    client.is_stuck = True
    await stage.say(0, BEGUN, chunk(delta("x" * 300_000)))
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    assert not stage.engine(1).is_paused
    await until_asked(stage, 1)
    await stage.say(1, stream_head() + chunk(delta("y")))
    assert stage.engine(1).is_paused
    client.drain()
    assert not stage.engine(1).is_paused
    await stage.say(1, chunk(FINISH + DONE) + LAST_CHUNK)
    assert text_of(dechunk(client.data)[1]) == "Hel" + "x" * 300_000 + "y"


async def test_comment_never_stands_inside_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event too long to be held back is passed on in parts, between which nothing may come."""
    stage = Stage(monkeypatch, *targets(1), timeouts=SHORT)
    client = await stage.ask(chat())
    event = delta("x" * 100_000)
    await stage.say(0, BEGUN, chunk(event[:90_000]))
    await stage.pass_time(5.0)
    await stage.say(0, chunk(event[90_000:]))
    await stage.pass_time(3.0)
    assert dechunk(client.data)[1] == OPENING + delta("Hel") + event + COMMENT
