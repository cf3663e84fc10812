# Names over HTTP/3: which certificate is shown, whom a connection may speak for, what a reload changes, who resumes.
"""SNI, 421, new certificates and tickets; the rules are those of TCP (tests/unit/listen/test_contexts.py)."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.edge import Edge, certificates, configuration, prepared, running_edge
from support.h3 import RawH3, h3_connected, headers
from support.heads import GET, but
from support.upstream import OK, Connection, running_upstream
from support.waiting import until

from edgeproxy.certs import CertificatePaths, make_development

WILD, EXACT = ("*.example.org",), ("api.example.org",)


def leaf(folder: Path, *names: str) -> CertificatePaths:
    """A certificate of the CA that every client here trusts."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (certificates().ca, certificates().ca_key):
        shutil.copy(path, folder)
    return make_development(folder, names)


def tls(*paths: CertificatePaths) -> dict[str, Any]:
    return {"certificates": [{"cert": str(each.cert), "key": str(each.key)} for each in paths]}


def der(paths: CertificatePaths) -> bytes:
    return x509.load_pem_x509_certificate(paths.cert.read_bytes()).public_bytes(Encoding.DER)


def shown(client: RawH3) -> bytes:
    """The certificate that the client got."""
    certificate = client.quic.tls._peer_certificate
    assert certificate is not None
    return certificate.public_bytes(Encoding.DER)


@asynccontextmanager
async def named(edge: Edge, name: str | None, **more: Any) -> AsyncIterator[RawH3]:
    async with h3_connected(edge.https_port, name=name, **more) as client:
        yield client


async def status(client: RawH3, host: str) -> int:
    reply = await client.over(client.request(headers(but(GET, authority=host.encode(), path=b"/"))))
    return reply.status


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CertificatePaths]:
    """The first is the default; the wildcard comes before the exact name that it covers."""
    folder = tmp_path_factory.mktemp("names")
    return {"default": certificates(), "wild": leaf(folder / "wild", *WILD), "exact": leaf(folder / "exact", *EXACT)}


@pytest.mark.parametrize(("name", "found"), [
    ("api.example.org", "exact"), ("API.Example.ORG", "exact"), ("www.example.org", "wild"), ("localhost", "default"),
    ("www.edge.test", "default"), ("example.org", "default"), ("a.b.example.org", "default"), ("other.test", "default"),
    (None, "default"),
])  # fmt: skip
async def test_the_certificate_is_the_one_for_the_name(
    several: dict[str, CertificatePaths], name: str | None, found: str
) -> None:
    covered = name is None or found != "default" or name in {"localhost", "www.edge.test"}
    # An unknown name gets the default certificate as over TCP: this client takes it all the same.
    mode = {} if covered and name is not None else {"verify_mode": ssl.CERT_NONE}
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls(*several.values())) as edge:
        async with named(edge, name, **mode) as client:
            assert shown(client) == der(several[found])
            assert await status(client, name or "localhost") == (200 if covered else 421)
            assert await status(client, "elsewhere.test") == (200 if name is None else 421)
            assert not client.ended
        assert all(b"elsewhere" not in request.head for request in upstream.requests) or name is None


@pytest.mark.parametrize(("name", "good", "bad"), [
    ("www.example.org", "api.example.org", "a.b.example.org"), ("api.example.org", "api.example.org:8443", "www.example.org"),
    ("localhost", "x.edge.test", "api.example.org"),
])  # fmt: skip
async def test_a_connection_speaks_for_the_hosts_of_its_certificate(
    several: dict[str, CertificatePaths], name: str, good: str, bad: str
) -> None:
    """RFC 9114 §3.3, RFC 9110 §15.5.20; also when the request before it was a good one with the same head but for the host."""
    async with (
        running_upstream() as upstream, running_edge(upstream.port, tls=tls(*several.values())) as edge,
        named(edge, name) as client,
    ):  # fmt: skip
        for host, expected in ((good, 200), (bad, 421), (good, 200), (bad, 421)):
            assert await status(client, host) == expected
        assert len(upstream.requests) == 2


async def test_a_reload_with_a_new_certificate(tmp_path: Path) -> None:
    """Who comes next gets it; who is there lives on, under the names of the old one."""
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            if b"/slow" in received.line:
                await gate.wait()
            connection.write(OK)

    old = leaf(tmp_path / "old", "one.test", "two.test")
    new = leaf(tmp_path / "new", "one.test")
    async with (
        running_upstream(handler) as upstream, running_edge(upstream.port, tls=tls(old)) as edge,
        named(edge, "one.test") as client,
    ):  # fmt: skip
        slow = client.request(headers(but(GET, authority=b"two.test", path=b"/slow")))
        await until(lambda: upstream.requests)
        edge.data_plane.switch(prepared(configuration(upstream.port, tls=tls(new))))
        async with named(edge, "one.test") as other:
            assert shown(other) == der(new) != shown(client) == der(old)
            assert (await status(other, "one.test"), await status(other, "two.test")) == (200, 421)
        gate.set()
        assert (await client.over(slow)).status == 200
        assert await status(client, "two.test") == 200
        assert edge.stats.quic.handshakes == 2


# -- resumption --------------------------------------------------------------------------------------------------


async def ticket_of(edge: Edge, name: str) -> Any:
    async with named(edge, name) as client:
        await until(lambda: client.tickets)
        return client.tickets[0]


@pytest.mark.parametrize(("second", "resumed"), [
    ("www.example.org", True), ("api.example.org", False), ("localhost", False), ("www2.example.org", False), (None, False),
])  # fmt: skip
async def test_a_ticket_is_good_for_its_name_only(
    several: dict[str, CertificatePaths], second: str | None, resumed: bool
) -> None:
    """RFC 8446 §4.6.1: also where both names are those of one certificate."""
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls(*several.values())) as edge:
        ticket = await ticket_of(edge, "www.example.org")
        mode = {} if second is not None else {"verify_mode": ssl.CERT_NONE}
        async with named(edge, second, session_ticket=ticket, **mode) as client:
            assert client.resumed is resumed
            assert await status(client, second or "localhost") == 200
            if resumed:
                assert await status(client, "localhost") == 421, "a resumed connection speaks for no more hosts"
        assert edge.stats.quic.handshakes_resumed == resumed


async def test_a_reload_ends_resumption_as_it_does_over_tcp(tmp_path: Path) -> None:
    """A certificate that was taken away must not live on in tickets; docs/operations.md says so."""
    old, new = leaf(tmp_path / "old", "one.test"), leaf(tmp_path / "new", "one.test")
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls(old)) as edge:
        ticket = await ticket_of(edge, "one.test")
        edge.data_plane.switch(prepared(configuration(upstream.port, tls=tls(new))))
        async with named(edge, "one.test", session_ticket=ticket) as client:
            assert not client.resumed
            assert shown(client) == der(new)
            assert await status(client, "one.test") == 200
        ticket = await ticket_of(edge, "one.test")
        async with named(edge, "one.test", session_ticket=ticket) as client:
            assert client.resumed
