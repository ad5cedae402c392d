"""Merge what several backends list into one answer under the clients' names: /v1/models, /api/tags, /api/ps.

Called by dialects.openai, ollama and anthropic. Never chooses which backends count (core.balancer) and never asks one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from understudy.core.snapshot import Model

_ENCODE = msgspec.json.encode
_DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def openai_list(models: Sequence[tuple[str, Model]]) -> bytes:
    """Write `{"object": "list", "data": [...]}`. A model without an entry gets a small one, so that no client misses it."""
    merged: dict[str, Any] = {}
    for name, model in models:
        if name in merged:
            continue
        entry = _read_entry(model.openai_entry)
        if entry is None:
            merged[name] = {"id": name, "object": "model", "created": 0, "owned_by": "understudy"}
        else:
            merged[name] = {**entry, "id": name}
    return _ENCODE({"object": "list", "data": list(merged.values())})


def ollama_list(models: Sequence[tuple[str, Model]], *, is_loaded_only: bool) -> bytes:
    """Write `{"models": [...]}` from the entries of /api/ps (`is_loaded_only`) or /api/tags; a model without one is left out."""
    merged: dict[str, Any] = {}
    for name, text in _ollama_entries(models, is_loaded_only):
        # To Ollama a name is the same with and without its default tag.
        key = name.removesuffix(":latest")
        if key not in merged and (entry := _read_entry(text)) is not None:
            merged[key] = {**entry, "name": name, "model": name}
    return _ENCODE({"models": list(merged.values())})


def _ollama_entries(models: Sequence[tuple[str, Model]], is_loaded_only: bool) -> Iterable[tuple[str, str]]:
    return ((name, model.ps_entry if is_loaded_only else model.tags_entry) for name, model in models)


def _read_entry(text: str) -> dict[str, Any] | None:
    """Return an entry's values as that backend wrote them, None when there is none that can be read."""
    try:
        return dict(_DECODE(text)) if text else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
