# Directories and files of networks from a real HTTPS server, and everything that it must not be able to do.
"""lookups/https.py, lookups/ranges.py, bots/directory.py, and a signing client from the first request to a verified one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.signing import NOW, Signer, request
from support.waiting import until

from edgeproxy.bots.catalogue import Bot, Catalogue
from edgeproxy.bots.directory import digest_holds, proven
from edgeproxy.bots.identity import Identity, agents_of
from edgeproxy.bots.keys import MEDIA_TYPE, WELL_KNOWN, read_directory
from edgeproxy.bots.ranges import NOTHING, read_folder
from edgeproxy.certs import make_development
from edgeproxy.lookups import https
from edgeproxy.lookups.answers import NotFetched
from edgeproxy.lookups.https import Fetcher, check, is_public
from edgeproxy.lookups.ranges import fetch_all
from edgeproxy.lookups.service import Lookups

HOST = "agent.example"
SIGNER = Signer()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stand:
    """A server at https://agent.example:PORT, and what it was asked."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port = port
        self.context = context
        self.origin = f"https://{HOST}:{port}"
        self.asked: list[web.Request] = []
        self.reply: Handler = self.directory

    async def handle(self, asked: web.Request) -> web.StreamResponse:
        self.asked.append(asked)
        return await self.reply(asked)

    async def directory(self, _asked: web.Request) -> web.StreamResponse:
        return web.Response(body=SIGNER.directory(), headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "max-age=600"})

    def fetcher(self, *private: str) -> Fetcher:
        return Fetcher(self.context, frozenset(private or (HOST,)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_development(tmp_path_factory.mktemp("certs"), (HOST, "localhost"))


@pytest.fixture
async def stand(certificate: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.cert, certificate.key)
    made = Stand(0, ssl.create_default_context(cafile=str(certificate.ca)))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    made.port = listening.getsockname()[1]
    made.origin = f"https://{HOST}:{made.port}"
    await web.SockSite(runner, listening, ssl_context=server).start()
    loop = asyncio.get_running_loop()
    known = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        return await known("127.0.0.1" if host.endswith(".example") else host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
    yield made
    await runner.cleanup()


async def failure(stand: Stand, url: str, *private: str, limit: int = 1000) -> str:
    fetcher = stand.fetcher(*private)
    try:
        with pytest.raises(NotFetched) as caught:
            await fetcher.get(url, limit)
    finally:
        await fetcher.close()
    return str(caught.value)


# What is fetched, and how


async def test_what_is_asked(stand: Stand) -> None:
    fetcher = stand.fetcher()
    found = await fetcher.get(stand.origin + WELL_KNOWN, 1000, MEDIA_TYPE)
    await fetcher.close()
    assert found.body == SIGNER.directory() and found.headers["cache-control"] == "max-age=600"
    (asked,) = stand.asked
    assert asked.method == "GET" and asked.path == WELL_KNOWN and asked.headers["Accept"] == MEDIA_TYPE
    assert asked.headers["Accept-Encoding"] == "identity" and "Cookie" not in asked.headers


async def test_private_addresses_are_not_connected_to(stand: Stand) -> None:
    assert "not public" in await failure(stand, stand.origin, "another.example")
    assert "not public" in await failure(stand, f"https://localhost:{stand.port}", "another.example")
    assert stand.asked == []


async def test_the_certificate_counts(stand: Stand) -> None:
    assert "ertificate" in await failure(stand, f"https://other.example:{stand.port}/", "other.example")
    stand.context = ssl.create_default_context()
    assert "ertificate" in await failure(stand, stand.origin)
    assert stand.asked == []


@pytest.mark.parametrize(
    "url",
    ["http://agent.example/", "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
     "https://127.1/", "https://2130706433/",
     "https://0x7f.1/", "https://0x7f000001/", "https://user@agent.example/", "https://user:x@agent.example/",
     "file:///etc/passwd", "https:///x",
     "https://agent.example:99999/", "", "https://127.0.0.1./", "ftp://agent.example/", "https://[::1"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(NotFetched):
        check(url)
    check("https://agent.example:8443/x?y")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1",
     "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1",
     "192.0.2.1", "::",
     "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "64:ff9b::7f00:1",
     "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:db8::1", "2001:0:7f00:1::80ff:fffe", "x", "", "1.2.3"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


async def test_answers_that_are_refused(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    async def redirect(_asked: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("https://elsewhere.example/")

    async def empty(_asked: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def packed(_asked: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    async def endless(asked: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(asked)
        try:
            while True:
                await reply.write(b"x" * 1000)
        except ConnectionError:
            return reply

    async def slow(_asked: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    for reply, said in ((redirect, "302"), (empty, "204"), (packed, "encoding"), (endless, "1000 bytes")):
        stand.reply = reply
        assert said in await failure(stand, stand.origin), reply.__name__
    monkeypatch.setattr(https, "DEADLINE", 0.3)
    stand.reply = slow
    assert "in time" in await failure(stand, stand.origin)


# A signing client


async def until_idle(lookups: Lookups) -> None:
    await until(lambda: not len(lookups._directories))


def identified(stand: Stand) -> tuple[Identity, Lookups]:
    bot = Bot("Agent", "A", "AI Assistant", agents=(stand.origin,))
    catalogue = Catalogue([bot])
    lookups = Lookups(catalogue.agents, lambda: NOW, fetcher=stand.fetcher())
    return Identity(catalogue, agents_of(catalogue, ()), NOTHING, None, lookups.keyring), lookups


def signed_by(stand: Stand, signer: Signer = SIGNER) -> Any:
    agent = f'"{stand.origin}"'
    covered = [('"@authority"', "example.com"), ('"signature-agent";key="sig1"', agent)]
    return request(signer.fields(covered, f"sig1={agent}".encode()))


async def test_a_signing_client(stand: Stand) -> None:
    identity, lookups = identified(stand)
    first = identity.of(signed_by(stand), "203.0.113.7", NOW)
    assert first.pending and not first.verified and stand.asked == []
    await until_idle(lookups)
    second = identity.of(signed_by(stand), "203.0.113.7", NOW)
    assert second.verified and second.signed and second.how == "signature" and second.agent == stand.origin
    assert len(stand.asked) == 1 and lookups.counts["directory", "found"] == 1
    assert identity.of(signed_by(stand, Signer(b"\x03" * 32)), "203.0.113.7", NOW).refusal == "key unknown"
    await lookups.close()


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [(b"{}", MEDIA_TYPE, "no list"), (SIGNER.directory(), "text/html", "text/html"), (b"x" * 70_000, MEDIA_TYPE, "65536 bytes")],
)
async def test_directories_of_no_use(stand: Stand, body: bytes, kind: str, said: str) -> None:
    async def reply(_asked: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": kind})

    stand.reply = reply
    identity, lookups = identified(stand)
    identity.of(signed_by(stand), "", NOW)
    await until_idle(lookups)
    found = identity.of(signed_by(stand), "", NOW)
    assert not found.verified and not found.pending and found.refusal == "key unknown"
    assert said in lookups.problems[stand.origin] and len(stand.asked) == 1
    await lookups.close()


async def test_an_agent_that_nobody_allowed_is_not_fetched(stand: Stand) -> None:
    identity, lookups = identified(stand)
    agent = f'"https://{HOST}:1"'
    made = request(SIGNER.fields([('"@authority"', "example.com"), ('"signature-agent"', agent)], agent.encode()))
    assert identity.of(made, "", NOW).refusal == "agent not allowed"
    await until_idle(lookups)
    assert stand.asked == [] and not lookups.counts
    await lookups.close()


# Directories that are signed


def signature_of(signer: Signer, authority: str, body: bytes, *, digest: bool = True, **changes: Any) -> dict[str, str]:
    covered = [('"@authority";req', authority)]
    headers = {}
    if digest:
        headers["content-digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        covered.append(('"content-digest"', headers["content-digest"]))
    changes = {"label": "a", "tag": "http-message-signatures-directory", **changes}
    fields = signer.fields(covered, None, **changes)
    return headers | {name.decode(): value.decode() for name, value in fields}


def usable(
    headers: dict[str, str], *signers: Signer, authority: str = HOST, body: bytes | None = None, now: float = NOW
) -> set[str]:
    content = json.dumps({"keys": [each.jwk() for each in signers]}).encode()
    keys = read_directory(content)
    assert isinstance(keys, dict)
    return set(proven(keys, headers, content if body is None else body, authority, now))


def test_directories_that_are_signed() -> None:
    other = Signer(b"\x02" * 32)
    body = json.dumps({"keys": [SIGNER.jwk(), other.jwk()]}).encode()
    assert usable({}, SIGNER, other) == {SIGNER.keyid, other.keyid}
    one = signature_of(SIGNER, HOST, body)
    assert usable(one, SIGNER, other) == {SIGNER.keyid}, "nobody showed the other one's private half"
    two = signature_of(other, HOST, body, label="b")
    both = one | {name: f"{one[name]}, {two[name]}" for name in ("signature", "signature-input")}
    assert usable(both, SIGNER, other) == {SIGNER.keyid, other.keyid}
    assert usable(both, SIGNER, other, authority="other.example") == set()
    assert usable(both, SIGNER, other, body=body + b" ") == set()
    assert usable(both, SIGNER, other, now=NOW + 999) == set()
    assert usable(signature_of(SIGNER, HOST, body, digest=False), SIGNER, other) == {SIGNER.keyid}
    assert usable(signature_of(SIGNER, HOST, body, tag="web-bot-auth"), SIGNER, other) == {SIGNER.keyid, other.keyid}
    assert usable(one | {"signature": "a=:AAAA:"}, SIGNER, other) == set()
    assert usable(one | {"signature": "x"}, SIGNER, other) == set()
    assert usable({"signature-input": "("}, SIGNER) == set()
    assert usable(signature_of(Signer(b"\x04" * 32), HOST, body), SIGNER) == set()


def test_a_signature_that_says_nothing_of_the_host() -> None:
    fields = SIGNER.fields([('"content-type"', MEDIA_TYPE)], None, tag="http-message-signatures-directory")
    headers = {"content-type": MEDIA_TYPE} | {name.decode(): value.decode() for name, value in fields}
    assert usable(headers, SIGNER) == set()


def test_digests() -> None:
    def field(name: str, data: bytes) -> str:
        return f"{name}=:{base64.b64encode(data).decode()}:"

    right, wrong = field("sha-256", hashlib.sha256(b"x").digest()), field("sha-512", b"0" * 64)
    assert digest_holds(right, b"x") and digest_holds(f"md5=:AA==:, {right}", b"x")
    assert not digest_holds(f"{right}, {wrong}", b"x") and not digest_holds("md5=:AA==:", b"x") and not digest_holds("", b"x")
    assert not digest_holds("sha-256=1", b"x") and not digest_holds(right, b"y")


# Files of networks


async def test_files_of_networks(stand: Stand, tmp_path: Path) -> None:
    answers = {"/good.json": b'{"prefixes":[{"ipv4Prefix":"192.0.2.0/24"}]}', "/bad.json": b'{"prefixes":[]}', "/huge.json": b"x"}

    async def reply(asked: web.Request) -> web.StreamResponse:
        return web.Response(body=answers[asked.path]) if asked.path in answers else web.Response(status=404)

    stand.reply = reply
    (tmp_path / "bad.json").write_text('["198.51.100.0/24"]')
    fetcher = stand.fetcher()
    sources = {name: f"{stand.origin}/{name}.json" for name in ("good", "bad", "absent", "../outside")}
    sources["loopback"] = f"https://127.0.0.1:{stand.port}/good.json"
    found = {outcome.name: outcome for outcome in await fetch_all(tmp_path, sources, fetcher)}
    await fetcher.close()
    assert found["good"].networks == 1 and not found["good"].problem
    assert "no networks" in found["bad"].problem and "404" in found["absent"].problem and "address" in found["loopback"].problem
    assert found["../outside"].problem and not (tmp_path.parent / "outside.json").exists()
    assert sorted(os.listdir(tmp_path)) == ["bad.json", "good.json"]  # noqa: PTH208  at the end of the test
    assert read_folder(tmp_path, ["good", "bad"]).problems == (), "what was there stays"


async def test_time_is_the_clocks(stand: Stand) -> None:
    lookups = Lookups([stand.origin], fetcher=stand.fetcher())
    assert lookups.keyring.find(stand.origin, SIGNER.keyid, time.time()) == (None, True)
    await until_idle(lookups)
    assert lookups.keyring.find(stand.origin, SIGNER.keyid, time.time())[0] is not None
    await lookups.close()
