# Replies of the edge's own, as far as an explanation needs them: status and field lines.
"""What the gateway would send itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.explaining.answer import Outcome
from edgeproxy.explaining.ways import RAY
from edgeproxy.message import Headers, Reply
from edgeproxy.policy.challenge_page import PAGE, SCRIPTED, is_navigation
from edgeproxy.policy.pages import error_page

if TYPE_CHECKING:
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.faults import Fault

_NO_STORE = (b"cache-control", b"no-store")


def answer_fault(ways: Ways, fault: Fault, outcome: Outcome, *, rules: bool = True) -> None:
    """The request ends in a fault.

    Args:
        rules: response rules are asked about the answer.
    """
    route = ways.plan.route
    if route is not None and route.dialect is not None:
        content_type = b"application/json"
    else:
        content_type, _ = error_page(fault, RAY.decode("ascii"), ways.request.header(b"accept"))
    headers: Headers = [(b"content-type", content_type), _NO_STORE]
    if fault.status == 503:
        headers.append((b"retry-after", b"1"))
    _answer(ways, Reply(fault.status, headers, None), outcome, rules)


def answer_content(ways: Ways, status: int, content_type: bytes, outcome: Outcome) -> None:
    """A rule's own answer."""
    _answer(ways, Reply(status, [(b"content-type", content_type), _NO_STORE], None), outcome, True)


def answer_challenge(ways: Ways, says: str, stage: str, **more: Any) -> int:
    """A challenge, for people or for scripts; rules about replies do not see it. Returns: its status.

    Args:
        more: of the outcome.
    """
    looked_at = is_navigation(ways.request, ways.plan.route)
    status, kind = (PAGE, b"text/html; charset=utf-8") if looked_at else (SCRIPTED, b"application/json")
    reply = Reply(status, [(b"content-type", kind), _NO_STORE, (b"edge-mitigated", b"challenge")], None)
    _answer(ways, reply, Outcome(f"the edge answers {status}: {says}", stage, status, **more), False)
    return status


def answer_own(ways: Ways, status: int, content_type: bytes, outcome: Outcome) -> None:
    """The edge itself was asked."""
    _answer(ways, Reply(status, [(b"content-type", content_type)], None), outcome, False)


def answer_redirect(ways: Ways, status: int, location: bytes, outcome: Outcome) -> None:
    """The client is sent elsewhere: by the plain port (308), or by a rule."""
    plain = ways.plan.location is not None
    headers = [(b"location", location)] if plain else [(b"location", location), _NO_STORE]
    _answer(ways, Reply(status, headers, 0), outcome, not plain)


def _answer(ways: Ways, reply: Reply, outcome: Outcome, rules: bool) -> None:
    ways.reply = reply
    ways.outcome = outcome
    ways.reply_rules = rules
