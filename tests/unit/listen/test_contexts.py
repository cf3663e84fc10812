# Which certificate a name gets, who may resume a session, and what our contexts allow.
"""listen/contexts.py, in an edge and against OpenSSL's client."""

from __future__ import annotations

import os
import secrets
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from support.client import GET, answered, connected
from support.edge import certificates, context_of, running_edge
from support.upstream import running_upstream

import edgeproxy
from edgeproxy.certs import make_development
from edgeproxy.listen.contexts import covers


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A second and a third certificate, each under a CA of its own."""
    folder = tmp_path_factory.mktemp("several")
    make_development(folder / "exact", ("api.example.org",))
    make_development(folder / "wild", ("*.example.org",))
    return {"exact": folder / "exact", "wild": folder / "wild"}


@pytest.mark.parametrize(("name", "found"), [
    ("api.example.org", "exact"), ("API.Example.ORG", "exact"), ("www.example.org", "wild"), ("localhost", "default"),
    ("example.org", "default"), ("a.b.example.org", "default"), ("other", "default"), (None, "default"),
])  # fmt: skip
async def test_sni(several: dict[str, Path], name: str | None, found: str) -> None:
    first = certificates()
    tls = {"certificates": [
        {"cert": str(first.cert), "key": str(first.key)},
        *({"cert": str(path / "edge.pem"), "key": str(path / "edge-key.pem")} for path in several.values()),
    ]}  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(several[found] / "ca.pem" if found in several else first.ca)
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls) as edge:
        async with connected(edge.https_port, context=context, name=name) as client:
            # Verified by the one CA that can have signed it. 421 says whether the name is covered.
            host = (name or "anything").encode()
            await client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            response = await client.response()
            assert response is not None
            assert response.status == (200 if found != "default" or name in {"localhost", None} else 421)
        async with connected(edge.https_port, context=context, name=name) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n")
            response = await client.response()
            assert response is not None and response.status == (200 if name is None else 421)
        assert all(b"elsewhere" not in request.head for request in upstream.requests) or name is None


@pytest.mark.parametrize(("names", "host", "good"), [
    ({"example.org"}, "example.org", True), ({"example.org"}, "www.example.org", False),
    ({"*.example.org"}, "www.example.org", True), ({"*.example.org"}, "a.b.example.org", False),
    ({"*.example.org"}, "example.org", False), ({"*.example.org"}, ".example.org", True), ({"127.0.0.1"}, "127.0.0.1", True),
    (set(), "example.org", False), ({"*"}, "example", False),
])  # fmt: skip
def test_covers(names: set[str], host: str, good: bool) -> None:
    assert covers(frozenset(names), host) is good


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tickets_resume_at_whoever_has_the_keys(version: ssl.TLSVersion) -> None:
    keys = secrets.token_bytes(80)
    context = context_of(minimum_version=version, maximum_version=version)
    async with running_upstream() as upstream, running_edge(upstream.port, ticket_keys=keys) as edge:
        async with connected(edge.https_port, context=context) as client:
            await answered(client)
            assert client.tls is not None
            session = client.tls.session
            assert session is not None and session.has_ticket
        async with running_edge(upstream.port, ticket_keys=keys) as sibling:
            async with connected(sibling.https_port, context=context, session=session) as client:
                await answered(client)
                assert client.tls is not None and client.tls.session_reused
            assert sibling.stats.handshakes_resumed == 1
        async with running_edge(upstream.port, ticket_keys=secrets.token_bytes(80)) as stranger:
            async with connected(stranger.https_port, context=context, session=session) as client:
                await answered(client)
                assert client.tls is not None and not client.tls.session_reused
            assert stranger.stats.handshakes_resumed == 0


async def test_a_resumed_session_keeps_its_name_to_itself(several: dict[str, Path]) -> None:
    """The 421 check must hold for resumed connections too."""
    first, exact = certificates(), several["exact"]
    tls = {"certificates": [
        {"cert": str(first.cert), "key": str(first.key)}, {"cert": str(exact / "edge.pem"), "key": str(exact / "edge-key.pem")},
    ]}  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(exact / "ca.pem")
    raw = b"GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n"
    async with running_upstream() as upstream, running_edge(upstream.port, tls=tls) as edge:
        async with connected(edge.https_port, context=context, name="api.example.org") as client:
            await answered(client, raw)
            assert client.tls is not None
            session = client.tls.session
        async with connected(edge.https_port, context=context, name="api.example.org", session=session) as client:
            await answered(client, raw)
            await client.send(GET)
            response = await client.response()
            assert response is not None and response.status == 421


_GROUPS = """
import os, sys
os.environ["OPENSSL_CONF"] = sys.argv[1]
import ssl
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(sys.argv[2], sys.argv[3])
ok = []
for curve in ("X25519", "prime256v1", "secp384r1", "secp521r1", "X448"):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        client.set_ecdh_curve(curve)
    except ValueError:
        # CPython takes only curves that have a NID of EC_KEY; the other two are shown by the default offer.
        continue
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    c, s = client.wrap_bio(a, b), server.wrap_bio(b, a, server_side=True)
    done = 0
    try:
        for _ in range(6):
            for side in (c, s):
                try:
                    side.do_handshake()
                    done += 1
                except ssl.SSLWantReadError:
                    pass
        ok.append(curve)
    except ssl.SSLError:
        pass
print(",".join(ok))
"""


def test_groups_are_limited_by_our_openssl_configuration() -> None:
    paths = certificates()
    conf = Path(edgeproxy.__file__).parent / "listen" / "openssl.cnf"
    command = [sys.executable, "-c", _GROUPS, str(conf), str(paths.cert), str(paths.key)]
    limited = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.strip()
    command[3] = os.devnull
    free = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.strip()
    assert "secp521r1" in free, "or the test could not fail"
    assert "secp521r1" not in limited and "X448" not in limited
    assert {"prime256v1", "secp384r1"} <= set(limited.split(","))
