"""Recent answers: plays of what is kept, for how long, and what falls out first."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.core.answer_cache import ANSWER_PART, RECORDED_PART, AnswerCache, CachedAnswer, digest_of
from understudy.core.snapshot import CacheRules

KIB = 1024
RULES = CacheRules(size_bytes=64 * KIB, ttl_s=60.0)
NOW_S = 1000.0


def answer(body: bytes = b"x", at_s: float = NOW_S) -> CachedAnswer:
    """Make an answer that was complete then."""
    return CachedAnswer(b"Content-Type: a/b\r\n", body, is_event_stream=False, backend="gpu0", made_at_s=at_s)


def filled(count: int, size: int = 6 * KIB, rules: CacheRules = RULES) -> AnswerCache:
    """Make a cache with answers to b"0", b"1" and so on, of about that size, one a second."""
    cache = AnswerCache(rules)
    for i in range(count):
        cache.put(b"%d" % i, answer(b"x" * size, NOW_S + i), NOW_S + i)
    return cache


def kept(cache: AnswerCache, count: int, now_s: float) -> list[int]:
    """Return whose answers are there."""
    return [i for i in range(count) if b"%d" % i in cache._by_age and cache.get(b"%d" % i, now_s)]


def test_an_answer_is_given_again_until_it_is_too_old() -> None:
    cache = AnswerCache(RULES)
    cache.put(b"a", answer(), NOW_S)
    assert cache.get(b"a", NOW_S + 59.9) == answer()
    assert cache.get(b"b", NOW_S) is None
    assert cache.get(b"a", NOW_S + 60.0) is None
    assert (len(cache), cache.kept_bytes) == (0, 0)


def test_being_used_makes_no_answer_younger() -> None:
    cache = AnswerCache(RULES)
    cache.put(b"a", answer(), NOW_S)
    for i in range(60):
        assert cache.get(b"a", NOW_S + i)
    assert cache.get(b"a", NOW_S + 60) is None


def test_old_answers_go_even_when_nobody_asks_for_them() -> None:
    cache = filled(3)
    cache.get(b"0", NOW_S + 10)
    cache.put(b"new", answer(at_s=NOW_S + 61), NOW_S + 61)
    assert (len(cache), kept(cache, 3, NOW_S + 61)) == (2, [2])


def test_a_new_answer_takes_the_old_ones_place() -> None:
    cache = AnswerCache(RULES)
    cache.put(b"a", answer(b"old" * 1000), NOW_S)
    cache.put(b"a", answer(b"new", NOW_S + 50), NOW_S + 50)
    found = cache.get(b"a", NOW_S + 100)
    assert (found and found.body, len(cache), cache.kept_bytes) == (b"new", 1, answer(b"new").cost_bytes)


def test_the_least_recently_used_falls_out() -> None:
    cache = filled(9)
    assert kept(cache, 9, NOW_S + 9) == list(range(9))
    cache.get(b"0", NOW_S + 9)
    cache.put(b"9", answer(b"x" * 7 * KIB, NOW_S + 9), NOW_S + 9)
    assert kept(cache, 10, NOW_S + 9) == [0, *range(2, 10)]
    assert cache.kept_bytes <= RULES.size_bytes


def test_what_is_small_costs_its_place_too() -> None:
    cache = filled(1000, size=1, rules=CacheRules(64 * KIB, ttl_s=1e9))
    assert len(cache) == 64 * KIB // answer().cost_bytes


def test_an_answer_larger_than_its_part_is_not_kept_and_pushes_nothing_out() -> None:
    cache = filled(3)
    part = RULES.size_bytes // ANSWER_PART
    cost = answer(b"").cost_bytes
    cache.put(b"0", answer(b"x" * (part - cost + 1)), NOW_S + 3)
    found = cache.get(b"0", NOW_S + 3)
    assert (found and len(found.body), len(cache)) == (6 * KIB, 3)
    cache.put(b"0", answer(b"x" * (part - cost), NOW_S + 3), NOW_S + 3)
    found = cache.get(b"0", NOW_S + 3)
    assert found is not None
    assert found.cost_bytes == part == cache.answer_bytes_max


def test_a_smaller_size_drops_what_it_has_no_room_for() -> None:
    cache = filled(10, size=3 * KIB)
    cache.put(b"large", answer(b"x" * 7 * KIB, NOW_S + 9), NOW_S + 9)
    cache.apply(CacheRules(size_bytes=32 * KIB, ttl_s=60.0), NOW_S + 9)
    assert kept(cache, 10, NOW_S + 9) == list(range(1, 10))
    assert cache.get(b"large", NOW_S + 9) is None
    assert cache.kept_bytes <= 32 * KIB


def test_a_shorter_life_counts_at_once() -> None:
    cache = filled(9)
    cache.apply(CacheRules(RULES.size_bytes, ttl_s=3.0), NOW_S + 9)
    assert (len(cache), kept(cache, 9, NOW_S + 9)) == (2, [7, 8])


def test_size_0_keeps_nothing() -> None:
    cache = filled(3)
    assert cache.is_on
    cache.apply(CacheRules(), NOW_S + 3)
    cache.put(b"a", answer(b"", NOW_S + 3), NOW_S + 3)
    assert (cache.is_on, len(cache), cache.kept_bytes, cache.reserve(1)) == (False, 0, 0, False)


def test_everything_can_be_forgotten() -> None:
    cache = filled(3)
    cache.clear()
    assert (len(cache), cache.kept_bytes, cache.get(b"0", NOW_S)) == (0, 0, None)


def test_answers_that_come_in_have_a_bound_together() -> None:
    cache = AnswerCache(RULES)
    part = RULES.size_bytes // RECORDED_PART
    assert cache.reserve(part - 1)
    assert not cache.reserve(2)
    assert cache.reserve(1)
    cache.release(2)
    assert cache.reserve(2)


def test_a_digest_tells_apart_where_its_parts_end() -> None:
    digests = [digest_of(), digest_of(b""), digest_of(b"ab", b"c"), digest_of(b"a", b"bc"), digest_of(b"abc"), digest_of(b"2:ab")]
    assert len(set(digests)) == 6
    assert digest_of(b"ab", b"c") == digest_of(b"ab", b"c")


@given(st.lists(st.tuples(st.sampled_from("gp"), st.integers(0, 9), st.integers(0, 9 * KIB), st.floats(0, 30))))
def test_bounds_and_counts_hold_whatever_happens(steps: list[tuple[str, int, int, float]]) -> None:
    cache, now_s = AnswerCache(RULES), NOW_S
    for verb, number, size, pause_s in steps:
        now_s += pause_s
        key = b"%d" % number
        if verb == "p":
            cache.put(key, answer(b"x" * size, now_s), now_s)
        else:
            found = cache.get(key, now_s)
            assert found is None or now_s - found.made_at_s < RULES.ttl_s
        kept_bytes = sum(each.cost_bytes for each in cache._by_age.values())
        assert cache.kept_bytes == kept_bytes <= RULES.size_bytes
        assert cache._by_age.keys() == cache._by_use.keys()
        assert all(now_s - each.made_at_s < RULES.ttl_s for each in cache._by_age.values())
