# What a request head means under one snapshot: decided once, kept for as long as the same head comes again.
"""`Plan`: everything about a request that follows from its head, the client and the configuration alone.

Clients on a kept-alive connection send the same head again and again, but for Content-Length. Deciding once what it
means (authority, route, fields for the upstream, the constant part of the log line) halves the cost of a request. What
depends on time, load or content (limits, scores, balancing, previews) is never part of a plan.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgeproxy import keying
from edgeproxy.faults import Fault, client_fault, edge_fault
from edgeproxy.listen.contexts import covers
from edgeproxy.message import Headers
from edgeproxy.observe.access import static_part, with_route, with_rules
from edgeproxy.observe.metrics import H3, PROTOCOLS
from edgeproxy.policy import retries
from edgeproxy.policy.credentials import swap
from edgeproxy.policy.headers import client_address, request_fields
from edgeproxy.policy.normalise import path_problem
from edgeproxy.policy.routing import Authority, find_route
from edgeproxy.rules.facts import OF_FIELD_LINES, Facts
from edgeproxy.scoring import Scored

if TYPE_CHECKING:
    from edgeproxy.admission import Admitting
    from edgeproxy.botting import Botting
    from edgeproxy.challenging import Desk
    from edgeproxy.config.snapshot import Route, Snapshot
    from edgeproxy.keying import Keying
    from edgeproxy.message import Request
    from edgeproxy.observe.metrics import RouteStats
    from edgeproxy.rules.walk import Decision
    from edgeproxy.ruling import Answering, Ruling
    from edgeproxy.upstream.pool import Pool

NO_ROUTE = "-"  # label of requests that no route took
NO_ROUTE_REASON = "no_route"


class Plan:
    """See the module.

    Attributes:
        snapshot: pinned by every exchange of this plan, through reloads.
        route: None when no route matches or the request is refused before routing.
        fault: why the request is refused, None when it goes to the upstream.
        location: target of the redirect to https, on plain connections; else None.
        fields: field lines for the upstream, from behind Host to the start of the ray id's value.
        reply_fields: fields of the edge's own on every reply (HSTS where RFC 6797 wants it, Alt-Svc over h1 and h2).
        log: constant end of the access-log line.
        direct: neither rules nor the body need be looked at: straight to the pool.
        client: textual address of the client.
        host: of the authority, in one form; "" when it is malformed.
        pool: of the upstream that the route or a rule chose; None where there is no route.
        chosen: a rule chose it: the body is not asked for its model.
        forward: the request as rules rewrote it; None: it goes on as it came.
        ruling: what the rules say about this head before it is forwarded, or who answers it without asking them; None where no
            rule can say anything.
        answering: the same about replies.
        limiting: the limits that its exchanges are under; None: none.
        low: its exchanges let others go first to the upstream.
        retry: how often the client says that it has tried before.
        keyed: whose key they carry, or why that is not enough; None: nobody asks, and nobody said.
        scored: who sent them, as far as the head tells; None: nobody scores.
        botting: what is done about that; None: nothing.
    """

    __slots__ = (
        "_bare", "_credential", "_host", "_known", "_own", "_rules", "_tags", "_target", "_target_head", "answering", "botting",
        "chosen", "client", "direct", "fault", "fields", "forward", "host", "keyed", "limiting", "location", "log", "low", "pool",
        "reply_fields", "retry", "route", "ruling", "scored", "snapshot", "stats",
    )  # fmt: skip

    def __init__(self, snapshot: Snapshot, request: Request, no_route: RouteStats, like: Plan | None = None) -> None:
        """Decide.

        Args:
            like: of a head on the same connection that differs from this one in its target alone; under the same snapshot.
        """
        self.snapshot = snapshot
        self.route: Route | None = None
        self.fault: Fault | None = None
        self.location: bytes | None = None
        self.fields = b""
        self.pool: Pool | None = None
        self.chosen = False
        self.low = False
        self.forward: Request | None = None
        self.ruling: Ruling | Desk | None = None
        self.answering: Answering | None = None
        self.limiting: Admitting | None = None
        self.botting: Botting | None = None
        self._rules: tuple[str, ...] = ()
        self._tags: tuple[str, ...] = ()
        self._host: bytes | None = None
        self._target: bytes | None = None
        self._credential = b""
        self.keyed: Keying | None = None
        self._target_head = b""
        self._own: tuple[Route, Keying | None, bytes] | None = None  # the route of the head as it came, and what follows
        self._known: dict[str, Any] | None = None  # what rules read of its field lines; of plans that are like another one
        authority = snapshot.router.authority(request.authority)
        if like is None:
            self.retry = retries.count(request.header(retries.FIELD))
            self.reply_fields = self._added(request, authority)
            self.host = "" if authority is None else authority.host
            self.client = client_address(request, snapshot.trusted)
        else:
            self.retry, self.reply_fields, self.host, self.client = like.retry, like.reply_fields, like.host, like.client
            self._own, self._known = like._own, like._known if like._known is not None else {}
        self.fault = self._decide(request, authority)
        self._routed(no_route)
        if like is not None and like.scored is not None:
            self.scored: Scored | None = like.scored.sibling(request)
        else:
            self.scored = Scored(snapshot.bots, request, self.client, self.host) if snapshot.bots is not None else None
        route = self.route
        self.log = self._bare = static_part(
            client=self.client,
            protocol=PROTOCOLS[request.protocol],
            method=request.method,
            host=request.authority,
            path=request.target.partition(b"?")[0],
            route=NO_ROUTE if route is None else route.name,
            agent=request.header(b"user-agent") or b"",
        )

    def _added(self, request: Request, authority: Authority | None) -> Headers:
        snapshot, secure = self.snapshot, request.peer.secure
        found: Headers = []
        if snapshot.hsts is not None and secure and (authority is None or not authority.is_ip):
            found.append(snapshot.hsts)
        if snapshot.alt_svc is not None and secure and request.protocol != H3:
            found.append(snapshot.alt_svc)
        return found

    def _decide(self, request: Request, authority: Authority | None) -> Fault | None:
        """Normalise and route; the fault when the request ends here."""
        if authority is None:
            return client_fault(400, "host", "The Host field is not a valid host name.")
        target, method = request.target, request.method
        problem = path_problem(target) if target != b"*" else None
        if problem is not None:
            return client_fault(400, "path", f"The request target is refused: {problem}.")
        if not request.peer.secure:
            if target == b"*":
                return client_fault(400, "target", "There is nothing to redirect '*' to.")
            self.location = self._https(authority, target)
            return None
        self.route = route = find_route(authority, target)
        names = request.peer.names
        if names is not None and not covers(names, authority.host):
            # RFC 9110 §15.5.20: this connection was opened for another host; the client must use a new one.
            return client_fault(421, "misdirected", "This connection's certificate is not for the requested host.")
        if method in {b"TRACE", b"CONNECT"}:
            return client_fault(405, "method", "This method is not available here.")
        if route is None:
            return _unrouted()
        if self._own is not None and self._own[0] is route:
            _, self.keyed, self.fields = self._own
            return None
        fault = self._fields_of(request, route, authority, None)
        self._own = (route, self.keyed, self.fields) if fault is None else None
        return fault

    def _fields_of(self, request: Request, route: Route, authority: Authority, written: Headers | None) -> Fault | None:
        """The fields for the upstream. A key of the edge stops here, and any credential where the upstream gets its own."""
        self.keyed = keying.prepare(self.snapshot, route, request, self.client)
        if route.swaps or self.chosen or (self.keyed is not None and self.keyed.key is not None):
            request = request.altered(request.target, swap(request.headers, None, b""))
        fields = request_fields(request, route, authority, self.snapshot.instance, written)
        if isinstance(fields, Fault):
            return fields
        self.fields = fields
        return None

    def _routed(self, no_route: RouteStats) -> None:
        """What follows from the route."""
        route = self.route
        self.stats = no_route if route is None else route.stats
        self.pool = None if route is None else route.pool
        self.chosen = False
        self.direct = route is not None and self.fault is None and not route.reads_body

    def facts(self, request: Request, ray: bytes | None) -> Facts:
        """What rules and limits read of an exchange of this plan, as its request goes on.

        Args:
            request: of the exchange, as it came.
            ray: None while there is no exchange.
        """
        forward = self.forward or request
        if forward.length != request.length:
            # A plan is shared by heads that differ in Content-Length.
            forward = request.altered(forward.target, forward.headers)
        facts = Facts(forward, self.host, self.client, ray, time.time, self.snapshot.context)
        facts.original = request
        if self._known and self.forward is None:
            facts.__dict__.update(self._known)
        if self.route is not None:
            facts.dialect = self.route.dialect
        if self.keyed is not None:
            facts.key = self.keyed.key
        if self.scored is not None:
            facts.scored = self.scored
        return facts

    def learn(self, facts: Facts) -> None:
        """What rules have read of the field lines is kept for plans like this one, if it is like another one itself: then there
        may be more of its kind."""
        if self._known is not None and not self._known and self.forward is None:
            self._known = {slot: value for slot, value in facts.__dict__.items() if slot in OF_FIELD_LINES}

    def copy(self) -> Plan:
        """A plan for one exchange alone, to be changed."""
        made = Plan.__new__(Plan)
        for name in Plan.__slots__:
            setattr(made, name, getattr(self, name))
        return made

    def follow(self, decision: Decision, request: Request, no_route: RouteStats) -> None:
        """Go where rules want the request to go. Only the fault of having no route can go away by this.

        Args:
            request: as it came.
        """
        before, authority = self.route, self.snapshot.router.authority(request.authority)
        forward = decision.request
        if forward is not request and authority is not None:
            self.forward = forward
            self._target = None
            self.route = find_route(authority, forward.target)
            self.fault = None if self.route is not None else _unrouted()
            self._routed(no_route)
            if self.route is not None:
                self.fault = self._fields_of(forward, self.route, authority, decision.written)
        if decision.upstream is not None and self.route is not None:
            self._choose(self.route, decision.upstream, forward, decision.written)
            self._host = decision.host
        self.low = decision.low
        if self.route is not before:
            self._bare = with_route(self._bare, NO_ROUTE if self.route is None else self.route.name)
            self.log = self._bare
        if decision.hits:
            self.note(tuple(rule.id for rule in decision.hits), decision.tags)

    def choose(self, upstream: str, request: Request) -> None:
        """Go to another upstream than the route's.

        Args:
            request: as it came.
        """
        if self.route is not None:
            self._choose(self.route, upstream, self.forward or request, None)

    def _choose(self, route: Route, upstream: str, forward: Request, written: Headers | None) -> None:
        self.pool = route.pools.get(upstream)
        self.chosen = True
        self._target = None
        authority = self.snapshot.router.authority(forward.authority)
        if authority is not None and self.fault is None and self.snapshot.upstreams[upstream].credential:
            self.fault = self._fields_of(forward, route, authority, written)
        self.direct = self.fault is None and self.pool is not None

    def note(self, rules: tuple[str, ...], tags: tuple[str, ...]) -> None:
        """The log line names these rules and tags, behind those that it names already."""
        self._rules += rules
        self._tags += tags
        self.log = with_rules(self._bare, self._rules, self._tags)

    def _https(self, authority: Authority, target: bytes) -> bytes:
        """The same host and path over https."""
        port = self.snapshot.redirect_port
        host = f"[{authority.host}]" if ":" in authority.host else authority.host
        if port not in {None, 443}:
            host += f":{port}"
        return b"https://" + host.encode("ascii") + target

    def upstream_head(self, request: Request, host: bytes, credential: bytes = b"") -> bytes:
        """The head for the upstream, up to where the ray id's value goes.

        Args:
            host: value of the Host field: the client's, or the target's own.
            credential: the field line of the upstream's own key, with its end.
        """
        if host != self._target or credential is not self._credential:
            self._target, self._credential = host, credential
            target = request.target if self.forward is None else self.forward.target
            host = host if self._host is None else self._host
            self._target_head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b" % (request.method, target, host, credential, self.fields)
        return self._target_head


def _unrouted() -> Fault:
    return edge_fault(404, NO_ROUTE_REASON, "No route of this server matches the request's host and path.")


def akin(plan: Plan | None, known: Request | None, request: Request, snapshot: Snapshot) -> Plan | None:
    """A plan, where `request` differs from the one that it was made for (`known`, on the same connection) in its target alone."""
    if plan is None or known is None or plan.snapshot is not snapshot:
        return None
    same = known.headers == request.headers and known.method == request.method and known.authority == request.authority
    return plan if same and known.peer is request.peer and known.upgrade is request.upgrade else None
