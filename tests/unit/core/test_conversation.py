"""A client's messages and what is kept of its session become one conversation."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from support.talk import assistant, calls, given, kept, raw, result, system, user
from understudy.core.conversation import (
    Conversation,
    Given,
    Merged,
    Merging,
    Mode,
    after_race,
    conclude,
    dated,
    holds,
    merge,
    paired,
    text_of,
)
from understudy.core.message import Call, ImagePart, Message, Speaker, TextPart, Wholeness

Q1, A1, Q2, A2, Q3 = user("q1"), assistant("a1"), user("q2"), assistant("a2"), user("q3")


def engine_gets(merged: Merged, sent: Given) -> list[str]:
    """Return the texts an engine is given, in order."""
    first = merged.system or sent.system
    return [message.text for message in (*first, *merged.before, *sent.messages)]


def check(store: Conversation, sent: Given, merging: Merging, *texts: str, mode: Mode = Mode.AUTO) -> Merged:
    """Merge, and check what it is called and what an engine gets; what is kept is the same without the system message."""
    merged = merge(store, sent, mode)
    assert merged.merging is merging
    assert engine_gets(merged, sent) == list(texts)
    return merged


# New messages.


def test_the_first_message_begins_a_conversation() -> None:
    merged = check(Conversation(), given(system("s"), Q1), Merging.NEW, "s", "q1")
    assert merged.asked.messages == (Q1,)
    assert merged.asked.system == (system("s"),)
    assert merged.before == merged.system == ()


def test_a_new_message_comes_after_what_is_kept() -> None:
    merged = check(kept(Q1, A1), given(Q2), Merging.APPENDED, "q1", "a1", "q2")
    assert merged.asked.messages == (Q1, A1, Q2)
    assert merged.new == (Q2,)


def test_the_same_question_once_more_is_a_new_question() -> None:
    check(kept(Q1, A1), given(Q1), Merging.APPENDED, "q1", "a1", "q1")


def test_the_kept_system_message_stays_first() -> None:
    check(kept(Q1, A1, said_first="s"), given(Q2), Merging.APPENDED, "s", "q1", "a1", "q2")


def test_the_latest_system_message_is_used_and_kept() -> None:
    merged = check(kept(Q1, A1, said_first="s"), given(system("t"), Q2), Merging.APPENDED, "t", "q1", "a1", "q2")
    assert merged.asked.system == (system("t"),)
    assert merged.system == ()


def test_a_system_message_in_the_middle_stays_where_it_is() -> None:
    check(kept(Q1, A1), given(Q2, system("x")), Merging.APPENDED, "q1", "a1", "q2", "x")


# The whole history.


def test_a_whole_history_is_not_doubled() -> None:
    merged = check(kept(Q1, A1), given(Q1, A1, Q2), Merging.RECOGNISED, "q1", "a1", "q2")
    assert merged.before == ()
    assert merged.asked.messages == (Q1, A1, Q2)
    assert merged.new == (Q2,)


def test_a_history_without_its_system_message_gets_it() -> None:
    check(kept(Q1, A1, said_first="s"), given(Q1, A1, Q2), Merging.RECOGNISED, "s", "q1", "a1", "q2")


def test_a_history_is_recognised_whatever_does_not_matter_differs() -> None:
    store = kept(Q1, msgspec.structs.replace(assistant(" a1\n"), reasoning="hm", mark=Wholeness.TORN, tokens=7))
    sent = given(Message(Speaker.USER, (TextPart("q"), TextPart("1")), name="ann"), assistant("<think>hm</think>a1"), Q2)
    check(store, sent, Merging.RECOGNISED, "q1", "<think>hm</think>a1", "q2")


def test_the_end_of_a_history_is_recognised() -> None:
    merged = check(kept(Q1, A1, Q2, A2), given(A2, Q3), Merging.RECOGNISED, "q1", "a1", "q2", "a2", "q3")
    assert merged.before == (Q1, A1, Q2)


def test_a_history_that_is_longer_than_what_is_kept_is_recognised() -> None:
    merged = check(kept(Q2, A2), given(Q1, A1, Q2, A2, Q3), Merging.RECOGNISED, "q1", "a1", "q2", "a2", "q3")
    assert merged.asked.messages == (Q2, A2, Q3)


def test_an_answer_that_comes_twice_in_a_history_is_found_where_it_belongs() -> None:
    ok = assistant("ok")
    check(kept(Q1, ok), given(Q1, ok, Q2, ok, Q3), Merging.RECOGNISED, "q1", "ok", "q2", "ok", "q3")


def test_a_tool_exchange_in_a_history_is_recognised() -> None:
    store = kept(Q1, calls("time"), result("time"), A1)
    check(store, given(Q1, calls("time"), result("time"), A1, Q2), Merging.RECOGNISED, "q1", "", "done", "a1", "q2")


# Another history.


def test_an_edited_history_takes_the_place_of_what_is_kept() -> None:
    merged = check(kept(Q1, A1, Q2, A2), given(Q1, assistant("better"), Q3), Merging.REPLACED, "q1", "better", "q3")
    assert merged.asked.messages == (Q1, assistant("better"), Q3)


def test_a_history_that_goes_back_takes_the_place_of_what_is_kept() -> None:
    check(kept(Q1, A1, Q2, A2), given(Q1, A1, Q3), Merging.REPLACED, "q1", "a1", "q3")


def test_another_history_brings_its_own_system_message_or_none() -> None:
    merged = check(kept(Q1, A1, said_first="s"), given(Q2, A2, Q3), Merging.REPLACED, "q2", "a2", "q3")
    assert merged.asked.system == ()


# What clients say of their messages.


def test_append_takes_all_messages_for_new() -> None:
    check(kept(Q1, A1), given(Q1, A1, Q2), Merging.APPENDED, "q1", "a1", "q1", "a1", "q2", mode=Mode.APPEND)


def test_replace_takes_the_messages_for_the_conversation() -> None:
    check(kept(Q1, A1, said_first="s"), given(Q2), Merging.REPLACED, "q2", mode=Mode.REPLACE)


def test_nothing_to_replace_is_a_new_conversation() -> None:
    check(Conversation(), given(Q2), Merging.NEW, "q2", mode=Mode.REPLACE)


# Again.


def test_a_question_whose_answer_tore_may_be_asked_again() -> None:
    merged = check(kept(Q1, A1, Q2, assistant("a", Wholeness.TORN)), given(Q2), Merging.RETRIED, "q1", "a1", "q2")
    assert merged.asked.messages == (Q1, A1, Q2)


def test_another_question_after_a_torn_answer_follows_it() -> None:
    check(kept(Q1, assistant("a", Wholeness.ABANDONED)), given(Q2), Merging.APPENDED, "q1", "a", "q2")


def test_a_tools_result_whose_answer_tore_may_be_sent_again() -> None:
    store = kept(Q1, calls("time"), result("time"), assistant("a", Wholeness.TORN))
    check(store, given(result("time")), Merging.RETRIED, "q1", "", "done")


def test_a_retry_may_ask_more_than_before() -> None:
    check(kept(Q1, assistant("a", Wholeness.ABANDONED)), given(Q1, Q2), Merging.RETRIED, "q1", "q2")


def test_an_answer_that_the_client_has_begun_is_no_other_history() -> None:
    check(kept(Q1, A1), given(Q2, assistant("{")), Merging.APPENDED, "q1", "a1", "q2", "{")


def test_a_part_of_what_was_asked_is_no_retry() -> None:
    check(kept(Q1, Q2, assistant("a", Wholeness.TORN)), given(Q2), Merging.APPENDED, "q1", "q2", "a", "q2")


@pytest.mark.parametrize("sent", [(Q1, A1, Q2, A2, Q3), (Q2, A2, Q3), (A2, Q3)])
def test_a_history_that_leaves_out_a_torn_answer_takes_that_turns_place(sent: tuple[Message, ...]) -> None:
    store = kept(Q1, A1, Q2, A2, Q3, assistant("a", Wholeness.TORN), said_first="s")
    merged = check(store, given(*sent), Merging.RETRIED, "s", "q1", "a1", "q2", "a2", "q3")
    assert merged.asked.messages == (Q1, A1, Q2, A2, Q3)
    assert merged.new == (Q3,)


def test_what_is_kept_twice_over_is_recognised_at_its_front() -> None:
    merged = check(kept(Q1, A1), given(Q1, A1, Q1, A1, Q2), Merging.RECOGNISED, "q1", "a1", "q1", "a1", "q2")
    assert merged.asked.messages == (Q1, A1, Q1, A1, Q2)


# Tools.


def test_a_result_that_names_its_call_otherwise_is_kept_with_the_calls_own_id() -> None:
    called = Message(Speaker.ASSISTANT, calls=(Call("time", "{}", "mine"),))
    merged = merge(kept(Q1, calls("time")), given(Q1, called, Message(Speaker.TOOL, call_id="mine")), Mode.AUTO)
    assert merged.merging is Merging.RECOGNISED
    assert merged.new == (Message(Speaker.TOOL, call_id="id-time", name="time"),)
    assert paired(merged.asked.messages) == merged.asked.messages


def test_a_tools_result_follows_its_call() -> None:
    merged = check(kept(Q1, calls("time")), given(result("time")), Merging.APPENDED, "q1", "", "done")
    assert merged.before[-1].calls


def test_a_call_without_a_result_is_left_out() -> None:
    merged = check(kept(Q1, calls("time")), given(Q2), Merging.APPENDED, "q1", "q2")
    assert merged.asked.messages == (Q1, calls("time"), Q2)


def test_what_was_said_beside_a_call_without_a_result_stays() -> None:
    merged = check(kept(Q1, calls("time", text="let me see")), given(Q2), Merging.APPENDED, "q1", "let me see", "q2")
    assert merged.before[-1].calls == ()


def test_of_two_calls_only_the_one_with_a_result_stays() -> None:
    assert [len(one.calls) for one in paired((Q1, calls("time", "place"), result("place"), A1))] == [0, 1, 0, 0]


def test_a_result_without_a_call_is_left_out() -> None:
    assert paired((result("time"), A1)) == (A1,)


def test_results_without_ids_belong_to_calls_by_name_and_by_place() -> None:
    named, bare = Message(Speaker.TOOL, name="place"), Message(Speaker.TOOL)
    whole = (Q1, calls("time", "place"), named, bare, A1)
    assert paired(whole) == whole


# What others have done meanwhile.


def test_after_a_race_what_others_wrote_stays_and_the_turn_follows() -> None:
    sent = given(Q2)
    merged = merge(kept(Q1, A1), sent, Mode.AUTO)
    assert after_race(kept(Q1, A1, Q3, A2), sent, merged).messages == (Q1, A1, Q3, A2, Q2)


def test_after_a_race_a_history_adds_only_what_follows_its_last_answer() -> None:
    sent = given(Q1, assistant("better"), Q2)
    merged = merge(kept(Q1, A1), sent, Mode.AUTO)
    assert merged.merging is Merging.REPLACED
    assert after_race(kept(Q1, A1, Q3, A2), sent, merged).messages == (Q1, A1, Q3, A2, Q2)


def test_after_a_race_a_request_without_anything_new_is_asked_again() -> None:
    sent = given(Q1, A1)
    merged = merge(kept(Q1, A1), sent, Mode.AUTO)
    assert after_race(Conversation(), sent, merged).messages == (Q1, A1)


def test_a_turn_that_is_there_already_is_known_by_its_place_and_time() -> None:
    written = dated(kept(Q1, A1, Q2, A2, revision=2), 5.0)
    assert holds(kept(*written.messages, Q3, A2, revision=3), written, 2)
    assert not holds(dated(kept(Q1, A1, Q2, A2, revision=2), 6.0), written, 2)
    assert not holds(kept(Q1, A1), written, 2)


# What is kept.


def test_a_turn_costs_what_the_usage_has_grown_by() -> None:
    asked = Conversation(messages=(Q1, msgspec.structs.replace(A1, tokens=20), Q2), prompt_tokens=50, completion_tokens=5)
    concluded = conclude(asked, A2, 2, 7.0)
    assert concluded.messages[-1].tokens == 35
    assert (concluded.revision, concluded.begun_at_unix_s, concluded.changed_at_unix_s) == (2, 7.0, 7.0)
    assert [message.at_unix_s for message in dated(concluded, 7.0).messages] == [7.0] * 4


# Texts.


def text(*messages: Message) -> Given:
    return Given(messages=messages, is_text=True)


def test_a_raw_prompt_goes_on_with_the_text_as_it_stands() -> None:
    merged = merge(kept(raw("Once"), assistant(" upon", is_raw=True)), text(raw(" a time")), Mode.AUTO)
    assert merged.prompt == "Once upon a time"
    assert merged.asked.messages[-1] == raw(" a time")


def test_a_raw_prompt_that_begins_with_the_text_is_recognised() -> None:
    merged = merge(kept(raw("Once"), assistant(" upon", is_raw=True)), text(raw("Once upon a time")), Mode.AUTO)
    assert (merged.merging, merged.prompt) == (Merging.RECOGNISED, None)
    assert merged.new == (raw(" a time"),)


def test_what_joins_two_turns_of_a_templated_prompt_belongs_to_neither() -> None:
    merged = merge(kept(Q1, A1), text(user("q1\n\na1\n\nq2")), Mode.AUTO)
    assert (merged.merging, merged.new) == (Merging.RECOGNISED, (Q2,))
    assert merge(merged.asked, text(user("q1\n\na1\n\nq2\n\nq3")), Mode.AUTO).new == (Q3,)


def test_the_pictures_of_a_prompt_that_is_recognised_stay() -> None:
    picture = ImagePart(data="AAAA")
    sent = text(Message(Speaker.USER, (TextPart("q1\n\na1\n\nq2"), picture)))
    assert merge(kept(Q1, A1), sent, Mode.AUTO).new == (Message(Speaker.USER, (TextPart("q2"), picture)),)


def test_turns_of_a_templated_prompt_stand_apart() -> None:
    merged = merge(kept(Q1, A1, said_first="s"), text(Q2), Mode.AUTO)
    assert merged.prompt == "q1\n\na1\n\nq2"
    assert merged.system == (system("s"),)


def test_a_raw_prompt_after_a_chat_has_the_system_message_in_it() -> None:
    merged = merge(kept(Q1, A1, said_first="s"), text(raw("q2")), Mode.AUTO)
    assert (merged.prompt, merged.system) == ("s\n\nq1\n\na1\n\nq2", ())


def test_a_text_is_recognised_after_what_has_fallen_off() -> None:
    store = msgspec.structs.replace(kept(raw("c"), assistant("d", is_raw=True)), fallen=2)
    assert merge(store, text(raw("abcde")), Mode.AUTO).new == (raw("e"),)


def test_the_first_prompt_stands_as_it_came() -> None:
    assert merge(Conversation(), text(raw("Once")), Mode.AUTO).prompt is None


def test_a_client_that_keeps_the_context_keeps_its_prompt() -> None:
    sent = Given(messages=(Q2,), is_text=True, has_context=True)
    merged = merge(kept(Q1, A1), sent, Mode.AUTO)
    assert (merged.merging, merged.prompt) == (Merging.RECOGNISED, None)
    assert merged.asked.messages == (Q1, A1, Q2)


def test_a_prompt_whose_answer_tore_may_be_sent_again() -> None:
    merged = merge(kept(raw("Once"), assistant(" u", Wholeness.TORN, is_raw=True)), text(raw("Once")), Mode.AUTO)
    assert (merged.merging, merged.prompt) == (Merging.RETRIED, None)


def test_one_text_has_gaps_only_where_it_must() -> None:
    assert text_of((raw("a"), assistant("b", is_raw=True), Q1, A1, raw("c"))) == "ab\n\nq1\n\na1\n\nc"


# Whatever is said.

words = st.sampled_from(["a", "b", "c"])
said = st.builds(lambda text, who: user(text) if who else assistant(text), words, st.booleans())


@drawn(turns=st.lists(st.tuples(words, words), max_size=6), new=st.lists(words, min_size=1, max_size=2))
def test_a_client_that_sends_everything_and_one_that_sends_what_is_new_lead_to_the_same(
    turns: list[tuple[str, str]], new: list[str]
) -> None:
    """Texts repeat on purpose: nothing is doubled, nothing is lost."""
    history = [message for asked, answered in turns for message in (user(asked), assistant(answered))]
    questions = [user(question) for question in new]
    store = kept(*history)
    of_new = merge(store, given(*questions), Mode.AUTO)
    of_all = merge(store, given(*history, *questions), Mode.AUTO)
    assert of_new.asked == of_all.asked
    assert engine_gets(of_new, given(*questions)) == engine_gets(of_all, given(*history, *questions))


@drawn(store=st.lists(said, max_size=6), sent=st.lists(said, min_size=1, max_size=6), mode=st.sampled_from(list(Mode)))
def test_the_clients_own_messages_always_reach_the_engine_and_the_store(
    store: list[Message], sent: list[Message], mode: Mode
) -> None:
    merged = merge(kept(*store), given(*sent), mode)
    texts = [message.text for message in sent]
    assert [message.text for message in merged.asked.messages][-len(sent) :] == texts or merged.merging is Merging.RECOGNISED
    assert merged.asked.messages[len(merged.asked.messages) - len(merged.new) :] == merged.new
    assert replace(merged, before=()).asked.revision == 1
