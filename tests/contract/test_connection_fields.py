# Rules know the connection that a request came by, over every protocol alike.
"""`cf.tls_*`, `cf.edge.*` and `cf.timings.client_*` on real connections: a redirect says what a rule has read."""

from __future__ import annotations

from typing import Any

import pytest
from support.census import NOISE, census, collector_off, grown
from support.client import connected
from support.edge import context_of
from support.waiting import until

from edgeproxy.listen import link
from edgeproxy.listen.quic_session import Session
from edgeproxy.listen.tcp import Listener

from .stand import stand

_READ = (
    'concat("/", cf.tls_version, "/", cf.tls_cipher, "/", to_string(cf.tls_client_hello_length), "/",'
    ' to_string(cf.edge.server_ip), "/", to_string(cf.edge.server_port), "/", to_string(cf.edge.client_tcp))'
)
_RULES = [
    {"id": "read", "expression": 'http.request.uri.path eq "/read"', "action": "redirect", "location_expression": _READ},
    {"id": "tcp", "expression": "cf.timings.client_tcp_rtt_msec in {0..5000}", "action": "redirect", "location": "/tcp"},
    {"id": "quic", "expression": "cf.timings.client_quic_rtt_msec in {0..5000}", "action": "redirect", "location": "/quic"},
]
RULES: dict[str, Any] = {"book": {"rules": _RULES}}


@pytest.fixture
def hellos(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ClientHello of each client, as the edge came to see it."""
    found: list[bytes] = []
    quic, tls = Session._established, Listener.established

    def over_quic(session: Session, handshake: Any, made: Any, now: float) -> None:
        found.append(made.hello)
        quic(session, handshake, made, now)

    def over_tls(listener: Listener, connection: Any) -> Any:
        found.append(connection.hello[5:])  # without the record's header
        return tls(listener, connection)

    monkeypatch.setattr(Session, "_established", over_quic)
    monkeypatch.setattr(Listener, "established", over_tls)
    return found


async def test_rules_read_the_connection(protocol: str, hellos: list[bytes]) -> None:
    async with stand(protocol, rules=RULES) as s:
        wire = await s.dial()
        for _ in range(2):  # the second by a kept plan
            (location,) = (await wire.get("/read")).values(b"location")
        _, version, cipher, hello, address, port, tcp = location.decode().split("/")
        assert version == "TLSv1.3"
        assert cipher in {"AEAD-AES128-GCM-SHA256", "AEAD-AES256-GCM-SHA384", "AEAD-CHACHA20-POLY1305-SHA256"}
        assert int(hello) == 4 + int.from_bytes(hellos[0][1:4], "big") > 100
        assert (address, int(port)) == ("127.0.0.1", s.edge.https_port)
        assert tcp == ("false" if protocol == "h3" else "true")
        assert (await wire.get("/")).values(b"location") == [b"/quic" if protocol == "h3" else b"/tcp"]


async def test_older_tls_has_openssls_names() -> None:
    context = context_of(maximum_version=0x303)
    async with stand("h1", rules=RULES) as s, connected(s.edge.https_port, context=context) as client:
        await client.send(b"GET /read HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = await client.response()
        assert response is not None
        (location,) = response.values(b"location")
        assert location.startswith(b"/TLSv1.2/ECDHE-"), location


async def test_a_kernel_that_does_not_tell_the_time(protocol: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(link, "_TCP_INFO", None)
    async with stand(protocol, rules=RULES) as s:
        wire = await s.dial()
        assert (await wire.get("/")).status == (302 if protocol == "h3" else 200)


async def test_connections_that_were_asked_leave_nothing_behind(protocol: str) -> None:
    async with stand(protocol, rules=RULES) as s, collector_off():

        async def once() -> None:
            wire = await s.dial()
            assert (await wire.get("/read")).values(b"location")
            assert (await wire.get("/")).status == 302
            await wire.leave()
            s.wires.remove(wire)
            await until(lambda: s.edge.data_plane.connections == 0)

        await once()
        before = census()
        for _ in range(4 * NOISE):
            await once()
        listener = s.edge.data_plane._quic
        await until(lambda: listener is None or not listener.sessions)  # the closed ones are remembered for a moment
        grew = {name: count for name, count in grown(before, census()).items() if name.startswith("edgeproxy.")}
    assert grew == {}
