"""Plays of restarts with a real publisher and a real file: what is done in which order, told, kept and shown."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from support.restart_play import ASLEEP, BAD, BOOM, CHILD, GOOD, KILLED, LOADING, RULES, Stage, backend, gathered_mistakes, staged
from understudy.controlplane import supervisor
from understudy.controlplane.means import MeansOutcome, Proof, RestartOrder
from understudy.core.color import Color
from understudy.core.snapshot import Address, Backend, Condition, Duty, Model

# --- The course


async def test_backend_is_left_restarted_proven_and_gets_exchanges_again_and_each_step_is_told() -> None:
    async with staged() as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        assert (stage.left, stage.engines.asked, stage.state("gpu0").is_restarting) == (["gpu0"], ["restart gpu0"], True)
        stage.engines.let.set()
        await stage.settle()
        assert stage.probed == ["gpu0"]
        await stage.find("gpu0", GOOD)
        assert stage.engines.asked == ["restart gpu0"]
        await stage.find("gpu0", GOOD)
        assert stage.engines.asked == ["restart gpu0", "token gpu0"]
        assert (stage.usable(), stage.state("gpu0").condition, stage.renewed) == (["gpu0"], Condition.WARMING, ["gpu0"])
        assert stage.told[-2:] == [
            (
                "restart.started",
                {"backend": "gpu0", "cause": "probes", "reason": BAD.reason, "nth": 1, "times_max": 3},
            ),
            ("restart.succeeded", {"backend": "gpu0", "lasted_s": 2.0, "first_content_s": 0.25}),
        ]


async def test_no_exchange_comes_before_the_token() -> None:
    async with staged() as stage:
        await stage.fall("gpu0")
        stage.engines.proofs["gpu0"] = Proof(is_good=False, words="no token within 3s")
        await stage.find("gpu0", *[GOOD] * 20)
        assert (stage.usable(), stage.state("gpu0").condition) == ([], Condition.WARMING)
        stage.engines.proofs.clear()
        await stage.pass_s(2.0)
        assert stage.usable() == ["gpu0"]


async def test_restart_that_fails_is_told_with_what_the_means_said_and_tried_again_after_its_pause() -> None:
    async with staged() as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        how = {"exit_status": 1, "output": ["Unit not found."], "next_in_s": 10.0, "out_of_memory": False}
        reason = "systemctl ended with exit status 1"
        assert stage.told[-1] == ("restart.failed", {"backend": "gpu0", "reason": reason, **how})
        await stage.pass_s(10.0)
        assert stage.events("nth", "next_in_s")[-2:] == [("started", 2, None), ("failed", None, 20.0)]
        await stage.pass_s(60.0)
        assert stage.events("next_in_s")[-2:] == [("failed", None), ("gave_up", None)]
        fields = {"backend": "gpu0", "times": 3, "window_s": 3600.0, "taken_out": True, "reason": BOOM.words}
        assert stage.told[-1] == ("restart.gave_up", fields)
        await stage.pass_s(7200.0)
        assert stage.told[-1] == ("restart.gave_up", fields)


async def test_restart_that_failed_for_want_of_memory_says_so_once_everywhere() -> None:
    async with staged(backend("gpu0", replace(RULES, times_max=2))) as stage:
        words = "docker started it and it ended; its exit status is 137 (SIGKILL)"
        stage.engines.outcomes["gpu0"] = MeansOutcome(is_done=False, words=words, exit_status=137, was_out_of_memory=True)
        await stage.fall("gpu0")
        reason = f"{words}; memory had run out"
        assert (stage.told[-1][0], stage.told[-1][1]["reason"], stage.status("gpu0")["reason"]) == (
            "restart.failed",
            reason,
            reason,
        )
        await stage.pass_s(30.0)
        assert stage.events("reason")[-3:] == [
            ("started", f"the last restart failed: {reason}"),
            ("failed", reason),
            ("gave_up", reason),
        ]


async def test_restart_after_want_of_memory_that_does_not_help_says_so() -> None:
    async with staged() as stage:
        stage.engines.outcomes["gpu0"] = MeansOutcome(is_done=True, was_out_of_memory=True)
        await stage.fall("gpu0")
        await stage.find("gpu0", BAD)
        await stage.pass_s(RULES.ready_s)
        assert stage.events("reason")[-1] == ("failed", f"not ready within {RULES.ready_s:g}s: {BAD.reason}; memory had run out")


async def test_given_up_backend_that_answers_and_gives_a_token_gets_exchanges() -> None:
    async with staged(backend("gpu0", replace(RULES, times_max=1))) as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        assert stage.events()[-1] == ("gave_up",)
        await stage.find("gpu0", GOOD, GOOD)
        assert stage.usable() == ["gpu0"]
        assert stage.told[-1] == ("restart.recovered", {"backend": "gpu0", "first_content_s": 0.25})


async def test_slow_backend_that_is_given_up_is_told_to_be_well_when_it_is_at_its_pace() -> None:
    async with staged(backend("gpu0", replace(RULES, is_degraded_enough=True, times_max=1)), backend("gpu1")) as stage:
        for is_degraded in (True, False, True, False):
            stage.publisher.set_upkeep("gpu0", is_degraded=is_degraded)
            await stage.find("gpu0", GOOD, GOOD)
        assert stage.events("taken_out")[1:] == [("succeeded", None), ("gave_up", False)]
        for name in ("gpu0", "gpu0", "gpu1", "unknown"):
            stage.supervisor.on_pace_recovered(name)
        assert stage.told[3:] == [("restart.recovered", {"backend": "gpu0", "first_content_s": None})]


async def test_child_that_ended_is_restarted_at_once_and_told_with_what_it_left() -> None:
    async with staged(backend("gpu0", CHILD)) as stage:
        assert stage.engines.followed == [("gpu0",)]
        stage.supervisor.on_child_exit("gpu0", KILLED)
        await stage.settle()
        assert stage.engines.asked == ["restart gpu0"]
        assert stage.events("cause", "reason") == [("started", "exited", f"{KILLED.words}; memory had run out")]
        stage.supervisor.on_child_exit("gpu0", KILLED)
        event, fields = stage.told[-1]
        assert (event, fields["exit_status"], fields["out_of_memory"]) == ("restart.failed", -9, True)
        assert fields["output"] == ["loading", "oom"]
        stage.supervisor.on_child_exit("unknown", KILLED)


async def test_who_answers_in_the_place_of_a_child_that_does_not_run_is_neither_used_nor_taken_for_it() -> None:
    """Such as what an earlier daemon has left. The child itself has yet to load its model then."""
    stage = Stage(backend("gpu0", CHILD))
    stage.engines.childless.add("gpu0")
    await stage.find("gpu0", GOOD, GOOD, GOOD)
    assert (stage.usable(), stage.state("gpu0").reason) == ([], "its process does not run")
    stage.engines.childless.clear()
    await stage.find("gpu0", *[BAD] * 100, GOOD, GOOD, GOOD)
    assert (stage.usable(), stage.events()) == (["gpu0"], [])
    await stage.supervisor.close()


async def test_backend_that_generates_nothing_or_is_slow_is_restarted_and_then_not_slow_any_more() -> None:
    async with staged(backend("gpu0", replace(RULES, is_degraded_enough=True)), backend("gpu1")) as stage:
        stage.supervisor.on_barren("gpu1", "no token within 120s")
        await stage.settle()
        stage.publisher.set_upkeep("gpu0", is_degraded=True)
        await stage.pass_s(5.0)
        assert stage.engines.asked == ["restart gpu1"]
        assert stage.status("gpu0")["waits_for"] == "gpu1, which is being restarted"
        await stage.find("gpu1", GOOD)
        await stage.find("gpu0", GOOD)
        assert stage.events("backend", "cause") == [
            ("started", "gpu1", "suspicious"),
            ("succeeded", "gpu1", None),
            ("started", "gpu0", "degraded"),
            ("succeeded", "gpu0", None),
        ]
        assert not stage.state("gpu0").is_degraded


@pytest.mark.parametrize("finding", [ASLEEP, replace(BAD, wants_key=True)], ids=["asleep", "another key"])
async def test_backend_that_is_well_but_not_for_us_is_never_restarted(finding: Any) -> None:
    async with staged() as stage:
        await stage.find("gpu0", *[finding] * 1000)
        assert (stage.state("gpu0").condition, stage.events()) == (Condition.DOWN, [])


async def test_engine_that_loads_is_given_its_time() -> None:
    async with staged() as stage:
        await stage.find("gpu0", *[LOADING] * 250)
        assert stage.events() == []


async def test_one_backend_of_a_color_is_restarted_at_a_time_and_colors_do_not_wait_for_each_other() -> None:
    blue = [backend(name, color=Color.BLUE) for name in ("b1", "b2")]
    async with staged(*blue, backend("g1", color=Color.GREEN)) as stage:
        stage.engines.is_held = True
        for _ in range(6):
            for name in ("b1", "b2", "g1"):
                stage.publisher.on_finding(name, stage.supervisor.believe(name, BAD))
            await stage.pass_s(1.0)
        assert stage.engines.asked == ["restart b1", "restart g1"]
        stage.engines.let.set()
        await stage.find("b1", GOOD, GOOD)
        assert stage.engines.asked[2:] == ["token b1", "restart b2"]


async def test_daemon_that_was_stopped_restarts_nobody_for_that() -> None:
    async with staged() as stage:
        await stage.find("gpu0", *[BAD] * 5)
        stage.now_s += 600.0
        # The first was on its way when the daemon was stopped.
        await stage.find("gpu0", *[BAD] * 6)
        assert stage.events() == []
        await stage.find("gpu0", BAD)
        assert stage.events() == [("started",)]


# --- The operator


async def test_operator_s_word_begins_at_once_or_says_why_not() -> None:
    async with staged(backend("gpu0"), backend("gpu1", None), backend("gpu2")) as stage:
        order = stage.supervisor.restart
        assert await order("gpu7") == RestartOrder("no backend is named 'gpu7'", is_known=False)
        assert (await order("gpu1")).refusal == "the file names no means of restarting it; want a restart: under the backend"
        stage.engines.is_held = True
        assert await order("gpu0") == RestartOrder()
        assert (await order("gpu0")).refusal == "it is being restarted already (acting)"
        assert (await order("gpu2")).refusal == "gpu0 is being restarted, and of one color only one at a time is"
        assert stage.usable() == ["gpu1", "gpu2"]
        assert stage.events("backend", "cause") == [
            ("refused", "gpu1", None),
            ("started", "gpu0", "operator"),
            ("refused", "gpu0", None),
            ("refused", "gpu2", None),
        ]
        stage.engines.let.set()


async def test_backend_in_maintenance_is_the_operator_s_alone() -> None:
    async with staged() as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        stage.publisher.set_duty("gpu0", Duty.MAINTENANCE)
        await stage.pass_s(100.0)
        assert (stage.events(), stage.state("gpu0").is_restarting) == ([("started",), ("failed",)], False)
        assert "maintenance" in (await stage.supervisor.restart("gpu0")).refusal


# --- The file


async def test_backend_whose_restart_the_file_takes_back_is_let_go() -> None:
    async with staged() as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        (acting,) = stage.supervisor._tasks
        stage.reload(backend("gpu0", None))
        await stage.pass_s(5.0)
        assert not stage.state("gpu0").is_restarting
        assert stage.events("reason") == [("started", BAD.reason), ("failed", "the file no longer has it so")]
        assert stage.supervisor.status("gpu0") is None
        # A command that was cut off midway might leave anything; it may end by itself.
        assert not acting.done()
        stage.engines.let.set()
        await stage.settle()
        assert (acting.done(), acting.cancelled(), len(stage.told)) == (True, False, 2)


@pytest.mark.parametrize(
    "other",
    [backend("gpu0", CHILD, address=Address("http", "gpu9", 8000)), backend("gpu0", replace(CHILD, argv=("llama-server", "-v")))],
    ids=["another address", "another command"],
)
async def test_backend_that_is_another_one_begins_anew_and_has_its_time(other: Backend) -> None:
    async with staged(backend("gpu0", CHILD)) as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        stage.reload(other)
        await stage.settle()
        assert (stage.engines.followed, stage.status("gpu0")["times"]) == ([("gpu0",), ("gpu0",)], 0)
        assert not stage.state("gpu0").is_restarting
        await stage.find("gpu0", *[BAD] * 50)
        assert stage.events() == [("started",), ("failed",)]


async def test_command_that_the_file_changes_is_not_waited_for() -> None:
    async with staged() as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        stage.reload(backend("gpu0", replace(RULES, argv=("systemctl", "restart", "vllm2"))))
        assert stage.events("reason")[-1] == ("failed", "the file no longer has it so")
        assert (stage.status("gpu0")["phase"], stage.status("gpu0")["times"]) == ("watching", 0)
        stage.engines.let.set()
        await stage.settle()
        assert stage.events() == [("started",), ("failed",)]


async def test_proof_may_load_what_was_in_memory_before_however_many_restarts_ago() -> None:
    had = replace(GOOD, models=(Model("qwen"), Model("bge", is_loaded=False)))
    has = replace(GOOD, models=(Model("qwen", is_loaded=False), Model("bge", is_loaded=False)))
    async with staged() as stage:
        stage.engines.proofs["gpu0"] = Proof(is_good=False, words="no token")
        await stage.find("gpu0", had)
        await stage.fall("gpu0")
        await stage.find("gpu0", has, has)
        assert stage.engines.loadable == ("qwen",)
        await stage.pass_s(RULES.ready_s + 60.0)
        assert stage.events("nth")[-1] == ("started", 2)
        del stage.engines.proofs["gpu0"]
        await stage.find("gpu0", has, has)
        assert (stage.events()[-1], stage.engines.loadable) == (("succeeded",), ("qwen",))


async def test_proof_loads_nothing_that_was_in_memory_before_it_was_well_by_itself() -> None:
    async with staged() as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        none = replace(GOOD, models=(Model("qwen", is_loaded=False),))
        await stage.find("gpu0", none, none)
        assert (stage.events()[-1], stage.engines.loadable) == (("recovered",), ("qwen",))
        del stage.engines.outcomes["gpu0"]
        await stage.pass_s(60.0)
        await stage.fall("gpu0")
        await stage.find("gpu0", none, none)
        assert (stage.events()[-1], stage.engines.loadable) == (("succeeded",), ())


async def test_restart_that_nobody_could_be_asked_about_is_told_without_the_time_of_a_token() -> None:
    async with staged() as stage:
        stage.engines.proofs["gpu0"] = Proof(is_good=True, words="no model is loaded")
        await stage.fall("gpu0")
        await stage.find("gpu0", GOOD, GOOD)
        assert stage.told[-1] == ("restart.succeeded", {"backend": "gpu0", "lasted_s": 2.0, "first_content_s": None})


async def test_other_rules_hold_from_the_next_step_on() -> None:
    async with staged() as stage:
        await stage.fall("gpu0")
        stage.reload(backend("gpu0", replace(RULES, ready_s=1.0)))
        await stage.pass_s(1.0)
        assert stage.events("reason")[-1] == ("failed", f"not ready within 1s: {BAD.reason}")


# --- The end, and mistakes of our own


async def test_end_of_the_daemon_ends_what_is_under_way_and_says_so() -> None:
    async with staged(backend("gpu0", CHILD)) as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        await stage.supervisor.close()
        assert stage.events("reason")[-1] == ("failed", "the daemon is stopping")
        assert (stage.engines.asked[-1], stage.supervisor._tasks) == ("close", set())
        stage.supervisor.on_child_exit("gpu0", KILLED)
        await stage.pass_s(60.0)
        assert (await stage.supervisor.restart("gpu0")).refusal == "the daemon is stopping"
        assert stage.engines.asked.count("restart gpu0") == 1


async def test_command_under_way_may_end_before_the_daemon_does() -> None:
    async with staged() as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        closing = asyncio.ensure_future(stage.supervisor.close())
        await stage.settle()
        assert (closing.done(), stage.engines.asked) == (False, ["restart gpu0"])
        stage.engines.let.set()
        await closing
        # Its own end was heard, and the children's comes after it.
        assert (stage.probed, stage.engines.asked[-1]) == (["gpu0"], "close")


async def test_command_that_does_not_end_is_ended_with_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FINISH_S_MAX", 0.0)
    async with staged() as stage:
        stage.engines.is_held = True
        await stage.fall("gpu0")
        await stage.supervisor.close()
        assert (stage.probed, stage.supervisor._tasks) == ([], set())
        assert stage.events("reason")[-1] == ("failed", "the daemon is stopping")


async def test_daemon_that_drains_begins_no_restart_and_lets_the_one_under_way_go_on() -> None:
    async with staged(backend("gpu0"), backend("gpu1")) as stage:
        await stage.fall("gpu0")
        stage.supervisor.stop_beginning()
        assert await stage.supervisor.restart("gpu1") == RestartOrder("the daemon is stopping")
        stage.supervisor.on_barren("gpu1", "no token")
        await stage.find("gpu0", GOOD, GOOD)
        await stage.pass_s(60.0)
        assert stage.events("backend") == [("started", "gpu0"), ("refused", "gpu1"), ("succeeded", "gpu0")]


async def test_mistake_of_our_own_counts_as_a_restart_that_failed() -> None:
    told = gathered_mistakes()
    async with staged() as stage:
        stage.engines.error = RuntimeError("a mistake")
        await stage.fall("gpu0")
        assert stage.events("reason")[-1] == ("failed", "a mistake of the daemon's own, which its log tells")
        stage.engines.error = None
        await stage.pass_s(10.0)
        stage.engines.error = RuntimeError("another mistake")
        await stage.find("gpu0", GOOD, GOOD)
        assert (stage.usable(), len(told)) == ([], 2)
        stage.engines.error = None
        await stage.pass_s(5.0)
        assert stage.usable() == ["gpu0"]


async def test_status_is_there_for_those_that_can_be_restarted() -> None:
    async with staged(backend("gpu0"), backend("gpu1", None)) as stage:
        assert stage.status("gpu0")["phase"] == "watching"
        assert stage.supervisor.status("gpu1") is None
