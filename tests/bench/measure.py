"""Measure what the proxy costs, beside nginx where it is installed: `make bench`.

CPU time of the proxy's process per unit of work is the figure to compare, because it holds on a busy machine; absolute times
do not, so the table gives the ratio to nginx from the same run. Contenders take turns; medians are printed. Exit code 0 when
it could be measured, whatever the figures; 1 when not.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.proxies import (
    CORES,
    BenchError,
    Proxy,
    compile_tools,
    contenders,
    held_streams,
    run_load,
    running_engine,
    running_proxy,
)
from bench.resume import measure_breaks
from bench.sessions import measure_turns

KIB, MIB = 1024, 1024 * 1024
# What the project allows itself; None where the bound is a ratio and not a figure.
AT_MOST_OF_NGINX = {"request_us": 3.0, "chunk_us": 1.5}
AT_MOST = {"first_answer_s": 1.5, "idle_mib": 60.0, "held_stream_kib": 40.0, "growth_kib": 1024.0}
BREAK_MS_AT_MOST = 50.0
TURN_US_AT_MOST = 1000.0
SAYS = {
    "first_answer_s": "start until the first answer, s",
    "idle_mib": "resident memory when idle, MiB",
    "held_stream_kib": "memory of a stream held open, KiB",
    "growth_kib": "growth over many exchanges, KiB",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked to be measured, and for how long."""

    rounds: int
    seconds: float
    streams: int
    held: int
    exchanges: int
    breaks: int
    turns: int


def say(line: str = "") -> None:
    """Print one line at once, so that a long run shows where it stands."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def measure_speed(proxy: Proxy, work: Path, wish: Wish) -> dict[str, float]:
    """Load one proxy with small requests, then with streams; returns CPU microseconds a unit and what clients saw."""
    port = str(proxy.port)
    run_load(work, "requests", port, "32", "1")
    time.sleep(0.5)
    row = {"first_answer_s": proxy.first_answer_s}
    used_s = proxy.cpu_s()
    seen = run_load(work, "requests", port, "32", str(wish.seconds))
    row["request_us"] = (proxy.cpu_s() - used_s) / seen["answered"] * 1e6
    row["requests_per_s"] = seen["answered"] / seen["seconds"]
    row["broken"] = seen["broken"]
    used_s = proxy.cpu_s()
    seen = run_load(work, "streams", port, str(wish.streams), str(wish.seconds))
    row["chunk_us"] = (proxy.cpu_s() - used_s) / seen["pieces"] * 1e6
    row["chunk_p50_us"], row["chunk_p99_us"] = seen["p50_us"], seen["p99_us"]
    row["broken"] += seen["broken"]
    return row


def measure_held(proxy: Proxy, work: Path, wish: Wish) -> dict[str, float]:
    """Read resident memory when idle and with many streams held open."""
    idle = proxy.rss_bytes()
    with held_streams(work, proxy.port, wish.held):
        time.sleep(1)
        held = proxy.rss_bytes()
    return {"idle_mib": idle / MIB, "held_stream_kib": (held - idle) / KIB / wish.held}


def measure_growth(proxy: Proxy, work: Path, wish: Wish) -> dict[str, float]:
    """Read resident memory before and after many exchanges, once the first ones have filled pools and caches."""
    run_load(work, "count", str(proxy.port), "32", str(max(wish.exchanges // 10, 1)))
    settled = proxy.rss_bytes()
    run_load(work, "count", str(proxy.port), "32", str(wish.exchanges))
    return {"growth_kib": (proxy.rss_bytes() - settled) / KIB}


def measure_all(work: Path, wish: Wish) -> dict[str, dict[str, float]]:
    """Measure every contender in turns; returns the median of each figure by contender."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders()}
    with running_engine(work) as engine_port:
        for number in range(wish.rounds):
            for name, rows in rounds.items():
                say(f"  round {number + 1} of {wish.rounds}: {name}")
                rows.append(measure_one(name, engine_port, work, wish, measure_speed))
        for name, rows in rounds.items():
            say(f"  memory: {name}")
            # Each on a process of its own: memory that one load freed would hide what the next one takes.
            rows.append(measure_one(name, engine_port, work, wish, measure_held))
            rows.append(measure_one(name, engine_port, work, wish, measure_growth))
    return {name: _medians(rows) for name, rows in rounds.items()}


def measure_one(
    name: str,
    engine_port: int,
    work: Path,
    wish: Wish,
    how: Callable[[Proxy, Path, Wish], dict[str, float]],
) -> dict[str, float]:
    """Start one contender afresh, measure it and stop it."""
    with running_proxy(name, engine_port, work) as proxy:
        return how(proxy, work, wish)


def print_tables(figures: dict[str, dict[str, float]]) -> None:
    """Print cost beside nginx, then the figures that have a bound of their own."""
    base = figures.get("nginx", {})
    titles = ("us/request", "x nginx", "us/chunk", "x nginx", "requests/s", "chunk p50 us", "p99 us", "broken")
    say()
    say(f"{'':12}" + "".join(f"{title:>13}" for title in titles))
    for name, row in figures.items():
        ratios = {key: _over(row[key], base.get(key)) for key in AT_MOST_OF_NGINX}
        cells = (
            f"{row['request_us']:.1f}",
            ratios["request_us"],
            f"{row['chunk_us']:.1f}",
            ratios["chunk_us"],
            f"{row['requests_per_s']:.0f}",
            f"{row['chunk_p50_us']:.0f}",
            f"{row['chunk_p99_us']:.0f}",
            f"{row['broken']:.0f}",
        )
        say(f"{name:12}" + "".join(f"{cell:>13}" for cell in cells))
    at_most = ("", f"{AT_MOST_OF_NGINX['request_us']:.2f}", "", f"{AT_MOST_OF_NGINX['chunk_us']:.2f}")
    say(f"{'at most':12}" + "".join(f"{cell:>13}" for cell in at_most))
    say()
    say(f"{'':36}" + "".join(f"{name:>13}" for name in (*figures, "at most")))
    for key, words in SAYS.items():
        say(f"{words:36}" + "".join(f"{row[key]:13.2f}" for row in figures.values()) + f"{AT_MOST[key]:13.2f}")
    if not base:
        say("\nno nginx here, so no ratio; on Debian: apt install nginx-light")


def print_breaks(gaps_ms: dict[str, tuple[float, float]]) -> None:
    """Print how long a client waits for the next piece when a backend dies in the middle of an answer."""
    say(f"\n{'from a break to the next piece, ms':36}{'median':>13}{'worst':>13}{'at most':>13}")
    for pair, (median_ms, worst_ms) in gaps_ms.items():
        say(f"{pair:36}{median_ms:13.2f}{worst_ms:13.2f}{BREAK_MS_AT_MOST:13.2f}")


def print_turns(turns_us: dict[str, float]) -> None:
    """Print what it costs to keep a conversation, beside an exchange that nothing keeps."""
    base_us = turns_us["none"]
    say(f"\n{'a turn with 20 messages kept':36}{'us/turn':>13}{'of that, kept':>14}{'at most':>13}")
    for name, turn_us in turns_us.items():
        kept = f"{turn_us - base_us:.0f}" if name != "none" else "-"
        say(f"{name:36}{turn_us:13.0f}{kept:>14}{TURN_US_AT_MOST:13.0f}")


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    keys = {key for row in rows for key in row}
    return {key: statistics.median(row[key] for row in rows if key in row) for key in keys}


def _over(figure: float, base: float | None) -> str:
    return f"{figure / base:.2f}" if base else "-"


def _read_wish() -> Wish:
    parser = argparse.ArgumentParser(prog="make bench", description="Cost of the proxy, beside nginx where it is installed.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the two loads in a round")
    parser.add_argument("--streams", type=int, default=200, help="streams at once, 25 pieces a second each")
    parser.add_argument("--held", type=int, default=1000, help="streams held open for the memory figure")
    parser.add_argument("--exchanges", type=int, default=100_000, help="exchanges for the growth figure")
    parser.add_argument("--breaks", type=int, default=50, help="answers broken in the middle, for each pair of engines")
    parser.add_argument("--turns", type=int, default=1000, help="turns of a kept conversation, for each kind of store")
    given = parser.parse_args()
    return Wish(given.rounds, given.seconds, given.streams, given.held, given.exchanges, given.breaks, given.turns)


def main() -> int:
    """Run the benchmark and print its tables; returns the exit code."""
    wish = _read_wish()
    say(f"the proxy on core {CORES[0]}, engine and load on core {CORES[1]}" if len(CORES) > 1 else "one core only: expect noise")
    try:
        with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
            work = Path(folder)
            compile_tools(work)
            print_tables(measure_all(work, wish))
            print_breaks(measure_breaks(work, wish.breaks))
            print_turns(measure_turns(work, wish.turns))
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
