# Challenges as clients meet them: Chromium solves and passes, curl does not, and what was stolen is worth nothing.
from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser import Tab, chromium
from support.edge import Edge, certificates, configuration, prepared, running_edge
from support.puzzles import solution
from support.upstream import Connection, running_upstream
from support.waiting import until

from edgeproxy import challenging
from edgeproxy.config.challenge import Challenge
from edgeproxy.config.model import Config
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel

PAGE = b"<!doctype html><title>site</title><link rel=icon href=data:,><p>hello"
HELPED = b"<!doctype html><title>site</title><link rel=icon href=data:,><script src=/.edge/challenge.js></script><p>helped"
RULES = (
    {"id": "managed", "expression": 'starts_with(http.request.uri.path, "/ask")', "action": "managed_challenge"},
    {"id": "script", "expression": 'starts_with(http.request.uri.path, "/js")', "action": "js_challenge"},
    {"id": "press", "expression": 'starts_with(http.request.uri.path, "/press")', "action": "challenge"},
)
POSING = """
import sys, curl_cffi.requests as r
url, ca, version, cookie = sys.argv[1:]
options = {"http_version": int(version)} if version else {}
answer = r.get(url, impersonate="chrome", verify=ca, headers={"Cookie": cookie} if cookie else None, timeout=20, **options)
print(answer.status_code, answer.http_version)
"""
VERSIONS = {"h2": "", "h3": "31"}  # libcurl's numbers; 31: HTTP/3 and nothing else
EASY = {"unscored_bits": 12, "no_script": {"wait": "1s"}}


async def site(connection: Connection) -> None:
    """A page, a page with the helper, and an echo of what was posted."""
    while True:
        received = await connection.request()
        content = HELPED if b" /helped " in received.line else PAGE
        if received.line.startswith(b"POST"):
            content = b"<p>posted " + received.body
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
        connection.write(head % len(content) + content)


@asynccontextmanager
async def challenged(protocols: tuple[str, ...] = ("h1", "h2"), **settings: Any) -> AsyncIterator[Edge]:
    """An edge whose rules challenge."""
    async with running_upstream(site) as upstream:

        def config(port: int | None) -> Config:
            plain = configuration(upstream.port, listen={"protocols": list(protocols), "public_port": port})
            book = RuleBook(rules=tuple(RuleModel.model_validate(rule) for rule in RULES))
            changes = {"rules": RuleFiles(book=book), "challenge": Challenge.model_validate(EASY | settings)}
            return plain.model_copy(update=changes)

        async with running_edge(config=config(None)) as edge:
            edge.data_plane.switch(prepared(config(edge.https_port)))  # Alt-Svc names the port that it got
            yield edge


async def curl(edge: Edge, path: str, *arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body, as curl gets them."""
    command = ("curl", "-sSi", "--noproxy", "*", "--max-time", "20", "--cacert", str(certificates().ca))
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, f"https://localhost:{edge.https_port}{path}", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    head, _, body = out.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines}, body


async def posing(edge: Edge, protocol: str, cookie: str) -> int:
    """How libcurl is answered that poses as Chromium."""
    arguments = (f"https://localhost:{edge.https_port}/ask", str(certificates().ca), VERSIONS[protocol], cookie)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", POSING, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    status, spoken = out.split()
    assert spoken == {"h2": b"3", "h3": b"30"}[protocol]  # libcurl's CURLINFO_HTTP_VERSION
    return int(status)


async def shows(tab: Tab, text: str) -> None:
    """Waits for a page to say something; pages come and go meanwhile."""

    async def said() -> str:
        try:
            found: str = await tab.run("document.body ? document.body.innerText : ''")
        except AssertionError:  # in the middle of a navigation
            return ""
        return found

    async with asyncio.timeout(20):
        while text not in await said():  # noqa: ASYNC110  the browser tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2", "h3"])
@pytest.mark.parametrize("path", ["/ask?a=b", "/js"])
async def test_a_browser_solves_and_passes(tmp_path: Path, protocol: str, path: str) -> None:
    protocols = {"http/1.1": ("h1",), "h2": ("h1", "h2"), "h3": ("h1", "h2", "h3")}[protocol]
    async with challenged(protocols) as edge:
        force = [f"--origin-to-force-quic-on=localhost:{edge.https_port}"] if protocol == "h3" else []
        async with chromium(tmp_path, certificates().cert, *force) as tab:
            await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}{path}")
            await shows(tab, "hello")
            assert await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == protocol
            assert await tab.run("location.pathname + location.search") == path
            counted = edge.stats.challenges
            assert (counted["page", ""], counted["solved", ""], counted["passed", ""]) == (1, 1, 1)
            assert not any(outcome in ("failed", "refused") for outcome, _ in counted), counted
            await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/ask/again")
            await shows(tab, "hello")
            assert edge.stats.challenges["page", ""] == 1, "one clearance is good for all of it"


async def test_a_challenge_that_waits_for_a_person(tmp_path: Path) -> None:
    async with challenged() as edge, chromium(tmp_path, certificates().cert) as tab:
        await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/press")
        await shows(tab, "Begin")
        assert ("solved", "") not in edge.stats.challenges
        await tab.run("document.getElementById('go').click()")
        await shows(tab, "hello")


async def test_a_form_that_was_challenged_is_sent_again(tmp_path: Path) -> None:
    async with challenged() as edge, chromium(tmp_path, certificates().cert) as tab:
        await tab.open(f"https://localhost:{edge.https_port}/")
        await tab.run("document.body.innerHTML = '<form method=post action=/ask><input name=a value=b></form>'")
        await tab.run("document.forms[0].submit()")
        await shows(tab, "Send it again")
        assert edge.stats.challenges["solved", ""] == 1
        await tab.run("document.getElementById('go').click()")
        await shows(tab, "posted a=b")


async def test_requests_of_scripts(tmp_path: Path) -> None:
    """Answered with 401 and JSON; with the helper they solve it, once for all that wait, and are sent again with their bodies."""
    async with challenged() as edge, chromium(tmp_path, certificates().cert) as tab:
        await tab.open(f"https://localhost:{edge.https_port}/")
        assert await tab.run("fetch('/ask').then(answer => answer.status)") == 401
        await tab.open(f"https://localhost:{edge.https_port}/helped")
        posts = "Promise.all([1, 2, 3].map(n => fetch('/js', {method: 'POST', body: 'n' + n}).then(answer => answer.text())))"
        assert await tab.run(posts) == [f"<p>posted n{number}" for number in (1, 2, 3)]
        assert edge.stats.challenges["solved", ""] == 1
        assert await tab.run("fetch('/ask').then(answer => answer.status)") == 200


async def test_without_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with challenged(no_script={"wait": "60s"}) as edge, chromium(tmp_path, certificates().cert) as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/ask?x=1")
        await shows(tab, "Without JavaScript")
        await tab.run("document.forms[0].submit()")
        await shows(tab, "too early")
        monkeypatch.setattr(challenging, "time", SimpleNamespace(time=lambda: time.time() + 61))
        await tab.run("document.forms[0].submit()")
        await shows(tab, "hello")
        assert await tab.run("location.pathname + location.search") == "/ask?x=1"
        assert edge.stats.challenges["waited", ""] == 1
        await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/js")
        await shows(tab, "needs JavaScript")  # waiting is not enough there


async def test_curl_does_not_pass_and_cannot_use_what_it_stole() -> None:
    async with challenged() as edge:
        status, fields, body = await curl(edge, "/ask", "-H", "accept: text/html")
        assert (status, fields["edge-mitigated"], fields["cache-control"]) == (403, "challenge", "no-store")
        assert b"One moment" in body
        status, fields, body = await curl(edge, "/ask")
        assert (status, fields["edge-mitigated"]) == (401, "challenge")
        challenge = json.loads(body)["edge_challenge"]
        form = ("-d", f"token={challenge['token']}&solution={solution(challenge)}")
        assert (await curl(edge, challenge["path"], "--interface", "127.0.0.2", *form))[0] == 403, "somebody else's puzzle"
        status, fields, _ = await curl(edge, challenge["path"], *form)
        assert status == 200
        assert (await curl(edge, challenge["path"], *form))[0] == 403, "once"
        cookie = fields["set-cookie"].partition(";")[0]
        assert re.search("; Path=/; .*; Secure; HttpOnly; SameSite=Lax$", fields["set-cookie"])
        assert (await curl(edge, "/ask", "-b", cookie))[0] == 200
        assert (await curl(edge, "/ask", "-b", cookie, "--interface", "127.0.0.2"))[0] == 401
        assert (await curl(edge, "/ask", "-b", cookie[:-1]))[0] == 401
        reasons = {reason for outcome, reason in edge.stats.challenges if outcome == "refused"}
        assert reasons == {"other_address", "replayed", "unreadable"}


async def clearance_of(tab: Tab, edge: Edge) -> str:
    """The cookie that the browser gets for solving."""
    await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/ask")
    await shows(tab, "hello")
    cookies = (await tab.call("Network.getAllCookies"))["cookies"]
    (cookie,) = [f"{each['name']}={each['value']}" for each in cookies if "clearance" in each["name"]]
    return cookie


async def test_a_clearance_that_another_client_stole(tmp_path: Path) -> None:
    async with challenged() as edge, chromium(tmp_path, certificates().cert) as tab:
        cookie = await clearance_of(tab, edge)
        assert (await curl(edge, "/ask", "-b", cookie))[0] == 401
        await until(lambda: edge.stats.challenges.get(("refused", "other_client")) == 1)


@pytest.mark.parametrize("protocol", ["h2", "h3"])
async def test_who_poses_as_that_browser_and_stole_its_clearance(tmp_path: Path, protocol: str) -> None:
    """libcurl with a Chromium's handshake, frames and fields, from the browser's address: it solves nothing, and its clearance
    is no use to it. It poses as an older release; who had the browser's own handshake to the byte would pass."""
    pytest.importorskip("curl_cffi", reason="no curl_cffi here (the extra `test` has it): this was not tested")
    protocols = {"h2": ("h1", "h2"), "h3": ("h1", "h2", "h3")}[protocol]
    async with challenged(protocols) as edge:
        force = [f"--origin-to-force-quic-on=localhost:{edge.https_port}"] if protocol == "h3" else []
        async with chromium(tmp_path, certificates().cert, *force) as tab:
            cookie = await clearance_of(tab, edge)
            assert await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == protocol
        assert await posing(edge, protocol, "") == 403
        assert ("refused", "other_client") not in edge.stats.challenges
        assert await posing(edge, protocol, cookie) == 403
        assert edge.stats.challenges["refused", "other_client"] == 1 and edge.stats.challenges["solved", ""] == 1


async def test_a_websocket_of_the_browser_that_passed(tmp_path: Path) -> None:
    """Chromium opens it over another connection, with another ClientHello."""
    async with challenged() as edge, chromium(tmp_path, certificates().cert) as tab:
        await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/ask")
        await shows(tab, "hello")
        # The site speaks no WebSocket: what comes back is its answer, not ours.
        opened = "new Promise(done => new WebSocket('wss://' + location.host + '/ask/ws').onerror = () => done(1))"
        assert await tab.run(opened) == 1
        assert edge.stats.challenges["passed", ""] == 2
        assert not any(outcome == "refused" for outcome, _ in edge.stats.challenges)


async def test_from_http2_to_http3(tmp_path: Path) -> None:
    """The fingerprint is another one over QUIC: a browser that goes there is asked once more, and then it has both clearances."""
    # For HTTP/3 Chromium wants a public authority, or a host that is forced somewhere: on a port that nobody asks for.
    force = "--origin-to-force-quic-on=localhost:1"
    async with challenged(("h1", "h2", "h3")) as edge, chromium(tmp_path, certificates().cert, force) as tab:
        seen = []
        for number in range(30):
            await tab.call("Page.navigate", url=f"https://localhost:{edge.https_port}/ask/{number}")
            await shows(tab, "hello")
            seen.append(await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol"))
            if seen.count("h3") > 3:
                break
        assert "h3" in seen
        assert edge.stats.challenges["solved", ""] <= 2
