# Who is told that there is HTTP/3 too: clients of h1 and h2 over TLS, on every answer, and nobody else.
from __future__ import annotations

import pytest
from support.client import connected
from support.upstream import replies

from .stand import stand

ALT_SVC = b"alt-svc"
OURS = b'h3=":8443"; ma=86400'
THEIRS = b'HTTP/1.1 200 OK\r\nalt-svc: h3=":1"\r\nAlt-Svc: clear\r\ncontent-length: 0\r\n\r\n'


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_every_answer_over_tls_tells_of_h3(protocol: str, host: str) -> None:
    async with stand(protocol, replies(THEIRS)) as s:
        wire = await s.dial(name=host)
        expected = [] if protocol == "h3" else [OURS]
        for _ in range(2):  # the second by a kept plan
            assert (await wire.get(host=host)).values(ALT_SVC) == expected
        assert (await wire.get("//double", host=host)).values(ALT_SVC) == expected
        refused = await wire.get(fields=[(b"x_y", b"1")], host=host)
        assert (refused.status, refused.values(ALT_SVC)) == (400, expected)


@pytest.mark.parametrize("listen", [{"alt_svc": False}, {"protocols": ["h1", "h2"]}])
async def test_nobody_is_told_where_it_is_off(protocol: str, listen: dict[str, object]) -> None:
    if protocol == "h3":
        pytest.skip("over h3 nobody is told anyway: test_every_answer_over_tls_tells_of_h3 holds that")
    async with stand(protocol, replies(THEIRS), listen=listen) as s:
        wire = await s.dial()
        assert (await wire.get()).values(ALT_SVC) == []
        assert (await wire.get("//double")).values(ALT_SVC) == []


async def test_a_reload_changes_what_is_told_on_open_connections(protocol: str) -> None:
    if protocol == "h3":
        pytest.skip("over h3 nobody is told anyway: test_every_answer_over_tls_tells_of_h3 holds that")
    async with stand(protocol) as s:
        wire = await s.dial()
        assert (await wire.get()).values(ALT_SVC) == [OURS]
        s.reload(listen={"public_port": 443, "alt_svc_max_age": 60})
        assert (await wire.get()).values(ALT_SVC) == [b'h3=":443"; ma=60']


@pytest.mark.parametrize("raw", [b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_the_plain_port_tells_nobody(raw: bytes) -> None:
    async with stand("h1") as s, connected(s.edge.http_port, plain=True) as client:
        await client.send(raw)
        response = await client.response()
        assert response is not None
        assert response.status in {308, 400}
        assert response.values(ALT_SVC) == []
