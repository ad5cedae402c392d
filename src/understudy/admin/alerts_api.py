"""Answer an operator who asks whether alerts arrive: send one test message to every channel.

Added to the admin port by admin.api, whose guard and pace every request here has passed. Sends nothing itself; that happens
behind the `AlertOperator`, which names channels without their secrets.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

from understudy.admin.reply import error_reply, json_reply

NO_ALERTS = "no alerts are configured: name a channel under alerts in the file"


class AlertOperator(Protocol):
    """What the admin port needs of the alerts. Raises nothing."""

    async def test(self) -> Sequence[tuple[str, bool, str]]:
        """Send a test message to every channel; return each one's name, whether it went, and why not. Takes at most 60 s."""
        ...


def add_alerts(router: web.UrlDispatcher, find: Callable[[], AlertOperator | None]) -> None:
    """Add the endpoint; `find` gives the alerts at each request, None where the file names no channel."""
    router.add_post("/api/alerts/test", _Test(find).answer)


class _Test:
    """One test at a time: a person reads what it sends."""

    def __init__(self, find: Callable[[], AlertOperator | None]) -> None:
        self._find = find
        self._is_running = False

    async def answer(self, _request: web.Request) -> web.Response:
        alerts = self._find()
        if alerts is None:
            return error_reply(409, "no_alerts", NO_ALERTS)
        if self._is_running:
            return error_reply(409, "test_running", "a test is being sent already", {"Retry-After": "10"})
        self._is_running = True
        try:
            tested = await alerts.test()
        finally:
            self._is_running = False
        if not tested:
            return error_reply(409, "no_alerts", NO_ALERTS)
        return json_reply(200, {"channels": [{"name": name, "ok": ok, "words": words} for name, ok, words in tested]})
