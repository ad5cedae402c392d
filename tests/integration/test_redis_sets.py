"""Conversations in real Redis servers that are killed, hang, fail over, hand slots on and speak TLS while they are kept."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
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
from support.redis_server import MASTER_NAME, SLOTS, RedisServer, cluster, free_port, offset, sentinel_set
from support.redis_stage import CODEC, SESSION, is_lost, opened, said, say, soon, texts_in, texts_of
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
        self._written = 0

    @property
    def count(self) -> int:
        """How many keeps have returned."""
        return sum(map(len, self.acknowledged.values()))

    async def _write(self, session: str, store: RedisStore) -> None:
        while True:
            self._written += 1
            text = f"{self._stores.index(store)} said {self._written}"
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

    async def more(self, count: int = 100) -> None:
        """Wait for so many further keeps."""
        wanted = self.count + count
        await soon(lambda: self.count >= wanted, f"{count} more keeps; losses: {self.losses[-5:]}", timeout_s=20.0)

    async def verify(self) -> None:
        """Check that everything acknowledged is there, once, and each writer's own in its order."""
        for session, texts in self.acknowledged.items():
            there = await texts_in(self._stores[0], session)
            assert len(set(there)) == len(there), "nothing is doubled"
            assert set(texts) <= set(there), "nothing that was acknowledged is lost"
            by_store = [[text for text in texts if text.startswith(f"{number} ")] for number in range(len(self._stores))]
            for own in by_store:
                assert [text for text in there if text in own] == own


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


def start_holder(url: str) -> subprocess.Popen[bytes]:
    path = f"{TESTS}:{TESTS.parent / 'src'}"
    return subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})


async def test_the_session_of_a_killed_process_is_free_when_its_lease_ends() -> None:
    with RedisServer() as server:
        holder = start_holder(server.url)
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


async def test_a_failover_loses_nothing_acknowledged_where_a_replica_is_waited_for() -> None:
    with sentinel_set(2) as (master, replicas, sentinel):
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/{MASTER_NAME}?replicas=1"
        async with opened(url) as one, opened(url) as other:
            load = Load([one, other])
            async with load.running():
                await load.more()
                await asyncio.to_thread(master.kill)
                await soon(lambda: sentinel.master_port() != master.port, "a replica is the master", timeout_s=20.0)
                await load.more()
            assert set(load.losses) <= {Loss.UNAVAILABLE, Loss.SLOW}
            await load.verify()
            assert sentinel.master_port() in {replica.port for replica in replicas}


async def test_a_master_that_was_replaced_though_it_lives_is_left_and_what_it_acknowledged_is_safe() -> None:
    """Until it is told that it is the master no more it goes on taking what is then lost, since its replica has gone."""
    with sentinel_set() as (master, (replica,), sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER_NAME}"
        async with opened(f"{url}?replicas=1") as one, opened(f"{url}?replicas=1") as other, opened(url) as careless:
            await say(careless, "one")
            load = Load([one, other])
            async with load.running():
                await load.more()
                sentinel.ask("SENTINEL FAILOVER", MASTER_NAME)
                await soon(lambda: sentinel.master_port() == replica.port, "the replica is the master", timeout_s=20.0)

                async def is_left() -> bool:
                    await say(careless, "two", "another")
                    return bool(replica.ask("EXISTS", f"understudy:{{{CODEC.name('another')}}}:s"))

                await soon(is_left, "a store that waits for no replica has found the new master, too")
                # As the Sentinel does after a while.
                master.ask("REPLICAOF", "127.0.0.1", replica.port)
                await load.more()
            assert Loss.UNAVAILABLE in load.losses
            await load.verify()


async def test_a_master_that_hangs_is_left_and_comes_back_as_a_replica() -> None:
    """Connections to it stay open, so that only asking the Sentinels tells that it is the master no more."""
    with sentinel_set() as (master, (replica,), sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER_NAME}"
        async with opened(url, timeout_s=0.6) as store, opened(url, timeout_s=0.6) as idle:
            await say(store, "one")
            # As many connections as there are sessions held at once.
            held = await asyncio.gather(*(idle.hold(f"session {number}", 0) for number in range(20)))
            await asyncio.gather(*(hold.release() for hold in held))
            master.freeze()
            await is_lost(Loss.SLOW, store.hold(SESSION, 0))
            sentinel.ask("SENTINEL FAILOVER", MASTER_NAME)
            await soon(lambda: sentinel.master_port() == replica.port, "the replica is the master", timeout_s=20.0)
            await say(store, "two")
            master.thaw()
            # As the Sentinel does after a while.
            master.ask("REPLICAOF", "127.0.0.1", replica.port)
            await say(idle, "three")
            assert await texts_in(store) == ["one", "two", "three"]


async def test_a_cluster_keeps_each_conversation_where_it_belongs() -> None:
    with cluster() as (primaries, replica):
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in primaries)
        async with opened(url) as one, opened(url, lease_s=0.6) as other:
            load = Load([one, other])
            async with load.running():
                await load.more()
                hold = await one.hold(SESSION, 10.0)
                await asyncio.to_thread(move_slot, primaries, f"understudy:{{{CODEC.name(SESSION)}}}:s")
                await hold.keep(said(*texts_of(hold.conversation), "moved"))
                await hold.release()
                await load.more()
            await load.verify()
            assert load.losses == []
            assert await texts_in(other) == ["moved"]
            await lists_every_session(one, other, primaries)
            await extends_locks_everywhere(other, primaries)
            await waits_for_replicas(url)
            await outlives_a_primary(load, url, primaries[0], replica)


async def lists_every_session(one: RedisStore, other: RedisStore, primaries: list[RedisServer]) -> None:
    more = [f"more {number}" for number in range(40)]
    await asyncio.gather(*(say(one, "hello", session) for session in more))
    assert all(node.ask("DBSIZE") > 0 for node in primaries)
    found: list[str] = []
    cursor, is_begun = "", False
    while cursor or not is_begun:
        page, is_begun = await other.page(cursor, 10), True
        found += [summary.session for summary in page.summaries]
        cursor = page.cursor
    assert set(found) >= {SESSION, *more}
    assert len(set(found)) == (await one.sweep()).sessions


async def extends_locks_everywhere(store: RedisStore, primaries: list[RedisServer]) -> None:
    """Locks on all servers are extended in one go, though each server has but some of them."""
    holds = await asyncio.gather(*(store.hold(f"more {number}", 0) for number in range(12)))
    locks = [f"understudy:{{{hold.name}}}:l" for hold in holds]
    places = {lock: node for lock in locks for node in primaries if lock.encode() in node.ask("KEYS", "*:l")}
    assert set(places.values()) == set(primaries)
    lowest = dict.fromkeys(locks, store.lease_s * 1000)

    def are_extended() -> bool:
        for lock, node in list(places.items()):
            left_ms = node.ask("PTTL", lock)
            if left_ms > lowest[lock] + 50:
                del places[lock]
            lowest[lock] = min(lowest[lock], left_ms)
        return not places

    await soon(are_extended, "every lock has been extended")
    await asyncio.gather(*(hold.release() for hold in holds))


async def waits_for_replicas(url: str) -> None:
    """Only the first primary has one, so that the others' conversations are not safe enough."""
    async with opened(url + "?replicas=1") as strict:
        results = await asyncio.gather(*(say(strict, "safe", f"safe {number}") for number in range(12)), return_exceptions=True)
    losses = [result.loss for result in results if isinstance(result, StoreError)]
    assert losses == [Loss.UNAVAILABLE] * len(losses)
    assert 0 < len(losses) < 12


async def outlives_a_primary(load: Load, url: str, primary: RedisServer, replica: RedisServer) -> None:
    # The first of three has the first third of the slots.
    names = (str(number) for number in range(1000))
    session = next(name for name in names if primary.ask("CLUSTER KEYSLOT", CODEC.name(name)) < SLOTS // 3)
    async with opened(f"{url}?replicas=1") as strict, opened(url) as other:
        await say(strict, "one", session)
        swept = await other.sweep()
        # A replica is told a moment after a client: without ?replicas= the last changes would be lost.
        await soon(lambda: offset(replica) == offset(primary), "the replica has everything")
        hold = await strict.hold(session, 0)
        await asyncio.to_thread(primary.kill)
        await is_lost(Loss.UNAVAILABLE, hold.keep(said("one", "two")))
        await is_lost(Loss.UNAVAILABLE, other.sweep())
        async with load.running():
            await soon(lambda: replica.ask("ROLE")[0] == b"master", "the replica has taken over", timeout_s=20.0)
            await load.more()
            await asyncio.to_thread(primary.start)
            await soon(lambda: offset(primary) == offset(replica) > 0, "the old primary follows")

            async def is_kept() -> bool:
                with contextlib.suppress(StoreError):
                    await hold.keep(said("one", "two"))
                    return True
                return False

            await soon(is_kept, "what was not kept is kept after all")
        await hold.release()
        await load.verify()
        assert await texts_in(other, session) == ["one", "two"]
        assert (await other.sweep()).sessions == swept.sessions


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
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
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
    # A stranger's certificate, and a name that the certificate does not have.
    by_name = f"rediss://localhost:{tls_server.port}?ca={certificates}/ca.crt&{ours}"
    for url in (f"{place}?ca={certificates}/other.crt&{ours}", by_name):
        async with opened(url) as store:
            await is_lost(Loss.REFUSED, store.hold(SESSION, 0))
    # Without TLS, or without a certificate of ours: a server that wants one may close before it says so.
    for url in (f"redis://127.0.0.1:{tls_server.port}", f"{place}?ca={certificates}/ca.crt"):
        async with opened(url) as store:
            with pytest.raises(StoreError) as raised:
                await store.hold(SESSION, 0)
            assert raised.value.loss in {Loss.UNAVAILABLE, Loss.REFUSED}
