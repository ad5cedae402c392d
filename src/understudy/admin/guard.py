"""Decide whether a request on the admin port may be answered: who asks, from which page, and how often.

Called by admin.api for every request. Pure: facts in, verdict out. Without a token the port serves this machine only, so a web
page in the operator's browser is the attacker to keep out: by its Host (DNS rebinding) and by its Origin (cross-site POST).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

# The liveness and readiness of a daemon are asked by load balancers that can send no token.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: its HTTP status, a code for programs and words for people."""

    status: int
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Guard:
    """What is asked for. `token` "" asks for none; `listen_host` is the configured host, "" for a unix socket."""

    token: str
    listen_host: str

    def refuse(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why the request is refused, or None. `headers` is looked up by canonical names, whatever their case."""
        if method not in {"GET", "HEAD"} and _is_cross_site(headers):
            return Refusal(403, "cross_site", "requests from web pages of other sites are refused")
        if self.token:
            if path in OPEN_PATHS or self.is_authorized(headers):
                return None
            return Refusal(401, "token_wanted", "send the admin token: Authorization: Bearer TOKEN")
        if not self._is_own_host(headers.get("Host")):
            return Refusal(403, "host_refused", "the Host field names another machine; use the address that admin.listen names")
        return None

    def is_authorized(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token, or none is asked for."""
        if not self.token:
            return True
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        expected = self.token.encode("utf-8", "surrogateescape")
        # Compared in constant time, so that answers' times tell nothing of the token.
        return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected) and scheme.lower() == "bearer"

    def _is_own_host(self, field: str | None) -> bool:
        # HTTP/1.0 health checks (HAProxy's option httpchk) send no Host; browsers always do.
        if field is None or not self.listen_host:
            return True
        host = _host_of(field)
        return host == self.listen_host.lower().strip("[]") or _is_loopback(host)


class Pace:
    """Spreads requests out: `per_s` on average, as many at once as came free, so that a hammered port costs a constant.

    Generic cell rate algorithm (ATM Forum, TM 4.0, 4.4.2): one number of state.
    """

    def __init__(self, per_s: float = 200.0, burst: int = 200, wait_s_max: float = 2.0) -> None:
        self.wait_s_max = wait_s_max
        self._gap_s = 1 / per_s
        self._burst_s = burst / per_s
        self._due_at_s = 0.0

    def wait_s(self, now_s: float) -> float | None:
        """How long the request that came now must wait; None when that would be longer than `wait_s_max`."""
        due_at_s = max(self._due_at_s, now_s - self._burst_s) + self._gap_s
        if due_at_s - now_s > self.wait_s_max:
            return None
        self._due_at_s = due_at_s
        return max(0.0, due_at_s - now_s)


def _host_of(field: str) -> str:
    """Return the lower-case host of a Host field without its port and brackets."""
    if field.startswith("["):
        return field[1:].partition("]")[0].lower()
    return field.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sent this for a page that is not the admin port's own (Fetch, 3.2; Fetch Metadata, 2.3)."""
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
    except ValueError:
        return True
