"""One incident and one channel: what is told of it follows from what is so and what was told."""

from support.alert_play import NIGHT, Play, subjects
from understudy.core.alert_incidents import CALM_S, END_SETTLE_S, SETTLE_S, Alert, Incident, Phase, Told, want_of
from understudy.core.alert_words import Saying
from understudy.core.alert_writing import Cost
from understudy.core.upkeep import Severity

DOWN = Alert("backend.down", Phase.BEGINS, "condition", "gpu0", Severity.WARNING, {"reason": "refused"})
UP = Alert("backend.up", Phase.ENDS, "condition", "gpu0", Severity.INFO)
SWITCHED = Alert("rollout.switched", Phase.HAPPENS, "switch", "", Severity.INFO)
REPEAT_S = 3600.0


def incident_at(now_s: float = 100.0) -> Incident:
    incident = Incident(DOWN)
    incident.begin(DOWN, now_s, Cost(5, 1))
    return incident


def test_a_beginning_is_told_when_it_has_settled() -> None:
    want = want_of(incident_at(), Told(), REPEAT_S, 101.0)
    assert want is not None
    assert (want.saying, want.ready_at_s, want.event) == (Saying.BEGAN, 100.0 + SETTLE_S["backend.down"], "backend.down")


def test_what_was_told_is_told_again_only_as_a_reminder() -> None:
    incident, told = incident_at(), Told()
    want = want_of(incident, told, REPEAT_S, 110.0)
    assert want is not None
    want.mark(110.0)
    assert want_of(incident, told, REPEAT_S, 3709.0) is None
    reminder = want_of(incident, told, REPEAT_S, 3710.0)
    assert reminder is not None
    assert reminder.saying is Saying.REMINDS
    assert want_of(incident, told, 0.0, 3710.0) is None


def test_an_end_carries_its_length_its_cost_and_its_own_name() -> None:
    incident, told = incident_at(), Told(is_on=True, severity=Severity.WARNING, at_s=110.0)
    incident.end(UP, 160.0, Cost(8, 13))
    want = want_of(incident, told, REPEAT_S, 160.0)
    assert want is not None
    assert (want.saying, want.event, want.ready_at_s) == (Saying.ENDED, "backend.up", 160.0 + END_SETTLE_S)
    note = want.note(165.0, 3 * 3600.0 + 10.0)
    assert (note.lasted_s, note.cost, note.since, note.event) == (60.0, Cost(3, 12), "02:59", "backend.down")


def test_since_is_the_minute_of_the_clock_and_the_same_in_every_message() -> None:
    incident, told = incident_at(), Told()
    began_s = 20 * 3600 + 10 * 60 + 36.0
    for later_s in (0.5, 23.9, 24.1, 83.9, 84.1):
        want = want_of(incident, told, REPEAT_S, 100.0 + later_s)
        assert want is not None
        assert want.note(100.0 + later_s, began_s + later_s).since == "20:10"


def test_since_goes_back_over_midnight() -> None:
    want = want_of(incident_at(), Told(), REPEAT_S, 130.0)
    assert want is not None
    assert want.note(130.0, 10.0).since == "23:59"


def test_a_blip_that_nobody_heard_of_stays_unheard() -> None:
    incident = incident_at()
    incident.end(UP, 102.0, None)
    assert want_of(incident, Told(), REPEAT_S, 200.0) is None
    assert incident.is_past([Told()], 102.0 + CALM_S + END_SETTLE_S)


def test_an_end_that_is_taken_back_at_once_was_none() -> None:
    incident, told = incident_at(), Told(is_on=True, severity=Severity.WARNING, at_s=110.0)
    incident.end(UP, 160.0, None)
    incident.begin(DOWN, 163.0, None)
    assert want_of(incident, told, REPEAT_S, 170.0) is None
    assert (incident.since_s, incident.worthy) == (100.0, 0)


def test_what_gets_worse_is_told_and_what_is_tried_again_is_not() -> None:
    def step(name: str, severity: Severity) -> Alert:
        return Alert(f"restart.{name}", Phase.BEGINS, "restart", "gpu0", severity)

    incident = Incident(step("started", Severity.INFO))
    told = Told(is_on=True, severity=Severity.WARNING, at_s=0.0)
    incident.begin(step("failed", Severity.WARNING), 0.0, None)
    incident.begin(step("started", Severity.INFO), 20.0, None)
    assert incident.alert.event == "restart.failed"
    assert want_of(incident, told, 0.0, 30.0) is None
    incident.begin(step("gave_up", Severity.ERROR), 40.0, None)
    want = want_of(incident, told, 0.0, 40.0)
    assert want is not None
    assert (want.saying, want.event, want.ready_at_s) == (Saying.BEGAN, "restart.gave_up", 40.0)


def test_what_happens_at_once_is_told_once_with_its_number() -> None:
    incident, told = Incident(SWITCHED), Told()
    for at_s in (0.0, 1.0):
        incident.begin(SWITCHED, at_s, None)
    want = want_of(incident, told, REPEAT_S, 5.0)
    assert want is not None
    assert (want.saying, want.note(5.0, 0).times) == (Saying.HAPPENED, 2)
    want.mark(5.0)
    assert want_of(incident, told, REPEAT_S, 9999.0) is None


def test_flapping_is_told_once_and_then_that_it_is_steady() -> None:
    incident, told = Incident(DOWN), Told()
    for at_s in (0.0, 60.0, 120.0):
        incident.begin(DOWN, at_s, None)
        incident.end(UP, at_s + 20.0, None)
    flaps = want_of(incident, told, REPEAT_S, 141.0)
    assert flaps is not None
    assert (flaps.saying, flaps.note(141.0, 3600.0).times) == (Saying.FLAPS, 3)
    flaps.mark(141.0)
    assert want_of(incident, told, REPEAT_S, 300.0) is None
    steady = want_of(incident, told, REPEAT_S, 140.0 + CALM_S)
    assert steady is not None
    assert (steady.saying, steady.note(141.0, 3600.0).is_on) == (Saying.STEADY, False)
    steady.mark(741.0)
    assert incident.is_past([told], 900.0)


def test_what_got_worse_is_told_since_it_did() -> None:
    failed = Alert("restart.failed", Phase.BEGINS, "restart", "gpu0", Severity.WARNING)
    incident = Incident(failed)
    incident.begin(failed, 0.0, None)
    incident.begin(Alert("restart.gave_up", Phase.BEGINS, "restart", "gpu0", Severity.ERROR), 300.0, None)
    want = want_of(incident, Told(), 0.0, 320.0)
    assert want is not None
    assert want.note(320.0, 3600.0).lasted_s == 20.0
    incident.end(Alert("restart.succeeded", Phase.ENDS, "restart", "gpu0", Severity.INFO), 400.0, None)
    want = want_of(incident, Told(is_on=True), 0.0, 410.0)
    assert want is not None
    assert want.note(410.0, 3600.0).lasted_s == 100.0


# --- plays of what flaps and then stays


def flap(play: Play, begins: str, ends: str, times: int = 3) -> None:
    for _ in range(times):
        play.tell(begins)
        play.wait(1)
        play.tell(ends)
        play.wait(6)
    play.wait(20)


def give_up(play: Play) -> None:
    play.tell("restart.started")
    play.wait(1)
    play.tell("restart.failed", next_in_s=None)
    play.tell("restart.gave_up")


def test_what_needs_a_person_is_told_at_once_though_a_flap_was_told_before() -> None:
    play = Play(repeat_s=0.0)
    flap(play, "restart.started", "restart.succeeded")
    assert "gpu0 restarting (again and again)" in subjects([message for _, message in play.messages])
    play.wait(40)
    give_up(play)
    (message,) = play.wait(6)
    assert (message.subject, message.severity) == ("Understudy: gpu0 needs a person", Severity.ERROR)
    # It was told plainly, so that it stays so is no news.
    assert play.wait(3600) == []
    play.tell("restart.succeeded")
    (message,) = play.wait(60)
    assert message.body.startswith("gpu0 is running again; it was without further restarts for 1 h")


def test_what_needs_a_person_after_a_flap_is_told_in_quiet_hours_too() -> None:
    play = Play(start_min=21 * 60 + 59, **NIGHT)
    flap(play, "restart.started", "restart.succeeded")
    assert len(play.messages) == 2
    play.wait(100)
    give_up(play)
    assert subjects(play.wait(6)) == ["gpu0 needs a person"]
    assert play.wait(3600) == []


def test_a_flap_that_gets_worse_again_and_again_is_told_once() -> None:
    play = Play(repeat_s=0.0)
    flap(play, "restart.started", "restart.succeeded")
    before = len(play.messages)
    for _ in range(6):
        play.tell("restart.started")
        play.wait(1)
        play.tell("restart.failed")
        play.wait(30)
        play.tell("restart.succeeded")
        play.wait(30)
    assert subjects([message for _, message in play.messages][before:]) == ["restart of gpu0 failed"]
    assert subjects(play.wait(700)) == ["gpu0 running again"]


def test_a_pool_that_stays_empty_after_a_flap_is_told_within_a_minute() -> None:
    play = Play(repeat_s=0.0)
    flap(play, "pool.became_empty", "pool.recovered")
    assert subjects([message for _, message in play.messages])[-1] == "no backend can answer (again and again)"
    play.wait(60)
    play.tell("pool.became_empty")
    assert play.wait(59) == []
    (message,) = play.wait(1)
    assert (message.subject, message.severity) == ("Understudy: no backend can answer", Severity.ERROR)
    assert play.wait(3600) == []
    play.tell("pool.recovered")
    assert subjects(play.wait(60)) == ["a backend can answer again"]


def test_a_pool_that_goes_on_flapping_is_not_told_again() -> None:
    play = Play(repeat_s=0.0)
    flap(play, "pool.became_empty", "pool.recovered", times=3)
    before = len(play.messages)
    flap(play, "pool.became_empty", "pool.recovered", times=60)
    assert len(play.messages) == before
    (message,) = play.wait(700)
    assert message.body.startswith("The pool is steady: in service for 10 min. Before, it was empty")


def test_what_stays_down_after_a_flap_is_steady_with_its_own_severity() -> None:
    play = Play(repeat_s=0.0)
    for _ in range(3):
        play.tell("backend.went_down")
        play.wait(15)
        play.tell("backend.went_up")
        play.wait(15)
    play.tell("backend.went_down")
    assert play.wait(599) == []
    (message,) = play.wait(1)
    assert (message.severity, message.is_over) == (Severity.WARNING, False)
    assert message.body.startswith("gpu0 is steady: down for 10 min. Before, it was down 4 times.")


def test_beginnings_that_a_channel_has_not_asked_for_do_not_count() -> None:
    play = Play(events=("pool.empty", "restart.gave_up"))
    flap(play, "restart.started", "restart.succeeded")
    assert play.messages == []
    give_up(play)
    (message,) = play.wait(6)
    assert message.subject == "Understudy: gpu0 needs a person"
    assert "times" not in message.body


def test_a_flap_counts_the_beginnings_of_what_it_tells() -> None:
    play = Play(repeat_s=0.0)
    flap(play, "restart.started", "restart.succeeded")
    play.tell("restart.started")
    play.wait(1)
    play.tell("restart.failed")
    play.wait(6)
    play.tell("restart.succeeded")
    (message,) = play.wait(700)[-1:]
    assert "again and again" not in message.subject
    assert "not back after a restart 4 times" not in message.body


def test_what_flaps_while_a_daemon_starts_is_no_flap() -> None:
    incident = Incident(DOWN)
    for at_s in (0.0, 6.0):
        incident.begin(DOWN, at_s, None, is_starting=True)
        incident.end(UP, at_s + 0.5, None)
    for at_s in (60.0, 120.0):
        incident.begin(DOWN, at_s, None)
        incident.end(UP, at_s + 20.0, None)
    assert not incident.is_restless(141.0)


def test_a_pool_that_is_empty_for_a_moment_while_a_daemon_starts_is_no_news() -> None:
    empty = Alert("pool.empty", Phase.BEGINS, "pool", "", Severity.ERROR)
    recovered = Alert("pool.recovered", Phase.ENDS, "pool", "", Severity.INFO)
    for lasted_s, is_news in ((1.0, False), (6.0, True)):
        incident = Incident(empty)
        incident.begin(empty, 0.0, None, is_starting=True)
        incident.end(recovered, lasted_s, None)
        assert (want_of(incident, Told(), 0.0, 60.0) is not None) is is_news
