"""Heads of requests and answers: what two readers could understand differently is refused, and what goes on is canonical."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.heads import (
    FIELDS_MALFORMED,
    FRAMINGS_AMBIGUOUS,
    HOST,
    HOSTS_MALFORMED,
    HOSTS_SOUND,
    KEYED,
    LIMITS,
    PLAIN,
    REQUEST_LINES,
    raw,
    read,
    refused,
    sent,
)
from understudy.core.snapshot import Address
from understudy.dataplane.heads import (
    ResponseHead,
    looks_malformed,
    own_response,
    status_line,
)

# --- request lines


@pytest.mark.parametrize(
    ("line", "status"),
    REQUEST_LINES,
)
def test_request_line_is_taken_literally(line: bytes, status: int) -> None:
    assert refused(raw(line=line)) == status


@pytest.mark.parametrize(
    ("target_as_sent", "target_read", "path"),
    [
        (b"/v1/models?a=1?b", b"/v1/models?a=1?b", b"/v1/models"),
        (b"http://other:80/v1/models?a", b"/v1/models?a", b"/v1/models"),
        (b"http://other", b"/", b"/"),
        (b"http://other?a", b"/?a", b"/"),
        (b"//other/v1/models", b"//other/v1/models", b"//other/v1/models"),
        (b"/%2e%2e/v1", b"/%2e%2e/v1", b"/%2e%2e/v1"),
    ],
)
def test_target_is_a_path_and_goes_on_as_it_came(target_as_sent: bytes, target_read: bytes, path: bytes) -> None:
    head = read(line=b"GET %b HTTP/1.1" % target_as_sent)
    assert (head.method, head.target, head.path) == (b"GET", target_read, path)


def test_tunnel_is_refused() -> None:
    assert refused(raw(line=b"CONNECT other:443 HTTP/1.1")) in (400, 501)


# --- Host


@pytest.mark.parametrize("host", HOSTS_SOUND)
def test_sound_host_is_accepted(host: bytes) -> None:
    assert refused(raw(host=b"Host: %b\r\n" % host)) == 0


@pytest.mark.parametrize(
    "host",
    HOSTS_MALFORMED,
)
def test_malformed_host_is_refused(host: bytes) -> None:
    assert refused(raw(host=b"Host: %b\r\n" % host)) == 400


def test_exactly_one_host_is_wanted() -> None:
    assert refused(raw(host=b"")) == 400
    assert refused(raw(host=HOST + HOST)) == 400
    assert refused(raw(host=b"Host: a\r\nHOST: b\r\n")) == 400
    assert refused(raw(host=b"Host:\r\n")) == 0


def test_old_clients_may_leave_host_out() -> None:
    assert refused(raw(line=b"GET / HTTP/1.0", host=b"")) == 0
    assert refused(raw(line=b"GET / HTTP/1.0", host=HOST + HOST)) == 400


# --- framing


@pytest.mark.parametrize(
    ("fields", "length", "is_chunked"),
    [
        (b"", -1, False),
        (b"Content-Length: 0\r\n", 0, False),
        (b"Content-Length: 12\r\n", 12, False),
        (b"content-length:12\r\n", 12, False),
        (b"Content-Length: \t 12\r\n", 12, False),
        (b"Content-Length: 12 \t\r\n", 12, False),
        (b"Transfer-Encoding: chunked\r\n", -1, True),
        (b"transfer-encoding: Chunked\r\n", -1, True),
    ],
)
def test_framing_that_means_one_thing_is_accepted(fields: bytes, length: int, is_chunked: bool) -> None:
    head = read(fields)
    assert (head.content_length, head.is_chunked) == (length, is_chunked)


@pytest.mark.parametrize(
    "fields",
    FRAMINGS_AMBIGUOUS,
)
def test_framing_that_could_mean_two_things_is_refused(fields: bytes) -> None:
    assert refused(raw(fields)) == 400


@pytest.mark.parametrize("fields", [b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"])
def test_old_clients_have_no_transfer_coding(fields: bytes) -> None:
    assert refused(raw(fields, line=b"POST / HTTP/1.0")) == 400


@pytest.mark.parametrize(
    "fields",
    FIELDS_MALFORMED,
)
def test_malformed_field_is_refused(fields: bytes) -> None:
    assert refused(raw(fields)) == 400


def test_field_values_may_hold_what_the_grammar_allows() -> None:
    head = read(b'X: caf\xc3\xa9 \t"quoted" ;=,\r\nEmpty:\r\n')
    assert [line for _, line in head.fields] == [b'X: caf\xc3\xa9 \t"quoted" ;=,\r\n', b"Empty: \r\n"]


# --- bounds


def test_too_long_a_target_is_refused() -> None:
    limits = replace(LIMITS, target_bytes_max=20)
    assert refused(raw(line=b"GET /%b HTTP/1.1" % (b"a" * 19)), limits) == 0
    assert refused(raw(line=b"GET /%b HTTP/1.1" % (b"a" * 20)), limits) == 414


def test_too_many_fields_are_refused() -> None:
    limits = replace(LIMITS, fields_max=10)
    assert refused(raw(b"X: y\r\n" * 9), limits) == 0
    assert refused(raw(b"X: y\r\n" * 10), limits) == 431
    assert refused(raw(b"Connection: close\r\n" * 10), limits) == 431


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reader_raise(junk: bytes) -> None:
    refused(junk + b"\r\n\r\n")
    refused(raw(junk + b"\r\n"))
    looks_malformed(junk)


# --- what is told early


@pytest.mark.parametrize("start", [b"G", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\nHo", b"\r\n"])
def test_start_of_a_head_may_become_valid(start: bytes) -> None:
    assert not looks_malformed(start)


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00", b" GET", b"\x00", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nX: y\n", b"\n"]
)
def test_start_that_can_never_become_valid_is_told_early(start: bytes) -> None:
    assert looks_malformed(start)


# --- connections


@pytest.mark.parametrize(
    ("minor", "connection", "keeps_alive"),
    [
        (1, b"", True),
        (1, b"Connection: close\r\n", False),
        (1, b"Connection: CLOSE\r\n", False),
        (1, b"Connection: x, close\r\n", False),
        (1, b"Connection: x\r\nConnection: close\r\n", False),
        (1, b"Connection: keep-alive, close\r\n", False),
        (1, b"Connection: upgrade\r\n", True),
        (0, b"", False),
        (0, b"Connection: keep-alive\r\n", True),
        (0, b"Connection: Keep-Alive\r\n", True),
        (0, b"Connection: close\r\n", False),
    ],
)
def test_connection_is_kept_as_version_and_field_say(minor: int, connection: bytes, keeps_alive: bool) -> None:
    assert read(connection, line=b"GET / HTTP/1.%d" % minor).keeps_alive is keeps_alive


def test_expectation_is_seen_and_does_not_go_on() -> None:
    assert read(b"Expect: 100-Continue\r\n").expects_continue
    assert not read(b"Expect: something\r\n").expects_continue
    assert not any(field.startswith(b"expect:") for field in sent(b"Expect: 100-continue\r\n")[1])


# --- who asks, and how


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        (b"", b""),
        (b"Authorization: Bearer sk-a\r\n", b"sk-a"),
        (b"authorization: bearer   sk-a  \r\n", b"sk-a"),
        (b"X-API-Key: sk-b\r\n", b"sk-b"),
        (b"X-API-Key: sk-b\r\nAuthorization: Bearer sk-a\r\n", b"sk-a"),
        (b"Authorization: Bearer sk-a\r\nX-API-Key: sk-b\r\n", b"sk-a"),
        (b"Authorization: Basic dTpw\r\n", b""),
        (b"Authorization: Bearer \r\n", b""),
        (b"Authorization: Basic dTpw\r\nX-API-Key: sk-b\r\n", b"sk-b"),
    ],
)
def test_a_key_is_the_bearer_token_or_else_the_api_key(fields: bytes, key: bytes) -> None:
    assert read(fields).key == key


@pytest.mark.parametrize(("value", "no_resume"), [(b"1", True), (b" 1 ", True), (b"0", False), (b"", False), (b"11", False)])
def test_a_client_may_refuse_to_be_resumed(value: bytes, no_resume: bool) -> None:
    assert read(b"X-Understudy-No-Resume: %b\r\n" % value).no_resume is no_resume
    assert not read().no_resume


def test_a_wished_priority_is_read_in_any_case() -> None:
    assert read(b"X-Understudy-Priority: High\r\n").priority == b"high"
    assert read().priority == b""


# --- what the backend gets


def test_request_is_written_canonically() -> None:
    line, fields, body = sent(b"Content-Type: application/json\r\nX-Own: 1\r\nContent-Length: 2\r\n")
    assert line == b"POST /v1/chat/completions HTTP/1.1"
    assert fields[0] == b"host: 10.0.0.1:8000"
    assert sorted(fields) == sorted(
        [
            b"host: 10.0.0.1:8000",
            b"content-type: application/json",
            b"x-own: 1",
            b"x-request-id: id-1",
            b"via: 1.1 understudy",
            b"x-forwarded-for: 192.0.2.7",
            b"x-forwarded-proto: http",
            b"content-length: 2",
        ]
    )
    assert body == b"{}"


def test_field_that_connection_names_does_not_go_on() -> None:
    fields = sent(b"Connection: close, X-Hop , x-hop2\r\nX-Hop: 1\r\nX-HOP2: 2\r\nX-End: 3\r\n")[1]
    assert not any(field.startswith(b"x-hop") for field in fields)
    assert b"x-end: 3" in fields


@pytest.mark.parametrize(
    "name", [b"Host", b"Content-Length", b"Authorization", b"Content-Type", b"Content-Encoding", b"X-Forwarded-For", b"Via"]
)
def test_client_cannot_hide_what_the_message_means_by_naming_it_in_connection(name: bytes) -> None:
    given_fields = b"Authorization: Bearer a\r\nContent-Type: t/t\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n"
    fields = sent(given_fields + b"Connection: %b\r\n" % name)[1]
    assert sum(field.startswith(name.lower() + b":") for field in fields) == 1


def test_client_sends_its_own_key_unless_the_backend_has_one() -> None:
    given_fields = b"Authorization: Bearer sk-client\r\nX-API-Key: sk-client\r\n"
    assert {b"authorization: Bearer sk-client", b"x-api-key: sk-client"} <= set(sent(given_fields)[1])
    fields = sent(given_fields, backend=KEYED)[1]
    assert [field for field in fields if b"sk-" in field] == [b"authorization: Bearer sk-backend"]


def test_answer_that_is_read_may_not_be_compressed() -> None:
    assert not any(b"gzip" in field for field in sent(b"Accept-Encoding: gzip\r\n")[1])
    assert b"accept-encoding: gzip" in sent(b"Accept-Encoding: gzip\r\n", reads_answer=False)[1]


@pytest.mark.parametrize(
    ("fields", "client", "forwarded"),
    [
        (b"", b"192.0.2.7", [b"x-forwarded-for: 192.0.2.7"]),
        (b"X-Forwarded-For: 198.51.100.1\r\n", b"192.0.2.7", [b"x-forwarded-for: 198.51.100.1, 192.0.2.7"]),
        (b"X-Forwarded-For: a\r\nX-Forwarded-For: b\r\n", b"192.0.2.7", [b"x-forwarded-for: a, b, 192.0.2.7"]),
        (b"X-Forwarded-For: a\r\n", b"", [b"x-forwarded-for: a"]),
        (b"", b"", []),
    ],
)
def test_chain_of_clients_grows_by_the_peer(fields: bytes, client: bytes, forwarded: list[bytes]) -> None:
    assert [field for field in sent(fields, client=client)[1] if field.startswith(b"x-forwarded-for")] == forwarded


def test_scheme_that_a_proxy_in_front_told_is_kept() -> None:
    assert b"x-forwarded-proto: https" in sent(b"X-Forwarded-Proto: https\r\n")[1]
    assert b"x-forwarded-proto: http" not in sent(b"X-Forwarded-Proto: https\r\n")[1]


@pytest.mark.parametrize(
    ("fields", "minor", "via"),
    [
        (b"", 1, b"1.1 understudy"),
        (b"", 0, b"1.0 understudy"),
        (b"Via: 1.1 nginx\r\nVia: 2 x\r\n", 1, b"1.1 nginx, 2 x, 1.1 understudy"),
    ],
)
def test_via_tells_the_versions_on_the_way(fields: bytes, minor: int, via: bytes) -> None:
    assert b"via: " + via in sent(fields, line=b"POST / HTTP/1.%d" % minor)[1]


@pytest.mark.parametrize(
    ("value", "kept"), [(b"abc-123", b"abc-123"), (b"a b", b""), (b"x" * 128, b"x" * 128), (b"x" * 129, b""), (b"\xc3", b"")]
)
def test_request_id_of_the_client_is_kept_when_it_can_stand_in_a_log(value: bytes, kept: bytes) -> None:
    assert read(b"X-Request-ID: %b\r\n" % value).request_id == kept


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        (b"POST", b"abc", b"content-length: 3"),
        (b"POST", b"", b"content-length: 0"),
        (b"PUT", b"", b"content-length: 0"),
        (b"GET", b"", None),
        (b"GET", b"abc", b"content-length: 3"),
        (b"DELETE", b"", None),
    ],
)
def test_body_is_framed_by_its_length(method: bytes, body: bytes, length: bytes | None) -> None:
    _, fields, content = sent(line=method + b" / HTTP/1.1", body=body)
    assert [field for field in fields if field.startswith(b"content-length")] == ([length] if length else [])
    assert content == body


def test_prefix_and_authority_are_the_backends() -> None:
    backend = replace(PLAIN, address=Address("http", "::1", 9000, "/engine"))
    line, fields, _ = sent(line=b"GET http://other/v1/models?a HTTP/1.1", backend=backend)
    assert line == b"GET /engine/v1/models?a HTTP/1.1"
    assert fields[0] == b"host: [::1]:9000"


# --- answers


def answered(*fields: tuple[bytes, bytes], status: int = 200) -> tuple[ResponseHead, bool]:
    """Make an answer's head of these; whether it means one thing only."""
    head = ResponseHead()
    head.status = status
    for name, value in fields:
        head.add(name, value)
    return head, head.settle()


def test_answers_field_that_connection_names_does_not_go_on() -> None:
    head, _ = answered((b"X-Hop", b"1"), (b"Connection", b"x-hop"), (b"Content-Type", b"a/b"), (b"Connection", b"content-type"))
    assert head.lines == [b"Content-Type: a/b\r\n"]


@pytest.mark.parametrize("status", [101, 199, 600, 0])
def test_answer_of_no_known_class_is_unsound(status: int) -> None:
    assert not answered(status=status)[1]


@pytest.mark.parametrize("value", [b"gzip", b"gzip, chunked", b"identity", b"chunked, chunked"])
def test_answer_in_a_coding_that_is_not_understood_is_unsound(value: bytes) -> None:
    assert not answered((b"Transfer-Encoding", value))[1]
    assert answered((b"Transfer-Encoding", b"Chunked "))[1]


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"HTTP/1.1 200 OK\r\n"), (299, b"HTTP/1.1 299 \r\n"), (599, b"HTTP/1.1 599 \r\n")]
)
def test_status_line_has_a_reason_where_one_is_registered(status: int, line: bytes) -> None:
    assert status_line(status) == line


def test_answer_of_our_own_is_whole() -> None:
    made = own_response(404, b"{}", b"application/json", extra=b"X: y\r\n", closes=True)
    head, _, body = made.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"
    assert {b"Content-Type: application/json", b"Content-Length: 2", b"X: y", b"Connection: close"} == set(
        head.split(b"\r\n")[1:]
    )
    assert body == b"{}"
