"""While a backend is being restarted, or needs a person, that it answers probes is no news: plays."""

from support.alert_play import Play, subjects
from understudy.core.upkeep import Severity


def test_a_restart_that_helps_is_told_with_the_recovery() -> None:
    play = Play()
    play.tell("backend.went_down")
    assert subjects(play.wait(15)) == ["gpu0 down"]
    play.tell("restart.started")
    play.wait(20)
    play.tell("restart.succeeded")
    play.tell("backend.went_up")
    (message,) = play.wait(30)
    assert message.subject == "Understudy: gpu0 up; gpu0 restarted"
    assert set(message.events) == {"backend.up", "restart.succeeded"}


def test_a_crash_loop_is_told_when_it_fails_and_when_a_person_is_needed() -> None:
    play = Play(repeat_s=0.0)
    play.tell("backend.went_down")
    play.wait(15)
    for _ in range(5):
        play.tell("restart.started")
        play.wait(5)
        play.tell("restart.failed")
        play.wait(60)
    play.tell("restart.gave_up")
    (message,) = play.wait(5)
    assert message.subject == "Understudy: gpu0 needs a person"
    assert message.severity is Severity.ERROR
    assert subjects([message for _, message in play.messages]) == ["gpu0 down", "restart of gpu0 failed", "gpu0 needs a person"]
    play.tell("backend.went_up")
    assert play.wait(600) == []
    play.tell("restart.recovered")
    (message,) = play.wait(60)
    assert message.subject == "Understudy: gpu0 running again; gpu0 up"
    assert "gpu0 is up again; it was down for 15 min, since 12:00." in message.body
    assert len(play.desk) == 0


def test_a_backend_that_answers_probes_while_it_is_restarted_is_not_up_until_it_has_proven_itself() -> None:
    play = Play(repeat_s=0.0)
    play.tell("backend.went_down")
    play.wait(15)
    play.tell("restart.started")
    play.tell("backend.went_up")
    assert subjects(play.wait(60)) == ["gpu0 restarting"]
    play.tell("backend.went_down")
    play.tell("backend.went_up")
    play.wait(60)
    play.tell("restart.succeeded")
    (message,) = play.wait(30)
    assert message.subject == "Understudy: gpu0 up; gpu0 restarted"
    assert "gpu0 is up again; it was down for 2 min, since 12:00." in message.body


def test_a_backend_that_is_put_right_within_seconds_is_one_message() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(4)
    play.tell("restart.started")
    play.wait(6)
    play.tell("backend.went_up")
    assert play.wait(2) == []
    play.tell("restart.succeeded")
    (message,) = play.wait(600)
    assert message.subject == "Understudy: gpu0 up; gpu0 restarted"
    assert message.body.split("\n")[:2] == [
        "gpu0 was down for 12 s, since 12:00; it is up again. Why: refused the connection",
        "gpu0 was being restarted for 8 s, since 12:00; it is running again. Why: 6 probes failed",
    ]


def test_a_restart_that_takes_long_or_fails_is_told_with_what_it_is_for() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(4)
    play.tell("restart.started")
    assert play.wait(44) == []
    assert subjects(play.wait(1)) == ["gpu0 down; gpu0 restarting"]
    play = Play()
    play.tell("backend.went_down")
    play.wait(4)
    play.tell("restart.started")
    play.wait(20)
    play.tell("restart.failed", next_in_s=30.0)
    (message,) = play.wait(1)
    assert message.subject == "Understudy: restart of gpu0 failed"
    assert message.events == ("backend.down", "restart.failed")


def test_a_restart_that_is_called_off_holds_nothing_back() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(15)
    play.tell("restart.started")
    play.tell("backend.went_up")
    play.wait(5)
    play.tell("restart.failed", next_in_s=None)
    assert subjects(play.wait(60)) == ["gpu0 up"]
    assert len(play.desk) == 0


def test_a_last_failure_and_giving_up_are_not_calling_off() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(15)
    play.tell("restart.started")
    play.tell("backend.went_up")
    play.wait(5)
    play.tell("restart.failed", next_in_s=None)
    play.tell("restart.gave_up")
    assert subjects(play.wait(600)) == ["gpu0 needs a person"]


def test_what_maintenance_lifts_is_not_held_back_later() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.tell("restart.started")
    play.tell("backend.went_up")
    play.tell("backend.changed_duty", duty="maintenance", backend="gpu0")
    play.tell("restart.failed", next_in_s=None)
    assert play.wait(60) == []
    assert len(play.desk) == 0
    play.tell("backend.went_down")
    assert subjects(play.wait(30)) == ["gpu0 down"]
    play.tell("backend.went_up")
    assert subjects(play.wait(60)) == ["gpu0 up"]


def test_a_restart_of_one_backend_holds_back_nothing_of_another() -> None:
    play = Play()
    for name in ("gpu0", "gpu1"):
        play.tell("backend.went_down", name)
    play.wait(30)
    play.tell("restart.gave_up", "gpu0")
    play.wait(60)
    play.tell("backend.went_up", "gpu0")
    play.tell("backend.went_up", "gpu1")
    assert subjects(play.wait(600)) == ["gpu1 up"]


def test_one_that_is_given_up_for_being_slow_is_up_again_as_soon_as_it_answers() -> None:
    play = Play()
    play.tell("restart.gave_up", taken_out=False)
    play.wait(60)
    play.tell("backend.went_down")
    play.wait(60)
    play.tell("backend.went_up")
    assert subjects(play.wait(60)) == ["gpu0 up"]
    # The operator's word takes it out, though the graver news stays what is told.
    play.tell("backend.went_down")
    play.tell("restart.started")
    play.wait(60)
    play.tell("backend.went_up")
    assert "gpu0 up" not in subjects(play.wait(60))
    play.tell("restart.succeeded")
    assert subjects(play.wait(60)) == ["gpu0 running again; gpu0 up"]
    assert len(play.desk) == 0


def test_one_that_is_out_when_it_is_given_up_anew_is_held_back_again() -> None:
    play = Play()
    play.tell("restart.gave_up", taken_out=False)
    play.tell("backend.went_down")
    play.wait(60)
    play.tell("restart.gave_up", taken_out=True)
    play.tell("backend.went_up")
    assert "gpu0 up" not in subjects(play.wait(60))
    # It gives a token, and is slow still.
    play.tell("restart.recovered")
    play.tell("restart.gave_up", taken_out=False)
    assert subjects(play.wait(60)) == ["gpu0 up"]
    play.tell("restart.recovered")
    assert subjects(play.wait(60)) == ["gpu0 running again"]


def test_a_restart_that_helps_before_the_probes_say_so_ends_being_down_once() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(15)
    play.tell("restart.started")
    play.wait(50)
    play.tell("restart.succeeded")
    play.tell("backend.went_up")
    assert subjects(play.wait(600)) == ["gpu0 up; gpu0 restarted"]
