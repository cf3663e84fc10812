# TLS of our own against OpenSSL's client: handshakes in pieces, versions, noise, ends, and BIOs that stay small.
"""listen/tls.py and listen/tcp.py."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import subprocess

import pytest
from support.client import GET, Client, answered, connected
from support.edge import client_context, configuration, context_of, running_edge
from support.upstream import Connection, echo, running_upstream
from support.waiting import until

from edgeproxy.listen.tls import TlsConnection


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
        assert connection.hello == b"", "what nobody asks for is not kept"
        assert 100 < connection.hello_size < 1000


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
