"""Conversations in real Redis servers that are killed, hang, fail over, hand slots on and speak TLS, while they are being kept."""

import asyncio
import datetime
import ipaddress
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.process import Output, end
from support.redis_server import MASTER_NAME, RedisServer, cluster, free_port, sentinel_set
from support.redis_stage import CODEC, SESSION, is_lost, opened, recovered, said, say, soon, texts_in, texts_of
from understudy.sessions.redis_store import RedisStore
from understudy.sessions.store import HeldElsewhere, Loss, StoreError

TESTS = Path(__file__).parents[1]
HOLDER = """
import asyncio, sys
from support.redis_stage import SESSION, made

async def hold():
    store = made(sys.argv[1], lease_s=0.6)
    held = await store.hold(SESSION, 0)
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


class Load:
    """Writers that go on saying new texts in their sessions whatever fails; what was acknowledged is noted."""

    def __init__(self, stores: list[RedisStore], sessions: int = 6) -> None:
        self._stores = stores
        self.acknowledged: dict[str, list[str]] = {f"session {number}": [] for number in range(sessions)}
        self.losses: list[Loss] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many keeps have returned."""
        return sum(map(len, self.acknowledged.values()))

    async def _write(self, session: str, store: RedisStore) -> None:
        number = 0
        while True:
            number += 1
            text = f"{id(store)} {number}"
            try:
                await say(store, text, session)
            except StoreError as error:
                self.losses.append(error.loss)
                await asyncio.sleep(0.02)
            else:
                self.acknowledged[session].append(text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write as long as the play is inside; every session is written through every store."""
        async with asyncio.TaskGroup() as tasks:
            writers = [tasks.create_task(self._write(session, store)) for session in self.acknowledged for store in self._stores]
            try:
                yield
            finally:
                for writer in writers:
                    writer.cancel()

    async def more(self, count: int = 40) -> None:
        """Wait for so many further keeps."""
        wanted = self.count + count
        await soon(lambda: self.count >= wanted, f"{count} more keeps; losses: {self.losses[-5:]}", timeout_s=20.0)

    async def verify(self) -> None:
        """Check that everything acknowledged is there, once, and that each writer's own is in order."""
        for session, texts in self.acknowledged.items():
            there = await texts_in(self._stores[0], session)
            assert len(set(there)) == len(there), "nothing is doubled"
            assert set(texts) <= set(there), "nothing that was acknowledged is lost"
            assert [text for text in there if text in set(texts)] == texts or len(self._stores) > 1


async def test_nothing_acknowledged_is_lost_when_redis_is_killed_and_comes_back() -> None:
    with RedisServer() as server:
        async with opened(server.url) as one, opened(server.url) as other:
            load = Load([one, other])
            async with load.running():
                for _ in range(2):
                    await load.more()
                    await asyncio.to_thread(server.kill)
                    await soon(lambda: load.losses, "somebody has noticed")
                    await asyncio.to_thread(server.start)
                await load.more()
            assert set(load.losses) <= {Loss.UNAVAILABLE, Loss.SLOW}
            await load.verify()


async def test_redis_that_hangs_for_a_while_is_used_again_and_nothing_acknowledged_is_lost() -> None:
    with RedisServer(is_tcp=True) as server:
        async with opened(server.url, timeout_s=0.3) as one, opened(server.url, timeout_s=0.3) as other:
            load = Load([one, other])
            async with load.running():
                await load.more()
                server.freeze()
                await soon(lambda: len(load.losses) > 6, "everybody has noticed")
                server.thaw()
                await load.more()
            assert set(load.losses) == {Loss.SLOW}
            await load.verify()


async def test_the_session_of_a_killed_process_is_free_when_its_lease_ends() -> None:
    with RedisServer() as server:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, server.url],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": f"{TESTS}:{TESTS.parent / 'src'}", "PATH": "/usr/bin"},
        )
        assert holder.stdout is not None
        output = Output(holder.stdout, "holder")
        try:
            await asyncio.to_thread(output.wait_line, lambda line: line == "held", 20.0)
            async with opened(server.url) as store:
                with pytest.raises(HeldElsewhere):
                    await store.hold(SESSION, 0.7)
                holder.send_signal(signal.SIGKILL)
                await (await store.hold(SESSION, 10.0)).release()
        finally:
            end(holder)
            output.close()


async def test_a_failover_to_the_replica_loses_nothing_acknowledged() -> None:
    with sentinel_set(1) as (master, replica, (sentinel,)):
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/{MASTER_NAME}"
        async with opened(url) as one, opened(url) as other:
            load = Load([one, other])
            async with load.running():
                await load.more()
                await asyncio.to_thread(master.kill)
                await soon(lambda: sentinel.master_port() == replica.port, "the replica is the master", timeout_s=20.0)
                await load.more()
            assert Loss.REFUSED not in load.losses
            await load.verify()
            assert replica.ask("DBSIZE") >= len(load.acknowledged)


async def test_a_master_that_hangs_is_left_and_comes_back_as_a_replica() -> None:
    """Connections to it stay open, so that only asking the Sentinels tells that it is the master no more."""
    with sentinel_set(1) as (master, replica, (sentinel,)):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER_NAME}"
        async with opened(url, timeout_s=0.3) as store, opened(url, timeout_s=0.3) as idle:
            await say(store, "one")
            # As many connections as there are sessions held at once.
            held = await asyncio.gather(*(idle.hold(f"session {number}", 0) for number in range(20)))
            await asyncio.gather(*(hold.release() for hold in held))
            master.freeze()
            await is_lost(Loss.SLOW, store.hold(SESSION, 0))
            await soon(lambda: sentinel.master_port() == replica.port, "the replica is the master", timeout_s=20.0)
            await say(store, "two")
            master.thaw()
            await soon(lambda: master.ask("ROLE")[0] == b"slave", "the old master follows the new one", timeout_s=20.0)
            await (await recovered(idle, timeout_s=1.5)).release()
            await say(idle, "three")
            assert await texts_in(store) == ["one", "two", "three"]


async def test_a_cluster_keeps_each_conversation_where_it_belongs() -> None:
    with cluster() as nodes:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with opened(url) as one, opened(url + "?replicas=0") as other:
            load = Load([one, other])
            async with load.running():
                await load.more()
                hold = await one.hold(SESSION, 10.0)
                await asyncio.to_thread(move_slot, nodes, f"understudy:{{{CODEC.name(SESSION)}}}:s")
                await hold.keep(said(*texts_of(hold.conversation), "moved"))
                await hold.release()
                await load.more()
            await load.verify()
            assert load.losses == []
            assert (await texts_in(other))[-1] == "moved"
            for number in range(40):
                await say(one, "hello", f"more {number}")
            assert all(node.ask("DBSIZE") > 0 for node in nodes)
            wanted = {*load.acknowledged, SESSION, *(f"more {number}" for number in range(40))}
            found, cursor, is_begun = [], "", False
            while cursor or not is_begun:
                page, is_begun = await other.page(cursor, 10), True
                found += [summary.session for summary in page.summaries]
                cursor = page.cursor
            assert set(found) == wanted
            assert (await one.sweep()).sessions == len(wanted)
            await loses_a_node_and_gets_it_back(load, nodes)


async def loses_a_node_and_gets_it_back(load: Load, nodes: list[RedisServer]) -> None:
    load.losses.clear()
    async with load.running():
        await asyncio.to_thread(nodes[0].kill)
        await soon(lambda: load.losses, "somebody has noticed")
        await asyncio.to_thread(nodes[0].start)
        await load.more()
    await load.verify()


def move_slot(nodes: list[RedisServer], key: str) -> None:
    """Hand the slot of a key on to the next node, as `redis-cli --cluster reshard` does."""
    slot = nodes[0].ask("CLUSTER KEYSLOT", key)
    source = next(node for node in nodes if node.ask("CLUSTER COUNTKEYSINSLOT", slot))
    target = nodes[(nodes.index(source) + 1) % len(nodes)]
    names = {node: node.ask("CLUSTER MYID").decode() for node in (source, target)}
    target.ask("CLUSTER SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER SETSLOT", slot, "MIGRATING", names[target])
    keys = source.ask("CLUSTER GETKEYSINSLOT", slot, 10)
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source, *nodes):
        node.ask("CLUSTER SETSLOT", slot, "NODE", names[target])


# --- TLS


def certificate(folder: Path, name: str, issuer: tuple[x509.Certificate, Any] | None = None) -> tuple[x509.Certificate, Any]:
    """Write NAME.crt and NAME.key, of an authority where no issuer is given, else of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(issuer[0].subject if issuer else subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    return made, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, "ca")
    certificate(folder, "server", authority)
    certificate(folder, "client", authority)
    certificate(folder, "other")
    return folder


@pytest.fixture
def tls_server(certificates: Path) -> Iterator[RedisServer]:
    options = {"tls-port": "PORT", "tls-auth-clients": "yes", "tls-ca-cert-file": str(certificates / "ca.crt")}
    files = {"tls-cert-file": str(certificates / "server.crt"), "tls-key-file": str(certificates / "server.key")}
    with RedisServer({**options, **files}, is_tcp=True) as server:
        yield server


async def test_tls_shows_who_we_are_and_checks_whom_we_talk_to(tls_server: RedisServer, certificates: Path) -> None:
    place = f"rediss://127.0.0.1:{tls_server.port}"
    ours = f"cert={certificates}/client.crt&key={certificates}/client.key"
    for query in (f"ca={certificates}/ca.crt&{ours}", f"verify=false&{ours}"):
        async with opened(f"{place}?{query}") as store:
            await say(store, query)
            assert (await texts_in(store))[-1] == query
    # A stranger's certificate, a name that it does not have, none of ours, and no TLS at all.
    by_name = f"rediss://localhost:{tls_server.port}?ca={certificates}/ca.crt&{ours}"
    refused = (f"{place}?ca={certificates}/other.crt&{ours}", by_name, f"{place}?ca={certificates}/ca.crt")
    for url in refused:
        async with opened(url) as store:
            await is_lost(Loss.REFUSED, store.hold(SESSION, 0))
    async with opened(f"redis://127.0.0.1:{tls_server.port}") as store:
        await is_lost(Loss.UNAVAILABLE, store.hold(SESSION, 0))
