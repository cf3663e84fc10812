# The demo's chat page in a real browser over HTTP/2. Needs chromium (apt install chromium); skipped without.
"""Chromium is spoken to by its DevTools protocol: one WebSocket, a number for each command, events in between."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from running import Process, free_ports, until
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")


class Page:
    """One tab.

    Attributes:
        troubles: exceptions and error lines of the page so far.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.troubles: list[str] = []

    def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.troubles.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The demo's address, and its certificate."""
    folder = tmp_path_factory.mktemp("demo")
    (port,) = free_ports(1)
    process = Process([sys.executable, "-m", "edgeproxy", "demo", "--port", str(port)], folder / "said", folder)
    try:
        until(lambda: process.popen.poll() is not None or "Ctrl-C ends everything." in process.said(), 30)
        assert process.popen.poll() is None, process.said()
        yield f"https://localhost:{port}/", folder / "certs" / "edge.pem"
    finally:
        process.stop()


@pytest.fixture
def page(demo: tuple[str, Path], tmp_path: Path) -> Iterator[Page]:
    url, certificate = demo
    key = load_pem_x509_certificate(certificate.read_bytes()).public_key()
    trusted = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--no-proxy-server", "--window-size=800,600", f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
        # This one certificate and no other.
        f"--ignore-certificate-errors-spki-list={base64.b64encode(trusted).decode()}", "about:blank",
    ]  # fmt: skip
    process = Process(command, tmp_path / "said", tmp_path)
    try:
        port_file = tmp_path / "profile" / "DevToolsActivePort"
        until(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, 30)
        port = int(port_file.read_text().split("\n")[0])
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            (tab,) = [each for each in json.load(answer) if each["type"] == "page"]
        with connect(tab["webSocketDebuggerUrl"], proxy=None, max_size=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                page.command(f"{domain}.enable")
            page.command("Page.navigate", url=url)
            until(lambda: page.run("document.readyState === 'complete' && document.querySelectorAll('option').length > 1"), 20)
            yield page
    finally:
        process.stop()


ASK = """new Promise((done, failed) => {
  const status = document.getElementById('status'), sizes = [];
  new MutationObserver(() => {
    const said = [...document.querySelectorAll('.assistant div')].pop();
    if (said) sizes.push(said.textContent.length);
    if (status.textContent.startsWith('Done')) done(sizes);
    if (status.textContent.startsWith('Failed')) failed(new Error(status.textContent));
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
  const prompt = document.getElementById('prompt');
  prompt.value = %s;
  document.getElementById('send').click();
})"""


def test_a_conversation(page: Page) -> None:
    assert page.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    for number in range(4):
        sizes = page.run(ASK % json.dumps(f"Question {number}: what is a reverse proxy?"))
        assert len(set(sizes)) > 5, "the answer came in one piece"
        until(lambda: page.run("!document.getElementById('send').disabled"), 5)
    shown = page.run("""(() => {
      const last = [...document.querySelectorAll('.said')].pop().getBoundingClientRect();
      const form = document.getElementById('form').getBoundingClientRect();
      return [document.querySelectorAll('.said').length, last.bottom <= form.top + 1, form.bottom <= innerHeight,
        document.documentElement.scrollHeight <= innerHeight, document.documentElement.scrollWidth <= innerWidth];
    })()""")
    assert shown == [8, True, True, True, True], "the newest answer and the form are seen whole"
    assert page.troubles == []


def test_stopping_and_failing(page: Page) -> None:
    stopped = page.run("""(async () => {
      const status = document.getElementById('status');
      document.getElementById('prompt').value = 'Stop me';
      document.getElementById('send').click();
      while (!status.textContent.startsWith('Answering')) await new Promise(r => setTimeout(r, 5));
      document.getElementById('stop').click();
      while (status.textContent.startsWith('Answering')) await new Promise(r => setTimeout(r, 5));
      return status.textContent;
    })()""")
    assert stopped == "Stopped."
    failed = page.run("""(async () => {
      const status = document.getElementById('status');
      while (document.getElementById('send').disabled) await new Promise(r => setTimeout(r, 5));
      document.getElementById('model').value = 'edge-demo-broken';
      document.getElementById('prompt').value = 'Break off';
      document.getElementById('send').click();
      while (!/^(Failed|Done)/.test(status.textContent)) await new Promise(r => setTimeout(r, 5));
      return status.textContent;
    })()""")
    assert failed.startswith("Failed: "), failed
