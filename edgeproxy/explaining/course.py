# How a request goes through the pipeline on paper: one list of stages, each a plain function that returns data. A new
# stage of the gateway gets a function of its own and a place in `STAGES`.
"""`explain`: what each stage does with a request, and what becomes of it.

Everything is asked of the parts that serve (`Plan`, `Walk`, compiled rules, …): no stage decides anything a second time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from edgeproxy.explaining import admitted, after, before, ruled, scored
from edgeproxy.explaining.answer import Explanation, Named, Outcome, Stage
from edgeproxy.explaining.paper import PaperSnapshot
from edgeproxy.explaining.question import Question, understand
from edgeproxy.explaining.trace import Veil, clean
from edgeproxy.explaining.ways import Ways
from edgeproxy.observe.metrics import RouteStats
from edgeproxy.plan import NO_ROUTE, Plan

StageOf = Callable[[Ways], Stage | None]
"""What a stage says of a request; None: the request does not come there."""

STAGES: Final[tuple[StageOf, ...]] = (
    before.head,
    before.host,
    before.path,
    before.https,
    before.client,
    before.own,
    before.route,
    ruled.rules,
    after.routed_again,
    scored.bots,
    admitted.key,
    admitted.limits,
    after.body,
    after.upstream,
    after.reply,
)


def explain(
    snapshot: PaperSnapshot, question: Question, *, show_secrets: bool = False, clock: Callable[[], float] = time.time,
    until: float = math.inf,
) -> Explanation:  # fmt: skip
    """What becomes of a request.

    Args:
        show_secrets: credentials are shown, too.
        clock: gives seconds since the epoch.
        until: monotonic seconds when the answer comes too late.

    Raises: Unclear when the question is no request; Busy when it is too late.
    """
    ways = begin(snapshot, question, Veil(show_secrets), clock, until)
    stages = [stage for stage_of in STAGES if (stage := stage_of(ways)) is not None]
    return Explanation(_asked(ways), stages, ways.outcome or Outcome("nothing decides", ""))


def begin(
    snapshot: PaperSnapshot, question: Question, veil: Veil, clock: Callable[[], float] = time.time, until: float = math.inf
) -> Ways:
    """A request before the first stage. Raises: Unclear."""
    understood = understand(question, snapshot.trusted, snapshot.client)
    plan = Plan(snapshot, understood.request, RouteStats(NO_ROUTE))
    return Ways(snapshot, question, understood.request, understood.fault, veil, clock, plan, until=until)


def _asked(ways: Ways) -> list[Named]:
    """The request as it was understood."""
    request, secure = ways.request, ways.request.peer.secure
    url = f"{'https' if secure else 'http'}://{clean(request.authority)}{clean(request.target)}"
    version = ("HTTP/1.1", "HTTP/2", "HTTP/3")[request.protocol]
    rows = [Named("request", f"{clean(request.method)} {url}")]
    rows.append(Named("by", f"{version} from {request.peer.address or 'a Unix socket'}"))
    rows += [Named(name.decode("ascii"), ways.veil.header(name, value)) for name, value in request.headers]
    content = ways.question.body
    if content is not None:
        rows.append(Named("body", f"{len(content)} bytes"))
    elif request.length:
        rows.append(Named("body", f"{request.length} bytes, not given here"))
    return rows
