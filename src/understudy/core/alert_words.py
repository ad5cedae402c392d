"""What an alert says, as data: the templates of subject and body in English and Chinese, plain and short, for a phone at night.

Filled by core.alert_writing. Every body says what, where, since when and why, what was done and what a person may do. Pure data;
decides neither when nor to whom something is told.
"""

# ruff: noqa: RUF001  Chinese has punctuation of its own

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from understudy.core.upkeep import Language

_EN, _ZH = Language.ENGLISH, Language.CHINESE


class Saying(StrEnum):
    """What of an incident is told."""

    BEGAN = "began"
    REMINDS = "reminds"
    ENDED = "ended"
    WAS = "was"  # begun and ended without having been told
    FLAPS = "flaps"
    STEADY = "steady"
    HAPPENED = "happened"


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of one event: a `title`, `over` when it has ended, the state in words (`on`, `off`), and the lines below it.

    `lasts` is the state as English says it of what has begun and goes on, with its verb. A line is left out where a fact that it
    names is missing. `aside` is the one of them that stands beside the sentence where there is no room for more, "" the reason.
    `may` is what a person may do, the last of the lines, and `may_of` the same where it differs by what it is about. `who` names
    what the event is about, where the alert itself names none. `told` is the whole sentence of what happens at once.
    """

    title: str
    over: str = ""
    who: str = "{who}"
    on: str = ""
    off: str = ""
    lasts: str = ""
    told: str = ""
    lines: tuple[str, ...] = ()
    aside: str = ""
    may: str = ""
    may_of: tuple[tuple[str, str], ...] = ()


# Of each saying: the sentence that holds for every event with a state.
SENTENCES: Final = MappingProxyType(
    {
        _EN: {
            Saying.BEGAN: "{who} {lasts} since {since} ({lasted}).",
            Saying.REMINDS: "Still so: {who} {lasts} since {since} ({lasted}).",
            Saying.ENDED: "{who} is {off} again; it was {on} for {lasted}, since {since}.",
            Saying.WAS: "{who} was {on} for {lasted}, since {since}; it is {off} again.",
            Saying.FLAPS: "{who} does not settle: {on} {times} times, first at {since}. Told again when it is steady.",
            Saying.STEADY: "{who} is steady: {state} for {lasted}. Before, it was {on} {counted}.",
        },
        _ZH: {
            Saying.BEGAN: "{who}自 {since} 起{on}（至今{lasted}）。",
            Saying.REMINDS: "情况依旧：{who}自 {since} 起{on}（至今{lasted}）。",
            Saying.ENDED: "{who}已{off}；自 {since} 起{on}，历时{lasted}。",
            Saying.WAS: "{who}曾自 {since} 起{on}，历时{lasted}，现已{off}。",
            Saying.FLAPS: "{who}反复不定：自 {since} 起 {times} 次{on}。稳定后再通知。",
            Saying.STEADY: "{who}已稳定：{state}已{lasted}。此前 {counted}{on}。",
        },
    }
)
PHRASES: Final = MappingProxyType(
    {
        _EN: {
            "why": "Why: {reason}",
            "may": "You may: {may}",
            "cost": "Meanwhile {failed} and {moved} by another backend.",
            "failed_none": "no request failed",
            "failed_one": "1 request failed",
            "failed_many": "{count} requests failed",
            "moved_none": "none was saved",
            "moved_one": "1 was saved",
            "moved_many": "{count} were saved",
            "no_cost": "No request failed meanwhile.",
            "often": " ({times} times)",
            "once": "once",
            "counted": "{times} times",
            "moment": "less than a second",
            "before_digit": "",
            "more": "... and {count} more; see understudy status",
            "lead": "Understudy: ",
            "restless": " (again and again)",
            "stop": "; ",
            "comma": ", ",
        },
        _ZH: {
            "why": "原因：{reason}",
            "may": "可以：{may}",
            "cost": "其间{failed}，{moved}由其他后端接续。",
            "failed_none": "没有请求失败",
            "failed_one": " 1 个请求失败",
            "failed_many": " {count} 个请求失败",
            "moved_none": "没有请求",
            "moved_one": "1 个",
            "moved_many": "{count} 个",
            "no_cost": "其间没有请求失败。",
            "often": "（{times} 次）",
            "once": "1 次",
            "counted": "{times} 次",
            "moment": "不到 1 秒",
            "before_digit": " ",
            "more": "……另有 {count} 项；见 understudy status",
            "lead": "Understudy：",
            "restless": "（反复）",
            "stop": "；",
            "comma": "、",
        },
    }
)

_ENGLISH: Final = {
    "backend.down": Words(
        "{who} down",
        "{who} up",
        on="down",
        off="up",
        lasts="has been down",
        lines=(
            "Why: {reason}",
            "Done: it gets no request until it answers again.",
        ),
        may="look at its machine; understudy restart {who}",
    ),
    "backend.degraded": Words(
        "{who} slow",
        "{who} at its pace",
        on="slower than it should be",
        off="at its usual pace",
        lasts="has been slower than it should be",
        lines=(
            "Why: {reason}",
            "Done: it is used last.",
        ),
        may="look at its GPU and memory; understudy restart {who}",
    ),
    "restart.started": Words(
        "{who} restarting",
        "{who} restarted",
        on="being restarted",
        off="running",
        lasts="has been restarting",
        lines=("Why: {reason}", "Done: it gets no request until it has proven itself."),
    ),
    "restart.failed": Words(
        "restart of {who} failed",
        "{who} running again",
        on="not back after a restart",
        off="running",
        lasts="is not back after a restart,",
        lines=(
            "Why: {reason}",
            "Exit status: {exit_status}",
            "Done: it is tried again, later each time.",
        ),
        may="look at its log and at restart: in the file",
    ),
    "restart.gave_up": Words(
        "{who} needs a person",
        "{who} running again",
        on="without further restarts",
        off="running",
        lasts="is not restarted any more,",
        lines=(
            "Why: {reason}",
            "Done: every restart that the file allows.",
        ),
        may="mend it, then understudy restart {who}",
    ),
    "pool.empty": Words(
        "no backend can answer",
        "a backend can answer again",
        who="The pool",
        on="empty",
        off="in service",
        lasts="has been empty",
        lines=(
            "Usable backends: none of {backends}.",
            "Done: requests wait for a moment, then get 503; every backend is probed.",
        ),
        may="understudy status says why for each",
    ),
    "rollout.switched": Words(
        "{active} active",
        told="New conversations have gone to {active} since {since} (before: {was}).",
        lines=("Why: {reason}",),
        may="understudy rollback",
    ),
    "rollout.rolled_back": Words(
        "rolled back to {active}",
        told="Rolled back: new conversations have gone to {active} since {since}.",
        lines=(
            "Why: {reason}",
            "Done: the canary or the switch was taken back.",
        ),
        may="understudy status; look at the other color",
    ),
    "sessions.failing": Words(
        "conversations not kept",
        "conversations kept again",
        who="The session store",
        on="failing",
        off="working",
        lasts="has been failing",
        lines=(
            "Why: {reason}",
            "Detail: {detail}",
            "Done: requests are answered without their history; the store is tried again.",
        ),
        may="look at the disk or at Redis",
    ),
    "config.refused": Words(
        "file refused",
        "file accepted",
        who="The configuration file",
        on="refused",
        off="in force",
        lasts="has been refused",
        lines=(
            "Why: {mistakes}",
            "Done: the old settings stay.",
        ),
        may="mend the file; understudy check says where",
    ),
    "slo.broken": Words(
        "promise broken: {who}",
        "promise kept: {who}",
        who="The promise {who}",
        on="broken",
        off="kept",
        lasts="has been broken",
        lines=(
            "Found: {value}, promised: {bound}",
            "Worst at: {backend}",
        ),
        aside="Found: {value}, promised: {bound}",
        may="understudy status says how each backend does",
        may_of=(
            ("errors", "understudy status says which backend fails"),
            ("p99_first_content", "understudy status says where the time goes"),
        ),
    ),
}
_CHINESE: Final = {
    "backend.down": Words(
        "{who} 不可用",
        "{who} 已恢复",
        who="后端 {who} ",
        on="不可用",
        off="恢复",
        lines=(
            "原因：{reason}",
            "已处理：恢复应答之前不再接收请求。",
        ),
        may="检查该机器；understudy restart {who}",
    ),
    "backend.degraded": Words(
        "{who} 变慢",
        "{who} 速度恢复",
        who="后端 {who} ",
        on="明显变慢",
        off="恢复正常速度",
        lines=(
            "原因：{reason}",
            "已处理：只在最后才使用它。",
        ),
        may="检查显卡与内存；understudy restart {who}",
    ),
    "restart.started": Words(
        "{who} 正在重启",
        "{who} 已重启",
        who="后端 {who} ",
        on="处于重启中",
        off="重启完成",
        lines=("原因：{reason}", "已处理：验证通过之前不接收请求。"),
    ),
    "restart.failed": Words(
        "{who} 重启失败",
        "{who} 已恢复运行",
        who="后端 {who} ",
        on="重启后未恢复",
        off="恢复运行",
        lines=(
            "原因：{reason}",
            "退出状态：{exit_status}",
            "已处理：将再次重启，间隔逐次加长。",
        ),
        may="查看其日志与文件中的 restart:",
    ),
    "restart.gave_up": Words(
        "{who} 需要人工处理",
        "{who} 已恢复运行",
        who="后端 {who} ",
        on="不再自动重启",
        off="恢复运行",
        lines=(
            "原因：{reason}",
            "已处理：已用完允许的重启次数。",
        ),
        may="修复后执行 understudy restart {who}",
    ),
    "pool.empty": Words(
        "没有后端能应答",
        "已有后端能应答",
        who="后端池",
        on="无可用后端",
        off="恢复服务",
        lines=(
            "可用后端：0/{backends}。",
            "已处理：请求稍候，之后返回 503；持续探测各后端。",
        ),
        may="understudy status 会说明各自原因",
    ),
    "rollout.switched": Words(
        "{active} 已启用",
        told="自 {since} 起新会话由 {active} 应答（此前为 {was}）。",
        lines=("原因：{reason}",),
        may="understudy rollback",
    ),
    "rollout.rolled_back": Words(
        "已回滚到 {active}",
        told="已回滚：自 {since} 起新会话由 {active} 应答。",
        lines=(
            "原因：{reason}",
            "已处理：灰度或切换已撤回。",
        ),
        may="understudy status；检查另一颜色",
    ),
    "sessions.failing": Words(
        "会话无法保存",
        "会话保存已恢复",
        who="会话存储",
        on="不可用",
        off="恢复",
        lines=(
            "原因：{reason}",
            "详情：{detail}",
            "已处理：请求照常应答但没有历史；持续重试存储。",
        ),
        may="检查磁盘或 Redis",
    ),
    "config.refused": Words(
        "配置文件被拒绝",
        "配置文件已生效",
        who="修改后的配置文件",
        on="被拒绝",
        off="生效",
        lines=(
            "原因：{mistakes}",
            "已处理：沿用原有设置。",
        ),
        may="修正文件；understudy check 会指出位置",
    ),
    "slo.broken": Words(
        "未达目标：{who}",
        "恢复达标：{who}",
        who="目标 {who} ",
        on="未达标",
        off="恢复达标",
        lines=(
            "实际：{value}，目标：{bound}",
            "最差：{backend}",
        ),
        aside="实际：{value}，目标：{bound}",
        may="understudy status 会显示各后端的情况",
        may_of=(
            ("errors", "understudy status 会显示哪个后端失败"),
            ("p99_first_content", "understudy status 会显示时间花在哪里"),
        ),
    ),
}
TEXTS: Final = MappingProxyType({_EN: _ENGLISH, _ZH: _CHINESE})
TESTS: Final = {
    _EN: ("Understudy: test", "This is a test message. Alerts reach this channel ({channel})."),
    _ZH: ("Understudy：测试", "这是一条测试消息。告警可以送达此渠道（{channel}）。"),
}
# Seconds, minutes, hours, days.
UNITS: Final = MappingProxyType({_EN: ("s", "min", "h", "d"), _ZH: ("秒", "分钟", "小时", "天")})
