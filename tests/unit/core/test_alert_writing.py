"""One message: what, where, since when, why, what was done, what a person may do."""

# ruff: noqa: RUF001  Chinese has punctuation of its own

from dataclasses import replace
from pathlib import Path

import pytest

from understudy.core.alert_words import TEXTS, Saying
from understudy.core.alert_writing import NOTES_MAX, Cost, Note, duration, write, write_test
from understudy.core.upkeep import Language, Severity

TOP = Path(__file__).parents[3]
EN, ZH = Language.ENGLISH, Language.CHINESE


def down(name: str = "gpu0", saying: Saying = Saying.BEGAN, cost: Cost | None = None) -> Note:
    facts = {"reason": "refused the connection"}
    return Note(saying, "backend.down", Severity.WARNING, who=name, facts=facts, since="03:12", lasted_s=125.0, cost=cost)


def empty() -> Note:
    return Note(Saying.BEGAN, "pool.empty", Severity.ERROR, facts={"backends": "8"}, since="03:12", lasted_s=6.0)


def test_a_backend_down_in_english() -> None:
    subject, body = write([down()], EN)
    assert subject == "Understudy: gpu0 down"
    assert body == (
        "gpu0 has been down since 03:12 (2 min).\n"
        "Why: refused the connection\n"
        "Done: it gets no request until it answers again.\n"
        "You may: look at its machine; understudy restart gpu0"
    )


def test_the_message_in_the_docs_is_the_one_that_is_written() -> None:
    subject, body = write([replace(down(), lasted_s=10.0)], EN)
    assert f"```text\n{subject}\n\n{body}\n```" in (TOP / "docs" / "alerts.md").read_text(encoding="utf-8")


def test_a_backend_down_in_chinese() -> None:
    subject, body = write([down()], ZH)
    assert subject == "Understudy：gpu0 不可用"
    assert body == (
        "后端 gpu0 自 03:12 起不可用（至今 2 分钟）。\n"
        "原因：拒绝连接\n"
        "已处理：恢复应答之前不再接收请求。\n"
        "可以：检查该机器；understudy restart gpu0"
    )


def test_a_recovery_says_how_long_it_was_and_what_it_cost() -> None:
    subject, body = write([down(saying=Saying.ENDED, cost=Cost(failed=3, moved=12))], EN)
    assert subject == "Understudy: gpu0 up"
    assert body == (
        "gpu0 is up again; it was down for 2 min, since 03:12.\nMeanwhile 3 requests failed and 12 were saved by another backend."
    )
    assert write([down(saying=Saying.ENDED, cost=Cost())], EN)[1].endswith("No request failed meanwhile.")


def test_several_are_one_message_that_names_them_with_the_worst_first() -> None:
    subject, body = write([*(down(f"gpu{index}") for index in range(8)), empty()], EN)
    assert subject == "Understudy: no backend can answer; gpu0, gpu1, gpu2, gpu3 +4 down"
    lines = body.split("\n")
    assert lines[0] == "The pool has been empty since 03:12 (6 s)."
    assert lines[1] == "gpu0 has been down since 03:12 (2 min). Why: refused the connection"
    assert len(lines) == 10
    assert lines[-1] == "You may: understudy status says why for each"


def test_what_is_told_only_when_it_is_over_says_why_it_was_and_what_was_told_before_does_not_again() -> None:
    was, ended = down("gpu0", saying=Saying.WAS), down("gpu1", saying=Saying.ENDED)
    lines = write([was, ended], EN)[1].split("\n")
    assert [line for line in lines if "Why" in line] == [
        "gpu0 was down for 2 min, since 03:12; it is up again. Why: refused the connection"
    ]
    assert write([was], EN)[1].split("\n")[1] == "Why: refused the connection"
    assert "原因" not in write([ended], ZH)[1]
    assert write([was], ZH)[1].split("\n")[1] == "原因：拒绝连接"


def given_up(name: str = "gpu0", saying: Saying = Saying.BEGAN) -> Note:
    return Note(saying, "restart.gave_up", Severity.ERROR, who=name, facts={"reason": "x"}, since="03:12", lasted_s=5.0)


def test_a_backend_that_is_down_and_given_up_is_told_as_one() -> None:
    subject, body = write([down(), given_up()], EN)
    assert subject == "Understudy: gpu0 needs a person"
    assert body.split("\n") == [
        "gpu0 is not restarted any more, since 03:12 (5 s).",
        "Why: x",
        "Done: every restart that the file allows.",
        "You may: mend it, then understudy restart gpu0",
    ]
    assert write([down(saying=Saying.REMINDS), given_up(saying=Saying.REMINDS)], EN)[0] == subject


def test_one_backend_that_is_given_up_hides_no_other_and_no_recovery() -> None:
    assert write([down("gpu1"), given_up()], EN)[0] == "Understudy: gpu0 needs a person; gpu1 down"
    ended = [down(saying=Saying.ENDED), given_up(saying=Saying.ENDED)]
    assert write(ended, EN)[0] == "Understudy: gpu0 running again; gpu0 up"


def test_several_say_below_what_to_do_about_those_that_need_a_person_each_once() -> None:
    notes = [down("gpu9"), empty(), *(given_up(f"gpu{index}") for index in range(4)), given_up("gpu0", Saying.REMINDS)]
    lines = write(notes, EN)[1].split("\n")
    assert [line for line in lines if line.startswith("You may")] == lines[-3:]
    assert lines[-3:] == [
        "You may: understudy status says why for each",
        "You may: mend it, then understudy restart gpu0",
        "You may: mend it, then understudy restart gpu1",
    ]
    assert "You may" not in write([down("gpu0"), down("gpu1")], EN)[1]
    assert "You may" not in write([given_up(saying=Saying.ENDED), down("gpu1")], EN)[1]


@pytest.mark.parametrize(
    ("cost", "english", "chinese"),
    [
        (Cost(1, 1), "Meanwhile 1 request failed and 1 was saved by another backend.", "其间 1 个请求失败，1 个由其他后端接续。"),
        (
            Cost(0, 2),
            "Meanwhile no request failed and 2 were saved by another backend.",
            "其间没有请求失败，2 个由其他后端接续。",
        ),
        (
            Cost(3, 0),
            "Meanwhile 3 requests failed and none was saved by another backend.",
            "其间 3 个请求失败，没有请求由其他后端接续。",
        ),
    ],
)
def test_a_cost_is_counted_as_people_count(cost: Cost, english: str, chinese: str) -> None:
    ended = down(saying=Saying.ENDED, cost=cost)
    assert write([ended], EN)[1].split("\n")[1] == english
    assert write([ended], ZH)[1].split("\n")[1] == chinese


@pytest.mark.parametrize("event", ["restart.failed", "restart.gave_up"])
def test_a_backend_that_was_mended_by_hand_runs_again_and_was_not_restarted(event: str) -> None:
    ended = Note(Saying.ENDED, event, Severity.ERROR, who="a", since="21:08", lasted_s=60.0)
    assert write([ended], EN)[1].startswith("a is running again; it was ")
    subject, body = write([ended], ZH)
    assert subject == "Understudy：a 已恢复运行"
    assert body.startswith("后端 a 已恢复运行；自 21:08 起")


def test_a_long_list_is_cut_with_a_count() -> None:
    body = write([down(f"gpu{index}") for index in range(NOTES_MAX + 5)], EN)[1]
    assert body.split("\n")[-1] == "... and 5 more; see understudy status"


def test_a_line_that_the_facts_do_not_fill_is_left_out() -> None:
    note = Note(Saying.BEGAN, "slo.broken", Severity.WARNING, who="errors", since="03:12")
    assert write([note], EN)[1].split("\n") == [
        "The promise errors has been broken since 03:12 (less than a second).",
        "You may: understudy status says which backend fails",
    ]
    assert write([replace(note, who="p99_first_content")], EN)[1].endswith("You may: understudy status says where the time goes")
    assert write([replace(note, who="gpu_busy")], EN)[1].endswith("You may: understudy status says how each backend does")


def test_promises_keep_their_figures_where_several_are_told_together() -> None:
    facts = {"value": "100%", "bound": "1%"}
    errors = Note(Saying.BEGAN, "slo.broken", Severity.WARNING, who="errors", facts=facts, since="03:12", lasted_s=15.0)
    assert write([errors, down()], EN)[1].split("\n")[0] == (
        "The promise errors has been broken since 03:12 (15 s). Found: 100%, promised: 1%"
    )
    assert "实际：100%，目标：1%" in write([errors, down()], ZH)[1]
    ended = replace(errors, saying=Saying.ENDED)
    assert "Found" not in write([ended, down()], EN)[1]


def test_a_fact_that_is_missing_leaves_a_gap_and_no_fault() -> None:
    for language in Language:
        for event in TEXTS[language]:
            for saying in Saying:
                subject, body = write([Note(saying, event, Severity.INFO)], language)
                assert not set("{}") & set(subject + body)
                assert "  " not in subject


def test_what_a_backend_says_cannot_be_a_template() -> None:
    note = Note(Saying.BEGAN, "backend.down", Severity.WARNING, who="gpu0", facts={"reason": "{who} {0} {x"})
    assert "Why: {who} {0} {x" in write([note], EN)[1]


def test_a_moment_that_came_often_is_told_once() -> None:
    note = Note(
        Saying.HAPPENED, "rollout.switched", Severity.INFO, facts={"active": "green", "was": "blue"}, since="03:12", times=4
    )
    subject, body = write([note], EN)
    assert subject == "Understudy: green active"
    assert body.startswith("New conversations have gone to green since 03:12 (before: blue). (4 times)")


@pytest.mark.parametrize("language", Language)
def test_a_test_message_names_its_channel(language: Language) -> None:
    subject, body = write_test("mailto: example.org", language)
    assert "Understudy" in subject
    assert "mailto: example.org" in body


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (-1.0, "less than a second", "不到 1 秒"),
        (0.4, "less than a second", "不到 1 秒"),
        (0.6, "1 s", "1 秒"),
        (12.4, "12 s", "12 秒"),
        (119.0, "1 min", "1 分钟"),
        (3600.0, "1 h", "1 小时"),
        (3900.0, "1 h 5 min", "1 小时 5 分钟"),
        (86400.0, "1 d", "1 天"),
        (183600.0, "2 d 3 h", "2 天 3 小时"),
    ],
)
def test_a_duration_is_said_as_people_do(seconds: float, english: str, chinese: str) -> None:
    assert (duration(seconds, EN), duration(seconds, ZH)) == (english, chinese)


def test_what_was_over_in_less_than_a_second_is_said_so() -> None:
    was = replace(empty(), saying=Saying.WAS, lasted_s=0.2)
    assert write([was], EN)[1].startswith("The pool was empty for less than a second, since 03:12;")
    assert write([was], ZH)[1].startswith("后端池曾自 03:12 起无可用后端，历时不到 1 秒，")
    assert "历时 6 秒，" in write([replace(was, lasted_s=6.0)], ZH)[1]


def test_what_was_so_once_is_not_said_to_be_times() -> None:
    steady = Note(Saying.STEADY, "backend.down", Severity.WARNING, who="gpu0", lasted_s=600.0, times=1, is_on=False)
    assert write([steady], EN)[1].endswith("Before, it was down once.")
    assert write([replace(steady, times=3)], EN)[1].endswith("Before, it was down 3 times.")
