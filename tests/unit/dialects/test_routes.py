"""Method and path alone tell what is done with a request."""

import pytest

from understudy.core.ask import DialectName
from understudy.dialects.contract import RouteKind
from understudy.dialects.routes import GENERATING_PATHS, LISTING_PATHS, match

OPENAI, OLLAMA, ANTHROPIC = DialectName.OPENAI, DialectName.OLLAMA, DialectName.ANTHROPIC


def test_the_generating_paths_are_those_of_the_contract_with_users() -> None:
    assert {dialect.name: set(paths) for dialect, paths in GENERATING_PATHS} == {
        OPENAI: {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank"},
        OLLAMA: {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings"},
        ANTHROPIC: {"/v1/messages"},
    }


@pytest.mark.parametrize(("name", "path"), [(dialect.name, path) for dialect, paths in GENERATING_PATHS for path in paths])
def test_posting_to_a_generating_path_generates(name: DialectName, path: str) -> None:
    route = match(b"POST", path.encode())
    assert (route.kind, route.dialect and route.dialect.name, route.path) == (RouteKind.GENERATING, name, path)
    assert match(b"GET", path.encode()).kind is RouteKind.PLAIN


@pytest.mark.parametrize(("name", "path"), [(dialect.name, path) for dialect, paths in LISTING_PATHS for path in paths])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_lists_are_our_own_answer(name: DialectName, path: str, method: bytes) -> None:
    route = match(method, path.encode())
    assert (route.kind, route.dialect and route.dialect.name) == (RouteKind.LISTING, name)


def test_healthz_is_our_own_answer() -> None:
    assert match(b"GET", b"/healthz").kind is RouteKind.HEALTHZ
    assert match(b"HEAD", b"/healthz").kind is RouteKind.HEALTHZ
    assert match(b"POST", b"/healthz").kind is RouteKind.PLAIN


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/api/show", OLLAMA),
        (b"/api/version", OLLAMA),
        (b"/v1/audio/speech", OPENAI),
        (b"/v1/chat/completions/", OPENAI),
        (b"//v1/chat/completions", OPENAI),
        (b"/v1/messages/count_tokens", ANTHROPIC),
        (b"/V1/messages", ANTHROPIC),
        (b"/v1", OPENAI),
        (b"/tokenize", None),
        (b"/", None),
        (b"", None),
        (b"*", None),
        (b"/v1x/chat", None),
    ],
)
def test_anything_else_is_relayed_with_the_dialect_its_path_tells(path: bytes, name: DialectName | None) -> None:
    route = match(b"POST", path)
    assert (route.kind, route.dialect.name if route.dialect else None) == (RouteKind.PLAIN, name)
    assert route.path.encode("latin-1") == path


@pytest.mark.parametrize(("path", "name"), [(b"/api/pull", OLLAMA), (b"/v1/%6coad_lora_adapter", OPENAI), (b"/slots", None)])
def test_management_paths_know_whose_error_to_write(path: bytes, name: DialectName | None) -> None:
    route = match(b"POST", path)
    assert (route.kind, route.dialect.name if route.dialect else None) == (RouteKind.MANAGEMENT, name)


def test_a_path_nested_too_deeply_to_tell_is_refused() -> None:
    route = match(b"GET", b"/%" + b"25" * 30)
    assert (route.kind, route.dialect) == (RouteKind.MANAGEMENT, None)
