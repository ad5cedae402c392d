"""Read the file, or a few URLs, into `Settings`, or say every mistake at once with its line and column.

Called by cli (serve, check) and config.reload. Reads the file and the secret files it names; contacts nothing.
Order: bytes to nodes (config.document), place-holders in values (config.substitution), each value by its key (config.schema),
then what concerns several keys (config.validation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from understudy.config.addresses import ListenAddress, read_listen
from understudy.config.document import FILE_BYTES_MAX, Kind, read_document, shown
from understudy.config.quantities import Unreadable
from understudy.config.regular_file import read_regular_file
from understudy.config.schema import Settings
from understudy.config.validation import MISTAKES_MAX, address_clashes, validate, written_path
from understudy.errors import ConfigError, Mistake

DEFAULT_PATHS: Final = (Path("understudy.yaml"), Path("/etc/understudy/understudy.yaml"))
DEFAULT_URL: Final = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says instead of the file: `--listen` and `--admin`. Empty: nothing."""

    listen: tuple[str, ...] = ()
    admin: str = ""


NO_OVERRIDES: Final = Overrides()


def find_file() -> Path | None:
    """Return the first of `DEFAULT_PATHS` that exists, None when there is none."""
    return next((path for path in DEFAULT_PATHS if path.is_file()), None)


def load_file(path: Path, env: Mapping[str, str], overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Read the settings in the file at `path`. Raises `ConfigError` with every mistake; nothing else."""
    return load_bytes(read_file(path), env, str(path), overrides)


def load_text(text: str, env: Mapping[str, str], file: str = "understudy.yaml", overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Read the settings in `text`; `file` is the name that mistakes carry. Raises `ConfigError`."""
    return load_bytes(text.encode(errors="surrogatepass"), env, file, overrides)


def load_bytes(content: bytes, env: Mapping[str, str], file: str, overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Read the settings in the file's bytes. Raises `ConfigError` with every mistake in the file's order; nothing else."""
    root, mistakes = read_document(content, file)
    if root is None or root.kind is not Kind.MAPPING:
        if not mistakes:
            found = "an empty file" if root is None or root.kind is Kind.NOTHING else root.kind.value
            mistakes.append(Mistake("", found, "keys and values, at least backends:", file, 1, 1))
        raise ConfigError(tuple(mistakes))
    settings = validate(root, env, file, mistakes)
    # A line may hold several mistakes; the same place twice is told in the order found.
    mistakes.sort(key=lambda mistake: (mistake.line, mistake.column))
    if settings is None or mistakes:
        raise ConfigError(tuple(mistakes[:MISTAKES_MAX]))
    return override(settings, overrides)


def read_file(path: Path) -> bytes:
    """Read the file's bytes, at most one more than `FILE_BYTES_MAX`. Raises `ConfigError` when it cannot be read."""
    try:
        return read_regular_file(path, FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError((Mistake("", reason, "a file that can be read", str(path)),)) from error


def from_urls(urls: Sequence[str], overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Make settings for a start with URLs alone: the first is primary, the others backups, everything else at its default."""
    names = [("primary" if index == 0 else "backup" if index == 1 else f"backup-{index}") for index in range(len(urls))]
    backends = [
        {"name": name, "url": url, "role": "primary" if index == 0 else "backup"}
        for index, (name, url) in enumerate(zip(names, urls, strict=True))
    ]
    try:
        return override(Settings.model_validate({"backends": backends}), overrides)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Where a URL cannot be read, pydantic also finds the list that is left too short.
        told = [detail for detail in details if len(detail["loc"]) > 1] or details
        raise ConfigError(tuple(_url_mistake(detail, urls) for detail in told)) from error


def override(settings: Settings, overrides: Overrides) -> Settings:
    """Return `settings` with what the command line says instead. Raises `ConfigError` when that is no address, or clashes."""
    changes: dict[str, object] = {}
    if overrides.listen:
        changes["listen"] = tuple(_given_address("--listen", text) for text in overrides.listen)
    if overrides.admin:
        changes["admin"] = settings.admin.model_copy(update={"listen": _given_address("--admin", overrides.admin)})
    overridden = settings.model_copy(update=changes)
    listen = [(("listen", index), address) for index, address in enumerate(overridden.listen)]
    clashes = tuple(
        Mistake(written_path(where), f"{address}, {fault}", want)
        for where, address, fault, want in address_clashes(
            listen, overridden.admin.listen, has_token=bool(overridden.admin.token)
        )
    )
    if clashes:
        raise ConfigError(clashes)
    return overridden


def _given_address(option: str, text: str) -> ListenAddress:
    try:
        return read_listen(text)
    except Unreadable as error:
        raise ConfigError((Mistake(option, shown(text), error.want),)) from error


def _url_mistake(detail: ErrorDetails, urls: Sequence[str]) -> Mistake:
    position = detail["loc"][1] if len(detail["loc"]) > 1 else None
    if not isinstance(position, int):
        return Mistake("URL", "none", "at least one URL")
    cause = detail.get("ctx", {}).get("error")
    if not isinstance(cause, Unreadable):
        return Mistake(f"URL {position + 1}", shown(urls[position]), detail["msg"])
    return Mistake(f"URL {position + 1}", cause.found or shown(urls[position]), cause.want)
