# Messages are data: nothing here knows a protocol, a socket or a policy.
"""`Request`, `Reply`, `Body` and the `Sink` contract: what listeners, the gateway and upstreams exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from edgeproxy.faults import Fault
    from edgeproxy.prints import Prints

Headers = list[tuple[bytes, bytes]]
"""Field lines in order; names are lower case."""


class Described(NamedTuple):
    """A client's connection.

    Attributes:
        version: of TLS, `TLSv1.3`; "" without TLS.
        cipher: OpenSSL's name of its cipher suite.
        hello: bytes of the ClientHello message, 0 when it is not known.
        address, port: that the client came to; "" and 0 on a Unix socket.
    """

    version: str
    cipher: str
    hello: int
    address: str
    port: int


class Link(Protocol):
    """A client's connection as rules may ask about it. Nothing is computed or kept for those who do not."""

    def describe(self) -> Described:
        """What stays the same for its whole life."""

    def rtt(self) -> float | None:
        """The smoothed round-trip time in seconds as it is now, None when it is not known."""


class Peer:
    """The connection's other end as the pipeline needs it; one per client connection.

    Attributes:
        address: textual IP address without zone, `""` for Unix sockets.
        trusted: the address is inside `trusted_proxies`.
        secure: the connection is TLS.
        link: the connection itself; it holds the application that holds this, until it ends.
        prints: of the program at the other end; None where nobody wants to know, and for proxies that are trusted.
        names: DNS names of the certificate that was served when the client sent SNI, else None (RFC 9110 §15.5.20).
    """

    __slots__ = ("address", "link", "names", "prints", "secure", "trusted")

    def __init__(self, address: str, *, trusted: bool, secure: bool) -> None:
        self.address = address
        self.trusted = trusted
        self.secure = secure
        self.link: Link | None = None
        self.names: frozenset[str] | None = None
        self.prints: Prints | None = None


class Request:
    """A request head, never changed after parsing.

    Attributes:
        method: as sent, `b"POST"`.
        authority: Host or `:authority` as sent.
        target: path and query as sent, always in origin form (`b"*"` for OPTIONS *).
        headers: lower-case field lines without pseudo-headers; Host is not among them.
        length: declared Content-Length in bytes; None when unknown (chunked, or HTTP/2 without one); 0 for no body.
        protocol: index into `observe.metrics.PROTOCOLS`.
        upgrade: the client asks for a WebSocket tunnel (HTTP/1.1 only).
        expects: the client waits for 100 (Continue).
    """

    __slots__ = ("authority", "expects", "headers", "length", "method", "peer", "protocol", "target", "upgrade")

    def __init__(
        self,
        method: bytes,
        authority: bytes,
        target: bytes,
        headers: Headers,
        length: int | None,
        protocol: int,
        peer: Peer,
    ) -> None:
        self.method = method
        self.authority = authority
        self.target = target
        self.headers = headers
        self.length = length
        self.protocol = protocol
        self.peer = peer
        self.upgrade = False
        self.expects = False

    def altered(self, target: bytes, headers: Headers) -> Request:
        """The same request with another target and other field lines, as a rule wants it."""
        made = Request(self.method, self.authority, target, headers, self.length, self.protocol, self.peer)
        made.upgrade = self.upgrade
        made.expects = self.expects
        return made

    def header(self, name: bytes) -> bytes | None:
        """The first value of a field, None when absent. `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Reply:
    """A response head; the same whether it is local, cached or from an upstream.

    Attributes:
        status: final status, 200..599, or 101 for an accepted tunnel.
        headers: lower-case field lines, without Content-Length and hop-by-hop fields.
        length: length of the body in bytes, None when it ends when it ends.
        bodiless: no content follows whatever `length` says (HEAD, 204, 304).
        stream: the content is an event stream.
    """

    __slots__ = ("bodiless", "headers", "length", "status", "stream")

    def __init__(
        self, status: int, headers: Headers, length: int | None, bodiless: bool = False, stream: bool = False
    ) -> None:
        self.stream = stream
        self.status = status
        self.headers = headers
        self.length = length
        self.bodiless = bodiless

    def with_headers(self, headers: Headers) -> Reply:
        """The same head with other field lines."""
        return Reply(self.status, headers, self.length, self.bodiless, self.stream)


class Sink(Protocol):
    """Where a reply goes. H1, H2 and H3 implement just these; after `start` only `abort` can report a fault.

    Back-pressure: a full sink calls `Exchange.pause()`, a drained one `Exchange.resume()`.
    A client that leaves is reported by `Exchange.cancel()`.
    """

    def start(self, reply: Reply, data: bytes, end: bool) -> None:
        """Send the head with the first bytes of the body; `end` closes the message."""

    def write(self, data: bytes, end: bool) -> None:
        """Send more of the body; `end` closes the message."""

    def abort(self, fault: Fault) -> None:
        """End a started reply so that the client cannot take it for complete (reset)."""

    def proceed(self) -> None:
        """Answer 100 (Continue) if the client waits for it."""

    def trailers(self, fields: Headers) -> None:
        """Fields to send behind the body; called before the final `write(…, end=True)`."""


class BodySource(Protocol):
    """The listener's side of a request body: told of consumption, so that it grants more."""

    def consumed(self, size: int) -> None:
        """`size` bytes were taken (HTTP/2: window update; HTTP/1.1: resume reading)."""


class BodyConsumer(Protocol):
    """Who takes a request body: an upstream connection or the preview."""

    def body_data(self, data: bytes) -> None:
        """The next bytes."""

    def body_end(self) -> None:
        """No more bytes; trailers, if passed, are in `Body.trailers`."""


class Body:
    """A request body that is pushed by the listener, with back-pressure.

    Bytes wait in `chunks` until a consumer is attached. A body that was whole before it was first taken stays in
    `chunks`, so that the request can be repeated on another connection.

    Attributes:
        received: bytes so far.
        waiting: bytes in `chunks` that no consumer has taken.
        done: the message is complete.
        whole: `chunks` holds everything from the first byte.
        paused: the consumer is full.
        unwanted: nobody will take the rest.
        limit: bytes allowed; None for no bound (set by the gateway from the route).
    """

    __slots__ = ("chunks", "consumer", "done", "limit", "paused", "received", "source", "trailers", "unwanted",
                 "waiting", "whole")

    def __init__(self, source: BodySource | None) -> None:
        self.source = source
        self.chunks: list[bytes] = []
        self.consumer: BodyConsumer | None = None
        self.received = 0
        self.waiting = 0
        self.done = False
        self.whole = True
        self.paused = False
        self.unwanted = False
        self.limit: int | None = None
        self.trailers: Headers | None = None

    def push(self, data: bytes) -> bool:
        """Take bytes from the listener. False when the body is now over its limit (they are dropped)."""
        size = len(data)
        self.received += size
        if self.limit is not None and self.received > self.limit:
            return False
        if self.consumer is None or self.paused:
            if self.unwanted:
                return True
            self.chunks.append(data)
            self.waiting += size
            return True
        self.consumer.body_data(data)
        if self.paused:
            # The consumer filled up with this chunk: it is taken, but no more is granted until it drains.
            self.waiting += size
        elif self.source is not None:
            self.source.consumed(size)
        return True

    def finish(self) -> None:
        """The listener saw the end of the message."""
        self.done = True
        if self.consumer is not None and not self.chunks:
            self.consumer.body_end()

    def take(self) -> bytes:
        """All waiting bytes at once; they count as consumed. A whole, finished body is kept for a repetition."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self.done and self.whole:
            self.chunks = [data] if data else []
        else:
            self.chunks = []
            self.whole = False
        waiting, self.waiting = self.waiting, 0
        if waiting and self.source is not None:
            self.source.consumed(waiting)
        return data

    def pause(self) -> None:
        """The consumer is full."""
        self.paused = True

    def resume(self) -> None:
        """The consumer drained: hand over what waited and grant more."""
        self.paused = False
        if self.consumer is None:
            if self.source is not None:
                self.source.consumed(0)  # a tunnel, whose bytes never wait here
            return
        data = b"".join(self.chunks)
        self.chunks = []
        waiting, self.waiting = self.waiting, 0
        if data:
            self.consumer.body_data(data)
        if waiting and self.source is not None:
            self.source.consumed(waiting)
        if self.done:
            self.consumer.body_end()

    def restore(self, data: bytes) -> None:
        """Put back everything received so far (the preview looked at it); it was granted already."""
        self.chunks = [data] if data else []
        self.consumer = None
        self.waiting = 0
        self.whole = True

    def forget(self) -> None:
        """The request will not be repeated: what was kept for that goes."""
        if self.chunks and self.done:
            self.chunks = []
            self.whole = False

    def drop(self) -> None:
        """Nobody wants the rest: forget what waits and what still comes. Nothing more is granted."""
        self.unwanted = True
        self.chunks = []
        self.consumer = None
        self.whole = False
        self.waiting = 0
