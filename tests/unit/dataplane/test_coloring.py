"""Which color a request gets: its client's word, its conversation's color, or what a new one gets."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from support.answers import chunk, stream_head
from support.caching_play import SIZE_BYTES, fixed
from support.color_stage import ANSWER, SECRET, UNIX_S, ColorStage, colored
from support.stage import OPENING, chat, delta, request
from support.transports import MemoryTransport, settle
from understudy.core.answer_cache import AnswerCache
from understudy.core.color import Color, Stick
from understudy.core.color_cookie import ColorCookie, read_cookies, write_cookie
from understudy.core.rollout import Rollout, Word, recalled, rolled_back, switched, with_canary
from understudy.core.snapshot import CacheRules, CacheWhen

BLUE, GREEN = 0, 1
KEY = b"a-key"
TRUSTED = (sha256(KEY).hexdigest(),)
TO_GREEN = switched(Rollout(), Color.GREEN, Word.COMMAND, UNIX_S)


def field(client: MemoryTransport, name: bytes) -> bytes:
    """Return the last value of a field in what a client has received, b"" without one."""
    for line in reversed(bytes(client.data).split(b"\r\n")):
        found, _, value = line.partition(b": ")
        if found.lower() == name.lower():
            return value
    return b""


def cookie_of(client: MemoryTransport) -> str:
    """Return what a browser sends back of the cookie that it was given."""
    return f"Cookie: {field(client, b'set-cookie').partition(b';')[0].decode()}"


def turns(*said: str) -> bytes:
    """Write a chat request with the whole history."""
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return request("POST", "/v1/chat/completions", json.dumps({"model": "qwen", "stream": True, "messages": messages}).encode())


# --- new conversations and those that go on


async def test_new_conversations_go_to_the_active_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    number, client = await stage.answered_by(chat())
    assert (number, field(client, b"X-Understudy-Color")) == (BLUE, b"blue")
    stage.roll(TO_GREEN)
    number, client = await stage.answered_by(chat())
    assert (number, field(client, b"X-Understudy-Color")) == (GREEN, b"green")


async def test_a_session_stays_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE
    assert (await stage.answered_by(chat("X-Session-ID: b")))[0] == GREEN


async def test_a_session_moves_once_it_has_stayed_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick_s_max=60.0)
    await stage.answered_by(chat("X-Session-ID: a"))
    stage.roll(TO_GREEN)
    stage.unix_s += 59
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE
    stage.unix_s += 1
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN


async def test_a_recall_takes_sessions_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN
    stage.unix_s += 5
    back = rolled_back(TO_GREEN, Word.COMMAND, stage.unix_s, takes_sessions=True)
    assert back is not None
    stage.roll(back)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE


async def test_without_a_recall_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(TO_GREEN)
    await stage.answered_by(chat("X-Session-ID: a"))
    stage.unix_s += 5
    back = rolled_back(TO_GREEN, Word.COMMAND, stage.unix_s)
    assert back is not None
    stage.roll(back)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN


async def test_a_second_request_during_the_first_gets_the_same_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch between the two does not tear a session that has not been answered yet."""
    stage = ColorStage(monkeypatch)
    await stage.ask(chat("X-Session-ID: a"))
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE


async def test_a_conversation_that_the_other_color_began_stays_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    await stage.ask(chat("X-Session-ID: a"))
    stage.engine(BLUE).lose(ConnectionResetError())
    await settle()
    await stage.say(GREEN, ANSWER)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN
    assert (await stage.answered_by(chat("X-Session-ID: b")))[0] == BLUE


async def test_nothing_sticks_where_the_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.NONE)
    await stage.answered_by(chat("X-Session-ID: a"))
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN


async def test_a_history_that_a_client_sends_each_time_is_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    assert (await stage.answered_by(turns("Hi")))[0] == BLUE
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(turns("Hi", "Hello", "More")))[0] == BLUE
    assert (await stage.answered_by(turns("Hi", "Hello", "More", "So", "On")))[0] == BLUE
    assert (await stage.answered_by(turns("Hi")))[0] == GREEN


async def test_a_history_nobody_knows_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(TO_GREEN)
    assert (await stage.answered_by(turns("Hi", "Hello", "More")))[0] == GREEN


async def test_the_canary_gets_its_share_of_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(with_canary(Rollout(), (0.25,), Word.COMMAND, UNIX_S))
    numbers = [(await stage.answered_by(chat(f"X-Session-ID: {each}")))[0] for each in range(200)]
    assert 25 < numbers.count(GREEN) < 75
    again = [(await stage.answered_by(chat(f"X-Session-ID: {each}")))[0] for each in range(200)]
    assert numbers == again


async def test_the_canary_gets_its_share_of_requests_without_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(with_canary(Rollout(), (0.25,), Word.COMMAND, UNIX_S))
    numbers = [(await stage.answered_by(chat()))[0] for _ in range(200)]
    assert 25 < numbers.count(GREEN) < 75


async def test_what_generates_nothing_goes_to_the_active_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    stage.roll(with_canary(Rollout(), (0.99,), Word.COMMAND, UNIX_S))
    for _ in range(5):
        await stage.ask(request("GET", "/v1/files"))
    assert set(stage.network.opened) == {8000}


async def test_a_full_color_is_waited_for_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, colored(0, Color.BLUE, in_flight_max=1), colored(1, Color.GREEN))
    await stage.ask(chat())
    await stage.ask(chat())
    assert set(stage.network.opened) == {8000}
    await stage.pass_time(5.1)
    assert set(stage.network.opened) == {8000, 8001}


# --- a client's own word


async def test_a_client_may_try_a_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    assert (await stage.answered_by(chat("X-Understudy-Color: Green")))[0] == GREEN
    assert b"understudy-color" not in stage.engine(GREEN).data.lower()


async def test_a_word_that_is_no_color_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    client = await stage.ask(chat("X-Understudy-Color: red"))
    assert client.data.startswith(b"HTTP/1.1 400 ")
    assert b"X-Understudy-Color is 'red'; want blue or green" in client.data
    assert stage.records[-1].status == 400


async def test_only_trusted_clients_may_once_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, trusted=TRUSTED)
    assert (await stage.answered_by(chat("X-Understudy-Color: green")))[0] == BLUE
    assert (await stage.answered_by(chat("X-Understudy-Color: green", "Authorization: Bearer other")))[0] == BLUE
    assert (await stage.answered_by(chat("X-Understudy-Color: red")))[0] == BLUE
    assert (await stage.answered_by(chat("X-Understudy-Color: green", f"Authorization: Bearer {KEY.decode()}")))[0] == GREEN


async def test_trying_once_does_not_move_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    await stage.answered_by(chat("X-Session-ID: a"))
    assert (await stage.answered_by(chat("X-Session-ID: a", "X-Understudy-Color: green")))[0] == GREEN
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE


async def test_a_session_that_begins_with_a_try_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    await stage.answered_by(chat("X-Session-ID: a", "X-Understudy-Color: green"))
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == GREEN


# --- cookies


async def test_a_browser_is_kept_by_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    _, client = await stage.answered_by(chat())
    cookie = cookie_of(client)
    stage.roll(TO_GREEN)
    number, client = await stage.answered_by(chat(cookie))
    assert (number, field(client, b"Set-Cookie")) == (BLUE, b"")
    assert (await stage.answered_by(chat()))[0] == GREEN


async def test_a_cookie_that_was_recalled_is_given_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    _, client = await stage.answered_by(chat())
    stage.unix_s += 5
    stage.roll(recalled(TO_GREEN, Color.BLUE, stage.unix_s))
    number, again = await stage.answered_by(chat(cookie_of(client)))
    assert number == GREEN
    assert read_cookies(cookie_of(again).encode()[8:], SECRET, stage.unix_s)[0].conversation == ColorCookie(
        Color.GREEN, False, stage.unix_s
    )


async def test_another_secret_makes_old_cookies_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    stolen = write_cookie(ColorCookie(Color.GREEN, False, UNIX_S), b"some other secret").partition(b";")[0]
    number, client = await stage.answered_by(chat(f"Cookie: {stolen.decode()}"))
    assert number == BLUE
    assert field(client, b"Set-Cookie")


async def test_an_error_sets_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    client = await stage.ask(chat(model="unknown"))
    assert client.data.startswith(b"HTTP/1.1 404 ")
    assert not field(client, b"Set-Cookie")


# --- looking around


@pytest.mark.parametrize("path", ["/switch/green", "/switch/blue", "/switch/off"])
async def test_previews_are_off_until_the_file_says_so(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    stage = ColorStage(monkeypatch)
    await stage.ask(request("GET", path))
    assert f"GET {path} ".encode() in stage.engine(BLUE).data


async def test_a_browser_walks_around_in_green_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, preview=True)
    client = await stage.ask(request("GET", "/switch/green"))
    assert client.data.startswith(b"HTTP/1.1 200 ")
    assert field(client, b"Cache-Control") == b"no-store"
    assert not stage.network.opened
    assert (await stage.answered_by(chat(cookie_of(client))))[0] == GREEN
    assert (await stage.answered_by(chat()))[0] == BLUE
    assert b"Max-Age=0" in field(await stage.ask(request("GET", "/switch/off")), b"Set-Cookie")


async def test_a_preview_counts_only_as_long_as_the_file_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, preview=True)
    cookie = cookie_of(await stage.ask(request("GET", "/switch/green")))
    current = stage.published.current
    plan = replace(current.plan, rollout=replace(current.plan.rollout, preview=False))
    stage.published.current = replace(current, plan=plan)
    assert (await stage.answered_by(chat(cookie)))[0] == BLUE


async def test_only_looking_is_possible_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, preview=True)
    client = await stage.ask(request("POST", "/switch/green", b"{}"))
    assert client.data.startswith(b"HTTP/1.1 405 ")
    assert not field(client, b"Set-Cookie")
    await stage.ask(request("GET", "/switch/red"))
    assert b"GET /switch/red " in stage.engine(BLUE).data


# --- what others' turns do to a conversation


async def test_one_that_a_client_left_in_the_middle_of_a_resume_stays_with_who_began(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    client = await stage.ask(chat("X-Session-ID: a"))
    await stage.say(BLUE, stream_head() + chunk(OPENING + delta("Hel")))
    stage.engine(BLUE).lose(ConnectionResetError())
    await settle()
    assert 8001 in stage.network.opened
    client.lose(ConnectionResetError())
    await settle()
    assert stage.records[-1].color == "blue"
    assert (await stage.answered_by(chat("X-Session-ID: a")))[0] == BLUE


async def test_one_that_was_being_answered_when_it_was_recalled_comes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    stage.roll(TO_GREEN)
    client = await stage.ask(chat())
    stage.unix_s += 5
    back = rolled_back(TO_GREEN, Word.GUARD, stage.unix_s, takes_sessions=True)
    assert back is not None
    stage.roll(back)
    stage.unix_s += 5
    await stage.say(GREEN, ANSWER)
    assert (await stage.answered_by(chat(cookie_of(client))))[0] == BLUE


async def test_single_requests_do_not_push_sessions_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch)
    await stage.answered_by(chat("X-Session-ID: a"))
    for number in range(3):
        await stage.answered_by(turns(str(number)))
    assert (len(stage.coloring.sessions), len(stage.coloring.histories)) == (1, 6)


async def test_our_cookies_go_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ColorStage(monkeypatch, preview=True)
    cookie = cookie_of(await stage.ask(request("GET", "/switch/green")))
    await stage.answered_by(chat(f"{cookie}; theirs=1"))
    assert b"understudy_" not in stage.engine(GREEN).data
    assert b"theirs=1" in stage.engine(GREEN).data


async def test_a_client_that_waits_is_told_no_color_but_given_its_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who will answer is not known yet; where its conversation is to go on is."""
    stage = ColorStage(monkeypatch, stick=Stick.COOKIE)
    client = await stage.ask(chat())
    await stage.pass_time(16.0)
    assert client.data.startswith(b"HTTP/1.1 200 ")
    assert b"X-Understudy-Color" not in client.data
    assert cookie_of(client).startswith("Cookie: understudy_color=blue.")


# --- answers that are kept


async def test_an_answer_of_the_other_color_is_kept_for_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blue was asked and green answered, because blue was away: the next one who asks blue wants blue's."""
    stage = ColorStage(monkeypatch)
    stage.relay.answers = AnswerCache(CacheRules(SIZE_BYTES, 60.0, CacheWhen.ALWAYS))
    await stage.ask(fixed())
    stage.engine(0).lose(ConnectionResetError())
    await settle()
    await stage.say(1, ANSWER)
    assert len(stage.relay.answers) == 0
    await stage.ask(fixed())
    await stage.say(0, ANSWER)
    assert len(stage.relay.answers) == 1
    client = await stage.ask(fixed())
    assert b"X-Understudy-Cache: hit" in client.data
    green = await stage.ask(fixed("X-Understudy-Color: green"))
    assert b"X-Understudy-Cache" not in green.data


async def test_an_answer_that_was_begun_before_all_was_forgotten_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the request meant then, with another prompt, is not what it means now."""
    stage = ColorStage(monkeypatch)
    stage.relay.answers = AnswerCache(CacheRules(SIZE_BYTES, 60.0, CacheWhen.ALWAYS))
    await stage.ask(fixed())
    stage.relay.answers.clear()
    await stage.say(0, ANSWER)
    assert len(stage.relay.answers) == 0
