"""A call and its result have one id, whichever dialect told them and whichever they are written in."""

import re

from understudy.core.message import Call, Message, Speaker, spoken
from understudy.dialects.call_ids import with_ids


def calling(*calls: Call) -> Message:
    return Message(Speaker.ASSISTANT, calls=calls)


def result(call_id: str = "", name: str = "") -> Message:
    return spoken(Speaker.TOOL, "12:00", call_id=call_id, name=name)


def told(messages: list[Message]) -> list[str]:
    """Every id in order: a call's as it is, a result's with the tool's name behind it."""
    ids: list[str] = []
    for message in messages:
        ids += [call.id for call in message.calls]
        ids += [f"{message.call_id}={message.name}"] if message.speaker is Speaker.TOOL else []
    return ids


def test_ids_that_were_told_stay_and_give_results_their_names() -> None:
    messages = [calling(Call("now", id="a"), Call("here", id="b")), result("b"), result("a")]
    assert told(with_ids(messages, bool)) == ["a", "b", "b=here", "a=now"]


def test_results_without_ids_answer_the_open_calls_in_order() -> None:
    messages = [calling(Call("now"), Call("here")), result(), result(), calling(Call("now")), result()]
    assert told(with_ids(messages, bool)) == [
        *("call00001", "call00002", "call00001=now", "call00002=here"),
        *("call00003", "call00003=now"),
    ]


def test_results_that_tell_a_name_answer_the_call_of_that_name() -> None:
    messages = [calling(Call("now"), Call("here"), Call("now")), result(name="here"), result(name="now"), result(name="now")]
    assert told(with_ids(messages, bool)) == [
        *("call00001", "call00002", "call00003"),
        *("call00002=here", "call00001=now", "call00003=now"),
    ]


def test_an_id_that_does_not_fit_is_replaced_at_the_call_and_at_its_result() -> None:
    messages = [calling(Call("now", id="functions.now:0"), Call("here", id="b")), result("functions.now:0"), result("b")]
    assert told(with_ids(messages, re.compile(r"[a-z0-9]+").fullmatch)) == ["call00001", "b", "call00001=now", "b=here"]


def test_a_new_id_is_never_one_that_is_in_use() -> None:
    messages = [calling(Call("now", id="call00001"), Call("here")), result("call00002"), result(name="here")]
    assert told(with_ids(messages, bool)) == ["call00001", "call00003", "call00002=", "call00003=here"]


def test_a_result_without_a_call_gets_an_id_of_its_own() -> None:
    assert told(with_ids([result(), result(name="now")], bool)) == ["call00001=", "call00002=now"]
    assert told(with_ids([calling(Call("now")), result(name="here")], bool)) == ["call00001", "call00002=here"]


def test_the_same_messages_get_the_same_ids_and_nothing_else_changes() -> None:
    messages = [spoken(Speaker.USER, "time?"), calling(Call("now")), result(), spoken(Speaker.ASSISTANT, "noon")]
    assert with_ids(messages, bool) == with_ids(messages, bool)
    assert [message.parts for message in with_ids(messages, bool)] == [message.parts for message in messages]
    plain = [spoken(Speaker.USER, "a"), spoken(Speaker.ASSISTANT, "b")]
    assert with_ids(plain, bool) == plain
