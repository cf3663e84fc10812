# Chromium without a window, by the DevTools protocol: no driver, no npm.
"""`chromium`: starts one with a profile of its own; `Tab.run` evaluates JavaScript in a page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--disable-extensions", "--mute-audio", "--remote-debugging-port=0", "--enable-quic",
    "--host-resolver-rules=MAP localhost 127.0.0.1",  # of two addresses QUIC tries one
)  # fmt: skip
PATIENCE = 30.0


def fingerprint(certificate: Path) -> str:
    """What `--ignore-certificate-errors-spki-list` wants: SHA-256 of the public key."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


class Tab:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._last = 100

    async def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol; its result. Events that come meanwhile are dropped."""
        self._last += 1
        return await command(self._socket, self._last, method, parameters, self._session)

    async def open(self, url: str) -> None:
        """Goes to a page."""
        found = await self.call("Page.navigate", url=url)
        assert "errorText" not in found, found
        await self.run("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', () => done()))")

    async def run(self, script: str) -> Any:
        """The value of an expression, of what it promises if it is a promise."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")


async def command(
    socket: aiohttp.ClientWebSocketResponse, number: int, method: str, parameters: dict[str, Any], session: str = ""
) -> Any:
    message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
    if session:
        message["sessionId"] = session
    await socket.send_str(json.dumps(message))
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = json.loads((await socket.receive()).data)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]


@asynccontextmanager
async def chromium(folder: Path, certificate: Path, *flags: str) -> AsyncIterator[Tab]:
    """A browser that trusts one certificate more than others do, and a tab of it. Skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: chromium)")
    trust = f"--ignore-certificate-errors-spki-list={fingerprint(certificate)}"
    log = folder / "chromium.log"
    with log.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            program, *FLAGS, trust, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank",
            stdout=err, stderr=err, env={**os.environ, "HOME": str(folder)}, start_new_session=True,
        )  # fmt: skip
    try:
        port = await devtools(folder / "profile" / "DevToolsActivePort", process, log)
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port}", max_msg_size=0) as socket:
            target = await command(socket, 1, "Target.createTarget", {"url": "about:blank"})
            attached = await command(socket, 2, "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
            tab = Tab(socket, attached["sessionId"])
            await tab.call("Page.enable")
            yield tab
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its helpers too: the session is theirs alone
        await process.wait()


async def devtools(file: Path, process: asyncio.subprocess.Process, log: Path) -> str:
    """Port and path of the browser's end of the protocol."""
    async with asyncio.timeout(PATIENCE):
        while not (file.exists() and len(lines := file.read_text().split("\n")) > 1):  # noqa: ASYNC240
            if process.returncode is not None:
                pytest.fail(f"Chromium did not start:\n{log.read_text()[-3000:]}")  # noqa: ASYNC240
            await asyncio.sleep(0.02)
    return f"{lines[0]}{lines[1]}"
