"""Give every request its color: what its client asks for, else that of its conversation, else what a new one gets.

Made by daemon while there are two colors, asked by dataplane.relay. Remembers which conversation is on which color where no
session store does. The rules are core.affinity's and core.rollout's; whether a backend of that color is fit is core.balancer's.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from understudy.core.affinity import Conversations, assigned, stays
from understudy.core.color import Color, RolloutRules, Stick
from understudy.core.color_cookie import ColorCookie, ended_cookie, read_cookie, write_cookie
from understudy.core.conversation import Conversation
from understudy.core.priority import is_trusted
from understudy.core.snapshot import Published, RoutingPlan
from understudy.dataplane.heads import RequestHead
from understudy.dialects.history import History, history_of

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

_COLORS = {color.encode(): color for color in (Color.BLUE, Color.GREEN)}
_COLOR_OF = {str(color): color for color in (Color.BLUE, Color.GREEN)}
_PAGE = b"<!doctype html><html lang=en><meta charset=utf-8><title>Understudy</title><p>%b\n"


class Colored(msgspec.Struct, frozen=True):
    """The color of one request. `is_asked_for`: its client has asked for it, so that what is kept of its session does not count.

    `key`: the conversation is new and noted under it, b"" for any other. `wants_cookie`: its client is to be told in a cookie.
    """

    color: Color
    key: bytes = b""
    is_asked_for: bool = False
    wants_cookie: bool = False


class Preview(msgspec.Struct, frozen=True):
    """The answer to a request for a preview: its status, its page (HTML) and field lines with CRLF."""

    status: int
    page: bytes
    lines: bytes


class Coloring:
    """`secret` signs cookies; `wall` is the wall clock."""

    def __init__(self, published: Published, secret: bytes, wall: Callable[[], float]) -> None:
        self.secret = secret
        self.conversations = Conversations()
        self._published = published
        self._wall = wall

    # --- before

    def of(self, head: RequestHead, path: str, body: bytes, request_id: bytes, client: bytes) -> Colored | str:
        """Return the color of a request, or what is wrong with its own word for one (for a 400).

        `client` tells clients apart: the key it sent, else its address.
        """
        snapshot, now_unix_s = self._published.current, self._wall()
        rules, rollout = snapshot.plan.rollout, snapshot.rollout
        asked_for = self._asked_for(head, snapshot.plan, now_unix_s)
        if not isinstance(asked_for, Color):
            return asked_for
        if asked_for is not Color.NONE:
            return self._as_asked(asked_for, head, rules, now_unix_s)
        if rules.stick is Stick.NONE:
            return Colored(assigned(rollout, head.session or request_id))
        if head.session:
            return self._of_conversation(_session_key(head), head.session, now_unix_s)
        if rules.stick is Stick.COOKIE:
            return self._of_cookie(head, request_id, now_unix_s)
        return self._of_history(history_of(path, body, client), request_id, now_unix_s) if body else Colored(rollout.active)

    def _of_history(self, history: History | None, request_id: bytes, now_unix_s: float) -> Colored:
        """Return the color of a request without a session, whose client sends the whole conversation each time."""
        snapshot = self._published.current
        rules, rollout = snapshot.plan.rollout, snapshot.rollout
        if history is None:
            return Colored(assigned(rollout, request_id))
        if history.earlier:
            color, since_unix_s = self.conversations.find(history.earlier, now_unix_s)
            if stays(rollout, rules, color, since_unix_s=since_unix_s, now_unix_s=now_unix_s):
                self.conversations.put(history.whole, color, now_unix_s, since_unix_s)
                return Colored(color)
        color = assigned(rollout, request_id)
        self.conversations.put(history.whole, color, now_unix_s)
        return Colored(color, key=history.whole)

    def _asked_for(self, head: RequestHead, plan: RoutingPlan, now_unix_s: float) -> Color | str:
        """Return the color that a client asks for, NONE where it asks for none; a text: what is wrong with its word."""
        # As long as nobody is named, everybody is trusted with this: it changes nothing for others.
        if head.color and (not plan.trusted_keys or is_trusted(head.key, plan.trusted_keys)):
            shown = head.color[:40].decode("latin-1")
            return _COLORS.get(head.color) or f"X-Understudy-Color is {shown!r}; want blue or green"
        if plan.rollout.preview:
            cookie = self._cookie(head, now_unix_s)
            if cookie is not None and cookie.is_preview:
                return cookie.color
        return Color.NONE

    def _as_asked(self, color: Color, head: RequestHead, rules: RolloutRules, now_unix_s: float) -> Colored:
        """A new session begins on the color that is asked for; one that goes on keeps its own."""
        key = _session_key(head) if head.session and rules.stick is not Stick.NONE else b""
        if key and self.conversations.find(key, now_unix_s)[0] is Color.NONE:
            self.conversations.put(key, color, now_unix_s)
        else:
            key = b""
        return Colored(color, key=key, is_asked_for=True)

    def _of_conversation(self, key: bytes, position_key: bytes, now_unix_s: float) -> Colored:
        snapshot = self._published.current
        rules, rollout = snapshot.plan.rollout, snapshot.rollout
        color, since_unix_s = self.conversations.find(key, now_unix_s)
        if stays(rollout, rules, color, since_unix_s=since_unix_s, now_unix_s=now_unix_s):
            return Colored(color)
        color = assigned(rollout, position_key)
        # Noted before it is answered: a second request of the same session may come meanwhile.
        self.conversations.put(key, color, now_unix_s)
        return Colored(color, key=key)

    def _of_cookie(self, head: RequestHead, request_id: bytes, now_unix_s: float) -> Colored:
        snapshot = self._published.current
        rules, rollout = snapshot.plan.rollout, snapshot.rollout
        cookie = self._cookie(head, now_unix_s)
        if (
            cookie is not None
            and not cookie.is_preview
            and stays(rollout, rules, cookie.color, since_unix_s=cookie.since_unix_s, now_unix_s=now_unix_s)
        ):
            return Colored(cookie.color)
        return Colored(assigned(rollout, request_id), wants_cookie=True)

    def _cookie(self, head: RequestHead, now_unix_s: float) -> ColorCookie | None:
        for name, line in head.fields:
            if name == b"cookie" and (cookie := read_cookie(line[7:].strip(), self.secret, now_unix_s)) is not None:
                return cookie
        return None

    def of_kept(self, colored: Colored, kept: Conversation) -> Color:
        """Return the color of a session that a store has kept; NONE: it is new, or begins anew, as it was `colored`."""
        if colored.is_asked_for or not kept.color:
            return Color.NONE
        snapshot = self._published.current
        rules, color = snapshot.plan.rollout, _COLOR_OF.get(kept.color, Color.NONE)
        since_unix_s = kept.colored_at_unix_s or kept.begun_at_unix_s
        is_kept = rules.stick is not Stick.NONE and stays(
            snapshot.rollout, rules, color, since_unix_s=since_unix_s, now_unix_s=self._wall()
        )
        return color if is_kept else Color.NONE

    # --- after

    def cookie_line(self, color: str) -> bytes:
        """Return the Set-Cookie field line for a conversation that `color` has answered first."""
        cookie = ColorCookie(_COLOR_OF[color], is_preview=False, since_unix_s=self._wall())
        return b"Set-Cookie: %b\r\n" % write_cookie(cookie, self.secret)

    def on_over(self, exchange: "RelayedExchange", colored: Colored) -> None:
        """An exchange is over: a conversation that another color than its own has begun stays with that one."""
        color = _COLOR_OF.get(exchange.record.color, Color.NONE)
        if colored.key and exchange.record.backend and color not in (Color.NONE, colored.color):
            self.conversations.put(colored.key, color, self._wall())

    # --- looking around

    def preview(self, head: RequestHead) -> Preview | None:
        """Answer /switch/blue, /switch/green and /switch/off where previews are on; None: the path is none of ours."""
        word = head.path.removeprefix(b"/switch/")
        if not self._published.current.plan.rollout.preview or (word not in _COLORS and word != b"off"):
            return None
        if head.method not in (b"GET", b"HEAD"):
            return Preview(405, _PAGE % b"Only GET is possible here.", b"Allow: GET, HEAD\r\n")
        if word == b"off":
            page, cookie = _PAGE % b"You get what everybody gets.", ended_cookie()
        else:
            told = ColorCookie(_COLORS[word], is_preview=True, since_unix_s=self._wall())
            page = _PAGE % (b"You get %b, whatever is active. <a href=/switch/off>Back</a>" % word)
            cookie = write_cookie(told, self.secret)
        return Preview(200, page, b"Cache-Control: no-store\r\nSet-Cookie: %b\r\n" % cookie)


def _session_key(head: RequestHead) -> bytes:
    return blake2b(head.session, digest_size=16, person=b"session").digest()
