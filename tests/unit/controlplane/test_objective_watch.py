"""Plays of promises over time: what counts, what is told, and that a reload is followed."""

from dataclasses import replace

import pytest

from support.records import attempt, exchange
from support.targets import CHAT_PATH, PLAIN, snapshot_of, targets
from understudy.controlplane.figures_reader import Reading
from understudy.controlplane.objective_watch import ObjectiveWatch
from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import Published
from understudy.core.upkeep import NO_SLO, Slo
from understudy.engines.figures import Figures
from understudy.errors import FailureKind

PROMISED = Slo(errors=0.01, p99_first_content_s=1.0, gpu_busy=0.7, window_s=300.0)


class Play:
    """A watch, its clock and what it told."""

    def __init__(self, slo: Slo = PROMISED) -> None:
        self.published = Published(snapshot_of(*targets(1)))
        self.set_slo(slo)
        self.now_s = 1000.0
        self.readings: dict[str, Reading] = {}
        self.events: list[tuple[str, dict[str, object]]] = []
        self.watch = ObjectiveWatch(self.published, lambda: self.readings, self.tell, lambda: self.now_s)

    def set_slo(self, slo: Slo) -> None:
        snapshot = self.published.current
        self.published.current = replace(snapshot, plan=replace(snapshot.plan, slo=slo))

    def tell(self, event: str, fields: dict[str, object]) -> None:
        self.events.append((event, fields))

    def finish(self, times: int, *, failure: FailureKind | None = None, status: int = 200, ttft_s: float = 0.2) -> None:
        """Streamed exchanges end so."""
        for _ in range(times):
            record = exchange(attempt("gpu0", failure), status=status, failure=failure)
            record.ttft_s = ttft_s
            record.duration_s = 20.0
            self.watch.on_exchange(record)

    def pass_time(self, duration_s: float) -> None:
        """Time passes, with a tick every second."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            self.now_s += 1.0
            self.watch.tick()

    def samples(self, objective: str) -> int:
        self.watch.tick()
        (found,) = [one["samples"] for one in self.watch.status() if one["objective"] == objective]
        assert isinstance(found, int)
        return found


def test_a_broken_promise_is_told_once_with_its_numbers_and_then_that_it_holds_again() -> None:
    play = Play(Slo(errors=0.01, window_s=300.0))
    play.finish(90)
    play.finish(10, failure=FailureKind.STALLED, status=504)
    play.pass_time(100.0)
    broken = {
        "objective": "errors",
        "value": 0.1,
        "bound": 0.01,
        "window_s": 300.0,
        "exchanges": 100,
        "samples": 100,
        "backend": "",
    }
    assert play.events == [("slo.was_broken", broken)]
    play.pass_time(500.0)
    assert play.events[1:] == [("slo.was_restored", {"objective": "errors", "lasted_s": pytest.approx(450.0, abs=6.0)})]


@pytest.mark.parametrize(
    ("failure", "status", "is_counted"),
    [
        (None, 200, True),
        (None, 500, True),
        (None, 503, True),
        (None, 400, False),
        (None, 404, False),
        (None, 429, False),
        (FailureKind.REFUSED, 502, True),
        (FailureKind.NONE_USABLE, 503, True),
        (FailureKind.INTERNAL, 500, True),
        (FailureKind.CLIENT_GONE, 499, False),
        (FailureKind.MODEL_UNKNOWN, 404, False),
    ],
)
def test_what_a_client_did_itself_is_nobodys_success_or_failure(
    failure: FailureKind | None, status: int, is_counted: bool
) -> None:
    play = Play()
    play.finish(3, failure=failure, status=status)
    assert play.samples("errors") == (3 if is_counted else 0)
    (errors,) = [one for one in play.watch.status() if one["objective"] == "errors"]
    is_failed = is_counted and status >= 500
    assert errors["value"] == ((1.0 if is_failed else 0.0) if is_counted else None)


def test_only_generating_paths_count_and_only_streamed_answers_are_timed() -> None:
    play = Play()
    listing = exchange(attempt("gpu0"), path="/v1/models")
    listing.ask = PLAIN
    play.watch.on_exchange(listing)
    assert play.samples("errors") == 0
    whole = exchange(attempt("gpu0"))
    whole.ask = Ask(DialectName.OPENAI, CHAT_PATH, "qwen", is_generating=True)
    play.watch.on_exchange(whole)
    assert (play.samples("errors"), play.samples("p99_first_content")) == (1, 0)


def test_a_hung_backend_that_every_client_leaves_breaks_the_promise_of_speed() -> None:
    play = Play()
    play.finish(30, failure=FailureKind.CLIENT_GONE, status=499, ttft_s=0.0)
    play.watch.tick()
    assert [(event, fields["objective"], fields["value"]) for event, fields in play.events] == [
        ("slo.was_broken", "p99_first_content", pytest.approx(20.0, rel=0.02))
    ]


def test_a_client_that_does_not_read_says_nothing_of_speed() -> None:
    play = Play()
    play.finish(30, failure=FailureKind.CLIENT_SLOW, status=499, ttft_s=0.0)
    assert play.samples("p99_first_content") == 0


def test_busy_gpus_are_told_with_the_backend_and_each_reading_counts_once() -> None:
    play = Play()
    for _ in range(35):
        play.readings = {"gpu0": Reading(Figures(gpu_busy=0.9), play.now_s), "pi": Reading(Figures(running=1), play.now_s)}
        play.pass_time(5.0)
    ((event, fields),) = play.events
    assert event == "slo.was_broken"
    assert (fields["objective"], fields["backend"], fields["value"], fields["exchanges"]) == ("gpu_busy", "gpu0", 0.9, 0)
    assert play.samples("gpu_busy") == 35


def test_without_promises_nothing_is_kept_or_told() -> None:
    play = Play(NO_SLO)
    play.finish(100, failure=FailureKind.STALLED, status=504)
    play.pass_time(10.0)
    assert play.events == []
    assert play.watch.status() == []


def test_a_reload_changes_the_bounds() -> None:
    play = Play(Slo(errors=0.5, window_s=300.0))
    play.finish(80)
    play.finish(20, failure=FailureKind.STALLED, status=504)
    play.watch.tick()
    assert play.events == []
    play.set_slo(Slo(errors=0.01, window_s=300.0))
    play.watch.tick()
    assert [event for event, _ in play.events] == ["slo.was_broken"]


def test_a_promise_that_the_file_no_longer_makes_ends_its_break() -> None:
    play = Play(Slo(errors=0.01, window_s=300.0))
    play.finish(50, failure=FailureKind.STALLED, status=504)
    play.watch.tick()
    play.set_slo(NO_SLO)
    play.now_s += 10.0
    play.watch.tick()
    assert play.events[1:] == [("slo.was_restored", {"objective": "errors", "lasted_s": 10.0})]
    assert play.watch.status() == []
    play.watch.tick()
    assert len(play.events) == 2


def test_the_status_says_how_each_promise_stands() -> None:
    play = Play()
    play.finish(50, failure=FailureKind.STALLED, status=504)
    play.watch.tick()
    play.now_s += 3.0
    errors, speed, gpus = play.watch.status()
    assert errors == {
        "objective": "errors",
        "value": 1.0,
        "bound": 0.01,
        "window_s": 300.0,
        "broken": True,
        "broken_for_s": 3.0,
        "samples": 50,
        "backend": "",
    }
    assert (speed["objective"], speed["broken"], speed["broken_for_s"]) == ("p99_first_content", False, 0.0)
    assert (gpus["objective"], gpus["value"]) == ("gpu_busy", None)
