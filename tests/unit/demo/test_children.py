"""The demo's children: started, waited for, ended; and one line when they are not what they should be."""

from pathlib import Path

import pytest

from understudy.demo.children import Child, DemoError, EngineChild, wait_for


def test_what_does_not_happen_in_time_is_said() -> None:
    with pytest.raises(DemoError, match="the sunrise did not happen"):
        wait_for(lambda: None, "the sunrise", timeout_s=0.05)


def test_what_happens_is_returned_even_when_it_is_false() -> None:
    assert wait_for(lambda: 0, "zero") == 0


def test_a_child_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child(("-c", "print('first'); raise SystemExit('no luck')"), tmp_path / "log")
    with pytest.raises(DemoError, match="the thing ended with exit code 1: no luck"):
        child.wait_line(lambda line: True if line == "READY" else None, "the thing")
    child.stop()


def test_a_child_that_ignores_the_polite_word_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.demo.children.STOP_TIMEOUT_S", 0.05)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('READY'); signal.pause()"
    child = Child(("-c", program), tmp_path / "log")
    assert child.wait_line(lambda line: line, "the stubborn one") == "READY"
    assert not child.wait_ended(timeout_s=0.01)
    child.stop()
    assert child.wait_ended(timeout_s=0.0)


def test_an_engine_comes_back_on_its_port(tmp_path: Path) -> None:
    engine = EngineChild("pi", tmp_path, token_delay_ms=0.0)
    engine.kill()
    try:
        engine.start()
        port = engine.port
        engine.kill()
        engine.start()
        assert (engine.port, engine.url) == (port, f"http://127.0.0.1:{port}")
    finally:
        engine.kill()
