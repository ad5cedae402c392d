"""Tell management paths, however they are written.

They are those that change models, files or an engine's state, run code, or open a second door to the engine.
Called by dialects.routes for every path that is not one of the literal ones. Decides nothing else: whether such a path is
refused is the operator's word (access.allow_admin_paths). Entries that only read, and that clients need (/api/show,
/api/version, /version, /tokenize, /detokenize), are not listed.
"""

import re
from collections.abc import Iterator

MANAGEMENT_PATHS: dict[str, tuple[str, ...]] = {
    # The path itself and everything below it, whatever the method: SGLang does these with GET, too. A trailing * also
    # covers every longer name. Source: the engines' route tables; docs/failure-model.md names the versions.
    "ollama": (
        "/api/blobs",
        "/api/copy",
        "/api/create",
        "/api/delete",
        "/api/experimental",  # fetches URLs for the caller
        "/api/me",
        "/api/pull",
        "/api/push",
        "/api/signout",
        "/api/user",
    ),
    "vllm": (
        "/abort_requests",
        "/collective_rpc",  # runs code
        "/docs",
        "/finish_weight_update",
        "/generative_scoring",
        "/get_world_size",
        "/inference",
        "/init_weight*",
        "/invocations",  # a second door to every inference route, without the key
        "/is_paused",
        "/is_sleeping",
        "/kv_event_sources",
        "/load",
        "/metrics",
        "/openapi.json",
        "/pause",
        "/redoc",
        "/release_kv_cache_memory",
        "/reset_*",
        "/resume",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/server_info",
        "/sleep",
        "/start_profile",
        "/start_weight_update",
        "/stop_profile",
        "/update_weight*",
        "/v1/load_lora_adapter*",
        "/v1/unload_lora_adapter",
        "/wake_up",
    ),
    "llamacpp": (
        "/cors-proxy",
        "/lora-adapters",
        "/metrics",
        "/models/load",
        "/models/unload",
        "/props",
        "/slots",  # even GET wakes a sleeping server, and shows others' parameters
        "/tools",  # file and shell tools, when enabled
        "/v1/chat/completions/control",
        "/v1/stream*",  # replay of others' answers by a guessable id
    ),
    "sglang": (
        "/abort_request",
        "/clear_hicache_storage_backend",
        "/close_session",
        "/configure_logging",
        "/continue_generation",
        "/destroy_weight*",
        "/dump_expert_distribution_record",
        "/dumper",
        "/encode",
        "/flush_cache",
        "/freeze_gc",
        "/generate",
        "/generate_from_file",
        "/get_server_info",
        "/get_weights_by_name",
        "/hicache",
        "/load_lora_adapter*",
        "/open_session",
        "/pause_generation",
        "/release_memory_occupation",
        "/resume_memory_occupation",
        "/send_weight*",
        "/set_internal_state",
        "/set_trace_level",
        "/slow_down",
        "/start_expert_distribution_record",
        "/stop_expert_distribution_record",
        "/unload_lora_adapter*",
        "/vertex_generate",
        "/weights_checker",
    ),
}

MANAGEMENT_LAST_SEGMENTS = ("render", "derender")
"""vLLM's */render and */derender: a last segment that makes any longer path one."""

READABLE_PATHS = ("/models", "/v1/models")
"""Lists that clients read; a llama.cpp router adds and deletes models here, so any other method is management."""

READING_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))

# The deepest nesting of percent signs that is undone; whoever nests deeper hides something.
DECODINGS_MAX = 8

_ESCAPE = re.compile(rb"%(?:u([0-9a-f]{4})|([0-9a-f]{2}))")
_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]*://[^/]*")
# Spaces and control characters are cut off by some servers; a parameter or a query may begin after decoding.
_IGNORED = re.compile(rb"[\x00-\x20\x7f]+")
_PARAMETERS = re.compile(rb"[;?#].*", re.DOTALL)


def _patterns() -> re.Pattern[str]:
    alternatives = [
        re.escape(path.removesuffix("*")) + ("[^/]*" if path.endswith("*") else "")
        for paths in MANAGEMENT_PATHS.values()
        for path in paths
    ]
    last = "|".join(MANAGEMENT_LAST_SEGMENTS)
    return re.compile(rf"(?:{'|'.join(sorted(set(alternatives)))})(?:/|\Z)|/.+/(?:{last})\Z")


_MANAGEMENT = _patterns()


def normalise(path: bytes) -> str | None:
    """Return `path` as the most obliging server would read it, or None when it is nested too deeply to tell.

    Percent signs undone until none is left (llama.cpp's HTTP library also takes %uXXXX), backslashes turned, letters small,
    parameters, spaces and control characters dropped, empty and dot segments resolved. Starts with a slash and ends with none.
    """
    segments = _segments(path)
    return None if segments is None else "/" + "/".join(_resolved(segments))


def is_management(method: bytes, path: bytes) -> bool:
    """Tell whether `path`, without its query and as it came, is a management path."""
    segments = _segments(path)
    return segments is None or any(_is_listed(method, reading) for reading in _readings(segments))


def _readings(segments: list[str]) -> Iterator[str]:
    yield "/" + "/".join(_resolved(segments))
    if "." in segments or ".." in segments:
        # A server that does not resolve dots, or resolves them after it has chosen its route, sees the other segments.
        yield "/" + "/".join(segment for segment in segments if segment not in (".", ".."))


def _is_listed(method: bytes, reading: str) -> bool:
    if _MANAGEMENT.match(reading):
        return True
    is_list = any(reading == path or reading.startswith(path + "/") for path in READABLE_PATHS)
    return is_list and method not in READING_METHODS


def _segments(path: bytes) -> list[str] | None:
    """Return the non-empty segments of `path`, decoded, dots unresolved; None when it is nested too deeply."""
    path = path.lower()
    for _ in range(DECODINGS_MAX):
        decoded = _ESCAPE.sub(_unescaped, path).lower()
        if decoded == path:
            break
        path = decoded
    else:
        return None
    path = _SCHEME.sub(b"", path, count=1) if not path.startswith(b"/") else path
    raw = _IGNORED.sub(b"", path.replace(b"\\", b"/")).split(b"/")
    return [segment.decode("latin-1") for part in raw if (segment := _PARAMETERS.sub(b"", part))]


def _unescaped(match: re.Match[bytes]) -> bytes:
    wide, narrow = match.groups()
    return bytes.fromhex(narrow.decode()) if narrow else chr(int(wide, 16)).encode("utf-8", "surrogatepass")


def _resolved(segments: list[str]) -> list[str]:
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    return resolved
