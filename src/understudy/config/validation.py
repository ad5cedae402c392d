"""Hold a file's nodes against the schema, and turn every complaint into a mistake with its place.

Called by config.load. Fills place-holders, lets pydantic read each value, then checks what concerns several keys. A mistake
shows a value as it stands in the file, never what a place-holder gave, and never the value of a key that holds a secret.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from understudy.config.addresses import ListenAddress, read_listen
from understudy.config.colors import color_clashes
from understudy.config.document import Kind, Node, shown
from understudy.config.json_values import read_plain
from understudy.config.quantities import Unreadable
from understudy.config.schema import Settings, holds_secret, is_secret, sections
from understudy.config.section import Section
from understudy.config.substitution import fill
from understudy.config.upkeep import upkeep_clashes
from understudy.errors import Mistake

Location = tuple[str | int, ...]
Clash = tuple[Location, ListenAddress, str, str]

# Nobody reads further, and the log line and the admin port's answer carry them all.
MISTAKES_MAX: Final = 100

# What stands here goes into requests as JSON, so that numbers and text are told apart as they are written.
_JSON_SECTIONS: Final = frozenset(path for path, section in sections().items() if "defaults" in section.model_fields)

_KINDS_WANTED: Final = {
    "model_type": Kind.MAPPING,
    "model_attributes_type": Kind.MAPPING,
    "dict_type": Kind.MAPPING,
    "tuple_type": Kind.LIST,
    "list_type": Kind.LIST,
}


def validate(root: Node, env: Mapping[str, str], file: str, mistakes: list[Mistake]) -> Settings | None:
    """Return the settings of a file whose top is a mapping; adds every mistake to `mistakes`. None when pydantic refused."""
    reading = _Reading(root, env, file, mistakes)
    data = reading.data(root, ())
    reading.note_clashes(data)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False)[:MISTAKES_MAX]:
            reading.note_complaint(detail)
        return None
    reading.note_color_clashes(settings)
    reading.note_upkeep_clashes(settings)
    return settings


def written_path(location: Location) -> str:
    """Write a location as an operator writes it: `backends[1].models["qwen2.5"]`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.replace("_", "a").replace("-", "a").isalnum():
            path += f".{step}" if path else step
        else:
            path += f"[{shown(step)}]" if shown(step)[0] in "'\"" else f'["{shown(step)}"]'
    return path


def address_clashes(
    listen: Sequence[tuple[Location, ListenAddress]], admin: ListenAddress | None, *, has_token: bool
) -> Iterator[Clash]:
    """Find what addresses do not allow together: one address used twice, or an admin port open to others without a token.

    Yields (location, address, what is wrong with it, what is wanted). The caller leaves out what could not be read
    (`admin`: None).
    """
    taken: dict[ListenAddress, str] = {}
    everything = [*listen, (("admin", "listen"), admin)] if admin else list(listen)
    for location, address in everything:
        if address in taken and (address.port or address.path):
            yield location, address, f"which {taken[address]} has already", "each address once"
        taken.setdefault(address, written_path(location))
    if admin and not admin.is_loopback and not has_token:
        want = "admin.token to be set, or admin.listen on loopback such as 127.0.0.1:9901"
        yield ("admin", "listen"), admin, "which others can reach, and no admin.token", want


class _Reading:
    """One file's nodes, its environment and its mistakes."""

    def __init__(self, root: Node, env: Mapping[str, str], file: str, mistakes: list[Mistake]) -> None:
        self._root = root
        self._env = env
        self._file = file
        self._mistakes = mistakes
        self._sections = sections()

    def data(self, node: Node, location: Location) -> Any:
        """Return the node as pydantic takes it: text, None, lists and dicts, with place-holders filled."""
        if node.kind is Kind.LIST:
            return [self.data(item, (*location, index)) for index, item in enumerate(node.items)]
        if node.kind is Kind.MAPPING:
            return {key: self.data(field, (*location, key)) for key, field in node.fields.items()}
        if node.kind is Kind.NOTHING:
            return None
        try:
            text = fill(node.text, self._env)
            return read_plain(text) if node.is_plain and _is_json(location) else text
        except Unreadable as error:
            if not node.is_broken:
                node.is_broken = True
                self._note((node.line, node.column), location, error.found or shown(node.text), error.want)
            return node.text

    def note_clashes(self, data: dict[str, Any]) -> None:
        """Note what concerns several keys, as far as these can be read; pydantic complains of the rest."""
        self._note_repeated_names(data.get("backends"))
        given = data.get("listen", "127.0.0.1:8080")
        several = enumerate(given) if isinstance(given, list) else [(0, given)]
        listen = [(("listen", index), address) for index, text in several if (address := _readable(text))]
        admin = data.get("admin")
        admin = admin if isinstance(admin, dict) else {}
        address = _readable(admin.get("listen", "127.0.0.1:9901"))
        # A token that is no text gets its own mistake; that it is missing would be a second one for the same key.
        has_token = admin.get("token", "") != ""
        for location, clashing, fault, want in address_clashes(listen, address, has_token=has_token):
            node = self._find(location)
            # A default address stands nowhere in the file.
            written = shown(node.text) if node.kind is Kind.TEXT else str(clashing)
            self._note((node.line, node.column), location, f"{written}, {fault}", want)

    def note_color_clashes(self, settings: Settings) -> None:
        """Note what would go to a color that no backend has."""
        for clash in color_clashes(settings):
            node = self._find(clash.location)
            is_written = node.kind in {Kind.TEXT, Kind.LIST}
            written = clash.written if not is_written else shown(node.text) if node.kind is Kind.TEXT else node.kind.value
            self._note((node.line, node.column), clash.location, f"{written}, {clash.fault}", clash.want)

    def note_upkeep_clashes(self, settings: Settings) -> None:
        """Note what does not go together in how a backend is restarted or woken."""
        for clash in upkeep_clashes(settings):
            node = self._find(clash.location)
            self._note((node.line, node.column), clash.location, clash.found, clash.want)

    def _note_repeated_names(self, backends: Any) -> None:
        first: dict[str, int] = {}
        for index, backend in enumerate(backends if isinstance(backends, list) else ()):
            name = backend.get("name") if isinstance(backend, dict) else None
            if not isinstance(name, str):
                continue
            node = self._find(("backends", index, "name"))
            if name in first and not node.is_broken:
                earlier = self._find(("backends", first[name], "name"))
                found = f"{shown(node.text)} a second time (first on line {earlier.line})"
                self._note((node.line, node.column), ("backends", index, "name"), found, "a name of its own for each backend")
            first.setdefault(name, index)

    def note_complaint(self, detail: ErrorDetails) -> None:
        """Turn one of pydantic's complaints into a mistake, unless its node has one already."""
        # pydantic marks a complaint about a mapping's key rather than its value with a last step "[key]".
        location = tuple(step for step in detail["loc"] if step != "[key]")
        # One value that stands for a list of one, or for one of several keys, has no place of its own in the file.
        if len(location) > 1 and self._find(location[:-1]).kind is Kind.TEXT:
            location = location[:-1]
        node = self._find(location)
        # pydantic also calls a list too short when every item of it was refused.
        if node.is_broken or (detail["type"] == "too_short" and (node.items or node.kind is not Kind.LIST)):
            return
        kind = detail["type"]
        if kind == "extra_forbidden":
            self._note_unknown_key(location)
        elif kind == "missing":
            example = self._example(location)
            self._note((node.line, node.column), location, "nothing", f"this key{example}")
        else:
            found, want = self._found_and_want(detail, location, node)
            self._note((node.line, node.column), location, found, want)

    def _found_and_want(self, detail: ErrorDetails, location: Location, node: Node) -> tuple[str, str]:
        kind, context = detail["type"], detail.get("ctx", {})
        found = shown(node.text) if node.kind is Kind.TEXT else node.kind.value
        names = _names(location)
        if node.kind is Kind.TEXT and (is_secret(names) or (kind in _KINDS_WANTED and holds_secret(names))):
            found = "a value that is not shown"
        cause = context.get("error")
        if isinstance(cause, Unreadable):
            return cause.found or found, cause.want
        if kind == "enum":
            words = context["expected"].replace("'", "").replace(" or ", ", ")
            return found, f"one of {words}"
        if kind == "too_short":
            return "an empty list", f"at least one{self._example(location)}"
        if kind in _KINDS_WANTED:
            return found, _KINDS_WANTED[kind].value + self._example(location)
        return found, detail["msg"]

    def _note_unknown_key(self, location: Location) -> None:
        *above, key = location
        section = self._section(tuple(above))
        parent = self._find(tuple(above))
        known = list(section.model_fields) if section else []
        nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
        is_near = bool(difflib.get_close_matches(str(key), nearest, cutoff=0.6))
        want = nearest[0] if is_near else f"one of {', '.join(known)} (nearest: {', '.join(nearest)})"
        self._note(parent.key_places.get(str(key), (parent.line, parent.column)), location, "an unknown key", want)

    def _example(self, location: Location) -> str:
        *above, key = location
        section = self._section(tuple(above))
        field = section.model_fields.get(str(key)) if section else None
        if field is None or not field.examples:
            return ""
        return f", for example {key}: {field.examples[0]}"

    def _section(self, location: Location) -> type[Section] | None:
        return self._sections.get(_names(location))

    def _find(self, location: Location) -> Node:
        """Return the node at `location`, or the deepest one above it that exists."""
        node = self._root
        for step in location:
            if isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            elif isinstance(step, str) and step in node.fields:
                node = node.fields[step]
            else:
                break
        return node

    def _note(self, place: tuple[int, int], location: Location, found: str, want: str) -> None:
        self._mistakes.append(Mistake(written_path(location), found, want, self._file, *place))


def _is_json(location: Location) -> bool:
    """Whether `location` lies below a `defaults`, which is no section but takes any JSON."""
    names = _names(location)
    return "defaults" in names and names[: names.index("defaults")] in _JSON_SECTIONS


def _names(location: Location) -> tuple[str, ...]:
    """Leave out the positions in lists."""
    return tuple(step for step in location if isinstance(step, str))


def _readable(value: object) -> ListenAddress | None:
    try:
        return read_listen(value)
    except Unreadable:
        return None
