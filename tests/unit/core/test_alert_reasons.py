"""Reasons are told in the channel's language as far as they are ours, and the table keeps in step with who says them."""

# ruff: noqa: RUF001  Chinese has punctuation of its own

import re
import signal
from pathlib import Path

import pytest

import understudy
from understudy.controlplane.restart_process import words_of
from understudy.controlplane.token_prober import BARREN
from understudy.core.alert_reasons import WHOLE, WITH_HOLES, reason_in
from understudy.core.upkeep import Language
from understudy.errors import MEANING, Mistake
from understudy.sessions.store import Loss

ZH = Language.CHINESE
HAN = re.compile(r"[\u4e00-\u9fff]")
HOLE = re.compile(r"\{\d\}")


def source() -> str:
    """Return all that the package says, literals that go on in the next line joined, without the table itself."""
    files = [path for path in Path(understudy.__file__).parent.rglob("*.py") if path.name != "alert_reasons.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r"\"\s*\n\s*f?\"", "", text)


def test_english_stays_as_it_is() -> None:
    assert reason_in(Language.ENGLISH, "refused the connection") == "refused the connection"


@pytest.mark.parametrize("words", [meaning.words for meaning in MEANING.values()])
def test_every_meaning_is_translated(words: str) -> None:
    assert HAN.search(WHOLE[ZH][words])


@pytest.mark.parametrize("loss", Loss)
def test_every_loss_of_a_store_is_translated(loss: Loss) -> None:
    assert HAN.search(reason_in(ZH, str(loss)))


@pytest.mark.parametrize("status", [0, 3, 137, -signal.SIGTERM, -signal.SIGKILL, -999])
def test_every_end_of_a_process_is_translated(status: int) -> None:
    for is_unexplained in (False, True):
        told = reason_in(ZH, f"sh {words_of(status, is_unexplained=is_unexplained)}")
        assert told.startswith("sh ")
        assert HAN.search(told)


def test_what_is_translated_is_what_somebody_says() -> None:
    said = source()
    assert [phrase for phrase in WHOLE[ZH] if phrase not in said] == []
    for english, _ in WITH_HOLES[ZH]:
        parts = [part.strip(" ,") for part in HOLE.split(english)]
        assert [part for part in parts if part not in said] == [], english


def test_both_sides_have_the_same_holes() -> None:
    for english, own in WITH_HOLES[ZH]:
        assert sorted(HOLE.findall(english)) == sorted(HOLE.findall(own)), english
        assert HOLE.findall(english) == [f"{{{number}}}" for number in range(len(HOLE.findall(english)))], english


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("no answer within 3s", "3 秒内没有应答"),
        ("the last restart failed: sh ended with exit status 3", "上次重启失败：sh 已结束，退出状态 3"),
        (
            "the last restart failed: the last restart failed: not ready within 120s: refused the connection",
            "上次重启失败：上次重启失败：120 秒内未就绪：拒绝连接",
        ),
        (f"it {BARREN}: no token within 15s", "能应答健康检查，但不生成内容：15 秒内没有收到 token"),
        (f"{BARREN}: gave an answer without a token", "能应答健康检查，但不生成内容：应答中没有 token"),
        ("answered 503: Loading model", "应答 503：Loading model"),
        ("answered 401: it refuses the key; set or correct api_key", "应答 401：密钥被拒绝；请设置或更正 api_key"),
        ("docker refused the connection", "docker 拒绝连接"),
        ("docker answered 500: no space; its exit status is 1", "docker 应答 500: no space；退出状态 1"),
        ("sh ended with exit status 139 (SIGSEGV); memory had run out", "sh 已结束，退出状态 139 (SIGSEGV)；内存已耗尽"),
        (
            "docker answered 500: no; its exit status is 137 (SIGKILL, the kernel's for want of memory, or somebody's)",
            "docker 应答 500: no；退出状态 137（SIGKILL，内核因内存不足所为，或有人所为）",
        ),
        ("not ready within 9s: refused the connection; memory had run out", "9 秒内未就绪：拒绝连接；内存已耗尽"),
        ("not ready within 300s: no token came in that time", "300 秒内未就绪：其间没有收到 token"),
        ("/v1/models gave a list without data", "/v1/models 返回了没有 data 的列表"),
        (
            "writes 1 bytes/s, 9% of its usual 8 (median of 5 answers); refused the connection",
            "每秒写出 1 字节，为平时 8 的 9%（5 次应答的中位数）；拒绝连接",
        ),
        ("begins after 9 s, usually within 1 s (median of 4 answers)", "9 秒后才开始，平时在 1 秒内（4 次应答的中位数）"),
        ("sh did not end within 5s and was ended", "sh 在 5 秒内没有结束，已被终止"),
    ],
)
def test_a_reason_with_holes_is_told_with_what_is_in_them(reason: str, told: str) -> None:
    assert reason_in(ZH, reason) == told


def test_mistakes_in_the_file_keep_their_places() -> None:
    one = Mistake("backends[1].url", "gpu1", "a URL", "understudy.yaml", 7, 5)
    other = Mistake("balance", "quick", "ordered", "understudy.yaml", 9, 1)
    assert reason_in(ZH, f"{one}; {other}") == (
        "understudy.yaml:7:5: backends[1].url：现为 gpu1；应为 a URL；understudy.yaml:9:1: balance：现为 quick；应为 ordered"
    )


@pytest.mark.parametrize("text", ["", "; ", "CUDA error: device lost", "first; second", "{0} {x", "a" * 200, "; " * 100])
def test_what_is_not_ours_stays_as_it_is(text: str) -> None:
    assert reason_in(ZH, text) == text


def test_what_an_engine_says_cannot_be_a_template() -> None:
    assert reason_in(ZH, "answered 500: {0} {1} {x") == "应答 500：{0} {1} {x"
