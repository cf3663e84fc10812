# TLS of our own against OpenSSL's client: handshakes in pieces, versions, tickets, ends, and BIOs that stay small.
"""listen/tls.py, listen/contexts.py and listen/tcp.py."""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from support.client import Client, connected
from support.edge import certificates, client_context, configuration, running_edge
from support.upstream import Connection, echo, running_upstream
from support.waiting import until

import edgeproxy
from edgeproxy.certs import make_development
from edgeproxy.listen.contexts import covers
from edgeproxy.listen.tls import TlsConnection

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def context_of(**changes: object) -> ssl.SSLContext:
    """A client's context of its own, to be changed."""
    context = ssl.create_default_context(cafile=str(certificates().ca))
    for name, value in changes.items():
        setattr(context, name, value)
    return context


async def answered(client: Client, raw: bytes = GET) -> bytes:
    await client.send(raw)
    response = await client.response()
    assert response is not None and response.status == 200, client.end
    return response.body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [0, 1, 7, 100])
async def test_handshake_in_pieces(version: ssl.TLSVersion, step: int) -> None:
    context = context_of(minimum_version=version, maximum_version=version)
    async with (
        running_upstream() as upstream, running_edge(upstream.port) as edge,
        connected(edge.https_port, context=context, step=step) as client,
    ):  # fmt: skip
        assert await answered(client) == b"ok"
        assert client.tls is not None and client.tls.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
        connection = next(iter(edge.data_plane._secure.connections))
        assert isinstance(connection, TlsConnection)
        assert connection.hello[:2] == b"\x16\x03"
        assert connection.hello[5] == 1, "a ClientHello"
        assert len(connection.hello) <= 4096


async def test_first_request_right_behind_the_handshake() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        client = Client(*await asyncio.open_connection("127.0.0.1", edge.https_port))
        context = context_of(minimum_version=ssl.TLSVersion.TLSv1_3)
        client.tls = context.wrap_bio(client.incoming, client.outgoing, server_hostname="localhost")
        while True:
            try:
                client.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client._out()
                await client._in()
        client.tls.write(GET)  # Finished and the request leave in one segment
        await client._out()
        response = await client.response()
        assert response is not None and response.status == 200
        await client.leave()


@pytest.mark.parametrize("protocols", [["h1", "h2"], ["h1"], ["h2"]])
async def test_alpn(protocols: list[str]) -> None:
    async with running_edge(listen={"protocols": protocols}) as edge:
        for offered in (("h2", "http/1.1"), ("http/1.1", "h2"), ("http/1.1",), ("h2",), ()):
            async with connected(edge.https_port, context=client_context(offered)) as client:
                assert client.tls is not None
                chosen = client.tls.selected_alpn_protocol()
            common = [name for name in ("h2", "http/1.1") if name in offered and name.replace("http/1.1", "h1") in protocols]
            assert chosen == (common[0] if common else None)


async def test_old_versions_and_ciphers_are_refused() -> None:
    async with running_edge() as edge:
        context = context_of(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("AES128-GCM-SHA256")  # no forward secrecy
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(edge.https_port, context=context):
                pass
        assert sum(edge.stats.handshake_failures.values()) == 1
    async with running_edge(tls={"min_version": "1.3"}) as edge:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(edge.https_port, context=context_of(maximum_version=ssl.TLSVersion.TLSv1_2)):
                pass
        await until(lambda: edge.stats.handshake_failures)
        assert edge.stats.handshakes_pending == 0


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A second and a third certificate, each under a CA of its own."""
    folder = tmp_path_factory.mktemp("several")
    make_development(folder / "exact", ("api.example.org",))
    make_development(folder / "wild", ("*.example.org",))
    return {"exact": folder / "exact", "wild": folder / "wild"}


@pytest.mark.parametrize(("name", "found"), [
    ("api.example.org", "exact"), ("API.Example.ORG", "exact"), ("www.example.org", "wild"), ("localhost", "default"),
    ("example.org", "default"), ("a.b.example.org", "default"), ("other", "default"), (None, "default"),
])  # fmt: skip
async def test_sni(several: dict[str, Path], name: str | None, found: str) -> None:
    first = certificates()
    tls = {"certificates": [
        {"cert": str(first.cert), "key": str(first.key)},
        *({"cert": str(path / "edge.pem"), "key": str(path / "edge-key.pem")} for path in several.values()),
    ]}  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(several[found] / "ca.pem" if found in several else first.ca)
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls) as edge:
        async with connected(edge.https_port, context=context, name=name) as client:
            # Verified by the one CA that can have signed it. 421 says whether the name is covered.
            host = (name or "anything").encode()
            await client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            response = await client.response()
            assert response is not None
            assert response.status == (200 if found != "default" or name in {"localhost", None} else 421)
        async with connected(edge.https_port, context=context, name=name) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n")
            response = await client.response()
            assert response is not None and response.status == (200 if name is None else 421)
        assert all(b"elsewhere" not in request.head for request in upstream.requests) or name is None


@pytest.mark.parametrize(("names", "host", "good"), [
    ({"example.org"}, "example.org", True), ({"example.org"}, "www.example.org", False),
    ({"*.example.org"}, "www.example.org", True), ({"*.example.org"}, "a.b.example.org", False),
    ({"*.example.org"}, "example.org", False), ({"*.example.org"}, ".example.org", True), ({"127.0.0.1"}, "127.0.0.1", True),
    (set(), "example.org", False), ({"*"}, "example", False),
])  # fmt: skip
def test_covers(names: set[str], host: str, good: bool) -> None:
    assert covers(frozenset(names), host) is good


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tickets_resume_at_whoever_has_the_keys(version: ssl.TLSVersion) -> None:
    keys = secrets.token_bytes(80)
    context = context_of(minimum_version=version, maximum_version=version)
    async with running_upstream() as upstream, running_edge(upstream.port, ticket_keys=keys) as edge:
        async with connected(edge.https_port, context=context) as client:
            await answered(client)
            assert client.tls is not None
            session = client.tls.session
            assert session is not None and session.has_ticket
        async with running_edge(upstream.port, ticket_keys=keys) as sibling:
            async with connected(sibling.https_port, context=context, session=session) as client:
                await answered(client)
                assert client.tls is not None and client.tls.session_reused
            assert sibling.stats.handshakes_resumed == 1
        async with running_edge(upstream.port, ticket_keys=secrets.token_bytes(80)) as stranger:
            async with connected(stranger.https_port, context=context, session=session) as client:
                await answered(client)
                assert client.tls is not None and not client.tls.session_reused
            assert stranger.stats.handshakes_resumed == 0


async def test_a_resumed_session_keeps_its_name_to_itself(several: dict[str, Path]) -> None:
    """The 421 check must hold for resumed connections too."""
    first, exact = certificates(), several["exact"]
    tls = {"certificates": [
        {"cert": str(first.cert), "key": str(first.key)}, {"cert": str(exact / "edge.pem"), "key": str(exact / "edge-key.pem")},
    ]}  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(exact / "ca.pem")
    raw = b"GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n"
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls) as edge:
        async with connected(edge.https_port, context=context, name="api.example.org") as client:
            await answered(client, raw)
            assert client.tls is not None
            session = client.tls.session
        async with connected(edge.https_port, context=context, name="api.example.org", session=session) as client:
            await answered(client, raw)
            await client.send(GET)
            response = await client.response()
            assert response is not None and response.status == 421


_GROUPS = """
import os, sys
os.environ["OPENSSL_CONF"] = sys.argv[1]
import ssl
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(sys.argv[2], sys.argv[3])
ok = []
for curve in ("X25519", "prime256v1", "secp384r1", "secp521r1", "X448"):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        client.set_ecdh_curve(curve)
    except ValueError:
        # CPython takes only curves that have a NID of EC_KEY; the other two are shown by the default offer.
        continue
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    c, s = client.wrap_bio(a, b), server.wrap_bio(b, a, server_side=True)
    done = 0
    try:
        for _ in range(6):
            for side in (c, s):
                try:
                    side.do_handshake()
                    done += 1
                except ssl.SSLWantReadError:
                    pass
        ok.append(curve)
    except ssl.SSLError:
        pass
print(",".join(ok))
"""


def test_groups_are_limited_by_our_openssl_configuration() -> None:
    paths = certificates()
    conf = Path(edgeproxy.__file__).parent / "listen" / "openssl.cnf"
    command = [sys.executable, "-c", _GROUPS, str(conf), str(paths.cert), str(paths.key)]
    limited = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.strip()
    command[3] = os.devnull
    free = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.strip()
    assert "secp521r1" in free, "or the test could not fail"
    assert "secp521r1" not in limited and "X448" not in limited
    assert {"prime256v1", "secp384r1"} <= set(limited.split(","))


async def test_plain_http_on_the_tls_port() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port, plain=True) as client:
            await client.send(GET)
            response = await client.response()
            assert response is not None and response.status == 400 and b"https://" in response.body
            assert not response.values(b"strict-transport-security")
            assert await client.rest() == b"" or client.end == "clean"
        assert edge.stats.handshake_failures == {"http_request": 1}
        assert upstream.data == b""
        await until(lambda: not edge.data_plane._secure.connections)


@pytest.mark.parametrize("raw", [
    b"\x00" * 20, b"SSH-2.0-x\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\x80\x2e\x01\x00\x02" + bytes(50),
])  # fmt: skip
async def test_noise_instead_of_a_handshake(raw: bytes) -> None:
    async with running_edge() as edge:
        async with connected(edge.https_port, plain=True) as client:
            await client.send(raw)
            await client.rest()
        await until(lambda: not edge.data_plane._secure.connections)
        assert sum(edge.stats.handshake_failures.values()) == 1
        assert edge.stats.handshakes_pending == 0


async def test_an_endless_handshake_is_cut() -> None:
    """A ClientHello record that is never complete, followed by many more bytes."""
    async with running_edge() as edge:
        async with connected(edge.https_port, plain=True) as client:
            for _ in range(200):
                await client.send(b"\x16\x03\x01\x00\x01\x01" * 200)
                if client.writer.transport.is_closing():
                    break
            await client.rest()
        await until(lambda: not edge.data_plane._secure.connections)


async def test_handshake_deadline() -> None:
    async with running_edge(client={"timeouts": {"handshake": "10s"}}) as edge:
        async with connected(edge.https_port, plain=True) as client:
            await client.send(b"\x16\x03\x01")
            await until(lambda: edge.stats.handshakes_pending == 1)
            edge.after(9)
            assert edge.stats.handshakes_pending == 1
            edge.after(11)
            assert edge.stats.handshake_failures == {"timeout": 1}
            await client.rest()
        await until(lambda: not edge.data_plane._secure.connections)


async def test_the_client_says_goodbye() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        await answered(client)
        client.close_notify()
        await client.rest()
        assert client.end == "clean", "our close_notify is answered by theirs"


async def test_goodbye_cancels_what_runs() -> None:
    async def never(connection: Connection) -> None:
        await connection.request()
        await connection.gone()

    async with running_upstream(never) as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        await client.send(GET)
        await until(lambda: upstream.requests)
        client.close_notify()
        await until(lambda: upstream.cancels == 1, within=1.0)


async def test_our_goodbye_when_idle_for_too_long() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        await answered(client)
        edge.after(61)
        assert await client.rest() == b""
        assert client.end == "clean"


async def test_renegotiation_is_refused() -> None:
    """OP_NO_RENEGOTIATION: asked for through OpenSSL's own client."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{edge.https_port}", "-tls1_2", "-servername", "localhost",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(b"R\n")
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert b"RENEGOTIATING" in output
        assert b"no renegotiation" in output.lower()
        await until(lambda: not edge.data_plane._secure.connections)


async def test_key_update() -> None:
    """TLS 1.3 KeyUpdate, asked for by OpenSSL's client: the connection goes on."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{edge.https_port}", "-tls1_3", "-servername", "localhost",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"K\n")
        await asyncio.wait_for(process.stdout.readuntil(b"KEYUPDATE"), 10)
        process.stdin.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert (b"HTTP/1.1 200 OK" in output and output.rstrip().endswith(b"closed")) or b"ok" in output


@pytest.mark.parametrize("size", [1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1 << 20])
async def test_sizes_survive_and_bios_stay_small(size: int) -> None:
    content = secrets.token_bytes(size)
    async with running_upstream(echo) as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
        sending = asyncio.ensure_future(client.send(head + content, step=60_000))
        response = await client.response()
        await sending
        assert response is not None and response.body == content
        connection = next(iter(edge.data_plane._secure.connections))
        assert isinstance(connection, TlsConnection)
        assert connection._incoming.pending == 0
        assert connection._outgoing.pending == 0


async def test_reads_and_writes_are_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BIO never shrinks: what it holds at once is bounded."""
    from edgeproxy.listen import tls

    most = {"in": 0, "out": 0}

    class Watched:
        def __init__(self, bio: ssl.MemoryBIO, way: str) -> None:
            self.bio, self.way = bio, way

        def write(self, data: memoryview) -> int:
            written = self.bio.write(data)
            most[self.way] = max(most[self.way], self.bio.pending)
            return written

        def read(self, *size: int) -> bytes:
            most[self.way] = max(most[self.way], self.bio.pending)
            return self.bio.read(*size)

        @property
        def pending(self) -> int:
            return self.bio.pending

    made = TlsConnection.__init__

    def init(self: TlsConnection, *args: object, **keywords: object) -> None:
        made(self, *args, **keywords)  # type: ignore[arg-type]
        self._incoming = Watched(self._incoming, "in")  # type: ignore[assignment]
        self._outgoing = Watched(self._outgoing, "out")  # type: ignore[assignment]

    monkeypatch.setattr(TlsConnection, "__init__", init)
    size = 1 << 20
    async with running_upstream(echo) as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
        sending = asyncio.ensure_future(client.send(head + bytes(size)))
        response = await client.response()
        await sending
        assert response is not None and len(response.body) == size
    record = 16 * 1024 + 256
    assert 0 < most["in"] <= tls.SLICE_IN + record
    assert 0 < most["out"] <= record + 1024


async def test_a_damaged_record_is_answered_with_an_alert() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, connected(edge.https_port) as client:
        await answered(client)
        await client.send_raw(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await client.rest()
        assert client.end.startswith("alert: ")
        await until(lambda: not edge.data_plane._secure.connections)


async def test_too_many_connections() -> None:
    config = configuration(client={"max_connections": 2})
    async with running_edge(config=config) as edge, connected(edge.https_port), connected(edge.https_port):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with connected(edge.https_port):
                pass
        assert edge.faults[("edge", "max_connections")] == 1
        assert len(edge.data_plane._secure.connections) == 2
