"""Give every request its color: what its client asks for, else that of its conversation, else what a new one gets.

Made by daemon while there are two colors, asked by dataplane.relay. Remembers which conversation is on which color where no
session store does. The rules are core.affinity's and core.rollout's; whether a backend of that color is fit is core.balancer's.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from understudy.core.affinity import Conversations, assigned, stays
from understudy.core.color import COLORS, Color, RolloutRules, Stick
from understudy.core.color_cookie import (
    MARK,
    NO_COOKIES,
    ColorCookie,
    Cookies,
    ended_preview,
    read_cookies,
    write_cookie,
)
from understudy.core.conversation import Conversation
from understudy.core.priority import is_trusted
from understudy.core.snapshot import Published, RoutingPlan
from understudy.dataplane.heads import RequestHead
from understudy.dialects.history import History, answered_digest, history_of

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

_PAGE = b"<!doctype html><html lang=en><meta charset=utf-8><title>Understudy</title><p>%b\n"


class Colored(msgspec.Struct, frozen=True):
    """The color of one request. `is_asked_for`: its client has asked for it, so that what is kept of its session does not count.

    `at_unix_s` is since when its conversation has it. `key`: that is new and noted under it, b"" for any other. `history`: the
    digest of all it holds, where its client sends the whole each time. `wants_cookie`: its client is to be told in a cookie.
    """

    color: Color
    at_unix_s: float
    key: bytes = b""
    history: bytes = b""
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
        # Apart, so that many single requests do not push sessions out.
        self.sessions = Conversations()
        self.histories = Conversations()
        self._published = published
        self._wall = wall

    # --- before

    def of(self, head: RequestHead, path: str, body: bytes, request_id: bytes, client: bytes) -> Colored | str:
        """Return the color of a request, or what is wrong with its own word for one (for a 400).

        `client` tells clients apart: the key it sent, else its address. Cookies of ours go no further.
        """
        snapshot, now_unix_s = self._published.current, self._wall()
        rules, rollout = snapshot.plan.rollout, snapshot.rollout
        cookies = self._take_cookies(head, now_unix_s) if rules.preview or rules.stick is Stick.COOKIE else NO_COOKIES
        asked_for = self._asked_for(head, snapshot.plan, cookies)
        if not isinstance(asked_for, Color):
            return asked_for
        if asked_for is not Color.NONE:
            return self._as_asked(asked_for, head, rules, now_unix_s)
        if rules.stick is Stick.NONE or not (body or head.session or rules.stick is Stick.COOKIE):
            # What generates nothing is no conversation.
            color = assigned(rollout, head.session or request_id) if body else rollout.active
            return Colored(color, now_unix_s)
        if head.session:
            return self._of_session(head, now_unix_s)
        if rules.stick is Stick.COOKIE:
            return self._of_cookie(cookies.conversation, request_id, now_unix_s)
        return self._of_history(history_of(path, body, client), request_id, now_unix_s)

    def _asked_for(self, head: RequestHead, plan: RoutingPlan, cookies: Cookies) -> Color | str:
        """Return the color that a client asks for, NONE where it asks for none; a text: what is wrong with its word."""
        # As long as nobody is named, everybody is trusted with this: it changes nothing for others.
        if head.color and (not plan.trusted_keys or is_trusted(head.key, plan.trusted_keys)):
            shown = head.color[:40].decode("latin-1")
            return COLORS.get(head.color.decode("latin-1")) or f"X-Understudy-Color is {shown!r}; want blue or green"
        return cookies.preview.color if plan.rollout.preview and cookies.preview is not None else Color.NONE

    def _as_asked(self, color: Color, head: RequestHead, rules: RolloutRules, now_unix_s: float) -> Colored:
        """A new session begins on the color that is asked for; one that goes on keeps its own."""
        key = _session_key(head) if head.session and rules.stick is not Stick.NONE else b""
        if key and self.sessions.find(key, now_unix_s)[0] is Color.NONE:
            self.sessions.put(key, color, now_unix_s)
        else:
            key = b""
        return Colored(color, now_unix_s, key=key, is_asked_for=True)

    def _of_session(self, head: RequestHead, now_unix_s: float) -> Colored:
        key = _session_key(head)
        color, since_unix_s = self.sessions.find(key, now_unix_s)
        if self._stays(color, since_unix_s, now_unix_s):
            return Colored(color, now_unix_s)
        color = assigned(self._published.current.rollout, head.session)
        # Noted before it is answered: a second request of the same session may come meanwhile.
        self.sessions.put(key, color, now_unix_s)
        return Colored(color, now_unix_s, key=key)

    def _of_history(self, history: History | None, request_id: bytes, now_unix_s: float) -> Colored:
        """Return the color of a request without a session, whose client sends the whole conversation each time."""
        color = assigned(self._published.current.rollout, request_id)
        if history is None:
            return Colored(color, now_unix_s)
        # What it was answered tells it from others that began with the same words.
        for key in filter(None, (history.answered, history.earlier)):
            own, since_unix_s = self.histories.find(key, now_unix_s)
            if own is Color.NONE:
                continue
            if not self._stays(own, since_unix_s, now_unix_s):
                break
            self.histories.put(history.whole, own, now_unix_s, since_unix_s)
            return Colored(own, since_unix_s, history=history.whole)
        self.histories.put(history.whole, color, now_unix_s)
        return Colored(color, now_unix_s, key=history.whole, history=history.whole)

    def _of_cookie(self, cookie: ColorCookie | None, request_id: bytes, now_unix_s: float) -> Colored:
        if cookie is not None and self._stays(cookie.color, cookie.since_unix_s, now_unix_s):
            return Colored(cookie.color, now_unix_s)
        return Colored(assigned(self._published.current.rollout, request_id), now_unix_s, wants_cookie=True)

    def _stays(self, color: Color, since_unix_s: float, now_unix_s: float) -> bool:
        snapshot = self._published.current
        return stays(snapshot.rollout, snapshot.plan.rollout, color, since_unix_s=since_unix_s, now_unix_s=now_unix_s)

    def _take_cookies(self, head: RequestHead, now_unix_s: float) -> Cookies:
        """Return our cookies and take them out of the head: they are none of a backend's business."""
        for at, (name, line) in enumerate(head.fields):
            if name == b"cookie" and MARK in line:
                cookies, rest = read_cookies(line.partition(b":")[2], self.secret, now_unix_s)
                head.fields[at : at + 1] = [(name, b"Cookie: %b\r\n" % rest)] if rest else []
                return cookies
        return NO_COOKIES

    def of_kept(self, colored: Colored, kept: Conversation) -> Color:
        """Return the color of a session that a store has kept; NONE: it is new, or begins anew, as it was `colored`."""
        color = COLORS.get(kept.color, Color.NONE)
        if colored.is_asked_for or self._published.current.plan.rollout.stick is Stick.NONE:
            return Color.NONE
        since_unix_s = kept.colored_at_unix_s or kept.begun_at_unix_s
        return color if self._stays(color, since_unix_s, self._wall()) else Color.NONE

    # --- after

    def cookie_line(self, color: str, colored: Colored) -> bytes:
        """Return the Set-Cookie field line for a conversation that begins on `color`."""
        cookie = ColorCookie(COLORS[color], is_preview=False, since_unix_s=colored.at_unix_s)
        return b"Set-Cookie: %b\r\n" % write_cookie(cookie, self.secret)

    def on_over(self, exchange: "RelayedExchange", colored: Colored) -> None:
        """An exchange is over: a conversation that another color than its own has begun stays with that one."""
        color, record = COLORS.get(exchange.record.color, Color.NONE), exchange.record
        if color is Color.NONE or not record.backend:
            return
        if colored.key and color is not colored.color:
            known = self.sessions if exchange.head.session else self.histories
            known.put(colored.key, color, self._wall(), colored.at_unix_s)
        if colored.history and record.failure is None and exchange.resumer is not None:
            transcript = exchange.resumer.received.transcript()
            if transcript is not None and transcript.text:
                own = color if colored.key else colored.color
                key = answered_digest(colored.history, transcript.text)
                self.histories.put(key, own, self._wall(), colored.at_unix_s)

    # --- looking around

    def preview(self, head: RequestHead) -> Preview | None:
        """Answer /switch/blue, /switch/green and /switch/off where previews are on; None: the path is none of ours."""
        word = head.path.removeprefix(b"/switch/").decode("latin-1")
        if not self._published.current.plan.rollout.preview or (word not in COLORS and word != "off"):
            return None
        if head.method not in (b"GET", b"HEAD"):
            return Preview(405, _PAGE % b"Only GET is possible here.", b"Allow: GET, HEAD\r\n")
        if word == "off":
            page, cookie = _PAGE % b"You get what everybody gets.", ended_preview()
        else:
            told = ColorCookie(COLORS[word], is_preview=True, since_unix_s=self._wall())
            page = _PAGE % (b"You get %b, whatever is active. <a href=/switch/off>Back</a>" % word.encode())
            cookie = write_cookie(told, self.secret)
        return Preview(200, page, b"Cache-Control: no-store\r\nSet-Cookie: %b\r\n" % cookie)


def _session_key(head: RequestHead) -> bytes:
    return blake2b(head.session, digest_size=16, person=b"session").digest()
