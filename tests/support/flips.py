"""Load without end while the active color is flipped: no request fails, no conversation sees both colors.

Run in small by tests/integration/test_rollout.py and by hand as `PYTHONPATH=tests python -m support.flips --requests 20000
--flips 100 --seed 1`. Flips come by the file, by SIGHUP, by the admin port and by the command line, rollbacks among them, and
restarts where they are asked for. A play that fails tells its seed and what was wrong first.
"""

import argparse
import asyncio
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.daemon import Daemon, settings
from support.flips_talk import COLORS, ColorEngine, Link, Talk, color_of, new_talk, wrong_with
from support.waiting import until
from support.wire import Reply

TALKS_OPEN_MAX = 6
WRONG_MAX = 20
TWINS = 0.05
ENGINES = (("b0", "blue"), ("b1", "blue"), ("g0", "green"), ("g1", "green"))


@dataclass(frozen=True, slots=True)
class Setting:
    """What a play is about. `takes_sessions`: rollbacks take sessions back; then a conversation may move, once for each.

    `breaks` is the share of requests that the first engine of each color drops, or answers with an error.
    """

    requests: int = 2000
    flips: int = 10
    restarts: int = 0
    clients: int = 24
    seed: int = 1
    is_stored: bool = False
    takes_sessions: bool = False
    shadow: str = "0%"
    breaks: float = 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """What conversations there are: without a store nobody remembers those without a session over a restart."""
        return ("session", "single") if self.restarts else ("session", "whole", "single")


@dataclass(slots=True)
class Figures:
    """What came of a play. Latencies in seconds, from the order to its being in force as the one who gave it is told."""

    requests: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    talks: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    wrong_count: int = 0
    saw_both: int = 0
    moves: int = 0
    new_checked: int = 0
    recalled_checked: int = 0
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    duration_s: float = 0.0

    def say(self) -> str:
        """Write all of it, a line a figure."""
        latencies = "; ".join(
            f"{how} median {statistics.median(each):.3f} s, max {max(each):.3f} s" for how, each in self.latencies_s.items()
        )
        return "\n".join(
            (
                f"requests {self.requests} in {self.duration_s:.1f} s, wrong {self.wrong_count}",
                f"repeated for a restart: {dict(self.repeated)}",
                f"flips {sum(self.flips.values())}: {dict(self.flips)}",
                f"conversations {sum(self.talks.values())}: {dict(self.talks)}",
                f"saw both colors {self.saw_both}, moved by a recall {self.moves}",
                f"new ones held against an acknowledged flip {self.new_checked}, against a recall {self.recalled_checked}",
                f"latency of a flip: {latencies}",
                *self.wrong,
            )
        )


class Flips:
    """One play. `certain` is the active color while nothing changes it, "" meanwhile; `epoch` counts the changes begun."""

    def __init__(self, setting: Setting, folder: Path, engines: list[ColorEngine]) -> None:
        self.setting = setting
        self.figures = Figures()
        self.certain = "blue"
        self.epoch = 0
        self._dice = random.Random(setting.seed)
        self._says = {engine.name: engine.say for engine in engines}
        sessions = {"sessions": {"store": f"file:{folder / 'kept'}"}} if setting.is_stored else {}
        self._wanted = settings(
            *(engine.entry() for engine in engines), rollout={"active": "blue", "shadow": setting.shadow}, **sessions
        )
        self.daemon = Daemon(self._wanted, folder, environment={"XDG_STATE_HOME": str(folder / "state")})
        self._file_says, self._previous = "blue", ""
        self._recalls: list[tuple[int, str]] = []
        self._numbers = iter(range(10**9))
        self._is_over = False
        self._answered = asyncio.Condition()
        self._is_up = asyncio.Event()
        self._is_up.set()

    async def run(self) -> None:
        """Play it to its end."""
        started_at_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.setting.clients):
                tasks.create_task(self._client(random.Random(f"{self.setting.seed}.{number}")), name=f"client.{number}")
            await self._flip_all()
        self.figures.duration_s = time.monotonic() - started_at_s

    @property
    def _is_lost(self) -> bool:
        """Whether so much is wrong that the rest would tell nothing."""
        return self.figures.wrong_count >= WRONG_MAX

    # --- clients

    async def _client(self, dice: random.Random) -> None:
        link, twin, talks = Link(), Link(), list[Talk]()
        while not self._is_lost:
            if self._is_over and self.figures.requests >= self.setting.requests:
                break
            if not talks or (len(talks) < TALKS_OPEN_MAX and dice.random() < 0.3):
                talks.append(new_talk(f"talk-{self.setting.seed}-{next(self._numbers)}", self.setting.kinds, dice))
                self.figures.talks[talks[-1].kind] += 1
            talk = dice.choice(talks)
            if talk.kind == "session" and not self.setting.takes_sessions and dice.random() < TWINS:
                # Two requests of one session at once, the first ones of it, too.
                await asyncio.gather(self._turn(link, talk, dice), self._turn(twin, talk, dice))
            else:
                await self._turn(link, talk, dice)
            if len(talk.colors) >= talk.turns:
                talks.remove(talk)
            async with self._answered:
                self._answered.notify_all()
        link.close()
        twin.close()

    async def _turn(self, link: Link, talk: Talk, dice: random.Random) -> None:
        request, is_streamed = talk.request(dice)
        while True:
            certain, epoch = self.certain, self.epoch
            try:
                reply = await link.ask(self.daemon.port, request)
            except OSError as error:
                if not self.setting.restarts:
                    self._wrong(talk, repr(error))
                    talk.turns = 0
                    return
                why = str(error) if self.epoch != epoch or certain else "no connection"
            else:
                # What a stopping daemon has not begun it refuses, so that it can be repeated.
                if not (self.setting.restarts and reply.status == 503):
                    break
                why = "503"
            self.figures.repeated[why + (", sent before the stop" if certain else "")] += 1
            await self._is_up.wait()
        self.figures.requests += 1
        if why := wrong_with(reply, talk.path, is_streamed=is_streamed, says=self._says):
            self._wrong(talk, why)
            talk.turns = 0
            return
        self._judge(talk, reply, certain if epoch == self.epoch else "", epoch)

    def _judge(self, talk: Talk, reply: Reply, certain: str, sent_epoch: int) -> None:
        """Hold an answer's color against those before it; `certain` is what was active the whole time, "" where it changed."""
        color = color_of(reply.text)
        if talk.is_new:
            if certain:
                self.figures.new_checked += 1
                if color != certain:
                    self._wrong(talk, f"began on {color}, when {certain} was active")
        elif color != talk.colors[-1]:
            recalls = [epoch for epoch, left in self._recalls if left == talk.colors[-1]]
            if any(talk.sent_epoch <= epoch <= self.epoch for epoch in recalls):
                self.figures.moves += 1
            else:
                self.figures.saw_both += 1
                self._wrong(talk, f"went from {talk.colors[-1]} to {color} at turn {len(talk.colors)}")
        elif certain and talk.sent_epoch < sent_epoch and self._recalls and self._recalls[-1] == (sent_epoch, color):
            self._wrong(talk, f"stayed on {color}, which was recalled, at turn {len(talk.colors)}")
        if certain and self._recalls and self._recalls[-1][0] == sent_epoch > talk.sent_epoch and not talk.is_new:
            self.figures.recalled_checked += 1
        talk.sent_epoch = sent_epoch
        talk.hear(color, reply.text)

    def _wrong(self, talk: Talk, why: str) -> None:
        self.figures.wrong_count += 1
        self.figures.wrong.append(f"{talk.kind} {talk.name} {talk.path} (epoch {self.epoch}): {why}")

    # --- flips

    async def _flip_all(self) -> None:
        orders = ["flip"] * self.setting.flips + ["restart"] * self.setting.restarts
        self._dice.shuffle(orders)
        for number, order in enumerate(orders, start=1):
            due = int((number - 0.5 * self._dice.random()) * self.setting.requests / (len(orders) + 1))
            async with self._answered:
                await self._answered.wait_for(lambda due=due: self.figures.requests >= due or self._is_lost)  # type: ignore[misc]  # a loop's value bound as a default
            if order == "restart":
                await self._restart()
            else:
                await self._flip()
        self._is_over = True

    async def _flip(self) -> None:
        active = self.certain
        target = COLORS[active == "blue"]
        how = self._dice.choices(
            ("file", "SIGHUP", "admin", "command", "rollback"), (2, 2, 3, 1, 3 if self._previous == target else 0)
        )[0]
        if how in ("file", "SIGHUP") and self._file_says == target:
            # The file said so before, and was overruled: to say it again is no later word.
            how = "admin"
        act = {
            "file": self._by_file,
            "SIGHUP": self._by_hang_up,
            "admin": self._by_admin,
            "command": self._by_command,
            "rollback": self._by_rollback,
        }[how]
        self.certain, self.epoch = "", self.epoch + 1
        if how == "rollback" and self.setting.takes_sessions:
            self._recalls.append((self.epoch, active))
        started_at_s = time.monotonic()
        await asyncio.to_thread(act, target)
        self.figures.latencies_s.setdefault(how, []).append(time.monotonic() - started_at_s)
        self.figures.flips[how] += 1
        self._previous = "" if how == "rollback" else active
        self.certain = target

    async def _restart(self) -> None:
        active = self.certain
        self.certain, self.epoch = "", self.epoch + 1
        self._is_up.clear()
        await asyncio.to_thread(self._restart_daemon, active)
        self.certain = active
        self._is_up.set()
        self.figures.flips["restart"] += 1

    def _restart_daemon(self, active: str) -> None:
        """Stop it in order and start it with the same file: what was active is active."""
        assert self.daemon.stop() == 0, self.daemon.log[-5:]
        self.daemon.__exit__(None, None, None)
        self.daemon.__enter__()
        found = self.daemon.admin("/api/rollout").json()["active"]
        assert found == active, f"{found} is active after a restart, {active} was before"
        self.daemon.wait_condition("up")

    def _by_file(self, target: str) -> None:
        self._wanted["rollout"]["active"] = self._file_says = target
        self.daemon.rewrite(self._wanted)
        self._wait_active(target)

    def _by_hang_up(self, target: str) -> None:
        self._wanted["rollout"]["active"] = self._file_says = target
        self.daemon.rewrite(self._wanted)
        self.daemon.send_signal(signal.SIGHUP)
        self._wait_active(target)

    def _by_admin(self, target: str) -> None:
        reply = self.daemon.admin(f"/api/rollout/switch?color={target}", method="POST")
        assert (reply.status, reply.json()["active"], reply.json()["kept"]) == (200, target, True), reply

    def _by_rollback(self, target: str) -> None:
        asks = "?sessions=true" if self.setting.takes_sessions else ""
        reply = self.daemon.admin(f"/api/rollout/rollback{asks}", method="POST")
        assert (reply.status, reply.json()["active"]) == (200, target), reply

    def _by_command(self, target: str) -> None:
        command = [sys.executable, "-m", "understudy", "switch", target, "--admin", self.daemon.admin_url]
        subprocess.run(command, check=True, capture_output=True, timeout=20)

    def _wait_active(self, target: str) -> None:
        def is_so() -> bool:
            told: dict[str, Any] = self.daemon.admin("/api/rollout").json()
            return bool(told["active"] == target and told["word"] == "file")

        until(is_so, f"{target} active by the file; {self.daemon.log[-3:]}")


def play(setting: Setting, folder: Path, tell: Callable[[str], None] = print) -> Figures:
    """Play one, told what came of it; AssertionError with the seed where something was wrong."""
    with ExitStack() as stack:
        engines = [stack.enter_context(ColorEngine(name, color, gap_s=0.02)) for name, color in ENGINES]
        engines[0].breaks = engines[2].breaks = setting.breaks
        flips = Flips(setting, folder, engines)
        stack.enter_context(flips.daemon)
        flips.daemon.wait_condition("up")
        asyncio.run(flips.run())
        flips.daemon.wait_idle()
        figures = flips.figures
        if not figures.wrong:
            tell(figures.say())
        assert not figures.wrong, f"seed {setting.seed}: {figures.say()}"
        failed = [event for event in flips.daemon.events("exchange.finished") if event["status"] not in (200, 503)]
        assert not failed, failed[:3]
    return figures


def main() -> None:
    """Play as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stored", action="store_true", help="keep sessions in files")
    parser.add_argument("--sessions", action="store_true", help="rollbacks take sessions back")
    parser.add_argument("--shadow", default="0%", help="share of exchanges that also go to the other color")
    parser.add_argument("--breaks", type=float, default=0.0, help="share of requests that the first engine of a color fails")
    asked = parser.parse_args()
    setting = Setting(
        asked.requests,
        asked.flips,
        asked.restarts,
        asked.clients,
        asked.seed,
        is_stored=asked.stored,
        takes_sessions=asked.sessions,
        shadow=asked.shadow,
        breaks=asked.breaks,
    )
    with tempfile.TemporaryDirectory() as folder:
        play(setting, Path(folder))


if __name__ == "__main__":
    main()
