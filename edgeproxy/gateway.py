# The pipeline, read top to bottom: normalise → route → blocks → rules → bots → key → limits → model → upstream → heads → relay →
# record.
"""`Gateway`: what happens to a request, independent of the protocol it came by and of the upstream it goes to."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from edgeproxy import admission, botting, challenging, ruling, spending
from edgeproxy.chat import dialects
from edgeproxy.exchange import Exchange
from edgeproxy.faults import OK, Fault, client_fault, edge_fault
from edgeproxy.message import Body, Peer, Reply, Request, Sink
from edgeproxy.observe.access import BATCH, line, static_part, with_limits
from edgeproxy.observe.metrics import H3, PROTOCOLS, record
from edgeproxy.plan import NO_ROUTE, Plan
from edgeproxy.policy.headers import RAY, mark_stream
from edgeproxy.policy.pages import error_page
from edgeproxy.policy.sightings import Sightings
from edgeproxy.preview import hold, read_pool
from edgeproxy.rays import Rays
from edgeproxy.state.embedded import EmbeddedStore, steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.ticket import Leases
from edgeproxy.upstream.h1 import UpstreamConnection
from edgeproxy.watching import Watch

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.blocking import Blocking
    from edgeproxy.config.snapshot import Route, Snapshot
    from edgeproxy.deadlines import Deadlines
    from edgeproxy.observe.access import AccessLogWriter
    from edgeproxy.observe.events import Events
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.preview import Preview
    from edgeproxy.state.ports import Store
    from edgeproxy.upstream.pool import Pool

NETWORKS = 8  # in which a key may be seen within an hour, where the configuration says nothing
_BODILESS = frozenset({204, 304})


class Gateway:
    """One worker's pipeline.

    Attributes:
        snapshot: the current one; exchanges pin the one they began with.
        pools: upstream name → pool; they outlive snapshots.
        events: where hits of rules are told; None without configuration.
        held: bytes of request bodies that previews hold.
        leases: tickets that hold places of limits of concurrency.
        previews: those that wait for more of theirs.
        sightings: where keys of the edge were seen.
        spent: puzzles whose solutions this worker took while the store could not be asked.
        watch: what clients did, for their scores.
        store: where limits count; this worker's own until it is given another one.
        blocking: refuses what an operator has blocked; None while nothing is.
    """

    __slots__ = (
        "_rays", "blocking", "deadlines", "events", "held", "leases", "log", "loop", "no_route", "pools", "previews", "sightings",
        "snapshot", "spent", "stats", "store", "time", "watch",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, stats: WorkerStats, log: AccessLogWriter | None
    ) -> None:
        self.loop = loop
        self.deadlines = deadlines
        self.stats = stats
        self.log = log
        self.events: Events | None = None
        self.blocking: Blocking | None = None
        self.time = time.monotonic
        self.snapshot: Snapshot
        self.pools: dict[str, Pool] = {}
        self.held = 0
        self.store: Store = EmbeddedStore(stats=stats.store)
        self.sightings = Sightings(NETWORKS)
        self.spent: Store = EmbeddedStore(Memory(steady_clock()()))
        self.watch = Watch(self, deadlines)
        self.leases = Leases(deadlines)
        self.previews: set[Preview] = set()
        self.no_route = stats.route(NO_ROUTE)
        self._rays = Rays()

    @property
    def prints(self) -> bool:
        """Whether connections keep what their fingerprints are made of."""
        return self.snapshot.prints or (self.blocking is not None and self.blocking.fingerprints)

    # -- a request -----------------------------------------------------------------------------------------------

    def plan(self, request: Request, like: Plan | None = None) -> Plan:
        """What a request's head means under the current snapshot. A listener may keep it for equal heads. `like`: see `Plan`."""
        plan = Plan(self.snapshot, request, self.no_route, like)
        if challenging.is_ours(plan, request):
            return plan
        if self.snapshot.rules is not None:
            ruling.prepare(self, plan, request, self.snapshot.rules)
        else:
            self.stages(plan, request, frozenset(), frozenset())
        return plan

    def stages(self, plan: Plan, request: Request, skipped: frozenset[str], named: frozenset[str]) -> None:
        """Find what comes behind the rules: the policy for bots, and limits.

        Args:
            skipped: stages that rules skip.
            named: limits that rules ask for.
        """
        snapshot = plan.snapshot
        if snapshot.bots is not None:
            botting.prepare(plan, skipped, named)
        if snapshot.limits or snapshot.budgets:
            self.limit(plan, request, skipped, named)

    def limit(self, plan: Plan, request: Request, skipped: frozenset[str], named: frozenset[str]) -> None:
        """Find the limits of a plan that goes on, unless rules skip them."""
        plan.limiting = None
        if plan.route is not None and plan.fault is None and "limits" not in skipped:
            key = plan.keyed.key if plan.keyed is not None else None
            if key is None:
                admission.prepare(self, plan, request, plan.snapshot.limits, named)
            else:
                limits = (*plan.snapshot.limits, *plan.snapshot.budgets.get(key.id, ()))
                admission.prepare(self, plan, request, limits, named | frozenset(key.limits))

    def open(self, request: Request, plan: Plan, body: Body, sink: Sink) -> Exchange:
        """An exchange for a request. The listener keeps it before it lets it `run`: the answer may come from inside."""
        rays = self._rays
        ray = rays.left.pop() if rays.left else rays.next()
        return Exchange(self, plan, request, body, sink, ray, self.time())

    def run(self, exchange: Exchange) -> None:
        """Decide what to do with a request, and begin doing it."""
        if self.blocking is not None and self.blocking.apply(exchange):
            return
        plan = exchange.plan
        if plan.scored is not None and plan.scored.signed:
            if spending.apply(exchange, plan.scored):
                return
            plan = exchange.plan
        if plan.ruling is not None and plan.ruling.apply(exchange):
            return
        self.forward(exchange)

    def forward(self, exchange: Exchange) -> None:
        """What comes behind the rules."""
        plan = exchange.plan
        if plan.fault is not None:
            exchange.fail(plan.fault)
            return
        if plan.route is None:
            self._redirect(exchange)
        elif plan.botting is not None and plan.botting.apply(exchange):
            return
        elif not self.oversized(exchange, plan.route.max_body) and (plan.keyed is None or not plan.keyed.apply(exchange)):
            self.limit_on(exchange)

    def limit_on(self, exchange: Exchange) -> None:
        """What comes behind the key: the limits."""
        limiting = exchange.plan.limiting
        if limiting is None or not limiting.apply(exchange):
            self.send_on(exchange)

    def send_on(self, exchange: Exchange) -> None:
        """What comes behind the limits: the upstream."""
        plan = exchange.plan
        route, pool = plan.route, plan.pool
        assert route is not None
        if pool is None:
            exchange.fail(_gone())
        elif plan.chosen or not route.reads_body or exchange.request.length == 0:
            pool.submit(exchange)
        else:
            self._by_model(exchange, route)

    def oversized(self, exchange: Exchange, limit: int) -> bool:
        """Bounds the body to so many bytes. True when it is larger already: then it is refused."""
        if self.exceeds(exchange, limit):
            exchange.fail(client_fault(413, "body_too_large", f"The request body is larger than the {limit} bytes allowed."))
            return True
        exchange.body.limit = limit
        return False

    def exceeds(self, exchange: Exchange, limit: int) -> bool:
        """Whether the body is known to be larger than so many bytes."""
        length = exchange.request.length
        return exchange.body.received > limit or (length is not None and length > limit)

    def _by_model(self, exchange: Exchange, route: Route) -> None:
        """To the upstream of the model that the body names."""

        def held(content: bytes, truncated: bool) -> None:
            chosen = read_pool(content, truncated, route)
            if isinstance(chosen, Fault):
                exchange.fail(chosen)
            else:
                chosen.submit(exchange)

        length = exchange.request.length
        if length is not None and length > route.preview:
            held(b"", True)
        else:
            hold(exchange, route.preview, held)

    def _redirect(self, exchange: Exchange) -> None:
        """The plain port: the same host and path over https, method and body kept (RFC 9110 §15.4.9). No HSTS here."""
        self.stats.redirects += 1
        self._local(exchange, 308, [(b"location", exchange.plan.location or b"/")], b"")

    # -- towards the client --------------------------------------------------------------------------------------

    def reply(self, exchange: Exchange, reply: Reply, data: bytes, end: bool) -> None:
        """An upstream's reply head arrived, with the first bytes behind it."""
        if exchange.sink is None:
            return
        headers = reply.headers
        if reply.stream:
            mark_stream(headers)
        limited = exchange.ticket is not None or exchange.tried
        if limited:
            admission.measure(exchange, reply)
        if exchange.plan.answering is not None:
            exchange.plan.answering.apply(exchange, reply)
        if limited:
            admission.tell(exchange, reply)
        headers = reply.headers
        if exchange.plan.scored is not None and (cookie := exchange.plan.scored.cookie(headers)) is not None:
            headers.append((b"set-cookie", cookie))
        headers += exchange.plan.reply_fields
        headers.append((RAY, exchange.ray))
        exchange.start(reply, data, end)

    def refuse(self, exchange: Exchange, fault: Fault, content_type: bytes, content: bytes) -> None:
        """A rule's own answer, counted and logged as the fault that it is."""
        self.stats.fault(fault.source.value, fault.reason)
        exchange.body.drop()
        fields = [(b"content-type", content_type), (b"cache-control", b"no-store"), *fault.fields]
        self._local(exchange, fault.status, fields, content, fault.outcome)

    def answer(self, exchange: Exchange, status: int, fields: list[tuple[bytes, bytes]], content: bytes) -> None:
        """The edge itself is who was asked."""
        exchange.body.drop()
        self._local(exchange, status, fields, content)

    def redirect(self, exchange: Exchange, status: int, location: bytes) -> None:
        """A rule sends the client elsewhere."""
        exchange.body.drop()
        self._local(exchange, status, [(b"location", location), (b"cache-control", b"no-store")], b"")

    def _local(
        self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], content: bytes, outcome: str = OK
    ) -> None:
        """A reply of the edge's own."""
        bodiless = exchange.request.method == b"HEAD" or status in _BODILESS
        reply = Reply(status, headers, len(content), bodiless=bodiless)
        if exchange.plan.answering is not None:
            exchange.plan.answering.apply(exchange, reply)
        if exchange.ticket is not None:
            admission.tell(exchange, reply)
        reply.headers = [(b"date", _date()), *reply.headers, *exchange.plan.reply_fields, (RAY, exchange.ray)]
        exchange.start(reply, b"" if bodiless else content, True, outcome)

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
            route = exchange.plan.route
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
        route, request = exchange.plan.route, exchange.request
        ray = exchange.ray.decode("ascii")
        if route is not None and route.dialect is not None:
            content_type, content = b"application/json", dialects.error_body(route.dialect, fault, ray)
        else:
            content_type, content = error_page(fault, ray, request.header(b"accept"))
        fields = [(b"content-type", content_type), (b"cache-control", b"no-store")]
        fields += fault.fields
        if fault.status == 503:
            fields.append((b"retry-after", b"1"))
        self._local(exchange, fault.status, fields, content, fault.outcome)

    def refusal(self, fault: Fault, peer: Peer, protocol: int, host: bytes | None) -> tuple[Reply, bytes]:
        """The answer to bytes that did not become a request: no route, no dialect, but counted and logged all the same.

        Args:
            host: Host or :authority as far as it is known (no HSTS for IP literals).
        """
        ray = self._rays.next()
        self.stats.fault(fault.source.value, fault.reason)
        content_type, content = error_page(fault, ray.decode("ascii"), None)
        size = len(content)
        record(self.no_route, protocol, fault.status, 0.0, 0, size)
        if self.log is not None:
            static = static_part(
                client=peer.address, protocol=PROTOCOLS[protocol], method=b"", host=b"", path=b"", route=NO_ROUTE, agent=b""
            )
            self.log.lines.append(line(time.time(), ray, fault.status, 0, size, 0.0, 0.0, b"null", fault.outcome, static))
        fields = [(b"date", _date()), (b"content-type", content_type), (RAY, ray)]
        authority = self.snapshot.router.authority(host) if host is not None else None
        if peer.secure and self.snapshot.hsts is not None and (authority is None or not authority.is_ip):
            fields.append(self.snapshot.hsts)
        if peer.secure and self.snapshot.alt_svc is not None and protocol != H3:
            fields.append(self.snapshot.alt_svc)
        return Reply(fault.status, fields, len(content)), content

    # -- tunnels (WebSocket) -------------------------------------------------------------------------------------

    def open_tunnel(self, exchange: Exchange, reply: Reply, data: bytes) -> None:
        """The upstream agreed to switch protocols."""
        self.reply(exchange, reply, b"", False)
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

    def end(self, exchange: Exchange, outcome: str, now: float = 0.0) -> None:
        """Every exchange passes here exactly once: metrics and the access log.

        Args:
            now: monotonic seconds, if the caller has just asked for them.
        """
        if exchange.sink is None:
            return
        exchange.sink = None
        if exchange.ticket is not None:
            exchange.ticket.end(exchange)
        for ticket in exchange.tried:
            ticket.end(exchange)
        plan = exchange.plan
        started, first, status, sent = exchange.started, exchange.first, exchange.status, exchange.sent
        received = exchange.body.received
        seconds = (now or self.time()) - started
        record(plan.stats, exchange.request.protocol, status, seconds, received, sent)
        scored = plan.scored
        if scored is not None:
            scored.ended(exchange, started + seconds)
        log = self.log
        if log is not None:
            served = exchange.served_by
            static = plan.log if scored is None else scored.line(plan.log, exchange.score)
            if exchange.limited:
                static = with_limits(static, exchange.limited)
            lines = log.lines
            lines.append(
                line(
                    time.time(), exchange.ray, status, received, sent, seconds, first - started if first else None,
                    b"null" if served is None else served.quoted, outcome, static,
                )
            )  # fmt: skip
            if len(lines) >= BATCH:
                log.flush()


def _gone() -> Fault:
    return edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration.")


def _date() -> bytes:
    return formatdate(usegmt=True).encode("ascii")
