# Fingerprints of connections, over every protocol alike: what rules read, what is kept, and what is not where nobody asks.
"""`Peer.prints` on real connections; what real programs send is in tests/e2e/test_prints.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.client import GET, connected
from support.edge import context_of
from support.h2 import h2_connected
from support.h3 import h3_connected
from support.hellos import slow_ja4

from edgeproxy.gateway import Gateway
from edgeproxy.listen.hello import from_records
from edgeproxy.message import Request
from edgeproxy.prints import Prints

from .stand import stand

_READ = 'concat("/", cf.bot_management.ja4, "/", cf.bot_management.ja3_hash)'
_RULES = [
    {"id": "read", "expression": 'http.request.uri.path eq "/read"', "action": "redirect", "location_expression": _READ},
    {"id": "known", "expression": 'len(cf.bot_management.ja4) gt 0 and http.request.uri.path eq "/known"', "action": "block"},
]
RULES: dict[str, Any] = {"book": {"rules": _RULES}}
FIELDS = [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https"), (b":authority", b"localhost")]


class Seen:
    """What the edge made.

    Attributes:
        prints: in order.
        hellos: their ClientHello messages.
        asked: of each request that was planned, the prints of its connection.
    """

    def __init__(self) -> None:
        self.prints: list[Prints] = []
        self.hellos: list[bytes] = []
        self.asked: list[Prints | None] = []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    begin, plan = Prints.__init__, Gateway.plan

    def begun(prints: Prints, first: bytes, kind: Any = "t") -> None:
        found.prints.append(prints)
        found.hellos.append(first if kind == "q" else from_records(first))
        begin(prints, first, kind)

    def planned(gateway: Gateway, request: Request, like: Any = None) -> Any:
        found.asked.append(request.peer.prints)
        return plan(gateway, request, like)

    monkeypatch.setattr(Prints, "__init__", begun)
    monkeypatch.setattr(Gateway, "plan", planned)
    return found


async def test_rules_read_the_names(protocol: str, seen: Seen) -> None:
    async with stand(protocol, rules=RULES) as s:
        wire = await s.dial()
        for _ in range(2):  # the second by a kept plan
            (location,) = (await wire.get("/read")).values(b"location")
        _, ja4, ja3 = location.decode().split("/")
        assert ja4 == slow_ja4(seen.hellos[0], "q" if protocol == "h3" else "t")
        assert ja4[8:10] == protocol
        assert (len(ja4), len(ja3)) == (36, 32)
        assert (await wire.get("/known")).status == 403


async def test_nothing_is_kept_where_nobody_asks(protocol: str, seen: Seen) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        assert (await wire.get("/")).status == 200
        for connection in s.edge.data_plane._secure.connections:
            assert connection.hello == b""  # type: ignore[union-attr]  # of TLS
            assert getattr(connection.app, "first", None) is None
    assert seen.prints == []
    assert seen.asked == [None]


async def test_a_proxys_connection_tells_nothing_of_its_clients(protocol: str, seen: Seen) -> None:
    async with stand(protocol, rules=RULES, trusted_proxies=["127.0.0.0/8", "::1"]) as s:
        wire = await s.dial()
        assert (await wire.get("/known")).status == 200
        assert (await wire.get("/read")).values(b"location") == [b"//"], "values are missing"
    assert seen.prints == []


async def test_a_reload_changes_it_for_new_connections(protocol: str) -> None:
    async with stand(protocol) as s:
        old = await s.dial()
        assert (await old.get("/known")).status == 200
        s.reload(rules=RULES)
        new = await s.dial()
        assert (await new.get("/known")).status == 403
        assert (await old.get("/known")).status == 200
        s.reload()
        assert (await new.get("/known")).status == 200


@pytest.mark.parametrize("step", [1, 50, 0])
async def test_hellos_in_pieces(step: int, seen: Seen) -> None:
    context = context_of(minimum_version=0x304)
    async with stand("h1", rules=RULES) as s, connected(s.edge.https_port, context=context, step=step) as client:
        await client.send(GET.replace(b"/ ", b"/read ", 1), step)
        response = await client.response()
        assert response is not None
        (location,) = response.values(b"location")
        assert location.decode().split("/")[1] == slow_ja4(seen.hellos[0], "t")


async def test_plain_connections_have_none(seen: Seen) -> None:
    async with stand("h1", rules=RULES) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.edge.http_port)
        writer.write(b"GET /known HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 308 ")
        writer.close()
        await writer.wait_closed()
        assert seen.prints == []


# -- first frames ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 0])
async def test_how_http2_begins(step: int, seen: Seen) -> None:
    async with stand("h2", rules=RULES) as s, h2_connected(s.edge.https_port) as client:
        settings = b"\0\3\0\0\0\x64\0\2\0\0\0\0\0\4\0\1\0\0"  # order: 3, 2, 4
        # `h2_connected` has sent its preface and empty SETTINGS: what counts is the first of each kind.
        window, priority = client.raw(8, 0, 0, (12345).to_bytes(4, "big")), client.raw(2, 0, 3, b"\x80\0\0\0\xc8")
        frames = window + priority + client.raw(4, 0, 0, settings)
        await client.client.send(frames + client.headers(1, FIELDS), step)
        assert (await client.over(1)).status == 200
        await client.send(client.window(0, 99), client.headers(3, [*FIELDS[1:], FIELDS[0]]))
        assert (await client.over(3)).status == 200
    (prints,) = seen.prints
    assert prints.h2 is not None
    assert prints.h2.text() == "|12345|3:1:0:201|m,p,s,a"
    assert prints.h3 is None


async def test_http2_settings_keep_their_order(seen: Seen) -> None:
    async with stand("h2", rules=RULES) as s, h2_connected(s.edge.https_port, {3: 100, 1: 4096, 4: 65536, 42: 7}) as client:
        await client.send(client.headers(1, FIELDS))
        assert (await client.over(1)).status == 200
    assert seen.prints[0].h2 is not None
    assert seen.prints[0].h2.text() == "3:100;1:4096;4:65536;42:7|00|0|m,p,s,a"


async def test_http2_keeps_its_first_bytes_no_longer_than_needed(seen: Seen) -> None:
    async with stand("h2", rules=RULES) as s, h2_connected(s.edge.https_port) as client:
        for _ in range(100):
            await client.send(client.raw(6, 0, 0, bytes(8)))
        await client.settled()
        (connection,) = s.edge.data_plane._secure.connections
        assert len(connection.app.first) == 1024  # type: ignore[union-attr]  # of HTTP/2
        await client.send(client.headers(1, FIELDS))
        assert (await client.over(1)).status == 200
        assert connection.app.first is None  # type: ignore[union-attr]


async def test_how_http3_begins(seen: Seen) -> None:
    pairs = [(6, 16), (0x21 + 0x1F * 5, 3), (1, 0), (7, 0)]
    async with stand("h3", rules=RULES) as s, h3_connected(s.edge.https_port, *pairs) as client:
        await client.fine(FIELDS)
    (prints,) = seen.prints
    assert prints.h3 is not None
    assert prints.h3.settings == ((6, 16), (1, 0), (7, 0))
    assert prints.h3.pseudo == "m,p,s,a"
    ids = [name for name, _ in prints.h3.parameters]
    assert ids == sorted(ids)
    assert {1, 4, 5, 15} <= set(ids)
    assert prints.h2 is None


async def test_settings_that_come_late(seen: Seen) -> None:
    """A request may overtake SETTINGS: then the next one that is looked at tells."""
    from support.h3 import CONTROL, headers, settings, varint

    async with stand("h3", rules=RULES) as s, h3_connected(s.edge.https_port, start=False) as client:
        assert (await client.over(client.request(headers(FIELDS)))).status == 200
        assert seen.prints[0].h3 is not None
        assert seen.prints[0].h3.settings == ()
        client.write(CONTROL, varint(0) + settings((1, 0), (6, 9)))
        assert (await client.over(client.request(headers([*FIELDS, (b"x", b"y")])))).status == 200
    assert seen.prints[0].h3.settings == ((1, 0), (6, 9))
