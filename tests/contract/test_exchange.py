# What every exchange promises, over every protocol: content, fields and framing arrive as they were meant.
from __future__ import annotations

import asyncio

import pytest
from support.upstream import Connection, echo, replies
from support.waiting import until

from .stand import STREAM, chunk, routed, stand


async def test_a_request_and_its_reply(protocol: str) -> None:
    async with stand(protocol, replies(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx-a: b\r\n\r\nhi")) as s:
        wire = await s.dial()
        call = wire.call("POST", "/v1/x?y=z", [(b"x-c", b"d")], b"content")
        assert await call.reply() == 201
        assert call.body == b"hi"
        assert call.values(b"x-a") == [b"b"]
        assert call.values(b"content-length") == [b"2"]
        (seen,) = s.upstream.requests
        assert seen.line == b"POST /v1/x?y=z HTTP/1.1"
        assert seen.body == b"content"
        assert not seen.chunked
        assert seen.values(b"host") == [b"localhost"]
        assert seen.values(b"x-c") == [b"d"]
        assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert seen.values(b"x-forwarded-proto") == [b"https"]
        record = await s.record()
        assert record["outcome"] == "ok"
        assert (record["bytes_in"], record["bytes_out"], record["status"]) == (7, 2, 201)
        assert record["protocol"] == protocol
        assert record["path"] == "/v1/x"
        assert record["upstream"] == f"127.0.0.1:{s.upstream.port}"


async def test_the_ray_id_is_the_same_everywhere(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        call = wire.call("GET", "/", [(b"x-ray-id", b"mine")])
        await call.reply()
        (ray,) = call.values(b"x-ray-id")
        assert s.upstream.requests[0].values(b"x-ray-id") == [ray]
        assert (await s.record())["ray"].encode() == ray != b"mine"
        again = await wire.get()
        assert again.values(b"x-ray-id") != [ray]


async def test_many_requests_on_one_connection(protocol: str) -> None:
    async with stand(protocol, echo) as s:
        wire = await s.dial()
        for number in range(50):
            call = wire.call("POST", "/", (), b"%d" % number)
            assert await call.reply() == 200
            assert call.body == b"%d" % number
        assert len(s.upstream.connections) == 1
        assert s.target().connects == 1
        assert s.target().reused == 49
        assert s.edge.stats.connections_total[wire.index] == 1


async def test_requests_at_the_same_time_are_answered_each_with_its_own(protocol: str) -> None:
    async with stand(protocol, echo) as s:
        wire = await s.dial()
        calls = [wire.call("POST", "/", (), b"%d" % number) for number in range(10)]
        for number, call in enumerate(calls):
            assert await call.reply() == 200
            assert call.body == b"%d" % number


@pytest.mark.parametrize("length", [None, 6])
async def test_an_upload_streams(protocol: str, length: int | None) -> None:
    arrived: list[bytes] = []

    async def handler(connection: Connection) -> None:
        received = await connection.head()
        received.chunked = bool(received.values(b"transfer-encoding"))
        if received.chunked:
            assert await connection.take_until(b"\r\n") == b"3\r\n"
        arrived.append(await connection.take(3))
        await connection.take_until(b"end" + (b"\r\n0\r\n\r\n" if received.chunked else b""))
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=length)
        call.send(b"one")
        await until(lambda: arrived == [b"one"])  # the second piece does not exist yet
        call.send(b"end", end=True)
        assert await call.reply() == 200
        assert s.upstream.requests[0].chunked is (length is None)
        assert (await s.record())["bytes_in"] == 6


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_reply_streams(protocol: str, framing: str) -> None:
    gate = asyncio.Event()
    head = {"chunked": b"transfer-encoding: chunked", "length": b"content-length: 6", "close": b"x-framing: none"}[framing]

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        connection.write(chunk(b"one") if framing == "chunked" else b"one")
        await gate.wait()
        connection.write(chunk(b"two") + b"0\r\n\r\n" if framing == "chunked" else b"two")
        if framing == "close":
            connection.close()
        await connection.gone()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        call = wire.call()
        assert await call.received(3) == b"one"
        assert not call.complete
        gate.set()
        assert await call.reply() == 200
        assert call.body == b"onetwo"
        record = await s.record()
        assert record["bytes_out"] == 6
        assert record["outcome"] == "ok"


async def test_the_head_arrives_before_any_content(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        await gate.wait()
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call()
        assert await call.head() == 200
        assert call.values(b"content-length") == []
        assert call.values(b"cache-control") == [b"no-cache, no-transform"]
        assert call.values(b"x-accel-buffering") == [b"no"]
        gate.set()
        await call.reply()


async def test_both_directions_at_once(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(STREAM)
        while True:
            size = int((await connection.take_until(b"\r\n"))[:-2], 16)
            data = await connection.take(size + 2)
            if not size:
                break
            connection.write(chunk(data[:-2]))
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", end=False)
        for number in range(1, 6):
            call.send(b"piece")
            await call.received(5 * number)
        call.send(b"", end=True)
        assert await call.reply() == 200
        record = await s.record()
        assert (record["bytes_in"], record["bytes_out"]) == (25, 25)


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 65535, 65536, 1 << 20, 5 << 20])
async def test_content_of_every_size_is_unchanged(protocol: str, size: int) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    async with stand(protocol, echo) as s:
        call = (await s.dial()).call("POST", "/", (), content)
        assert await call.reply(10) == 200
        assert call.body == content
        record = await s.record()
        assert record["bytes_in"] == record["bytes_out"] == size


async def test_a_large_body_right_behind_the_handshake(protocol: str) -> None:
    """The client's last handshake message and its first request may come in one read."""
    content = bytes(256 * 1024)
    async with stand(protocol, echo) as s:
        for _ in range(3):
            call = (await s.dial(wait=False)).call("POST", "/", (), content)
            assert await call.reply() == 200
            assert call.body == content
        assert s.edge.stats.handshake_failures == {}


async def test_head_has_the_length_and_no_content(protocol: str) -> None:
    async with stand(protocol, replies(b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n")) as s:
        wire = await s.dial()
        for count in (1, 2, 3):
            call = wire.call("HEAD")
            assert await call.reply() == 200
            assert call.values(b"content-length") == [b"12345"]
            assert call.body == b""
            assert (await s.record(count))["bytes_out"] == 0
        assert len(s.upstream.connections) == 1  # the connection was good for the next request


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_content(protocol: str, status: int) -> None:
    async with stand(protocol, replies(b"HTTP/1.1 %d X\r\netag: x\r\n\r\n" % status)) as s:
        wire = await s.dial()
        for _ in range(2):
            call = await wire.get()
            assert call.status == status
            assert call.body == b""
            assert call.values(b"etag") == [b"x"]
        assert len(s.upstream.connections) == 1


async def test_interim_answers_of_the_upstream_stay_there(protocol: str) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    async with stand(protocol, replies(interim, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as s:
        wire = await s.dial()
        for _ in range(2):
            call = await wire.get()
            assert (call.status, call.body) == (200, b"ok")
            assert call.values(b"link") == []


async def test_expect_continue_is_answered_when_the_upstream_takes_the_body(protocol: str) -> None:
    async with stand(protocol, echo) as s:
        call = (await s.dial()).call("POST", "/", [(b"expect", b"100-continue")], end=False, length=4)
        await until(lambda: call.interim == [100])
        call.send(b"body", end=True)
        assert await call.reply() == 200
        assert call.body == b"body"
        assert s.upstream.requests[0].values(b"expect") == []


async def test_expect_continue_is_not_answered_before_a_refusal(protocol: str) -> None:
    async with stand(protocol, echo, client={"max_body": "1KiB"}) as s:
        call = (await s.dial()).call("POST", "/", [(b"expect", b"100-continue")], end=False, length=4096)
        assert await call.reply() == 413
        assert call.interim == []
        assert s.upstream.requests == []
        assert (await s.record())["outcome"] == "client: body_too_large"


@pytest.mark.parametrize(("setting", "expected"), [("drop", []), ("pass", [(b"x-sum", b"42")])])
async def test_trailers_of_a_reply(protocol: str, setting: str, expected: list[tuple[bytes, bytes]]) -> None:
    reply = STREAM + chunk(b"x") + b"0\r\nx-sum: 42\r\n\r\n"
    async with stand(protocol, replies(reply), routes=routed(trailers=setting)) as s:
        wire = await s.dial()
        for _ in range(2):
            call = await wire.get()
            assert call.trailers == expected
            assert call.values(b"x-sum") == []


async def test_an_event_stream_is_asked_for_uncompressed_where_a_dialect_is_spoken(protocol: str) -> None:
    async with stand(protocol, routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        await wire.get(fields=[(b"accept-encoding", b"gzip, br")])
        assert s.upstream.requests[0].values(b"accept-encoding") == [b"identity"]


HSTS = b"strict-transport-security"


@pytest.mark.parametrize("host", ["localhost", "a.edge.test", "127.0.0.1"])
async def test_hsts_once_and_never_for_addresses(protocol: str, host: str) -> None:
    theirs = b"strict-transport-security: max-age=1\r\nStrict-Transport-Security: x\r\n"
    reply = b"HTTP/1.1 200 OK\r\n" + theirs + b"content-length: 0\r\n\r\n"
    expected = [] if host == "127.0.0.1" else [b"max-age=63072000; includeSubDomains"]
    async with stand(protocol, replies(reply)) as s:
        wire = await s.dial(name=host)
        assert (await wire.get(host=host)).values(HSTS) == expected
        for path, status in (("//double", 400), ("/%2e%2e/", 400)):
            call = await wire.get(path, host=host)
            assert call.status == status
            assert call.values(HSTS) == expected


async def test_hsts_on_the_edges_own_errors(protocol: str) -> None:
    async with stand(protocol, replies(b"garbage\r\n\r\n")) as s:
        wire = await s.dial()
        call = await wire.get()
        assert call.status == 502
        assert len(call.values(HSTS)) == 1


async def test_no_hsts_when_it_is_switched_off(protocol: str) -> None:
    async with stand(protocol, hsts={"enabled": False}) as s:
        assert (await (await s.dial()).get()).values(HSTS) == []


async def test_hsts_is_not_sent_to_an_address_in_refusals_either(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial(name="127.0.0.1")
        call = await wire.get(fields=[(b"x_y", b"1")], host="127.0.0.1")
        assert call.status == 400
        assert call.values(HSTS) == []


async def test_one_target_after_the_other(protocol: str) -> None:
    """Each is routed, and each head is what it would be on a connection of its own, whatever came before."""
    fields = [(b"user-agent", b"a"), (b"x-a", b"1"), (b"cookie", b"a=b"), (b"x-a", b"2"), (b"authorization", b"Bearer x")]
    others = [*fields[:-1], (b"authorization", b"Bearer y")]
    asked = [
        ("GET", "/", fields), ("GET", "/a?b=c", fields), ("GET", "/v1/models", fields), ("GET", "/a", others),
        ("POST", "/a", others), ("GET", "/v1/models?x", fields), ("GET", "/none/../", fields), ("GET", "/a?b=c", fields),
        ("GET", "/a?b=d", others),
    ]  # fmt: skip
    routes = [{"path": "/v1/", "upstream": "main", "dialect": "openai"}, {"path": "/", "upstream": "main"}]
    async with stand(protocol, routes=routes) as s:

        async def seen(*asks: tuple[str, str, list[tuple[bytes, bytes]]]) -> list[tuple[object, ...]]:
            wire = await s.dial()
            found = []
            for method, path, more in asks:
                before, logged = len(s.upstream.requests), len(s.records)
                status = await wire.call(method, path, more).reply()
                record = await s.record(logged + 1)
                heads = [
                    (each.line, [line for line in each.fields if line[0] not in {b"x-ray-id", b"cdn-loop"}])
                    for each in s.upstream.requests[before:]
                ]
                found.append((status, record["path"], record["route"], record["method"], heads))
            wire.close()
            return found

        together = await seen(*asked)
        assert together == [(await seen(each))[0] for each in asked]
        assert [each[0] for each in together] == [200, 200, 200, 200, 200, 200, 400, 200, 200]
        assert [each[2] for each in together[:3]] == ["*/", "*/", "*/v1/"]
