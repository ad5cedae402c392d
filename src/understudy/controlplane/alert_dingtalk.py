"""Send to a DingTalk robot so that what the robot refuses is told.

Used by controlplane.alert_delivery in place of Apprise's own plugin, whose URLs, limits and signature it keeps. That one (2.3)
takes every answer of status 200 for a success, while DingTalk says in the answer's `errcode` that the message was refused (a
keyword is missing, the signature is wrong, too many), and it percent-encodes the signature twice, which DingTalk refuses.
Source: open.dingtalk.com, custom-robot-access.
"""

import json
from typing import Any
from urllib.parse import unquote

import requests
from apprise.plugins.dingtalk import NotifyDingTalk

_ERRMSG_CHARACTERS_MAX = 200


class CheckedDingTalk(NotifyDingTalk):
    """Apprise's plugin with an honest `send`."""

    def send(self, body: str, title: str = "", *_args: Any, **_kwargs: Any) -> bool:
        """Post one text message; False where DingTalk did not take it, with the reason as a warning of Apprise's logger."""
        params: dict[str, str] = {}
        if self.secret:
            timestamp, signature = self.get_signature()  # type: ignore[no-untyped-call]  # Apprise types its own in part
            params = {"timestamp": timestamp, "sign": unquote(signature)}
        payload = {
            "msgtype": "text",
            "text": {"content": f"{title}\n{body}" if title else body},
            "at": {"atMobiles": self.targets, "isAtAll": False},
        }
        try:
            answer = requests.post(
                self.notify_url.format(token=self.token),
                params=params,
                data=json.dumps(payload, ensure_ascii=False).encode(),
                headers={"Content-Type": "application/json; charset=utf-8"},
                verify=self.verify_certificate,
                timeout=self.request_timeout,
                allow_redirects=self.redirects,
            )
        except requests.RequestException as error:
            # Its text holds the whole URL.
            self.logger.warning("DingTalk could not be asked: %s", type(error).__name__)
            return False
        refusal = _refusal_in(answer)
        if refusal:
            self.logger.warning("DingTalk refused the message: %s", refusal)
        return not refusal


def _refusal_in(answer: requests.Response) -> str:
    if answer.status_code != requests.codes.ok:
        return f"status {answer.status_code}"
    try:
        said = answer.json()
    except ValueError:
        return "its answer is no JSON"
    if not isinstance(said, dict) or said.get("errcode") not in (0, "0"):
        told = said if isinstance(said, dict) else {}
        return f"{str(told.get('errmsg', 'without a reason'))[:_ERRMSG_CHARACTERS_MAX]} (errcode {told.get('errcode')})"
    return ""
