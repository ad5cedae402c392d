"""What is in force of blue and green, in one line that people read."""

from typing import Any

import pytest

from understudy.cli.rollout_line import canary_words, other_color, rollout_lines

NOW_UNIX_S = 1_800_000_000.0
ROLLOUT: dict[str, Any] = {
    "active": "blue",
    "word": "file",
    "since": 0.0,
    "previous": "none",
    "file_active": "blue",
    "stick": "session",
    "canary": None,
    "guard": None,
    "shadow": None,
    "reason": "",
    "kept": True,
}
CANARY: dict[str, Any] = {"share": 0.05, "step": 1, "steps": [0.05, 0.25, 1.0], "next_step_in_s": 480.0, "waits_for": "time"}
GUARD: dict[str, Any] = {"watching": "green", "verdict": "holds", "reason": "errors 0.0% of 60 at green", "figures": {}}
SHADOW: dict[str, Any] = {
    "share": 0.1,
    "in_flight": 2,
    "sent": 120,
    "answered": 118,
    "failed": 1,
    "dropped": 1,
    "likeness_mean": None,
    "ttft_mean_s": None,
}


BOTH = ("blue", "green")


def line(colors: tuple[str, ...] = BOTH, **changes: Any) -> str:
    (told,) = rollout_lines(ROLLOUT | changes, NOW_UNIX_S, colors)
    return told


def test_everything_at_once_reads_well() -> None:
    assert line(word="command", since=NOW_UNIX_S - 720, canary=CANARY, guard=GUARD, file_active="green") == (
        "blue is active (by command, 12m 0s ago; the file says green); canary: 5% to green, next step 25% in 8m 0s; guard: holds"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "blue is active (as the file says)"),
        ({"since": NOW_UNIX_S - 20}, "blue is active (by the file, 20s ago)"),
        ({"active": "green", "word": "command"}, "green is active (by command; the file says blue)"),
        (
            {"active": "green", "word": "canary", "since": NOW_UNIX_S - 20, "reason": "the canary came to its last step"},
            "green is active (by the canary, 20s ago; the file says blue); last change: the canary came to its last step",
        ),
        (
            {"word": "guard", "since": NOW_UNIX_S - 6, "reason": "errors 9.0% of 60 at green"},
            "blue is active (by the guard, 6.0s ago); last change: errors 9.0% of 60 at green",
        ),
        (
            {"word": "guard", "since": NOW_UNIX_S + 5, "file_active": "green", "reason": "errors 9.0% of 60 at green"},
            "blue is active (by the guard, 0.0s ago; the file says green); last change: errors 9.0% of 60 at green",
        ),
        ({"kept": False}, "blue is active (as the file says); not kept across a restart"),
    ],
)
def test_it_says_whose_word_it_was(changes: dict[str, Any], words: str) -> None:
    assert line(**changes) == words


@pytest.mark.parametrize(
    ("active", "colors", "words"),
    [
        ("green", ("blue",), "; no backend is green; blue answers"),
        ("blue", ("green", "green"), "; no backend is blue; green answers"),
        ("green", ("blue", "green"), ""),
        ("green", ("blue", "none"), ""),
        ("green", ("none",), ""),
        ("green", (), "; no backend is green"),
    ],
)
def test_an_active_color_that_nobody_has_is_said(active: str, colors: tuple[str, ...], words: str) -> None:
    """Its last backend may have gone with a reload."""
    told = line(colors, active=active, file_active=active, kept=False)
    assert told == f"{active} is active (as the file says){words}; not kept across a restart"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "5% to green, next step 25% in 8m 0s"),
        ({"step": 2, "share": 0.25}, "25% to green, next step 100% in 8m 0s"),
        (
            {"next_step_in_s": 0.0, "waits_for": "the guard: it has not looked yet"},
            "5% to green, next step 25% waits (the guard: it has not looked yet)",
        ),
        ({"next_step_in_s": 0.0, "waits_for": ""}, "5% to green, next step 25% now"),
        ({"step": 3, "share": 0.999, "next_step_in_s": None, "waits_for": ""}, "99.9% to green, the last step"),
        ({"steps": [0.05], "next_step_in_s": None}, "5% to green"),
    ],
)
def test_canary_says_its_share_and_what_is_next(changes: dict[str, Any], words: str) -> None:
    assert canary_words(CANARY | changes, "blue") == words
    assert line(canary=CANARY | changes).endswith(f"; canary: {words}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds"),
        ({"verdict": "too_few", "reason": "3 of 50 exchanges at green"}, "too few (3 of 50 exchanges at green)"),
        ({"verdict": "too_few", "reason": "it has not looked yet", "figures": None}, "has not looked yet"),
        ({"verdict": "broken", "reason": ""}, "broken"),
    ],
)
def test_guard_says_its_verdict(changes: dict[str, Any], words: str) -> None:
    assert line(guard=GUARD | changes).endswith(f"; guard: {words}")


def test_shadow_says_what_was_answered_and_how_alike() -> None:
    assert line(shadow=SHADOW).endswith("; shadow: 10% to green, 118 of 120 answered")
    assert line(shadow=SHADOW | {"likeness_mean": 0.934}).endswith("118 of 120 answered, likeness 0.93")


def test_nobody_speaks_to_the_terminal() -> None:
    shown = line(
        reason="\x1b[2J\n",
        active="\x9b",
        guard=GUARD | {"verdict": "\n", "reason": "\r"},
        canary=CANARY | {"waits_for": "\n", "next_step_in_s": 0},
    )
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (0, ["blue is active (by command); canary: 5% to green; guard: holds; last change: it was time"]),
        (90, ["blue is active (by command); canary: 5% to green; guard: holds; last change: it was time"]),
        (72, ["blue is active (by command); canary: 5% to green; guard: holds;", "  last change: it was time"]),
        (44, ["blue is active (by command);", "  canary: 5% to green; guard: holds;", "  last change: it was time"]),
        (
            1,
            ["blue is active (by command);", "  canary: 5% to green;", "  guard: holds;", "  last change: it was time"],
        ),
    ],
)
def test_what_is_wider_than_the_terminal_goes_on_below(width: int, lines: list[str]) -> None:
    everything = {"word": "command", "canary": CANARY | {"steps": [0.05]}, "guard": GUARD, "reason": "it was time"}
    assert rollout_lines(ROLLOUT | everything, NOW_UNIX_S, BOTH, width) == lines


def test_missing_facts_are_left_out() -> None:
    assert rollout_lines({}, NOW_UNIX_S, ())[0].startswith(" is active (by ")
    assert canary_words({}, "?") == "0% to the other color"
    assert "canary: 0% to green" in line(canary={"steps": "x", "step": "y"})


def test_colors_are_each_others_other() -> None:
    assert (other_color("blue"), other_color("green")) == ("green", "blue")
