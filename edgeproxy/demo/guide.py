# What the demo prints. Every command works as it stands when it is pasted into a shell in the same directory.
"""The lines to try: curl, the SDKs, the admin address, and where the access log is."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

_QUESTION = "What is a reverse proxy?"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Tour:
    """Where everything is. Paths are as the user's shell sees them; `python` is the interpreter that runs the demo, `pin` what
    a Chromium wants to know of a certificate that it trusts without its CA."""

    https: int
    http: int
    admin: int
    ca: Path
    access_log: Path
    model: str
    python: str
    pin: str

    @property
    def base(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.https}"


def show(console: Console, tour: Tour) -> None:
    """Prints the tour: colours on a terminal, plain text elsewhere."""
    console.print(Text(f"edgeproxy is ready: {tour.base}/", style="bold"))
    console.print(
        f"A chat page is there for browsers that trust {tour.ca} (import it for as long as you try this, not longer)."
    )
    for title, command in commands(tour):
        console.print()
        console.print(Text(f"# {title}", style="cyan"))
        console.print(Text(command))
    console.print()
    console.print(f"The access log is {tour.access_log}; it names the protocol of each request. Ctrl-C ends everything.")


def commands(tour: Tour) -> Iterator[tuple[str, str]]:
    """Title and command; a command may have several lines."""
    ca = shlex.quote(str(tour.ca))
    curl = f"curl --cacert {ca}"
    chat = f"{tour.base}/v1/chat/completions -H 'content-type: application/json'"
    body = f'{{"model": "{tour.model}", "messages": [{{"role": "user", "content": "{_QUESTION}"}}]}}'
    streaming = body[:-1] + ', "stream": true, "stream_options": {"include_usage": true}}'
    yield "HTTP/1.1: one answer", f"{curl} --http1.1 {chat} -d '{body}'"
    yield "HTTP/2: the answer as it is made", f"{curl} --http2 -N {chat} -d '{streaming}'"
    yield "the head of an answer: HSTS, the offer of HTTP/3, the ray id", f"{curl} -sI {tour.base}/"
    # Browsers take that offer under public CAs only, unless told. An address: of the two of "localhost" QUIC may try the other.
    browser = next(filter(shutil.which, _BROWSERS), _BROWSERS[0])
    yield "HTTP/3: the chat page in a Chromium that is told to begin with it", (
        f"{browser} --user-data-dir=$(mktemp -d) --origin-to-force-quic-on={tour.address}"
        f" --ignore-certificate-errors-spki-list={tour.pin} https://{tour.address}/"
    )
    yield "HTTP/3: for a curl that can (`curl -V` names HTTP3; many don't)", f"{curl} --http3-only -sI {tour.base}/"
    yield "plain HTTP is sent to HTTPS", f"curl -sI http://localhost:{tour.http}/v1/models"
    python = shlex.quote(_short(tour.python))
    missing = [name for name in ("openai", "anthropic") if importlib.util.find_spec(name) is None]
    if missing:
        yield "the official SDKs are not installed yet", f"{python} -m pip install {' '.join(missing)}"
    yield "the official OpenAI SDK", f"SSL_CERT_FILE={ca} {python} -c '{_OPENAI % (tour.base, tour.model, _QUESTION)}'"
    snippet = _ANTHROPIC % (tour.base, tour.model, _QUESTION)
    yield "the official Anthropic SDK", f"SSL_CERT_FILE={ca} {python} -c '{snippet}'"
    yield "health and metrics", f"curl -s http://127.0.0.1:{tour.admin}/readyz http://127.0.0.1:{tour.admin}/metrics"


# Double quotes only: they stand between single quotes in a shell.
_OPENAI = """from openai import OpenAI
client = OpenAI(base_url="%s/v1", api_key="demo")
for chunk in client.chat.completions.create(model="%s", stream=True, messages=[{"role": "user", "content": "%s"}]):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()"""

_ANTHROPIC = """from anthropic import Anthropic
client = Anthropic(base_url="%s", api_key="demo")
with client.messages.stream(model="%s", max_tokens=200, messages=[{"role": "user", "content": "%s"}]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()"""


def _short(python: str) -> str:
    """The interpreter as seen from here, when it is below this directory (`.venv/bin/python`)."""
    try:
        return str(Path(python).relative_to(Path.cwd()))
    except ValueError:
        return python
