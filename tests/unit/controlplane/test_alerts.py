"""Messages reach their channels sooner or later, and a channel that fails harms nobody."""

import asyncio
import threading

import pytest

from support.alert_play import BAD, DOWN, GOOD, Stage
from understudy.controlplane import alerts as alerts_module
from understudy.controlplane.alert_delivery import MISSING
from understudy.controlplane.alerts import BACKOFF_S_MAX, DELIVERY_S_MAX, GIVE_UP_S, AlertError, Alerts
from understudy.core.alert_incidents import Alert, Phase
from understudy.core.upkeep import AlertChannel, Language, Severity


async def test_a_message_is_delivered_and_told() -> None:
    stage = Stage(GOOD)
    await stage.go_down()
    await stage.until(lambda: stage.names() == ["alert.delivered"])
    assert stage.sent[0][:2] == (GOOD.url, "Understudy: gpu0 down")
    assert stage.told == [("alert.delivered", {"channel": "json: good.example", "events": ["backend.down"], "tries": 1})]
    assert stage.alerts.status() == [
        {"name": "json: good.example", "sent": 1, "failed": 0, "pending": 0, "last_error": "", "next_try_in_s": None}
    ]


async def test_what_is_over_is_sent_as_good_news() -> None:
    stage = Stage(GOOD)
    await stage.go_down()
    await stage.until(lambda: len(stage.told) == 1)
    stage.alerts.on_event("backend.went_up", DOWN)
    await stage.pass_time(60.0)
    await stage.until(lambda: len(stage.told) == 2)
    assert stage.severities == [Severity.WARNING, None]


async def test_a_pool_that_is_empty_for_a_moment_is_no_news_only_while_the_daemon_starts() -> None:
    stage = Stage(GOOD)
    stage.alerts.tick()
    stage.alerts.on_event("daemon.started", {})
    for pause_s in (60.0, 20.0):
        stage.alerts.on_event("pool.became_empty", {"backends": 1})
        stage.now_s += 0.2
        stage.alerts.on_event("pool.recovered", {"backends": 1})
        assert stage.sent == []
        await stage.pass_time(pause_s)
    await stage.until(lambda: len(stage.told) == 1)
    assert [subject for _, subject, _ in stage.sent] == ["Understudy: a backend can answer again"]


async def test_a_failing_channel_is_visible_tried_again_and_harms_no_other() -> None:
    stage = Stage(BAD, GOOD)
    await stage.go_down()
    await stage.until(lambda: len(stage.told) == 2)
    assert [url for url, _, _ in stage.sent] == [GOOD.url]
    bad, good = stage.alerts.status()
    assert (bad["name"], bad["sent"], bad["failed"], bad["pending"]) == ("json: bad.example", 0, 1, 1)
    assert (bad["last_error"], bad["next_try_in_s"]) == ("it is broken", 5.0)
    assert good["sent"] == 1
    stage.refusals.clear()
    await stage.pass_time(4.0)
    assert stage.alerts.status()[0]["next_try_in_s"] == 1.0
    await stage.pass_time(1.0)
    await stage.until(lambda: stage.alerts.status()[0]["sent"] == 1)
    assert stage.told[-1] == ("alert.delivered", {"channel": "json: bad.example", "events": ["backend.down"], "tries": 2})


async def test_tries_come_further_and_further_apart_until_it_is_given_up() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    pauses: list[float] = []
    while True:
        async with asyncio.timeout(20):
            await stage.alerts._delivered.wait()
        stage.alerts._delivered.clear()
        pause = stage.alerts.status()[0]["next_try_in_s"]
        if pause is None:
            break
        pauses.append(pause)
        await stage.pass_time(pause)
    assert pauses[:8] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, BACKOFF_S_MAX, BACKOFF_S_MAX]
    assert GIVE_UP_S <= stage.now_s - 1010.0 < GIVE_UP_S + BACKOFF_S_MAX
    assert [(name, fields["tries"] == 1, fields["dropped"]) for name, fields in stage.told] == [
        ("alert.failed", True, False),
        ("alert.failed", False, True),
    ]


async def test_a_channel_that_was_out_of_reach_hears_how_things_stand_then() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    await stage.until(lambda: bool(stage.told))
    stage.alerts.on_event("backend.went_up", DOWN)
    stage.refusals.clear()
    await stage.pass_time(60.0)
    await stage.until(lambda: stage.names()[-1] == "alert.delivered")
    await stage.pass_time(600.0)
    ((_, subject, body),) = stage.sent
    assert subject == "Understudy: gpu0 up"
    was = "gpu0 was down for 10 s, since 23:58; it is up again."
    assert body == f"{was}\nWhy: refused the connection\nNo request failed meanwhile."


async def test_what_was_not_worth_a_message_after_all_is_not_sent_late() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    await stage.until(lambda: bool(stage.told))
    stage.alerts.on_event("backend.changed_duty", {"backend": "gpu0", "duty": "maintenance"})
    stage.refusals.clear()
    await stage.pass_time(60.0)
    assert stage.alerts.status()[0]["pending"] == 0
    await stage.pass_time(60.0)
    assert (stage.sent, stage.names()) == ([], ["alert.failed"])


async def test_what_needs_a_person_does_not_wait_until_a_failing_channel_is_tried_the_next_time() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    for tries in range(1, 7):
        await stage.failed(tries)
        await stage.pass_time(stage.pause())
    await stage.failed(7)
    assert stage.pause() == BACKOFF_S_MAX
    stage.alerts.on_event("pool.became_empty", {"backends": 2})
    await stage.pass_time(5.0)
    await stage.failed(8)
    # It has been tried with that, and waits again.
    assert stage.pause() == BACKOFF_S_MAX
    await stage.pass_time(20.0)
    assert stage.pause() == BACKOFF_S_MAX - 20.0
    stage.refusals.clear()
    stage.alerts.on_event("restart.gave_up", {**DOWN, "backend": "gpu1"})
    await stage.pass_time(1.0)
    await stage.until(lambda: stage.names()[-1] == "alert.delivered")
    assert stage.sent[0][1] == "Understudy: no backend can answer; gpu1 needs a person; gpu0 down"
    assert stage.names() == ["alert.failed", "alert.delivered"]


async def test_a_try_that_succeeds_while_a_further_one_is_on_its_way_is_not_told_a_third_time() -> None:
    stage = Stage(GOOD)
    first = stage.gates[GOOD.url] = threading.Event()
    await stage.go_down()
    await stage.pass_time(DELIVERY_S_MAX)
    second = stage.gates[GOOD.url] = threading.Event()
    await stage.pass_time(5.0)
    first.set()
    await stage.until(lambda: stage.names() == ["alert.failed", "alert.delivered"])
    assert stage.alerts.status()[0]["pending"] == 1
    stage.refusals[GOOD.url] = "it is broken"
    second.set()
    await stage.failed(2)
    await stage.pass_time(600.0)
    assert stage.alerts.status()[0]["pending"] == 0
    assert [subject for _, subject, _ in stage.sent] == ["Understudy: gpu0 down"]


async def test_a_try_that_ends_after_a_further_one_has_arrived_changes_nothing() -> None:
    stage = Stage(GOOD)
    first = stage.gates[GOOD.url] = threading.Event()
    await stage.go_down()
    await stage.pass_time(DELIVERY_S_MAX)
    del stage.gates[GOOD.url]
    await stage.pass_time(5.0)
    await stage.until(lambda: stage.names() == ["alert.failed", "alert.delivered"])
    stage.alerts._delivered.clear()
    first.set()
    await stage.alerts._delivered.wait()
    assert stage.names() == ["alert.failed", "alert.delivered"]
    assert (stage.alerts.status()[0]["sent"], stage.alerts.status()[0]["failed"]) == (1, 1)


async def test_what_was_given_up_counts_as_told() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    await stage.failed(1)
    await stage.pass_time(GIVE_UP_S)
    await stage.until(lambda: stage.told[-1][1]["dropped"] is True)
    stage.refusals.clear()
    await stage.pass_time(60.0)
    assert (stage.alerts.status()[0]["pending"], stage.sent) == (0, [])
    stage.alerts.on_event("backend.went_up", DOWN)
    await stage.pass_time(60.0)
    await stage.until(lambda: stage.names()[-1] == "alert.delivered")
    assert stage.sent[0][1] == "Understudy: gpu0 up"


async def test_a_delivery_that_hangs_is_told_and_not_sent_twice_when_it_succeeds_late() -> None:
    stage = Stage(GOOD)
    gate = stage.gates[GOOD.url] = threading.Event()
    await stage.go_down()
    await stage.pass_time(DELIVERY_S_MAX)
    assert stage.told[-1][1]["reason"] == "it was not delivered within 60 s"
    gate.set()
    await stage.until(lambda: stage.names() == ["alert.failed", "alert.delivered"])
    await stage.pass_time(600.0)
    assert len(stage.sent) == 1
    assert stage.alerts.status()[0]["pending"] == 0


async def test_a_channel_that_hangs_for_ever_takes_no_more_than_two_threads() -> None:
    stage = Stage(GOOD)
    gate = stage.gates[GOOD.url] = threading.Event()
    before = threading.active_count()
    await stage.go_down()
    for _ in range(20):
        await stage.pass_time(DELIVERY_S_MAX * 5)
    assert threading.active_count() - before <= 2
    gate.set()
    await stage.until(lambda: "alert.delivered" in stage.names())


async def test_what_a_channel_raises_is_a_failure_without_its_secret() -> None:
    stage = Stage(BAD)
    stage.refusals[BAD.url] = ValueError(f"at {BAD.url}")
    await stage.go_down()
    await stage.until(lambda: bool(stage.told))
    assert stage.told[0][1]["reason"] == "ValueError: at json://bad.example/***"


async def test_a_wrong_url_is_told_at_once() -> None:
    stage = Stage(GOOD, BAD, wrong_url=BAD.url)
    stage.alerts.tick()
    await stage.until(lambda: bool(stage.told))
    assert stage.told == [
        ("alert.failed", {"channel": "json: bad.example", "reason": "no such service", "tries": 0, "dropped": False})
    ]
    assert stage.alerts.status()[1]["last_error"] == "no such service"


async def test_a_test_asks_every_channel_and_says_what_came_of_it() -> None:
    stage = Stage(GOOD, BAD, AlertChannel("json://good.example/other", language=Language.CHINESE))
    assert await stage.alerts.test() == [
        ("json: good.example", True, ""),
        ("json: bad.example", False, "it is broken"),
        ("json: good.example #2", True, ""),
    ]
    assert sorted(url for url, _, _ in stage.sent) == [GOOD.url, "json://good.example/other"]
    assert await Stage().alerts.test() == []


async def test_other_channels_after_a_reload_keep_what_is_on_its_way() -> None:
    stage = Stage(BAD)
    await stage.go_down()
    await stage.until(lambda: bool(stage.told))
    stage.alerts.set_channels((GOOD, BAD))
    await stage.pass_time(1.0)
    await stage.until(lambda: stage.names()[-1] == "alert.delivered")
    good, bad = stage.alerts.status()
    assert (good["sent"], bad["pending"], bad["failed"]) == (1, 1, 1)


async def test_what_ended_while_there_was_no_channel_is_not_told_when_there_is_one_again() -> None:
    stage = Stage(GOOD)
    await stage.go_down()
    await stage.until(lambda: stage.names() == ["alert.delivered"])
    stage.alerts.set_channels(())
    stage.alerts.on_event("backend.went_up", DOWN)
    stage.alerts.on_event("backend.went_down", {**DOWN, "backend": "gpu1"})
    await stage.pass_time(60.0)
    stage.alerts.set_channels((GOOD,))
    await stage.pass_time(60.0)
    await stage.until(lambda: stage.names().count("alert.delivered") == 2)
    assert stage.sent[1][1] == "Understudy: gpu1 down"


async def test_what_cannot_be_written_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(GOOD)
    stage.alerts.tick()
    torn = Alert("no.such_words", Phase.BEGINS, "condition", "gpu1", Severity.WARNING)
    stage.alerts._desk.on_event(torn, stage.now_s)
    await stage.go_down()
    await stage.until(lambda: stage.names() == ["alert.delivered"])
    assert stage.sent[0][1] == "Understudy: gpu0 down"
    await stage.pass_time(5.0 * 3600)
    assert caplog.text.count("an alert of no.such_words could not be written") == 1


async def test_backends_that_are_gone_are_not_told_of() -> None:
    stage = Stage(GOOD)
    stage.alerts.tick()
    stage.alerts.on_event("backend.went_down", DOWN)
    stage.alerts.retain({"gpu1"})
    await stage.pass_time(60.0)
    assert stage.alerts.status()[0]["pending"] == 0


async def test_closing_tries_once_more_and_does_not_wait_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(BAD)
    await stage.go_down()
    await stage.until(lambda: bool(stage.told))
    stage.refusals.clear()
    await stage.alerts.close()
    assert len(stage.sent) == 1
    monkeypatch.setattr(alerts_module, "CLOSE_S_MAX", 0.01)
    hanging = Stage(GOOD)
    gate = hanging.gates[GOOD.url] = threading.Event()
    await hanging.go_down()
    await hanging.alerts.close()
    assert hanging.sent == []
    gate.set()
    await hanging.until(lambda: bool(hanging.told))


async def test_it_runs_until_cancelled_and_survives_a_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(GOOD)
    monkeypatch.setattr(alerts_module, "TICK_S", 0.0)
    stage.alerts.on_event("backend.went_down", {"backend": _Unspeakable()})
    assert "an alert could not be read out of backend.went_down" in caplog.text
    stage.alerts.on_event("backend.went_down", DOWN)
    monkeypatch.setattr(stage.alerts, "_wall", stage.no_time)
    running = asyncio.ensure_future(stage.alerts.run())
    async with asyncio.timeout(20):
        await stage.was_asked.wait()
    assert "alerts could not be looked at" in caplog.text
    monkeypatch.setattr(stage.alerts, "_wall", lambda: 0.0)
    stage.now_s += 10.0
    await stage.until(lambda: stage.names() == ["alert.delivered"])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_without_channels_nothing_is_needed_and_with_one_apprise_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "missing_extra", lambda: MISSING)

    def made(*channels: AlertChannel) -> Alerts:
        return Alerts(channels, clock=lambda: 0.0, wall=lambda: 0.0, tell=lambda _event, _fields: None)

    made().on_event("backend.went_down", DOWN)
    with pytest.raises(AlertError, match=r"pip install 'understudy\[alerts\]'"):
        made(GOOD)


class _Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no text")
