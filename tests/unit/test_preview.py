# Routes that read the body: what is held, what is refused, and that everything then goes on as if nothing had waited.
"""preview.py behind a real H1Connection."""

from __future__ import annotations

import pytest
from support.edge import configuration, running_edge
from support.h2 import POST, h2_connected
from support.pipeline import RecordingPool, Stand
from support.upstream import running_upstream

from edgeproxy.preview import read_model

CONTENT = b'{"model":"big-1","messages":[]}'


def head(size: int, *fields: bytes) -> bytes:
    return b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % size + b"".join(fields) + b"\r\n"


@pytest.fixture
def stand() -> Stand:
    target = {"targets": [{"url": "http://127.0.0.1:1"}]}
    route = {"path": "/", "upstream": "main", "preview": "1KiB", "models": {"big-1": "big", "big-*": "other", "b*": "main"}}
    stand = Stand(configuration(upstreams={"main": target, "big": target, "other": target}, routes=[route]))
    compiled = stand.snapshot.routes[0]
    for name in ("big", "other"):
        compiled.pools[name] = RecordingPool()  # type: ignore[assignment]
    return stand


def taken(stand: Stand) -> dict[str, list[bytes]]:
    """Bodies by the upstream they went to."""
    pools = stand.snapshot.routes[0].pools
    return {name: [job.body for job in pool.jobs] for name, pool in pools.items() if pool.jobs}  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [0, 1, 40])
@pytest.mark.parametrize(("model", "upstream"), [("big-1", "big"), ("big-2", "other"), ("bx", "main"), ("x", "main")])
def test_the_model_decides(stand: Stand, step: int, model: str, upstream: str) -> None:
    content = CONTENT.replace(b"big-1", model.encode())
    driver = stand.h1().feed(head(len(content)) + content, step=step)
    assert taken(stand) == {upstream: [content]}
    assert driver.link.text.endswith(content)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b'"model"', b'{"model":1}', b'{"model":["big-1"]}', b'{"model":{"a":1}}', b"\xff\xfe",
    b'{"model":"\xff"}', b"{" * 900, b"[" * 1000,
])  # fmt: skip
@pytest.mark.parametrize("step", [0, 7])
def test_what_is_no_request(stand: Stand, content: bytes, step: int) -> None:
    driver = stand.h1().feed(head(len(content)) + content, step=step)
    if not content:
        assert taken(stand) == {"main": [b""]}, "nothing to read: the route's own upstream"
        return
    assert driver.link.text.startswith(b"HTTP/1.1 400 ")
    assert taken(stand) == {}
    assert not driver.link.closed, "the body was read whole: the connection may go on"


@pytest.mark.parametrize("content", [b'{"messages":[]}', b'{"model":null}'])
def test_without_a_model(stand: Stand, content: bytes) -> None:
    stand.h1().feed(head(len(content)) + content)
    assert taken(stand) == {"main": [content]}


def test_two_models_are_read_like_the_upstream_reads_them() -> None:
    """The last one counts, as in every common JSON parser; a first one must not choose the upstream."""
    assert read_model(b'{"model":"a","model":"b"}') == "b"
    assert read_model(b'{"\\u006dodel":"a"}') == "a"


def test_too_large_by_its_length(stand: Stand) -> None:
    driver = stand.h1().feed(head(2000))
    assert driver.link.text.startswith(b"HTTP/1.1 413 ")
    assert driver.link.closed
    assert taken(stand) == {}


def test_too_large_as_it_comes(stand: Stand) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    driver = stand.h1().feed(raw)
    for _ in range(3):
        driver.feed(b"190\r\n" + b" " * 400 + b"\r\n")
    assert driver.link.text.startswith(b"HTTP/1.1 413 ")
    assert driver.link.closed
    assert taken(stand) == {}


def test_exactly_at_the_bound(stand: Stand) -> None:
    content = CONTENT + b" " * (1024 - len(CONTENT))
    stand.h1().feed(head(1024) + content, step=100)
    assert taken(stand) == {"big": [content]}


def test_continue_is_said_before_the_body_is_held(stand: Stand) -> None:
    driver = stand.h1().feed(head(len(CONTENT), b"Expect: 100-continue\r\n"))
    assert driver.link.text == b"HTTP/1.1 100 Continue\r\n\r\n"
    driver.feed(CONTENT)
    assert taken(stand) == {"big": [CONTENT]}
    assert driver.link.text.count(b"100 Continue") == 1


def test_the_client_leaves_while_its_body_is_held(stand: Stand) -> None:
    driver = stand.h1().feed(head(len(CONTENT)) + CONTENT[:5])
    driver.h1.connection_lost(None)
    assert taken(stand) == {}


def test_the_body_stops_coming_while_it_is_held(stand: Stand) -> None:
    driver = stand.h1().feed(head(len(CONTENT)) + CONTENT[:5])
    driver.h1.expire(driver.link.deadline + 1)
    assert driver.link.text.startswith(b"HTTP/1.1 408 ")
    assert taken(stand) == {}


def test_the_same_head_with_another_model(stand: Stand) -> None:
    """A remembered head never remembers what the body said."""
    driver = stand.h1()
    for model, upstream in (("big-1", "big"), ("big-2", "other"), ("x", "main"), ("big-1", "big")):
        content = CONTENT.replace(b"big-1", model.encode())
        before = len(taken(stand).get(upstream, []))
        driver.feed(head(len(content)) + content)
        assert len(taken(stand)[upstream]) == before + 1


@pytest.mark.parametrize("together", [True, False], ids=["one read", "two reads"])
@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "no length"])
async def test_over_h2(together: bool, declared: bool) -> None:
    """However the content comes, it is looked at before an upstream is chosen."""
    async with running_upstream() as plain, running_upstream() as big:
        upstreams = {
            "main": {"targets": [{"url": f"http://127.0.0.1:{plain.port}"}]},
            "big": {"targets": [{"url": f"http://127.0.0.1:{big.port}"}]},
        }
        routes = [{"path": "/", "upstream": "main", "models": {"big-1": "big"}}]
        async with running_edge(upstreams=upstreams, routes=routes) as edge, h2_connected(edge.https_port) as client:
            fields = [*POST, (b"content-length", b"%d" % len(CONTENT))] if declared else POST
            for stream in (1, 3, 5):
                frames = [client.headers(stream, fields, end=False), client.content(stream, CONTENT)]
                if together:
                    await client.send(*frames)
                else:
                    await client.send(frames[0])
                    await client.settled()
                    await client.send(frames[1])
                assert (await client.over(stream)).status == 200
            assert [request.body for request in big.requests] == [CONTENT] * 3
            assert not plain.requests
            bad = [client.headers(7, fields, end=False), client.content(7, b"x" * len(CONTENT))]
            await client.send(*bad)
            assert (await client.over(7)).status == 400
            assert not plain.requests
