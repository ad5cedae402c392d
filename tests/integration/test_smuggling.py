"""Requests that two readers could understand differently are refused and their connection is closed.

No byte of them reaches a backend, nor of what comes behind them; what is unusual and sound reaches it in one canonical framing.
"""

from collections.abc import Iterator

import pytest

from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.wire import Reply, Wire, chat

HIDDEN = b"POST /v1/embeddings HTTP/1.1\r\nHost: hidden\r\nContent-Length: 2\r\n\r\n{}"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def with_fields(fields: bytes, body: bytes = b"{}") -> bytes:
    """Write a chat request with these fields after its Host."""
    return LINE + HOST + fields + b"\r\n" + body


def with_length(value: bytes) -> bytes:
    """Write a chat request with this Content-Length and a body of two bytes."""
    return with_fields(b"Content-Length: " + value + b"\r\n")


def with_coding(value: bytes) -> bytes:
    """Write a chat request with this Transfer-Encoding and a body of one chunk."""
    return with_fields(b"Transfer-Encoding: " + value + b"\r\n", b"2\r\n{}\r\n0\r\n\r\n")


def with_chunks(data: bytes) -> bytes:
    """Write a chat request with a chunked body of exactly these bytes."""
    return with_fields(CHUNKED, data)


FRAMING = {
    "length, then chunked": with_fields(b"Content-Length: 2\r\n" + CHUNKED, b"0\r\n\r\n"),
    "chunked, then length": with_fields(CHUNKED + b"Content-Length: 2\r\n", b"0\r\n\r\n"),
    "two unequal lengths": with_fields(b"Content-Length: 2\r\nContent-Length: 70\r\n"),
    "two equal lengths": with_fields(b"Content-Length: 2\r\nContent-Length: 2\r\n"),
    "list of lengths": with_length(b"2, 2"),
    "list of unequal lengths": with_length(b"2, 70"),
    "signed length": with_length(b"+2"),
    "negative length": with_length(b"-2"),
    "hexadecimal length": with_length(b"0x2"),
    "underscored length": with_length(b"0_2"),
    "fraction": with_length(b"2.0"),
    "inner space": with_length(b"2 2"),
    "empty length": with_length(b""),
    "length in superscript": with_length("²".encode()),
    "length in Arabic digits": with_length("٢".encode()),
    "length beyond 64 bits": with_length(b"18446744073709551618"),
    "length with a vertical tab": with_length(b"\x0b2"),
    "space before the colon of a length": with_fields(b"Content-Length : 2\r\n"),
    "space before the colon of a coding": with_fields(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "identity": with_coding(b"identity"),
    "chunked, identity": with_coding(b"chunked, identity"),
    "gzip, chunked": with_coding(b"gzip, chunked"),
    "chunked twice": with_coding(b"chunked, chunked"),
    "chunked on two lines": with_fields(CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "chunked and identity on two lines": with_fields(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "no known coding": with_coding(b"xchunked"),
    "quoted coding": with_coding(b'"chunked"'),
    "coding with a parameter": with_coding(b"chunked;q=1"),
    "coding after a vertical tab": with_coding(b"\x0bchunked"),
    "coding before a NUL": with_coding(b"chunked\x00"),
    "empty coding": with_coding(b""),
    "folded coding": with_coding(b"\r\n chunked"),
    "chunked in HTTP/1.0": b"POST /v1/chat/completions HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
}
CHUNKS = {
    "prefixed size": with_chunks(b"0x2\r\n{}\r\n0\r\n\r\n"),
    "signed size": with_chunks(b"+2\r\n{}\r\n0\r\n\r\n"),
    "negative size": with_chunks(b"-2\r\n{}\r\n0\r\n\r\n"),
    "underscored size": with_chunks(b"0_2\r\n{}\r\n0\r\n\r\n"),
    "space before a size": with_chunks(b" 2\r\n{}\r\n0\r\n\r\n"),
    "empty size": with_chunks(b"\r\n{}\r\n0\r\n\r\n"),
    "size beyond 64 bits": with_chunks(b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    "no hexadecimal": with_chunks(b"zz\r\n{}\r\n0\r\n\r\n"),
    "size ended by LF": with_chunks(b"2\n{}\r\n0\r\n\r\n"),
    "data ended by LF": with_chunks(b"2\r\n{}\n0\r\n\r\n"),
    "data longer than its size": with_chunks(b"2\r\n{}xx\r\n0\r\n\r\n"),
    "data shorter than its size": with_chunks(b"5\r\n{}\r\n0\r\n\r\n"),
    "last chunk ended by LF": with_chunks(b"2\r\n{}\r\n0\n\n"),
    "bare LF in an extension": with_chunks(b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "bare CR in an extension": with_chunks(b"2;a\rb\r\n{}\r\n0\r\n\r\n"),
    "endless extension": with_chunks(b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"),
    "endless trailers": with_chunks(b"2\r\n{}\r\n0\r\n" + b"X-More: b\r\n" * 10_000 + b"\r\n"),
    "length in a trailer": with_chunks(b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "malformed trailer": with_chunks(b"2\r\n{}\r\n0\r\nX More: b\r\n\r\n"),
}
HEADS = {
    "bare LF after the request line": LINE.replace(b"\r\n", b"\n") + HOST + b"\r\n",
    "bare LF after a field": LINE + b"Host: a\n\r\n",
    "bare LF everywhere": b"GET /v1/models HTTP/1.1\nHost: a\n\n",
    "bare CR in a field": with_fields(b"X-A: b\rContent-Length: 2\r\n"),
    "bare CR before the end": LINE + HOST + b"X-A: b\r\r\n\r\n",
    "NUL in a field": with_fields(b"X-A: b\x00c\r\n"),
    "folded field": with_fields(b"X-A: b\r\n c\r\n"),
    "first field folded": LINE + b" Host: a\r\n\r\n",
    "field without a colon": with_fields(b"Content-Length\r\n"),
    "field without a name": with_fields(b": b\r\n"),
    "space in a name": with_fields(b"X A: b\r\n"),
    "bracket in a name": with_fields(b"X(A: b\r\n"),
    "name beyond ASCII": with_fields("X-Ä: b\r\n".encode()),
    "no Host": LINE + b"Content-Length: 2\r\n\r\n{}",
    "two Hosts": LINE + b"Host: a\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}",
    "two equal Hosts": LINE + b"Host: a\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    "Host with a user": LINE + b"Host: b@a\r\nContent-Length: 2\r\n\r\n{}",
    "Host with a path": LINE + b"Host: a/b\r\nContent-Length: 2\r\n\r\n{}",
    "Host with a space": LINE + b"Host: a b\r\nContent-Length: 2\r\n\r\n{}",
    "port that is no number": LINE + b"Host: a:b\r\nContent-Length: 2\r\n\r\n{}",
    "two spaces": b"GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/v1/models\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space after the version": b"GET /v1/models HTTP/1.1 \r\nHost: a\r\n\r\n",
    "space in the target": b"GET /v1/models HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /v1/models\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "small letters of a version": b"GET /v1/models http/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"FROB /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "bracket in a method": b"GE(T /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    "target with a fragment": b"GET /v1/models#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "target beyond ASCII": "GET /v1/mödels HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "target with a control character": b"GET /v1/\x01models HTTP/1.1\r\nHost: a\r\n\r\n",
    "target that is no path": b"GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "target with another scheme": b"GET ftp://a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "target with a user": b"GET http://b@a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "two empty lines first": b"\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space first": b" GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "greeting of TLS": bytes.fromhex("16030100f8010000f40303") + bytes(100),
    "junk": b"\xff\xfe\x00\x01 how are you?\r\n\r\n",
}
REFUSALS = {400, 501, 505}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedEngine, Daemon]]:
    """Run one engine behind one daemon; probes are rare, so that everything the engine sees is a client's."""
    folder = tmp_path_factory.mktemp("smuggling")
    with ScriptedEngine("gpu0") as engine, Daemon(settings(backend(engine), health={"interval": "60s"}), folder) as daemon:
        daemon.wait_condition("up")
        yield engine, daemon


@pytest.mark.parametrize("message", [*FRAMING.values(), *CHUNKS.values(), *HEADS.values()], ids=[*FRAMING, *CHUNKS, *HEADS])
def test_an_ambiguous_request_is_refused_and_nothing_of_it_reaches_a_backend(
    shared: tuple[ScriptedEngine, Daemon], message: bytes
) -> None:
    engine, daemon = shared
    engine.fresh()
    with Wire(daemon.port, deadline_s=5.0) as wire:
        wire.send(message + HIDDEN)
        # Nobody waits for more of the message: whatever it is, it must be refused on what has come.
        reply = wire.read_reply()
        assert wire.is_closed_by_peer(), "the connection goes on after a message that nobody can be sure of"
    assert reply.status in REFUSALS, reply
    assert reply.head.get("Connection") == "close"
    assert reply.json()["error"]["message"]
    # Whoever comes later is served, and by then anything let through would have arrived.
    assert daemon.ask(body=chat()).status == 200
    assert [request.path for request in engine.seen.requests] == ["/v1/chat/completions"]
    assert not [request for request in engine.seen.probes if b"hidden" in request.raw]


@pytest.mark.parametrize("message", [*FRAMING.values(), *HEADS.values()], ids=[*FRAMING, *HEADS])
def test_an_ambiguous_request_behind_a_good_one_is_refused_in_its_turn(
    shared: tuple[ScriptedEngine, Daemon], message: bytes
) -> None:
    engine, daemon = shared
    engine.fresh()
    with Wire(daemon.port, deadline_s=5.0) as wire:
        wire.send(with_length(b"16")[:-2] + b'{"model":"tiny"}' + message + HIDDEN)
        replies: list[Reply] = [wire.read_reply(), wire.read_reply()]
        assert wire.is_closed_by_peer()
    assert replies[0].status == 200
    assert replies[1].status in REFUSALS
    assert len(engine.seen.requests) == 1


GOOD = {
    "small letters": with_fields(b"transfer-encoding: Chunked\r\n", b'10\r\n{"model":"tiny"}\r\n0\r\n\r\n'),
    "chunks with extensions": with_chunks(b'0008;a=b\r\n{"model"\r\n8;c="d"\r\n:"tiny"}\r\n000\r\n\r\n'),
    "trailers": with_chunks(b'10\r\n{"model":"tiny"}\r\n0\r\nX-Trailer: smuggled\r\nAuthorization: smuggled\r\n\r\n'),
    "empty line first": b"\r\n" + with_length(b"16")[:-2] + b'{"model":"tiny"}',
    "zeros before a length": with_length(b"0016")[:-2] + b'{"model":"tiny"}',
    "absolute target": with_length(b"16")[:-2].replace(b" /v1", b" http://other:1/v1") + b'{"model":"tiny"}',
    "fields of one connection": with_fields(
        b"Content-Length: 16\r\nConnection: X-Mine, Content-Type\r\nX-Mine: smuggled\r\nTE: trailers\r\nTrailer: X-A\r\n"
        b"Keep-Alive: smuggled\r\nUpgrade: h2c\r\nHTTP2-Settings: smuggled\r\nProxy-Authorization: smuggled\r\n"
        b"Proxy-Connection: smuggled\r\nContent-Type: application/json\r\n",
        b'{"model":"tiny"}',
    ),
}


@pytest.mark.parametrize("message", GOOD.values(), ids=GOOD)
def test_whatever_came_in_the_backend_gets_one_canonical_framing(shared: tuple[ScriptedEngine, Daemon], message: bytes) -> None:
    engine, daemon = shared
    engine.fresh()
    with Wire(daemon.port, deadline_s=5.0) as wire:
        wire.send(message)
        assert wire.read_reply().status == 200
    (seen,) = engine.seen.requests
    assert seen.raw.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % engine.port)
    assert seen.header("Content-Length") == "16"
    assert seen.body == b'{"model":"tiny"}'
    assert b"smuggled" not in seen.raw
    for name in ("Transfer-Encoding", "TE", "Trailer", "Upgrade", "Connection"):
        assert not seen.header(name)
    assert "understudy" in seen.header("Via")
