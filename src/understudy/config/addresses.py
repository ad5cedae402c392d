"""Read and write addresses: where the daemon listens, where a backend is, what is asked beside it.

Called by config.schema for `listen`, `admin.listen`, `backends[].url` and other URLs of a backend. Pure: resolves no name and
opens nothing. No message of this module contains the value itself, which may carry a password or come from the environment.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from understudy.config.quantities import Unreadable, scalar_text
from understudy.core.snapshot import Address

LISTEN_WANTED: Final = "HOST:PORT such as 127.0.0.1:8080, [::]:8080, or unix:/absolute/path"
URL_WANTED: Final = "a URL such as http://gpu1:11434"
FULL_URL_WANTED: Final = "a URL such as http://gpu1:9400/path, in ASCII, without spaces, backslashes and #"

LISTEN_PATTERN: Final = r"unix:/.+|.+:[0-9]{1,5}"
URL_PATTERN: Final = r"[Hh][Tt][Tt][Pp][Ss]?://.+"

# sun_path holds 108 bytes with the closing NUL (unix(7)).
_UNIX_PATH_BYTES_MAX: Final = 107
_PORT_MAX: Final = 65535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
# RFC 3986, 3.3: the characters of a path segment.
_PREFIX: Final = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: `host` and `port` (0: any free port), or, when `path` is not "", a unix socket there."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. A unix socket counts: the file's permissions guard it."""
        if self.path or self.host.lower() in {"localhost", "ip6-localhost"}:
            return True
        try:
            return (IPv6Address if ":" in self.host else IPv4Address)(self.host).is_loopback
        except AddressValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_listen(value: object) -> ListenAddress:
    """Read `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`. Port 0 asks the system for a free one."""
    if isinstance(value, ListenAddress):
        return value
    text = scalar_text(value, LISTEN_WANTED)
    if text.startswith("unix:"):
        return ListenAddress(path=_unix_path(text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _PORT_MAX:
        raise Unreadable(LISTEN_WANTED)
    return ListenAddress(_host(host, LISTEN_WANTED), int(port))


def read_url(value: object) -> Address:
    """Read `http(s)://HOST[:PORT][/PREFIX]`; ports 80 and 443 by default. No query, fragment, user name or password."""
    if isinstance(value, Address):
        return value
    text = scalar_text(value, URL_WANTED)
    # urlsplit drops tabs and line ends in silence, and a backslash means a slash to some and not to others.
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", text):
        raise Unreadable(f"{URL_WANTED}, in ASCII, without spaces and backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Unreadable(URL_WANTED) from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise Unreadable(f"{URL_WANTED} (http or https)")
    if "@" in parts.netloc:
        raise Unreadable("the key under api_key, and a URL without it", "a URL with a user name or password")
    if "?" in text or "#" in text:
        raise Unreadable("a URL without ? and #: scheme, host, port and a path prefix at most")
    host = _url_host(parts, URL_WANTED)
    if port == 0 or parts.netloc.endswith(":"):
        raise Unreadable(f"{URL_WANTED}, with a port from 1 to {_PORT_MAX}")
    return Address(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], _path_prefix(parts.path))


def write_url(address: Address) -> str:
    """Write the URL with its port always written, so that nobody has to remember the default."""
    return f"{address.scheme}://{address.authority}{address.prefix}"


def read_full_url(value: object) -> str:
    """Read `http(s)://` with all that a URL may have but a fragment, and return it as it was written; it may hold a password."""
    text = scalar_text(value, FULL_URL_WANTED)
    # As in read_url: what urlsplit drops, and what only some take for a slash.
    if not re.fullmatch(r"[\x21\x22\x24-\x5b\x5d-\x7e]{1,4096}", text):
        raise Unreadable(FULL_URL_WANTED)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Unreadable(FULL_URL_WANTED) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise Unreadable(f"{FULL_URL_WANTED} (http or https)")
    _url_host(parts, FULL_URL_WANTED)
    if port == 0 or parts.netloc.endswith(":"):
        raise Unreadable(f"{FULL_URL_WANTED}, with a port from 1 to {_PORT_MAX}")
    return text


def write_origin(url: str) -> str:
    """Return scheme, host and port of a URL that `read_full_url` took: what can be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _url_host(parts: SplitResult, want: str) -> str:
    if not parts.hostname:
        raise Unreadable(want)
    host = parts.hostname
    return _host(f"[{host}]" if "[" in parts.netloc else host, want).lower()


def _host(text: str, want: str) -> str:
    """Read a name or an address; an IPv6 address stands in brackets, which are taken off."""
    if text.startswith("[") and text.endswith("]"):
        try:
            address = IPv6Address(text[1:-1])
        except AddressValueError as error:
            raise Unreadable(f"{want}, with a valid IPv6 address in the brackets") from error
        if address.scope_id is not None:
            raise Unreadable(f"{want}, without a zone (%)")
        return str(address)
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(IPv4Address(text))
        except AddressValueError as error:
            raise Unreadable(f"{want}, with a valid IPv4 address") from error
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise Unreadable(want)
    return text


def _path_prefix(path: str) -> str:
    segments = path.lower().replace("%2e", ".").split("/")
    if not _PREFIX.fullmatch(path) or "." in segments or ".." in segments:
        raise Unreadable("a URL whose path prefix has no empty, . or .. part, such as http://gpu1:8000/llm")
    return path.rstrip("/")


def _unix_path(path: str) -> str:
    is_short = len(path.encode(errors="surrogateescape")) <= _UNIX_PATH_BYTES_MAX
    if not path.startswith("/") or path.endswith("/") or "\0" in path or not is_short:
        raise Unreadable(f"unix: and an absolute path of at most {_UNIX_PATH_BYTES_MAX} bytes, such as unix:/run/understudy.sock")
    return path
