"""A play of chance over the wire: clients of several sessions, and after every step engine, client and store as the model has it.

Run by tests/integration/test_session_model.py, and by hand as `PYTHONPATH=tests python -m support.session_play`. The rule is
support.session_model's, what befalls engines and daemons support.session_mishaps'. A play that fails tells its seed, the step
and both sides.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import session_mishaps, session_races
from support.redis_server import RedisServer
from support.session_cast import Cast, RedisShelf, Setting, Shelf
from support.session_model import ANY, Kept, Merged, Said, merge, taken
from support.session_requests import Client, Request
from support.session_wire import Heard, given, kept_lines, loss_told, own_messages, read_reply, record_lines, wanted
from support.wire import Reply

SETTINGS = (
    Setting(),
    Setting(messages_max=8),
    Setting(daemons=2, format="msgpack"),
    Setting(engine="vllm"),
    Setting(engines=3, daemons=2, messages_max=5),
)
SESSIONS = {"a": "tools", "k\u00fcche 7": "tools", "../b?c=d&id=e#%2f": "mixed", "texts": "texts"}
HISTORY_STEPS = 8


class Play:
    """One play. `kept` is what the model has of every session; `counts` what has happened, by word."""

    def __init__(self, cast: Cast, seed: int) -> None:
        self.cast = cast
        self.dice = random.Random(seed)
        self.kept: dict[str, Kept] = dict.fromkeys(SESSIONS, Kept())
        self.counts: Counter[str] = Counter()
        self.clients = [Client(session, manner, self.dice, cast.setting) for session, manner in SESSIONS.items()]
        self.daemon = cast.daemons[0]
        self._seed = seed
        self._told: list[str] = []
        self._latest: list[str] = []

    def run(self, steps: int, *, has_all: bool = False) -> None:
        """Play so many steps by chance, with `has_all` each of them once before.

        Raises AssertionError that tells the seed, the last steps, what was kept and sent, and both sides.
        """
        deck = self.dice.sample(STEPS, len(STEPS)) if has_all else []
        deck += self.dice.choices(STEPS, WEIGHTS, k=steps)
        for number, step in enumerate(deck):
            self._told.append(f"step {number}: {step.__name__}")
            self.counts[step.__name__] += 1
            try:
                step(self)
            except Exception as error:
                last = "\n  ".join([*self._told[-HISTORY_STEPS:], *self._latest])
                raise AssertionError(f"seed {self._seed} in {self.cast.setting}, the last steps:\n  {last}\n{error}") from error

    def tell(self, words: str) -> None:
        """Add to what is told of this step if it fails."""
        self._told[-1] += f"; {words}"

    # --- asking

    def request(self, **more: Any) -> tuple[Client, Request]:
        """Let chance choose who asks, and what."""
        client = self.dice.choice(self.clients)
        request = client.request(self.kept[client.session], **more)
        self.tell(f"{request.session!r} {request.path} {request.told} streamed={request.is_streamed}")
        self._latest = ["before it was kept", *kept_lines(self.kept[client.session]), f"and sent was {request.body}"]
        self.counts[f"form {request.told.split()[0]}"] += 1
        return client, request

    def send(self, request: Request, **headers: str) -> Reply:
        """Ask any of the daemons and read all that comes."""
        self.cast.forget_given()
        self.daemon = self.dice.choice(self.cast.daemons)
        return self.daemon.ask(request.path, request.body, headers={**request.headers, **headers})

    def ask(self, request: Request) -> None:
        """Ask, and have a whole answer as the model has it."""
        self.check_whole(request, self.send(request))

    def check_whole(self, request: Request, reply: Reply, loss: str = "") -> None:
        """Check a whole answer and what its engine was given, and keep the turn; `loss` may be told of what was kept before.

        A session stays with the backend of its last answer, where that is known and none is away.
        """
        assert reply.status == 200, reply
        kept = Kept() if request.is_off else self.kept[request.session]
        merged = merge(kept, request.asked)
        self.check_given(request, merged)
        assert len(self.cast.all_given()) == 1, f"more than one engine was asked: {self.cast.all_given()}"
        heard = read_reply(reply)
        assert heard.is_ended, f"the answer has no end: {reply}"
        if self.cast.is_complete and kept.backend and not request.asked.is_reset:
            assert reply.backend == kept.backend, f"answered by {reply.backend}, was with {kept.backend}"
        self.keep(request, merged, heard, reply, loss=loss)

    def check_given(self, request: Request, merged: Merged) -> None:
        """Check what engines were given, all of them alike, the client's own messages byte for byte."""
        found = self.cast.all_given()
        assert found, "no engine was asked"
        for path, body in found:
            self.check_view(request, merged, path, body)
        for raw in self.cast.raw_given():
            at = 0
            for message in own_messages(request.path, request.body):
                at = raw.find(message, at) + 1
                assert at, f"the client's own message {message!r} has not reached the engine as it is: {raw!r}"

    def check_view(self, request: Request, merged: Merged, path: str, body: Mapping[str, Any]) -> None:
        """Check what one engine was given."""
        found, must = given(path, body), wanted(request.path, request.asked, merged)
        assert found == must, f"({merged.word}) an engine was given\n  {shown(found)}\nbut must be given\n  {shown(must)}"

    def keep(self, request: Request, merged: Merged, heard: Heard, reply: Reply, *, mark: str = "whole", loss: str = "") -> None:
        """Take over what must be kept now, and check what the client is told of it; a `loss` may be told that is no turn's."""
        word = reply.head.get("X-Understudy-Session")
        if request.is_off:
            assert not word, f"told {word} of a session that it has nothing to do with"
            return
        assert merged.word in (word, ANY), f"told {word!r}, must be {merged.word!r}"
        self.counts[word] += 1
        lost = ""
        if heard.is_malformed:
            lost = "unreadable"
            self.counts[lost] += 1
        elif not heard.is_nothing:
            answer = replace(heard.said, mark=mark, is_raw=request.asked.form == "raw")
            lost = self.take(request.session, merged, answer, reply.backend)
        told = loss_told(reply)
        # A line of NDJSON has no place for it, nor has an answer that breaks off.
        is_events = reply.head.get("Content-Type").startswith("text/event-stream")
        is_untold = mark != "whole" or (request.is_streamed and not is_events)
        allowed = {lost or loss, loss} if loss else {lost, ""} if is_untold else {lost}
        assert told in allowed, f"told the loss {told!r}, must be {lost!r}"

    def take(self, session: str, merged: Merged, answer: Said, backend: str) -> str:
        """Take over a turn into what is kept; return why it is not kept, "" where it is."""
        before = self.kept[session]
        after = self.kept[session] = taken(before, merged, answer, self.cast.setting.messages_max, backend)
        if after.messages is not before.messages:
            return ""
        self.counts["too_large"] += 1
        return "too_large"

    # --- looking at the store

    def check_record(self, session: str) -> dict[str, Any] | None:
        """Check that the admin port shows what the model has; return the record."""
        record, kept = self.cast.record(session), self.kept[session]
        found, must = record_lines(record), kept_lines(kept)
        assert found == must, f"{session!r}: kept is\n  {found}\nbut must be\n  {must}"
        assert not record or kept.backend in ("", record["backend"]), f"with {record['backend']}, not {kept.backend}"
        return record


def shown(view: Any) -> str:
    """Write what an engine was given, one message a line."""
    return "\n  ".join(filter(None, (view.path, f"system {view.system!r}", *view.lines, f"prompt {view.prompt!r}")))


# --- steps without a mishap


def asks(play: Play) -> None:
    """Somebody asks something."""
    _, request = play.request()
    play.ask(request)


def asks_and_looks(play: Play) -> None:
    """Somebody asks something, and then what is kept is looked at."""
    _, request = play.request()
    play.ask(request)
    play.check_record(request.session)


def asks_twice(play: Play) -> None:
    """Somebody asks the same thing twice."""
    _, request = play.request(mode="")
    play.ask(request)
    play.ask(request)


STEPS = (asks, asks_and_looks, asks_twice, *session_mishaps.STEPS, *session_races.STEPS)
WEIGHTS = (40, 30, 3, *session_mishaps.WEIGHTS, *session_races.WEIGHTS)


# --- running


def play_seed(seed: int, steps: int, folder: Path, redis_url: str = "", *, has_all: bool = False) -> Play:
    """Play one seed in a folder of its own, in files or in Redis; the setting goes by the seed. See `Play.run`."""
    setting = SETTINGS[seed % len(SETTINGS)]
    with ExitStack() as stack:
        shelf = Shelf(folder / "kept")
        if redis_url:
            shelf = RedisShelf(redis_url, f"play{seed}:")
            stack.callback(shelf.close)
        play = Play(stack.enter_context(Cast(setting, folder, shelf)), seed)
        play.run(steps, has_all=has_all)
        for session in SESSIONS:
            play.check_record(session)
    return play


def main(words: Sequence[str] | None = None) -> None:
    """Play many seeds and tell what has happened."""
    parser = argparse.ArgumentParser(description="Hold a real daemon against the model of its conversations.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--redis", action="store_true", help="keep conversations in a Redis of its own, not in files")
    parser.add_argument("--goes-on", action="store_true", help="tell a failed seed and go on with the next")
    chosen = parser.parse_args(words)
    counts: Counter[str] = Counter()
    begun_s = time.monotonic()
    with ExitStack() as stack:
        url = stack.enter_context(RedisServer({"appendfsync": "no"})).url if chosen.redis else ""
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            with tempfile.TemporaryDirectory(prefix="understudy-play-") as folder:
                try:
                    counts += play_seed(seed, chosen.steps, Path(folder), url).counts
                except AssertionError as error:
                    if not chosen.goes_on:
                        raise
                    counts["failed seeds"] += 1
                    sys.stdout.write(f"{error}\n")
    took_s = time.monotonic() - begun_s
    steps = chosen.seeds * chosen.steps
    sys.stdout.write(f"{chosen.seeds} seeds of {chosen.steps} steps in {took_s:.1f} s, {steps / took_s:.0f} steps/s\n")
    sys.stdout.write(", ".join(f"{word} {count}" for word, count in sorted(counts.items())) + "\n")


if __name__ == "__main__":
    main()
