# Malformed HTTP/1.1 requests through TLS against a real edge: the right status, and not one byte at the upstream.
"""hardening.md 1-5 and 8-11 over HTTP/1.1; the messages are in tests/support/malformed.py.

Whether anything reached the upstream is decided by a valid request that is sent afterwards: what the upstream has
received when that one is answered must be exactly that one.
"""

from __future__ import annotations

import pytest
from support.client import Client, Response, connected
from support.edge import Edge, running_edge
from support.malformed import EVERYTHING, HOST, Case, chunked
from support.upstream import Upstream, echo, running_upstream

GOOD = b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"
TWIN = b"POST /twin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"

cases = pytest.mark.parametrize("case", EVERYTHING, ids=lambda case: case.name)
early = pytest.mark.parametrize(
    "case", [each for each in EVERYTHING if each.early and len(each.raw) < 4096], ids=lambda case: case.name
)


async def nothing_but(upstream: Upstream, edge: Edge, lines: list[bytes]) -> None:
    """Asserts that requests with these lines reached the upstream, and no other byte."""
    async with connected(edge.https_port) as client:
        await client.send(GOOD)
        response = await client.response()
    assert response is not None and response.status == 200
    assert [request.line for request in upstream.requests] == [*lines, b"GET /good HTTP/1.1"]
    assert len(upstream.data) == sum(len(request.head) + len(request.body) for request in upstream.requests)


async def refused(client: Client, case: Case) -> Response:
    """Asserts the answer to a malformed request, and the connection's end where one is due."""
    response = await client.response("HEAD" if case.raw.startswith(b"HEAD") else "GET")
    assert response is not None, client.end
    assert response.status in case.statuses, response
    assert response.values(b"strict-transport-security") == [b"max-age=63072000; includeSubDomains"]
    assert len(response.values(b"x-ray-id")) == 1
    if case.closes:
        assert response.closes
        assert await client.rest() == b""
        assert client.end == "clean"
    return response


@cases
async def test_alone(case: Case) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            await client.send(case.raw)
            await refused(client, case)
        await nothing_but(upstream, edge, [])


@cases
async def test_behind_a_request_that_is_remembered(case: Case) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            for _ in range(2):
                await client.send(TWIN)
                response = await client.response()
                assert response is not None and response.status == 200
            await client.send(case.raw)
            await refused(client, case)
        await nothing_but(upstream, edge, [b"POST /twin HTTP/1.1"] * 2)


@cases
async def test_behind_a_request_of_the_same_read(case: Case) -> None:
    """The good request may be answered or not; the bad one is not, and what follows it is not a request either."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            await client.send(TWIN + case.raw)
            response = await client.response()
            assert response is not None
            if response.status == 200:
                response = await client.response()
            assert response is not None and response.status in case.statuses
        await nothing_but(upstream, edge, [request.line for request in upstream.requests])
        assert b"/bad" not in upstream.data


@early
async def test_in_single_bytes(case: Case) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            await client.send(case.raw, step=1)
            response = await client.response()
            assert response is not None and response.status in case.statuses
        await nothing_but(upstream, edge, [])


@pytest.mark.parametrize("line", [b"GET  /x HTTP/1.1", b"GET /x  HTTP/1.1"])
async def test_more_than_one_space_is_not_passed_on(line: bytes) -> None:
    """RFC 9112 §3 lets a recipient read words; what goes on must have single spaces."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            await client.send(line + b"\r\n" + HOST + b"\r\n")
            response = await client.response()
        assert response is not None and response.status in {200, 400}
        assert {request.line for request in upstream.requests} <= {b"GET /x HTTP/1.1"}


@pytest.mark.parametrize("zeros", [1, 15, 16, 400])
async def test_leading_zeros_of_a_chunk_size_are_not_passed_on(zeros: int) -> None:
    """The engine shows no chunk lines; what goes on is framed anew."""
    async with running_upstream(echo) as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port) as client:
            await client.send(chunked(b"0" * zeros + b"5\r\nhello\r\n" + b"0" * zeros + b"0\r\n\r\n"))
            response = await client.response()
        assert response is not None and response.body == b"hello"
        assert b"00005" not in upstream.data
