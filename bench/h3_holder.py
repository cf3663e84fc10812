# A process of its own, pinned to the load core, that makes new QUIC connections, as told on stdin.
"""The client side of the case `h3-handshake`: JSON lines in, one JSON line out for each, as in holder.py.

{"do": "handshakes", "port": P, "n": N, "bare": 0}  N connections, eight under way at a time: full handshake, one request
over HTTP/3, close. Every answer is compared (`bare`: only its status). Answers: {"done": how many, "errors": {text: how
many}, "seconds": S}.

aioquic below, without its asyncio driver: one connected UDP socket per connection, as separate clients have, and one
epoll. No connection is given a session ticket, so none can be resumed; the server's word for it is checked.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from collections import Counter

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from bench import probe, upstream

AT_A_TIME = 8
TIMEOUT = 10.0
QUESTION = upstream.QUESTION.encode()
HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", probe.HOST.encode()),
    (b":path", b"/v1/chat/completions"),
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-test"),
    (b"content-length", str(len(QUESTION)).encode()),
]
NO_ERROR = 0x100  # H3_NO_ERROR


class Wrong(Exception):
    """An answer or an end that is not what was asked for."""


def configuration() -> QuicConfiguration:
    """A client that trusts anything (the certificate is ours)."""
    return QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=probe.HOST, verify_mode=ssl.CERT_NONE, idle_timeout=TIMEOUT
    )


def judge(head: list[tuple[bytes, bytes]], body: bytes, bare: bool) -> None:
    """Raises Wrong unless it is a 200 with exactly the upstream's answer and one HSTS header (`bare`: only the 200)."""
    status = dict(head).get(b":status", b"").decode()
    if status != "200":
        raise Wrong(f"status {status or 'missing'}")
    if bare:
        return
    if body != upstream.ANSWER.encode():
        raise Wrong(f"wrong answer of {len(body)} bytes")
    policies = sum(name == b"strict-transport-security" for name, _ in head)
    if policies != 1:
        raise Wrong(f"{policies} HSTS headers instead of one")


class Attempt:
    """One connection from its first datagram to its last."""

    __slots__ = ("address", "bare", "body", "deadline", "h3", "head", "quic", "sock", "timer")

    def __init__(self, config: QuicConfiguration, port: int, bare: bool, now: float) -> None:
        self.address = ("127.0.0.1", port)
        self.sock = socket.socket(type=socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(self.address)
        self.bare = bare
        self.deadline = now + TIMEOUT
        self.timer: float | None = None
        self.h3: H3Connection | None = None
        self.head: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.quic = QuicConnection(configuration=config)
        self.quic.connect(self.address, now)
        self.transmit(now)

    def transmit(self, now: float) -> None:
        for data, _ in self.quic.datagrams_to_send(now):
            self.sock.send(data)
        self.timer = self.quic.get_timer()

    def received(self, now: float) -> bool:
        """Read what is there and react; True when the answer has come to its end. Raises Wrong and OSError."""
        try:
            while True:
                self.quic.receive_datagram(self.sock.recv(65535), self.address, now)
        except BlockingIOError:
            pass
        done = self.events()
        if done:
            judge(self.head, self.body, self.bare)
            self.quic.close(NO_ERROR)
        self.transmit(now)
        return done

    def events(self) -> bool:
        done = False
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                if event.session_resumed:
                    raise Wrong("the session was resumed: not a full handshake")
                self.h3 = H3Connection(self.quic)
                stream = self.quic.get_next_available_stream_id()
                self.h3.send_headers(stream, HEAD)
                self.h3.send_data(stream, QUESTION, end_stream=True)
            elif isinstance(event, ConnectionTerminated):
                raise Wrong(f"closed by the server: {event.error_code:#x} {event.reason_phrase}")
            elif self.h3 is not None:
                for part in self.h3.handle_event(event):
                    if isinstance(part, HeadersReceived):
                        self.head += part.headers
                    elif isinstance(part, DataReceived):
                        self.body += part.data
                    done |= getattr(part, "stream_ended", False)
        return done

    def expired(self, now: float) -> None:
        """Handle the timer of loss recovery when it is due; raises Wrong after the whole attempt's time."""
        if now >= self.deadline:
            raise Wrong("no answer in time")
        if self.timer is not None and now >= self.timer:
            self.quic.handle_timer(now)
            self.transmit(now)


def handshakes(port: int, count: int, bare: bool) -> Counter[str]:
    """`count` attempts, AT_A_TIME of them under way; errors by text."""
    config = configuration()
    errors: Counter[str] = Counter()
    open_: dict[int, Attempt] = {}
    poll = select.epoll()
    begun = 0
    while begun < count or open_:
        while begun < count and len(open_) < AT_A_TIME:
            begun += 1
            try:
                made = Attempt(config, port, bare, time.monotonic())
            except OSError as error:  # such as no server there: ECONNREFUSED of an earlier datagram
                errors[str(error)[:100]] += 1
                continue
            open_[made.sock.fileno()] = made
            poll.register(made.sock, select.EPOLLIN)
        ready = {number for number, _ in poll.poll(0.02)}
        now = time.monotonic()
        for number, attempt in list(open_.items()):
            try:
                attempt.expired(now)
                ended = number in ready and attempt.received(now)
            except (OSError, Wrong) as error:
                errors[f"{type(error).__name__}: {error}"[:100]] += 1
                ended = True
            if ended:
                del open_[number]
                poll.unregister(number)
                attempt.sock.close()
    poll.close()
    return errors


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        errors = handshakes(order["port"], order["n"], bool(order.get("bare")))
        print(json.dumps({"done": order["n"], "errors": errors, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
