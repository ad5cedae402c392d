"""Tell people what happens: state changes to messages, messages to channels, again and again until they are delivered.

Built by daemon, which hands in every log event; what is told when is core.alerting's to decide, and how it is sent
controlplane.alert_delivery's. A channel has at most one message on its way, in a thread of its own, so that one that fails holds
up nothing else. What its next message says is decided only when this one is gone, and before every further try anew, so nothing
piles up and nothing is told that is no longer so. Never raises into whoever tells an event, never waits on the event loop, and
shows no URL.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from understudy.controlplane.alert_delivery import check, deliver, missing_extra, safe_name, without_secrets
from understudy.core.alert_writing import Cost, write_test
from understudy.core.alerting import AlertDesk, Message, alert_of
from understudy.core.upkeep import AlertChannel, Severity

TICK_S: Final = 1.0
BACKOFF_S: Final = 5.0
BACKOFF_S_MAX: Final = 300.0
GIVE_UP_S: Final = 24 * 3600.0
# A delivery that takes longer is counted as failed; should it succeed after all, it is not sent again.
DELIVERY_S_MAX: Final = 60.0
CLOSE_S_MAX: Final = 5.0
# Deliveries of one channel that hang, before no further one is begun.
_HANGING_MAX: Final = 2

Notify = Callable[[str, str, str, Severity | None], str]
Tell = Callable[[str, dict[str, object]], None]


class AlertError(Exception):
    """Alerts cannot be sent as the file says; the message is one line for the operator."""


class _Box:
    """One channel: the message on its way, and what became of those before. Times in seconds, loop time."""

    def __init__(self, channel: AlertChannel, name: str) -> None:
        self.channel = channel
        self.name = name
        self.sent = 0
        self.failed = 0
        self.last_error = ""
        self.is_checked = False
        # Deliveries that have not come to an end, those included that are no longer waited for.
        self.running = 0
        # Since a message was last delivered or given up; cleared by `drop`. Every try has a message of its own, the last is kept.
        self.message: Message | None = None
        self.tries = 0
        self.began_at_s = 0.0
        self.failed_at_s = 0.0
        self.next_try_at_s = 0.0
        self.try_began_at_s: float | None = None

    @property
    def is_retrying(self) -> bool:
        """Whether a try has failed, and a further one is to come."""
        return self.tries > 0 and self.try_began_at_s is None

    def is_busy(self, now_s: float) -> bool:
        """Whether no try may begin now."""
        is_early = self.is_retrying and now_s < self.next_try_at_s
        return self.try_began_at_s is not None or is_early or self.running >= _HANGING_MAX

    def drop(self) -> None:
        """Have nothing to deliver any more."""
        self.message, self.tries, self.try_began_at_s = None, 0, None


class Alerts:
    """The channels of the file.

    `notify` sends one message and `check` looks at a URL, both blocking; they return why it could not be, "" when all is well.
    `notify` gets the URL, subject, body and severity, None where all that the message tells is over.
    `clock` gives loop time, `wall` seconds since 1970; `counts` the totals of exchanges that failed and that were moved. Raises
    AlertError where Apprise is needed and not installed.
    """

    def __init__(
        self,
        channels: tuple[AlertChannel, ...],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tell: Tell,
        notify: Notify = deliver,
        check: Callable[[str], str] = check,
        counts: Callable[[], Cost] | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self._notify = notify
        self._check = check
        self._counts = counts
        self._desk = AlertDesk(())
        self._has_heard = False
        self._boxes: list[_Box] = []
        self._delivered = asyncio.Event()
        self.set_channels(channels)

    def set_channels(self, channels: tuple[AlertChannel, ...]) -> None:
        """Take other channels, as after a reload; what is on its way to one that stays goes on.

        Raises AlertError where Apprise is needed and not installed; nothing is changed then.
        """
        missing = missing_extra() if channels and self._notify is deliver else ""
        if missing:
            raise AlertError(missing)
        known = {box.channel.url: box for box in self._boxes}
        boxes = []
        for channel, name in zip(channels, _names(channels), strict=True):
            box = known.pop(channel.url, None) or _Box(channel, name)
            box.channel, box.name = channel, name
            boxes.append(box)
        self._boxes = boxes
        self._desk.set_channels(channels)

    def retain(self, names: Collection[str]) -> None:
        """Forget what concerns backends that are no longer among `names`."""
        self._desk.retain(names)

    def on_event(self, event: str, fields: dict[str, object]) -> None:
        """Hear a log event. Cheap, and raises nothing."""
        # Without channels, too: one that is added later is to hear of what lasts then, and not of what is long over.
        try:
            if not self._has_heard:
                self._has_heard = True
                self._desk.start(self._clock())
            alert = alert_of(event, fields)
            if alert is not None:
                self._desk.on_event(alert, self._clock(), self._counts() if self._counts is not None else None)
        except Exception:
            # The fault is ours and is logged with its traceback (library.complained); what was told goes on.
            logging.getLogger(__name__).exception("an alert could not be read out of %s", event)

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick()
            except Exception:
                # The fault is ours and is logged with its traceback (library.complained); answers must not end for it.
                logging.getLogger(__name__).exception("alerts could not be looked at")

    def tick(self) -> None:
        """Begin what is due: new messages, and further tries of those that failed. Call it on the event loop."""
        now_s = self._clock()
        for box in self._boxes:
            if not box.is_checked:
                # At once, and not when it is needed: a wrong URL is found by day, and the memory is there by night.
                box.is_checked = True
                self._look_at(box)
            if box.message is not None and box.try_began_at_s is not None and now_s >= box.try_began_at_s + DELIVERY_S_MAX:
                self._fail(box, box.message, _LATE, now_s)
        day_s = _second_of_day(self._wall())
        for index, box in enumerate(self._boxes):
            if box.is_retrying and self._desk.is_pressing(index, now_s, day_s):
                # A channel that fails for long is tried rarely; what needs a person does not wait for that.
                box.next_try_at_s = min(box.next_try_at_s, box.failed_at_s + BACKOFF_S)
        busy = {index for index, box in enumerate(self._boxes) if box.is_busy(now_s)}
        for message in self._desk.due(now_s, day_s, busy):
            self._try(self._boxes[message.channel], message, now_s)
        for index, box in enumerate(self._boxes):
            if box.is_retrying and not self._desk.has_news(index, now_s, day_s):
                # What could not be told is no news any more.
                box.drop()
        for event, error in self._desk.take_faults():
            # The fault is ours and is logged with its traceback (library.complained); the other alerts go on.
            logging.getLogger(__name__).error("an alert of %s could not be written", event, exc_info=error)

    def status(self) -> list[dict[str, Any]]:
        """Return how each channel does, as JSON values; see the schema AlertChannel in admin.openapi."""
        now_s = self._clock()
        return [
            {
                "name": box.name,
                "sent": box.sent,
                "failed": box.failed,
                "pending": int(box.tries > 0),
                "last_error": box.last_error,
                "next_try_in_s": round(max(0.0, box.next_try_at_s - now_s), 3) if box.tries > 0 else None,
            }
            for box in self._boxes
        ]

    async def test(self) -> list[tuple[str, bool, str]]:
        """Send a test message to every channel, all at once; return each one's name, whether it went, and why not."""
        boxes = list(self._boxes)
        ends = []
        for box in boxes:
            end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            subject, body = write_test(box.name, box.channel.language)
            job = partial(self._notify, box.channel.url, subject, body, Severity.INFO)
            self._in_thread(box.channel.url, job, _settle(end))
            ends.append(end)
        if ends:
            await asyncio.wait(ends, timeout=DELIVERY_S_MAX)
        said = [end.result() if end.done() else _LATE for end in ends]
        return [(box.name, not words, words) for box, words in zip(boxes, said, strict=True)]

    async def close(self) -> None:
        """Try once more what could not be delivered, and what is due; wait at most `CLOSE_S_MAX` for it."""
        for box in self._boxes:
            box.next_try_at_s = self._clock()
        self.tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                while any(box.try_began_at_s is not None for box in self._boxes):
                    self._delivered.clear()
                    await self._delivered.wait()

    # --- one message

    def _try(self, box: _Box, message: Message, now_s: float) -> None:
        if not box.tries:
            box.began_at_s = box.next_try_at_s = now_s
        box.message = message
        box.tries += 1
        box.running += 1
        box.try_began_at_s = now_s
        number = box.tries

        def end(words: str) -> None:
            box.running -= 1
            if not words:
                self._deliver(box, message, number)
            elif box.message is message and box.try_began_at_s is not None:
                self._fail(box, message, words, self._clock())
            self._delivered.set()

        url = box.channel.url
        severity = None if message.is_over else message.severity
        self._in_thread(url, partial(self._notify, url, message.subject, message.body, severity), end)

    def _deliver(self, box: _Box, message: Message, number: int) -> None:
        """Take that a try has succeeded, which may come after it was counted as failed and a further one has begun."""
        if not self._desk.keep(message):
            return
        box.sent += 1
        box.last_error = ""
        if box.message is message:
            box.drop()
        self._tell("alert.delivered", {"channel": box.name, "events": list(message.events), "tries": number})

    def _fail(self, box: _Box, message: Message, words: str, now_s: float) -> None:
        box.failed += 1
        box.last_error = words
        box.try_began_at_s = None
        box.failed_at_s = now_s
        box.next_try_at_s = now_s + min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(box.tries - 1, 10))
        is_given_up = now_s >= box.began_at_s + GIVE_UP_S
        if box.tries == 1 or is_given_up:
            self._tell("alert.failed", {"channel": box.name, "reason": words, "tries": box.tries, "dropped": is_given_up})
        if is_given_up:
            self._desk.keep(message)
            box.drop()
        else:
            self._desk.take_back(message)

    def _look_at(self, box: _Box) -> None:
        def end(words: str) -> None:
            if words:
                box.last_error = words
                self._tell("alert.failed", {"channel": box.name, "reason": words, "tries": 0, "dropped": False})

        self._in_thread(box.channel.url, partial(self._check, box.channel.url), end)

    def _in_thread(self, url: str, job: Callable[[], str], end: Callable[[str], None]) -> None:
        """Run `job` in a thread; `end` is called on the event loop with what it returned, or with what it raised."""
        loop = asyncio.get_running_loop()

        def work() -> None:
            try:
                words = job()
            except Exception as error:  # noqa: BLE001  its text may hold the URL
                words = without_secrets(f"{type(error).__name__}: {error}", url)
            with contextlib.suppress(RuntimeError):
                # Raised once the loop has been closed; then nobody waits for it any more.
                loop.call_soon_threadsafe(end, words)

        try:
            # One that hangs must not hold up the end of the process.
            threading.Thread(target=work, name="alerts", daemon=True).start()
        except RuntimeError:
            loop.call_soon(end, "the system gives no thread")


_LATE: Final = f"it was not delivered within {DELIVERY_S_MAX:.0f} s"


def _second_of_day(wall_s: float) -> float:
    """Return the seconds since local midnight."""
    here = time.localtime(wall_s)
    return here.tm_hour * 3600 + here.tm_min * 60 + here.tm_sec + wall_s % 1.0


def _settle(end: "asyncio.Future[str]") -> Callable[[str], None]:
    def settle(words: str) -> None:
        if not end.done():
            end.set_result(words)

    return settle


def _names(channels: tuple[AlertChannel, ...]) -> list[str]:
    """Return the channels' safe names, numbered where two have the same."""
    names: list[str] = []
    for channel in channels:
        name = safe_name(channel.url)
        count = sum(other == name or other.startswith(f"{name} #") for other in names)
        names.append(f"{name} #{count + 1}" if count else name)
    return names
