"""The command `understudy demo`: a failover to look at, with nothing to install or set up."""

import argparse
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse gives its type no other name


def add(subparsers: "Subparsers") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo", help="two small engines, the daemon and a client; kills an engine and shows what happens"
    )
    parser.add_argument("--stay", action="store_true", help="leave all of it running afterwards, until Ctrl-C")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the demo; 0 when all of it went as it must, 1 with one line on standard error otherwise."""
    from understudy.cli.admin_call import say_error
    from understudy.demo import show
    from understudy.demo.children import DemoError

    # Whoever stops the demo, its engines and its daemon must go with it, also where a shell had it ignore SIGINT.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        show.run(_say, is_staying=args.stay)
    except (DemoError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        say_error(f"the demo could not be played: {error}")
        return 1
    return 0


def _say(words: str) -> None:
    print(words, flush=True)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
