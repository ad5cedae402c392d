"""Read the lists of models that engines give: /v1/models, /api/tags, /api/ps.

Called by the probes of this room. Entries are kept as the JSON text that the backend wrote, because the merged lists repeat them.
Tolerates what real and hostile servers send: null for an empty list, entries of any shape, endless lists. Never asks anything.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from understudy.core.snapshot import Model
from understudy.engines.contract import MODELS_MAX, PROBE_BODY_BYTES_MAX, Finding

# The longest name in use is a path or a Hugging Face reference with a file; far longer ones are not names.
NAME_CHARACTERS_MAX: Final = 512

# vLLM, SGLang and llama.cpp write the time of asking as a model's birth; vLLM adds a permission with a new name each time.
_PASSING: Final = re.compile(r'"created": ?[0-9]+|"id": ?"modelperm-[^"]*"')


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry. `entry` is its JSON text; `status` is llama.cpp's word for it in router mode, "" elsewhere."""

    name: str
    entry: str
    aliases: tuple[str, ...] = ()
    owner: str = ""
    status: str = ""


class _Lists(msgspec.Struct):
    data: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    models: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class _Entry(msgspec.Struct):
    id: object = None
    name: object = None
    aliases: object = None
    owned_by: object = None
    status: object = None


_LISTS: Final = msgspec.json.Decoder(_Lists)
_ENTRY: Final = msgspec.json.Decoder(_Entry)


def read_openai_list(body: bytes) -> tuple[Listed, ...] | str:
    """Read an answer of /v1/models. Returns what it lists, in order, or what is wrong with it in a few words.

    `data` null is an empty list (Ollama). Entries without a usable name are left out; of equal names the first wins; at most
    MODELS_MAX are kept.
    """
    lists = _decode(body)
    if isinstance(lists, str):
        return lists
    return _read(lists.data, "data")


def read_ollama_list(body: bytes) -> tuple[Listed, ...] | str:
    """Read an answer of /api/tags or /api/ps; as `read_openai_list`."""
    lists = _decode(body)
    if isinstance(lists, str):
        return lists
    return _read(lists.models, "models")


def _decode(body: bytes) -> _Lists | str:
    if len(body) >= PROBE_BODY_BYTES_MAX:
        return f"a list of more than {PROBE_BODY_BYTES_MAX // 2**20} MiB"
    try:
        return _LISTS.decode(body)
    except msgspec.ValidationError:
        return "a list of an unknown shape"
    except (ValueError, RecursionError):
        return "a list that is not JSON"


def _read(entries: list[msgspec.Raw] | msgspec.UnsetType | None, key: str) -> tuple[Listed, ...] | str:
    if entries is msgspec.UNSET:
        return f"a list without {key}"
    found: dict[str, Listed] = {}
    for raw in entries or ():
        if len(found) == MODELS_MAX:
            break
        listed = _read_entry(raw)
        if listed is not None:
            found.setdefault(listed.name, listed)
    return tuple(found.values())


def _read_entry(raw: msgspec.Raw) -> Listed | None:
    try:
        entry = _ENTRY.decode(raw)
        text = bytes(raw).decode("utf-8")
    except (ValueError, RecursionError):
        return None
    name = entry.id if entry.id is not None else entry.name
    if not _is_name(name):
        return None
    status = entry.status.get("value") if isinstance(entry.status, dict) else None
    return Listed(
        name=str(name),
        entry=text,
        aliases=tuple(alias for alias in entry.aliases if _is_name(alias)) if isinstance(entry.aliases, list) else (),
        owner=entry.owned_by if isinstance(entry.owned_by, str) else "",
        status=status if isinstance(status, str) else "",
    )


def settle(models: tuple[Model, ...], known: Finding | None) -> tuple[Model, ...]:
    """Keep each model as it was `known` when its entry differs only in what differs with every answer.

    So a list in which nothing changed is equal to the one before, and the routing snapshot need not change.
    """
    before = {model.name: model for model in known.models or ()} if known is not None else {}
    return tuple(_settled(model, before.get(model.name)) for model in models)


def _settled(model: Model, before: Model | None) -> Model:
    if before is None or _PASSING.sub("", model.openai_entry) != _PASSING.sub("", before.openai_entry):
        return model
    return before


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX and value.isprintable()
