"""Tell from method and path what the daemon does with a request and which dialect it speaks.

Called by dataplane for every request. The generating paths are data (docs/failure-model.md shows them): HTTP forbids a proxy to
repeat requests that are not idempotent on its own account (RFC 9110, 9.2.2), so only these may be repeated.
"""

from understudy.dialects.anthropic import ANTHROPIC
from understudy.dialects.contract import Dialect, Route, RouteKind
from understudy.dialects.management import is_management, normalise
from understudy.dialects.ollama import OLLAMA
from understudy.dialects.openai import OPENAI

GENERATING_PATHS: tuple[tuple[Dialect, tuple[str, ...]], ...] = tuple(
    (dialect, dialect.generating_paths) for dialect in (OPENAI, OLLAMA, ANTHROPIC)
)

LISTING_PATHS: tuple[tuple[Dialect, tuple[str, ...]], ...] = (
    (OPENAI, ("/v1/models",)),
    (OLLAMA, ("/api/tags", "/api/ps")),
)

PLAIN_ERROR: Dialect = OPENAI
"""The dialect whose errors a client gets where the path tells none: most clients read this shape."""

_POST = {path.encode(): Route(RouteKind.GENERATING, dialect, path) for dialect, paths in GENERATING_PATHS for path in paths}
_GET = {path.encode(): Route(RouteKind.LISTING, dialect, path) for dialect, paths in LISTING_PATHS for path in paths}
_GET[b"/healthz"] = Route(RouteKind.HEALTHZ, None, "/healthz")
_LITERAL = {b"POST": _POST, b"GET": _GET, b"HEAD": _GET}
_NONE: dict[bytes, Route] = {}


def match(method: bytes, path: bytes) -> Route:
    """Return the route of a request. `path` is the target's path as it came, without a query; never raises."""
    return _LITERAL.get(method, _NONE).get(path) or _match_other(method, path)


def _match_other(method: bytes, path: bytes) -> Route:
    kind = RouteKind.MANAGEMENT if is_management(method, path) else RouteKind.PLAIN
    return Route(kind, _dialect_of(normalise(path) or ""), path.decode("latin-1"))


def _dialect_of(path: str) -> Dialect | None:
    """Return the dialect of a normalised path: /v1/messages is Anthropic's, the rest of /v1 OpenAI's, /api Ollama's."""
    _, first, *rest = (*path.split("/"), "")
    if first == "v1":
        return ANTHROPIC if rest[0] == "messages" else OPENAI
    return OLLAMA if first == "api" else None
