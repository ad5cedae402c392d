"""Plays of keeping models warm over real sockets, against an Ollama that holds what it is asked to hold."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

from support.asked import AskedServer, reply
from understudy.controlplane.warmer import Warmer
from understudy.core.snapshot import (
    Address,
    Backend,
    BackendState,
    Condition,
    Duty,
    EngineKind,
    Model,
    Published,
    RoutingPlan,
    RoutingSnapshot,
    Target,
)
from understudy.core.tally import Tally
from understudy.core.upkeep import WarmRules

MODELS = (("chat", "qwen:0.5b"),)


class Ollama(AskedServer):
    """Holds models; `holds` back the answer to a load until it is set again. `bodies` are those of the loads."""

    def __init__(self, *names: str) -> None:
        super().__init__({"/api/ps": self._ps, "/api/generate": self._generate})
        self.names = names
        self.loaded: set[str] = set()
        self.bodies: list[dict[str, object]] = []
        self.refusal = ""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.left = asyncio.Event()

    @property
    def models(self) -> tuple[Model, ...]:
        """The lists as a probe would have read them."""
        return tuple(
            Model(name, "", '{"size": 400}', '{"size": 500}' if name in self.loaded else "", name in self.loaded)
            for name in self.names
        )

    async def _ps(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply({"models": [{"name": name, "expires_at": "2026-08-26T10:00:00Z"} for name in self.loaded]}))

    async def _generate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readuntil(b"}")
        self.bodies.append(json.loads(body))
        async with asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(reader.read())
            let = tasks.create_task(self.may_answer.wait())
            await asyncio.wait((gone, let), return_when=asyncio.FIRST_COMPLETED)
            for task in (gone, let):
                task.cancel()
        if gone.done() and not gone.cancelled():
            self.left.set()
            return
        if self.refusal:
            writer.write(reply({"error": self.refusal}, 500))
            return
        self.loaded.add(str(self.bodies[-1]["model"]))
        writer.write(reply({"model": self.bodies[-1]["model"], "response": "", "done": True, "done_reason": "load"}))


class Stage:
    """A warmer for one backend; the play publishes what the probes would have found."""

    def __init__(self, ollama: Ollama, *models: str, load_s_max: float = 600.0) -> None:
        self.ollama = ollama
        self.now_s = 1000.0
        self.told: list[tuple[str, dict[str, object]]] = []
        self.looked: list[str] = []
        self.left_cold: list[tuple[str, ...]] = []
        address = Address("http", "127.0.0.1", ollama.port)
        self.backend = Backend("pi", address, EngineKind.OLLAMA, models=MODELS, warm=WarmRules(models))
        self.state = BackendState(Condition.UP, engine=EngineKind.OLLAMA)
        self.published = Published(RoutingSnapshot(0, RoutingPlan(()), ()))
        self.tally = Tally()
        self.warmer = Warmer(
            self.published,
            self.tally,
            clock=lambda: self.now_s,
            tell=lambda event, fields: self.told.append((event, fields)),
            look=self.looked.append,
            leave_cold=lambda _name, models: self.left_cold.append(models),
            load_s_max=load_s_max,
        )

    def tick(self, **changes: object) -> None:
        """Publish the backend as it is, its state changed by `changes`, and let half a second pass."""
        self.state = replace(self.state, models=self.ollama.models, **changes)  # type: ignore[arg-type]  # named by the play
        target = Target(self.backend, self.state)
        self.published.current = RoutingSnapshot(1, RoutingPlan((self.backend,)), (target,))
        self.now_s += 0.5
        self.warmer.tick()

    async def done(self) -> None:
        """Wait for the load that is under way."""
        if self.warmer._task is not None:
            await asyncio.wait((self.warmer._task,))
            # Its own callbacks come in the same turn of the loop.
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def staged(*models: str, load_s_max: float = 600.0) -> AsyncIterator[Stage]:
    async with Ollama("qwen:0.5b", "bge:latest") as ollama:
        stage = Stage(ollama, *models, load_s_max=load_s_max)
        yield stage
        await stage.warmer.close()


async def test_the_named_model_is_loaded_under_the_backends_own_name_and_told() -> None:
    async with staged("chat") as stage:
        stage.tick()
        assert stage.warmer.status("pi") == {
            "is_warm": False,
            "models": {"chat": {"is_warm": False, "is_loading": True, "reason": ""}},
        }
        await stage.done()
        assert stage.ollama.bodies == [{"model": "qwen:0.5b", "keep_alive": "1200s", "stream": False}]
        assert stage.told == [("backend.warmed", {"backend": "pi", "model": "chat", "took_s": 0.0})]
        assert stage.looked == ["pi"]
        stage.tick()
        assert stage.warmer.status("pi") == {
            "is_warm": True,
            "models": {"chat": {"is_warm": True, "is_loading": False, "reason": ""}},
        }
        assert stage.warmer.status("other") is None


async def test_a_backend_that_names_no_models_is_asked_nothing() -> None:
    async with staged() as stage:
        stage.tick()
        stage.warmer.on_exchange("chat")
        assert stage.warmer.status("pi") is None
        assert stage.ollama.asked == []


async def test_models_are_loaded_one_after_the_other() -> None:
    async with staged("chat", "bge") as stage:
        for _ in range(2):
            stage.tick()
            stage.tick()
            await stage.done()
        assert [body["model"] for body in stage.ollama.bodies] == ["qwen:0.5b", "bge:latest"]
        assert stage.ollama.at_once_most == 1


async def test_a_refusal_is_told_with_the_engines_own_words_once() -> None:
    async with staged("chat") as stage:
        stage.ollama.refusal = "model requires more system memory (44.0 GiB) than is available (7.6 GiB)"
        for _ in range(60):
            stage.tick()
            await stage.done()
        reason = f"answered 500: {stage.ollama.refusal}"
        assert stage.told == [("backend.not_warmed", {"backend": "pi", "model": "chat", "reason": reason})]
        # At once and after 10 s; the next would be 20 s later.
        assert len(stage.ollama.bodies) == 2
        status = stage.warmer.status("pi")
        assert status is not None
        assert status["models"]["chat"]["reason"] == reason


async def test_a_backend_that_does_not_answer_says_so_in_the_words_of_probes() -> None:
    async with staged("chat") as stage:
        stage.ollama._server.close()
        await stage.ollama._server.wait_closed()
        stage.tick()
        await stage.done()
        assert stage.told[0][1]["reason"] == "refused the connection"


async def test_a_load_is_bounded_in_time() -> None:
    async with staged("chat", load_s_max=0.05) as stage:
        stage.ollama.may_answer.clear()
        stage.tick()
        await stage.done()
        assert stage.told[0][1]["reason"] == "was not loaded within 0.05s"
        await stage.ollama.left.wait()


async def test_a_load_ends_when_the_backend_goes_into_maintenance_and_begins_again_afterwards() -> None:
    async with staged("chat") as stage:
        stage.ollama.may_answer.clear()
        stage.tick()
        await stage.ollama.wait_asked(2)
        stage.tick(duty=Duty.MAINTENANCE)
        await stage.done()
        await stage.ollama.left.wait()
        stage.ollama.may_answer.set()
        stage.tick()
        assert stage.warmer._task is None
        stage.tick(duty=Duty.READY)
        await stage.done()
        assert [event for event, _ in stage.told] == ["backend.warmed"]


async def test_a_reload_ends_the_load_of_a_backend_that_is_another_one_now() -> None:
    async with staged("chat") as stage:
        stage.ollama.may_answer.clear()
        stage.tick()
        await stage.ollama.wait_asked(2)
        stage.backend = replace(stage.backend, warm=WarmRules())
        stage.tick()
        await stage.done()
        await stage.ollama.left.wait()
        assert stage.told == []


async def test_nothing_is_loaded_while_an_exchange_is_in_flight_there() -> None:
    async with staged("chat") as stage:
        stage.tally.begin("pi", is_trial=False)
        stage.tick()
        assert stage.ollama.asked == []
        stage.tally.end("pi", is_trial=False)
        stage.tick()
        await stage.done()
        assert len(stage.ollama.bodies) == 1


async def test_an_exchange_under_either_writing_of_the_name_brings_back_what_was_let_go() -> None:
    async with staged("bge") as stage:
        stage.tick()
        await stage.done()
        stage.tick()
        stage.now_s += 2 * 1800.0
        stage.ollama.loaded.clear()
        stage.tick()
        assert len(stage.ollama.bodies) == 1
        stage.warmer.on_exchange("bge:latest")
        stage.tick()
        await stage.done()
        assert len(stage.ollama.bodies) == 2


async def test_a_vllm_that_sleeps_is_woken_although_it_is_down() -> None:
    gauge = 'vllm:engine_sleep_state{{sleep_state="awake"}} {}\n'
    async with staged("m") as stage:
        engine = stage.ollama

        async def wake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            engine.answers["/metrics"] = reply(gauge.format("1.0").encode())
            engine.names = ("m",)
            writer.write(reply())

        engine.answers.update({"/metrics": reply(gauge.format("0.0").encode()), "/wake_up": wake})
        engine.names, engine.loaded = ("m",), {"m"}
        stage.backend = replace(stage.backend, engine=EngineKind.VLLM, models=(), api_key="secret")
        # The conversation looks again after a second.
        stage.tick(condition=Condition.DOWN, engine=EngineKind.VLLM, is_asleep=True)
        await stage.done()
        assert [event for event, _ in stage.told] == ["backend.warmed"]
        assert engine.asked == ["/metrics", "/wake_up", "/metrics"]
        assert all(b"bearer secret" in head.lower() for head in engine.heads)


async def test_nothing_begins_after_the_close_and_what_is_under_way_ends() -> None:
    async with staged("chat") as stage:
        stage.ollama.may_answer.clear()
        stage.tick()
        await stage.ollama.wait_asked(2)
        await stage.warmer.close()
        await stage.ollama.left.wait()
        stage.tick()
        assert stage.warmer._task is None


async def test_routing_is_told_when_a_model_is_not_about_to_be_loaded_and_only_when_that_changes() -> None:
    async with staged("chat", "bge") as stage:
        stage.ollama.refusal = "requires more system memory"
        stage.tick()
        await stage.done()
        assert stage.left_cold == []
        stage.tick()
        assert stage.left_cold == [("chat",)]
        stage.tick(left_cold=("chat",))
        assert stage.left_cold == [("chat",)]
