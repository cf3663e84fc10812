# A process of its own, pinned to the load core, that makes and holds many TLS connections, as told on stdin.
"""The client side of the cases `handshake` and `conns`: JSON lines in, one JSON line out for each.

{"do": "handshakes", "port": P, "n": N}  N connections with a full handshake, one request and a close each
{"do": "open", "port": P, "n": N}        N connections that stay, one request on each, eight under way at a time
{"do": "burst"}                          one request on every open connection, all under way at the same time
{"do": "bulk"}                           1 MiB up and 1 MiB down on each open connection
{"do": "stream"}                         a slow stream is begun on each open connection; its first chunk is awaited
{"do": "verify"}                         each stream must have gone on since
Answers: {"done": how many, "errors": {text: how many}, "seconds": S}. Blocking sockets in eight threads: their cost
is not what is measured, and OpenSSL runs without the interpreter lock.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench import probe, upstream

THREADS = 8
TIMEOUT = 20.0


def head(method: str, path: str, length: int = 0, close: bool = False) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {probe.HOST}", "Authorization: Bearer sk-test"]
    if method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


QUESTION = head("POST", "/v1/chat/completions", len(upstream.QUESTION)) + upstream.QUESTION.encode()
UPLOAD = head("POST", "/bulk/up", upstream.MIB) + b"\0" * upstream.MIB
DOWNLOAD = head("GET", "/bulk/file")
STREAM = head("POST", "/sse/slow", len(upstream.QUESTION)) + upstream.QUESTION.encode()


class Wrong(Exception):
    """An answer that is not what was asked for."""


def read_head(sock: ssl.SSLSocket) -> tuple[dict[str, str], bytes]:
    """Header fields in lower case and what was read of the body; raises Wrong unless the status is 200."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise Wrong("closed before a head")
        data += part
    text, _, rest = data.partition(b"\r\n\r\n")
    lines = text.decode("latin-1").split("\r\n")
    if lines[0].split(" ")[1] != "200":
        raise Wrong(lines[0])
    pairs = (line.partition(":") for line in lines[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}, rest


def read_answer(sock: ssl.SSLSocket) -> int:
    """Read one whole answer and return how many bytes its body had (chunked: with its framing)."""
    fields, body = read_head(sock)
    size = len(body)
    if "content-length" in fields:
        length = int(fields["content-length"])
        while size < length:
            part = sock.recv(65536)
            if not part:
                raise Wrong("closed within a body")
            size += len(part)
        if size != length:
            raise Wrong("more bytes than announced")
        return size
    tail = body[-5:]
    while tail != b"0\r\n\r\n":
        part = sock.recv(65536)
        if not part:
            raise Wrong("closed within a body")
        size += len(part)
        tail = (tail + part)[-5:]
    return size


class Holder:
    """The connections held, and the steps that may be asked for."""

    def __init__(self) -> None:
        self.sockets: list[ssl.SSLSocket] = []
        self.context = probe.context()

    def connect(self, port: int) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self.context.wrap_socket(raw, server_hostname=probe.HOST)
        if sock.session_reused:
            raise Wrong("the session was resumed: not a full handshake")
        return sock

    def handshake(self, port: int) -> None:
        sock = self.connect(port)
        try:
            sock.sendall(QUESTION)
            read_answer(sock)
        finally:
            sock.close()

    def open(self, port: int) -> None:
        sock = self.connect(port)
        self.sockets.append(sock)
        sock.sendall(QUESTION)
        read_answer(sock)

    def burst(self, sock: ssl.SSLSocket) -> None:
        """The first half of it; `run` reads the answers when the last question is out."""
        sock.sendall(QUESTION)

    def bulk(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(UPLOAD)
        read_answer(sock)
        sock.sendall(DOWNLOAD)
        if read_answer(sock) < upstream.MIB:
            raise Wrong("the download is short")

    def stream(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(STREAM)
        _, rest = read_head(sock)
        while upstream.EVENT.encode() not in rest:
            part = sock.recv(65536)
            if not part:
                raise Wrong("closed before the first chunk")
            rest += part

    def verify(self, sock: ssl.SSLSocket) -> None:
        if b"data: " not in sock.recv(65536):
            raise Wrong("the stream does not go on")

    def run(self, order: dict[str, object]) -> dict[str, object]:
        """Do one order on all its connections; an error on one of them is counted and does not stop the others."""
        step, port = str(order["do"]), order.get("port")
        action: Callable[..., object] = getattr(self, {"handshakes": "handshake"}.get(step, step))
        items: list[object] = [port] * int(str(order["n"])) if "n" in order else list(self.sockets)
        errors: Counter[str] = Counter()
        began = time.monotonic()

        def attempt(item: object) -> None:
            try:
                action(item)
            except (OSError, Wrong, ValueError, IndexError) as error:
                errors[f"{type(error).__name__}: {error}"[:100]] += 1

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(attempt, items))
            if step == "burst":
                action = read_answer
                list(pool.map(attempt, items))
        return {"done": len(items), "errors": errors, "seconds": time.monotonic() - began}


def main() -> None:
    holder = Holder()
    for line in sys.stdin:
        print(json.dumps(holder.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
