"""A management path is one however it is written, and what clients need is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.management import DECODINGS_MAX, MANAGEMENT_PATHS, is_management, normalise

LISTED = sorted({path.removesuffix("*") for paths in MANAGEMENT_PATHS.values() for path in paths})


@pytest.mark.parametrize("path", LISTED)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"OPTIONS"])
def test_methods_are_no_protection(method: bytes, path: str) -> None:
    assert is_management(method, path.encode())


@pytest.mark.parametrize(
    "path",
    [
        b"/api/pull/",
        b"//api//pull",
        b"/api/./pull",
        b"/v1/../api/pull",
        b"/api/chat/../pull",
        b"/../../api/pull",
        b"/api/%70ull",
        b"/api/%2570ull",
        b"/api%2Fpull",
        b"/api%252fpull",
        b"/%2e%2e/api/pull",
        b"/v1/models/..%2F..%2Fapi%2Fpull",
        b"/api\\pull",
        b"/api%5Cpull",
        b"/API/Pull",
        b"/api/pull;x=1",
        b"/api;x/pull",
        b"/v1/x;/..;y/../api/pull",
        b"/api/pull%00",
        b"/api/pull%20",
        b"/api/%09pull",
        b"/api/pull%3Fx=1",
        b"/api/pull%23x",
        b"/api/pull/../chat",
        b"http://pi:11434/api/pull",
        b"/api/blobs/sha256:0123",
        b"/api/experimental/web_fetch",
        # llama.cpp's HTTP library undoes this form too: GET /%u0073lots answered 200 on b11549.
        b"/%u0073lots",
        b"/%u0053lots",
        b"/slots/0",
        b"/v1/streams/lookup",
        b"/v1/chat/completions/render",
        b"/v1/completions/derender/",
        b"/update_weights_from_disk",
        b"/load_lora_adapter_from_tensors",
        b"/invocations",
        b"/" + b"%25" * 20 + b"25" * 20,
    ],
)
def test_no_way_of_writing_it_smuggles_a_management_path(path: bytes) -> None:
    assert is_management(b"POST", path)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"",
        b"*",
        b"/api/show",
        b"/api/version",
        b"/api/tags",
        b"/api/ps",
        b"/api/chat",
        b"/version",
        b"/tokenize",
        b"/detokenize",
        b"/health",
        b"/v1/models/qwen2.5%3A0.5b",
        b"/v1/models",
        b"/v1/messages/count_tokens",
        b"/v1/audio/transcriptions",
        b"/api/pullover",
        b"/loader",
        b"/v1/renderer",
        b"/completion",
        b"/100%",
        b"/caf\xc3\xa9",
    ],
)
def test_what_clients_need_passes(path: bytes) -> None:
    assert not is_management(b"GET", path)


@pytest.mark.parametrize("path", [b"/models", b"/v1/models", b"/models/tiny", b"/v1//models/tiny"])
def test_lists_may_be_read_but_not_changed(path: bytes) -> None:
    assert not is_management(b"GET", path)
    assert is_management(b"POST", path)
    assert is_management(b"DELETE", path)


@given(path=st.sampled_from(LISTED), data=st.data())
def test_any_mixture_of_tricks_is_seen_through(path: str, data: st.DataObject) -> None:
    """Each character written plainly, in capitals, percent-encoded or twice so; empty and dot segments strewn in."""
    written = ""
    for character in path:
        way = data.draw(st.sampled_from(["plain", "capital", "percent", "twice", "wide"]))
        code = ord(character)
        written += {
            "plain": character,
            "capital": character.upper(),
            "percent": f"%{code:02x}",
            "twice": f"%25{code:02X}",
            "wide": f"%u{code:04x}",
        }[way]
        if character == "/":
            written += data.draw(st.sampled_from(["", "/", "./", "x/../", "%2e/", "%00", ";/"]))
    if written.startswith("/"):
        assert is_management(b"POST", written.encode())
    else:
        assert is_management(b"POST", b"/" + written.encode())


@given(st.binary())
def test_no_path_raises(path: bytes) -> None:
    assert is_management(b"POST", path) in (True, False)


def test_percent_signs_nested_beyond_the_bound_hide_something() -> None:
    nested = b"/%" + b"25" * DECODINGS_MAX + b"70"
    assert normalise(nested) is None
    assert is_management(b"GET", nested)


def test_normalising_keeps_what_is_plain() -> None:
    assert normalise(b"/v1/Chat//completions/") == "/v1/chat/completions"
    assert normalise(b"/") == "/"
