"""Send one message to one channel through Apprise, and name a channel without its secrets.

Called by controlplane.alerts, `deliver` and `check` in threads of their own, because Apprise blocks. It is imported only where a
channel exists (measured: 45 MiB, 0.3 s). Nothing of a URL but its scheme, and the host where the host is no secret, leaves this
file: neither what is raised nor what Apprise logs does.
"""

import logging
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from understudy.core.upkeep import Severity

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyBase

INSTALL = "pip install 'understudy[alerts]'"
MISSING = f"alerts need the package apprise: {INSTALL}"
# What stands where a host does is a token for most services; it is one's own server only for these.
_HOST_SCHEMES = frozenset({"mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms", "gotify", "gotifys"})
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PIECES = re.compile(r"[^A-Za-z0-9_.~%+-]+")
# A shorter piece of a URL is no secret, unless it stands for a user or a password.
_PIECE_CHARACTERS_MIN = 4
_WORDS_CHARACTERS_MAX = 300
# What of Apprise's own log says why; the rest of it shows messages and URLs.
_LOUD = frozenset({"WARNING", "ERROR", "CRITICAL"})
_CAUSE = "Socket Exception: "


def missing_extra() -> str:
    """Return what to install, "" where it is."""
    return "" if find_spec("apprise") is not None else MISSING


def safe_name(url: str) -> str:
    """Return the scheme of a channel's URL, with the host where that is no secret: `dingtalk`, `mailto: example.org`."""
    scheme = _scheme_of(url)
    if scheme not in _HOST_SCHEMES:
        return scheme or "unreadable"
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return f"{scheme}: {host}" if _HOST.fullmatch(host) else scheme


def without_secrets(words: str, url: str) -> str:
    """Return one line of `words` in which no piece of the URL is left but those of its safe name."""
    line = " ".join(words.split())
    shown = {piece.lower() for piece in _PIECES.split(safe_name(url))}
    rest = url.partition("://")[2] or url
    user, has_user, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    short = {piece for text in (user, unquote(user)) for piece in _PIECES.split(text)} if has_user else set()
    long = {piece for text in (rest, unquote(rest)) for piece in _PIECES.split(text) if len(piece) >= _PIECE_CHARACTERS_MIN}
    for piece in sorted(short | long, key=len, reverse=True):
        if piece and piece.lower() not in shown:
            pattern = re.escape(piece)
            line = re.sub(pattern if piece in long else rf"(?<!\w){pattern}(?!\w)", "***", line)
    return line[:_WORDS_CHARACTERS_MAX]


def check(url: str) -> str:
    """Return why no message can be sent to this URL, "" when Apprise takes it. Blocks, importing Apprise; sends nothing."""
    try:
        return "" if _service_of(url, _asset()) is not None else _not_taken(url)
    except ImportError:
        return MISSING
    except Exception as error:  # noqa: BLE001  a plugin may raise anything, and its text may hold the URL
        return f"Apprise failed at its URL: {type(error).__name__}"


def deliver(url: str, subject: str, body: str, severity: Severity | None) -> str:
    """Send one message and return why it could not be, "" when it was. Blocks, within the URL's own timeouts; raises nothing.

    `severity` becomes Apprise's type of the message; None, that all it tells is over, becomes `success`.
    """
    try:
        return without_secrets(_deliver(url, subject, body, severity), url)
    except ImportError:
        return MISSING
    except Exception as error:  # noqa: BLE001  a plugin may raise anything, and its text may hold the URL
        return f"Apprise failed at it: {type(error).__name__}"


def _deliver(url: str, subject: str, body: str, severity: Severity | None) -> str:
    from apprise import Apprise, NotifyFormat, NotifyType

    asset = _asset()
    service = _service_of(url, asset)
    if service is None:
        return _not_taken(url)
    kind = {Severity.INFO: NotifyType.INFO, Severity.WARNING: NotifyType.WARNING, Severity.ERROR: NotifyType.FAILURE}
    apprise = Apprise([service], asset=asset)
    result = apprise.notify(
        body,
        title=subject,
        notify_type=kind[severity] if severity is not None else NotifyType.SUCCESS,
        body_format=NotifyFormat.TEXT,
        log_level=logging.DEBUG,
    )
    if result:
        return ""
    logged = [entry for each in result.results for entry in each.logs()]
    said = [entry.message.rstrip(".") for entry in logged if entry.level in _LOUD]
    causes = [_cause_in(entry.message) for entry in logged if entry.message.startswith(_CAUSE)]
    return ": ".join(dict.fromkeys([*said, *causes])) or "Apprise does not say why"


def _cause_in(message: str) -> str:
    """Return what the system said, out of the layers that a library wraps it in."""
    text = message.removeprefix(_CAUSE)
    return text.rpartition("): ")[2].rstrip("\"')") if "(Caused by " in text else text


def _asset() -> "AppriseAsset":
    # Warnings come back with the result; on their way to the log they would carry parts of the URL with them.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    # Only so does a plugin say what the system answered it.
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    from apprise import AppriseAsset

    # Without a timeout of Apprise's own the message is sent in this thread; its pool would hold up the end of the process.
    return AppriseAsset(app_id="Understudy", app_desc="Understudy alerts", service_timeout=0)


def _not_taken(url: str) -> str:
    return (
        f"Apprise does not take this URL; https://appriseit.com/services shows how that of {_scheme_of(url) or 'a service'} looks"
    )


def _service_of(url: str, asset: "AppriseAsset") -> "NotifyBase | None":
    from apprise import Apprise

    if _scheme_of(url) != "dingtalk":
        return Apprise.instantiate(url, asset=asset)
    from apprise.exception import AppriseException

    from understudy.controlplane.alert_dingtalk import CheckedDingTalk

    # Apprise types its own in part only.
    plugin: Any = CheckedDingTalk
    parts = plugin.parse_url(url)
    try:
        service: NotifyBase | None = plugin(**parts, asset=asset) if parts else None
    except (AppriseException, TypeError):
        return None
    return service


def _scheme_of(url: str) -> str:
    scheme = url.partition("://")[0]
    return scheme.lower() if scheme != url and _SCHEME.fullmatch(scheme) else ""
