"""Plays of children: real small processes under the names of backends."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvloop

from support.alive import is_alive
from support.running import eventually
from understudy.controlplane.means import MeansOutcome
from understudy.controlplane.restart_child import LINES_PER_S_MAX, Children
from understudy.controlplane.restart_left import mark_for, mark_of
from understudy.controlplane.restart_memory import MemoryKills
from understudy.controlplane.restart_output import LINES_KEPT_MAX
from understudy.core.snapshot import Address, Backend
from understudy.core.upkeep import RestartKind, RestartRules

READY = "echo ready; exec sleep 1000"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
# Of this run alone: others on the machine look for theirs.
MARK = mark_for(f"c{os.getpid():011}")
OURS = {"PATH": os.environ["PATH"], "UNDERSTUDY_ADMIN_TOKEN": "token"}


def rules(script: str, *, grace_s: float = 10.0, folder: str = "", env: tuple[tuple[str, str], ...] = ()) -> RestartRules:
    return RestartRules(RestartKind.RUN, argv=("sh", "-c", script, "secret"), grace_s=grace_s, folder=folder, env=env)


def backend(name: str, script: str = READY, *, grace_s: float = 10.0) -> Backend:
    return Backend(name, Address("http", "127.0.0.1", 1), restart=rules(script, grace_s=grace_s))


class Stage:
    """Children, with all that is told of them."""

    def __init__(self, kills: Path | None = None) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []
        self.exits: list[tuple[str, MeansOutcome]] = []
        self.children = Children(
            self._tell, lambda name, outcome: self.exits.append((name, outcome)), OURS, MemoryKills(kills), mark=MARK
        )

    def _tell(self, event: str, fields: dict[str, object]) -> None:
        assert "secret" not in str(fields)
        self.told.append((event, fields))

    def events(self, event: str, name: str) -> list[dict[str, object]]:
        return [fields for told, fields in self.told if told == event and fields["backend"] == name]

    def pids(self, name: str) -> list[int]:
        return [int(str(fields["pid"])) for fields in self.events("child.started", name)]

    def lines(self, name: str) -> list[object]:
        return [fields["line"] for fields in self.events("child.said", name)]

    async def restart(self, name: str, rules: RestartRules) -> MeansOutcome:
        return await self.children.restart(backend(name), rules)

    async def heard(self, name: str, line: str, count: int = 1) -> None:
        await eventually(lambda: self.lines(name).count(line) >= count, f"{name}: {line}")

    async def ended(self, count: int = 1) -> tuple[str, MeansOutcome]:
        await eventually(lambda: len(self.exits) >= count, "its end")
        return self.exits[-1]


@asynccontextmanager
async def stage(kills: Path | None = None) -> AsyncIterator[Stage]:
    play = Stage(kills)
    try:
        yield play
    finally:
        await play.children.close()
        for _, fields in play.told:
            if "pid" in fields:
                assert not is_alive(int(str(fields["pid"])))


async def test_the_children_that_are_wanted_are_started_once() -> None:
    async with stage() as play:
        wanted = [backend("a"), backend("b"), Backend("c", Address("http", "127.0.0.1", 1))]
        await play.children.follow(wanted)
        await play.children.follow(wanted)
        await play.heard("a", "ready")
        await play.heard("b", "ready")
        assert [len(play.pids(name)) for name in "abc"] == [1, 1, 0]
        assert play.events("child.started", "a")[0]["program"] == "sh"
    assert not play.exits, "whoever is to end has not ended by itself"
    assert play.events("child.ended", "a") == [{"backend": "a", "reason": "sh was ended by SIGTERM", "asked": True}]


async def test_a_child_that_is_no_longer_wanted_is_ended_and_one_of_other_words_anew() -> None:
    async with stage() as play:
        await play.children.follow([backend("a"), backend("b"), backend("c")])
        await play.children.follow([backend("b", "echo other; exec sleep 1000"), backend("c", grace_s=1.0)])
        await play.heard("b", "other")
        assert not is_alive(play.pids("a")[0])
        assert not is_alive(play.pids("b")[0])
        assert is_alive(play.pids("c")[0]), "another grace is no reason to end it"
        assert len(play.pids("c")) == 1


async def test_a_child_that_ends_by_itself_is_told_and_left_to_the_supervisor() -> None:
    async with stage() as play:
        await play.children.follow([backend("a", "seq 30; echo bind: address already in use >&2; exit 7")])
        name, outcome = await play.ended()
        assert (name, outcome.is_done, outcome.words) == ("a", False, "sh ended with exit status 7")
        assert outcome.exit_status == 7
        assert outcome.output[-1] == "bind: address already in use"
        assert len(outcome.output) == LINES_KEPT_MAX
        assert not outcome.was_out_of_memory
        assert len(play.pids("a")) == 1
        assert play.events("child.ended", "a") == [{"backend": "a", "reason": outcome.words, "asked": False}]


@pytest.mark.parametrize("script", ["kill -KILL $$", "exit 137", "echo ggml: cudaMalloc failed: out of memory; exit 1"])
async def test_a_child_that_memory_ran_out_for_is_known(script: str, tmp_path: Path) -> None:
    kills = tmp_path / "memory.events"
    kills.write_text("oom_kill 1\n")
    async with stage(kills) as play:
        await play.children.follow([backend("a", f"echo oom_kill 2 >{kills}; {script}")])
        _, outcome = await play.ended()
        assert outcome.was_out_of_memory
        assert "somebody" not in outcome.words
        assert play.events("child.ended", "a")[0]["out_of_memory"] is True


async def test_a_child_that_somebody_killed_did_not_run_out_of_memory(tmp_path: Path) -> None:
    kills = tmp_path / "memory.events"
    kills.write_text("oom_kill 1\n")
    async with stage(kills) as play:
        await play.children.follow([backend("a", "kill -KILL $$")])
        _, outcome = await play.ended()
        assert not outcome.was_out_of_memory
        assert outcome.words == "sh was ended by SIGKILL (the kernel's for want of memory, or somebody's)"
        assert "out_of_memory" not in play.events("child.ended", "a")[0]


async def test_a_child_that_we_kill_raises_no_question_of_who_did(tmp_path: Path) -> None:
    async with stage() as play:
        await play.children.follow([backend("a", STUBBORN, grace_s=0.0)])
        await play.heard("a", "ready")
        await play.children.close()
        assert play.events("child.ended", "a")[0]["reason"] == "sh was ended by SIGKILL"


async def test_a_reload_leaves_what_ended_by_itself_to_the_supervisor_and_starts_what_is_told_otherwise() -> None:
    broken = Backend("b", Address("http", "127.0.0.1", 1), restart=rules(READY, folder="/no/such/folder"))
    async with stage() as play:
        await play.children.follow([backend("a", "exit 7"), broken])
        await play.ended(2)
        await play.children.follow([backend("a", "exit 7", grace_s=1.0), broken])
        assert len(play.pids("a")) == 1
        assert len(play.exits) == 2, "nothing was tried again"
        await play.children.follow([backend("a"), backend("b")])
        await play.heard("a", "ready")
        await play.heard("b", "ready")


async def test_an_ended_child_whose_group_is_gone_is_forgotten() -> None:
    async with stage() as play:
        await play.children.follow([backend("a", "exit 7")])
        await play.ended()
        await eventually(lambda: play.children._seats["a"].child is None, "its end without a rest")
        await play.restart("a", rules(READY))
        await play.heard("a", "ready")


async def test_a_restart_ends_the_old_and_starts_a_new_one() -> None:
    async with stage() as play:
        await play.children.follow([backend("a")])
        await play.heard("a", "ready")
        assert await play.restart("a", rules(READY)) == MeansOutcome(is_done=True)
        await play.heard("a", "ready", 2)
        old, new = play.pids("a")
        assert not is_alive(old)
        assert is_alive(new)
        assert not play.exits


@pytest.mark.parametrize("script", [READY, STUBBORN])
async def test_a_child_that_hangs_is_restarted_all_the_same(script: str) -> None:
    async with stage() as play:
        await play.children.follow([backend("a", script, grace_s=0.1)])
        await play.heard("a", "ready")
        os.kill(play.pids("a")[0], signal.SIGSTOP)
        assert (await play.restart("a", rules(script, grace_s=0.1))).is_done
        await play.heard("a", "ready", 2)
        assert not is_alive(play.pids("a")[0])


async def test_restarts_at_once_leave_one_child() -> None:
    async with stage() as play:
        await asyncio.gather(*(play.restart("a", rules(READY)) for _ in range(5)), play.children.follow([backend("a")]))
        alive = [pid for pid in play.pids("a") if is_alive(pid)]
        assert len(alive) == 1


async def test_what_a_crashed_child_left_is_ended_before_another_starts(tmp_path: Path) -> None:
    """A worker that outlives its parent holds the port and the memory that the next one needs."""
    async with stage() as play:
        worker = "(trap '' TERM; while :; do sleep 0.05; done) & echo $!; exit 1"
        await play.children.follow([backend("a", worker, grace_s=0.2)])
        pid = int((await play.ended())[1].output[0])
        assert is_alive(pid)
        await play.restart("a", rules(READY))
        assert not is_alive(pid)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (RestartRules(RestartKind.RUN, argv=("understudy-no-such-program", "secret")), "there is no such program"),
        (RestartRules(RestartKind.RUN, argv=(__file__, "secret")), "it is not executable by this user"),
        (rules(READY, folder="/no/such/folder"), "there is no folder /no/such/folder"),
    ],
)
async def test_a_child_that_cannot_be_started_says_why(wanted: RestartRules, words: str) -> None:
    async with stage() as play:
        await play.children.follow([Backend("a", Address("http", "127.0.0.1", 1), restart=wanted)])
        ((name, outcome),) = play.exits
        assert name == "a"
        assert words in outcome.words
        again = await play.restart("a", wanted)
        assert again == outcome
        assert len(play.exits) == 1, "whoever asks for a restart gets its outcome"
        assert "secret" not in again.words


async def test_a_child_is_not_started_beside_a_stranger_on_its_port() -> None:
    async with stage() as play:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            one = Backend("a", Address("http", *stranger.getsockname()), restart=rules(READY))
            await asyncio.gather(play.children.follow([one]), play.children.follow([one]))
            taken = MeansOutcome(is_done=False, words=f"port {one.address.port} is taken by another process")
            assert play.exits == [("a", taken)], "a reload leaves it to the supervisor"
            restarting = asyncio.ensure_future(play.children.restart(one, rules(READY)))
            await asyncio.wait([restarting], timeout=0.0)
        assert (await restarting).is_done, "a listener that is just going is waited for"


async def test_a_child_has_its_folder_and_its_environment_and_none_of_our_settings(tmp_path: Path) -> None:
    async with stage() as play:
        script = "pwd; echo [$UNDERSTUDY_ADMIN_TOKEN][$MODEL]"
        await play.restart("a", rules(script, folder=str(tmp_path), env=(("MODEL", "m.gguf"),)))
        await play.heard("a", str(tmp_path))
        await play.heard("a", "[][m.gguf]")


async def test_a_flood_reaches_the_log_in_measure_and_nothing_is_held_up() -> None:
    async with stage() as play:
        await play.children.follow([backend("a", "exec yes"), backend("b")])
        await play.heard("b", "ready")
        await eventually(lambda: len(play.lines("a")) > LINES_PER_S_MAX, "the second second")
        said = play.events("child.said", "a")
        assert len(said) <= 3 * LINES_PER_S_MAX
        assert any("left_out" in fields for fields in said)


@contextmanager
def left_behind(name: str, script: str = READY) -> Iterator[int]:
    """Have a process that bears the mark of a daemon that is gone; yields its pid."""
    gone = subprocess.Popen("true")
    gone.wait()
    file_id, namespace, *_ = MARK.split(":")
    env = OURS | mark_of(f"{file_id}:{namespace}:{gone.pid}:1", name)
    with subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
            yield one.pid
        finally:
            one.kill()


async def test_what_an_earlier_daemon_left_is_ended_before_the_operators_restart_and_before_a_reload_starts_a_child() -> None:
    async with stage() as play:
        with left_behind("a", STUBBORN) as left:
            following = asyncio.ensure_future(play.children.follow([backend("a", grace_s=0.2)]))
            assert (await play.restart("a", rules(READY, grace_s=0.2))).is_done
            assert not is_alive(left)
            await following
        told = [event for event, fields in play.told if event == "child.started" or fields.get("pid") == left]
        assert told[0] == "child.was_left"
        assert len([pid for pid in play.pids("a") if is_alive(pid)]) == 1


async def test_a_child_waits_for_what_was_left_of_its_own_name_alone_and_to_close_ends_all_waiting() -> None:
    with left_behind("b", STUBBORN) as left, left_behind("c") as unwanted:
        async with stage() as play:
            following = asyncio.ensure_future(play.children.follow([backend("a"), backend("b", grace_s=1000.0)]))
            await play.heard("a", "ready")
            await eventually(lambda: not is_alive(unwanted), "the end of what no backend of the file is")
            restarting = asyncio.ensure_future(play.restart("b", rules(READY, grace_s=1000.0)))
            await asyncio.wait([restarting], timeout=0.0)
            assert is_alive(left)
            assert not play.pids("b")
            async with asyncio.timeout(5.0):
                await play.children.close()
                await following
                assert (await restarting).words == "the backend is no longer wanted"
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not play.pids("b")
            assert not play.exits
            os.kill(left, signal.SIGKILL)
            await eventually(lambda: not any(is_alive(int(str(fields.get("pid", 0)))) for _, fields in play.told), "all ends")


async def test_children_start_where_nobody_can_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with stage() as play:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            await play.children.follow([backend("a")])
        await play.heard("a", "ready")


async def test_all_children_end_at_once_and_none_starts_afterwards() -> None:
    play = Stage()
    wanted = [backend(f"s{i}", STUBBORN, grace_s=0.5) for i in range(6)]
    await play.children.follow(wanted)
    for one in wanted:
        await play.heard(one.name, "ready")
    async with asyncio.timeout(3.0):
        await play.children.close()
    assert not any(is_alive(pid) for one in wanted for pid in play.pids(one.name))
    await play.children.follow([backend("late")])
    assert (await play.restart("s0", rules(READY))).words == "the backend is no longer wanted"
    assert not play.pids("late")
    assert not play.exits


async def test_a_restart_that_waits_for_a_removed_backend_starts_nothing() -> None:
    async with stage() as play:
        await play.children.follow([backend("a", STUBBORN, grace_s=0.2)])
        await play.heard("a", "ready")
        removing = asyncio.ensure_future(play.children.follow([]))
        await asyncio.wait([removing], timeout=0.0)
        outcome = await play.restart("a", rules(READY))
        await removing
        assert outcome.words == "the backend is no longer wanted"
        assert len(play.pids("a")) == 1


async def test_a_restart_that_is_given_up_halfway_leaves_a_child_that_can_be_restarted() -> None:
    async with stage() as play:
        await play.children.follow([backend("a", STUBBORN, grace_s=30.0)])
        await play.heard("a", "ready")
        restarting = asyncio.ensure_future(play.restart("a", rules(READY)))
        await asyncio.wait([restarting], timeout=0.0)
        restarting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restarting
        os.kill(play.pids("a")[0], signal.SIGKILL)
        assert (await play.restart("a", rules(READY))).is_done
        assert len(play.pids("a")) == 2


async def test_a_child_that_a_given_up_restart_told_to_stop_is_started_anew_by_the_next_reload() -> None:
    async with stage() as play:
        slow = "trap 'sleep 0.2; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
        await play.children.follow([backend("a", slow)])
        await play.heard("a", "ready")
        restarting = asyncio.ensure_future(play.restart("a", rules(slow)))
        await asyncio.wait([restarting], timeout=0.0)
        restarting.cancel()
        await play.children.follow([backend("a", slow)])
        await play.heard("a", "ready", 2)
        assert is_alive(play.pids("a")[1])


async def test_a_child_that_comes_back_to_the_file_is_started_again() -> None:
    async with stage() as play:
        for wanted in ([backend("a")], [], [backend("a")]):
            await play.children.follow(wanted)
        assert len(play.pids("a")) == 2
        assert is_alive(play.pids("a")[1])


def test_children_live_and_end_under_uvloop() -> None:
    async def play_all() -> None:
        async with stage() as play:
            await play.children.follow([backend("a"), backend("b", "exit 3")])
            await play.heard("a", "ready")
            name, outcome = await play.ended()
            assert (name, outcome.exit_status) == ("b", 3)
            assert (await play.restart("a", rules(READY))).is_done

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play_all())
