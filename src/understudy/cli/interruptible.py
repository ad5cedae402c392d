"""Run a command's asyncio part so that Ctrl-C always ends it at once.

Called by cli.check and cli.compare. Decides nothing about what is told afterwards.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end and return what it returns, in the main thread only. SIGINT cancels it and raises KeyboardInterrupt.

    asyncio.run (CPython 3.11 to 3.14, Lib/asyncio/runners.py) sets a plain signal handler: a signal between the last look at
    signals and the selector's sleep is noticed only at the next event, which a hanging server never sends. A loop's own handler
    wakes the selector through a descriptor (signal.set_wakeup_fd).
    """
    was_interrupted = False

    async def watched() -> _T:
        task = asyncio.current_task()

        def interrupt() -> None:
            nonlocal was_interrupted
            was_interrupted = True
            if task is not None:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        return await work

    try:
        result = asyncio.run(watched())
    except asyncio.CancelledError:
        if not was_interrupted:
            raise
        raise KeyboardInterrupt from None
    if was_interrupted:
        raise KeyboardInterrupt
    return result
