# A bot that signs its requests (Web Bot Auth) and an edge that has never heard of its key: directory, rules, answers, all of it.
"""A program of its own signs by RFC 9421, sends by libcurl over HTTP/1.1, HTTP/2 and HTTP/3, and tells how it was answered.

It shares no code with the edge. Its key directory is served over TLS. The one thing that is not as outside is what the edge's
guard would refuse: that directory is on this machine (`private`, which no configuration can say).
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from contract.test_rules import ruled
from support.edge import Edge, RecordedLog, certificates, running_edge
from support.signing import Signer
from support.upstream import ok, running_upstream

from edgeproxy.bots.keys import MEDIA_TYPE, WELL_KNOWN
from edgeproxy.lookups.https import Fetcher

HOST = "agent.edge.test"  # its directory's; a name of the development certificate
SEED = b"\x21" * 32
# 403 to who is nobody, 451 to a bot that is not signed: there is none. Who goes on has its category with it.
RULES = ruled("""
- {id: named, expression: 'cf.verified_bot_category eq "Other"', action: rewrite, headers: {set: {x-category: other}}}
- {id: nobody, expression: not cf.bot_management.signed_agent, action: block, status: 403}
- {id: unsigned, expression: not cf.bot_management.verified_bot, action: block, status: 451}
""")
BOT = """
import base64, hashlib, json, sys, time
import curl_cffi.requests as requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

url, ca, version, agent, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], bytes.fromhex(sys.argv[5])
session = requests.Session(verify=ca, trust_env=False, timeout=20, http_version=version)
authority = url.split("/")[2]
b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(seed=seed, age=10, life=300, nonce="", path="", agent=agent, authority=authority, tag="web-bot-auth"):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    jwk = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": b64(key.public_key().public_bytes_raw())}, separators=(",", ":"))
    keyid = b64(hashlib.sha256(jwk.encode()).digest())
    covered = [('"@authority"', authority), ('"signature-agent";key="sig1"', f'"{agent}"')]
    covered += [('"@path"', path)] if path else []
    created = int(time.time()) - age
    parameters = f'({" ".join(name for name, _ in covered)});created={created};expires={created + life};keyid="{keyid}"'
    parameters += f';tag="{tag}"' + (f';nonce="{nonce}"' if nonce else "")
    base = "".join(f"{name}: {value}\\n" for name, value in covered) + f'"@signature-params": {parameters}'
    return {"Signature-Agent": f'sig1="{agent}"', "Signature-Input": f"sig1={parameters}",
            "Signature": f"sig1=:{base64.b64encode(key.sign(base.encode())).decode()}:"}


def ask(fields, path="/a"):
    return session.get(url + path, headers=fields).status_code


def tampered(fields):
    raw = bytearray(base64.b64decode(fields["Signature"][6:-1]))
    raw[7] ^= 1
    return {**fields, "Signature": f"sig1=:{base64.b64encode(bytes(raw)).decode()}:"}


answers = {"unsigned": ask({}), "before its directory came": ask(signed())}
end = time.monotonic() + 20
while ask(signed()) != 200 and time.monotonic() < end:
    time.sleep(0.02)
kept, once = signed(), signed(nonce="n-1")
answers |= {
    "signed": ask(kept), "the same again, without a nonce": ask(kept), "with its path": ask(signed(path="/a")),
    "a nonce": ask(once), "that nonce again": ask(once), "another nonce": ask(signed(nonce="n-2")),
    "tampered signature": ask(tampered(kept)),
    "tampered parameters": ask({**kept, "Signature-Input": kept["Signature-Input"].replace(";expires=", ";expires=1")}),
    "another path": ask(signed(path="/b")), "another host": ask(signed(authority="example.com")),
    "expired": ask(signed(age=600)), "from the future": ask(signed(age=-120)),
    "somebody else's key": ask(signed(seed=bytes(range(32)))), "somebody else's name": ask(signed(agent="https://other.edge.test")),
    "for something else": ask(signed(tag="other")), "signed, at last": ask(signed()),
}
print(json.dumps(answers))
"""
FINE = {"signed", "the same again, without a nonce", "with its path", "a nonce", "another nonce", "signed, at last"}
VERSIONS = {"h1": 2, "h2": 4, "h3": 31}  # libcurl's numbers; 31: HTTP/3 and nothing else


class Directory:
    """The operator's site. `asked`: paths and what was accepted."""

    def __init__(self) -> None:
        self.origin = ""
        self.asked: list[tuple[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers["Accept"]))
        headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "max-age=600"}
        return web.Response(body=Signer(SEED).directory(), headers=headers)


@pytest.fixture
async def directory(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Directory]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates().cert, certificates().key)
    made, app, listening = Directory(), web.Application(), socket.create_server(("127.0.0.1", 0))
    app.router.add_get("/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    made.origin = f"https://{HOST}:{listening.getsockname()[1]}"
    await web.SockSite(runner, listening, ssl_context=server).start()
    loop = asyncio.get_running_loop()
    known: Callable[..., Awaitable[Any]] = loop.getaddrinfo

    async def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        return await known("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
    trusting = ssl.create_default_context(cafile=str(certificates().ca))
    monkeypatch.setattr("edgeproxy.lookups.https.Fetcher", partial(Fetcher, trusting, frozenset({HOST})))
    yield made
    await runner.cleanup()


async def sent(edge: Edge, directory: Directory, protocol: str) -> dict[str, int]:
    """What the bot tells."""
    url = f"https://localhost:{edge.https_port}"
    arguments = (url, str(certificates().ca), str(VERSIONS[protocol]), directory.origin, SEED.hex())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BOT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode(errors="replace")[-3000:]
    answers: dict[str, int] = json.loads(said)
    return answers


def section(directory: Directory) -> dict[str, Any]:
    identity = {"dns": False, "known_agents": False, "agents": [directory.origin]}
    return {"enabled": True, "model": "off", "identity": identity}


@pytest.mark.parametrize("protocol", ["h1", "h2", "h3"])
async def test_a_bot_that_signs(protocol: str, directory: Directory) -> None:
    pytest.importorskip("curl_cffi", reason="no curl_cffi here (the extra `test` has it): this was not tested")
    log = RecordedLog()
    async with (
        running_upstream(ok) as upstream,
        running_edge(upstream.port, log=log, bots=section(directory), rules=RULES) as edge,
    ):
        answers = await sent(edge, directory, protocol)
        assert {name for name, status in answers.items() if status == 200} == FINE, answers
        assert {status for name, status in answers.items() if name not in FINE} == {403}, answers
        assert {json.loads(line)["protocol"] for line in log.lines} == {protocol}
        assert edge.faults.keys() == {("client", "rule_block")} and edge.stats.bots.failures == 0
        assert edge.stats.bots.lookups["directory", "found"] == 1
        # Whoever goes on is somebody, and the other way round.
        assert {value for each in upstream.requests for value in each.values(b"x-category")} == {b"other"}
        assert all(each.values(b"x-category") for each in upstream.requests)
        assert edge.stats.rule_hits["nobody", "block"] == edge.faults["client", "rule_block"]
        await edge.data_plane.close()
    assert directory.asked == [(WELL_KNOWN, MEDIA_TYPE)], "once, and not for each request"
