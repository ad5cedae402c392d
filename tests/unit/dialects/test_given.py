"""A client's request is read as its part of a conversation, and written with what was stored standing before that."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.conversation import Conversation, Given, Merged, Merging
from understudy.core.message import Call, ImagePart, Message, OtherPart, Part, Speaker, TextPart, identity, spoken
from understudy.dialects.given import CONVERSING_PATHS, read_given, unkeepable, write_asked
from understudy.dialects.raw_json import LENIENT_BYTES_MAX, VALUES_MAX
from understudy.dialects.wish import shape_of

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = "/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate", "/v1/messages"
CHATS = (CHAT, OLLAMA, MESSAGES)
USER, ASSISTANT, TOOL, SYSTEM = Speaker.USER, Speaker.ASSISTANT, Speaker.TOOL, Speaker.SYSTEM
HI = {"role": "user", "content": "hi"}
BEFORE = (spoken(USER, "one"), spoken(ASSISTANT, "two", reasoning="hm"))
WRITTEN = b'{"role":"user","content":"one"},{"role":"assistant","content":"two"}'


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def merged(before: tuple[Message, ...] = (), system: tuple[Message, ...] = (), prompt: str | None = None) -> Merged:
    return Merged(Merging.APPENDED, before, system, Conversation(), (), prompt)


# --- reading


def test_the_paths_are_those_whose_answers_are_generated_text() -> None:
    assert all(shape_of(path) for path in CONVERSING_PATHS)
    assert {CHAT, TEXT, OLLAMA, GENERATE, MESSAGES} == CONVERSING_PATHS


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/rerank", "/api/embed"])
def test_other_paths_carry_no_conversation(path: str) -> None:
    assert read_given(path, b"{}") == "this path carries no conversation"
    assert write_asked(path, b"{}", merged(BEFORE)) == "this path carries no conversation"
    assert unkeepable(path, b'{"n":2}') == ""


@pytest.mark.parametrize("path", [CHAT, OLLAMA])
def test_leading_system_messages_stand_apart_and_later_ones_do_not(path: str) -> None:
    system = {"role": "system", "content": "be brief"}
    assert read_given(path, body(messages=[system, system, HI, system])) == Given(
        system=(spoken(SYSTEM, "be brief"),) * 2, messages=(spoken(USER, "hi"), spoken(SYSTEM, "be brief"))
    )
    assert read_given(path, body(messages=[])) == Given()


def test_anthropics_system_prompt_stands_beside_its_messages() -> None:
    assert read_given(MESSAGES, body(system="be brief", messages=[HI])) == Given(
        (spoken(SYSTEM, "be brief"),), (spoken(USER, "hi"),)
    )
    assert read_given(MESSAGES, body(system=7, messages=[HI])) == "system is neither text nor a list of blocks"


def test_a_completions_prompt_is_one_raw_message() -> None:
    wanted = Given(messages=(spoken(USER, "Once", is_raw=True),), is_text=True)
    assert read_given(TEXT, body(prompt="Once")) == read_given(TEXT, body(prompt=["Once"])) == wanted
    assert read_given(TEXT, body(prompt="")) == Given(messages=(Message(USER, is_raw=True),), is_text=True)


@pytest.mark.parametrize("prompt", [None, 7, [], ["a", "b"], [1, 2], {"a": 1}])
def test_a_prompt_that_is_no_string_cannot_be_read(prompt: Any) -> None:
    assert read_given(TEXT, body(prompt=prompt)) == "prompt is not a string"
    assert read_given(TEXT, b"{}") == "prompt is not a string"


def test_a_prompt_of_ollamas_has_its_system_its_pictures_and_its_context() -> None:
    assert read_given(GENERATE, body(prompt="hi", system="be brief", images=["AAAA"], context=[1])) == Given(
        (spoken(SYSTEM, "be brief"),),
        (Message(USER, (TextPart("hi"), ImagePart(data="AAAA"))),),
        is_text=True,
        has_context=True,
    )
    assert read_given(GENERATE, body(prompt="hi", raw=True, context=[])) == Given(
        messages=(spoken(USER, "hi", is_raw=True),), is_text=True
    )


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({"prompt": ["hi"]}, "prompt is not a string"),
        ({"prompt": "hi", "system": ["x"]}, "system is not a string"),
        ({"prompt": "hi", "images": "AAAA"}, "images is not a list of strings"),
    ],
)
def test_what_ollama_would_refuse_in_a_prompt_is_named(members: dict[str, Any], wrong: str) -> None:
    assert read_given(GENERATE, body(**members)) == wrong


def test_a_request_to_load_a_model_has_no_messages() -> None:
    assert read_given(GENERATE, body(model="m", keep_alive=0)) == Given(is_text=True)
    assert read_given(GENERATE, body(prompt="")) == Given(is_text=True)
    assert read_given(OLLAMA, body(model="m")) == read_given(OLLAMA, body(messages=None)) == Given()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("members", [{}, {"messages": None}, {"messages": HI}, {"messages": "hi"}])
def test_messages_that_are_no_list_cannot_be_read(path: str, members: dict[str, Any]) -> None:
    assert read_given(path, body(**members)) == "messages is not a list, or cannot be read"


@pytest.mark.parametrize("path", sorted(CONVERSING_PATHS))
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"messages":' + b"[" * 100_000])
def test_a_body_that_is_no_object_cannot_be_read(path: str, data: bytes) -> None:
    assert read_given(path, data) == "the body is not a JSON object, or nested too deeply"
    assert unkeepable(path, data) == ""
    assert isinstance(write_asked(path, data, merged(BEFORE, prompt="x")), str)


def test_a_body_is_read_as_leniently_as_engines_read_it() -> None:
    odd = b'{"temperature":NaN,"messages":[{"role":"user","content":"\\ud800\xff"}]}'
    assert read_given(CHAT, odd) == Given(messages=(spoken(USER, "\ufffd\ufffd"),))


def test_a_body_that_would_hold_up_everyone_else_is_not_read() -> None:
    long = b'{"prompt":"\\ud800' + b"x" * LENIENT_BYTES_MAX + b'"}'
    assert read_given(TEXT, long) == "the body is not a JSON object, or not strict JSON and too long to be read leniently"
    crowded = b'{"prompt":[' + b"1," * VALUES_MAX + b"1]}"
    assert read_given(TEXT, crowded) == "the body has too many values to keep its conversation"


# --- what cannot be kept


@pytest.mark.parametrize(
    ("path", "members", "why"),
    [
        (CHAT, {"n": 2}, "n asks for several answers"),
        (TEXT, {"prompt": "a", "best_of": "2"}, "best_of asks for several answers"),
        (TEXT, {"prompt": "a", "use_beam_search": True}, "use_beam_search asks for several answers"),
        (TEXT, {"prompt": [1, 2]}, "a prompt of token ids is no text"),
        (TEXT, {"prompt": [[1], [2]]}, "a prompt of token ids is no text"),
        (TEXT, {"prompt": ["a", "b"]}, "several prompts ask for several answers"),
        (TEXT, {"prompt": "a", "suffix": "b"}, "with suffix the answer is not the continuation of a text"),
        (TEXT, {"prompt": "a", "echo": True}, "with echo the answer is not the continuation of a text"),
        (CHAT, {"echo": True}, "with echo the answer is not the continuation of a text"),
        (GENERATE, {"prompt": "a", "suffix": "b"}, "with suffix the answer is not the continuation of a text"),
        (CHAT, {"n": 1, "echo": False, "messages": [HI]}, ""),
        (CHAT, {"n": None, "best_of": "many", "n_cmpl": True}, ""),
        (TEXT, {"prompt": "a", "suffix": "", "echo": None}, ""),
        (TEXT, {"prompt": ["a"]}, ""),
        (TEXT, {"prompt": []}, ""),
        (TEXT, {}, ""),
        (OLLAMA, {"n": 2, "messages": []}, ""),
        (MESSAGES, {"n": 2, "messages": []}, ""),
    ],
)
def test_what_is_no_conversation_is_told_in_words(path: str, members: dict[str, Any], why: str) -> None:
    assert unkeepable(path, body(**members)) == why


# --- writing


@pytest.mark.parametrize("path", sorted(CONVERSING_PATHS))
def test_where_nothing_is_added_the_body_is_the_clients(path: str) -> None:
    data = b'{"messages": [ {} ], "prompt":"x"}'
    assert write_asked(path, data, merged()) is data


def test_a_prompt_is_no_place_for_messages() -> None:
    data = body(prompt="hi", system="own")
    assert write_asked(TEXT, data, merged(BEFORE, system=(spoken(SYSTEM, "s"),))) is data
    assert write_asked(GENERATE, data, merged(BEFORE, system=(spoken(SYSTEM, "s"),))) is data


@pytest.mark.parametrize("path", CHATS)
def test_what_was_stored_stands_before_the_clients_messages_which_keep_their_bytes(path: str) -> None:
    own = b'{"role": "user",  "content":"\\u0068i", "n":1.0}'
    data = b'{"model" : "m","messages":[7],"messages":[ ' + own + b' ],"top_p":1.0}'
    assert write_asked(path, data, merged(BEFORE)) == b'{"model":"m","messages":[' + WRITTEN + b"," + own + b'],"top_p":1.0}'


@pytest.mark.parametrize("path", [CHAT, OLLAMA])
def test_the_clients_system_messages_stay_first(path: str) -> None:
    own = b'{"role":"system", "content":"be brief"},{"content": "\\ud800","role":"system"}'
    data = b'{"messages":[' + own + b',{"role":"user","content":"hi"},{"role":"system"}]}'
    written = write_asked(path, data, merged(BEFORE))
    assert isinstance(written, bytes)
    contents = [message.get("content") for message in json.loads(written)["messages"]]
    assert contents == ["be brief", "\ud800", "one", "two", "hi", None]
    assert b"\\ud800" in written


@pytest.mark.parametrize("path", [CHAT, OLLAMA])
def test_a_stored_system_message_comes_before_all_else(path: str) -> None:
    data = b'{"messages":[{"role":"user","content":"hi"}]}'
    assert write_asked(path, data, merged(BEFORE, (spoken(SYSTEM, "be brief"),))) == (
        b'{"messages":[{"role":"system","content":"be brief"},' + WRITTEN + b',{"role":"user","content":"hi"}]}'
    )


def test_anthropics_system_prompt_takes_the_stored_one_and_later_ones() -> None:
    data = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":9}'
    assert write_asked(MESSAGES, data, merged(system=(spoken(SYSTEM, "be brief"),))) == (
        b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"system":"be brief"}'
    )
    later = (*BEFORE, spoken(SYSTEM, "in French"))
    own = b'{"system":[{"text":"be brief", "type":"text"}],"messages":[]}'
    assert write_asked(MESSAGES, own, merged(later)) == (
        b'{"system":[{"text":"be brief", "type":"text"},{"type":"text","text":"\\n\\nin French"}],"messages":[' + WRITTEN + b"]}"
    )


def test_anthropic_gets_no_system_prompt_that_its_api_refuses() -> None:
    data = body(messages=[HI])
    assert write_asked(MESSAGES, data, merged(system=(spoken(SYSTEM, " "),))) is data


def test_a_text_path_gets_the_whole_prompt() -> None:
    assert write_asked(TEXT, body(prompt=["b"], n=1), merged(BEFORE, prompt="a b")) == b'{"prompt":"a b","n":1}'
    system = (spoken(SYSTEM, "be"), spoken(SYSTEM, "brief"))
    assert write_asked(TEXT, body(prompt="b"), merged(BEFORE, system, prompt="a b")) == b'{"prompt":"a b"}'
    assert write_asked(GENERATE, body(prompt="b", system=""), merged(BEFORE, system, prompt="a b")) == (
        b'{"prompt":"a b","system":"be\\n\\nbrief"}'
    )


@pytest.mark.parametrize("members", [{"system": "own"}, {"raw": True}, {"context": [1]}])
def test_ollama_gets_no_system_message_where_it_has_one_or_refuses_it(members: dict[str, Any]) -> None:
    data = body(prompt="b", **members)
    assert write_asked(GENERATE, data, merged(system=(spoken(SYSTEM, "be brief"),))) is data


def test_a_body_that_is_not_strict_json_is_written_as_it_was_meant() -> None:
    data = b'{"seed":NaN,"messages":[{"role":"user","content":"\\ud800"}]}'
    assert write_asked(CHAT, data, merged(BEFORE)) == (
        b'{"seed":NaN,"messages":[' + WRITTEN + b',{"role": "user", "content": "\\ud800"}]}'
    )


@pytest.mark.parametrize(
    ("path", "part", "what"),
    [
        (CHAT, OtherPart("anthropic", '{"type":"document"}'), "a document part that the openai API"),
        (OLLAMA, OtherPart("openai", '{"type":"input_audio"}'), "an input_audio part that the ollama API"),
        (OLLAMA, ImagePart(url="https://x"), "an image at a URL that the ollama API"),
        (GENERATE, OtherPart("openai", '{"type":"input_audio"}'), "an input_audio part that the ollama API"),
        (MESSAGES, OtherPart("openai", '{"type":"input_audio"}'), "an input_audio part that the anthropic API"),
    ],
)
def test_what_a_dialect_cannot_carry_is_told_in_words(path: str, part: Part, what: str) -> None:
    told = f"the stored conversation has {what} cannot carry"
    data = body(prompt="hi", messages=[HI])
    assert write_asked(path, data, merged(system=(Message(SYSTEM, (part,)),), prompt="x")) == told
    if path != GENERATE:
        assert write_asked(path, data, merged((Message(USER, (part,)),))) == told


# --- there and back


WORDS = st.text(max_size=8).filter(lambda text: bool(text.strip()))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda deeper: st.lists(deeper, max_size=2))
ARGUMENTS = st.dictionaries(st.text(max_size=4), JSON, max_size=2).map(json.dumps)
IMAGES = st.builds(ImagePart, data=st.sampled_from(["iVBORw0KGgo=", "/9j/"]), media_type=st.sampled_from(["", "image/png"]))
PARTS = st.lists(st.builds(TextPart, WORDS) | IMAGES, min_size=1, max_size=3).map(tuple)
CALLS = st.lists(st.builds(Call, st.sampled_from(["now", "here"]), ARGUMENTS, st.sampled_from(["", "a", "b:0"])), max_size=2)


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """A user's message, perhaps calls and their results, and an answer."""
    asked = Message(USER, draw(PARTS), is_raw=draw(st.booleans()))
    calls = tuple(draw(CALLS))
    answer = spoken(ASSISTANT, draw(WORDS), reasoning=draw(st.text(max_size=3)))
    if not calls:
        return [asked, answer]
    results = [Message(TOOL, draw(PARTS), call_id=call.id, name=draw(st.sampled_from(["", call.name]))) for call in calls]
    return [asked, Message(ASSISTANT, draw(st.just(()) | PARTS), calls=calls), *results, answer]


CONVERSATIONS = st.lists(turns(), max_size=3).map(lambda lists: tuple(message for turn in lists for message in turn))


def through(path: str, messages: tuple[Message, ...]) -> Given:
    """Write messages before a client's in one dialect and read the whole."""
    written = write_asked(path, body(messages=[HI]), merged(messages, (spoken(SYSTEM, "be brief"),)))
    assert isinstance(written, bytes)
    read = read_given(path, written)
    assert isinstance(read, Given)
    return read


@given(messages=CONVERSATIONS, first=st.sampled_from(CHATS), second=st.sampled_from(CHATS))
def test_a_conversation_says_the_same_in_every_dialect_and_after_a_change(
    messages: tuple[Message, ...], first: str, second: str
) -> None:
    wanted = [identity(message) for message in (*messages, spoken(USER, "hi"))]
    read = through(first, messages)
    assert read.system == (spoken(SYSTEM, "be brief"),)
    assert [identity(message) for message in read.messages] == wanted
    assert [identity(message) for message in through(second, read.messages[:-1]).messages] == wanted


@given(messages=CONVERSATIONS)
def test_every_result_has_the_id_of_a_call_before_it(messages: tuple[Message, ...]) -> None:
    for path in (CHAT, MESSAGES):
        ids: set[str] = set()
        for message in through(path, messages).messages:
            ids |= {call.id for call in message.calls}
            assert message.speaker is not TOOL or message.call_id in ids


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("bottom", ["1", "NaN"])
def test_messages_of_any_depth_are_read_and_written_or_refused_in_words(path: str, bottom: str) -> None:
    for depth in range(800, 1050, 2):
        deep = "[" * depth + bottom + "]" * depth
        call = '{"type":"tool_use","function":{"name":"now","arguments":DEEP},"name":"now","input":DEEP}'
        data = '{"messages":[{"role":"assistant","content":[{"type":"x","x":DEEP}],"tool_calls":[' + call + "]}]}"
        data = data.replace("DEEP", deep)
        read = read_given(path, data.encode())
        messages = read.messages if isinstance(read, Given) else (Message(ASSISTANT, calls=(Call("now", deep),)),)
        assert isinstance(write_asked(path, body(messages=[HI]), merged(messages)), bytes | str)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda deeper: (
        st.lists(deeper, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "input", "source", "images"]
            ),
            deeper | st.sampled_from(["user", "assistant", "tool", "text", "tool_use", "tool_result", "image", "thinking"]),
            max_size=4,
        )
    ),
)


@given(
    path=st.sampled_from(sorted(CONVERSING_PATHS)),
    members=st.dictionaries(st.sampled_from(["messages", "system", "prompt", "n", "images", "raw", "context", "suffix"]), ODD),
)
def test_no_body_is_too_odd(path: str, members: dict[str, Any]) -> None:
    data = body(**members)
    assert isinstance(read_given(path, data), Given | str)
    assert isinstance(unkeepable(path, data), str)
    assert isinstance(write_asked(path, data, merged(BEFORE, (spoken(SYSTEM, "s"),), "p")), bytes | str)


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_prompt_carries_no_pictures_and_says_so(path: str) -> None:
    picture = Message(Speaker.USER, (ImagePart(data="AAAA"),))
    assert write_asked(path, b'{"model": "m", "prompt": "q"}', merged((picture,), prompt="q")) == (
        "the stored conversation has pictures or other parts that a prompt cannot carry"
    )
