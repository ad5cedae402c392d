"""Which exchange has a turn in a stored conversation, what its head says of it, and who owns its work."""

import asyncio
import json
from dataclasses import replace

import pytest

from support.answers import LAST_CHUNK, chunk, head_bytes
from support.session_stage import CHAT, SessionStage, head_of, later, whole
from support.stage import DONE, request, stream_of
from support.talk import assistant, kept, system, user
from support.targets import UP, target
from understudy.core.snapshot import EngineKind, FailoverRules, Limits, SessionRules
from understudy.sessions.store import ID_BYTES_MAX

BODY = b'{"model": "qwen", "messages": [{"role": "user", "content": "q2"}], "input": "q2"}'
ID = "X-Session-ID: s"
Q1_A1 = kept(user("q1"), assistant("a1"), said_first="s")


async def told(stage: SessionStage, *fields: str, path: str = CHAT) -> bytes:
    """Ask, and return what the client got; b"" while the engine is to answer."""
    client = await stage.ask(request("POST", path, BODY, *fields))
    await later()
    return client.data


def words(answer: bytes) -> str:
    """Return the message of a 400."""
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    message: str = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    return message


@pytest.mark.parametrize("fields", [(), ("X-Session-ID:",), (ID, "X-Session-Mode: off"), (ID, "X-Session-Mode: OFF")])
async def test_without_a_session_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, fields: tuple[str, ...]) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, *fields)
    await stage.say(0, stream_of("a"))
    await later()
    assert stage.store.asked == []


async def test_paths_without_a_conversation_have_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, ID, path="/v1/embeddings")
    assert stage.engine(0).data.endswith(BODY)
    assert stage.store.asked == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((f"X-Session-ID: {'x' * (ID_BYTES_MAX + 1)}",), f"X-Session-ID is longer than {ID_BYTES_MAX} bytes"),
        ((ID, "X-Session-ID: t"), "X-Session-ID stands twice, with different values"),
        ((ID, "X-Session-ID:"), "X-Session-ID stands twice, with different values"),
        (("X-Session-ID:", ID), "X-Session-ID stands twice, with different values"),
        ((ID, "X-Session-Mode: merge"), "X-Session-Mode is 'merge'; want auto, off, append, replace"),
        ((ID, "X-Session-Reset: yes"), "X-Session-Reset is 'yes'; want 1"),
        ((ID, "X-Session-On-Error: ignore"), "X-Session-On-Error is 'ignore'; want answer or refuse"),
    ],
)
async def test_what_is_wrong_with_the_fields_is_said(monkeypatch: pytest.MonkeyPatch, fields: tuple[str, ...], said: str) -> None:
    stage = SessionStage(monkeypatch)
    assert words(await told(stage, *fields)) == said
    assert stage.store.asked == []


async def test_an_id_that_is_no_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.ask(request("POST", CHAT, BODY, "X-Session-ID: @").replace(b"@", b"\xe9"))
    assert words(client.data) == "X-Session-ID is not UTF-8"


@pytest.mark.parametrize("session", ["../../etc/passwd", "a/b", "%00", "*", "{a}", "\N{SNOWMAN}", "x" * ID_BYTES_MAX])
async def test_any_other_id_is_an_id(monkeypatch: pytest.MonkeyPatch, session: str) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to(session, "q1")
    await later()
    await stage.say(0, stream_of("a1"))
    await later()
    assert list(stage.store.kept) == [session]


async def test_the_same_id_twice_is_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    assert await told(stage, ID, ID) == b""


async def test_our_fields_do_not_reach_the_engine_but_the_id_does(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await told(stage, ID, "X-Session-Mode: append", "X-Session-Reset: 1", "X-Session-On-Error: answer")
    sent = stage.engine(0).data.lower()
    assert b"x-session-id: s\r\n" in sent
    assert sent.count(b"x-session-") == 1


async def test_append_and_replace_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = kept(user("q1"), assistant("a1"))
    await told(stage, ID, "X-Session-Mode: replace")
    assert stage.given() == ["user: q2"]


async def test_our_own_mistake_ends_the_exchange_and_lets_the_session_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    monkeypatch.setattr("understudy.dataplane.turn.merge", lambda *_: 1 / 0)
    answer = await told(stage, ID)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert isinstance(stage.errors[0], ZeroDivisionError)
    assert stage.store.holders == []


async def test_our_own_mistake_at_the_end_costs_the_turn_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.ask(request("POST", CHAT, BODY, ID))
    await later()
    monkeypatch.setattr("understudy.dataplane.turn.trim", lambda *_: 1 / 0)
    await stage.say(0, stream_of("a"))
    await later()
    assert isinstance(stage.errors[0], ZeroDivisionError)
    assert client.data.endswith(chunk(b": understudy session not kept: failed\n\n" + DONE) + LAST_CHUNK)
    assert stage.store.holders == []


async def test_closing_waits_for_what_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, stream_of("a1"))
    closing = asyncio.ensure_future(stage.turns.close())
    await later()
    assert not closing.done()
    stage.store.gate.set()
    await closing
    assert stage.kept("s") == ["user: q1", "assistant: a1"]


async def test_stopping_lets_an_answer_that_is_complete_end_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    stage.store.gate = asyncio.Event()
    body = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "a1"}}]}'
    await stage.say(0, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    stage.relay.end_running()
    stage.store.gate.set()
    await stage.turns.close()
    assert client.data.endswith(body)
    assert head_of(client)["x-understudy-session"] == "new"


async def test_rules_are_those_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch, rules=SessionRules(is_on=True, messages_max=4))
    assert stage.turns.rules.messages_max == 4


# --- one at a time


async def test_a_second_request_waits_for_the_first_ones_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await stage.say_to("s", "q2")
    await later()
    assert len(stage.network.opened[8000]) == 1
    await stage.say(0, stream_of("a1"))
    await later()
    assert stage.given() == ["user: q1", "assistant: a1", "user: q2"]


async def test_a_request_that_has_waited_long_enough_gets_409(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.elsewhere.add("s")
    client = await stage.say_to("s", "q1")
    await later()
    assert client.data.startswith(b"HTTP/1.1 409 ")
    assert b'"code":"session_held"' in client.data


# --- requests that cannot be kept or merged


async def test_several_answers_are_given_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = Q1_A1
    client = await stage.say_to("s", "q2", stream=False, n=2)
    await later()
    assert stage.given()[1:] == ["user: q1", "assistant: a1", "user: q2"]
    await stage.say(0, whole("a2"))
    await later()
    assert head_of(client)["x-understudy-session-loss"] == "not_kept"
    assert stage.store.kept["s"] == Q1_A1


async def test_a_prompt_of_token_ids_goes_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    body = b'{"model": "qwen", "prompt": [1, 2, 3]}'
    await stage.ask(request("POST", "/v1/completions", body, "X-Session-ID: s"))
    await later()
    assert stage.engine(0).data.endswith(body)


async def test_messages_that_cannot_be_read_are_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "", messages=[7])
    await later()
    assert client.data.startswith(b"HTTP/1.1 400 ")
    assert json.loads(client.data.partition(b"\r\n\r\n")[2])["error"]["code"] == "conversation_unreadable"


async def test_what_does_not_fit_the_api_is_refused_rather_than_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    await stage.say_to("s", messages=[{"role": "user", "content": [audio]}])
    await later()
    await stage.say(0, stream_of("a1"))
    await later()
    body = b'{"model": "qwen", "messages": [{"role": "user", "content": "q2"}]}'
    client = await stage.ask(request("POST", "/api/chat", body, "X-Session-ID: s"))
    await later()
    assert client.data.startswith(b"HTTP/1.1 409 ")
    assert b"input_audio" in client.data
    assert stage.store.holders == []


async def test_a_large_history_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    stage.store.kept["s"] = kept(user("x" * 100_000), assistant("a1"), said_first="s")
    assert stage.store.kept["s"].system == (system("s"),)
    await stage.say_to("s", "q2")
    for _ in range(3):
        # Threads have finished what came before this.
        await asyncio.get_running_loop().run_in_executor(None, int)
        await later()
    assert stage.given()[-1] == "user: q2"


async def test_an_answer_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    await stage.say(0, head_bytes(200, {"Content-Length": "4"}) + b"what")
    await later()
    assert client.data.endswith(b"what")
    assert head_of(client)["x-understudy-session-loss"] == "unreadable"
    assert (stage.store.kept, stage.store.holders) == ({}, [])


# --- mistakes of ours, clients that leave, and a daemon that stops


@pytest.mark.parametrize("reads", ["answer_of", "merge"])
async def test_a_mistake_at_the_end_lets_client_and_session_go(monkeypatch: pytest.MonkeyPatch, reads: str) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.ask(request("POST", CHAT, BODY.replace(b"{", b'{"stream": true, ', 1), ID))
    await later()
    monkeypatch.setattr(f"understudy.dataplane.turn.{reads}", lambda *_, **__: 1 / 0)
    await stage.say(0, stream_of("a"))
    await later()
    assert client.data.endswith(DONE + b"\r\n" + LAST_CHUNK)
    assert (stage.relay.running, stage.store.holders) == (set(), [])
    assert len(stage.records) == 1


async def test_a_mistake_while_a_torn_answer_is_read_lets_the_session_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    await stage.say(0, stream_of("a")[:-40])
    monkeypatch.setattr("understudy.dataplane.turn.answer_of", lambda *_, **__: 1 / 0)
    client.lose()
    await later()
    assert (stage.relay.running, stage.store.holders) == (set(), [])
    assert stage.keeper.lost == {"failed": 1}


async def test_a_mistake_while_the_end_is_written_ends_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1")
    await later()
    monkeypatch.setattr("understudy.dataplane.withheld.WithheldOutlet.release", lambda *_: 1 / 0)
    await stage.say(0, stream_of("a"))
    await later()
    assert client.is_closing()
    assert (stage.relay.running, stage.store.holders) == (set(), [])


async def test_clients_that_left_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await later()
    clients = [await stage.say_to("s", f"q{number}") for number in range(20)]
    await later()
    assert stage.keeper.waiting == 20
    for client in clients:
        client.lose()
    await later()
    assert stage.keeper.waiting == 0


async def test_no_more_wait_for_their_session_than_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    snapshot = stage.published.current
    stage.published.current = replace(snapshot, plan=replace(snapshot.plan, limits=Limits(waiting_max=2)))
    await stage.say_to("s", "q1")
    await later()
    clients = [await stage.say_to("s", f"q{number}") for number in range(3)]
    await later()
    assert [client.data[:12] for client in clients] == [b"", b"", b"HTTP/1.1 409"]
    assert head_of(clients[2])["retry-after"] == "1"


async def test_a_stream_that_waits_for_its_session_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    await stage.say_to("s", "q1")
    await later()
    client = await stage.say_to("s", "q2")
    await stage.pass_time(20.0)
    assert client.data == b""
    await stage.say(0, stream_of("a1"))
    await later()
    await stage.say(0, stream_of("a2"))
    await later()
    assert head_of(client)["x-understudy-session"] == "appended"


async def test_a_daemon_that_stops_gives_every_complete_answer_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dataplane.turns.CLOSE_S_MAX", 0.0)
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", "q1", stream=False)
    await later()
    stage.store.gate = asyncio.Event()
    await stage.say(0, whole("a1"))
    stage.relay.end_running()
    closing = asyncio.ensure_future(stage.turns.close())
    await later()
    await closing
    assert b'"a1"' in client.data
    assert head_of(client)["x-understudy-session-loss"] == "slow"
    assert len(stage.records) == 1


@pytest.mark.parametrize(("engine", "kept_text"), [(EngineKind.VLLM, "nono"), (EngineKind.LLAMACPP, "no")])
async def test_only_llamacpp_repeats_what_the_client_had_begun(
    monkeypatch: pytest.MonkeyPatch, engine: EngineKind, kept_text: str
) -> None:
    stage = SessionStage(monkeypatch, target(0, replace(UP, engine=engine)), failover=FailoverRules(assemble=False))
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}]
    await stage.say_to("s", messages=messages, stream=False)
    await later()
    await stage.say(0, whole("no"))
    await later()
    assert stage.kept("s") == ["user: q", f"assistant: {kept_text}"]


async def test_a_system_message_alone_is_no_turn_and_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.say_to("s", messages=[{"role": "system", "content": "s"}], stream=False)
    await later()
    await stage.say(0, whole("a"))
    await later()
    assert head_of(client)["x-understudy-session-loss"] == "not_kept"
    assert stage.store.kept == {}


async def test_a_prompt_of_token_ids_is_told_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SessionStage(monkeypatch)
    client = await stage.ask(request("POST", "/v1/completions", b'{"model": "qwen", "prompt": [1, 2, 3]}', ID))
    await later()
    body = b'{"choices": [{"index": 0, "text": "a"}]}'
    await stage.say(0, head_bytes(200, {"Content-Length": str(len(body))}) + body)
    await later()
    assert head_of(client)["x-understudy-session-loss"] == "not_kept"
    assert stage.keeper.lost == {"not_kept": 1}
