# The pipeline, read top to bottom: normalise → route → preview → upstream → heads → relay → record.
"""`Gateway`: what happens to a request, independent of the protocol it came by and of the upstream it goes to."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from edgeproxy.chat import dialects
from edgeproxy.exchange import Exchange
from edgeproxy.faults import OK, Fault, client_fault, edge_fault
from edgeproxy.listen.contexts import covers
from edgeproxy.message import Body, Peer, Reply, Request, Sink
from edgeproxy.observe.access import BATCH, Entry
from edgeproxy.observe.metrics import PROTOCOLS, record
from edgeproxy.policy.headers import RAY, client_address, reply_headers, request_head
from edgeproxy.policy.normalise import path_problem
from edgeproxy.policy.pages import error_page
from edgeproxy.policy.routing import Authority, find_route
from edgeproxy.preview import Preview
from edgeproxy.rays import Rays
from edgeproxy.upstream.h1 import UpstreamConnection

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.config.snapshot import Snapshot
    from edgeproxy.deadlines import Deadlines
    from edgeproxy.observe.access import AccessLogWriter
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.upstream.pool import Pool, Target

_EVENT_STREAM = b"text/event-stream"
_BODILESS = frozenset({204, 304})
_NO_ROUTE = "-"  # label of requests that no route took


class Gateway:
    """One worker's pipeline.

    Attributes:
        snapshot: the current one; exchanges pin the one they began with.
        pools: upstream name → pool; they outlive snapshots.
    """

    __slots__ = ("_rays", "deadlines", "log", "loop", "pools", "snapshot", "stats", "time")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, stats: WorkerStats, log: AccessLogWriter | None
    ) -> None:
        self.loop = loop
        self.deadlines = deadlines
        self.stats = stats
        self.log = log
        self.time = time.monotonic
        self.snapshot: Snapshot
        self.pools: dict[str, Pool] = {}
        self._rays = Rays()

    # -- a request -----------------------------------------------------------------------------------------------

    def open(self, request: Request, body: Body, sink: Sink) -> Exchange:
        """An exchange for a request. The listener keeps it before it lets it `run`: the answer may come from inside."""
        return Exchange(self, self.snapshot, request, body, sink, self._rays.next(), self.time())

    def run(self, exchange: Exchange) -> None:
        """Decide what to do with a request, and begin doing it."""
        request = exchange.request
        authority = exchange.snapshot.router.authority(request.authority)
        if authority is None:
            exchange.fail(client_fault(400, "host", "The Host field is not a valid host name."))
            return
        if not request.peer.secure:
            self._redirect(exchange, authority)
            return
        target = request.target
        route = find_route(authority, target)
        exchange.route = route
        fault = self._check(exchange, authority)
        if fault is not None:
            exchange.fail(fault)
            return
        if route is None:
            exchange.fail(edge_fault(404, "no_route", "No route of this server matches the request's host and path."))
            return
        body = exchange.body
        limit = route.max_body
        length = request.length
        if body.received > limit or (length is not None and length > limit):
            exchange.fail(client_fault(413, "body_too_large", f"The request body is larger than the {limit} bytes allowed."))
            return
        body.limit = limit
        if length == 0 or not route.reads_body:
            route.pool.submit(exchange)
        else:
            Preview(exchange, route).begin()

    def _check(self, exchange: Exchange, authority: Authority) -> Fault | None:
        """Policy that needs only the head."""
        request = exchange.request
        target = request.target
        problem = path_problem(target) if target != b"*" else None
        if problem is not None:
            return client_fault(400, "path", f"The request target is refused: {problem}.")
        names = request.peer.names
        if names is not None and authority is not request.peer.authority and not covers(names, authority.host):
            # RFC 9110 §15.5.20. The authority cached on the peer was checked before.
            return client_fault(421, "misdirected", "This connection's certificate is not for the requested host.")
        if request.method == b"TRACE" or request.method == b"CONNECT":
            return client_fault(405, "method", "This method is not available here.")
        return None

    def _redirect(self, exchange: Exchange, authority: Authority) -> None:
        """The plain port: the same host and path over https, method and body kept (RFC 9110 §15.4.9). No HSTS here."""
        if path_problem(exchange.request.target) is not None:
            exchange.fail(client_fault(400, "path", "The request target is refused."))
            return
        port = exchange.snapshot.redirect_port
        host = f"[{authority.host}]" if ":" in authority.host else authority.host
        if port not in {None, 443}:
            host += f":{port}"
        location = b"https://" + host.encode("ascii") + exchange.request.target
        self.stats.redirects += 1
        self._local(exchange, 308, [(b"location", location)], b"")

    # -- towards the upstream ------------------------------------------------------------------------------------

    def request_head(self, exchange: Exchange, target: Target) -> bytes | Fault:
        """The head for a target, up to its framing fields."""
        request = exchange.request
        authority = exchange.snapshot.router.authority(request.authority)
        assert authority is not None  # it was understood when the exchange began
        host = request.authority if target.pool.settings.preserve_host else target.settings.authority
        return request_head(exchange, authority, host, exchange.snapshot.instance)

    # -- towards the client --------------------------------------------------------------------------------------

    def reply(self, exchange: Exchange, reply: Reply, data: bytes, end: bool) -> None:
        """An upstream's reply head arrived, with the first bytes behind it."""
        if exchange.sink is None:
            return
        stream = False
        for name, value in reply.headers:
            if name == b"content-type":
                stream = value.startswith(_EVENT_STREAM)
                break
        reply.headers = reply_headers(reply.headers, self._own_fields(exchange), stream=stream)
        exchange.start(reply, data, end)

    def _own_fields(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """What the edge adds to every reply: its ray id, and HSTS where RFC 6797 wants it."""
        fields = [(RAY, exchange.ray.encode("ascii"))]
        request = exchange.request
        hsts = exchange.snapshot.hsts
        if hsts is not None and request.peer.secure:
            authority = exchange.snapshot.router.authority(request.authority)
            if authority is None or not authority.is_ip:
                fields.append(hsts)
        return fields

    def _local(
        self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], content: bytes, outcome: str = OK
    ) -> None:
        """A reply of the edge's own."""
        fields = [(b"date", _date()), *headers, *self._own_fields(exchange)]
        bodiless = exchange.request.method == b"HEAD" or status in _BODILESS
        exchange.start(Reply(status, fields, len(content), bodiless=bodiless), b"" if bodiless else content, True, outcome)

    def fail(self, exchange: Exchange, fault: Fault, tail: bytes = b"") -> None:
        """The one place where an exchange fails: an error reply while that is possible, afterwards a reset.

        Args:
            tail: the last bytes of an event stream that may still be told in-band why it ends, else b"".
        """
        sink = exchange.sink
        if sink is None:
            return
        self.stats.fault(fault.source.value, fault.reason)
        attempt, exchange.attempt = exchange.attempt, None
        exchange.body.drop()
        if exchange.status == 0:
            self._answer(exchange, fault)
        else:
            route = exchange.route
            if tail and route is not None and route.dialect is not None:
                event = dialects.stream_error(route.dialect, fault, tail)
                if event is not None:
                    sink.write(event, False)
            self.end(exchange, fault.outcome)
            sink.abort(fault)
        if attempt is not None:
            attempt.cancel()

    def _answer(self, exchange: Exchange, fault: Fault) -> None:
        """An error reply in the caller's dialect, or as a small page."""
        route, request = exchange.route, exchange.request
        if route is not None and route.dialect is not None:
            content_type, content = b"application/json", dialects.error_body(route.dialect, fault, exchange.ray)
        else:
            content_type, content = error_page(fault, exchange.ray, request.header(b"accept"))
        fields = [(b"content-type", content_type), (b"cache-control", b"no-store")]
        if fault.status == 503:
            fields.append((b"retry-after", b"1"))
        self._local(exchange, fault.status, fields, content, fault.outcome)

    def refusal(self, fault: Fault, peer: Peer, protocol: int) -> tuple[Reply, bytes]:
        """The answer to bytes that did not become a request: no route, no dialect, but counted and logged all the same."""
        ray = self._rays.next()
        self.stats.fault(fault.source.value, fault.reason)
        record(self.stats.route(_NO_ROUTE), protocol, fault.status, 0.0, 0, 0)
        if self.log is not None:
            self.log.entries.append(
                Entry(time.time(), ray, peer.address, PROTOCOLS[protocol], "", "", "", fault.status, 0, 0, 0.0, None,
                      _NO_ROUTE, None, fault.outcome, "")
            )  # fmt: skip
        content_type, content = error_page(fault, ray, None)
        fields = [(b"date", _date()), (b"content-type", content_type), (RAY, ray.encode("ascii"))]
        if peer.secure and self.snapshot.hsts is not None:
            fields.append(self.snapshot.hsts)
        return Reply(fault.status, fields, len(content)), content

    # -- tunnels (WebSocket) -------------------------------------------------------------------------------------

    def open_tunnel(self, exchange: Exchange, reply: Reply, data: bytes) -> None:
        """The upstream agreed to switch protocols."""
        reply.headers = reply_headers(reply.headers, self._own_fields(exchange), stream=False)
        exchange.start(reply, b"", False)
        if data:
            exchange.write(data, False)

    def tunnel_data(self, exchange: Exchange, data: bytes) -> None:
        """Bytes from the client through a tunnel."""
        exchange.body.received += len(data)
        if isinstance(exchange.attempt, UpstreamConnection):
            exchange.attempt.tunnel_data(data)

    def end_tunnel(self, exchange: Exchange) -> None:
        """The upstream closed its side of a tunnel: so do we."""
        sink = exchange.sink
        if sink is not None:
            exchange.attempt = None
            self.end(exchange, OK)
            sink.write(b"", True)

    # -- record --------------------------------------------------------------------------------------------------

    def end(self, exchange: Exchange, outcome: str) -> None:
        """Every exchange passes here exactly once: metrics and the access log."""
        if exchange.sink is None:
            return
        exchange.sink = None
        request, route = exchange.request, exchange.route
        started = exchange.started
        seconds = self.time() - started
        received, sent = exchange.body.received, exchange.sent
        stats = self.stats.route(_NO_ROUTE) if route is None else route.stats
        record(stats, request.protocol, exchange.status, seconds, received, sent)
        log = self.log
        if log is not None:
            self._log(log, exchange, outcome, seconds)

    def _log(self, log: AccessLogWriter, exchange: Exchange, outcome: str, seconds: float) -> None:
        request, route = exchange.request, exchange.route
        agent = b""
        for name, value in request.headers:
            if name == b"user-agent":
                agent = value
                break
        peer = request.peer
        log.entries.append(
            Entry(
                time.time(),
                exchange.ray,
                client_address(request, exchange.snapshot.trusted) if peer.trusted else peer.address,
                PROTOCOLS[request.protocol],
                request.method.decode("latin-1"),
                request.authority.decode("latin-1"),
                request.target.partition(b"?")[0].decode("latin-1"),
                exchange.status,
                exchange.body.received,
                exchange.sent,
                round(seconds * 1000, 3),
                round((exchange.first - exchange.started) * 1000, 3) if exchange.first else None,
                _NO_ROUTE if route is None else route.name,
                exchange.served_by,
                outcome,
                agent.decode("latin-1"),
            )
        )
        if len(log.entries) >= BATCH:
            log.flush()


def _date() -> bytes:
    return formatdate(usegmt=True).encode("ascii")
