"""What each balance wants among backends that are all usable, as properties over any counts."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from understudy.core.preference import Counted, prefer
from understudy.core.shortlist import Candidate
from understudy.core.snapshot import Address, Backend, BackendState, Balance, Target
from understudy.core.tally import BackendTally, Tally

NOW_S = 1000.0
FOLLOWING_LOAD = [Balance.LEAST_IN_FLIGHT, Balance.FASTEST]
weights = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def equals(*shares: int) -> list[Counted]:
    """Usable backends gpu0, gpu1 ... with these weights and no history."""
    backends = [Backend(f"gpu{number}", Address("http", "::1", 8000), weight=weight) for number, weight in enumerate(shares)]
    return [(Candidate(Target(backend, BackendState()), "qwen"), BackendTally()) for backend in backends]


def measured(*ttfts_s: float) -> list[Counted]:
    """Usable backends whose only answer so far, just now, took this long to begin."""
    tally = Tally()
    for number, ttft_s in enumerate(ttfts_s):
        tally.succeed(f"gpu{number}", ttft_s, NOW_S)
    return [(candidate, tally.of(candidate.name)) for candidate, _ in equals(*[1] * len(ttfts_s))]


def name(balance: Balance, ready: list[Counted], session: str = "", now_s: float = NOW_S) -> str:
    """Return the name of the one preferred."""
    return prefer(balance, ready, session, now_s)[0].name


@given(weights, st.lists(st.integers(0, 8), min_size=6, max_size=6))
def test_ordered_wants_the_first_whatever_its_weight_and_load(shares: list[int], in_flight: list[int]) -> None:
    ready = equals(*shares)
    for (_, counts), held in zip(ready, in_flight, strict=False):
        counts.in_flight = held
    assert name(Balance.ORDERED, ready) == "gpu0"


@given(weights, st.integers(1, 4))
def test_round_robin_gives_each_exactly_its_share_and_spreads_it(shares: list[int], rounds: int) -> None:
    ready = equals(*shares)
    picked = [name(Balance.ROUND_ROBIN, ready) for _ in range(sum(shares) * rounds)]
    assert Counter(picked) == {f"gpu{number}": weight * rounds for number, weight in enumerate(shares)}
    if len(set(shares)) == 1 and len(shares) > 1:
        assert all(one != other for one, other in pairwise(picked))


def test_round_robin_does_not_let_the_heavy_one_go_first_all_at_once() -> None:
    ready = equals(5, 1, 1)
    picked = [name(Balance.ROUND_ROBIN, ready) for _ in range(7)]
    assert picked == ["gpu0", "gpu0", "gpu1", "gpu0", "gpu2", "gpu0", "gpu0"]


@given(st.lists(st.sets(st.integers(0, 3), min_size=1), max_size=300), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_round_robin_forgets_nobody_when_the_candidates_change(turns: list[set[int]], shares: list[int]) -> None:
    """Whoever is a candidate gets a turn within so many of its own chances, and nobody's place drifts away."""
    ready = equals(*shares)
    missed = [0] * 4
    for members in turns:
        picked = int(name(Balance.ROUND_ROBIN, [ready[number] for number in sorted(members)]).removeprefix("gpu"))
        for number in members:
            missed[number] = 0 if number == picked else missed[number] + 1
        assert max(missed) <= 4 * sum(shares)
        assert all(abs(counts.turn) <= 4 * sum(shares) for _, counts in ready)


@given(weights, st.lists(st.integers(0, 8), min_size=6, max_size=6))
def test_least_in_flight_picks_the_least_for_its_weight(shares: list[int], in_flight: list[int]) -> None:
    ready = equals(*shares)
    for (_, counts), held in zip(ready, in_flight, strict=False):
        counts.in_flight = held
    picked = int(name(Balance.LEAST_IN_FLIGHT, ready).removeprefix("gpu"))
    assert all(in_flight[picked] * weight <= in_flight[other] * shares[picked] for other, weight in enumerate(shares))


@given(weights)
def test_least_in_flight_shares_a_quiet_pool_by_weight(shares: list[int]) -> None:
    ready = equals(*shares)
    picked = Counter(name(Balance.LEAST_IN_FLIGHT, ready) for _ in range(sum(shares)))
    assert picked == {f"gpu{number}": weight for number, weight in enumerate(shares)}


@given(st.lists(st.floats(0.01, 60.0), min_size=1, max_size=6))
def test_fastest_picks_the_lowest_average(ttfts_s: list[float]) -> None:
    assert ttfts_s[int(name(Balance.FASTEST, measured(*ttfts_s)).removeprefix("gpu"))] == min(ttfts_s)


def test_fastest_tries_every_unmeasured_backend_with_one_exchange_at_a_time() -> None:
    ready = [*measured(0.01), *equals(1, 1, 1)[1:]]
    for expected in ("gpu1", "gpu2"):
        preferred = prefer(Balance.FASTEST, ready, "", NOW_S)
        assert preferred[0].name == expected
        preferred[1].in_flight += 1
    assert name(Balance.FASTEST, ready) == "gpu0"


def test_fastest_follows_load_while_nobody_is_measured() -> None:
    ready = equals(1, 1)
    ready[0][1].in_flight, ready[1][1].in_flight = 3, 2
    assert name(Balance.FASTEST, ready) == "gpu1"


def test_fastest_forgives_one_slow_answer_in_time() -> None:
    ready = measured(3.0, 1.0)
    assert name(Balance.FASTEST, ready) == "gpu1"
    ready[1][1].ttft_measured_at_s = NOW_S + 120.0
    assert name(Balance.FASTEST, ready, now_s=NOW_S + 120.0) == "gpu0"


@given(weights, st.lists(st.integers(0, 8), min_size=6, max_size=6), st.lists(st.integers(0, 8), min_size=6, max_size=6))
def test_least_in_flight_counts_what_goes_past_us(shares: list[int], in_flight: list[int], elsewhere: list[int]) -> None:
    ready = equals(*shares)
    for (_, counts), held, others in zip(ready, in_flight, elsewhere, strict=False):
        counts.in_flight, counts.queued_elsewhere = held, others
    load = [held + others for held, others in zip(in_flight, elsewhere, strict=True)]
    picked = int(name(Balance.LEAST_IN_FLIGHT, ready).removeprefix("gpu"))
    assert all(load[picked] * weight <= load[other] * shares[picked] for other, weight in enumerate(shares))


def test_fastest_reckons_with_those_that_wait_in_the_engine() -> None:
    ready = measured(0.1, 0.25)
    ready[0][1].queued = 1
    assert name(Balance.FASTEST, ready) == "gpu0"
    ready[0][1].queued = 2
    assert name(Balance.FASTEST, ready) == "gpu1"
    ready[1][1].queued = 9
    assert name(Balance.FASTEST, ready) == "gpu0"


def test_fastest_prefers_the_less_loaded_of_equally_fast_ones() -> None:
    ready = measured(0.1, 0.1)
    ready[0][1].queued_elsewhere = 1
    assert name(Balance.FASTEST, ready) == "gpu1"


@pytest.mark.parametrize("balance", [Balance.ORDERED, Balance.SESSION, Balance.ROUND_ROBIN])
def test_the_other_balances_do_not_follow_load(balance: Balance) -> None:
    ready, loaded = equals(1, 1), equals(1, 1)
    for _, counts in loaded:
        counts.queued = counts.queued_elsewhere = 9
    loaded[1][1].queued_elsewhere = 0
    assert name(balance, ready, "conversation") == name(balance, loaded, "conversation")


@pytest.mark.parametrize("balance", FOLLOWING_LOAD)
@given(st.sets(st.integers(0, 3)))
def test_suspect_is_preferred_only_when_all_are(balance: Balance, suspects: set[int]) -> None:
    ready = measured(0.1, 0.2, 0.3, 0.4)
    for number in suspects:
        ready[number][1].suspect_until_s = NOW_S + 3.0
    picked = int(name(balance, ready).removeprefix("gpu"))
    assert picked not in suspects or len(suspects) == 4


sessions = st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True)


@given(sessions, weights, st.integers(0, 5))
def test_session_moves_only_when_its_backend_goes(keys: list[str], shares: list[int], gone: int) -> None:
    assume(gone < len(shares) > 1)
    ready = equals(*shares)
    left = ready[:gone] + ready[gone + 1 :]
    for key in keys:
        before, after = name(Balance.SESSION, ready, key), name(Balance.SESSION, left, key)
        assert before in (after, f"gpu{gone}")
        assert name(Balance.SESSION, ready[::-1], key) == before, "the order of the file does not matter"


@pytest.mark.parametrize(("shares", "heavy"), [((1, 3), 0.75), ((1, 1), 0.5), ((1, 1, 2), 0.25)])
def test_sessions_spread_by_weight(shares: tuple[int, ...], heavy: float) -> None:
    ready = equals(*shares)
    picked = Counter(name(Balance.SESSION, ready, f"conversation-{number}") for number in range(4000))
    assert picked["gpu1"] / 4000 == pytest.approx(heavy, abs=0.03)


def test_without_a_session_key_session_balance_is_ordered() -> None:
    ready = equals(1, 9)
    assert {name(Balance.SESSION, ready) for _ in range(20)} == {"gpu0"}


@pytest.mark.parametrize("key", ["caf\udce9", "\ud800", "\x00", "x" * 100_000])
def test_session_key_may_be_anything(key: str) -> None:
    ready = equals(1, 1)
    assert name(Balance.SESSION, ready, key) == name(Balance.SESSION, ready, key)
