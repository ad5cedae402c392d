"""Exchanges of one session have it one after the other, in the order in which they came."""

import asyncio

import pytest

from understudy.sessions.order import Order
from understudy.sessions.store import HeldElsewhere


async def step() -> None:
    """Let whoever can go on do so."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_free_session_is_had_at_once() -> None:
    order = Order()
    await order.take("a", 0.0)
    await order.take("b", 0.0)
    assert (order.held, order.waiting) == (2, 0)


async def test_who_comes_first_goes_first() -> None:
    order, seen = Order(), []

    async def turn(name: str) -> None:
        await order.take("a", 10.0)
        seen.append(name)
        await step()
        order.leave("a")

    await asyncio.gather(*(turn(name) for name in "xyz"))
    assert seen == ["x", "y", "z"]
    assert (order.held, order.waiting) == (0, 0)


async def test_nobody_waits_longer_than_they_want() -> None:
    order = Order()
    await order.take("a", 0.0)
    with pytest.raises(HeldElsewhere):
        await order.take("a", 0.001)
    order.leave("a")
    assert order.held == 0


async def test_who_gives_up_is_passed_over() -> None:
    order = Order()
    await order.take("a", 0.0)
    waiting = [asyncio.ensure_future(order.take("a", 10.0)) for _ in range(3)]
    await step()
    waiting[0].cancel()
    await step()
    assert order.waiting == 2
    order.leave("a")
    await waiting[1]
    assert not waiting[2].done()
    order.leave("a")
    await waiting[2]
    order.leave("a")
    assert order.held == 0


async def test_who_gives_up_in_the_moment_of_being_given_it_hands_it_on() -> None:
    order = Order()
    await order.take("a", 0.0)
    waiting = [asyncio.ensure_future(order.take("a", 10.0)) for _ in range(2)]
    await step()
    order.leave("a")
    waiting[0].cancel()
    await waiting[1]
    assert waiting[0].cancelled()
    order.leave("a")
    assert order.held == 0
