import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config.quantities import (
    PART_PATTERN,
    RATIO_MAX,
    SHARE_PATTERN,
    SIZE_BYTES_MAX,
    Frequency,
    Unreadable,
    ratio_wanted,
    read_duration,
    read_frequency,
    read_positive_duration,
    read_ratio,
    read_share,
    read_size,
    read_switch,
    read_whole,
    write_duration,
    write_frequency,
    write_ratio,
    write_share,
    write_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5.0), ("1.5m", 90.0), ("24h", 86400.0), ("7", 7.0), ("0.2", 0.2), ("0s", 0.0), (3, 3.0), (0.5, 0.5)],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1h30m", "5 s", "5S", "1e3", "nan", "inf", "٣s", "9000h", None, [], True, "1.s"]
)
def test_what_is_no_duration_is_refused_with_what_is_wanted(text: object) -> None:
    with pytest.raises(Unreadable) as refused:
        read_duration(text)
    assert "duration" in refused.value.want


def test_zero_is_refused_where_it_makes_no_sense() -> None:
    with pytest.raises(Unreadable, match="more than 0"):
        read_positive_duration("0s")
    assert read_positive_duration("1ms") == 0.001


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (5.0, "5s"), (120.0, "120s"), (600.0, "10m"), (86400.0, "24h"), (0.0, "0s"), (90.5, "90.5s")],
)
def test_a_duration_is_written_as_people_write_it(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@given(st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000))
def test_a_written_duration_reads_as_itself(seconds: float) -> None:
    assert read_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512KiB", 524288),
        ("16MiB", 2**24),
        ("1GiB", 2**30),
        ("2KB", 2000),
        ("3MB", 3_000_000),
        ("1.5KiB", 1536),
        ("12", 12),
        ("7B", 7),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["0", "0MiB", "1.0001KiB", "16M", "16mib", "-1", "", "1025GiB", "999999999999999GiB", None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(Unreadable, match=r"size|bytes"):
        read_size(text)


@given(st.integers(1, SIZE_BYTES_MAX))
def test_a_written_size_reads_as_itself(size: int) -> None:
    assert read_size(write_size(size)) == size


@pytest.mark.parametrize(
    ("text", "share"),
    [("20%", 0.2), ("0.2", 0.2), ("100%", 1.0), ("0%", 0.0), ("1", 1.0), ("12.5%", 0.125), ("005%", 0.05), ("100.0%", 1.0)],
)
def test_a_share_is_read_from_percent_or_a_fraction(text: str, share: float) -> None:
    assert read_share(text) == share


@pytest.mark.parametrize("text", ["101%", "1.1", "20 %", "-1%", "%", "", "100.1%", "1.000000001", "0100%", "0001", "10"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="share"):
        read_share(text)


@given(st.from_regex(SHARE_PATTERN, fullmatch=True))
def test_what_has_a_share_s_form_is_one(text: str) -> None:
    """So that an editor, which knows the form alone, takes no other."""
    share = read_share(text)
    assert 0 <= share <= 1
    assert bool(re.fullmatch(PART_PATTERN, text)) == (share < 1)


@given(st.floats(0, 1).map(lambda share: round(share, 6)))
def test_a_written_share_reads_as_itself(share: float) -> None:
    assert read_share(write_share(share)) == share


@pytest.mark.parametrize(
    ("text", "ratio", "written"), [("1.5x", 1.5, "1.5x"), ("1.5", 1.5, "1.5x"), ("2x", 2.0, "2x"), (0.7, 0.7, "0.7x")]
)
def test_a_ratio_is_read_with_or_without_its_x(text: object, ratio: float, written: str) -> None:
    assert read_ratio(text) == ratio
    assert write_ratio(ratio) == written


@pytest.mark.parametrize("text", ["1,5x", "150%", "x", "", "-1x", "1.5 x", "1.5X", "0x", "0", "1001x", "1e1", None, True, ["1x"]])
def test_what_is_no_ratio_is_refused_with_one_that_is(text: object) -> None:
    with pytest.raises(Unreadable, match=r"a ratio such as 1\.5x"):
        read_ratio(text)


def test_a_ratio_may_have_bounds_and_tells_them() -> None:
    assert (read_ratio("1x", least=1.0), read_ratio("1x", most=1.0)) == (1.0, 1.0)
    with pytest.raises(Unreadable, match=r"^a ratio of 1x or more, such as 1\.5x$"):
        read_ratio("0.9x", least=1.0)
    with pytest.raises(Unreadable, match=r"^a ratio over 0x and at most 1x, such as 0\.7x$"):
        read_ratio("1.1x", most=1.0)
    assert ratio_wanted(0.0) == "a ratio such as 1.5x"


@given(st.floats(0.001, RATIO_MAX).map(lambda ratio: round(ratio, 6)))
def test_a_written_ratio_reads_as_itself(ratio: float) -> None:
    assert read_ratio(write_ratio(ratio)) == ratio


@pytest.mark.parametrize("text", ["010", "1_000", "1.0", "0x10", "-1", "1e3", "", "9" * 5000, "1001", True])
def test_what_is_no_plain_whole_number_in_range_is_refused(text: object) -> None:
    with pytest.raises(Unreadable, match="a whole number from 0 to 1000"):
        read_whole(text, least=0, most=1000)


def test_a_whole_number_is_read_at_both_bounds() -> None:
    assert [read_whole(text, least=0, most=1000) for text in ("0", "1000", 3)] == [0, 1000, 3]


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("Yes", True), ("ON", True), ("false", False), ("no", False), (True, True)]
)
def test_a_switch_is_read_in_any_spelling_of_yaml(text: object, value: bool) -> None:
    assert read_switch(text) is value


@pytest.mark.parametrize("text", ["1", "", "y", "enabled", None])
def test_what_is_no_switch_is_refused(text: object) -> None:
    with pytest.raises(Unreadable, match="true or false"):
        read_switch(text)


def test_a_size_may_have_another_least_value() -> None:
    assert read_size("0", least=0) == 0
    with pytest.raises(Unreadable, match="more than 0"):
        read_size("0")
    with pytest.raises(Unreadable, match="at least 1KiB"):
        read_size("1023", least=1024)
    assert read_size("1KiB", least=1024) == 1024


def test_no_bytes_are_written_without_a_unit() -> None:
    assert write_size(0) == "0"


@pytest.mark.parametrize(
    ("text", "frequency", "again"),
    [
        ("5 per 1h", Frequency(5, 3600.0), "5 per 1h"),
        ("1  per  90", Frequency(1, 90.0), "1 per 90s"),
        ("9999 per 250ms", Frequency(9999, 0.25), "9999 per 250ms"),
        (Frequency(3, 60.0), Frequency(3, 60.0), "3 per 60s"),
    ],
)
def test_a_frequency_is_read_and_written_again(text: object, frequency: Frequency, again: str) -> None:
    assert read_frequency(text) == frequency
    assert write_frequency(frequency) == again
    assert read_frequency(again) == frequency


@pytest.mark.parametrize(
    "text", ["5/h", "5", "0 per 1h", "5 per 0s", "per 1h", "5 per hour", "5per1h", "10000 per 1h", "", None, 5]
)
def test_what_is_no_frequency_is_refused(text: object) -> None:
    with pytest.raises(Unreadable, match="such as 5"):
        read_frequency(text)
