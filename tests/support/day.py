"""A day in short: hangs, crashes, slow-downs and recoveries in a row under load, beside what a careful operator would have done.

Run in small by tests/integration/test_day.py and by hand as `PYTHONPATH=tests python -m support.day --seed 7`; a day that goes
wrong tells its seed, what was wrong and where the daemon's log is. Its engines are processes (support.day_cast).
"""

import argparse
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.daemon import Daemon
from support.day_cast import Actor, Crowd, actors, open_mailman, texts_of, upkeep_daemon
from support.waiting import until


@dataclass(frozen=True, slots=True)
class Deed:
    """What befalls a backend, and what a careful operator would have done about it.

    `restarts` are those that help, `failures` those that the play makes fail before; `cause` is the log's word for why.
    """

    name: str
    act: Callable[["Day", Actor], None]
    restarts: int = 0
    failures: int = 0
    cause: str = ""


@dataclass(slots=True)
class Figures:
    """What came of a day."""

    answered: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    mails: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lasted_s: float = 0.0

    def say(self) -> str:
        """Write all of it, a line a figure."""
        return "\n".join(
            (
                f"{self.answered.total()} answers in {self.lasted_s:.1f} s: {dict(self.answered)}, {self.resumed} resumed",
                f"{self.deeds.total()} deeds: {dict(self.deeds)}",
                f"{self.restarts} restarts, {len(self.mails)} messages: {self.mails}",
                *self.wrong,
            )
        )


class Day:
    """One day: b0 is a child, b1 is restarted by a command, u0 is the understudy. Two lanes, so that one is well at any time.

    Long troubles befall b1 alone and take their time; short ones befall b0 and u0, one after the other, meanwhile.
    """

    def __init__(self, daemon: Daemon, cast: list[Actor], crowd: Crowd, figures: Figures) -> None:
        self.daemon, self.crowd, self.figures = daemon, crowd, figures
        self.b0, self.b1, self.u0 = cast

    def play(self, dice: random.Random, deeds: int) -> None:
        """Play so many short deeds, and long ones beside them until these are over."""
        is_over = threading.Event()

        def long_lane() -> None:
            while not is_over.is_set():
                self._play_deed(dice_long.choice(LONG), self.b1)

        dice_long = random.Random(dice.random())
        lane = threading.Thread(target=long_lane, name="long lane")
        lane.start()
        try:
            for _ in range(deeds):
                deed = dice.choice(SHORT)
                self._play_deed(deed, self.u0 if deed.restarts and dice.random() < 0.4 else self.b0)
        finally:
            is_over.set()
            lane.join()

    def _play_deed(self, deed: Deed, actor: Actor) -> None:
        began = len(self.daemon.events(backend=actor.name))
        self.figures.deeds[deed.name] += 1
        try:
            deed.act(self, actor)
            self._wait_settled(actor, began, deed)
        except AssertionError as error:
            self.figures.wrong.append(f"{deed.name} {actor.name}: {error}")
            actor.mood("")
        told = [event for event in self.daemon.events(backend=actor.name)[began:] if event["event"].startswith("restart.")]
        names = [event["event"].removeprefix("restart.") for event in told]
        wanted = ["started", "failed"] * deed.failures + ["started", "succeeded"] * deed.restarts
        causes = {event["cause"] for event in told if event["event"] == "restart.started"}
        if names != wanted or (causes and causes != {deed.cause}):
            self.figures.wrong.append(f"{deed.name} {actor.name}: {names} for {causes}, want {wanted} for {deed.cause!r}")

    def _wait_settled(self, actor: Actor, began: int, deed: Deed) -> None:
        def is_settled() -> bool:
            events = self.daemon.events("restart.succeeded", backend=actor.name)
            done = len([event for event in events if event in self.daemon.events(backend=actor.name)[began:]])
            state = self.daemon.status()[actor.name]
            return done >= deed.restarts and state["condition"] == "up" and state["restart"]["phase"] == "watching"

        until(is_settled, f"{actor.name} is well; {self.daemon.status()[actor.name]}", timeout_s=25, every_s=0.05)

    def order(self, actor: Actor) -> None:
        """Restart it by the operator's word, again where another one's restart is under way."""
        path = f"/api/backends/{actor.name}/restart"
        until(lambda: self.daemon.admin(path, method="POST").status == 200, "a restart is begun")


def _kill(_day: Day, actor: Actor) -> None:
    actor.signal(signal.SIGKILL)


def _hang(_day: Day, actor: Actor) -> None:
    actor.signal(signal.SIGSTOP)


def _freeze(day: Day, actor: Actor) -> None:
    """Hold it up until that is seen, and let it go on."""
    actor.signal(signal.SIGSTOP)
    until(lambda: day.daemon.status()[actor.name]["condition"] == "down", "seen to be down")
    actor.signal(signal.SIGCONT)


def _crash_twice(day: Day, actor: Actor) -> None:
    before = len(day.daemon.events("restart.failed", backend=actor.name))
    actor.mood("broken")
    actor.signal(signal.SIGKILL)
    until(lambda: len(day.daemon.events("restart.failed", backend=actor.name)) > before, "a restart that failed")
    actor.mood("")


def _slow(day: Day, actor: Actor) -> None:
    actor.mood("slow")
    day.crowd.wait_answers(8)
    actor.mood("")


LONG = (Deed("hangs", _hang, 1, cause="probes"), Deed("is killed", _kill, 1, cause="probes"))
SHORT = (
    Deed("is killed", _kill, 1, cause="exited"),
    Deed("is killed", _kill, 1, cause="exited"),
    Deed("crashes at its next start", _crash_twice, 1, failures=1, cause="exited"),
    Deed("is held up", _freeze),
    Deed("is slow for a moment", _slow),
    Deed("is to be restarted", Day.order, 1, cause="operator"),
)


def play(seed: int, deeds: int, tell: Callable[[str], None] = print) -> Figures:
    """Play one day and say what came of it; AssertionError with its seed where something was wrong."""
    figures = Figures()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cast = stack.enter_context(actors(folder, "b0", "b1", "u0"))
        mailman = stack.enter_context(open_mailman())
        often = {"restart": {"max": "6 per 3s", "backoff": "100ms"}}
        cast[1].start()
        entries = cast[0].entry("run", **often), cast[1].entry("command", **often), cast[2].entry("run", role="backup", **often)
        daemon = stack.enter_context(upkeep_daemon(folder, *entries, balance="least_in_flight", alerts=[{"url": mailman.url}]))
        daemon.wait_condition("up")
        texts = texts_of(cast[1])
        began_at_s = time.monotonic()
        with Crowd(daemon, texts, clients=4, seed=seed) as crowd:
            crowd.wait_answers(20)
            if crowd.answered["u0"]:
                figures.wrong.append("the understudy answered while both primaries were well")
            Day(daemon, cast, crowd, figures).play(random.Random(seed), deeds)
            for name in ("b0", "b1"):
                crowd.wait_answers(5, name)
        figures.answered, figures.resumed = crowd.answered, crowd.resumed
        figures.lasted_s = time.monotonic() - began_at_s
        status = daemon.stop()
        figures.mails = mailman.subjects
        figures.wrong += [f"lost {why}" for why in crowd.lost]
        figures.wrong += [] if status == 0 else [f"the daemon ended with {status}"]
        figures.wrong += _against_rules(daemon.events(), figures)
        if figures.wrong:
            (Path(tempfile.gettempdir()) / f"day-{seed}.log").write_text("\n".join(daemon.log))
    tell(figures.say())
    assert not figures.wrong, f"seed {seed}: {figures.say()}"
    return figures


def _against_rules(events: list[dict[str, Any]], figures: Figures) -> list[str]:
    """Return what breaks a rule that holds for the whole day: one at a time, nobody given up, few messages."""
    wrong, under_way = [], ""
    for event in events:
        match event["event"]:
            case "restart.started":
                figures.restarts += 1
                wrong += [f"{event['backend']} restarted while {under_way} was"] if under_way else []
                under_way = event["backend"]
            case "restart.succeeded" | "restart.failed":
                under_way = ""
            case "restart.gave_up" | "pool.became_empty":
                wrong.append(str(event))
    # The gap between messages is half a minute; a storm would be one a deed.
    most = 2 + int(figures.lasted_s / 30.0)
    if len(figures.mails) > most:
        wrong.append(f"{len(figures.mails)} messages, want {most} at most: {figures.mails}")
    return wrong


def main() -> None:
    """Play a day as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deeds", type=int, default=18, help="short troubles; long ones go on beside them")
    asked = parser.parse_args()
    play(asked.seed, asked.deeds)


if __name__ == "__main__":
    main()
