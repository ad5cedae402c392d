"""What the daemon answers by itself: merged lists under the clients' names, health, and no to management paths."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, backend, settings
from support.scripted import ScriptedEngine
from support.wire import chat


class Stage:
    """An Ollama, a vLLM and the daemon; `public` is what clients call the Ollama's small model."""

    def __init__(self, pi: ScriptedEngine, gpu: ScriptedEngine, daemon: Daemon) -> None:
        self.pi, self.gpu, self.daemon = pi, gpu, daemon


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run them once; no play of this file changes what they are."""
    with (
        ScriptedEngine("pi", engine="ollama", models=("small:0.5b", "shared")) as pi,
        ScriptedEngine("gpu", engine="vllm", models=("large", "shared")) as gpu,
    ):
        wanted = settings(backend(pi, "ollama", models={"public": "small:0.5b"}, api_key="pi-key"), backend(gpu, "vllm"))
        with Daemon(wanted, tmp_path_factory.mktemp("listing")) as daemon:
            daemon.wait_condition("up")
            yield Stage(pi, gpu, daemon)


def test_models_of_all_backends_are_listed_once_under_the_clients_names(stage: Stage) -> None:
    listed = stage.daemon.ask("/v1/models")
    assert (listed.status, listed.head.get("Content-Type").partition(";")[0]) == (200, "application/json")
    names = [entry["id"] for entry in listed.json()["data"]]
    assert len(names) == len(set(names))
    assert {name.removesuffix(":latest") for name in names} == {"large", "public", "shared"}
    assert listed.json()["object"] == "list"


def test_tags_and_loaded_models_carry_the_clients_names(stage: Stage) -> None:
    for path in ("/api/tags", "/api/ps"):
        entries = stage.daemon.ask(path).json()["models"]
        assert {"public", "shared"} <= {entry["name"].removesuffix(":latest") for entry in entries}
        assert all(entry["name"] == entry["model"] for entry in entries)
        assert "small:0.5b" not in str(entries)


def test_a_mapped_model_is_asked_for_under_the_backends_own_name_and_key(stage: Stage) -> None:
    stage.pi.fresh()
    reply = stage.daemon.ask(body=chat(model="public"), headers={"Authorization": "Bearer the-clients"})
    assert (reply.status, reply.backend) == (200, "pi")
    (request,) = stage.pi.seen.requests
    # Asked for as a stream, and put together.
    assert request.json() == chat(model="small:0.5b", stream=True) | {"stream_options": {"include_usage": True}}
    assert request.header("Authorization") == "Bearer pi-key"


def test_a_client_keeps_its_own_key_where_none_is_configured(stage: Stage) -> None:
    stage.gpu.fresh()
    stage.daemon.ask(body=chat(model="large"), headers={"Authorization": "Bearer the-clients"})
    assert stage.gpu.seen.requests[0].header("Authorization") == "Bearer the-clients"


def test_the_ollama_dialect_goes_only_to_an_engine_that_speaks_it(stage: Stage) -> None:
    assert stage.daemon.ask("/api/chat", chat(model="shared", stream=False)).backend == "pi"
    refused = stage.daemon.ask("/api/chat", chat(model="large", stream=False))
    assert (refused.status, set(refused.json())) == (404, {"error"})


@pytest.mark.parametrize("suffix", ["", ":latest"])
def test_an_ollama_name_means_the_same_with_and_without_latest(stage: Stage, suffix: str) -> None:
    assert stage.daemon.ask("/api/chat", chat(model=f"shared{suffix}", stream=False)).backend == "pi"


def test_a_list_stays_there_while_its_backend_is_out(gpu0: ScriptedEngine, gpu1: ScriptedEngine, tmp_path: Path) -> None:
    gpu1.list_models("other")
    with Daemon(settings(backend(gpu0), backend(gpu1)), tmp_path) as daemon:
        daemon.wait_condition("up")
        gpu0.refuse()
        gpu0.drop_connections()
        daemon.wait_condition("down", "gpu0")
        assert [entry["id"] for entry in daemon.ask("/v1/models").json()["data"]] == ["other"]
        gpu0.listen()
        daemon.wait_condition("up", "gpu0")
        assert {entry["id"] for entry in daemon.ask("/v1/models").json()["data"]} == {"tiny", "other"}


def test_health_is_answered_by_the_daemon_itself(stage: Stage) -> None:
    reply = stage.daemon.ask("/healthz")
    assert (reply.status, reply.body) == (200, b"OK\n")


def test_reading_paths_that_clients_need_are_relayed(stage: Stage) -> None:
    assert stage.daemon.ask("/api/version").json() == {"version": "0.32.15"}
    shown = stage.daemon.ask("/api/show", {"model": "shared"})
    assert (shown.status, shown.backend) == (200, "pi")


@pytest.mark.parametrize(
    "path",
    [
        "/api/pull",
        "/api/delete",
        "//api//pull",
        "/api/./pull",
        "/v1/../api/pull",
        "/api/%70ull",
        "/api/%2570ull",
        "/API/Pull",
        "/api\\pull",
        "/slots/0",
        "/v1/load_lora_adapter",
        "/collective_rpc",
        "/update_weights_from_disk",
        "/models/load",
        "/flush_cache",
        "/api/pull/",
        "/api/pull;x=1",
        "/api/pull?x=1",
    ],
)
def test_management_paths_are_refused_however_they_are_written(stage: Stage, path: str) -> None:
    stage.pi.fresh()
    stage.gpu.fresh()
    reply = stage.daemon.ask(path, {"model": "shared"})
    assert (reply.status, "error" in reply.json()) == (403, True)
    assert not stage.pi.seen.requests
    assert not stage.gpu.seen.requests


def test_management_paths_pass_where_the_file_allows_them(tmp_path: Path) -> None:
    with ScriptedEngine("pi", engine="ollama") as pi:
        with_access = settings(backend(pi, "ollama"), access={"allow_admin_paths": True})
        with Daemon(with_access, tmp_path) as daemon:
            daemon.wait_condition("up")
            assert daemon.ask("/api/pull", {"model": "tiny"}).status == 200
            assert pi.seen.requests[0].path == "/api/pull"
