"""Listeners hear what happens; slow and many ones cost the daemon nothing."""

import asyncio
import json

from support.records import attempt, exchange
from understudy.admin.feed import EXCHANGES_MAX, PIECES_MAX, SUBSCRIBERS_MAX, EventFeed, Subscription

STAMP = "2026-01-31T23:59:59.123Z"


def feed() -> EventFeed:
    return EventFeed(lambda: STAMP)


def joined(made: EventFeed) -> Subscription:
    subscription = made.subscribe()
    assert subscription is not None
    return subscription


async def test_a_state_change_is_one_event() -> None:
    made = feed()
    subscription = joined(made)
    made.tell("backend.went_down", {"backend": "pi", "reason": "line\nbreak"})
    name, data, *rest = (await subscription.next_piece()).decode().split("\n")
    assert name == "event: backend.went_down"
    told = {"timestamp": STAMP, "event": "backend.went_down", "backend": "pi", "reason": "line\nbreak"}
    assert json.loads(data.removeprefix("data: ")) == told
    assert rest == ["", ""]


async def test_an_exchange_is_told_by_its_summary() -> None:
    made = feed()
    subscription = joined(made)
    made.tell_exchange(exchange(attempt("pi")))
    piece = await subscription.next_piece()
    assert piece.startswith(b'event: exchange.finished\ndata: {"timestamp":')
    assert b'"backend":"pi"' in piece


async def test_nobody_listening_costs_nothing() -> None:
    made = feed()
    made.tell("backend.went_up", {})
    made.tell_exchange(exchange(attempt("pi")))
    assert made._frames == []


async def test_events_close_together_come_in_one_piece() -> None:
    made = feed()
    subscription = joined(made)
    for _ in range(3):
        made.tell("backend.went_up", {"backend": "pi"})
    assert (await subscription.next_piece()).count(b"event: ") == 3


async def test_of_a_flood_of_exchanges_the_rest_is_only_counted() -> None:
    made = feed()
    subscription = joined(made)
    for _ in range(EXCHANGES_MAX + 50):
        made.tell_exchange(exchange(attempt("pi")))
    made.tell("backend.went_down", {"backend": "pi"})
    piece = await subscription.next_piece()
    assert piece.count(b"event: exchange.finished") == EXCHANGES_MAX
    assert b"event: backend.went_down" in piece
    assert piece.endswith(b'event: skipped\ndata: {"events":50}\n\n')


async def test_a_listener_that_does_not_read_is_dropped_and_others_are_not() -> None:
    made = feed()
    slow, quick = joined(made), joined(made)
    dropped: list[str] = []
    slow.on_drop = lambda: dropped.append("slow")
    for _ in range(PIECES_MAX + 1):
        made.tell("backend.went_up", {"backend": "pi"})
        made._send()
        await quick.next_piece()
    assert dropped == ["slow"]
    assert (slow.is_open, quick.is_open) == (False, True)
    pieces = [await slow.next_piece() for _ in range(PIECES_MAX + 1)]
    assert pieces[-1] == b""


async def test_only_so_many_may_listen() -> None:
    made = feed()
    subscriptions = [joined(made) for _ in range(SUBSCRIBERS_MAX)]
    assert made.subscribe() is None
    made.unsubscribe(subscriptions[0])
    assert made.subscribe() is not None


async def test_the_end_sends_what_is_left_and_ends_everybody() -> None:
    made = feed()
    subscription = joined(made)
    made.tell("daemon.stopping", {"running": 1})
    made.end()
    assert b"daemon.stopping" in await subscription.next_piece()
    assert await subscription.next_piece() == b""


async def test_text_that_is_no_utf_8_is_skipped_and_counted() -> None:
    made = feed()
    subscription = joined(made)
    made.tell_exchange(exchange(attempt("pi"), path="/\udcff"))
    made.tell("backend.went_up", {})
    async with asyncio.timeout(5):
        assert b'{"events":1}' in await subscription.next_piece()
