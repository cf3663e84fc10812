# Before a figure counts, the answers must be right: this file asks once and compares.
"""One request with the standard library, over TLS or `plain` (to the load Envoy), and the checks made before each run."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import time

from bench import upstream
from bench.children import Child, Failure

# A name, not the address: no HSTS for an IP literal (RFC 6797 §8.1.1), and then edgeproxy would do less than its peers.
HOST = "localhost"
HEADERS = {"Host": HOST, "Content-Type": "application/json", "Authorization": "Bearer sk-test"}


def context(protocol: str = "http/1.1") -> ssl.SSLContext:
    """A client's TLS context that trusts anything (the certificate is ours) and asks for one ALPN protocol."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols([protocol])
    return made


def connect(port: int, timeout: float, plain: bool = False) -> http.client.HTTPConnection:
    if plain:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context())


def ask(port: int, timeout: float = 10.0, plain: bool = False, bare: bool = False) -> str:
    """POST the question; raises Failure unless it is a 200 with exactly the upstream's answer and one HSTS header.

    Returns the TLS version and cipher, for the record. Of a `bare` server only the 200 is asked.
    """
    connection = connect(port, timeout, plain)
    try:
        connection.request("POST", "/v1/chat/completions", upstream.QUESTION, HEADERS)
        sock = connection.sock
        cipher = sock.cipher() if isinstance(sock, ssl.SSLSocket) else None
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        policies = answer.headers.get_all("Strict-Transport-Security") or []
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"no answer: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200 or (body != upstream.ANSWER and not bare):
        raise Failure(f"wrong answer: {answer.status} {body[:120]!r}")
    if len(policies) != 1 and not bare:
        raise Failure(f"{len(policies)} HSTS headers instead of one")
    return f"{cipher[1]} {cipher[0]}" if cipher else ""


def stream(port: int, plain: bool = False) -> int:
    """Read one SSE stream; raises Failure unless every byte came and 100 chunks came in 50 arrivals or more."""
    connection = connect(port, 20, plain)
    try:
        connection.request("POST", "/sse/fast", upstream.QUESTION, HEADERS)
        answer = connection.getresponse()
        arrivals, text = 0, b""
        while part := answer.read1(65536):
            arrivals += 1
            text += part
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the stream broke: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200 or text.decode() != upstream.EVENT * upstream.CHUNKS + upstream.DONE:
        raise Failure(f"wrong stream: {answer.status}, {len(text)} bytes instead of {upstream.STREAM_BYTES}")
    if arrivals < upstream.CHUNKS // 2:
        raise Failure(f"the stream is buffered: {upstream.CHUNKS} chunks came in {arrivals} pieces")
    return arrivals


def download(port: int) -> str:
    """Read /bulk/large through the load Envoy; its SHA-256. Raises Failure when it is no 200 or too short."""
    connection = connect(port, 120, plain=True)
    found, size, buffer = hashlib.sha256(), 0, bytearray(1 << 20)
    try:
        connection.request("GET", "/bulk/large", headers={"Host": HOST})
        answer = connection.getresponse()
        while count := answer.readinto(buffer):
            found.update(memoryview(buffer)[:count])
            size += count
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the download broke: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200 or size != upstream.LARGE:
        raise Failure(f"wrong download: {answer.status}, {size} bytes instead of {upstream.LARGE}")
    return found.hexdigest()


def until_ready(child: Child, port: int, seconds: float = 15.0, plain: bool = False, bare: bool = False) -> None:
    """Until the peer gives the right answer; raises Failure with its output when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(port, 5, plain, bare)
            return
        except Failure as error:
            if not child.alive():
                raise Failure(f"ended with {child.process.returncode}:\n{child.tail()}") from None
            if time.monotonic() > deadline:
                raise Failure(f"{error}\n{child.tail()}") from None
            time.sleep(0.05)


def ready_page(port: int, path: str) -> bool:
    """Whether the admin port answers 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
