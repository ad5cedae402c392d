import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config.addresses import ListenAddress, read_full_url, read_listen, read_url, write_origin, write_url
from understudy.config.quantities import Unreadable
from understudy.core.snapshot import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
        ("[::]:8080", ListenAddress("::", 8080)),
        ("[0:0::1]:1", ListenAddress("::1", 1)),
        ("localhost:0", ListenAddress("localhost", 0)),
        ("unix:/run/a.sock", ListenAddress(path="/run/a.sock")),
    ],
)
def test_an_address_to_listen_at_is_read_and_writes_itself_again(text: str, address: ListenAddress) -> None:
    assert read_listen(text) == address
    assert read_listen(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "*:8080", "::1:8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "1.2.3:80", "[::1%eth0]:80", "[x]:80",
     "a b:80", "-a:80", "unix:run.sock", "unix:/", "unix:/" + "a" * 108, "unix:", "http://127.0.0.1:80", "", None],
)  # fmt: skip
def test_what_is_no_address_to_listen_at_is_refused(text: object) -> None:
    with pytest.raises(Unreadable) as refused:
        read_listen(text)
    assert "unix:" in refused.value.want


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LocalHost:1", "unix:/a"])
def test_loopback_is_what_only_this_machine_can_reach(text: str) -> None:
    assert read_listen(text).is_loopback


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "192.168.1.1:1", "pi:1", "localhost.example.org:1"])
def test_everything_else_is_beyond_loopback(text: str) -> None:
    assert not read_listen(text).is_loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://gpu1:8000", Address("http", "gpu1", 8000)),
        ("HTTPS://Example.org/openai/", Address("https", "example.org", 443, "/openai")),
        ("http://[FE80::1]", Address("http", "fe80::1", 80)),
        ("http://10.0.0.1:1/a/b~c", Address("http", "10.0.0.1", 1, "/a/b~c")),
        ("http://gpu1/", Address("http", "gpu1", 80)),
        ("http://my_gpu.lan.:1", Address("http", "my_gpu.lan.", 1)),
    ],
)
def test_a_url_is_read_and_writes_itself_again(text: str, address: Address) -> None:
    assert read_url(text) == address
    assert read_url(write_url(address)) == address


@pytest.mark.parametrize(
    "text",
    ["gpu1:8000", "gpu1", "//gpu1", "ftp://gpu1", "http://", "http://:80", "http://a:0", "http://a:", "http://a:99999", "http://a:x",
     "http://a b", "http://a\t", "http://a\\b", "http://ä", "http://a?b", "http://a#", "http://a/../b", "http://a/%2e%2E/b",
     "http://a//b", "http://a/%zz", "http://[::1", "http://[1.2.3.4]",
     "http://1.2.3", "http://999.1.1.1", "http://a..b", "", None],
)  # fmt: skip
def test_what_is_no_url_of_a_backend_is_refused(text: object) -> None:
    with pytest.raises(Unreadable) as refused:
        read_url(text)
    assert "URL" in refused.value.want


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(Unreadable) as refused:
        read_url("http://me:hunter2@gpu1:8000")
    assert refused.value.found == "a URL with a user name or password"
    assert "api_key" in refused.value.want
    assert "hunter2" not in f"{refused.value.want}{refused.value.found}"


@given(st.text())
def test_any_text_is_an_address_or_unreadable(text: str) -> None:
    for read in (read_listen, read_url, read_full_url):
        for candidate in (text, f"http://{text}", f"http://a/{text}", f"[{text}]:1", f"unix:/{text}"):
            try:
                read(candidate)
            except Unreadable:
                continue


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://gpu1:9400/metrics", "http://gpu1:9400"),
        ("https://me:hunter2@hooks.example.org/hunter2?token=hunter2", "https://hooks.example.org"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("http://a//b/../c;d?e=f&g[]=h", "http://a"),
    ],
)
def test_a_full_url_is_kept_as_written_and_shown_as_its_origin(text: str, origin: str) -> None:
    assert read_full_url(text) == text
    assert write_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    ["gpu1:9400", "ftp://a", "http://", "http://a b", "http://a\\b", "http://a#b", "http://a:0", "http://a:", "http://a:99999",
     "http://-a", "http://[::1", "http://a/" + "b" * 4096, "http://ä", "", None, 1],
)  # fmt: skip
def test_what_is_no_full_url_is_refused(text: object) -> None:
    with pytest.raises(Unreadable) as refused:
        read_full_url(text)
    assert refused.value.want.startswith("a URL such as http://gpu1:9400/path")
    assert refused.value.found == ""
