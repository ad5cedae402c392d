"""Alerts reach a real SMTP server, a DingTalk robot as documented and a webhook, through Apprise and the admin port."""

# ruff: noqa: RUF001  Chinese has punctuation of its own

import asyncio
import email.policy
import time
from collections.abc import AsyncIterator, Callable
from email import message_from_bytes
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from apprise.plugins.dingtalk import NotifyDingTalk

from support.admin_rollout import asking, fetch
from support.admin_stage import StageOperator
from support.dingtalk import Robot, open_robot
from understudy.controlplane.alerts import Alerts
from understudy.core.alert_writing import Cost
from understudy.core.upkeep import AlertChannel, Language

# Apprise imports a module of Python's own that is on its way out; nobody is told in production. aiosmtpd's own, likewise.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning", "ignore:Requiring AUTH:UserWarning")

TOKEN, SECRET, PASSWORD = "a1b2c3d4e5f60718", "SECdeadbeefcafe0123", "SMTP-PASSWORD"


class Mailbox:
    """What the SMTP server has taken; `is_full` refuses."""

    def __init__(self) -> None:
        self.port = 0
        self.is_full = False
        self.mails: list[EmailMessage] = []

    async def take(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Take one mail."""
        if self.is_full:
            return "452 mailbox full"
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, _class=EmailMessage, policy=email.policy.default)
        self.mails.append(mail)
        return "250 taken"

    # As aiosmtpd calls it.
    handle_DATA = take  # noqa: N815  aiosmtpd's name

    def login(self, *facts: object) -> AuthResult:
        """Know one user."""
        login = facts[-1]
        assert isinstance(login, LoginPassword)
        return AuthResult(success=login.password == PASSWORD.encode(), handled=False)

    @property
    def url(self) -> str:
        """Where Apprise finds it."""
        return f"mailto://me:{PASSWORD}@127.0.0.1:{self.port}?mode=insecure&from=daemon@example.org&to=me@example.org"


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()

    def session() -> SMTP:
        return SMTP(box, authenticator=box.login, auth_required=True, auth_require_tls=False, hostname="localhost")

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box


class Stage:
    """Alerts with real delivery, a clock that a play moves, and a memory of events."""

    def __init__(self, *channels: AlertChannel) -> None:
        self.now_s = 100.0
        self.told: list[tuple[str, dict[str, object]]] = []
        self._news = asyncio.Event()
        self.alerts = Alerts(channels, clock=lambda: self.now_s, wall=time.time, tell=self.tell, counts=lambda: Cost(0, 3))

    def tell(self, event: str, fields: dict[str, object]) -> None:
        self.told.append((event, fields))
        self._news.set()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.alerts.tick()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    def delivered(self, times: int) -> Callable[[], bool]:
        return lambda: sum(event == "alert.delivered" for event, _ in self.told) == times

    def assert_no_secret(self) -> None:
        shown = str(self.told) + str(self.alerts.status())
        assert not any(secret in shown for secret in (TOKEN, SECRET, PASSWORD))


def down(name: str) -> dict[str, object]:
    return {"backend": name, "engine": "vllm", "was": "up", "was_for_s": 60.0, "reason": "refused the connection"}


def text_of(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


async def test_an_incident_is_two_mails_and_two_messages_in_the_group(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_robot(Robot(TOKEN, secret=SECRET, keyword="Understudy")) as robot:
        monkeypatch.setattr(NotifyDingTalk, "notify_url", robot.url)
        dingtalk = AlertChannel(f"dingtalk://{SECRET}@{TOKEN}/13800000000", language=Language.CHINESE)
        stage = Stage(AlertChannel(mailbox.url), dingtalk)
        for name in ("gpu0", "gpu1"):
            stage.alerts.on_event("backend.went_down", down(name))
        stage.pass_time(10.0)
        await stage.until(stage.delivered(2))
        for name in ("gpu0", "gpu1"):
            stage.alerts.on_event("backend.went_up", {"backend": name})
        stage.pass_time(40.0)
        await stage.until(stage.delivered(4))
    assert [mail["Subject"] for mail in mailbox.mails] == ["Understudy: gpu0, gpu1 down", "Understudy: gpu0, gpu1 up"]
    assert "gpu0 has been down since" in text_of(mailbox.mails[0])
    assert mailbox.mails[0]["To"] == "me@example.org"
    contents = [str(message["text"]["content"]) for message in robot.taken]
    assert contents[0].startswith("Understudy：gpu0、gpu1 不可用\n后端 gpu0 自 ")
    assert contents[1].startswith("Understudy：gpu0、gpu1 已恢复\n后端 gpu0 已恢复；自 ")
    assert robot.taken[0]["at"] == {"atMobiles": ["13800000000"], "isAtAll": False}
    stage.assert_no_secret()


async def test_a_mail_server_that_refuses_gets_it_later(mailbox: Mailbox) -> None:
    mailbox.is_full = True
    stage = Stage(AlertChannel(mailbox.url))
    stage.alerts.on_event("pool.became_empty", {"backends": 2})
    stage.pass_time(5.0)
    await stage.until(lambda: bool(stage.told))
    assert stage.told[0][0] == "alert.failed"
    (status,) = stage.alerts.status()
    assert (status["name"], status["failed"], status["pending"]) == ("mailto: 127.0.0.1", 1, 1)
    stage.assert_no_secret()
    mailbox.is_full = False
    stage.pass_time(5.0)
    await stage.until(stage.delivered(1))
    assert [mail["Subject"] for mail in mailbox.mails] == ["Understudy: no backend can answer"]


async def test_a_test_over_the_admin_port_says_what_came_of_each_channel(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_robot(Robot(TOKEN, keyword="监控")) as robot:
        monkeypatch.setattr(NotifyDingTalk, "notify_url", robot.url)
        wrong = mailbox.url.replace(PASSWORD, "wrong")
        stage = Stage(AlertChannel(mailbox.url), AlertChannel(f"dingtalk://{TOKEN}/"), AlertChannel(wrong))
        operator = StageOperator()
        operator.alerts = stage.alerts
        async with asking(operator) as client:
            status, answer = await fetch(client, "POST", "/api/alerts/test")
    assert status == 200
    assert [(each["name"], each["ok"]) for each in answer["channels"]] == [
        ("mailto: 127.0.0.1", True),
        ("dingtalk", False),
        ("mailto: 127.0.0.1 #2", False),
    ]
    assert "535" in answer["channels"][2]["words"]
    assert answer["channels"][1]["words"] == "DingTalk refused the message: keywords not in content (errcode 310000)"
    assert [mail["Subject"] for mail in mailbox.mails] == ["Understudy: test"]
    assert not any(secret in str(answer) for secret in (TOKEN, PASSWORD, "wrong"))
