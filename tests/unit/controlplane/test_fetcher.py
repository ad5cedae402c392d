"""Plays of single probes over real sockets."""

import asyncio
import socket

import pytest

from support.asked import AskedServer, Reply, reply
from understudy.controlplane.fetcher import Fetcher
from understudy.core.health import Seen
from understudy.core.snapshot import Address, Backend, EngineKind, HealthRules
from understudy.engines import Finding
from understudy.engines.contract import PROBE_BODY_BYTES_MAX

MODELS = reply({"data": [{"id": "m"}]})


def backend(port: int, *, scheme: str = "http", host: str = "127.0.0.1", timeout_s: float = 5.0, key: str = "") -> Backend:
    health = HealthRules(timeout_s=timeout_s)
    return Backend("b", Address(scheme, host, port), engine=EngineKind.OPENAI, api_key=key, health=health)


async def fetch(models: Reply, *, timeout_s: float = 5.0) -> Finding:
    async with AskedServer({"/v1/models": models}) as server:
        return await Fetcher().fetch_finding(backend(server.port, timeout_s=timeout_s), EngineKind.OPENAI)


async def test_an_answer_is_read() -> None:
    finding = await fetch(MODELS)
    assert finding.seen is Seen.GOOD
    assert finding.models is not None
    assert finding.models[0].name == "m"


async def test_the_prefix_and_the_key_are_sent_and_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with AskedServer({"/up/v1/models": MODELS}) as server:
        address = Address("http", "127.0.0.1", server.port, "/up")
        finding = await Fetcher().fetch_finding(Backend("b", address, api_key="secret"), EngineKind.OPENAI)
    assert finding.seen is Seen.GOOD
    assert b"\r\nauthorization: Bearer secret\r\n" in server.heads[0].lower().replace(b"bearer", b"Bearer")
    assert b"\r\naccept-encoding: identity\r\n" in server.heads[0].lower()


async def test_without_a_key_none_is_sent() -> None:
    async with AskedServer({"/v1/models": MODELS}) as server:
        await Fetcher().fetch_finding(backend(server.port), EngineKind.OPENAI)
    assert b"authorization" not in server.heads[0].lower()


async def test_a_server_that_wants_a_key_that_only_its_clients_have_is_a_generic_one() -> None:
    async with AskedServer({"/v1/models": reply(b"", 401)}) as server:
        finding = await Fetcher().fetch_finding(backend(server.port), EngineKind.AUTO)
        assert (finding.seen, finding.engine, finding.wants_key) == (Seen.GOOD, EngineKind.OPENAI, True)
        wrong = await Fetcher().fetch_finding(backend(server.port, key="another"), EngineKind.AUTO)
    assert (wrong.seen, wrong.engine) == (Seen.BAD, EngineKind.AUTO)


async def test_a_closed_port_refuses() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        finding = await Fetcher().fetch_finding(backend(unused.getsockname()[1]), EngineKind.AUTO)
    assert (finding.seen, finding.reason) == (Seen.BAD, "refused the connection")


@pytest.mark.parametrize("host", ["understudy-has-no-such-name.invalid", "xn--", "a" * 64 + ".invalid"])
async def test_a_name_that_does_not_resolve_is_said_to_be_one(host: str) -> None:
    finding = await Fetcher().fetch_finding(backend(80, host=host, timeout_s=30.0), EngineKind.OPENAI)
    assert (finding.seen, finding.reason) == (Seen.BAD, "has a name that does not resolve")


async def test_probes_go_to_the_addresses_that_traffic_goes_to_until_one_answers() -> None:
    async def resolve(host: str) -> tuple[str, ...]:
        assert host == "gpu.invalid"
        return "127.0.0.2", "127.0.0.1"

    async with AskedServer({"/v1/models": MODELS}) as server:
        finding = await Fetcher(resolve).fetch_finding(backend(server.port, host="gpu.invalid"), EngineKind.OPENAI)
        assert finding.seen is Seen.GOOD
        assert f"\r\nhost: gpu.invalid:{server.port}\r\n".encode() in server.heads[0].lower()
        literal = await Fetcher(resolve).fetch_finding(backend(server.port), EngineKind.OPENAI)
        assert literal.seen is Seen.GOOD


async def test_a_name_that_traffic_cannot_resolve_either_is_said_to_be_one() -> None:
    async def resolve(host: str) -> tuple[str, ...]:
        raise socket.gaierror(-2, "unknown")

    finding = await Fetcher(resolve).fetch_finding(backend(80, host="gpu.invalid"), EngineKind.OPENAI)
    assert (finding.seen, finding.reason) == (Seen.BAD, "has a name that does not resolve")


async def test_https_towards_plain_http_fails_the_handshake() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finding = await Fetcher().fetch_finding(backend(port, scheme="https"), EngineKind.OPENAI)
    assert (finding.seen, finding.reason) == (Seen.BAD, "failed the TLS handshake")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("slow", [silent, dripping])
async def test_silence_and_slowness_end_with_the_time_for_the_whole_probe(slow: Reply) -> None:
    finding = await fetch(slow, timeout_s=0.1)
    assert (finding.seen, finding.reason) == (Seen.BAD, "no answer within 0.1s")


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (hanging_up, "closed the connection without an answer"),
        (resetting, "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "sent something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000, "sent something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "broke off in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "sent something that is not HTTP"),
        (reply(b"", 302, Location="/elsewhere"), "answered 302: a redirect is not followed; correct the url"),
    ],
)
async def test_a_broken_answer_leaves_a_reason(broken: Reply, reason: str) -> None:
    finding = await fetch(broken)
    assert (finding.seen, finding.reason) == (Seen.BAD, reason)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


async def test_an_endless_answer_is_cut() -> None:
    finding = await fetch(endless, timeout_s=20.0)
    assert (finding.seen, finding.reason) == (Seen.BAD, f"/v1/models gave a list of more than {PROBE_BODY_BYTES_MAX >> 20} MiB")


async def test_a_compressed_answer_that_was_not_asked_for_is_not_unpacked() -> None:
    finding = await fetch(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")
    assert (finding.seen, finding.reason) == (Seen.BAD, "/v1/models gave a list that is not JSON")


async def test_questions_that_only_complete_the_picture_may_take_the_rest_of_the_time() -> None:
    answers: dict[str, Reply] = {"/health": reply(), "/v1/models": MODELS, "/version": silent, "/metrics": silent}
    async with AskedServer(answers) as server:
        finding = await Fetcher().fetch_finding(backend(server.port, timeout_s=0.3), EngineKind.VLLM)
    assert (finding.seen, finding.reason) == (Seen.GOOD, "")
    # When the time was up nothing more was sent.
    assert server.asked == ["/health", "/v1/models", "/version"]


async def test_the_figures_of_the_work_are_read_within_the_time_of_a_probe() -> None:
    async with AskedServer({"/metrics": reply(b"vllm:num_requests_running 1\n")}) as server:
        assert await Fetcher().fetch_figures(backend(server.port), EngineKind.VLLM) == (b"vllm:num_requests_running 1",)
        server.answers["/metrics"] = silent
        assert await Fetcher().fetch_figures(backend(server.port, timeout_s=0.1), EngineKind.VLLM) is None
