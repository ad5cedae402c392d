"""The signed cookies that keep a browser on a color: written with a secret, read back only as they were written.

Called by dataplane.coloring. Pure: the secret and the time are arguments. Each holds a color and when it was given, nothing of
the client. Never trusted for more than a color.
"""

import re
from hashlib import sha256
from hmac import compare_digest, new
from typing import Final

import msgspec

from understudy.core.color import COLORS, Color

MARK: Final = b"understudy_"
"""What every cookie of ours begins with."""

# A preview is for looking around, a conversation may go on for longer; browsers are told the same (RFC 6265, 5.3).
PREVIEW_S_MAX: Final = 24 * 3600
CONVERSATION_S_MAX: Final = 30 * 24 * 3600

_PREVIEW: Final = b"understudy_preview"
_CONVERSATION: Final = b"understudy_color"
_VALUE: Final = re.compile(rb"((blue|green)\.([0-9]{1,15}))\.([0-9a-f]{64})")
# A clock that another daemon has set a little ahead.
_AHEAD_S_MAX: Final = 60


class ColorCookie(msgspec.Struct, frozen=True):
    """What a cookie says. `is_preview`: its holder looks around in that color, whatever is active. `since_unix_s`: when given."""

    color: Color
    is_preview: bool
    since_unix_s: float


class Cookies(msgspec.Struct, frozen=True):
    """The sound cookies of ours in one request."""

    preview: ColorCookie | None = None
    conversation: ColorCookie | None = None


NO_COOKIES: Final = Cookies()


def write_cookie(cookie: ColorCookie, secret: bytes) -> bytes:
    """Return the Set-Cookie field's value."""
    name, age_s = (_PREVIEW, PREVIEW_S_MAX) if cookie.is_preview else (_CONVERSATION, CONVERSATION_S_MAX)
    # To the millisecond: what was given in the second of a recall may be older or younger than that.
    said = b"%b.%d" % (cookie.color.encode(), int(cookie.since_unix_s * 1000))
    return b"%b=%b.%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % (name, said, _signature(name, said, secret), age_s)


def ended_preview() -> bytes:
    """Return the Set-Cookie field's value that ends a preview."""
    return b"%b=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" % _PREVIEW


def read_cookies(field: bytes, secret: bytes, now_unix_s: float) -> tuple[Cookies, bytes]:
    """Return what the cookies of ours in a Cookie field say, and the field without them.

    Of each kind only the first is looked at: browsers send one, and to check a signature takes time.
    """
    ours: dict[bytes, bytes] = {}
    others: list[bytes] = []
    for pair in field.strip().split(b";"):
        name, _, value = pair.strip(b" \t").partition(b"=")
        if name in (_PREVIEW, _CONVERSATION):
            ours.setdefault(name, value)
        elif pair.strip():
            others.append(pair.strip(b" \t"))
    preview, conversation = (_read(name, ours.get(name, b""), secret, now_unix_s) for name in (_PREVIEW, _CONVERSATION))
    return Cookies(preview, conversation), b"; ".join(others)


def _read(name: bytes, value: bytes, secret: bytes, now_unix_s: float) -> ColorCookie | None:
    match = _VALUE.fullmatch(value)
    if match is None or not compare_digest(_signature(name, match[1], secret), match[4]):
        return None
    is_preview, since_unix_s = name == _PREVIEW, int(match[3]) / 1000
    age_s_max = PREVIEW_S_MAX if is_preview else CONVERSATION_S_MAX
    if not -_AHEAD_S_MAX <= now_unix_s - since_unix_s <= age_s_max:
        return None
    return ColorCookie(COLORS[match[2].decode()], is_preview, since_unix_s)


def _signature(name: bytes, said: bytes, secret: bytes) -> bytes:
    # With the name, so that none is taken for one of the other kind.
    return new(secret, name + b"=" + said, sha256).hexdigest().encode()
