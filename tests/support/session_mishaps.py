"""What befalls a session play: answers that tear, go on elsewhere or are abandoned, engines and daemons that die, spoilt records.

Steps of support.session_play. Each makes its mishap happen and checks what the page promises for it; nothing here waits but for a
condition.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from support.breaks import Break, Kind
from support.session_cast import ANSWERS, is_beginning
from support.session_model import Kept, Merged, Said, kept_after, merge
from support.session_requests import Request
from support.session_wire import CHAT, MESSAGES, OLLAMA, Heard, read_body, read_record, read_reply
from support.waiting import until
from support.wire import Head, Reply, Wire, request_bytes
from support.writing_engine import WritingEngine

if TYPE_CHECKING:
    from support.session_play import Play

KINDS = (Kind.RESET, Kind.CLOSED, Kind.CLEAN_END, Kind.ERROR, Kind.MALFORMED, Kind.INSIDE_EVENT, Kind.BAD_CHUNK)
PIECES_MAX = 14
# So many pieces have some content, even where a thought begins, if no tools are offered.
SILENT_PIECES = range(6, 12)
NO_ANSWER = (502, 503, 504)
# Between two pieces of an answer that goes on while something happens.
GAP_S = 0.01


@contextmanager
def breaking(play: "Play", broken: Break, *engines: WritingEngine) -> Iterator[None]:
    """Let engines, or all of them, break every answer meanwhile."""
    chosen = engines or tuple(play.cast.engines)
    for engine in chosen:
        engine.breaks_always = broken
    try:
        yield
    finally:
        for engine in chosen:
            engine.breaks_always = None


# --- broken answers


def answer_tears(play: "Play") -> None:
    """All engines break off, and the client has declined that it goes on; then, mostly, it asks the same once more."""
    _, request = play.request(streamed=True, mode="")
    _tear(play, request)
    if play.dice.random() < 0.6:
        play.tell("asked again")
        play.ask(request)


def answer_tears_twice(play: "Play") -> None:
    """The same question's answer tears twice."""
    _, request = play.request(streamed=True, mode="", form="new")
    _tear(play, request)
    _tear(play, request)
    play.ask(request)


def _tear(play: "Play", request: Request) -> None:
    broken = Break(play.dice.choice(KINDS), play.dice.randrange(PIECES_MAX))
    play.tell(f"torn: {broken}")
    with breaking(play, broken):
        reply = play.send(request, **{"X-Understudy-No-Resume": "1"})
    merged = merge(play.kept[request.session], request.asked)
    play.check_given(request, merged)
    if reply.status != 200:
        # Before its first content: the client has nothing.
        assert reply.status in NO_ANSWER, reply
        play.counts["failed before content"] += 1
        play.check_record(request.session)
        return
    heard = read_reply(reply)
    play.counts["whole after all" if heard.is_ended else "torn"] += 1
    _keep_broken(play, request, merged, heard, reply)


def _keep_broken(play: "Play", request: Request, merged: Merged, heard: Heard, reply: Reply) -> None:
    """Take over an answer that may be torn; a torn one is kept once its client has all that it gets."""
    session, revision = request.session, play.kept[request.session].revision
    play.keep(request, merged, heard, reply, mark="whole" if heard.is_ended else "torn")
    if play.kept[session].revision == revision:
        play.check_record(session)
        return
    last = _last_backend(reply)
    play.kept[session] = replace(play.kept[session], backend=last)
    until_revision(play, session, revision + 1)
    record = play.check_record(session)
    assert record is not None
    play.kept[session] = replace(play.kept[session], backend=record["backend"])


def _must_go_on(play: "Play", request: Request, heard: Heard) -> bool:
    """Whether an answer is plain text that one Ollama takes over from another, whoever broke off."""
    asked = request.asked
    is_new = asked.form == "chat" and asked.messages[-1].speaker != "assistant"
    is_plain = "tools" not in request.body and not heard.said.text.startswith("<think>")
    return is_new and is_plain and play.cast.setting.engine == "ollama"


def _last_backend(reply: Reply) -> str:
    """Return who gave the end of an answer, as its comments tell; "" where it is not told."""
    if not reply.head.get("Content-Type").startswith("text/event-stream"):
        return ""
    _, told, rest = reply.body.rpartition(b": understudy resumed on ")
    return rest.split(b" ")[0].decode() if told else reply.backend


def until_revision(play: "Play", session: str, revision: int) -> None:
    """Wait until the store has that revision of the session: nobody is told when a broken answer is kept."""

    def is_there() -> bool:
        record = play.cast.record(session)
        return record is not None and record["revision"] >= revision

    until(is_there, f"revision {revision} of {session!r} is kept", every_s=0.002)


def answer_goes_on_elsewhere(play: "Play") -> None:
    """The engine that has the session breaks off; the answer is kept as the whole it is, or as torn where none can go on."""
    if not play.cast.is_complete:
        return
    _, request = play.request(mode="")
    kept = play.kept[request.session]
    engine = next((each for each in play.cast.engines if each.name == kept.backend), play.cast.engines[0])
    broken = Break(play.dice.choice(KINDS), play.dice.randint(1, PIECES_MAX))
    play.tell(f"{engine.name} breaks off: {broken}")
    with breaking(play, broken, engine):
        reply = play.send(request)
    if reply.status != 200:
        assert reply.status in NO_ANSWER, reply
        assert not request.is_streamed, reply
        play.check_record(request.session)
        return
    merged = merge(kept, request.asked)
    if engine.generated:
        play.check_view(request, merged, *engine.generated[0])
    heard = read_reply(reply)
    play.counts["went on" if heard.is_ended and len(play.cast.all_given()) > 1 else "whole or torn"] += 1
    if _must_go_on(play, request, heard):
        assert heard.is_ended, f"it has not gone on: {reply}"
        assert heard.said.text in ANSWERS, f"no engine says {heard.said.text!r}"
    _keep_broken(play, request, merged, heard, reply)


# --- clients that leave


def client_leaves(play: "Play") -> None:
    """A client goes away in the middle of its answer; what it was sent is kept. Then, mostly, it asks the same once more."""
    _, request = play.request(streamed=True, mode="", form="new", tools=False)
    merged = merge(play.kept[request.session], request.asked)
    if kept_after(merged, Said("assistant", "?"), play.cast.setting.messages_max) is None:
        return
    with breaking(play, Break(Kind.SILENCE, play.dice.choice(SILENT_PIECES))), begun(play, request) as (wire, head, body):
        # Not in order: half a connection that is closed would say nothing of the other half.
        wire.reset()
    play.check_given(request, merged)
    heard = read_body(body, is_stream=True)
    if heard.is_ended:
        play.counts["whole after all"] += 1
        play.keep(request, merged, heard, Reply(head, body))
        return
    revision = play.kept[request.session].revision + 1
    until_revision(play, request.session, revision)
    record = play.cast.record(request.session)
    assert record is not None
    answer = read_record(record["messages"])[-1]
    assert answer.mark == "abandoned", f"kept with the mark {answer.mark}"
    assert answer.text.startswith(heard.said.text), f"kept is {answer.text!r}, the client has read {heard.said.text!r}"
    if play.cast.setting.engine == "ollama" and request.path in (CHAT, OLLAMA, MESSAGES):
        assert is_beginning(answer.text), f"kept is {answer.text!r}, which no engine has said"
    play.counts["abandoned"] += 1
    play.take(request.session, merged, answer, head.get("X-Understudy-Backend"))
    play.check_record(request.session)
    if play.dice.random() < 0.5:
        play.tell("asked again")
        play.ask(request)


@contextmanager
def begun(play: "Play", request: Request) -> Iterator[tuple[Wire, Head, bytes]]:
    """Ask for a stream and read up to its first content, or to its end; leaves when it is left."""
    play.cast.forget_given()
    play.daemon = play.dice.choice(play.cast.daemons)
    body = b""
    with Wire(play.daemon.port) as wire:
        wire.send(request_bytes("POST", request.path, request.body, request.headers))
        head = wire.read_head()
        assert head.status == 200, head
        for piece in wire.read_pieces(head):
            body += piece
            heard = read_body(body, is_stream=True)
            if heard.is_ended or not heard.is_nothing:
                break
        yield wire, head, body


def read_rest(wire: Wire, head: Head, body: bytes) -> bytes:
    """Read what comes behind the beginning that `begun` gave; nothing where that was all."""
    return b"" if read_body(body, is_stream=True).is_ended else b"".join(wire.read_pieces(head))


# --- daemons that end


def daemon_is_killed_behind_an_answer(play: "Play") -> None:
    """Whoever has seen the end may rely on it, though the daemon dies at once."""
    _ended_behind(play, signal.SIGKILL)


def daemon_is_stopped_behind_an_answer(play: "Play") -> None:
    """The same with an orderly end."""
    _ended_behind(play, signal.SIGTERM)


def _ended_behind(play: "Play", number: signal.Signals) -> None:
    _, request = play.request()
    reply = play.send(request)
    play.cast.restart(play.daemon, number)
    play.check_whole(request, reply)
    play.check_record(request.session)


def daemon_is_killed_in_mid_stream(play: "Play") -> None:
    """The conversation is as it was before that turn."""
    form = play.dice.choice(["new", "whole", "window"])
    _, request = play.request(streamed=True, mode="", form=form, tools=False)
    with breaking(play, Break(Kind.SILENCE, play.dice.choice(SILENT_PIECES))), begun(play, request) as (_, head, body):
        play.cast.restart(play.daemon, signal.SIGKILL)
    merged = merge(play.kept[request.session], request.asked)
    play.check_given(request, merged)
    heard = read_body(body, is_stream=True)
    if heard.is_ended:
        play.keep(request, merged, heard, Reply(head, body))
    play.cast.shelf.free(request.session)
    play.check_record(request.session)


def daemon_is_stopped_in_mid_stream(play: "Play") -> None:
    """It ends its answers first, and these are kept."""
    _, request = play.request(streamed=True, mode="")
    with slowly(play), begun(play, request) as (wire, head, first):
        play.daemon.send_signal(signal.SIGTERM)
        body = first + read_rest(wire, head, first)
    play.cast.restart(play.daemon)
    play.check_whole(request, Reply(head, body))
    play.check_record(request.session)


@contextmanager
def slowly(play: "Play") -> Iterator[None]:
    """Let engines rest after each piece meanwhile."""
    for engine in play.cast.engines:
        engine.gap_s = GAP_S
    try:
        yield
    finally:
        for engine in play.cast.engines:
            engine.gap_s = 0.0


# --- engines that die


def engine_dies_or_returns(play: "Play") -> None:
    """One engine dies, or the one that is away comes back."""
    if play.cast.is_complete:
        engine = play.dice.choice(play.cast.engines)
        play.tell(engine.name)
        play.cast.send_away(engine)
    else:
        play.cast.take_back()


# --- records that go


def session_expires(play: "Play") -> None:
    """Nobody has spoken for too long."""
    _lose(play, play.cast.shelf.expire)


def session_is_deleted(play: "Play") -> None:
    """An operator deletes a session."""

    def delete(session: str) -> None:
        reply = play.cast.delete(session)
        assert reply.status == 200, reply

    _lose(play, delete)


def record_is_spoilt(play: "Play") -> None:
    """A record lacks its end: the conversation begins anew, and the record is set aside."""
    session = _lose(play, lambda each: play.cast.shelf.spoil(each, play.dice.random()))
    if not session:
        return
    client = next(each for each in play.clients if each.session == session)
    request = client.request(play.kept[session], mode="")
    play.tell(f"{request.path} {request.told} streamed={request.is_streamed}")
    play.check_whole(request, play.send(request), loss="unreadable")
    assert play.cast.shelf.is_set_aside(session), f"{session!r} has no record that was set aside"
    play.check_record(session)


def _lose(play: "Play", lose: Callable[[str], None]) -> str:
    """Let a session's record go; return which, "" where none is kept."""
    kept = [session for session, each in play.kept.items() if each.messages]
    if not kept:
        return ""
    session = play.dice.choice(kept)
    play.tell(repr(session))
    lose(session)
    # What the client has heard it still has.
    play.kept[session] = Kept(told=play.kept[session].told)
    return session


STEPS: tuple[Callable[["Play"], None], ...] = (
    answer_tears,
    answer_tears_twice,
    answer_goes_on_elsewhere,
    client_leaves,
    daemon_is_killed_behind_an_answer,
    daemon_is_stopped_behind_an_answer,
    daemon_is_killed_in_mid_stream,
    daemon_is_stopped_in_mid_stream,
    engine_dies_or_returns,
    session_expires,
    session_is_deleted,
    record_is_spoilt,
)
WEIGHTS = (7.0, 2.0, 6.0, 6.0, 0.6, 0.4, 0.4, 0.3, 3.0, 1.0, 1.0, 1.5)
