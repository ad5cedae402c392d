"""Plays of run_interruptible: what Ctrl-C does to work that waits, that has just ended, and to the next one."""

import asyncio
import os
import signal

import pytest

from understudy.cli.interruptible import run_interruptible


def test_returns_what_the_work_returns() -> None:
    assert run_interruptible(asyncio.sleep(0, "done")) == "done"


def test_raises_what_the_work_raises() -> None:
    async def fail() -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        run_interruptible(fail())


def test_an_interrupt_cancels_what_waits_for_ever() -> None:
    ended: list[str] = []

    async def wait() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(wait())
    assert ended == ["cleaned up"]


def test_the_loop_is_woken_by_a_descriptor() -> None:
    async def wakeup_descriptor() -> int:
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        return descriptor

    assert run_interruptible(wakeup_descriptor()) >= 0


def test_work_that_swallows_its_cancellation_is_interrupted_all_the_same() -> None:
    async def stubborn() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done after all"
        return ""

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(stubborn())


def test_a_cancellation_of_the_work_s_own_is_no_interrupt() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_interruptible(cancel_itself())


def test_python_s_own_handler_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    run_interruptible(asyncio.sleep(0))
    assert signal.getsignal(signal.SIGINT) is before
