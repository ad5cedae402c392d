"""Steps of a session play in which two things happen to one session at once, or an operator lends a hand.

Of two requests of one session either may come first, so the model is asked for both orders; nothing may be lost or mixed.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

from support.breaks import Break, Kind
from support.session_mishaps import SILENT_PIECES, begun, breaking, read_rest, slowly
from support.session_model import ANY, Kept, after_race, merge, taken
from support.session_requests import Request
from support.session_wire import given, kept_lines, loss_told, read_body, read_reply, record_lines, wanted
from support.wire import Reply

if TYPE_CHECKING:
    from support.session_play import Play

AT_ONCE = (2, 2, 3)
MUCH = "so much to say and so little time, " * 3000


def several_ask_at_once(play: "Play") -> None:
    """Requests of one session, at one daemon or several, are put in some order."""
    client = play.dice.choice(play.clients)
    kept = play.kept[client.session]
    requests = [client.request(kept, mode="") for _ in range(play.dice.choice(AT_ONCE))]
    for request in requests:
        play.tell(f"{client.session!r} {request.path} {request.told} streamed={request.is_streamed}: {request.body}")
    replies = _all_at_once(play, requests)
    record = record_lines(play.cast.record(client.session))
    found = sorted(repr(given(path, body)) for path, body in play.cast.all_given())
    seen = []
    for order in permutations(range(len(requests))):
        after, words, views = _in_order(play, kept, [(requests[at], replies[at]) for at in order])
        told = [replies[at].head.get("X-Understudy-Session") for at in order]
        fits = all(must in (word, ANY) for must, word in zip(words, told, strict=True))
        if fits and sorted(views) == found and kept_lines(after) == record:
            play.kept[client.session] = after
            return
        seen.append((order, words, told, kept_lines(after)))
    raise AssertionError(f"no order explains what was given, {found}, and what is kept, {record}; {seen}")


def _all_at_once(play: "Play", requests: Sequence[Request]) -> list[Reply]:
    play.cast.forget_given()
    daemons = [play.dice.choice(play.cast.daemons) for _ in requests]
    replies: dict[int, Reply] = {}

    def ask(at: int) -> None:
        replies[at] = daemons[at].ask(requests[at].path, requests[at].body, headers=requests[at].headers)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reply in replies.values():
        assert reply.status == 200, reply
    return [replies[at] for at in range(len(requests))]


def _in_order(play: "Play", kept: Kept, turns: Sequence[tuple[Request, Reply]]) -> tuple[Kept, list[str], list[str]]:
    """Return what must be kept after these turns, their words and what engines must have been given."""
    words, views = [], []
    for request, reply in turns:
        merged = merge(kept, request.asked)
        words.append(merged.word)
        views.append(repr(wanted(request.path, request.asked, merged)))
        heard = read_reply(reply)
        assert heard.is_ended, f"the answer has no end: {reply}"
        if not heard.is_nothing:
            answer = replace(heard.said, is_raw=request.asked.form == "raw")
            kept = taken(kept, merged, answer, play.cast.setting.messages_max, reply.backend)
    return kept, words, views


def client_leaves_and_asks_again_at_once(play: "Play") -> None:
    """The second request waits until what its client has of the first is kept; it takes its place."""
    _, request = play.request(streamed=True, mode="", form="new", tools=False)
    merged = merge(play.kept[request.session], request.asked)
    with breaking(play, Break(Kind.SILENCE, play.dice.choice(SILENT_PIECES))), begun(play, request) as (wire, head, body):
        wire.reset()
    heard = read_body(body, is_stream=True)
    reply = play.send(request)
    if heard.is_ended:
        play.keep(request, merged, heard, Reply(head, body))
    else:
        # How much of it is kept nobody will know.
        play.take(request.session, merged, replace(heard.said, mark="abandoned"), head.get("X-Understudy-Backend"))
    play.check_whole(request, reply)
    play.check_record(request.session)


def session_is_deleted_in_mid_stream(play: "Play") -> None:
    """An operator deletes a session whose answer is under way: the turn is put after what is there then, which is nothing."""
    _, request = play.request(streamed=True, mode="", tools=False)
    kept = play.kept[request.session]
    merged = merge(kept, request.asked)
    with slowly(play), begun(play, request) as (wire, head, first):
        was_ended = read_body(first, is_stream=True).is_ended
        deleted = play.cast.delete(request.session)
        body = first + read_rest(wire, head, first)
    play.check_given(request, merged)
    heard = read_body(body, is_stream=True)
    assert heard.is_ended, f"the answer has no end: {body!r}"
    assert not loss_told(Reply(head, body)), f"a turn is lost: {body!r}"
    if deleted.status == 404:
        assert not kept.messages, "a session that was kept has not been found"
        play.keep(request, merged, heard, Reply(head, body))
    elif was_ended or play.cast.record(request.session) is None:
        play.kept[request.session] = Kept(told=kept.told)
    elif not heard.is_nothing:
        play.counts["deleted in mid-stream"] += 1
        play.kept[request.session] = Kept(told=kept.told)
        alone = after_race(Kept(), merged, request.asked)
        answer = replace(heard.said, is_raw=request.asked.form == "raw")
        play.take(request.session, alone, answer, head.get("X-Understudy-Backend"))
    play.check_record(request.session)


def session_is_copied(play: "Play") -> None:
    """An operator exports one session and imports it as another."""
    kept = [client.session for client in play.clients[:2] if play.kept[client.session].messages]
    if not kept:
        return
    source, target = play.dice.choice(kept), play.dice.choice(play.clients[:2]).session
    play.tell(f"{source!r} to {target!r}")
    play.cast.copy(source, target)
    play.kept[target] = replace(play.kept[source], revision=play.kept[target].revision + 1)
    play.check_record(target)


def somebody_says_much(play: "Play") -> None:
    """A request of 100 KB and what follows it, until it is forgotten."""
    client = play.clients[0]
    request = client.request(play.kept[client.session], mode="reset", form="new", tools=False)
    request.body["messages"][-1] = {"role": "user", "content": MUCH}
    play.ask(request)
    for form, mode in (("new", ""), ("whole", ""), ("new", "reset")):
        play.ask(client.request(play.kept[client.session], mode=mode, form=form, tools=False))
    play.check_record(client.session)


STEPS: tuple[Callable[["Play"], None], ...] = (
    several_ask_at_once,
    client_leaves_and_asks_again_at_once,
    session_is_deleted_in_mid_stream,
    session_is_copied,
    somebody_says_much,
)
WEIGHTS = (4.0, 2.0, 1.5, 1.0, 0.3)
