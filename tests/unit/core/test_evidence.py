"""What is believed of a backend by its probes, its own figures and its streams: one play a kind of evidence."""

from understudy.core.evidence import MOVED_BEFORE_S, Evidence


def lost(evidence: Evidence, *, failed_min: int = 1) -> bool:
    """Whether the backend counts as lost since 100 s."""
    return evidence.is_lost_since(100.0, failed_min=failed_min)


def test_nothing_known_is_no_evidence() -> None:
    assert not lost(Evidence())


def test_a_probe_that_began_before_the_doubt_says_nothing() -> None:
    evidence = Evidence()
    evidence.on_probe(99.9, 99.9, is_good=False)
    assert not lost(evidence)
    evidence.on_probe(100.0, 100.0, is_good=False)
    assert lost(evidence)


def test_a_good_probe_takes_the_doubt_back() -> None:
    evidence = Evidence()
    evidence.on_probe(101.0, 101.0, is_good=False, is_refusing=True)
    evidence.on_probe(102.0, 102.0, is_good=True)
    assert (evidence.answered_at_s, evidence.failed, evidence.is_refusing) == (102.0, 0, False)
    assert not lost(evidence)


def test_failures_are_counted_in_a_row() -> None:
    evidence = Evidence()
    evidence.on_probe(98.0, 98.0, is_good=False)
    evidence.on_probe(99.0, 99.0, is_good=True)
    evidence.on_probe(101.0, 101.0, is_good=False)
    assert not lost(evidence, failed_min=2)
    evidence.on_probe(102.0, 102.0, is_good=False)
    assert lost(evidence, failed_min=2)


def test_a_closed_listener_needs_no_second_probe() -> None:
    evidence = Evidence()
    evidence.on_probe(101.0, 101.0, is_good=False, is_refusing=True)
    assert lost(evidence, failed_min=2)


def test_a_stream_that_moves_shows_that_the_backend_works_whatever_its_probes_say() -> None:
    evidence = Evidence()
    evidence.on_probe(105.0, 105.0, is_good=False, is_refusing=True)
    evidence.on_moved(105.0 - MOVED_BEFORE_S)
    assert not lost(evidence)
    evidence.on_probe(107.0, 107.0, is_good=False, is_refusing=True)
    assert lost(evidence)


def test_a_probe_that_waited_covers_all_the_time_in_which_nothing_moved() -> None:
    """A frozen process: the last piece came half a second before a probe that was never answered."""
    evidence = Evidence()
    evidence.on_moved(104.5)
    evidence.on_probe(105.0, 105.0, is_good=False)
    assert not lost(evidence)
    evidence.on_probe(105.0, 108.0, is_good=False)
    assert lost(evidence)
    evidence.on_moved(106.0)
    assert not lost(evidence)


def test_movement_is_the_newest_of_all_streams() -> None:
    evidence = Evidence()
    evidence.on_moved(105.0)
    evidence.on_moved(90.0)
    assert evidence.moved_at_s == 105.0


def test_figures_that_change_are_work() -> None:
    evidence = Evidence()
    evidence.on_figures((1,), 101.0)
    evidence.on_figures((1,), 103.0)
    assert evidence.moved_at_s == 0.0
    evidence.on_figures((2,), 105.0)
    assert evidence.moved_at_s == 105.0


def test_no_figures_are_neither_work_nor_standstill() -> None:
    evidence = Evidence()
    evidence.on_figures((1,), 101.0)
    evidence.on_figures(None, 103.0)
    evidence.on_figures((1,), 105.0)
    assert evidence.moved_at_s == 0.0
