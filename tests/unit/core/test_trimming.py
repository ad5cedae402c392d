"""What falls off the front of a conversation: whole turns, the oldest first."""

import msgspec
from hypothesis import given as drawn
from hypothesis import strategies as st

from support.talk import assistant, calls, kept, result, system, user
from understudy.core.conversation import Conversation, paired
from understudy.core.message import ImagePart, Message, OtherPart, Speaker
from understudy.core.trimming import Bounds, size_bytes, trim, turn_starts

Q1, A1, Q2, A2, Q3, A3 = user("q1"), assistant("a1"), user("q2"), assistant("a2"), user("q3"), assistant("a3")
LARGE = 10_000_000


def costing(message: Message, tokens: int) -> Message:
    return msgspec.structs.replace(message, tokens=tokens)


def left(conversation: Conversation | None) -> list[str]:
    assert conversation is not None
    return [message.text for message in conversation.messages]


def test_what_is_within_its_bounds_stays_as_it_is() -> None:
    whole = kept(Q1, A1, Q2, A2)
    assert trim(whole, Bounds(4)) is whole


def test_whole_turns_fall_off_oldest_first() -> None:
    trimmed = trim(kept(Q1, A1, Q2, A2, Q3, A3, said_first="s"), Bounds(5))
    assert left(trimmed) == ["q2", "a2", "q3", "a3"]
    assert trimmed is not None
    assert trimmed.fallen == 2
    assert trimmed.system == (system("s"),)


def test_bytes_count_too() -> None:
    assert left(trim(kept(user("x" * 900), A1, Q2, A2), Bounds(bytes_max=700))) == ["q2", "a2"]


def test_a_turn_with_tools_falls_off_whole() -> None:
    assert left(trim(kept(Q1, calls("time"), result("time"), A1, Q2, A2), Bounds(5))) == ["q2", "a2"]


def test_tokens_fall_off_by_what_each_turn_has_cost() -> None:
    talk = kept(Q1, costing(A1, 100), Q2, costing(A2, 50), Q3, costing(A3, 50))
    talk = msgspec.structs.replace(talk, prompt_tokens=150, completion_tokens=50)
    assert left(trim(talk, Bounds(tokens_max=199))) == ["q2", "a2", "q3", "a3"]
    assert trim(talk, Bounds(tokens_max=200)) is talk


def test_turns_of_unknown_cost_share_what_is_left() -> None:
    talk = msgspec.structs.replace(kept(Q1, A1, Q2, A2, Q3, A3), prompt_tokens=290, completion_tokens=10)
    assert left(trim(talk, Bounds(tokens_max=200))) == ["q2", "a2", "q3", "a3"]


def test_without_usage_tokens_are_estimated_by_size() -> None:
    talk = kept(user("x" * 400), A1, user("y" * 400), A2)
    assert trim(talk, Bounds(tokens_max=202)) is talk
    assert left(trim(talk, Bounds(tokens_max=150))) == ["y" * 400, "a2"]


def test_of_a_turn_that_is_too_long_the_first_tool_exchanges_fall_off() -> None:
    talk = kept(Q1, A1, Q2, calls("time"), result("time", "t"), calls("place"), result("place", "p"), A2)
    assert left(trim(talk, Bounds(4))) == ["q2", "", "p", "a2"]


def test_a_call_that_waits_for_its_result_does_not_fall_off_before_its_turn() -> None:
    talk = kept(Q1, calls("time"), result("time", "t"), calls("place"))
    assert left(trim(talk, Bounds(2))) == ["q1", ""]


def test_a_turn_that_is_too_large_alone_cannot_be_kept() -> None:
    assert trim(kept(Q1, A1, user("x" * 2000), A2), Bounds(bytes_max=1000)) is None
    assert trim(kept(Q1, A1, said_first="s" * 2000), Bounds(bytes_max=1000)) is None


def test_a_turn_begins_at_what_is_said_after_an_answer() -> None:
    assert turn_starts((Q1, Q2, A1, system("x"), Q3, A3, result("time"), user("hm"))) == [0, 3, 7]


def test_all_that_a_message_holds_has_a_size() -> None:
    bare = size_bytes(user(""))
    assert size_bytes(user("\N{SNOWMAN}")) == bare + 3
    assert size_bytes(Message(Speaker.USER, (ImagePart(data="x" * 10), OtherPart("openai", "y" * 5)))) == bare + 15
    assert size_bytes(calls("time")) > bare


spoken = st.sampled_from([Q1, A1, calls("time"), result("time"), calls("a", "b"), result("a"), result("b")])


@drawn(messages=st.lists(spoken, max_size=14), messages_max=st.integers(1, 8))
def test_what_is_left_is_within_its_bounds_and_has_no_half_of_a_tool_exchange(messages: list[Message], messages_max: int) -> None:
    whole = paired(messages)
    trimmed = trim(kept(*whole), Bounds(messages_max))
    if trimmed is None:
        assert len(whole) > messages_max
        return
    assert len(trimmed.messages) <= messages_max
    assert trimmed.fallen == len(whole) - len(trimmed.messages)
    assert paired(trimmed.messages) == trimmed.messages
