"""Show a failover to a newcomer: two small engines, the daemon and a client, and what each of them sees.

Called by cli.demo. Tells in plain words what happens, with what the wire really carried; its own knowledge of the daemon comes
from the public and the admin port alone, as everyone's does. Leaves no process and no file behind, however it ends.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from understudy.demo.children import DaemonChild, DemoError, EngineChild
from understudy.demo.client import Client, Told

PRIMARY, BACKUP = "pi", "laptop"
# Slow enough for an answer of some thirty words to have a middle, on a busy machine too.
TOKEN_DELAY_MS = 30.0
KILLED_AFTER_WORDS = 8
QUESTIONS = ("Who speaks tonight?", "And if the lead falls ill?", "Who is on stage now?")

Say = Callable[[str], None]


def file_text(engines: Sequence[tuple[str, str]]) -> str:
    """Write the daemon's file for (name, url) pairs, the first one primary; probes are quicker than by default."""
    backends = "".join(
        f"  - name: {name}\n    url: {url}\n    role: {'backup' if i else 'primary'}\n" for i, (name, url) in enumerate(engines)
    )
    return (
        "listen: 127.0.0.1:0\n"
        "admin:\n  listen: 127.0.0.1:0\n"
        f"backends:\n{backends}"
        "health:\n  interval: 500ms\n  timeout: 500ms\n  fall: 2\n  fail_timeout: 1s\n"
        "log:\n  format: json\n"
    )


def table(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out the backends of /api/status as lines of a table."""
    rows = [("BACKEND", "ROLE", "CONDITION", "WHY")]
    rows += [(str(b["name"]), str(b["role"]), str(b["condition"]), str(b.get("reason") or "-")) for b in backends]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        "   " + "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)) + f"  {row[3]}" for row in rows
    ]


def check_whole(told: Told, uncut: str) -> None:
    """Check that an answer was broken, and is nevertheless `uncut` to the letter. Raises DemoError."""
    if not told.seams:
        raise DemoError(f"{PRIMARY} was killed in the middle of an answer, but nobody went on with it")
    if told.text != uncut:
        same = next((i for i, (ours, theirs) in enumerate(zip(told.text, uncut, strict=False)) if ours != theirs), None)
        same = min(len(told.text), len(uncut)) if same is None else same
        raise DemoError(f"the answer differs after {same} characters: {told.text[same:]!r} instead of {uncut[same:]!r}")


def with_seams(told: Told) -> str:
    """Write the answer with a note at each seam."""
    text = told.text
    for seam in reversed(told.seams):
        text = f"{text[: seam.after_characters]} [{seam.backend} goes on]{text[seam.after_characters :]}"
    return text


def explain(told: Told, *, is_killed: bool) -> str:
    """Say in one sentence what the daemon did for this answer."""
    if not is_killed:
        return f"The daemon sent the question to {told.backend}, the primary."
    if told.attempts > 1:
        return f"The daemon tried {PRIMARY}, found nobody there, and had {told.backend} answer. The client saw nothing of it."
    return f"The daemon knew already that {PRIMARY} is gone and had {told.backend} answer."


def run(say: Say, *, is_staying: bool) -> None:
    """Play the whole show; with `is_staying` everything then runs on until Ctrl-C.

    Raises DemoError when something does not go as it must, KeyboardInterrupt when it was interrupted before the end.
    """
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="understudy-demo-")))
        started_at_s = time.monotonic()
        say("Understudy keeps one address answering while the engines behind it come and go.")
        say("Here is all of it on this machine: two small engines with made-up answers, the daemon and a client.\n")
        engines = [EngineChild(name, folder, TOKEN_DELAY_MS) for name in (PRIMARY, BACKUP)]
        for engine in engines:
            cleanup.callback(engine.kill)
            engine.start()
        file = folder / "understudy.yaml"
        file.write_text(file_text([(engine.name, engine.url) for engine in engines]), encoding="utf-8")
        daemon = DaemonChild(file)
        cleanup.callback(daemon.stop)
        daemon.wait_listening()
        client = Client(daemon.port, daemon.admin_port)
        cleanup.callback(client.close)
        for engine in engines:
            client.wait_condition(engine.name, "up")
        rows = [(e.name, e.url, "backup" if i else "primary") for i, e in enumerate(engines)]
        rows.append(("understudy", f"http://127.0.0.1:{daemon.port}", "the one address that clients use"))
        for name, url, words in rows:
            say(f"   {name:<11} {url}   {words}")
        say(f"\nReady after {time.monotonic() - started_at_s:.1f} s.")
        _play(say, client, engines[0])
        if is_staying:
            _stay(say, daemon)


def _play(say: Say, client: Client, primary: EngineChild) -> None:
    say("\n1. A client asks, and the primary answers.\n")
    uncut = _ask(say, client, QUESTIONS[0], expected=PRIMARY).text

    say("\n2. The client asks the same again. In the middle of the answer the primary is killed.\n")
    _break(say, client, primary, uncut)

    say("\n3. The client asks on, at the same address.\n")
    _ask(say, client, QUESTIONS[1], expected=BACKUP)
    client.wait_condition(PRIMARY, "down")
    say("\n   What the daemon sees now (`understudy status`):\n")
    _print_table(say, client)

    say("\n4. The primary comes back.\n")
    primary.start()
    returned_s = client.wait_condition(PRIMARY, "up")
    say(f"   The daemon noticed by itself, {returned_s:.1f} s after it was back.\n")
    _ask(say, client, QUESTIONS[2], expected=PRIMARY)
    say("")
    _print_table(say, client)
    say("\nNo answer failed, and the client never had to know. With engines of your own:\n")
    say("   understudy serve http://192.168.1.100:11434 http://192.168.1.101:11434")


def _ask(say: Say, client: Client, question: str, *, expected: str) -> Told:
    told = client.ask(question)
    if told.backend != expected:
        raise DemoError(f"{told.backend} answered where {expected} should have")
    _print_answer(say, question, told)
    say(f"   first words after {told.first_words_s * 1000:.0f} ms, the last after {told.all_words_s * 1000:.0f} ms")
    say(f"   {explain(told, is_killed=expected == BACKUP)}")
    return told


def _break(say: Say, client: Client, primary: EngineChild, uncut: str) -> None:
    """Kill the primary while it answers, and show that the answer is the `uncut` one all the same."""

    def kill(words: int) -> None:
        if words == KILLED_AFTER_WORDS:
            primary.kill()

    told = client.ask(QUESTIONS[0], kill)
    check_whole(told, uncut)
    _print_answer(say, QUESTIONS[0], told)
    seam = told.seams[-1]
    went_on = f"{seam.backend} went on {seam.silence_s * 1000:.0f} ms after the last word"
    say(f"   {PRIMARY} was killed after {KILLED_AFTER_WORDS} words; {went_on}, where a word takes {TOKEN_DELAY_MS:.0f} ms.")
    say(f"   The same {len(told.text)} characters as before, none missing, none twice, in one stream with one id.")
    say("   The daemon marks the place with an SSE comment, which clients skip.")


def _print_answer(say: Say, question: str, told: Told) -> None:
    say(f"   > {question}")
    say(fill(with_seams(told), 96, initial_indent="   < ", subsequent_indent="     "))
    say(f"\n   X-Understudy-Backend: {told.backend}   X-Understudy-Attempts: {told.attempts}")


def _print_table(say: Say, client: Client) -> None:
    for line in table(client.backends()):
        say(line)


def _stay(say: Say, daemon: DaemonChild) -> None:
    body = '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'
    say("\nAll of it stays until Ctrl-C:\n")
    say(f"   curl http://127.0.0.1:{daemon.port}/v1/chat/completions -d '{body}'")
    say(f"   understudy status --admin http://127.0.0.1:{daemon.admin_port}")
    try:
        while not daemon.wait_ended(timeout_s=3600.0):
            pass
    except KeyboardInterrupt:
        say("\nStopped.")
        return
    raise DemoError("the daemon ended by itself")
