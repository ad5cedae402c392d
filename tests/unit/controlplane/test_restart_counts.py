"""Plays of what survives the daemon, with a real supervisor and a real file: counts, and that a person is needed."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from support.restart_play import BAD, BOOM, GOOD, RULES, Stage, backend, staged
from support.rollout_play import HeldFile
from understudy.controlplane.means import Proof, RestartOrder
from understudy.controlplane.state_file import (
    RESTARTS,
    StateFile,
    StateUnreadableError,
    decode_restarts,
    encode_restarts,
    state_path,
)
from understudy.core.restart_kept import Kept
from understudy.core.shortlist import is_usable


async def test_restarts_are_counted_across_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "state" / "restarts.json"
    for times in (1, 2, 3):
        async with staged(path=path, now_s=100.0 * times, wall_s=1.8e9 + 60.0 * times) as stage:
            stage.engines.outcomes["gpu0"] = BOOM
            await stage.fall("gpu0")
            assert stage.events("nth")[0] == ("started", times)
    assert stage.events("next_in_s")[1:] == [("failed", None), ("gave_up", None)]
    async with staged(path=path, now_s=1.0, wall_s=1.8e9 + 300.0) as stage:
        await stage.fall("gpu0")
        assert (stage.events(), stage.status("gpu0")["phase"]) == ([("recovered",), ("gave_up",)], "gave_up")


@pytest.mark.parametrize("next_one", ["gives a token", "gives none", "fails its probes"])
async def test_backend_that_was_given_up_gets_nothing_from_the_next_daemon_before_it_has_proven_itself(
    tmp_path: Path, next_one: str
) -> None:
    path, rules = tmp_path / "restarts.json", replace(RULES, times_max=1)
    async with staged(backend("gpu0", rules), path=path) as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        assert stage.events()[-1] == ("gave_up",)
    after = Stage(backend("gpu0", rules), file=StateFile(path), now_s=7.0, wall_s=1.8e9 + 60.0)
    assert after.state("gpu0").is_restarting
    if next_one == "gives none":
        after.engines.proofs["gpu0"] = Proof(is_good=False, words="no token within 3s")
    await after.find("gpu0", *[BAD if next_one == "fails its probes" else GOOD] * 400)
    (one,) = after.published.current.targets
    told = [values for _, *values in after.events("reason", "taken_out")]
    assert (after.events()[1:], is_usable(one)) == ([], next_one == "gives a token")
    assert (after.events()[0], told[0]) == {
        "gives a token": (("recovered",), [None, None]),
        "gives none": (("gave_up",), ["it answers its health check and generates nothing: no token within 3s", True]),
        "fails its probes": (("gave_up",), [BAD.reason, True]),
    }[next_one]
    await after.supervisor.close()
    assert decode_restarts(path.read_bytes())["gpu0"].is_out == (next_one != "gives a token")


async def test_restart_is_counted_before_the_means_are_used(tmp_path: Path) -> None:
    """They may end this very machine."""
    disk = HeldFile(tmp_path / "restarts.json")
    stage = Stage(file=disk)
    assert await stage.supervisor.restart("gpu0") == RestartOrder()
    for _ in range(20):
        await asyncio.sleep(0)
    assert (stage.left, stage.engines.asked) == ([], [])
    disk.is_let.set()
    await stage.settle()
    assert stage.engines.asked == ["restart gpu0"]
    assert len(decode_restarts(disk.writes[0])["gpu0"].begun_unix_s) == 1
    await stage.supervisor.close()


async def test_wall_clock_that_jumps_changes_no_pause_and_no_count(tmp_path: Path) -> None:
    path = tmp_path / "restarts.json"
    async with staged(path=path) as stage:
        stage.engines.outcomes["gpu0"] = BOOM
        await stage.fall("gpu0")
        stage.wall_s += 10 * 365 * 86400.0
        await stage.pass_s(9.0)
        assert (stage.status("gpu0")["times"], stage.events()[-1]) == (1, ("failed",))
        await stage.settle()
        (at_unix_s,) = decode_restarts(path.read_bytes())["gpu0"].begun_unix_s
        assert stage.wall_s - at_unix_s < 12.0


@pytest.mark.parametrize("content", [b"", b'{"version": 2}', b'{"version": 1, "restarts": {"gpu0": {"begun_unix_s": ["now"]}}}'])
def test_file_that_cannot_be_read_says_so(content: bytes) -> None:
    with pytest.raises(StateUnreadableError):
        decode_restarts(content)


def test_file_says_what_was_kept_beside_the_rollout_s() -> None:
    restarts = {"gpu0": Kept((1.8e9, 1.8e9 + 0.5), has_given_up=True, is_out=True), "gpu1": Kept()}
    assert decode_restarts(encode_restarts(restarts)) == restarts
    before = b'{"version": 1, "restarts": {"gpu0": {"begun_unix_s": [], "has_given_up": true}}}'
    assert decode_restarts(before) == {"gpu0": Kept(has_given_up=True)}
    env = {"HOME": "/home/pi"}
    rollout, counted = (state_path(env, Path("/etc/u.yaml"), *what) for what in ((), (RESTARTS,)))
    assert rollout is not None
    assert counted == rollout.with_name(rollout.name.replace("rollout-", "restarts-"))
