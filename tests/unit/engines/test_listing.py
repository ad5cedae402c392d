"""Plays of lists that engines and liars send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import MODELS_MAX, PROBE_BODY_BYTES_MAX, Finding
from understudy.engines.listing import NAME_CHARACTERS_MAX, Listed, read_ollama_list, read_openai_list, settle


def names(body: bytes) -> list[str] | str:
    listed = read_openai_list(body)
    return listed if isinstance(listed, str) else [one.name for one in listed]


def test_entries_keep_their_text() -> None:
    entry = '{"id": "é", "x": [1, {"y": null}],  "owned_by":"vllm"}'
    assert read_openai_list(b'{"data":[' + entry.encode() + b"]}") == (Listed("é", entry, owner="vllm"),)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"object":"list","data":null}', []),
        (b'{"data":[]}', []),
        (b'{"data":[{"id":"a"},{"id":"a","x":1},{"id":"b"}]}', ["a", "b"]),
        (b'{"data":[1,null,"x",[],{},{"id":5},{"id":""},{"id":"a\\nb"},{"id":"ok"}]}', ["ok"]),
        (b'{"data":[{"id":"' + b"n" * (NAME_CHARACTERS_MAX + 1) + b'"},{"id":"ok"}]}', ["ok"]),
        (b'{"data":[{"id":"\xff"},{"id":"ok","x":"\xff"},{"id":"good"}]}', ["good"]),
        (b'{"data":[{"id":"ok","aliases":5,"owned_by":5,"status":"x"}]}', ["ok"]),
        (b'{"models":[]}', "a list without data"),
        (b"[]", "a list of an unknown shape"),
        (b"", "a list that is not JSON"),
        (b'{"data":[{"id":"a"}', "a list that is not JSON"),
        (b"\x1f\x8b\x08", "a list that is not JSON"),
        (b'{"data":' + b"[" * 200_000, "a list that is not JSON"),
        (b" " * PROBE_BODY_BYTES_MAX, "a list of more than 4 MiB"),
    ],
)
def test_a_list_is_read_or_said_to_be_wrong(body: bytes, found: list[str] | str) -> None:
    assert names(body) == found


def test_an_endless_list_is_cut() -> None:
    body = b'{"data":[' + b",".join(b'{"id":"m%d"}' % number for number in range(MODELS_MAX + 5)) + b"]}"
    listed = read_openai_list(body)
    assert len(listed) == MODELS_MAX


def test_ollama_lists_are_read_by_name() -> None:
    assert read_ollama_list(b'{"models":[{"name":"m:latest"}]}') == (Listed("m:latest", '{"name":"m:latest"}'),)


VLLM = '{"id":"m","created":%d,"root":"%s","permission":[{"id":"modelperm-%s","created":%d}]}'
KNOWN = Finding(Seen.GOOD, EngineKind.VLLM, models=(Model("m", VLLM % (1, "a", "x", 1)),))


def test_an_entry_that_differs_only_by_the_time_of_asking_stays_what_it_was() -> None:
    assert settle((Model("m", VLLM % (2, "a", "y", 2)),), KNOWN) == KNOWN.models


def test_an_entry_that_differs_otherwise_is_taken() -> None:
    other = (Model("m", VLLM % (2, "b", "y", 2)), Model("n", "{}"))
    assert settle(other, KNOWN) == other
    assert settle(other, None) == other


@given(st.binary(max_size=200))
def test_no_bytes_raise(body: bytes) -> None:
    read_openai_list(body)
    read_ollama_list(b'{"models":[' + body + b"]}")
