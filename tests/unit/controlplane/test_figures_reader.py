"""Plays of reading figures over time: real sockets, short intervals."""

import asyncio
import contextlib
import gzip
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from support.asked import AskedServer, Reply, reply
from understudy.controlplane.figures_reader import FiguresReader
from understudy.controlplane.publisher import first_snapshot
from understudy.core.snapshot import Address, Backend, BackendState, Duty, HealthRules, Published, RoutingPlan
from understudy.core.tally import Tally
from understudy.engines.contract import PROBE_BODY_BYTES_MAX
from understudy.engines.figures import Figures

# Without the time, which would give the play another name in every process.
ZIPPED = gzip.compress(b"up 1\n", mtime=0)

QUICK = HealthRules(interval_s=0.02, timeout_s=5.0)
BUSY = reply(b"vllm:num_requests_running 5\nvllm:num_requests_waiting 2\n")
GPU = reply(b"DCGM_FI_DEV_GPU_UTIL 40\n")


class Stage:
    """A reader at work on a plan; `until` waits for something to be so."""

    def __init__(self, *backends: Backend) -> None:
        self.published = Published(first_snapshot(RoutingPlan(backends)))
        self.tally = Tally()
        self.events: list[tuple[str, dict[str, object]]] = []
        loop = asyncio.get_running_loop()
        self.reader = FiguresReader(self.published, self.tally, loop.time, lambda: 0.5, self.tell, interval_s_min=0.0)

    def tell(self, event: str, fields: dict[str, object]) -> None:
        self.events.append((event, fields))

    def told(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == event]

    def figures(self, name: str = "b") -> Figures | None:
        reading = self.reader.readings().get(name)
        return reading.figures if reading is not None else None

    def set_state(self, **changes: object) -> None:
        """Publish another state of every backend."""
        snapshot = self.published.current
        state = replace(BackendState(), **changes)  # type: ignore[arg-type] # of any field
        self.published.current = replace(snapshot, targets=tuple(replace(one, state=state) for one in snapshot.targets))

    def reload(self, *backends: Backend) -> None:
        self.published.current = first_snapshot(RoutingPlan(backends))
        self.reader.on_plan_change()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 # a reader has no event for every change of what it keeps
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def reading(*backends: Backend) -> AsyncIterator[Stage]:
    stage = Stage(*backends)
    running = asyncio.ensure_future(stage.reader.run())
    try:
        yield stage
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def backend(server: AskedServer, name: str = "b", *, health: HealthRules = QUICK, url: str = "", key: str = "") -> Backend:
    address = Address("http", "127.0.0.1", server.port)
    return Backend(name, address, health=health, metrics_url=url or f"http://127.0.0.1:{server.port}/metrics", api_key=key)


async def test_the_newest_figures_are_kept_and_go_to_the_balances() -> None:
    async with AskedServer({"/metrics": BUSY}) as server, reading(backend(server)) as stage:
        await until(lambda: stage.figures() == Figures(running=5, waiting=2))
        assert (stage.tally.of("b").queued_elsewhere, stage.tally.of("b").queued) == (7, 2)
        server.answers["/metrics"] = reply(b"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n")
        await until(lambda: stage.tally.of("b").queued_elsewhere == 1)
        assert stage.tally.of("b").queued == 0
    assert stage.events == []
    assert stage.tally.of("b").queued_elsewhere == 0


async def test_what_is_ours_is_not_counted_as_others() -> None:
    async with AskedServer({"/metrics": BUSY}) as server:
        one = backend(server)
        stage = Stage(one)
        for _ in range(4):
            stage.tally.begin("b", is_trial=False)
        running = asyncio.ensure_future(stage.reader.run())
        await until(lambda: stage.tally.of("b").queued_elsewhere == 3)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_figures_of_a_gpu_alone_say_nothing_of_the_queue() -> None:
    async with AskedServer({"/metrics": GPU}) as server, reading(backend(server)) as stage:
        await until(lambda: stage.figures() == Figures(gpu_busy=0.4))
        assert stage.tally.of("b").queued_elsewhere == 0


async def test_a_backend_without_a_url_is_never_asked() -> None:
    async with AskedServer({"/metrics": BUSY}) as server:
        other = replace(backend(server, "other"), metrics_url="")
        async with reading(backend(server), other) as stage:
            await server.wait_asked(3)
            assert stage.figures("other") is None
    assert set(server.asked) == {"/metrics"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(b"", 401), "answered 401"),
        (reply(b"", 302, Location="/elsewhere"), "answered 302"),
        (reply(b"up 1\n"), "its text has no figure that is known here"),
        (
            reply(ZIPPED, status=200, **{"Content-Encoding": "gzip"}),
            "came compressed, which was not asked for",
        ),
        (reply(b"up 1\n", status=200, **{"Content-Encoding": "identity"}), "its text has no figure that is known here"),
        (reply(b"\xff\x00" * 100), "its text has no figure that is known here"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", "broke off in the middle of its answer"),
        (reply(b"#" * PROBE_BODY_BYTES_MAX), "gave a text of more than 4 MiB"),
    ],
)
async def test_lost_figures_are_told_once_and_forgotten_and_so_is_their_return(answer: Reply, reason: str) -> None:
    async with AskedServer({"/metrics": BUSY}) as server, reading(backend(server)) as stage:
        await until(lambda: stage.tally.of("b").queued_elsewhere == 7)
        server.answers["/metrics"] = answer
        await until(lambda: stage.told("backend.lost_figures") != [])
        assert (stage.figures(), stage.tally.of("b").queued_elsewhere, stage.tally.of("b").queued) == (None, 0, 0)
        await server.wait_asked(len(server.asked) + 3)
        server.answers["/metrics"] = BUSY
        await until(lambda: stage.figures() is not None)
        assert stage.told("backend.lost_figures") == [{"backend": "b", "reason": reason}]
        (regained,) = stage.told("backend.regained_figures")
        assert regained["backend"] == "b"
        lost_for_s = regained["lost_for_s"]
        assert isinstance(lost_for_s, float)
        assert lost_for_s >= 0.0


async def test_a_url_that_never_answered_is_told_of_too() -> None:
    async with AskedServer() as server, reading(backend(server)) as stage:
        await until(lambda: stage.told("backend.lost_figures") == [{"backend": "b", "reason": "answered 404"}])


async def test_one_failed_reading_is_no_news() -> None:
    async with AskedServer({"/metrics": BUSY}) as server:
        slower = replace(QUICK, interval_s=0.1)
        async with reading(backend(server, health=slower)) as stage:
            await until(lambda: stage.figures() is not None)
            server.answers["/metrics"] = reply(b"", 500)
            await server.wait_asked(2)
            server.answers["/metrics"] = BUSY
            await server.wait_asked(4)
            await until(lambda: stage.figures() is not None)
            assert stage.events == []


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_a_silent_url_is_given_up_after_the_time_of_a_probe() -> None:
    health = replace(QUICK, timeout_s=0.05)
    async with AskedServer({"/metrics": silent}) as server, reading(backend(server, health=health)) as stage:
        await until(lambda: stage.told("backend.lost_figures") == [{"backend": "b", "reason": "no answer within 0.05s"}])


@pytest.mark.parametrize("changes", [{"duty": Duty.MAINTENANCE}, {"is_restarting": True}], ids=["maintenance", "restart"])
async def test_a_backend_that_is_taken_out_is_left_in_peace(changes: dict[str, object]) -> None:
    async with AskedServer({"/metrics": BUSY}) as server, reading(backend(server)) as stage:
        await until(lambda: stage.figures() is not None)
        stage.set_state(**changes)
        await until(lambda: stage.figures() is None)
        assert stage.tally.of("b").queued_elsewhere == 0
        stage.set_state()
        await until(lambda: stage.figures() is not None)
        assert stage.events == []


async def test_a_reload_ends_what_is_gone_and_begins_what_is_new() -> None:
    async with AskedServer({"/metrics": BUSY}) as server, reading(backend(server)) as stage:
        await until(lambda: stage.figures() is not None)
        stage.reload(backend(server, "new"))
        await until(lambda: stage.figures("new") is not None)
        assert set(stage.reader.readings()) == {"new"}
        assert stage.tally.of("b").queued_elsewhere == 0


async def test_the_key_goes_to_the_backend_and_to_nobody_else() -> None:
    async with AskedServer({"/metrics": BUSY}) as server, AskedServer({"/gpus": GPU}) as exporter:
        theirs = f"http://127.0.0.1:{exporter.port}/gpus"
        async with reading(backend(server, key="secret"), backend(server, "c", url=theirs, key="secret")) as stage:
            await until(lambda: set(stage.reader.readings()) == {"b", "c"})
    assert b"\r\nauthorization: bearer secret\r\n" in server.heads[0].lower()
    assert b"authorization" not in exporter.heads[0].lower()


async def test_a_query_and_a_password_of_the_url_are_sent() -> None:
    async with AskedServer({"/federate?match%5B%5D=DCGM_FI_DEV_GPU_UTIL": GPU}) as server:
        url = f"http://prom:pa%40ss@127.0.0.1:{server.port}/federate?match[]=DCGM_FI_DEV_GPU_UTIL"
        async with reading(backend(server, url=url, key="secret")) as stage:
            await until(lambda: stage.figures() is not None)
    basic = b"\r\nauthorization: basic " + b64encode(b"prom:pa@ss").lower() + b"\r\n"
    assert basic in server.heads[0].lower()


async def test_readings_are_two_seconds_apart_however_often_probes_are() -> None:
    """llama.cpp does not notice clients that left while it is asked more often than once a second."""
    loop = asyncio.get_running_loop()
    async with AskedServer({"/metrics": BUSY}) as server:
        stage = Stage(backend(server))
        reader = FiguresReader(stage.published, stage.tally, loop.time, lambda: 0.0, stage.tell)
        running = asyncio.ensure_future(reader.run())
        await until(lambda: stage.tally.of("b").queued_elsewhere == 7)
        # Fifteen intervals of its probes.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await server.wait_asked(2)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert len(server.asked) == 1
