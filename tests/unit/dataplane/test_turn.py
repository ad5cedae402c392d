"""One exchange's turn in a stored conversation: what the engine is given, what is kept, and when the client sees the end."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from support.answers import LAST_CHUNK, chunk, head_bytes, stream_head
from support.session_stage import CHAT, WALL_S, SessionStage, head_of, is_ended, later, whole
from support.stage import DONE, FINISH, OPENING, delta, request, stream_of
from support.talk import assistant, kept, user
from support.targets import target, targets
from understudy.core.color import Color
from understudy.core.conversation import Conversation
from understudy.core.message import Wholeness
from understudy.core.snapshot import OnError, SessionRules, Target
from understudy.sessions.store import Loss, StoreError

Q1_A1 = kept(user("q1"), assistant("a1"), said_first="s")
REFUSING = SessionRules(is_on=True, on_error=OnError.REFUSE)


async def told(stage: SessionStage, session: str, question: str, answer: str, **more: Any) -> None:
    """Ask and be answered by gpu0."""
    client = await stage.say_to(session, question, **more)
    await later()
    await stage.say(0, stream_of(answer))
    await later()
    assert is_ended(client)


def colored(one: Target, color: Color) -> Target:
    """Give a backend its color."""
    return replace(one, backend=replace(one.backend, color=color))


# --- what is given and kept


async def test_a_conversation_grows_turn_by_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, "s", "q1", "a1")
    assert stage.given() == ["user: q1"]
    await told(stage, "s", "q2", "a2")
    assert stage.given() == ["user: q1", "assistant: a1", "user: q2"]
    assert stage.kept("s") == ["user: q1", "assistant: a1", "user: q2", "assistant: a2"]
    assert stage.store.kept["s"].revision == 2
    assert stage.store.holders == []


async def test_sessions_do_not_mix_and_others_are_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, "s", "q1", "a1")
    await told(stage, "t", "other", "a")
    assert stage.given() == ["user: other"]
    client = await stage.ask(request("POST", CHAT, b'{"model": "qwen", "messages": [{"role": "user", "content": "q"}]}'))
    assert stage.given() == ["user: q"]
    await stage.say(0, whole("a"))
    assert "x-understudy-session" not in head_of(client)
    assert set(stage.store.kept) == {"s", "t"}


async def test_facts_of_the_turn_are_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    await stage.say(0, whole("a1", usage={"prompt_tokens": 9, "completion_tokens": 3}))
    await later()
    conversation = stage.store.kept["s"]
    assert (conversation.model, conversation.backend, conversation.revision) == ("qwen", "gpu0", 1)
    assert (conversation.prompt_tokens, conversation.completion_tokens) == (9, 3)
    assert (conversation.begun_at_unix_s, conversation.changed_at_unix_s) == (WALL_S, WALL_S)
    assert [message.tokens for message in conversation.messages] == [0, 12]
    assert head_of(client)["x-understudy-session"] == "new"


async def test_the_conversation_stays_with_the_backend_that_has_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch, *targets(2))
    stage.store.kept["s"] = Conversation(1, messages=(user("q1"), assistant("a1")), backend="gpu1")
    await stage.say_to("s", "q2")
    await later()
    assert stage.given(1) == ["user: q1", "assistant: a1", "user: q2"]


async def test_the_color_of_the_first_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch, colored(target(0), Color.GREEN))
    await told(stage, "s", "q1", "a1")
    assert stage.store.kept["s"].color == "green"


async def test_reset_begins_anew_under_the_next_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    await told(stage, "s", "q2", "a2", fields=["X-Session-Reset: 1"])
    assert stage.given() == ["user: q2"]
    assert stage.kept("s") == ["user: q2", "assistant: a2"]
    assert stage.store.kept["s"].revision == 2


async def test_a_whole_history_reaches_the_engine_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = kept(user("q1"), assistant("a1"))
    history = (
        b'{"role":"user","content":"q1"},  {"role":"assistant","content":"a1","refusal":null},{"role":"user","content":"q2"}'
    )
    sent = b'{ "model": "qwen", "stream":true, "messages": [%b] }' % history
    client = await stage.ask(request("POST", CHAT, sent, "X-Session-ID: s"))
    await later()
    assert stage.engine(0).data.endswith(sent)
    await stage.say(0, stream_of("a2"))
    await later()
    assert stage.kept("s") == ["user: q1", "assistant: a1", "user: q2", "assistant: a2"]
    assert head_of(client)["x-understudy-session"] == "recognised"


async def test_what_the_client_is_told_of_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    client = await stage.say_to("s", "q2")
    await later()
    assert stage.given() == ["system: s", "user: q1", "assistant: a1", "user: q2"]
    await stage.say(0, stream_of("a2"))
    await later()
    assert head_of(client)["x-understudy-session"] == "appended"
    assert "x-understudy-session-loss" not in head_of(client)
    assert stage.record.merging == "appended"


async def test_a_prefilled_answer_is_kept_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    messages = [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "The answer"}]
    await told(stage, "s", "", " is 4", messages=messages)
    assert stage.kept("s") == ["user: q1", "assistant: The answer is 4"]


async def test_a_request_that_asks_nothing_is_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, "s", "", "loaded", messages=[])
    assert stage.store.asked == []


# --- the end waits for the store


async def test_text_passes_at_once_and_the_end_waits_until_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, stream_of("a1"))
    await later()
    assert delta("a1") in client.data
    assert FINISH in client.data
    assert DONE not in client.data
    assert stage.kept("s") == []
    stage.store.gate.set()
    await later()
    assert stage.kept("s") == ["user: q1", "assistant: a1"]
    assert client.data.endswith(chunk(DONE) + LAST_CHUNK)


async def test_an_answer_that_is_no_stream_waits_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, whole("a1"))
    await later()
    assert client.data == b""
    stage.store.gate.set()
    await later()
    assert b'"a1"' in client.data
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_the_backend_is_free_while_the_end_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, stream_of("a1"))
    assert stage.in_flight == 0
    stage.store.gate.set()
    await later()
    assert stage.record.failure is None


async def test_a_client_that_leaves_while_its_answer_is_kept_has_abandoned_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, stream_of("a1"))
    client.lose()
    stage.store.gate.set()
    await later()
    assert stage.kept("s") == ["user: q1", "assistant: a1 (abandoned)"]
    assert stage.store.holders == []


# --- answers that are not whole


async def test_a_torn_answer_is_kept_as_far_as_the_client_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_head() + chunk(OPENING + delta("hal")))
    stage.engine(0).lose(ConnectionResetError())
    await later()
    assert b"stream_interrupted" in client.data
    assert stage.kept("s") == ["user: q1", "assistant: hal (torn)"]
    assert stage.store.holders == []


async def test_an_abandoned_answer_is_kept_as_far_as_the_client_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_head() + chunk(OPENING + delta("hal")))
    client.lose()
    await later()
    assert stage.kept("s") == ["user: q1", "assistant: hal (abandoned)"]


async def test_a_question_without_any_answer_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    client = await stage.say_to("s", "q2")
    await later()
    await stage.say(0, head_bytes(500, {"Content-Length": "2"}) + b"{}")
    await later()
    assert client.data.startswith(b"HTTP/1.1 502 ")
    assert stage.store.kept["s"] == Q1_A1
    assert stage.store.holders == []


async def test_an_empty_answer_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_head() + chunk(OPENING + FINISH + DONE) + LAST_CHUNK)
    await later()
    assert is_ended(client)
    assert stage.kept("s") == ["user: q1", "assistant: "]


async def test_a_refusal_of_the_engine_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    body = b'{"error": {"message": "no"}}'
    await stage.say(0, head_bytes(400, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body)
    await later()
    assert client.data.endswith(body)
    assert stage.store.kept == {}
    assert stage.keeper.lost == {}


async def test_a_question_asked_again_after_a_torn_answer_is_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = kept(user("q1"), assistant("hal", Wholeness.TORN))
    await told(stage, "s", "q1", "a1")
    assert stage.given() == ["user: q1"]
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_an_answer_that_no_backend_could_give_lets_the_session_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", model="nobody's")
    await later()
    assert client.data.startswith(b"HTTP/1.1 404 ")
    assert (stage.store.kept, stage.store.holders) == ({}, [])


async def test_a_client_that_leaves_while_it_waits_for_the_session_lets_it_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.gate = asyncio.Event()
    client = await stage.say_to("s", "q1")
    client.lose()
    stage.store.gate.set()
    await later()
    assert stage.store.holders == []
    assert stage.record.status == 499


# --- a store that fails


async def test_a_store_that_cannot_be_read_costs_the_history_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    stage.store.fails["hold"] = StoreError(Loss.UNAVAILABLE)
    client = await stage.say_to("s", "q2")
    await later()
    assert stage.given() == ["user: q2"]
    await stage.say(0, stream_of("a2"))
    await later()
    assert is_ended(client)
    assert head_of(client)["x-understudy-session-loss"] == "unavailable"
    assert stage.keeper.lost == {"unavailable": 1}
    assert [fields["reason"] for event, fields in stage.events if event == "session.lost"] == ["unavailable"]


async def test_a_store_that_comes_back_during_the_answer_gets_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    stage.store.fails["hold"] = StoreError(Loss.UNAVAILABLE)
    await stage.say_to("s", "q2")
    await later()
    stage.store.fails.clear()
    await stage.say(0, stream_of("a2"))
    await later()
    assert stage.kept("s") == ["system: s", "user: q1", "assistant: a1", "user: q2", "assistant: a2"]
    assert stage.keeper.lost == {}


@pytest.mark.parametrize("rules", [REFUSING, SessionRules(is_on=True)], ids=["file", "header"])
async def test_a_store_that_cannot_be_read_may_refuse(monkeypatch: pytest.MonkeyPatch, rules: SessionRules) -> None:
    stage = SessionStage(monkeypatch, rules=rules)
    stage.store.fails["hold"] = StoreError(Loss.UNAVAILABLE)
    fields = [] if rules is REFUSING else ["X-Session-On-Error: refuse"]
    client = await stage.say_to("s", "q1", fields=fields)
    await later()
    assert client.data.startswith(b"HTTP/1.1 503 ")
    assert "retry-after" in head_of(client)
    assert stage.network.opened == {}


async def test_a_store_that_cannot_be_written_costs_no_answer_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.fails["keep"] = StoreError(Loss.FULL)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    await stage.say(0, whole("a1"))
    await later()
    assert b'"a1"' in client.data
    assert head_of(client)["x-understudy-session-loss"] == "full"
    assert stage.record.session_loss == "full"


async def test_a_stream_tells_of_a_loss_before_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.fails["keep"] = StoreError(Loss.FULL)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_of("a1"))
    await later()
    assert client.data.endswith(chunk(b": understudy session not kept: full\n\n" + DONE) + LAST_CHUNK)


async def test_a_stream_tells_in_its_head_of_a_loss_that_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.foreseen = Loss.READ_ONLY
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_of("a1"))
    assert head_of(client)["x-understudy-session-loss"] == "read_only"


async def test_what_others_have_written_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = kept(user("q1"), assistant("a1"))
    client = await stage.say_to("s", "q2")
    await later()
    stage.store.kept["s"] = kept(user("q1"), assistant("a1"), user("qx"), assistant("ax"), revision=2)
    await stage.say(0, stream_of("a2"))
    await later()
    assert is_ended(client)
    assert stage.kept("s")[2:] == ["user: qx", "assistant: ax", "user: q2", "assistant: a2"]
    assert stage.store.kept["s"].revision == 3


async def test_a_turn_that_is_too_large_is_told_and_what_was_kept_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch, rules=SessionRules(is_on=True, bytes_max=1024))
    stage.store.kept["s"] = Q1_A1
    client = await stage.say_to("s", "q" * 2000, stream=False)
    await later()
    await stage.say(0, whole("a2"))
    await later()
    assert head_of(client)["x-understudy-session-loss"] == "too_large"
    assert stage.store.kept["s"] == Q1_A1


async def test_old_turns_fall_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch, rules=SessionRules(is_on=True, messages_max=2))
    stage.store.kept["s"] = Q1_A1
    await told(stage, "s", "q2", "a2")
    assert stage.kept("s") == ["system: s", "user: q2", "assistant: a2"]
    assert stage.store.kept["s"].fallen == 2
