"""Who may ask the admin port, from which page, and how often."""

import pytest

from understudy.admin.guard import Guard, Pace

OPEN = Guard("", "127.0.0.1")
LOCKED = Guard("s3cret-ü", "10.0.0.1")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9901", "localhost", "LOCALHOST:9901", "admin.localhost:1", "[::1]:9901", "127.1.2.3"],
)
def test_without_a_token_this_machine_may_ask(host: str) -> None:
    assert OPEN.refuse("GET", "/api/status", {"Host": host}) is None


@pytest.mark.parametrize("host", ["evil.example:9901", "localhost.evil.example", "10.0.0.1", "", "[", "127.0.0.1.nip.io", "::1"])
def test_a_name_that_was_bound_to_this_machine_is_refused(host: str) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1, but the browser still says that name."""
    refusal = OPEN.refuse("GET", "/api/status", {"Host": host})
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "host_refused")


def test_the_configured_name_may_be_used() -> None:
    assert Guard("", "ip6-localhost").refuse("GET", "/", {"Host": "ip6-localhost:9901"}) is None


def test_health_checks_without_a_host_are_answered() -> None:
    assert OPEN.refuse("GET", "/readyz", {}) is None


def test_on_a_unix_socket_any_host_goes() -> None:
    assert Guard("", "").refuse("GET", "/", {"Host": "whatever"}) is None


@pytest.mark.parametrize("given", ["Bearer s3cret-ü", "bearer  s3cret-ü ", "BEARER s3cret-ü"])
def test_the_token_opens_from_anywhere(given: str) -> None:
    assert LOCKED.refuse("GET", "/metrics", {"Host": "gate.example", "Authorization": given}) is None


@pytest.mark.parametrize("given", ["", "s3cret-ü", "Bearer", "Bearer s3cret", "Basic s3cret-ü", "Bearer \udcff"])
def test_without_the_right_token_nothing_opens(given: str) -> None:
    refusal = LOCKED.refuse("GET", "/metrics", {"Authorization": given})
    assert refusal is not None
    assert refusal.status == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_liveness_and_readiness_need_no_token(path: str) -> None:
    assert LOCKED.refuse("GET", path, {}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_orders_from_other_sites_pages_are_refused(headers: dict[str, str]) -> None:
    refusal = OPEN.refuse("POST", "/api/reload", {"Host": "127.0.0.1:9901"} | headers)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "cross_site")


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://127.0.0.1:9901"}, {"Sec-Fetch-Site": "same-origin"}])
def test_orders_from_programs_and_the_own_page_are_taken(headers: dict[str, str]) -> None:
    assert OPEN.refuse("POST", "/api/reload", {"Host": "127.0.0.1:9901"} | headers) is None


def test_a_cross_site_order_is_refused_with_the_token_too() -> None:
    headers = {"Authorization": "Bearer s3cret-ü", "Origin": "https://evil.example", "Host": "10.0.0.1"}
    refusal = LOCKED.refuse("POST", "/api/reload", headers)
    assert refusal is not None
    assert refusal.code == "cross_site"


def test_a_burst_is_answered_at_once_and_the_rest_waits_its_turn() -> None:
    pace = Pace(per_s=10, burst=5, wait_s_max=1.0)
    waits = [pace.wait_s(100.0) for _ in range(20)]
    assert waits[:5] == [0.0] * 5
    assert waits[5] == pytest.approx(0.1)
    assert waits[14] == pytest.approx(1.0)
    assert waits[15:] == [None] * 5


def test_after_a_pause_the_pace_is_free_again() -> None:
    pace = Pace(per_s=10, burst=5, wait_s_max=1.0)
    for _ in range(20):
        pace.wait_s(100.0)
    assert pace.wait_s(102.0) == 0.0
