# Real programs and the score that they deserve, on HTTP/1.1, HTTP/2 and HTTP/3: under their own names, and under a browser's.
"""What the handshake and the head give away of curl, Python, libcurl posing as a browser, ngtcp2 and Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import NAMES, Tab, chromium
from contract.h3_wire import H3Wire
from support.bots import PAGE
from support.edge import RecordedLog, certificates, running_edge
from support.upstream import Connection, running_upstream
from support.waiting import until

from edgeproxy.bots.model import ModelError, load_once

CURL = ("curl", "-sS", "-o", "/dev/null", "--noproxy", "*", "--max-time", "20", "--cacert", str(certificates().ca))
CONTENT = b"<!doctype html><title>edge</title><link rel=icon href=data:,><p>hello"
# A picture breaks this policy, of which the browser tells.
TELLS = b"\r\nreporting-endpoints: here=\"/reports\"\r\ncontent-security-policy: img-src 'none'; report-to here\r\n\r\n"
PROTOCOLS = {"h1": ["h1"], "h2": ["h1", "h2"], "h3": ["h1", "h2", "h3"]}
POSE = """
import json, sys, curl_cffi.requests as r
url, ca, options, headers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
r.Session(verify=ca, trust_env=False, timeout=20, **options).get(url, headers=headers or None)
"""
LIBRARIES = {
    "ssl": """
import http.client, json, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
c = http.client.HTTPSConnection("localhost", int(sys.argv[1].split(":")[2].strip("/")), context=context, timeout=20)
c.request("GET", "/", headers=json.loads(sys.argv[4]) or {"User-Agent": "Python-urllib/3"})
c.getresponse().read()
""",
    "httpx2": """
import httpx2, json, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
with httpx2.Client(verify=context, trust_env=False, timeout=20, **json.loads(sys.argv[3])) as c:
    c.get(sys.argv[1], headers=json.loads(sys.argv[4]))
""",
    "aiohttp": """
import aiohttp, asyncio, json, ssl, sys
async def main():
    async with aiohttp.ClientSession() as s:
        async with s.get(sys.argv[1], ssl=ssl.create_default_context(cafile=sys.argv[2]), headers=json.loads(sys.argv[4])) as a:
            await a.read()
asyncio.run(main())
""",
}
WORN = {name.decode(): value.decode() for name, value in PAGE}


class Edge:
    """An edge that scores, and what it wrote of its exchanges."""

    def __init__(self, port: int, log: RecordedLog) -> None:
        self.port = port
        self.url = f"https://localhost:{port}/"
        self.log = log

    def lines(self) -> list[dict[str, Any]]:
        """What was written since the last time."""
        found = [json.loads(line) for line in self.log.lines]
        self.log.lines.clear()
        return found

    async def run(self, *command: str) -> dict[str, Any]:
        """Runs a program that asks once; the line of it. Skips the test where there is no such program."""
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} here")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        try:
            async with asyncio.timeout(40):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = self.lines()
        assert len(lines) == 1, said.decode(errors="replace")[-3000:]
        return lines[0]

    async def python(self, script: str, headers: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """A script, with URL, CA file, options and fields as arguments."""
        arguments = (self.url, str(certificates().ca), json.dumps(options), json.dumps(headers or {}))
        return await self.run(sys.executable, "-c", script, *arguments)


async def page(connection: Connection) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b"
    while True:
        told = b"/told" in (await connection.request()).line
        connection.write((head.replace(b"\r\n\r\n", TELLS) if told else head) % (len(CONTENT), CONTENT))


@asynccontextmanager
async def scoring(protocol: str = "h2", puzzles: dict[str, Any] | None = None, **bots: Any) -> AsyncIterator[Edge]:
    section = {"enabled": True, "model": "off", "identity": {"dns": False, "known_agents": False}, **bots}
    log = RecordedLog()
    async with running_upstream(page) as upstream:
        listen = {"protocols": PROTOCOLS[protocol]}
        async with running_edge(upstream.port, log=log, bots=section, listen=listen, challenge=puzzles or {}) as edge:
            yield Edge(edge.https_port, log)


def caught(line: dict[str, Any]) -> set[int]:
    assert line["bot_score"] == 1, line
    return set(line["bot_detections"])


async def shows(tab: Tab, text: str) -> None:
    """Waits for a page to say something; pages come and go meanwhile."""
    async with asyncio.timeout(20):
        while True:
            try:
                if text in (await tab.run("document.body ? document.body.innerText : ''")):
                    return
            except AssertionError:  # in the middle of a navigation
                pass
            await asyncio.sleep(0.05)


def usual_name() -> str:
    """The User-Agent of the Chromium that is here, as it has it with a window."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: chromium)")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env={**os.environ, "HOME": "/tmp"})
    version = re.search(r"(\d+)\.\d+\.\d+", said.stdout)
    assert version is not None, said.stdout
    return f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version[1]}.0.0.0 Safari/537.36"


async def visited(edge: Edge, folder: Path, protocol: str, *flags: str) -> list[dict[str, Any]]:
    force = (f"--origin-to-force-quic-on=localhost:{edge.port}",) if protocol == "h3" else ()
    async with chromium(folder, certificates().cert, *force, *flags) as tab:
        await tab.open(edge.url)
    lines = edge.lines()
    assert lines and {line["protocol"] for line in lines} == {protocol}
    return lines


@pytest.mark.parametrize("protocol", ["h1", "h2", "h3"])
async def test_chromium_without_a_window_says_so(protocol: str, tmp_path: Path) -> None:
    async with scoring(protocol) as edge:
        for line in await visited(edge, tmp_path, protocol):
            assert caught(line) == {1005}


@pytest.mark.parametrize("protocol", ["h1", "h2", "h3"])
async def test_under_its_usual_name_nothing_gives_it_away(protocol: str, tmp_path: Path) -> None:
    name = usual_name()
    async with scoring(protocol) as edge:
        for line in await visited(edge, tmp_path, protocol, f"--user-agent={name}"):
            assert line["user_agent"] == name
            assert "bot_detections" not in line, line


@pytest.mark.parametrize("protocol", ["h1", "h2", "h3"])
async def test_and_the_model_takes_it_for_a_person(protocol: str, tmp_path: Path) -> None:
    """Which it is, as far as bytes can tell: docs/bots.md says that they cannot."""
    try:
        load_once()
    except ModelError as error:
        pytest.skip(f"no model here ({error}): this was not tested")
    async with scoring(protocol, model="shipped") as edge:
        for line in await visited(edge, tmp_path, protocol, f"--user-agent={usual_name()}"):
            assert line["bot_score"] >= 30, line


@pytest.mark.parametrize("protocol", ["h1", "h2"])
async def test_what_chromium_reports_by_itself_is_not_held_against_it(protocol: str, tmp_path: Path) -> None:
    """Its network stack sends reports, without Accept and most of what browsers send."""
    async with scoring(protocol) as edge:
        flags = (f"--user-agent={usual_name()}", "--short-reporting-delay")
        async with chromium(tmp_path, certificates().cert, *flags) as tab:
            await tab.open(edge.url + "told")
            await tab.run("new Image().src = '/picture.png'")
            await until(lambda: any(b'"/reports"' in line for line in edge.log.lines), within=40.0)
        for line in edge.lines():
            assert "bot_detections" not in line, line


@pytest.mark.parametrize("protocol", ["h2", "h3"])
async def test_a_policy_challenges_and_a_browser_passes(protocol: str, tmp_path: Path) -> None:
    """Also one that says that it is automated: a sum is all that is asked. curl does not do it."""
    easy = {"difficulties": [{"up_to": 99, "bits": 8}], "unscored_bits": 8, "no_script": {"enabled": False}}
    async with scoring(protocol, easy, mode="act", challenge=29) as edge:
        force = (f"--origin-to-force-quic-on=localhost:{edge.port}",) if protocol == "h3" else ()
        async with chromium(tmp_path, certificates().cert, *force) as tab:
            await tab.call("Page.navigate", url=edge.url)
            await shows(tab, "hello")
        found = [(line["path"], line["status"], line["bot_score"]) for line in edge.lines()]
        assert found[0] == ("/", 403, 1) and found[-1] == ("/", 200, 1), found
        if protocol == "h2":
            refused = await edge.run(*CURL, edge.url)
            assert (refused["status"], refused["bot_score"]) == (401, 1)


@pytest.mark.parametrize("protocol", ["h1", "h2"])
async def test_curl(protocol: str) -> None:
    version = "--http1.1" if protocol == "h1" else "--http2"
    worn = [part for name, value in WORN.items() for part in ("-H", f"{name}: {value}")]
    async with scoring(protocol) as edge:
        own = await edge.run(*CURL, version, edge.url)
        assert caught(own) == {1003} and own["protocol"] == protocol
        named = await edge.run(*CURL, version, "-A", WORN["user-agent"], edge.url)
        posing = await edge.run(*CURL, version, *worn, edge.url)
    assert caught(named) >= {3001, 6001, 6004, 6006}
    assert caught(posing) == ({3001, 4002} if protocol == "h1" else {3001, 4001})


@pytest.mark.parametrize(("library", "protocol"), [("ssl", "h1"), ("httpx2", "h1"), ("httpx2", "h2"), ("aiohttp", "h1")])
async def test_python(library: str, protocol: str) -> None:
    pytest.importorskip(library, reason=f"no {library} here (the extra `test` has it): this was not tested")
    options = {"http2": protocol == "h2"} if library == "httpx2" else {}
    async with scoring(protocol) as edge:
        own = await edge.python(LIBRARIES[library], **options)
        assert caught(own) >= {1003} and own["protocol"] == protocol
        posing = await edge.python(LIBRARIES[library], WORN, **options)
    expected = {3001, 4001} if protocol == "h2" else {3001, 4002}
    assert expected - caught(posing) == set()


@pytest.mark.parametrize("protocol", ["h1", "h2", "h3"])
async def test_libcurl_that_poses_as_chromium(protocol: str) -> None:
    """Its handshake and its frames are Chromium's: no heuristic about them is true. That is the model's work."""
    pytest.importorskip("curl_cffi", reason="no curl_cffi here (the extra `test` has it): this was not tested")
    version = {"h1": 2, "h2": 0, "h3": 31}[protocol]  # libcurl's numbers; 31: HTTP/3 and nothing else
    options = {"impersonate": "chrome"} | ({"http_version": version} if version else {})
    async with scoring(protocol) as edge:
        line = await edge.python(POSE, **options)
        assert line["protocol"] == protocol and "Chrome/" in line["user_agent"]
        found = set(line.get("bot_detections", []))
    # Over HTTP/1.1 it does not offer HTTP/2, as Chromium always does.
    assert found & {3001, 3002, 3003, 3004, 4001, 4002, 5001} == ({4002} if protocol == "h1" else set())


async def test_libcurl_over_quic_under_its_own_name_and_a_browsers() -> None:
    pytest.importorskip("curl_cffi", reason="no curl_cffi here (the extra `test` has it): this was not tested")
    async with scoring("h3") as edge:
        own = await edge.python(POSE, {"User-Agent": "curl/8.15.0"}, http_version=31)
        posing = await edge.python(POSE, WORN, http_version=31)
    assert own["protocol"] == posing["protocol"] == "h3"
    assert caught(own) == {1003}
    assert caught(posing) >= {3001, 5001}


async def test_python_over_quic() -> None:
    """aioquic, which is the one HTTP/3 client that Python's people have."""
    async with scoring("h3") as edge:
        wire = await H3Wire.open(edge.port)
        assert (await wire.get("/", [(b"user-agent", b"python-aioquic/1.7"), (b"accept", b"*/*")])).status == 200
        assert (await wire.get("/", PAGE)).status == 200
        await wire.leave()
        own, posing = edge.lines()
    assert own["protocol"] == posing["protocol"] == "h3"
    assert caught(own) == {1003}
    assert caught(posing) >= {3001, 5001}


async def test_a_browsers_handshake_under_another_browsers_name() -> None:
    pytest.importorskip("curl_cffi", reason="no curl_cffi here (the extra `test` has it): this was not tested")
    name = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
    async with scoring("h2") as edge:
        line = await edge.python(POSE, {"User-Agent": name}, impersonate="chrome")
    assert caught(line) >= {3002, 4001, 6003}


async def test_ngtcp2(tmp_path: Path) -> None:
    async with scoring("h3") as edge:
        line = await edge.run(
            "gtlsclient", "-q", "--exit-on-all-streams-close", "--timeout=20s", f"--download={tmp_path}", "127.0.0.1",
            str(edge.port), edge.url, "--sni=localhost",
        )  # fmt: skip
    assert line["protocol"] == "h3"
    assert caught(line) == {1003}, line["user_agent"]
