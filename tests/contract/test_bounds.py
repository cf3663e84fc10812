# Bounds on connections, and what the plain port does.
from __future__ import annotations

import asyncio

import pytest
from support.client import connected
from support.waiting import until

from .stand import stand

HSTS = b"strict-transport-security"


async def test_max_connections(protocol: str) -> None:
    async with stand(protocol, client={"max_connections": 3}) as s:
        wires = [await s.dial() for _ in range(3)]
        for count in (1, 2):
            with pytest.raises(OSError):  # noqa: PT011  a reset or an end in the handshake: the text is the system's
                await s.dial(wait=False)
            await until(lambda count=count: s.edge.faults == {("edge", "max_connections"): count})
        for wire in wires:
            assert (await wire.get()).status == 200
        await wires[0].leave()
        await until(lambda: s.edge.data_plane.connections == 2)
        assert (await (await s.dial()).get()).status == 200


async def test_a_connection_that_never_shakes_hands() -> None:
    async with stand("h1") as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.edge.https_port)
        await until(lambda: s.edge.stats.handshakes_pending == 1)
        s.edge.after(9)
        assert s.edge.data_plane.connections == 1
        s.edge.after(11)
        assert await reader.read() == b""
        writer.close()
        await until(lambda: s.edge.data_plane.connections == 0)
        assert s.edge.stats.handshakes_pending == 0
        assert s.edge.stats.handshake_failures == {"timeout": 1}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_the_plain_port_redirects_and_never_speaks_of_hsts(host: str, method: str) -> None:
    async with stand("h1", listen={"public_port": 443}) as s, connected(s.edge.http_port, plain=True) as client:
        for number in range(3):
            body = b"content-length: 2\r\n\r\nhi" if method == "POST" else b"\r\n"
            await client.send(b"%b /x?y=%d HTTP/1.1\r\nhost: %b\r\n%b" % (method.encode(), number, host.encode(), body))
            response = await client.response(method)
            assert response is not None
            assert response.status == 308
            assert response.values(b"location") == [b"https://%b/x?y=%d" % (host.encode(), number)]
            assert response.values(HSTS) == []
        assert s.edge.stats.redirects == 3
        assert s.upstream.connections == []
        assert {record["status"] for record in s.records} == {308}


@pytest.mark.parametrize("raw", [b"GET //x HTTP/1.1\r\nhost: localhost\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_errors_of_the_plain_port_carry_no_hsts_either(raw: bytes) -> None:
    async with stand("h1") as s, connected(s.edge.http_port, plain=True) as client:
        await client.send(raw)
        response = await client.response()
        assert response is not None
        assert response.status == 400
        assert response.values(HSTS) == []
