# Several targets, and https ones: who is asked, who is passed over, and who is not believed.
from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.edge import certificates
from support.upstream import Connection, Handler, Upstream, ok, running_upstream
from support.waiting import until

from edgeproxy.certs import make_development

from .stand import stand, upstream_settings
from .test_pool import gated

# -- several targets ---------------------------------------------------------------------------------------------


async def several(stack: AsyncExitStack, count: int, handler: Handler = ok) -> tuple[list[Upstream], list[dict[str, str]]]:
    upstreams = [await stack.enter_async_context(running_upstream(handler)) for _ in range(count)]
    return upstreams, [{"url": f"http://127.0.0.1:{upstream.port}"} for upstream in upstreams]


async def test_round_robin(protocol: str) -> None:
    async with AsyncExitStack() as stack:
        upstreams, targets = await several(stack, 3)
        async with stand(protocol, upstreams=upstream_settings(targets=targets, balance="round-robin")) as s:
            wire = await s.dial()
            for _ in range(9):
                await wire.get()
            assert [len(upstream.requests) for upstream in upstreams] == [3, 3, 3]


async def test_least_outstanding(protocol: str) -> None:
    gate = asyncio.Event()
    async with AsyncExitStack() as stack:
        upstreams, targets = await several(stack, 3, gated(gate))
        async with stand(protocol, upstreams=upstream_settings(targets=targets)) as s:
            calls = []
            for number in range(9):
                calls.append((await s.dial()).call())
                await until(lambda number=number: sum(len(each.requests) for each in upstreams) == number + 1)
            assert [len(upstream.requests) for upstream in upstreams] == [3, 3, 3]
            gate.set()
            for call in calls:
                await call.reply()


@pytest.mark.parametrize("balance", ["round-robin", "least-outstanding"])
async def test_a_target_that_refuses_is_passed_over(protocol: str, balance: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        upstreams, targets = await several(stack, 1)
        settings = upstream_settings(targets=[{"url": f"http://127.0.0.1:{dead}"}, *targets], balance=balance)
        async with stand(protocol, upstreams=settings) as s:
            wire = await s.dial()
            for _ in range(6):
                call = wire.call("POST", "/", (), b"x")  # nothing was sent yet: any request may go elsewhere
                assert await call.reply() == 200
            assert len(upstreams[0].requests) == 6
            ups = {stats.target: stats.up for stats in s.edge.stats.upstreams.values()}
            assert ups == {f"127.0.0.1:{dead}": 0, f"127.0.0.1:{upstreams[0].port}": 1}
            assert s.edge.faults == {}


@pytest.mark.parametrize("balance", ["round-robin", "least-outstanding"])
async def test_idle_connections_of_one_target_do_not_starve_another(protocol: str, balance: str) -> None:
    async with AsyncExitStack() as stack:
        _, targets = await several(stack, 3)
        settings = upstream_settings(targets=targets, balance=balance, max_connections=1)
        async with stand(protocol, upstreams=settings) as s:
            wire = await s.dial()
            for _ in range(6):
                assert (await wire.get()).status == 200


async def test_an_idle_connection_is_used_when_no_more_can_be_made(protocol: str) -> None:
    gate = asyncio.Event()
    gate.set()
    async with AsyncExitStack() as stack:
        _, targets = await several(stack, 2, gated(gate))
        async with stand(protocol, upstreams=upstream_settings(targets=targets, max_connections=2)) as s:
            for _ in range(3):
                gate.clear()
                calls = [(await s.dial()).call() for _ in range(2)]
                await until(lambda: sum(each.active for each in s.edge.stats.upstreams.values()) == 2)
                gate.set()
                for call in calls:
                    assert await call.reply(2) == 200


# -- https upstreams ---------------------------------------------------------------------------------------------


def server_context(directory: Path, names: tuple[str, ...]) -> ssl.SSLContext:
    paths = make_development(directory, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.cert, paths.key)
    return context


def https(s_port: int, host: str = "localhost") -> list[dict[str, str]]:
    return [{"url": f"https://{host}:{s_port}"}]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_https_with_an_authority_of_ones_own(protocol: str, tmp_path: Path, host: str) -> None:
    context = server_context(tmp_path, ("localhost", "127.0.0.1"))
    async with running_upstream(tls=context) as upstream:
        settings = upstream_settings(targets=https(upstream.port, host), ca=str(tmp_path / "ca.pem"), host="upstream")
        async with stand(protocol, upstreams=settings) as s:
            wire = await s.dial()
            for _ in range(3):
                call = wire.call("POST", "/", (), bytes(100_000))
                assert await call.reply() == 200
                assert call.body == b"ok"
            assert len(upstream.connections) == 1
            assert upstream.requests[0].values(b"host") == [b"%b:%d" % (host.encode(), upstream.port)]


@pytest.mark.parametrize("wrong", ["name", "authority", "system"])
async def test_https_that_cannot_be_verified(protocol: str, tmp_path: Path, wrong: str) -> None:
    names = ("other.test",) if wrong == "name" else ("localhost",)
    context = server_context(tmp_path, names)
    ca = {"name": str(tmp_path / "ca.pem"), "authority": str(certificates().ca), "system": "system"}[wrong]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream(tls=context))
        settings = upstream_settings(targets=https(upstream.port), ca=ca)
        s = await stack.enter_async_context(stand(protocol, upstreams=settings))
        call = await (await s.dial()).get()
        assert call.status == 502
        assert (await s.record())["outcome"] == "upstream: certificate"
        assert upstream.data == b""
        assert s.target().open == 0


async def test_plain_http_where_https_is_spoken_to(protocol: str) -> None:
    async with stand(protocol) as s:
        settings = upstream_settings(targets=https(s.upstream.port, "127.0.0.1"), timeouts={"connect": "100ms"})
        s.reload(upstreams=settings)
        call = await (await s.dial()).get()
        assert call.status in {502, 504}


@pytest.mark.parametrize("framing", ["close", "length"])
async def test_https_truncation_is_no_clean_end(protocol: str, tmp_path: Path, framing: str) -> None:
    """TCP's end without close_notify: anybody on the way could have made it."""
    field = b"content-length: 100\r\n" if framing == "length" else b""
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\n" + field + b"\r\nhalf")
        await gate.wait()
        connection.reset()

    async with running_upstream(handler, tls=server_context(tmp_path, ("localhost",))) as upstream:
        settings = upstream_settings(targets=https(upstream.port), ca=str(tmp_path / "ca.pem"))
        async with stand(protocol, upstreams=settings) as s:
            call = (await s.dial()).call()
            await call.received(4)
            gate.set()
            await call.failed()
            assert (await s.record())["outcome"] == "upstream: truncated"
