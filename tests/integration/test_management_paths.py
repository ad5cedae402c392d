"""Paths that change models, files or an engine's state get 403 however they are written, unless the operator allows them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.wire import Wire, chat, request_bytes

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedEngine, Daemon]]:
    """Run one engine behind one daemon; probes are rare, so that what the engine sees is a client's."""
    folder = tmp_path_factory.mktemp("management")
    with ScriptedEngine("gpu0", engine="ollama") as engine:
        # How the probe finds out that Anthropic's API is there, too.
        engine.on("/v1/messages", whole(405, "405 method not allowed"))
        wanted = settings(backend(engine, "ollama"), health={"interval": "60s"})
        with Daemon(wanted, folder) as daemon:
            daemon.wait_condition("up")
            yield engine, daemon


@pytest.fixture
def engine(shared: tuple[ScriptedEngine, Daemon]) -> ScriptedEngine:
    """Hand over the engine, which has seen nothing yet and takes everything."""
    shared[0].fresh()
    shared[0].always(whole(200, {"status": "success"}))
    return shared[0]


@pytest.fixture
def daemon(shared: tuple[ScriptedEngine, Daemon]) -> Daemon:
    """Hand over the daemon."""
    return shared[1]


PATHS = {
    "ollama": (
        *(
            "POST /api/pull",
            "POST /api/push",
            "POST /api/create",
            "DELETE /api/delete",
            "POST /api/copy",
            "HEAD /api/blobs/sha256:a",
        ),
        *(
            "POST /api/blobs/sha256:a",
            "POST /api/me",
            "POST /api/signout",
            "DELETE /api/user/keys/a",
            "POST /api/experimental/web_fetch",
        ),
    ),
    "vllm": (
        *("GET /metrics", "GET /load", "GET /docs", "GET /openapi.json", "POST /scale_elastic_ep", "POST /invocations"),
        *(
            "POST /inference/v1/generate",
            "POST /v1/chat/completions/render",
            "POST /v1/completions/render",
            "POST /sleep?level=2",
        ),
        *(
            "POST /wake_up",
            "POST /pause",
            "POST /resume",
            "POST /reset_prefix_cache",
            "POST /reset_mm_cache",
            "POST /collective_rpc",
        ),
        *(
            "GET /server_info",
            "POST /update_weights",
            "POST /abort_requests",
            "POST /start_profile",
            "POST /v1/load_lora_adapter",
        ),
        *("POST /v1/unload_lora_adapter", "POST /release_kv_cache_memory", "POST /generative_scoring", "GET /kv_event_sources"),
    ),
    "llamacpp": (
        *(
            "GET /slots",
            "POST /slots/0?action=erase",
            "GET /props",
            "POST /props",
            "POST /lora-adapters",
            "GET /cors-proxy?url=a",
        ),
        *("POST /tools", "GET /v1/stream/a", "POST /v1/chat/completions/control", "POST /models/load", "POST /models/unload"),
        *("POST /models", "DELETE /models", "POST /v1/models"),
    ),
    "sglang": (
        *(
            "GET /flush_cache",
            "POST /release_memory_occupation",
            "POST /resume_memory_occupation",
            "POST /update_weights_from_disk",
        ),
        *("POST /get_weights_by_name", "POST /load_lora_adapter", "POST /unload_lora_adapter", "GET /stop_profile"),
        *(
            "POST /set_internal_state",
            "GET /slow_down",
            "POST /pause_generation",
            "POST /continue_generation",
            "POST /abort_request",
        ),
        *("POST /configure_logging", "POST /open_session", "POST /dumper/a", "POST /hicache/a", "POST /encode", "POST /generate"),
    ),
}

WRITINGS = {
    "as it is": "/api/pull",
    "with a query": "/api/pull?insecure=true",
    "with a slash behind": "/api/pull/",
    "slashes in front": "//api/pull",
    "slashes inside": "/api///pull",
    "a dot": "/api/./pull",
    "two dots": "/api/show/../pull",
    "dots above the root": "/../../api/pull",
    "two dots in percent signs": "/api/chat/%2e%2e/pull",
    "a slash in percent signs": "/api%2fpull",
    "a slash in percent signs twice": "/api%252Fpull",
    "a letter in percent signs": "/api/%70ull",
    "all letters in percent signs": "/%61%70%69/%70%75%6c%6c",
    "percent signs three times": "/api/%25252570ull",
    "wide percent signs": "/api/%u0070ull",
    "backslashes": "/api\\pull",
    "backslashes in percent signs": "/api%5cpull",
    "capitals": "/API/Pull",
    "parameters": "/api/pull;a=b",
    "parameters inside": "/api;a=b/pull",
    "a space behind": "/api/pull%20",
    "a NUL behind": "/api/pull%00",
    "a line end behind": "/api/pull%0d%0a",
    "a question mark in percent signs": "/api/pull%3Fa",
    "an absolute target": "http://gpu0/api/pull",
    "behind a generating path": "/v1/chat/completions/../../../api/pull",
}


@pytest.mark.parametrize("request_line", [line for lines in PATHS.values() for line in lines])
def test_a_management_path_gets_403_and_no_backend_hears_of_it(engine: ScriptedEngine, daemon: Daemon, request_line: str) -> None:
    method, target = request_line.split(" ")
    seen_before = len(engine.seen.probes)
    reply = daemon.ask(target, b"{}" if method == "POST" else None, method=method)
    assert reply.status == 403
    if method != "HEAD":
        assert "allow_admin_paths" in json.dumps(reply.json())
    assert daemon.ask(body=chat()).status == 200
    assert [request.path for request in engine.seen.requests] == ["/v1/chat/completions"]
    assert len(engine.seen.probes) == seen_before


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS", "PROPFIND"])
def test_however_it_is_written_it_is_the_same_path(engine: ScriptedEngine, daemon: Daemon, writing: str, method: str) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request_bytes(method, WRITINGS[writing], b'{"model": "tiny"}' if method == "POST" else b""))
        assert wire.read_reply(method).status in {400, 403}
    assert not [request for request in engine.seen.requests if "chat" not in request.path]
    assert not [request for request in engine.seen.probes if "pull" in request.raw.decode("latin-1").lower()]


def test_the_refusal_is_in_the_paths_dialect(engine: ScriptedEngine, daemon: Daemon) -> None:
    assert isinstance(daemon.ask("/api/pull", b"{}").json()["error"], str)
    assert daemon.ask("/v1/load_lora_adapter", b"{}").json()["error"]["code"] == "path_not_allowed"
    assert daemon.ask("/collective_rpc", b"{}").json()["error"]["message"]


def test_the_connection_goes_on_after_a_refusal(engine: ScriptedEngine, daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        for _ in range(3):
            wire.send(request_bytes("POST", "/api/pull", b'{"model": "tiny"}'))
            assert wire.read_reply().status == 403
        wire.send(request_bytes("POST", "/v1/chat/completions", chat()))
        assert wire.read_reply().status == 200


@pytest.mark.parametrize(
    "request_line",
    [
        *("POST /api/show", "GET /api/version", "GET /version", "POST /tokenize", "POST /detokenize", "GET /v1/models/tiny"),
        *(
            "POST /v1/audio/transcriptions",
            "POST /v1/moderations",
            "POST /v1/messages/count_tokens",
            "GET /v1/loadable",
            "GET /pauses",
        ),
    ],
)
def test_reading_paths_and_unknown_ones_pass(engine: ScriptedEngine, daemon: Daemon, request_line: str) -> None:
    method, target = request_line.split(" ")
    if method == "GET":
        engine.on(target, whole(200, {"status": "success"}))
    reply = daemon.ask(target, b'{"model": "tiny"}' if method == "POST" else None, method=method)
    assert (reply.status, reply.json()) == (200, {"status": "success"})
    seen = engine.seen.probes if method == "GET" else engine.seen.requests
    assert [request.target for request in seen] == [target]


def test_the_operator_may_allow_them_and_they_are_relayed_as_they_came(engine: ScriptedEngine, tmp_path: Path) -> None:
    wanted = settings(backend(engine, "ollama"), access={"allow_admin_paths": True})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up")
        for target in ("/api/pull", "/api//pull?insecure=true", "/api/%70ull"):
            reply = daemon.ask(target, b'{"model": "other"}')
            assert (reply.status, reply.json()) == (200, {"status": "success"})
            assert (engine.seen.requests[-1].target, engine.seen.requests[-1].body) == (target, b'{"model": "other"}')
        daemon.rewrite(settings(backend(engine, "ollama")))
        daemon.wait_event("config.reloaded")
        assert daemon.ask("/api/pull", b'{"model": "other"}').status == 403


def test_a_management_request_that_failed_halfway_is_not_repeated(
    engine: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path
) -> None:
    """What was sent may have been done: nobody but the client may decide to do it again."""
    engine.always(whole(500, {"error": "disk full"}))
    gpu1.always(whole(200, {"status": "success"}))
    wanted = settings(backend(engine, "ollama"), backend(gpu1, "ollama"), access={"allow_admin_paths": True})
    with Daemon(wanted, tmp_path) as daemon:
        daemon.wait_condition("up", "gpu0")
        reply = daemon.ask("/api/pull", b'{"model": "tiny"}')
        assert (reply.status, reply.json()) == (500, {"error": "disk full"})
        assert len(engine.seen.requests) == 1
        assert not gpu1.seen.requests
