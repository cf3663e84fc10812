# Real programs and what their connections give away: the same by two computations, and as is known of those programs.
"""`Peer.prints` of curl, OpenSSL, Python, libcurl posing as a browser, Chromium and ngtcp2; and keys that are bound to one."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from browser import chromium
from running import Edge, until
from support.edge import certificates, running_edge
from support.hellos import UNSTABLE, slow_ja4
from support.upstream import ok, running_upstream

from edgeproxy.config.keys import HASH
from edgeproxy.gateway import Gateway
from edgeproxy.listen.hello import from_records
from edgeproxy.message import Request
from edgeproxy.policy.keytext import derive, hashed, make
from edgeproxy.prints import Prints

ASKS: dict[str, Any] = {"book": {"rules": [{"id": "a", "expression": 'cf.bot_management.ja4 eq "x"', "action": "log"}]}}
# What Chromium says since version 117 or so; the order and the values are its own.
CHROMIUM_H2 = "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p"
CHROMIUM_H3 = ((1, 65536), (6, 262144), (7, 100), (51, 1))
CURL = ("curl", "-sS", "--noproxy", "*", "--max-time", "20")
PEPPER = derive(b"p" * 64)
SESSION = "import sys, curl_cffi.requests as r; r.Session(verify=sys.argv[2], trust_env=False, timeout=20, {}).get(sys.argv[1])"


class Client(NamedTuple):
    """A connection that asked for something."""

    prints: Prints
    hello: bytes


class Watched:
    """An edge, and who came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"https://localhost:{port}/"
        self.clients: list[Client] = []

    async def run(self, *command: str, given: bytes = b"") -> Client:
        """Runs a program that asks once; its connection. Skips the test where there is no such program."""
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} here")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        try:
            async with asyncio.timeout(40):
                said, _ = await process.communicate(given)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert len(self.clients) == 1, said.decode(errors="replace")[-3000:]
        return self.clients.pop()


@pytest.fixture
def hellos(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """ClientHello messages by the id of the prints that were made of them."""
    found: dict[int, bytes] = {}
    begin = Prints.__init__

    def begun(prints: Prints, first: bytes, kind: Any = "t") -> None:
        found[id(prints)] = first if kind == "q" else from_records(first)
        begin(prints, first, kind)

    monkeypatch.setattr(Prints, "__init__", begun)
    return found


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes]) -> AsyncIterator[Watched]:
    plan = Gateway.plan
    async with running_upstream(ok) as upstream, running_edge(upstream.port, rules=ASKS) as edge:
        found = Watched(edge.https_port)

        def planned(gateway: Gateway, request: Request, like: Any = None) -> Any:
            prints = request.peer.prints
            assert prints is not None
            if all(each.prints is not prints for each in found.clients):
                found.clients.append(Client(prints, hellos[id(prints)]))
            return plan(gateway, request, like)

        monkeypatch.setattr(Gateway, "plan", planned)
        yield found


def same(client: Client, kind: str) -> str:
    """Its JA4, which two computations agree about."""
    prints, hello = client
    assert prints.ja4 == slow_ja4(hello, kind)
    assert prints.ja4n == slow_ja4(hello, kind, UNSTABLE)
    assert re.fullmatch(r"[0-9a-f]{32}", prints.ja3)
    return prints.ja4


async def test_curl(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes]) -> None:
    ca = str(certificates().ca)
    async with watched(monkeypatch, hellos) as edge:
        two = await edge.run(*CURL, "--http2", "--cacert", ca, edge.url)
        one = await edge.run(*CURL, "--http1.1", "--cacert", ca, edge.url)
    assert same(two, "t")[8:10] == "h2"
    assert same(one, "t")[8:10] == "h1"
    assert two.prints.ja4.split("_")[1] == one.prints.ja4.split("_")[1], "the same ciphers"
    assert two.prints.h2 is not None
    assert re.fullmatch(r"3:100;4:[0-9]+;2:0\|[0-9]+\|(0|[0-9:,]+)\|m,p,s,a", two.prints.h2.text()), two.prints.h2.text()
    assert one.prints.h2 is None


async def test_openssl_and_python(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes]) -> None:
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    fetch = (
        "import ssl, sys, urllib.request as u; c = ssl.create_default_context(cafile=sys.argv[2]);"
        " u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=c)).open(sys.argv[1]).read()"
    )
    async with watched(monkeypatch, hellos) as edge:
        there = ("-connect", f"localhost:{edge.port}", "-servername", "localhost")
        openssl = await edge.run("openssl", "s_client", "-quiet", *there, given=ask)
        older = await edge.run("openssl", "s_client", "-quiet", "-tls1_2", *there, given=ask)
        python = await edge.run(sys.executable, "-c", fetch, edge.url, str(certificates().ca))
    assert same(openssl, "t")[:4] == "t13d"
    assert openssl.prints.ja4[8:10] == "00", "it names no protocol"
    assert same(older, "t")[:4] == "t12d"
    assert same(python, "t")[8:10] == "00", "neither does urllib, with a context of its own"


async def test_libcurl_that_poses_as_chromium(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes]) -> None:
    ca = str(certificates().ca)
    async with watched(monkeypatch, hellos) as edge:
        two = await edge.run(sys.executable, "-c", SESSION.format('impersonate="chrome136"'), edge.url, ca)
        plain = await edge.run(sys.executable, "-c", SESSION.format("http_version=31"), edge.url, ca)  # 31: HTTP/3 only
        three = await edge.run(sys.executable, "-c", SESSION.format('impersonate="chrome", http_version=31'), edge.url, ca)
    assert same(two, "t") == "t13d1516h2_8daaf6152771_d8a2da3f94cd", "as measured by others (reference/bots.md)"
    assert two.prints.h2 is not None
    assert two.prints.h2.text() == CHROMIUM_H2, "it poses well"
    assert two.prints.h2.priority == (1, 0, 256)
    assert same(plain, "q")[8:10] == same(three, "q")[8:10] == "h3"
    assert plain.prints.h3 is not None
    assert three.prints.h3 is not None
    assert three.prints.h3.settings == CHROMIUM_H3
    assert plain.prints.h3.settings[0][0] == 6, "nghttp3 begins otherwise"
    assert {name for name, _ in plain.prints.h3.parameters}.isdisjoint({0x20, 0x3128})


async def test_chromium(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes], tmp_path: Path) -> None:
    async with watched(monkeypatch, hellos) as edge:
        async with chromium(tmp_path, certificates().cert) as tab:
            await tab.open(edge.url)
        two = [client for client in edge.clients if client.prints.h2 is not None]
        assert two
        edge.clients.clear()
        other = tmp_path / "quic"
        other.mkdir()
        async with chromium(other, certificates().cert, f"--origin-to-force-quic-on=localhost:{edge.port}") as tab:
            await tab.open(edge.url)
        three = [client for client in edge.clients if client.prints.h3 is not None]
        assert three
    for client in two:
        assert re.match(r"t13d15[0-9]{2}h2_8daaf6152771_", same(client, "t")), "its ciphers have been the same for years"
        assert client.prints.h2 is not None
        assert client.prints.h2.text() == CHROMIUM_H2
    for client in three:
        assert re.match(r"q13d03[0-9]{2}h3_55b375c5d22e_", same(client, "q"))
        found = client.prints.h3
        assert found is not None
        assert found.settings == CHROMIUM_H3
        assert found.pseudo == "m,a,s,p"
        assert {1, 3, 4, 5, 6, 7, 8, 9, 15, 32} <= {name for name, _ in found.parameters}


async def test_ngtcp2(monkeypatch: pytest.MonkeyPatch, hellos: dict[int, bytes], tmp_path: Path) -> None:
    async with watched(monkeypatch, hellos) as edge:
        client = await edge.run(
            "gtlsclient", "-q", "--exit-on-all-streams-close", "--timeout=20s", f"--download={tmp_path}", "127.0.0.1",
            str(edge.port), edge.url, "--sni=localhost",
        )  # fmt: skip
    assert same(client, "q").startswith("q13d")
    assert client.prints.h3 is not None
    assert client.prints.h3.pseudo == "m,s,a,p"
    assert [name for name, _ in client.prints.h3.settings][:2] == [6, 1]


# -- keys ------------------------------------------------------------------------------------------------------------


def family_of_curl() -> str:
    """The first part of its JA4, from a connection to nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        curl = subprocess.Popen([*CURL, f"https://localhost:{server.getsockname()[1]}/"], stderr=subprocess.DEVNULL)
        try:
            connection, _ = server.accept()
            first = b""
            with connection:
                connection.settimeout(20)
                while not from_records(first):
                    first += connection.recv(4096)
        finally:
            curl.kill()
            curl.wait()
    return slow_ja4(from_records(first), "t").partition("_")[0]


KEYS = {name: make() for name in ("curls", "browsers")}


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "pepper").write_bytes(b"p" * 64)
    families = {"curls": [family_of_curl()], "browsers": ["t13d1517h2", "q13d0312h3"]}
    keys = [
        {"id": KEYS[name].id, "name": name, "ja4": ja4, "hash": HASH + hashed(KEYS[name].text.encode("ascii"), PEPPER).hex()}
        for name, ja4 in families.items()
    ]
    (folder / "keys.yaml").write_text(yaml.safe_dump({"keys": keys}))
    return {
        "keys": {"file": str(folder / "keys.yaml"), "pepper": str(folder / "pepper")},
        "events": {"file": str(folder / "events.jsonl")},
    }


def test_a_key_is_refused_to_another_program(edge: Edge, changes: dict[str, Any]) -> None:
    def ask(name: str) -> tuple[int, Any]:
        key = f"Authorization: Bearer {KEYS[name].text}"
        command = [*CURL, "--cacert", edge.ca, "-H", key, "-w", "\n%{http_code}", f"{edge.url}/v1/models"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        body, _, status = said.rpartition("\n")
        return int(status), json.loads(body)

    status, body = ask("curls")
    assert status == 200
    assert body["data"]
    status, body = ask("browsers")
    assert status == 403
    assert body["error"]["code"] == "api_key_not_allowed_here"
    events = Path(changes["events"]["file"])
    until(lambda: events.exists() and b"key_elsewhere" in events.read_bytes(), 10)
    (told,) = [json.loads(line) for line in events.read_text().splitlines()]
    assert (told["event"], told["name"]) == ("key_elsewhere", "browsers")
    assert told["ja4"].startswith(family_of_curl() + "_")
