"""A WebSocket through the edge to the backend's echo, with the `websockets` client."""

from __future__ import annotations

import asyncio
import os

import pytest
from running import Edge
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus


def dial(edge: Edge, path: str = "/ws") -> connect:
    return connect(
        f"wss://localhost:{edge.https}{path}", ssl=edge.tls(), proxy=None, max_size=2 << 20, open_timeout=10,
        close_timeout=5,
    )  # fmt: skip


async def echoed(ws: ClientConnection, message: str | bytes) -> str | bytes:
    await ws.send(message)
    async with asyncio.timeout(10):
        return await ws.recv()


async def test_echo(edge: Edge) -> None:
    async with dial(edge) as ws:
        for message in ("Hello", "", "é" * 1000, b"", bytes(range(256))):
            assert await echoed(ws, message) == message


async def test_large_messages_in_both_directions(edge: Edge) -> None:
    async with dial(edge) as ws:
        for size in (1, 125, 126, 65_535, 65_536, 1_000_000):
            message = os.urandom(size)
            assert await echoed(ws, message) == message


async def test_ping_and_pong_are_end_to_end(edge: Edge) -> None:
    async with dial(edge) as ws:
        async with asyncio.timeout(5):
            await (await ws.ping(b"are you there"))
        assert await echoed(ws, "still here") == "still here"


async def test_many_messages_keep_their_order(edge: Edge) -> None:
    messages = [f"{number} " * (number % 50) for number in range(500)]
    async with dial(edge) as ws, asyncio.timeout(20):

        async def send() -> None:
            for message in messages:
                await ws.send(message)

        sending = asyncio.create_task(send())
        assert [await ws.recv() for _ in messages] == messages
        await sending


async def test_the_close_handshake_passes(edge: Edge) -> None:
    async with dial(edge) as ws:
        assert await echoed(ws, "Hello") == "Hello"
        await ws.close(4001, "enough")
        assert ws.close_code == 4001  # the one the backend answered with


async def test_a_message_over_the_backends_limit_closes_with_its_code(edge: Edge) -> None:
    """1009 (RFC 6455 §7.4.1) is the backend's; an edge that cut the connection would show 1006."""
    async with dial(edge) as ws:
        await ws.send(b"x" * (1_200_000))
        with pytest.raises(ConnectionClosedError) as closed:
            async with asyncio.timeout(10):
                await ws.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


async def test_several_at_once(edge: Edge) -> None:
    async def talk(number: int) -> None:
        async with dial(edge) as ws:
            for turn in range(20):
                assert await echoed(ws, f"{number}/{turn}") == f"{number}/{turn}"

    await asyncio.gather(*(talk(number) for number in range(10)))


async def test_an_idle_socket_stays_open_beside_traffic(edge: Edge) -> None:
    async with dial(edge) as quiet:
        async with dial(edge) as busy:
            for turn in range(50):
                assert await echoed(busy, str(turn)) == str(turn)
        assert await echoed(quiet, "still here") == "still here"


@pytest.mark.parametrize(("path", "status"), [("/dead/", 502), ("/no/route", 404), ("/v1/models", 200)])
async def test_what_does_not_become_a_websocket_is_an_ordinary_answer(edge: Edge, path: str, status: int) -> None:
    """Only a 101 of the upstream makes a tunnel."""
    with pytest.raises(InvalidStatus) as refused:
        await dial(edge, path)
    assert refused.value.response.status_code == status
