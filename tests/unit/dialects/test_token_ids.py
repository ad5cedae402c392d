"""Token ids that the client did not ask for are taken out of the bytes, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spliced import GOLDEN
from understudy.dialects.token_ids import strip_ids


@pytest.mark.parametrize(
    ("data", "stripped"),
    [
        (b'{"a":1,"token_ids":[1,2],"b":2}', b'{"a":1,"b":2}'),
        (b'{"token_ids":[1],"b":2}', b'{"b":2}'),
        (b'{"token_ids":[1]}', b"{}"),
        (b'{"a":1,"token_ids":null}', b'{"a":1}'),
        (b'{"a":1, "token_ids" : [ 1 , 2 ] , "b":2}', b'{"a":1 , "b":2}'),
        (b'{"token_ids":[],"prompt_token_ids":[1],"prompt_text":null,"a":1}', b'{"a":1}'),
        (b'{"a":1,"prompt_token_ids":[1],"prompt_text":"x\\"y, \\\\","b":2}', b'{"a":1,"b":2}'),
        (b'{"choices":[{"token_ids":[1]},{"index":1,"token_ids":[2]}]}', b'{"choices":[{},{"index":1}]}'),
        (b'{"content":"a \\"token_ids\\":[1] b"}', b'{"content":"a \\"token_ids\\":[1] b"}'),
        (b'{"content":"\\\\\\"token_ids\\":null,"}', b'{"content":"\\\\\\"token_ids\\":null,"}'),
        (b'{"a \\"token_ids":[1]}', b'{"a \\"token_ids":[1]}'),
        (b'{"my_token_ids":[1]}', b'{"my_token_ids":[1]}'),
        (b'{"content":"token_ids"}', b'{"content":"token_ids"}'),
    ],
)
def test_members_go_and_texts_stay(data: bytes, stripped: bytes) -> None:
    assert strip_ids(data) == stripped


@pytest.mark.parametrize("name", ["llamacpp/chat.sse", "ollama/chat.ndjson", "vllm/messages_error.sse"])
def test_a_stream_without_ids_stays_as_it_is(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    assert strip_ids(data) is data


NAMES = st.sampled_from(["token_ids", "prompt_token_ids", "content", 'x"token_ids', "text"])
TEXTS = st.text(st.sampled_from('ab"\\:,[]1 {}\n'), max_size=8) | st.sampled_from(
    ['"token_ids":[1]', ',"token_ids":null', "token_ids"]
)
OBJECTS: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers(),
    lambda deeper: (
        st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(["content", "text", 'x"token_ids']), deeper, max_size=3)
    ),
)


@given(
    members=st.lists(st.tuples(NAMES, OBJECTS, st.none() | st.lists(st.integers(), max_size=3)), max_size=5),
    is_spaced=st.booleans(),
)
def test_whatever_else_an_event_says_stays(members: list[tuple[str, Any, list[int] | None]], is_spaced: bool) -> None:
    value = {name: (ids if name in ("token_ids", "prompt_token_ids") else other) for name, other, ids in members}
    data = json.dumps(value, separators=None if is_spaced else (",", ":")).encode()
    wanted = {name: other for name, other in value.items() if name not in ("token_ids", "prompt_token_ids")}
    assert json.loads(strip_ids(data)) == wanted
