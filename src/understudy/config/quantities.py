"""Read and write the quantities of the file: durations, sizes, shares, ratios, frequencies, whole numbers and switches.

Called by config.schema for every value and by config.changes and cli.check to write values as an operator would. Pure.
Every reader takes what YAML gave (text, since config.document keeps scalars as they were written) or the value that a
program gave, and raises `Unreadable` with what is wanted. No message here contains the value itself: it may be a secret.
"""

import re
from decimal import Decimal
from typing import Final, NamedTuple

DURATION_WANTED: Final = "a duration such as 250ms, 5s, 10m, 24h or a number of seconds"
SIZE_WANTED: Final = "a size such as 512KiB, 16MiB or a number of bytes"
SHARE_WANTED: Final = "a share from 0% to 100%, such as 20% or 0.2"
SWITCH_WANTED: Final = "true or false"
FREQUENCY_WANTED: Final = "how often in how long, such as 5 per 1h"

# A year, a tebibyte and a billion: beyond them lies a slip of the finger, and timers and buffers must hold the value.
DURATION_S_MAX: Final = 8760 * 3600.0
SIZE_BYTES_MAX: Final = 1024**4
WHOLE_MAX: Final = 1_000_000_000
RATIO_MAX: Final = 1000.0

DURATION_PATTERN: Final = r"[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h)?"
SIZE_PATTERN: Final = r"[0-9]{1,15}(\.[0-9]{1,6})?(B|KiB|MiB|GiB|KB|MB|GB)?"
# Less than all, and what is all.
PART_PATTERN: Final = r"0?[0-9]{1,2}(\.[0-9]{1,9})?%|0{1,3}(\.[0-9]{1,9})?"
SHARE_PATTERN: Final = rf"{PART_PATTERN}|100(\.0{{1,9}})?%|0{{0,2}}1(\.0{{1,9}})?"
RATIO_PATTERN: Final = r"[0-9]{1,4}(\.[0-9]{1,9})?x?"
FREQUENCY_PATTERN: Final = rf"[1-9][0-9]{{0,3}} +per +{DURATION_PATTERN}"

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_QUANTITY: Final = re.compile(r"([0-9.]+)([A-Za-z%]*)")
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SWITCHES: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Unreadable(ValueError):  # noqa: N818  it is a verdict on a value, turned into a Mistake, never an operator's last word
    """A value that cannot be taken. `want` says what to write; `found` describes the value where showing it is unwise."""

    def __init__(self, want: str, found: str = "") -> None:
        super().__init__(want)
        self.want = want
        self.found = found


class Frequency(NamedTuple):
    """So many times within so long."""

    times: int
    window_s: float


def scalar_text(value: object, want: str) -> str:
    """Return the text of one scalar; `Unreadable` for lists, mappings and nothing. Numbers are accepted for callers in Python."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    raise Unreadable(want)


def read_duration(value: object) -> float:
    """Read seconds, 0 up to a year: `250ms`, `5s`, `1.5m`, `24h`, or a plain number of seconds."""
    text = scalar_text(value, DURATION_WANTED)
    if not re.fullmatch(DURATION_PATTERN, text):
        raise Unreadable(DURATION_WANTED)
    number, unit = _split(text)
    # Milliseconds are divided, not multiplied: 250 * 0.001 is not exactly 0.25 for every number.
    seconds = float(number) / 1000 if unit == "ms" else float(number) * _DURATION_UNITS[unit or "s"]
    if seconds > DURATION_S_MAX:
        raise Unreadable("a duration of at most 8760h")
    return seconds


def read_positive_duration(value: object) -> float:
    """Read a duration where 0 makes no sense."""
    seconds = read_duration(value)
    if seconds == 0:
        raise Unreadable(f"more than 0: {DURATION_WANTED}")
    return seconds


def write_duration(seconds: float) -> str:
    """Write seconds exactly, in the unit people think in: `250ms`, `5s`, `120s`, `10m`, `24h`."""
    for unit, length_s, least_s in (("h", 3600.0, 3600.0), ("m", 60.0, 300.0), ("s", 1.0, 0.0)):
        if seconds % length_s == 0 and seconds >= least_s:
            return f"{int(seconds // length_s)}{unit}"
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 == seconds and milliseconds < 1000:
        return f"{milliseconds}ms"
    return f"{_plain(seconds)}s"


def read_size(value: object, *, least: int = 1) -> int:
    """Read bytes, from `least` up to a tebibyte. KiB, MiB and GiB count in 1024s; KB, MB and GB in 1000s."""
    text = scalar_text(value, SIZE_WANTED)
    if not re.fullmatch(SIZE_PATTERN, text):
        raise Unreadable(SIZE_WANTED)
    number, unit = _split(text)
    whole, _, fraction = number.partition(".")
    # In whole numbers, so that no digit of a large size is lost.
    size, rest = divmod(int(whole + fraction) * _SIZE_UNITS[unit or "B"], int("1" + "0" * len(fraction)))
    if rest:
        raise Unreadable(f"a whole number of bytes: {SIZE_WANTED}")
    if not least <= size <= SIZE_BYTES_MAX:
        lowest = "more than 0" if least == 1 else f"at least {write_size(least)}"
        raise Unreadable(f"{lowest} and at most 1024GiB: {SIZE_WANTED}")
    return size


def write_size(size: int) -> str:
    """Write bytes in the shortest exact form: 524288 is `512KiB`; what is no multiple of 1024 stays bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


def read_share(value: object) -> float:
    """Read a share from 0 to 1: `20%` or `0.2`."""
    text = scalar_text(value, SHARE_WANTED)
    if not re.fullmatch(SHARE_PATTERN, text):
        raise Unreadable(SHARE_WANTED)
    number, unit = _split(text)
    return float(number) / 100 if unit == "%" else float(number)


def write_share(share: float) -> str:
    """Write a share in percent, exact: 0.2 is `20%`; where percent would round, the plain number."""
    percent = f"{share * 100:.9g}"
    return f"{percent}%" if "e" not in percent and float(percent) / 100 == share else _plain(share)


def read_ratio(value: object, *, least: float = 0.0, most: float = RATIO_MAX) -> float:
    """Read a ratio over 0, from `least` to `most`: `1.5x` or `1.5`."""
    want = ratio_wanted(least, most)
    text = scalar_text(value, want)
    if not re.fullmatch(RATIO_PATTERN, text):
        raise Unreadable(want)
    ratio = float(_split(text)[0])
    if ratio == 0 or not least <= ratio <= most:
        raise Unreadable(want)
    return ratio


def ratio_wanted(least: float, most: float = RATIO_MAX) -> str:
    """Say what a ratio may be."""
    if most == RATIO_MAX:
        return f"a ratio of {write_ratio(least)} or more, such as 1.5x" if least else "a ratio such as 1.5x"
    return f"a ratio over 0x and at most {write_ratio(most)}, such as 0.7x"


def write_ratio(ratio: float) -> str:
    """Write a ratio exactly: 1.5 is `1.5x`, 2.0 is `2x`."""
    return f"{_plain(ratio).removesuffix('.0')}x"


def read_frequency(value: object) -> Frequency:
    """Read `N per DURATION`, neither of them 0, N at most 9999."""
    if isinstance(value, Frequency):
        return value
    text = scalar_text(value, FREQUENCY_WANTED)
    if not re.fullmatch(FREQUENCY_PATTERN, text):
        raise Unreadable(FREQUENCY_WANTED)
    times, _, window = text.split()
    try:
        return Frequency(int(times), read_positive_duration(window))
    except Unreadable:
        raise Unreadable(FREQUENCY_WANTED) from None


def write_frequency(frequency: Frequency) -> str:
    """Write it as it stands in the file: `5 per 1h`."""
    return f"{frequency.times} per {write_duration(frequency.window_s)}"


def read_whole(value: object, *, least: int, most: int = WHOLE_MAX) -> int:
    """Read a whole number between `least` and `most`, written in plain digits. `010` is refused: YAML 1.1 would read 8."""
    want = whole_wanted(least, most)
    text = scalar_text(value, want)
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise Unreadable(want)
    return int(text)


def whole_wanted(least: int, most: int = WHOLE_MAX) -> str:
    """Say what a whole number may be."""
    return f"a whole number of {least} or more" if most == WHOLE_MAX else f"a whole number from {least} to {most}"


def read_switch(value: object) -> bool:
    """Read true or false in any of YAML's spellings: true, yes, on, false, no, off."""
    if isinstance(value, bool):
        return value
    text = scalar_text(value, SWITCH_WANTED).lower()
    if text not in _SWITCHES:
        raise Unreadable(SWITCH_WANTED)
    return _SWITCHES[text]


def _split(text: str) -> tuple[str, str]:
    matched = _QUANTITY.fullmatch(text)
    assert matched is not None, "the caller's pattern is narrower"  # noqa: S101  an invariant of this module
    return matched[1], matched[2]


def _plain(number: float) -> str:
    """Write a number without an exponent, which no reader here takes."""
    return f"{Decimal(repr(number)):f}"
