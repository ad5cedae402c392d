"""What a channel knows while messages to it are on their way, fail and arrive late; and plays of what it hears then."""

from support.alert_play import Play, subjects
from understudy.core.alert_hearers import Hearer, pressing_of
from understudy.core.alert_incidents import Alert, Incident, Phase, Told, Want, want_of
from understudy.core.upkeep import AlertChannel, Severity

DOWN = Alert("backend.down", Phase.BEGINS, "condition", "gpu0", Severity.WARNING)
EMPTY = Alert("pool.empty", Phase.BEGINS, "pool", "", Severity.ERROR)


def wanted(hearer: Hearer, alert: Alert = DOWN) -> Want:
    incident = Incident(alert)
    incident.begin(alert, 0.0, None)
    want = want_of(incident, hearer.told.setdefault(alert.key, Told()), 0.0, 20.0)
    assert want is not None
    return want


def hearer() -> Hearer:
    return Hearer(AlertChannel("json://localhost/"))


def test_what_is_sent_is_told_until_it_is_taken_back() -> None:
    one = hearer()
    sending = one.send([wanted(one)], 20.0)
    assert (one.told[DOWN.key].is_on, one.last_at_s, one.is_being_told(DOWN.key)) == (True, 20.0, True)
    one.take_back(sending)
    assert (one.told[DOWN.key], one.last_at_s, one.is_being_told(DOWN.key)) == (Told(), float("-inf"), False)


def test_what_arrives_late_is_told_all_the_same() -> None:
    one = hearer()
    sending = one.send([wanted(one)], 20.0)
    one.take_back(sending)
    assert one.keep(sending)
    assert one.told[DOWN.key].is_on
    assert not one.keep(sending)


def test_what_arrives_while_a_further_try_is_on_its_way_is_what_that_one_falls_back_to() -> None:
    one = hearer()
    want = wanted(one)
    first = one.send([want], 20.0)
    one.take_back(first)
    second = one.send([want], 25.0)
    assert one.keep(first)
    one.take_back(second)
    assert (one.told[DOWN.key].is_on, one.told[DOWN.key].at_s) == (True, 20.0)


def test_what_arrives_after_a_newer_message_changes_nothing() -> None:
    one = hearer()
    want = wanted(one)
    first = one.send([want], 20.0)
    one.take_back(first)
    assert one.keep(one.send([want], 25.0))
    assert not one.keep(first)
    assert one.told[DOWN.key].at_s == 25.0


def test_only_the_message_on_its_way_can_be_taken_back() -> None:
    one = hearer()
    sending = one.send([wanted(one)], 20.0)
    one.keep(sending)
    one.take_back(sending)
    assert one.told[DOWN.key].is_on


def test_what_is_forgotten_is_not_brought_back() -> None:
    one = hearer()
    sending = one.send([wanted(one)], 20.0)
    one.forget(DOWN.key)
    again = wanted(one)
    again.mark(30.0)
    one.take_back(sending)
    assert one.told[DOWN.key].at_s == 30.0


def test_what_needs_a_person_presses_until_a_message_has_said_so() -> None:
    one = hearer()
    pool = wanted(one, EMPTY)
    assert pressing_of([wanted(one), pool]) == {(EMPTY.key, "pool.empty")}
    sending = one.send([pool], 20.0)
    one.take_back(sending)
    assert one.pressed == {(EMPTY.key, "pool.empty")}
    one.keep(one.send([pool], 25.0))
    assert one.pressed == frozenset()


# --- plays


def test_a_channel_that_works_again_hears_what_is_so_then_and_nothing_outdated() -> None:
    play = Play(repeat_s=0.0)
    play.is_broken = True
    play.tell("backend.went_down", "a")
    play.wait(14)
    play.tell("backend.went_up", "a")
    play.wait(8)
    play.tell("backend.went_down", "b")
    play.wait(14)
    play.is_broken = False
    (message,) = play.wait(600)
    assert message.subject == "Understudy: b down; a up"
    assert message.body.split("\n")[:2] == [
        "b has been down since 12:00 (17 s). Why: refused the connection",
        "a was down for 14 s, since 12:00; it is up again. Why: refused the connection",
    ]
    assert [each.subject for each in play.failed[:2]] == ["Understudy: a down", "Understudy: a up"]


def test_what_was_not_worth_telling_is_not_told_once_it_is_over() -> None:
    play = Play()
    play.is_broken = True
    play.tell("backend.went_down")
    play.wait(12)
    play.tell("backend.changed_duty", duty="maintenance", backend="gpu0")
    play.is_broken = False
    assert play.failed
    assert play.desk.has_news(0, play.now_s, 0.0) is False
    assert play.wait(600) == []


def test_worse_news_goes_with_what_failed_before() -> None:
    play = Play()
    play.is_broken = True
    play.tell("backend.went_down")
    play.wait(15)
    play.tell("pool.became_empty")
    play.wait(6)
    play.is_broken = False
    (message,) = play.wait(20)
    assert message.subject == "Understudy: no backend can answer; gpu0 down"
    assert message.severity is Severity.ERROR


def test_a_further_try_does_not_wait_for_the_gap_between_messages_and_counts_for_it_once_it_arrives() -> None:
    play = Play()
    play.is_broken = True
    play.tell("backend.went_down", "gpu0")
    play.wait(10)
    play.is_broken = False
    assert subjects(play.wait(5)) == ["gpu0 down"]
    play.tell("backend.went_down", "gpu1")
    assert play.wait(29) == []
    assert subjects(play.wait(1)) == ["gpu1 down"]


def test_a_reminder_that_fails_is_still_to_come() -> None:
    play = Play(repeat_s=3600.0)
    play.tell("backend.went_down")
    play.wait(3600)
    play.is_broken = True
    play.wait(60)
    play.is_broken = False
    (message,) = play.wait(60)
    assert message.body.startswith("Still so: gpu0 has been down since 12:00 (1 h 1 min).")


def test_what_happens_at_once_and_fails_is_told_with_all_its_times() -> None:
    play = Play()
    play.is_broken = True
    for _ in range(2):
        play.tell("rollout.switched")
        play.wait(30)
    play.is_broken = False
    (message,) = play.wait(60)
    assert message.body.startswith("New conversations have gone to green since 12:00 (before: blue). (2 times)")


def test_what_is_over_is_not_forgotten_while_the_message_about_it_is_on_its_way() -> None:
    play = Play()
    play.tell("backend.went_down")
    play.wait(30)
    play.tell("backend.went_up")
    (message,) = play.desk.due(60.0, 0.0)
    assert play.desk.due(10_000.0, 0.0, busy={0}) == []
    play.desk.take_back(message)
    assert [each.subject for each in play.desk.due(10_000.0, 0.0)] == ["Understudy: gpu0 up"]


def test_what_needs_a_person_presses_until_it_has_been_tried() -> None:
    play = Play()
    play.is_broken = True
    play.tell("backend.went_down")
    play.wait(12)
    assert not play.desk.is_pressing(0, play.now_s, 0.0)
    play.tell("pool.became_empty")
    assert not play.desk.is_pressing(0, play.now_s, 0.0)
    assert play.desk.is_pressing(0, play.now_s + 5.0, 0.0)
    play.wait(10)
    assert play.failed[-1].severity is Severity.ERROR
    assert not play.desk.is_pressing(0, play.now_s + 5.0, 0.0)
