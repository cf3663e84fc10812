# What happens before rules: the head, host and path, the way to https, the client's address, the route. The plan has
# decided all of it already; here it is only said.
"""Stages from the head to the route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.explaining.answer import Named, Outcome, Stage
from edgeproxy.explaining.own import answer_fault, answer_own, answer_redirect
from edgeproxy.explaining.trace import clean
from edgeproxy.plan import NO_ROUTE_REASON
from edgeproxy.policy.routing import Authority, find_route

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.faults import Fault

_MOST: Final = 50  # routes that are listed


def head(ways: Ways) -> Stage:
    """What a listener looks at."""
    bounds = ways.snapshot.client
    if ways.flaw is not None:
        return _refused(ways, "head", ways.flaw)
    size = sum(len(name) + len(value) + 4 for name, value in ways.request.headers)
    count = len(ways.request.headers)
    says = f"{count} header lines, {size} bytes: within client.max_headers and client.max_head"
    return Stage("head", "passes", says, [Named("max_head", str(bounds.max_head)), Named("max_headers", str(bounds.max_headers))])


def host(ways: Ways) -> Stage | None:
    """The authority."""
    if ways.outcome is not None:
        return None
    fault = _fault(ways, "host")
    if fault is not None:
        return _refused(ways, "host", fault, [Named("authority", clean(ways.request.authority))])
    authority = _authority(ways)
    kind = "an IP address: no HSTS for it" if authority.is_ip else "in lower case, without port"
    return Stage("host", "passes", f"{authority.host} ({kind})")


def path(ways: Ways) -> Stage | None:
    """The one form of a path."""
    if ways.outcome is not None:
        return None
    fault = _fault(ways, "path")
    if fault is not None:
        return _refused(ways, "path", fault, [Named("target", clean(ways.request.target))])
    return Stage("path", "passes", f"{clean(ways.request.target.partition(b'?')[0])} means the same to everybody")


def https(ways: Ways) -> Stage | None:
    """The plain port."""
    if ways.outcome is not None:
        return None
    fault, location = _fault(ways, "target"), ways.plan.location
    if fault is not None:
        return _refused(ways, "https", fault)
    if location is None:
        return Stage("https", "passes", "the request came over TLS")
    says = f"the plain port only redirects: 308 to {clean(location)}"
    answer_redirect(ways, 308, location, Outcome(says, "https", 308))
    return Stage("https", "answers", says)


def client(ways: Ways) -> Stage | None:
    """Whose request it is."""
    if ways.outcome is not None:
        return None
    peer, address = ways.request.peer, ways.plan.client
    forwarded = [value for name, value in ways.request.headers if name == b"x-forwarded-for"]
    details = [Named("x-forwarded-for", clean(b", ".join(forwarded)))] if forwarded else []
    if not peer.address:
        return Stage("client", "passes", "unknown: the connection came over a Unix socket", details)
    if not peer.trusted:
        ignored = "; its X-Forwarded-For is not believed" if forwarded else ""
        return Stage("client", "passes", f"{address}: the connection's own address, no trusted proxy{ignored}", details)
    if not forwarded:
        return Stage("client", "passes", f"{address}: a trusted proxy that names no client", details)
    how = "the rightmost address that is no trusted proxy" if address != peer.address else "the trusted proxy's own"
    return Stage("client", "passes", f"{address}: {how}, on the word of {peer.address}", details)


def route(ways: Ways) -> Stage | None:
    """Which route takes the request as it came."""
    if ways.outcome is not None:
        return None
    plan = ways.plan
    details = candidates(ways, ways.request.target, plan.route)
    fault = plan.fault
    if fault is not None and fault.reason != NO_ROUTE_REASON:
        return _refused(ways, "route", fault, details)
    if plan.route is None:
        return Stage("route", "passes", "no route takes it: 404, unless a rule answers or rewrites the path", details)
    return Stage("route", "passes", described(plan.route), details)


def own(ways: Ways) -> Stage | None:
    """The edge's own path, where challenges are handed in; other requests need not know of it."""
    challenger = ways.snapshot.challenger
    path = challenger.serves(ways.request.target)
    if ways.outcome is not None or path is None or (ways.plan.fault is not None and ways.plan.fault.reason != NO_ROUTE_REASON):
        return None
    says = "this path is the edge's own (challenge.path): no rule is asked, and no upstream"
    if path == challenger.script:
        answer_own(ways, 200, b"text/javascript; charset=utf-8", Outcome(says, "own", 200))
    else:
        says += "; refused unless what is handed in is right, or there is a clearance"
        answer_own(ways, 403, b"application/json", Outcome(says, "own", 403))
    return Stage("own", "answers", says)


def described(taken: Route) -> str:
    """A route, and what it means."""
    dialect = f", dialect {taken.dialect}" if taken.dialect is not None else ""
    return f"{taken.name}: upstream {taken.upstream}{dialect}"


def candidates(ways: Ways, target: bytes, taken: Route | None) -> list[Named]:
    """Each route, and why it was taken or not."""
    authority = _authority(ways)
    rows = []
    for each in ways.snapshot.routes[:_MOST]:
        if each is taken:
            why = "taken: the most specific host, then the longest path"
        elif each not in authority.routes:
            why = f"another host ({each.host})"
        elif find_route(_only(authority, each), target) is None:
            why = "another path"
        else:
            why = "matches, but is less specific"
        rows.append(Named(each.name, why))
    more = len(ways.snapshot.routes) - _MOST
    return [*rows, Named("…", f"{more} more routes")] if more > 0 else rows


def _only(authority: Authority, each: Route) -> Authority:
    return Authority(authority.raw, authority.host, authority.port, is_ip=authority.is_ip, routes=(each,))


def _authority(ways: Ways) -> Authority:
    authority = ways.snapshot.router.authority(ways.request.authority)
    assert authority is not None, "the stage of the host refuses it"
    return authority


def _fault(ways: Ways, reason: str) -> Fault | None:
    fault = ways.plan.fault
    return fault if fault is not None and fault.reason == reason else None


def _refused(ways: Ways, name: str, fault: Fault, details: list[Named] | None = None) -> Stage:
    says = f"{fault.status}: {fault.message}"
    answer_fault(ways, fault, Outcome(f"the edge answers {says}", name, fault.status), rules=False)
    return Stage(name, "answers", says, details or [])
