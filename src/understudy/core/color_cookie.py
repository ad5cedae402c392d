"""The signed cookie that keeps a browser on a color: written with a secret, read back only as it was written.

Called by dataplane.coloring. Pure: the secret and the time are arguments. Holds a color, its kind and when it was given, nothing
of the client. Never trusted for more than a color.
"""

from hashlib import sha256
from hmac import compare_digest, new
from typing import Final

import msgspec

from understudy.core.color import Color

NAME: Final = b"understudy_color"
# A preview is for looking around, a conversation may go on for longer; browsers are told the same (RFC 6265, 5.3).
PREVIEW_S_MAX: Final = 24 * 3600
CONVERSATION_S_MAX: Final = 30 * 24 * 3600

_PREVIEW: Final = b"preview"
_CONVERSATION: Final = b"conversation"
_COLORS: Final = {color.encode(): color for color in (Color.BLUE, Color.GREEN)}
# A clock that another daemon has set a little ahead.
_AHEAD_S_MAX: Final = 60
_VALUE_BYTES_MAX: Final = 128


class ColorCookie(msgspec.Struct, frozen=True):
    """What a cookie says. `is_preview`: its holder looks around in that color, whatever is active. `since_unix_s`: when given."""

    color: Color
    is_preview: bool
    since_unix_s: float


def write_cookie(cookie: ColorCookie, secret: bytes) -> bytes:
    """Return the Set-Cookie field's value."""
    kind, age_s = (_PREVIEW, PREVIEW_S_MAX) if cookie.is_preview else (_CONVERSATION, CONVERSATION_S_MAX)
    said = b"%b.%b.%d" % (cookie.color.encode(), kind, int(cookie.since_unix_s))
    return b"%b=%b.%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % (NAME, said, _signature(said, secret), age_s)


def ended_cookie() -> bytes:
    """Return the Set-Cookie field's value that takes the cookie away."""
    return b"%b=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" % NAME


def read_cookie(field: bytes, secret: bytes, now_unix_s: float) -> ColorCookie | None:
    """Return what the first sound cookie of ours in a Cookie field says; None where there is none, or only others' work."""
    for pair in field.split(b";"):
        name, _, value = pair.strip(b" \t").partition(b"=")
        if name == NAME and (cookie := _read(value, secret, now_unix_s)) is not None:
            return cookie
    return None


def _read(value: bytes, secret: bytes, now_unix_s: float) -> ColorCookie | None:
    said, _, signature = value.rpartition(b".")
    if len(value) > _VALUE_BYTES_MAX or not compare_digest(_signature(said, secret), signature):
        return None
    color, kind, since = said.split(b".")
    since_unix_s = float(since)
    is_preview = kind == _PREVIEW
    age_s_max = PREVIEW_S_MAX if is_preview else CONVERSATION_S_MAX
    if not -_AHEAD_S_MAX <= now_unix_s - since_unix_s <= age_s_max:
        return None
    return ColorCookie(_COLORS[color], is_preview, since_unix_s)


def _signature(said: bytes, secret: bytes) -> bytes:
    return new(secret, said, sha256).hexdigest().encode()
