"""DingTalk's robot is asked as it documents, and what it refuses is not taken for sent."""

import pytest
from apprise.plugins.dingtalk import NotifyDingTalk

from support.dingtalk import Robot, open_robot
from understudy.controlplane.alert_delivery import deliver
from understudy.core.upkeep import Severity

TOKEN, SECRET = "a1b2c3d4e5f60718", "SECdeadbeefcafe0123"


def sent(robot: Robot, monkeypatch: pytest.MonkeyPatch, url: str = f"dingtalk://{TOKEN}/") -> str:
    """Send one message to the robot and return why it was not taken."""
    with open_robot(robot):
        monkeypatch.setattr(NotifyDingTalk, "notify_url", robot.url)
        return deliver(url, "Understudy: gpu0 不可用", "gpu0 is down", Severity.WARNING)


def test_a_message_has_the_documented_form(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(TOKEN, keyword="Understudy")
    assert sent(robot, monkeypatch, f"dingtalk://{TOKEN}/13800000000/") == ""
    assert robot.taken == [
        {
            "msgtype": "text",
            "text": {"content": "Understudy: gpu0 不可用\ngpu0 is down"},
            "at": {"atMobiles": ["13800000000"], "isAtAll": False},
        }
    ]


def test_a_signature_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(TOKEN, secret=SECRET)
    assert sent(robot, monkeypatch, f"dingtalk://{SECRET}@{TOKEN}/") == ""
    assert len(robot.taken) == 1


@pytest.mark.parametrize(
    ("robot", "words"),
    [
        (Robot(TOKEN, secret=SECRET), "DingTalk refused the message: sign not match (errcode 310000)"),
        (Robot(TOKEN, keyword="监控"), "DingTalk refused the message: keywords not in content (errcode 310000)"),
        (Robot("other"), "DingTalk refused the message: token is not exist (errcode 300001)"),
    ],
)
def test_what_it_refuses_with_status_200_is_told(robot: Robot, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(robot, monkeypatch) == words
    assert robot.taken == []


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (502, b"", "status 502"),
        (200, b"<html>", "its answer is no JSON"),
        (200, b"[]", "without a reason (errcode None)"),
    ],
)
def test_an_answer_that_is_none_of_its_own_is_told(
    status: int, answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot(TOKEN)
    robot.status, robot.raw_answer = status, answer
    assert sent(robot, monkeypatch) == f"DingTalk refused the message: {words}"


def test_a_robot_out_of_reach_is_told_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_robot(Robot(TOKEN)) as robot:
        url = robot.url
    monkeypatch.setattr(NotifyDingTalk, "notify_url", url)
    assert deliver(f"dingtalk://{TOKEN}/", "a", "b", Severity.INFO) == "DingTalk could not be asked: ConnectionError"
