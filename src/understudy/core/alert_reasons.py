"""Put the reasons that alerts carry into the language of a channel: what failed, as probes, restarts and the guard say it.

Called by core.alert_writing. Reasons are English, in logs and in `understudy status`, and most of them are closed: the words of
errors.MEANING and the phrases of a few modules. What an engine, a program or a system says in its own words stays as it is, and
so does whatever is not known here. Pure data and one function; never decides what is told.
"""

# ruff: noqa: RUF001  Chinese has punctuation of its own

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.core.upkeep import Language

# Whole reasons. Those of errors.MEANING come first, in its order.
_CHINESE: Final[Mapping[str, str]] = {
    "refused the connection": "拒绝连接",
    "could not be reached": "无法到达",
    "did not accept a connection in time": "未及时接受连接",
    "has a name that does not resolve": "主机名无法解析",
    "failed the TLS handshake": "TLS 握手失败",
    "had closed an idle connection": "已关闭空闲连接",
    "closed the connection without an answer": "未应答就关闭了连接",
    "sent something that is not HTTP": "发来的内容不是 HTTP",
    "sent an answer head that is too large": "应答头过大",
    "sent no content in time": "未及时发来内容",
    "answered with a server error": "应答服务器错误",
    "answered that it is unavailable": "应答自身不可用",
    "is busy": "繁忙",
    "is loading its model": "正在加载模型",
    "does not have the model": "没有该模型",
    "does not support the request": "不支持该请求",
    "ran out of memory": "内存耗尽",
    "reported an error inside its answer": "在应答中报告错误",
    "sent an event that cannot be read": "发来无法解读的事件",
    "broke off in the middle of its answer": "应答中途断开",
    "sent a body that is not valid HTTP": "发来的正文不是有效的 HTTP",
    "ended its answer without finishing it": "应答未完成就结束",
    "fell silent in the middle of its answer": "应答中途停滞",
    "cannot continue the answer": "无法接续应答",
    "was slower than the hedge": "慢于对冲请求",
    "is being restarted": "正在重启",
    "did not finish within timeouts.total": "未在 timeouts.total 内完成",
    "no backend has the model": "没有后端有该模型",
    "no backend speaks this API": "没有后端支持此 API",
    "no backend is usable": "没有可用的后端",
    "every backend is at its in_flight_max": "所有后端都已达到 in_flight_max",
    "understudy is stopping": "understudy 正在停止",
    "the client left": "客户端已离开",
    "the client did not read its answer": "客户端没有读取应答",
    "another request of this session has not ended": "同一会话的另一请求尚未结束",
    "the session store cannot be read": "会话存储无法读取",
    "the messages cannot be read": "消息无法解读",
    "the stored conversation does not fit this API": "已存的会话不适用于此 API",
    "understudy failed": "understudy 自身出错",
    # Probes and tokens.
    "its probes fail": "探测失败",
    "no good probe": "没有成功的探测",
    "asleep": "休眠中",
    "no token came": "没有收到 token",
    "no token came in that time": "其间没有收到 token",
    "gave an answer that is not JSON": "应答不是 JSON",
    "gave an answer of an unknown shape": "应答格式未知",
    "gave an answer without a token": "应答中没有 token",
    "a list of an unknown shape": "格式未知的列表",
    "a list that is not JSON": "不是 JSON 的列表",
    # Restarts.
    "the operator's word": "操作者的命令",
    "it answers, but far below what it was": "能应答，但远低于其原有水平",
    "put in maintenance before it was proven": "验证之前已转入维护",
    "given up before the daemon began": "守护进程启动之前就已放弃",
    "the means say that it is not done": "重启手段报告未完成",
    "a mistake of the daemon's own, which its log tells": "守护进程自身的错误，详见其日志",
    "the file names no means of restarting it; want a restart: under the backend": (
        "配置文件没有写明如何重启；请在该后端下写 restart:"
    ),
    "it hangs in the kernel or belongs to another user": "它卡在内核中，或属于另一用户",
    "memory had run out": "内存已耗尽",
    "was ended": "已被终止",
    "could not be ended": "无法终止",
    "the backend is no longer wanted": "该后端已不再需要",
    "there is no such backend": "没有这个后端",
    "the container was started and ended at once": "容器启动后立即退出",
    "docker's socket does not exist; is the engine running, and is DOCKER_HOST right?": (
        "docker 的套接字不存在；请确认引擎已运行、DOCKER_HOST 正确"
    ),
    "docker's socket may not be used by this user; is it in the group docker?": (
        "此用户无权使用 docker 的套接字；请确认其在 docker 组中"
    ),
    "the hook's URL is none that can be sent to; want http://HOST/PATH or https://HOST/PATH": (
        "钩子的 URL 无法发送；应为 http://HOST/PATH 或 https://HOST/PATH"
    ),
    # The session store.
    "unavailable": "无法使用",
    "slow": "过慢",
    "resting": "刚刚失败，暂不再试",
    "full": "已满",
    "read_only": "只读",
    "refused": "被拒绝",
    "too_large": "过大",
    "unreadable": "无法解读",
    "raced": "会话被其他进程反复修改",
    "failed": "自身出错",
    "not_kept": "无法保存此请求",
    "the store is closed": "存储已关闭",
    "no answer in time": "未及时应答",
    "the system gives no thread": "系统无法提供线程",
}
# Reasons with holes, of which the first that fits counts; what is in a hole is a reason again.
_CHINESE_HOLES: Final[tuple[tuple[str, str], ...]] = (
    ("the last restart failed: {0}", "上次重启失败：{0}"),
    ("not ready within {0}s: {1}", "{0} 秒内未就绪：{1}"),
    ("it ended before it was ready: {0}", "就绪之前已结束：{0}"),
    ("it answers its health check and generates nothing: {0}", "能应答健康检查，但不生成内容：{0}"),
    ("answers its health check and generates nothing: {0}", "能应答健康检查，但不生成内容：{0}"),
    ("no answer within {0}s", "{0} 秒内没有应答"),
    ("no answer within {0} s", "{0} 秒内没有应答"),
    ("no token within {0}s", "{0} 秒内没有收到 token"),
    ("answered {0}: it refuses the key; set or correct api_key", "应答 {0}：密钥被拒绝；请设置或更正 api_key"),
    ("answered {0}: a redirect is not followed; correct the url", "应答 {0}：不跟随重定向；请更正 url"),
    ("answered {0}: {1}", "应答 {0}：{1}"),
    ("answered {0}", "应答 {0}"),
    ("/{0} gave {1}", "/{0} 返回了{1}"),
    ("a list of more than {0} MiB", "超过 {0} MiB 的列表"),
    ("a list without {0}", "没有 {0} 的列表"),
    (
        "writes {0} bytes/s, {1} of its usual {2} (median of {3} answers)",
        "每秒写出 {0} 字节，为平时 {2} 的 {1}（{3} 次应答的中位数）",
    ),
    ("begins after {0} s, usually within {1} s (median of {2} answers)", "{0} 秒后才开始，平时在 {1} 秒内（{2} 次应答的中位数）"),
    # Programs, containers, units, hooks.
    ("{0} could not be ended, not even by SIGKILL: {1}", "{0} 无法结束，SIGKILL 也无效：{1}"),
    ("{0} did not end within {1}s and {2}", "{0} 在 {1} 秒内没有结束，{2}"),
    ("{0}; its exit status is {1}", "{0}；退出状态 {1}"),
    ("{0} ended with exit status {1}", "{0} 已结束，退出状态 {1}"),
    (
        "{0} was ended by SIGKILL (the kernel's for want of memory, or somebody's)",
        "{0} 被 SIGKILL 结束（内核因内存不足所为，或有人所为）",
    ),
    ("{0} (SIGKILL, the kernel's for want of memory, or somebody's)", "{0}（SIGKILL，内核因内存不足所为，或有人所为）"),
    ("{0} was ended by signal {1}", "{0} 被信号 {1} 结束"),
    ("{0} was ended by {1}", "{0} 被 {1} 结束"),
    ("{0} cannot be started: there is no folder {1}", "{0} 无法启动：没有文件夹 {1}"),
    ("{0} cannot be started: there is no such program", "{0} 无法启动：没有这个程序"),
    ("{0} cannot be started: it is not executable by this user", "{0} 无法启动：此用户无权执行"),
    ("{0} cannot be started: {1}", "{0} 无法启动：{1}"),
    ("docker gave no answer within {0}s", "docker 在 {0} 秒内没有应答"),
    ("docker has no container {0}", "docker 中没有容器 {0}"),
    ("docker answered {0}", "docker 应答 {0}"),
    ("docker {0}", "docker {0}"),
    ("the hook gave no answer within {0}s", "钩子在 {0} 秒内没有应答"),
    ("the hook answered {0}; want 2xx", "钩子应答 {0}；应为 2xx"),
    ("the hook {0}", "钩子{0}"),
    (
        "the unit did not run within {0}s, and systemd goes on with it; systemd says of it: {1}",
        "单元在 {0} 秒内没有运行，systemd 仍在继续；systemd 的说明：{1}",
    ),
    ("the unit does not run; systemd says of it: {0}, exit status {1}", "单元没有运行；systemd 的说明：{0}，退出状态 {1}"),
    # Colors.
    ("forced, although {0}", "强制执行，尽管{0}"),
    ("no backend of {0} is configured", "没有配置 {0} 的后端"),
    ("no backend of {0} is usable: {1}", "{0} 没有可用的后端：{1}"),
    (
        "errors {0} of {1} at {2} against {3} of {4} at {5}, more than {6} worse",
        "{2} 错误率 {0}（共 {1} 次），{5} 为 {3}（共 {4} 次），高出 {6} 以上",
    ),
    (
        "time to first content {0} s (p95 of {1}) at {2} against {3} s (of {4}) at {5}, more than {6}x",
        "{2} 首个内容用时 {0} 秒（{1} 次的 p95），{5} 为 {3} 秒（{4} 次），超过 {6} 倍",
    ),
    (
        "speed {0} characters/s (median of {1}) at {2} against {3} (of {4}) at {5}, less than {6}x",
        "{2} 速度每秒 {0} 字符（{1} 次的中位数），{5} 为 {3}（{4} 次），不足 {6} 倍",
    ),
    ("{0} before the switch", "切换前的 {0}"),
    # The session store and the file.
    ("{0} operations wait for the disk", "{0} 个操作在等待磁盘"),
    ("{0}: found {1}; want {2}", "{0}：现为 {1}；应为 {2}"),
)
_HOLE: Final = re.compile(r"\{\d\}")


_JOINT: Final = "; "


def _compiled(template: str) -> re.Pattern[str]:
    # Only what stands at the end may be several reasons in one.
    *parts, last = (re.escape(part) for part in _HOLE.split(template))
    hole = f"((?:(?!{_JOINT}).)+?)"
    head = hole.join(parts)
    return re.compile(f"{head}{hole}{last}" if last else f"{head}(.+)")


WHOLE: Final = MappingProxyType({Language.CHINESE: _CHINESE})
WITH_HOLES: Final = MappingProxyType({Language.CHINESE: _CHINESE_HOLES})
_PATTERNS: Final = {
    language: tuple((_compiled(english), own) for english, own in holes) for language, holes in WITH_HOLES.items()
}
# What several reasons are joined by.
_JOINTS: Final = {Language.CHINESE: "；"}


def reason_in(language: Language, text: str) -> str:
    """Return a reason in that language as far as it is known, else as it is."""
    if language not in WHOLE:
        return text
    known = WHOLE[language].get(text)
    if known is not None:
        return known
    for pattern, own in _PATTERNS[language]:
        found = pattern.fullmatch(text)
        # A hole is shorter than what it is in, so that this comes to an end.
        if found is not None:
            return own.format(*(reason_in(language, each) for each in found.groups()))
    first, joint, rest = text.partition(_JOINT)
    if not joint:
        return text
    parts = reason_in(language, first), reason_in(language, rest)
    return text if parts == (first, rest) else _JOINTS[language].join(parts)
