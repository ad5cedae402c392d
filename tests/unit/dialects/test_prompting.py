"""A configured prompt comes into a client's request, in the one place that each API has for it, and nothing else changes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from understudy.core.color import NO_PROMPT, Prompt, SystemPlace
from understudy.dialects.prompting import DEFAULTS_REFUSED, with_prompt
from understudy.dialects.raw_json import LENIENT_BYTES_MAX, VALUES_MAX

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
OLLAMA, GENERATE, MESSAGES = "/api/chat", "/api/generate", "/v1/messages"
CHATS = (CHAT, OLLAMA)
ALL = (CHAT, TEXT, RESPONSES, OLLAMA, GENERATE, MESSAGES)
PIRATE = Prompt("You are a pirate.")
PIRATE_ALONE = Prompt("You are a pirate.", SystemPlace.INSTEAD)
WARM = Prompt(defaults=(("temperature", "0.7"),))
OURS = {"role": "system", "content": "You are a pirate."}
HI = {"role": "user", "content": "hi"}
BRIEF = {"role": "system", "content": "Be brief."}
JOINED = "You are a pirate.\n\nBe brief."


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def sent(path: str, prompt: Prompt, /, **members: Any) -> Any:
    return json.loads(with_prompt(path, body(**members), prompt))


# --- what stays as it is


@pytest.mark.parametrize("path", ALL)
def test_an_empty_prompt_leaves_the_very_same_body(path: str) -> None:
    asked = body(messages=[HI], prompt="p", input="i")
    assert with_prompt(path, asked, NO_PROMPT) is asked


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/api/embed", "/api/embeddings", "/v1/rerank", "/v1/messages/count_tokens", "/api/show", "/", ""]
)
def test_a_path_that_generates_nothing_leaves_the_very_same_body(path: str) -> None:
    asked = body(model="m", input="i", messages=[HI])
    assert with_prompt(path, asked, Prompt("s", defaults=(("temperature", "0"),))) is asked


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize(
    "asked",
    [
        *(b"", b"no json", b"[]", b"7", b'"text"', b"null", b"{", b'{"a":1} x', b'{"messages":', b"\xff\xfe"),
        *(b"[" * 100_000, b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
    ids=lambda asked: repr(asked[:16]),
)
def test_what_is_no_object_stays_byte_for_byte(path: str, asked: bytes) -> None:
    assert with_prompt(path, asked, Prompt("s", defaults=(("temperature", "0"),))) is asked


@pytest.mark.parametrize("path", [CHAT, OLLAMA, MESSAGES])
@pytest.mark.parametrize("messages", [7, "text", {"role": "user"}, True])
@pytest.mark.parametrize("prompt", [PIRATE, PIRATE_ALONE, WARM])
def test_messages_of_the_wrong_type_are_the_engines_to_refuse(path: str, messages: Any, prompt: Prompt) -> None:
    asked = body(messages=messages)
    assert with_prompt(path, asked, prompt) is asked


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, body(messages=[{"role": "system", "content": 7}, HI])),
        (OLLAMA, body(messages=[{"role": "system", "content": {"text": "x"}}])),
        (MESSAGES, body(system=7, messages=[HI])),
        (RESPONSES, body(instructions={"a": 1}, input="i")),
        (GENERATE, body(system=True, prompt="p")),
    ],
)
def test_a_system_prompt_that_is_no_text_is_the_engines_to_refuse(path: str, asked: bytes) -> None:
    assert with_prompt(path, asked, Prompt("s", defaults=(("temperature", "0"),))) is asked


def test_a_completion_has_no_place_for_a_system_prompt() -> None:
    asked = body(prompt="Once upon a time")
    assert with_prompt(TEXT, asked, PIRATE) is asked
    assert with_prompt(TEXT, asked, PIRATE_ALONE) is asked


def test_a_system_prompt_that_is_no_text_in_utf_8_is_not_sent() -> None:
    asked = body(messages=[HI])
    assert with_prompt(CHAT, asked, Prompt("\ud800")) is asked
    assert with_prompt(CHAT, body(messages=[BRIEF]), Prompt("\ud800")) == body(messages=[BRIEF])


# --- chats


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("prompt", [PIRATE, PIRATE_ALONE])
def test_without_a_system_message_ours_comes_first(path: str, prompt: Prompt) -> None:
    answer = {"role": "assistant", "content": "ho"}
    assert sent(path, prompt, model="m", messages=[HI, answer, HI]) == {"model": "m", "messages": [OURS, HI, answer, HI]}


@pytest.mark.parametrize("path", CHATS)
def test_ours_and_the_clients_are_one_message(path: str) -> None:
    assert sent(path, PIRATE, messages=[BRIEF, HI]) == {"messages": [{"role": "system", "content": JOINED}, HI]}


@pytest.mark.parametrize("role", ["developer", "System", "SYSTEM"])
def test_the_clients_message_keeps_its_role_and_its_other_members(role: str) -> None:
    messages = [{"role": role, "name": "n", "content": "Be brief."}, HI]
    assert sent(CHAT, PIRATE, messages=messages)["messages"] == [{"role": role, "name": "n", "content": JOINED}, HI]


@pytest.mark.parametrize("system", [{"role": "system", "content": None}, {"role": "system"}, {"role": "system", "content": ""}])
def test_where_the_client_says_nothing_ours_stands_alone(system: dict[str, Any]) -> None:
    assert sent(CHAT, PIRATE, messages=[system, HI])["messages"] == [OURS, HI]


def test_before_the_clients_parts_comes_one_of_ours() -> None:
    own = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    assert sent(CHAT, PIRATE, messages=[{"role": "system", "content": own}, HI])["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "You are a pirate.\n\n"}, *own]},
        HI,
    ]
    assert sent(CHAT, PIRATE, messages=[{"role": "system", "content": []}])["messages"] == [OURS]


def test_of_several_system_messages_the_first_takes_ours() -> None:
    kind = {"role": "developer", "content": "Be kind."}
    assert sent(CHAT, PIRATE, messages=[BRIEF, kind, HI, BRIEF])["messages"] == [
        {"role": "system", "content": JOINED},
        kind,
        HI,
        BRIEF,
    ]


@pytest.mark.parametrize("path", CHATS)
def test_instead_replaces_all_that_stands_at_the_front_and_nothing_behind_it(path: str) -> None:
    kind = {"role": "Developer", "content": [{"type": "text", "text": "Be kind."}]}
    assert sent(path, PIRATE_ALONE, messages=[BRIEF, kind, HI, BRIEF])["messages"] == [OURS, HI, BRIEF]
    assert sent(path, PIRATE_ALONE, messages=[BRIEF, kind])["messages"] == [OURS]


@pytest.mark.parametrize("asked", [b'{"model": "m"}', b'{"model": "m", "messages": null}', b'{"model": "m", "messages": []}'])
@pytest.mark.parametrize("prompt", [PIRATE, PIRATE_ALONE])
def test_a_chat_without_messages_stays_what_it_is(asked: bytes, prompt: Prompt) -> None:
    """For Ollama it is the request to load a model, which a system message would make a question."""
    assert with_prompt(OLLAMA, asked, prompt) is asked
    assert with_prompt(CHAT, asked, prompt) is asked


def test_a_load_of_a_model_has_the_defaults_that_the_next_request_will_have() -> None:
    prompt = Prompt("s", defaults=(("num_ctx", "8192"), ("keep_alive", '"1h"')))
    assert sent(OLLAMA, prompt, model="m") == {"model": "m", "options": {"num_ctx": 8192}, "keep_alive": "1h"}
    assert sent(GENERATE, prompt, model="m") == {"model": "m", "options": {"num_ctx": 8192}, "keep_alive": "1h"}


def test_a_first_message_that_is_none_stays_behind_ours() -> None:
    assert sent(CHAT, PIRATE, messages=[7, HI])["messages"] == [OURS, 7, HI]
    assert sent(CHAT, PIRATE, messages=[{"role": 7}])["messages"] == [OURS, {"role": 7}]


def test_a_query_behind_the_path_changes_nothing() -> None:
    assert json.loads(with_prompt(f"{CHAT}?x=1", body(messages=[HI]), PIRATE)) == {"messages": [OURS, HI]}


# --- what is not ours keeps its bytes


def test_every_value_that_stays_keeps_its_bytes() -> None:
    rest = (
        b'"temperature":1.10,"seed":12345678901234567890123,"top_p":1E-1,"user":"\\u00e9\\/\xc3\xa9",'
        b'"tools":[ {"type":"function", "function":{"name":"f","parameters":{"b":1,"a":2.0}}} ],"metadata":{"x":1,"x":2}'
    )
    user = b'{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}} ], "role":"user"}'
    asked = b'{"model":"m","messages":[' + user + b"]," + rest + b"}"
    system = b'{"role":"system","content":"You are a pirate."}'
    assert with_prompt(CHAT, asked, PIRATE) == b'{"model":"m","messages":[' + system + b"," + user + b"]," + rest + b"}"


def test_the_clients_own_words_are_not_written_anew() -> None:
    asked = b'{"messages":[{"role":"system","content":"caf\\u00e9 \\ud83d\\ude00 \xf0\x9f\x98\x80 \\/ \\n"}]}'
    assert with_prompt(CHAT, asked, Prompt('Sag "ja": \n😀')) == (
        '{"messages":[{"role":"system","content":"Sag \\"ja\\": \\n😀\\n\\n'.encode()
        + b'caf\\u00e9 \\ud83d\\ude00 \xf0\x9f\x98\x80 \\/ \\n"}]}'
    )


def test_lone_surrogates_and_bytes_that_are_no_text_stay_in_the_clients_words() -> None:
    asked = b'{"messages":[{"role":"system","content":"a\\ud800b"}]}'
    assert with_prompt(CHAT, asked, Prompt("s")) == (b'{"messages":[{"role":"system","content":"s\\n\\na\\ud800b"}]}')
    invalid = b'{"messages":[{"role":"system","content":"a\xffb"},{"role":"user","content":"\xfe"}]}'
    assert with_prompt(CHAT, invalid, Prompt("s")) == invalid.replace(b'"a\xff', b'"s\\n\\na\xff')


def test_not_a_number_stays_what_it_was() -> None:
    asked = b'{"messages":[{"role":"user","content":"hi"}],"logit_bias":{"1":NaN},"temperature":Infinity}'
    changed = with_prompt(CHAT, asked, PIRATE)
    assert b'"logit_bias":{"1": NaN}' in changed
    assert b'"temperature":Infinity' in changed


def test_of_repeated_members_the_last_counts() -> None:
    asked = b'{"messages":[],"messages":[{"role":"user","role":"system","content":"x","content":"Be brief."}]}'
    assert with_prompt(CHAT, asked, PIRATE) == (b'{"messages":[{"role":"system","content":"You are a pirate.\\n\\nBe brief."}]}')


def test_a_large_picture_is_passed_on_as_it_stands() -> None:
    picture = b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"' + b"A" * 2_000_000 + b'"}}]}'
    asked = b'{"messages":[' + picture + b"]}"
    assert with_prompt(CHAT, asked, PIRATE).endswith(picture + b"]}")


def test_what_would_hold_up_everyone_else_is_sent_as_it_came() -> None:
    crowded = b'{"messages":[{"role":"user"}],"x":[' + b"0," * VALUES_MAX + b"0]}"
    assert with_prompt(CHAT, crowded, PIRATE) is crowded
    lenient = b'{"messages":[{"role":"user"}],"x":NaN,"y":"' + b"A" * LENIENT_BYTES_MAX + b'"}'
    assert with_prompt(CHAT, lenient, PIRATE) is lenient


# --- the other places


@pytest.mark.parametrize("told", [{}, {"instructions": None}, {"instructions": ""}])
def test_instructions_are_ours_where_the_client_has_none(told: dict[str, Any]) -> None:
    assert sent(RESPONSES, PIRATE, input="hi", **told) == {"input": "hi", "instructions": "You are a pirate."}
    assert sent(RESPONSES, PIRATE_ALONE, input=[HI], **told) == {"input": [HI], "instructions": "You are a pirate."}


def test_instructions_are_joined_or_replaced() -> None:
    assert sent(RESPONSES, PIRATE, instructions="Be brief.", input="hi") == {"instructions": JOINED, "input": "hi"}
    assert sent(RESPONSES, PIRATE_ALONE, instructions="Be brief.", input=[BRIEF, HI]) == {
        "instructions": "You are a pirate.",
        "input": [HI],
    }


def test_a_system_message_in_the_input_takes_ours_where_there_are_no_instructions() -> None:
    """Instructions are a system message to every engine; two of them break chat templates."""
    system = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}
    assert sent(RESPONSES, PIRATE, input=[system, HI]) == {
        "input": [{**system, "content": [{"type": "input_text", "text": "You are a pirate.\n\n"}, *system["content"]]}, HI]
    }
    assert sent(RESPONSES, PIRATE_ALONE, input=[system, BRIEF, HI]) == {"input": [OURS, HI]}


@pytest.mark.parametrize("told", [{}, {"system": None}, {"system": ""}, {"system": []}])
def test_anthropics_system_is_ours_where_the_client_has_none(told: dict[str, Any]) -> None:
    assert sent(MESSAGES, PIRATE, messages=[HI], **told) == {"messages": [HI], "system": "You are a pirate."}


def test_anthropics_system_is_joined_as_text_or_as_blocks() -> None:
    assert sent(MESSAGES, PIRATE, system="Be brief.", messages=[HI])["system"] == JOINED
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert sent(MESSAGES, PIRATE, system=blocks, messages=[HI])["system"] == [
        {"type": "text", "text": "You are a pirate.\n\n"},
        *blocks,
    ]
    assert sent(MESSAGES, PIRATE_ALONE, system=blocks, messages=[HI])["system"] == "You are a pirate."


@pytest.mark.parametrize("told", [{}, {"system": None}, {"system": ""}, {"context": [1, 2]}])
def test_ollamas_generate_has_a_system_of_its_own(told: dict[str, Any]) -> None:
    assert sent(GENERATE, PIRATE, prompt="hi", **told) == {"prompt": "hi", **told, "system": "You are a pirate."}


def test_ollamas_generate_has_its_system_joined_or_replaced() -> None:
    assert sent(GENERATE, PIRATE, prompt="hi", system="Be brief.")["system"] == JOINED
    assert sent(GENERATE, PIRATE_ALONE, prompt="hi", system="Be brief.")["system"] == "You are a pirate."


@pytest.mark.parametrize("told", [{"prompt": "hi", "raw": True}, {"prompt": ""}, {"prompt": None}, {}])
def test_a_raw_prompt_and_a_load_get_no_system(told: dict[str, Any]) -> None:
    asked = body(model="m", **told)
    assert with_prompt(GENERATE, asked, PIRATE) is asked
    assert sent(GENERATE, Prompt("s", defaults=(("seed", "1"),)), **told) == {**told, "options": {"seed": 1}}


# --- with defaults


def test_defaults_come_behind_what_the_client_says() -> None:
    asked = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"top_p":null}'
    prompt = Prompt("s", defaults=(("temperature", "0.70"), ("top_p", "0.9")))
    assert with_prompt(CHAT, asked, prompt) == (
        b'{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}],"top_p":0.9,"temperature":0.70}'
    )


@pytest.mark.parametrize("path", ALL)
def test_a_client_that_says_it_all_gets_the_very_same_body_back(path: str) -> None:
    asked = body(messages=[HI], prompt="p", temperature=0.1, options={"temperature": 0.1})
    assert with_prompt(path, asked, WARM) is asked


def test_the_refused_keys_are_told_from_here() -> None:
    assert "model" in DEFAULTS_REFUSED


# --- hostile

ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda deeper: (
        st.lists(deeper, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text"]),
            deeper | st.sampled_from(["system", "developer", "user", "text"]),
            max_size=3,
        )
    ),
)
PROMPTS = st.builds(
    Prompt,
    st.text(st.characters(), max_size=8),
    st.sampled_from(SystemPlace),
    st.lists(
        st.tuples(st.sampled_from(["temperature", "max_tokens", "num_predict", "stop", "options", "think"]), ODD.map(json.dumps)),
        max_size=3,
    ).map(tuple),
)


@given(
    path=st.sampled_from(ALL),
    members=st.dictionaries(
        st.sampled_from(
            ["messages", "system", "prompt", "input", "instructions", "raw", "options", "stop", "max_tokens", "other"]
        ),
        ODD,
    ),
    prompt=PROMPTS,
)
def test_whatever_a_body_says_it_stays_an_object_with_all_else_in_it(path: str, members: dict[str, Any], prompt: Prompt) -> None:
    asked = body(**members)
    changed = with_prompt(path, asked, prompt)
    after = json.loads(changed)
    assert set(after) >= set(members)
    if "other" in members:
        assert json.dumps(after["other"]) == json.dumps(members["other"])


@given(path=st.sampled_from(ALL), asked=st.binary(max_size=64), prompt=PROMPTS)
@example(path=CHAT, asked=b'{"\xff":1,"messages":[{"role":"\\ud800"}]}', prompt=PIRATE)
@example(path=CHAT, asked=b'{"messages":[{"role":"system","content":"' + b"\\" * 3 + b'"}]}', prompt=PIRATE)
@example(path=CHAT, asked=b'\xef\xbb\xbf{"messages":[{"role":"user"}]}', prompt=PIRATE)
@example(path=CHAT, asked=b'{"messages":[{"role":"user"}],"n":1' + b"0" * 5000 + b"}", prompt=PIRATE)
@example(path=CHAT, asked=b'{"messages":[NaN,{"role":"user"}]}', prompt=PIRATE_ALONE)
def test_whatever_bytes_come_nothing_is_raised(path: str, asked: bytes, prompt: Prompt) -> None:
    assert isinstance(with_prompt(path, asked, prompt), bytes)


@given(
    cut=st.integers(min_value=0, max_value=200),
    at=st.integers(min_value=0, max_value=200),
    byte=st.integers(min_value=0, max_value=255),
)
def test_a_damaged_body_raises_nothing(cut: int, at: int, byte: int) -> None:
    whole = body(messages=[BRIEF, {"role": "user", "content": [{"type": "text", "text": "é\ud800"}]}], options={"stop": ["x"]})
    damaged = whole[:at] + bytes((byte,)) + whole[at + 1 :] if at < len(whole) else whole[:cut]
    for path in ALL:
        assert isinstance(with_prompt(path, damaged, Prompt("s", defaults=(("stop", '"y"'),))), bytes)
