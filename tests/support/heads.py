"""Request heads as clients may write them, with what has to become of them, and heads read and written on.

Pure. Tables for the strict reader of requests; used by plays that go through bytes, too.
"""

from dataclasses import replace

from understudy.core.snapshot import Address, Backend, Limits
from understudy.dataplane.heads import BackendWords, Rejection, RequestHead, read_request_head, request_bytes

# A request line, and the status of its rejection (0: it is accepted).
REQUEST_LINES = [
    (b"GET / HTTP/1.1", 0),
    (b"GET / HTTP/1.0", 0),
    (b"GET /?q=%20&a=/b HTTP/1.1", 0),
    (b"GET http://other/path?q HTTP/1.1", 0),
    (b"GET HTTPS://other:8000 HTTP/1.1", 0),
    (b"M-SEARCH / HTTP/1.1", 0),
    (b"GET /", 400),
    (b"GET / HTTP/0.9", 505),
    (b"GET / HTTP/2.0", 505),
    (b"GET / HTTP/2", 505),
    (b"PRI * HTTP/2.0", 505),
    (b"GET / HTTP/1.2", 400),
    (b"GET / HTTP/1.10", 400),
    (b"GET / HTTP/01.1", 400),
    (b"GET / http/1.1", 400),
    (b"GET / HTTP/1.1 ", 400),
    (b"GET  / HTTP/1.1", 400),
    (b"GET /  HTTP/1.1", 400),
    (b" GET / HTTP/1.1", 400),
    (b"GET\t/ HTTP/1.1", 400),
    (b"GET /a b HTTP/1.1", 400),
    (b"GET /\x00 HTTP/1.1", 400),
    (b"GET /\x7f HTTP/1.1", 400),
    (b"GET /\xc3\xa9 HTTP/1.1", 400),
    (b"GET /\tx HTTP/1.1", 400),
    (b"GET /\rx HTTP/1.1", 400),
    (b"GET /\nx HTTP/1.1", 400),
    (b"G\x00T / HTTP/1.1", 400),
    (b"GE(T / HTTP/1.1", 400),
    (b"/ HTTP/1.1", 400),
    (b"", 400),
    (b"OPTIONS * HTTP/1.1", 400),
    (b"GET path HTTP/1.1", 400),
    (b"GET //[x HTTP/1.1", 0),
    (b"GET ftp://other/ HTTP/1.1", 400),
    (b"GET http:/path HTTP/1.1", 400),
    (b"GET http:///path HTTP/1.1", 400),
    (b"GET http://user@other/ HTTP/1.1", 400),
    (b"GET http://a b/ HTTP/1.1", 400),
    (b"GET /#fragment HTTP/1.1", 400),
    (b"GET http://other/#f HTTP/1.1", 400),
    (b"CONNECT / HTTP/1.1", 501),
    (b"BREW /pot HTTP/1.1", 501),
    (b"get / HTTP/1.1", 501),
]

# Values of Host that one reader can only understand one way.
HOSTS_SOUND = [b"gw", b"gw:8000", b"gw:", b"10.0.0.1:80", b"[::1]:80", b"[::1]", b"a-b_c.d", b"GW"]

# Values of Host that could name two hosts, or none.
HOSTS_MALFORMED = [
    b"a, b",
    b"a b",
    b"a/b",
    b"user@a",
    b"a:80:90",
    b"a:8x",
    b"a:123456",
    b"[::1",
    b"::1",
    b"[::1]x",
    b"a\\b",
    b"a?b",
    b"a#b",
    b"http://a",
    b"\xc3\xa9",
    b"a\x00",
]

# Fields after which two readers could disagree on where the body ends.
FRAMINGS_AMBIGUOUS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5\r\nContent-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: 5,6\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 5 5\r\n",
    b"Content-Length: 5.0\r\n",
    b"Content-Length: \r\n",
    b"Content-Length: five\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Content-Length: " + b"9" * 40 + b"\r\n",
    b"Content-Length: \xb2\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunkedx\r\n",
    b"Transfer-Encoding: chunked;q=1\r\n",
    b'Transfer-Encoding: "chunked"\r\n',
    b"Transfer-Encoding: chun\tked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding: ,chunked\r\n",
    b"Transfer-Encoding\t: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"X: y\r\n Transfer-Encoding: chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n",
    b"X: y\rTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\x00chunked\r\n",
    b"Transfer\x00-Encoding: chunked\r\n",
]

# Fields that are none by the grammar.
FIELDS_MALFORMED = [
    b"X: a\nY: b\r\n",
    b"X: a\rY: b\r\n",
    b"X: a\r\n folded\r\n",
    b"X: a\r\n\tfolded\r\n",
    b" X: first\r\n",
    b"X : space\r\n",
    b"X\t: tab\r\n",
    b"X: nul\x00\r\n",
    b"X: \x01\r\n",
    b"X: \x7f\r\n",
    b": no name\r\n",
    b"no colon\r\n",
    b"(X): y\r\n",
    b"X\xc3\xa9: y\r\n",
    b"X y: z\r\n",
    b"X: a\r\r\n",
    b"\rX: a\r\n",
]

LIMITS = Limits()
HOST = b"Host: gw\r\n"
PLAIN = Backend("gpu0", Address("http", "10.0.0.1", 8000))
KEYED = replace(PLAIN, api_key="sk-backend")


def raw(fields: bytes = b"", line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = HOST) -> bytes:
    """Write a head of these."""
    return line + b"\r\n" + host + fields + b"\r\n"


def read(fields: bytes = b"", line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = HOST) -> RequestHead:
    """Read a head that must be accepted."""
    head = read_request_head(raw(fields, line, host), LIMITS)
    assert isinstance(head, RequestHead), head
    return head


def refused(data: bytes, limits: Limits = LIMITS) -> int:
    """Return the status of the rejection; 0 when it is accepted."""
    head = read_request_head(data, limits)
    return head.status if isinstance(head, Rejection) else 0


def sent(
    fields: bytes = b"",
    *,
    line: bytes = b"POST /v1/chat/completions HTTP/1.1",
    body: bytes = b"{}",
    backend: Backend = PLAIN,
    client: bytes = b"192.0.2.7",
    reads_answer: bool = True,
) -> tuple[bytes, list[bytes], bytes]:
    """Read a head and write it on: the request line, the fields in lower case and the body that the backend gets."""
    data = request_bytes(
        read(fields, line), body, BackendWords(backend), request_id=b"id-1", client=client, reads_answer=reads_answer
    )
    head, _, content = data.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    return first, [field.partition(b":")[0].lower() + b":" + field.partition(b":")[2] for field in rest], content
