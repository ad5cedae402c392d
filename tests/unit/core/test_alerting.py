"""What a careful colleague would tell, and when: plays of log events against the messages that come of them."""

# ruff: noqa: RUF001  Chinese has punctuation of its own

import pytest

from support.alert_play import LOGGED, NIGHT, Play, subjects
from understudy.core.alert_incidents import Alert, Phase
from understudy.core.alert_writing import Cost
from understudy.core.alerting import ALERT_EVENTS, INCIDENTS_MAX, AlertDesk, alert_of
from understudy.core.upkeep import AlertChannel, Language, Severity

# --- reading log events


def test_every_alert_event_comes_of_a_log_event() -> None:
    read = [alert_of(event, fields) for event, fields in LOGGED.items()]
    assert {alert.event for alert in read if alert is not None} == set(ALERT_EVENTS)


@pytest.mark.parametrize("event", ["exchange.finished", "alert.failed", "", "backend.was_ejected"])
def test_other_log_events_are_no_alerts(event: str) -> None:
    assert alert_of(event, {"backend": "gpu0"}) is None


def test_facts_are_short_lines_and_only_those_that_may_leave_the_house() -> None:
    alert = alert_of(
        "restart.failed", {"backend": "gpu0", "reason": "a\nb\x1b[31m" + "x" * 500, "output": ["secret"], "argv": "secret"}
    )
    assert alert is not None
    assert set(alert.facts) == {"backend", "reason"}
    assert alert.facts["reason"].startswith("a b [31mxxx")
    assert len(alert.facts["reason"]) == 200


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("begin", [event for event in LOGGED if event not in ("backend.went_up", "pool.recovered")])
def test_every_event_is_told_in_both_languages_with_nothing_left_to_fill_in(begin: str, language: Language) -> None:
    play = Play(language=language)
    ends = {"backend.recovered_pace": "backend.was_degraded", "restart.succeeded": "restart.started"}
    ends["restart.recovered"] = "restart.failed"
    ends |= {
        "store.recovered": "store.became_unavailable",
        "config.reloaded": "config.refused",
        "slo.was_restored": "slo.was_broken",
    }
    if begin in ends:
        play.tell(ends[begin])
        play.wait(60)
    play.tell(begin)
    said = play.wait(60)
    assert said
    for message in said:
        assert not set("{}") & set(message.subject + message.body)
        assert "SECRET" not in message.subject + message.body
        assert message.body.count("\n") <= 6
        assert set(message.events) <= set(ALERT_EVENTS)


def test_what_is_measured_has_its_unit() -> None:
    errors = alert_of("slo.was_broken", LOGGED["slo.was_broken"])
    slow = alert_of("slo.was_broken", {"objective": "p99_first_content", "value": 2.71828, "bound": 1.0})
    assert errors is not None
    assert slow is not None
    assert (errors.facts["value"], errors.facts["bound"]) == ("2.13%", "0.1%")
    assert (slow.facts["value"], slow.facts["bound"]) == ("2.718 s", "1 s")


def test_a_failed_restart_says_how_it_ended() -> None:
    play = Play()
    play.tell("restart.failed", reason="sh ended with exit status 137 (SIGKILL); memory had run out", out_of_memory=True)
    (message,) = play.wait(5)
    lines = message.body.split("\n")[1:3]
    assert lines == ["Why: sh ended with exit status 137 (SIGKILL); memory had run out", "Exit status: 1"]
    assert message.body.count("emory") == 1


def test_a_restart_that_is_told_when_it_is_over_says_why_it_was() -> None:
    play = Play()
    play.tell("restart.started", reason="llama-server ended with exit status 1; memory had run out")
    play.wait(1)
    play.tell("restart.succeeded")
    (message,) = play.wait(60)
    assert message.body.split("\n")[:2] == [
        "gpu0 was being restarted for 1 s, since 12:00; it is running again.",
        "Why: llama-server ended with exit status 1; memory had run out",
    ]


# --- one message an incident


def test_a_backend_that_goes_and_comes_is_two_messages() -> None:
    play = Play()
    play.counts = Cost(failed=1, moved=4)
    play.tell("backend.went_down")
    assert play.wait(9) == []
    assert subjects(play.wait(1)) == ["gpu0 down"]
    assert play.wait(60) == []
    play.counts = Cost(failed=1, moved=6)
    play.tell("backend.went_up")
    (message,) = play.wait(30)
    assert message.subject == "Understudy: gpu0 up"
    assert message.body == (
        "gpu0 is up again; it was down for 1 min, since 12:00.\nMeanwhile no request failed and 2 were saved by another backend."
    )
    assert message.events == ("backend.up",)
    assert play.wait(3600) == []


def test_the_same_news_again_is_no_news() -> None:
    play = Play()
    for _ in range(20):
        play.tell("backend.went_down")
        play.wait(2)
    assert subjects([message for _, message in play.messages]) == ["gpu0 down"]


def test_a_blip_of_two_seconds_is_nothing() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(2)
    play.tell("backend.went_up")
    assert play.wait(3600) == []


def test_a_pool_that_was_empty_for_a_moment_is_told_when_it_is_over() -> None:
    play = Play()
    play.tell("pool.became_empty")
    play.wait(3)
    play.tell("pool.recovered")
    (message,) = play.wait(60)
    assert message.body.startswith("The pool was empty for 3 s, since 12:00; it is in service again.")
    assert message.severity is Severity.INFO


def test_a_rack_that_goes_down_is_one_message() -> None:
    play = Play()
    for index in range(8):
        play.tell("backend.went_down", f"gpu{index}")
        play.wait(1)
    play.tell("pool.became_empty")
    (message,) = play.wait(60)
    assert message.subject == "Understudy: no backend can answer; gpu0, gpu1, gpu2, gpu3 +4 down"
    assert message.severity is Severity.ERROR
    for index in range(8):
        play.tell("backend.went_up", f"gpu{index}")
        if not index:
            play.tell("pool.recovered")
    (message,) = play.wait(60)
    assert message.subject == "Understudy: a backend can answer again; gpu0, gpu1, gpu2, gpu3 +4 up"


def test_a_wave_of_failures_is_at_most_two_messages_a_minute() -> None:
    play = Play()
    for index in range(60):
        play.tell("backend.went_down", f"gpu{index}")
        play.wait(4)
    assert len(play.messages) <= 2 * 4 + 1


def test_many_that_need_a_person_are_a_message_every_five_seconds_at_most() -> None:
    play = Play()
    for index in range(20):
        play.tell("restart.gave_up", f"gpu{index}")
        play.wait(1)
    play.wait(10)
    assert len(play.messages) == 5
    assert "gpu0 needs a person" in play.messages[0][1].subject


def test_flapping_is_gathered() -> None:
    play = Play(repeat_s=0.0)
    for _ in range(20):
        play.tell("backend.went_down")
        play.wait(15)
        play.tell("backend.went_up")
        play.wait(15)
    play.wait(900)
    told = subjects([message for _, message in play.messages])
    assert told == ["gpu0 down", "gpu0 up", "gpu0 down (again and again)", "gpu0 up"]
    assert "gpu0 does not settle: down 3 times, first at 12:00." in play.messages[2][1].body
    assert "gpu0 is steady: up for 10 min. Before, it was down 20 times." in play.messages[3][1].body


def test_a_reminder_comes_while_it_lasts() -> None:
    play = Play(repeat_s=3600.0)
    play.tell("backend.went_down")
    told = play.wait(2.5 * 3600)
    assert [message.body.split("\n")[0] for message in told] == [
        "gpu0 has been down since 12:00 (10 s).",
        "Still so: gpu0 has been down since 12:00 (1 h).",
        "Still so: gpu0 has been down since 12:00 (2 h).",
    ]


def test_maintenance_and_removal_end_what_was_told_without_a_word() -> None:
    play = Play(repeat_s=60.0)
    play.tell("backend.went_down", "gpu0")
    play.tell("backend.went_down", "gpu1")
    assert len(play.wait(30)) == 1
    play.tell("backend.changed_duty", duty="maintenance", backend="gpu0")
    play.desk.retain({"gpu0"})
    assert play.wait(3600) == []
    assert len(play.desk) == 0


def test_other_duties_are_no_news() -> None:
    assert alert_of("backend.changed_duty", {"backend": "gpu0", "duty": "draining", "was": "ready"}) is None


# --- what cannot be written


def test_what_lacks_a_fact_is_told_without_it() -> None:
    play = Play()
    play.desk.on_event(Alert("rollout.switched", Phase.HAPPENS, "switch", "", Severity.INFO), 0.0)
    (message,) = play.wait(30)
    assert message.body.startswith("New conversations have gone to ")


def test_what_cannot_be_written_is_told_once_as_a_fault_and_the_others_go_on() -> None:
    play = Play(repeat_s=60.0)
    play.desk.on_event(Alert("no.such_words", Phase.BEGINS, "condition", "gpu1", Severity.WARNING), 0.0)
    play.tell("backend.went_down")
    assert subjects(play.wait(130)) == ["gpu0 down"] * 3
    assert [(event, str(error)) for event, error in play.desk.take_faults()] == [("no.such_words", "'no.such_words'")]
    assert play.desk.take_faults() == []


# --- who is told


def test_a_channel_hears_only_of_what_it_asked_for() -> None:
    play = Play(events=("backend.down", "restart.gave_up"))
    play.tell("backend.went_down")
    play.tell("store.became_unavailable")
    assert subjects(play.wait(60)) == ["gpu0 down"]
    play.tell("backend.went_up")
    assert play.wait(60) == []
    play.tell("backend.went_down")
    assert subjects(play.wait(60)) == ["gpu0 down"]


def test_a_channel_that_asked_for_recoveries_only_hears_of_them() -> None:
    play = Play(events=("backend.up",))
    play.tell("backend.went_down")
    assert play.wait(60) == []
    play.tell("backend.went_up")
    assert subjects(play.wait(60)) == ["gpu0 up"]


def test_quiet_hours_hold_back_what_can_wait_and_tell_it_in_one_message_when_they_end() -> None:
    play = Play(start_min=23 * 60, **NIGHT)
    play.tell("backend.went_down", "gpu0")
    play.tell("backend.went_down", "gpu1")
    play.wait(3600)
    play.tell("backend.went_up", "gpu0")
    assert play.wait(6.9 * 3600) == []
    (message,) = play.wait(600)
    assert message.subject == "Understudy: gpu1 down; gpu0 up"
    assert message.body.split("\n") == [
        "gpu1 has been down since 23:00 (8 h). Why: refused the connection",
        "gpu0 was down for 1 h, since 23:00; it is up again. Why: refused the connection",
        "No request failed meanwhile.",
    ]


def test_quiet_hours_let_through_what_needs_a_person_and_that_it_is_over() -> None:
    play = Play(start_min=3 * 60, **NIGHT)
    play.tell("pool.became_empty")
    assert subjects(play.wait(30)) == ["no backend can answer"]
    play.tell("pool.recovered")
    assert subjects(play.wait(30)) == ["a backend can answer again"]


def test_a_busy_channel_hears_later_how_things_stand() -> None:
    play = Play()
    play.tell("backend.went_down", "gpu0")
    play.now_s = 50.0
    play.tell("backend.went_down", "gpu1")
    assert play.desk.due(100.0, 0, busy={0}) == []
    play.now_s = 100.0
    (message,) = play.wait(30)
    assert message.subject == "Understudy: gpu0, gpu1 down"


def test_every_channel_is_told_in_its_own_language() -> None:
    desk = AlertDesk((AlertChannel("json://a"), AlertChannel("json://b", language=Language.CHINESE)))
    alert = alert_of("backend.went_down", LOGGED["backend.went_down"])
    assert alert is not None
    desk.on_event(alert, 0.0)
    assert [(each.channel, each.subject) for each in desk.due(10.0, 0)] == [
        (0, "Understudy: gpu0 down"),
        (1, "Understudy：gpu0 不可用"),
    ]


def test_a_new_channel_hears_of_what_lasts_and_an_old_one_not_again() -> None:
    play = Play(repeat_s=0.0)
    play.tell("backend.went_down")
    play.wait(30)
    play.desk.set_channels((AlertChannel("json://other"), AlertChannel("json://localhost/SECRET", repeat_s=0.0)))
    assert [message.channel for message in play.wait(60)] == [0]


def test_a_new_channel_does_not_hear_of_what_was_over_before_it_came() -> None:
    play = Play(repeat_s=0.0)
    play.tell("backend.went_down")
    play.tell("rollout.switched")
    play.wait(30)
    play.tell("backend.went_up")
    play.wait(30)
    play.desk.set_channels((AlertChannel("json://other"),))
    assert play.wait(600) == []


def test_incidents_are_bounded() -> None:
    play = Play()
    for index in range(INCIDENTS_MAX + 50):
        play.tell("backend.went_down", f"gpu{index}")
    assert len(play.desk) == INCIDENTS_MAX
    play.tell("backend.went_up", "gpu0")
    play.tell("pool.became_empty")
    assert "no backend can answer" in play.wait(60)[0].subject


def test_what_is_over_and_told_is_forgotten() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(30)
    play.tell("backend.went_up")
    play.wait(700)
    assert not play.desk._incidents
    assert not play.desk._hearers[0].told


# --- while a daemon starts


def test_what_comes_and_goes_in_the_first_seconds_of_a_daemon_is_no_news() -> None:
    play = Play()
    play.desk.start(0.0)
    for event in ("backend.went_down", "pool.became_empty"):
        play.tell(event)
    play.wait(1)
    for event in ("backend.went_up", "pool.recovered"):
        play.tell(event)
    assert play.wait(60) == []
    play.tell("pool.became_empty")
    play.wait(1)
    play.tell("pool.recovered")
    assert subjects(play.wait(60)) == ["a backend can answer again"]


def test_what_lasts_from_the_first_second_on_is_told() -> None:
    play = Play()
    play.desk.start(0.0)
    play.tell("pool.became_empty")
    assert subjects(play.wait(60)) == ["no backend can answer"]


# --- what is over


def test_a_message_says_whether_all_of_it_is_over() -> None:
    play = Play()
    play.tell("backend.went_down", "gpu0")
    play.tell("backend.went_down", "gpu1")
    assert [message.is_over for message in play.wait(60)] == [False]
    play.tell("backend.went_up", "gpu0")
    play.tell("backend.went_down", "gpu2")
    assert [message.is_over for message in play.wait(60)] == [False]
    play.tell("backend.went_up", "gpu1")
    play.tell("backend.went_up", "gpu2")
    (message,) = play.wait(60)
    assert (message.is_over, message.severity) == (True, Severity.WARNING)
