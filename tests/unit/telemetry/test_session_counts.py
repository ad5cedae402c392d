"""What became of conversations and of the cache, as counted and as written."""

import pytest

from support.records import attempt, exchange
from understudy.core.conversation import Merging
from understudy.core.record import ExchangeRecord
from understudy.sessions.store import Loss
from understudy.telemetry.session_counts import CACHE_WORDS, LOST_REASONS, CacheMoment, SessionCounts, SessionMoment


def samples(
    counts: SessionCounts, sessions: SessionMoment | None = None, cache: CacheMoment | None = None
) -> dict[tuple[str, str], float]:
    """Return the values by name and label."""
    families = counts.collect(sessions, cache)
    return {(one.name, "".join(one.labels.values())): one.value for family in families for one in family.samples}


def told(merging: str = "", cached: str = "") -> ExchangeRecord:
    record = exchange(attempt("pi"))
    record.merging, record.cached = merging, cached
    return record


def test_the_reasons_are_the_stores_own() -> None:
    assert tuple(map(str, Loss)) == LOST_REASONS


def test_every_word_stands_at_nothing_from_the_first_scrape_on() -> None:
    seen = samples(SessionCounts(), SessionMoment(), CacheMoment())
    assert {label for name, label in seen if name == "understudy_sessions_lost_total"} == set(Loss)
    assert {label for name, label in seen if name == "understudy_session_merges_total"} == set(Merging)
    assert {label for name, label in seen if name == "understudy_cache_answers_total"} == set(CACHE_WORDS)
    assert not any(value for (name, _), value in seen.items() if name.endswith("_total"))


def test_what_happened_is_counted() -> None:
    counts = SessionCounts()
    for record in (told("new"), told("appended"), told("appended"), told(), told(cached="stale")):
        counts.on_exchange(record)
    seen = samples(counts, SessionMoment(kept=4, lost={Loss.FULL: 2}), CacheMoment())
    assert [seen["understudy_session_merges_total", merging] for merging in Merging] == [1, 2, 0, 0, 0]
    assert [seen["understudy_cache_answers_total", word] for word in CACHE_WORDS] == [0, 1]
    assert seen["understudy_sessions_kept_total", ""] == 4
    assert seen["understudy_sessions_lost_total", "full"] == 2
    assert seen["understudy_sessions_lost_total", "slow"] == 0


def test_what_is_true_now_is_told() -> None:
    seen = samples(SessionCounts(), SessionMoment(5, 600, 2, 1, 0), CacheMoment(7, 800))
    assert [seen[name, ""] for name in ("understudy_sessions", "understudy_sessions_bytes")] == [5, 600]
    assert [seen[f"understudy_sessions_{name}", ""] for name in ("held", "waiting")] == [2, 1]
    assert seen["understudy_session_store_up", ""] == 0
    assert [seen[f"understudy_cache_{name}", ""] for name in ("entries", "bytes")] == [7, 800]


def test_what_does_not_exist_is_not_told() -> None:
    counts = SessionCounts()
    assert samples(counts) == {}
    assert {name for name, _ in samples(counts, cache=CacheMoment())} == {
        "understudy_cache_answers_total",
        "understudy_cache_entries",
        "understudy_cache_bytes",
    }


@pytest.mark.parametrize("record", [told("a session's id"), told(cached="a path")])
def test_no_other_word_becomes_a_label(record: ExchangeRecord) -> None:
    counts = SessionCounts()
    with pytest.raises(KeyError):
        counts.on_exchange(record)
