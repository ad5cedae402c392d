"""The test of the alerts, asked for over real sockets."""

import asyncio
from collections.abc import Sequence

import jsonschema

from support.admin_rollout import asking, fetch
from support.admin_stage import StageOperator
from understudy.admin.openapi import document

SENT = [("dingtalk", True, ""), ("mailto: example.org", False, "no answer")]


class StageAlerts:
    """Channels that answer when the gate is open."""

    def __init__(self, tested: Sequence[tuple[str, bool, str]] = SENT) -> None:
        self.tested = tested
        self.gate = asyncio.Event()
        self.gate.set()
        self.was_asked = asyncio.Event()

    async def test(self) -> Sequence[tuple[str, bool, str]]:
        self.was_asked.set()
        await self.gate.wait()
        return self.tested


def alerting(alerts: StageAlerts | None) -> StageOperator:
    operator = StageOperator()
    operator.alerts = alerts
    return operator


async def test_every_channel_is_told_with_its_result() -> None:
    async with asking(alerting(StageAlerts())) as client:
        status, answer = await fetch(client, "POST", "/api/alerts/test")
    assert status == 200
    assert answer == {
        "channels": [
            {"name": "dingtalk", "ok": True, "words": ""},
            {"name": "mailto: example.org", "ok": False, "words": "no answer"},
        ]
    }
    schemas = document()["components"]
    jsonschema.validate(answer, {"$ref": "#/components/schemas/AlertTest", "components": schemas})


async def test_without_a_channel_there_is_nothing_to_test() -> None:
    for alerts in (None, StageAlerts([])):
        async with asking(alerting(alerts)) as client:
            status, answer = await fetch(client, "POST", "/api/alerts/test")
        assert (status, answer["error"]["code"]) == (409, "no_alerts")
        assert answer["error"]["message"] == "no alerts are configured: name a channel under alerts in the file"


async def test_one_test_at_a_time() -> None:
    alerts = StageAlerts()
    alerts.gate.clear()
    async with asking(alerting(alerts)) as client, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(fetch(client, "POST", "/api/alerts/test"))
        await alerts.was_asked.wait()
        status, answer = await fetch(client, "POST", "/api/alerts/test")
        assert (status, answer["error"]["code"]) == (409, "test_running")
        alerts.gate.set()
    assert first.result()[0] == 200
    async with asking(alerting(alerts)) as client:
        assert (await fetch(client, "POST", "/api/alerts/test"))[0] == 200
