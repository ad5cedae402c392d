"""Fill `${NAME}`, `${NAME:-default}` and `${file:/path}` into one value of the file.

Called by config.load for every scalar after YAML has been read, so that a value can never become YAML. Reads secret files,
nothing else. Never names a value in a message, only the place-holder as it was written.
"""

import re
from collections.abc import Mapping
from typing import Final

from understudy.config.quantities import Unreadable
from understudy.config.regular_file import read_regular_file

SECRET_BYTES_MAX: Final = 64 * 1024

_PLACEHOLDER: Final = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)
_FORMS: Final = "${NAME}, ${NAME:-default}, ${file:/path} or $$ for a plain $"


def fill(text: str, env: Mapping[str, str]) -> str:
    """Return `text` with every place-holder filled. `$$` is a plain `$`, and so is a `$` that begins nothing.

    A default stands in for a variable that is absent or empty, as in a shell. Raises `Unreadable` for a variable that is
    absent without a default, a file that cannot be read, and a place-holder of another form.
    """
    if "$" not in text:
        return text
    return _PLACEHOLDER.sub(lambda matched: _filling(matched, env), text)


def _filling(matched: re.Match[str], env: Mapping[str, str]) -> str:
    if matched[0] == "$$":
        return "$"
    if not matched[2]:
        raise Unreadable(_FORMS, "a ${ without its }")
    inner = matched[1]
    if inner.startswith("file:"):
        return _secret(inner.removeprefix("file:"))
    variable = _VARIABLE.fullmatch(inner)
    if variable is None or "${" in inner:
        raise Unreadable(_FORMS, "a place-holder of another form")
    name, default = variable[1], variable[3]
    value = env.get(name)
    if default is not None and not value:
        return default
    if value is None:
        raise Unreadable(f"{name} in the environment, or a default: ${{{name}:-default}}", f"${{{name}}}, which is not set")
    return _printable(value, f"${{{name}}}, which is not text")


def _secret(path: str) -> str:
    shown = f"${{file:{path}}}"
    if not path.startswith("/") or "\0" in path:
        raise Unreadable("an absolute path, such as ${file:/run/secrets/key}", shown)
    want = f"a readable file of text, at most {SECRET_BYTES_MAX // 1024}KiB"
    try:
        content = read_regular_file(path, SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise Unreadable(want, f"{shown}, which cannot be read ({(error.strerror or type(error).__name__).lower()})") from error
    if len(content) > SECRET_BYTES_MAX:
        raise Unreadable(want, f"{shown}, which is too large")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(want, f"{shown}, which is not UTF-8") from error
    return _printable(text.removesuffix("\n").removesuffix("\r"), f"{shown}, which is not text")


def _printable(value: str, found: str) -> str:
    """Refuse what no key can mean: NUL, and bytes of the environment that are not UTF-8 (PEP 383 keeps them as surrogates)."""
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Unreadable("text in UTF-8 without NUL", found)
    return value
