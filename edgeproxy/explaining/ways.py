# What the stages of an explanation know of each other. No stage is here.
"""`Ways`: where a request stands on its way, changed by the stages in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.explaining.answer import Outcome
from edgeproxy.explaining.question import Busy

if TYPE_CHECKING:
    from edgeproxy.explaining.carried import Clearance
    from edgeproxy.explaining.paper import PaperSnapshot
    from edgeproxy.explaining.question import Question
    from edgeproxy.explaining.trace import Veil
    from edgeproxy.faults import Fault
    from edgeproxy.message import Reply, Request
    from edgeproxy.plan import Plan
    from edgeproxy.rules.facts import Facts
    from edgeproxy.rules.walk import Decision

RAY = b"0" * 16  # each request has another one


@dataclass(slots=True)
class Ways:
    """See the module.

    Attributes:
        snapshot, question, request, veil, clock: given.
        flaw: why a listener refuses the request, before there is a plan.
        plan: of the request; that of the rules when they have decided.
        facts: of the request as it would be forwarded; None while no rules were asked.
        decision: of the request rules.
        body_for: why the body is read, empty while it is not.
        body_unknown: something depends on a body that was not given.
        upstream: that gets the request, once it is known.
        slowed: limits that hold because of a low bot score.
        outcome: once something has decided.
        reply: of the edge's own.
        reply_rules: response rules are asked about the reply.
        until: monotonic seconds when somebody stops waiting for the answer.
        clearance: that the request carries, once somebody has asked.
    """

    snapshot: PaperSnapshot
    question: Question
    request: Request
    flaw: Fault | None
    veil: Veil
    clock: Callable[[], float]
    plan: Plan
    facts: Facts | None = None
    decision: Decision | None = None
    body_for: list[str] = field(default_factory=list)
    body_unknown: bool = False
    upstream: str | None = None
    slowed: tuple[str, ...] = ()
    outcome: Outcome | None = None
    reply: Reply | None = None
    reply_rules: bool = True
    until: float = math.inf
    clearance: Clearance | None = None

    def hurry(self) -> None:
        """Called before each rule. Raises: Busy when the time is over."""
        if monotonic() > self.until:
            raise Busy("this takes too long: ask again, what was compiled is kept; or ask 'edgeproxy explain'")
