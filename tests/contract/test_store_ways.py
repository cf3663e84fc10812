# The ways into a Redis server: TLS, users with passwords, Unix sockets, databases; and what is said when one is closed.
from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support import redis_server
from support.redis_server import Server, running_cluster, running_sentinel, running_server, until
from support.stores import admit, close_all, name, open_store, quota

from edgeproxy.blocklist import Shared
from edgeproxy.blockshare import SharedList
from edgeproxy.policy.blocks import Block
from edgeproxy.state.ports import Charge, Kind
from edgeproxy.state.redis import RedisStore

pytestmark = pytest.mark.skipif(redis_server.MISSING is not None, reason=str(redis_server.MISSING))

SECRET = "p@ss:w/rd? #1"
RULES = "on ~edge:* +@read +@write +@scripting +ping +role +time +select +auth -@dangerous +role -keys"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = open_store(url, deadline=5.0)
    try:
        yield store
    finally:
        await close_all([store])


async def works(url: str) -> None:
    async with opened(url) as store:
        assert await store.ready(10)
        charges = [Charge(quota(kind), name(), 1) for kind in Kind]
        assert (await admit(store, *charges)).by == "store"
        shared: asyncio.Future[Shared | None] = asyncio.get_running_loop().create_future()
        block = Block("ip", "192.0.2.1", time.monotonic() + 60, 0.0, "")
        SharedList(store, time.monotonic).sync({block.name: block}, b"", b"", shared.set_result)
        assert await shared is not None


async def is_told(url: str, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """The log says what is wrong, once, and no secret."""
    async with opened(url) as store:
        assert not await store.ready(0.4)
        assert (await admit(store, Charge(quota(), name(), 1))).by == "local"
    said = [record.getMessage() for record in caplog.records if what in record.getMessage()]
    assert len(said) == 1, caplog.text
    assert SECRET not in caplog.text and "w/rd" not in caplog.text


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="edgeproxy")


async def test_a_unix_socket_and_a_database(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running_server("--unixsocket", str(path)) as server:
        await works(f"unix://{path}?db=3")
        with server.client as client:
            assert set(client.info("keyspace")) == {"db3"}  # type: ignore[arg-type]


async def test_a_user_that_may_do_what_is_needed_and_no_more() -> None:
    """What docs/limits.md tells operators to allow."""
    with running_server() as server:
        with server.client as client:
            client.execute_command("ACL", "SETUSER", "edge", *RULES.split(), f">{SECRET}")
            client.execute_command("CONFIG", "SET", "requirepass", "other")
        await works(f"redis://edge:{quote(SECRET, safe='')}@127.0.0.1:{server.port}")


async def test_such_a_user_of_a_cluster() -> None:
    with running_cluster() as cluster:
        for server in cluster.servers:
            with server.client as client:
                rules = f"{RULES} +cluster +asking"
                client.execute_command("ACL", "SETUSER", "edge", *rules.split(), f">{SECRET}")
        await works(cluster.url.replace("://", f"://edge:{quote(SECRET, safe='')}@"))


async def test_such_users_of_a_primary_and_its_sentinels() -> None:
    with running_sentinel() as watched:
        for server in watched.servers:
            with server.client as client:
                client.execute_command("ACL", "SETUSER", "edge", *RULES.split(), f">{SECRET}")
        for server in watched.sentinels:
            with server.client as client:
                client.execute_command("ACL", "SETUSER", "guard", "on", ">hunter2", "+auth", "+sentinel")
        url = watched.url.replace("://", f"://edge:{quote(SECRET, safe='')}@")
        await works(f"{url}?sentinel_user=guard&sentinel_password=hunter2")


async def test_a_password_of_the_default_user() -> None:
    with running_server() as server:
        with server.client as client:
            client.execute_command("CONFIG", "SET", "requirepass", SECRET)
        await works(f"redis://:{quote(SECRET, safe='')}@127.0.0.1:{server.port}")


async def test_a_wrong_password(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server:
        await is_told(f"redis://edge:{quote(SECRET, safe='')}@127.0.0.1:{server.port}", caplog, "WRONGPASS")


async def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    await is_told(f"redis://edge:{quote(SECRET, safe='')}@127.0.0.1:1", caplog, "127.0.0.1:1")


async def test_a_name_that_leads_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    await is_told(f"redis://edge:{quote(SECRET, safe='')}@nowhere.invalid", caplog, "nowhere.invalid")


async def test_a_replica_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as primary, running_server() as replica:
        with replica.client as client:
            client.replicaof("127.0.0.1", primary.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")  # type: ignore[index]
        await is_told(replica.url, caplog, "it is a slave")


async def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate(tmp_path)
    with running_server() as server:
        port = tls_port(server, cert, key)
        await works(f"rediss://127.0.0.1:{port}/0?ca={cert}&cert={cert}&key={key}")
        await is_told(f"rediss://127.0.0.1:{port}/0", caplog, "CERTIFICATE_VERIFY_FAILED")


def tls_port(server: Server, cert: Path, key: Path) -> int:
    """Has a server that runs listen with TLS, too."""
    with server.client as client:
        try:
            client.execute_command(
                *("CONFIG", "SET", "tls-cert-file", str(cert), "tls-key-file", str(key), "tls-ca-cert-file", str(cert)),
                *("tls-port", server.port + 10_000),
            )
        except redis_server.redis.ResponseError as e:
            pytest.skip(f"this redis-server has no TLS, or cannot be told of it while it runs: {e}")
    return server.port + 10_000


def certificate(directory: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself."""
    import ipaddress

    secret = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    cert, key = directory / "cert.pem", directory / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert, key
