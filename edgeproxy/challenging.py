# The step of the pipeline that shows challenges and takes their solutions; what is right is policy/challenge.py's business.
"""`passes` and `challenge` serve rules and policies; `Desk` answers at the edge's own path, before any rule is asked.

Nothing here takes a request down: when something of ours fails, the request goes on as if there were no challenge, and that is
counted.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from edgeproxy.chat import dialects
from edgeproxy.faults import client_fault, edge_fault
from edgeproxy.plan import NO_ROUTE_REASON
from edgeproxy.policy.challenge import EARLY, LEVELS, SOLVED, WAITED, Challenger, Holder, Passed, holder
from edgeproxy.policy.challenge_page import FIELDS, PAGE, SCRIPT, SCRIPTED, asks_first, is_navigation, local, page
from edgeproxy.preview import hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.plan import Plan

_log = logging.getLogger("edgeproxy")
MAX_FORM: Final = 8 * 1024  # bytes of what is handed in
_MITIGATED: Final = (b"edge-mitigated", b"challenge")
_NO_STORE: Final = (b"cache-control", b"no-store")
_JSON: Final = (b"content-type", b"application/json")
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")
_REASON: Final = "rule_challenge"
_REPLAYED: Final = "replayed"
_SCRIPT_FIELDS: Final = (
    (b"content-type", b"text/javascript; charset=utf-8"),
    (b"cache-control", b"public, max-age=3600"),
    (b"x-content-type-options", b"nosniff"),
)


class Client:
    """Who a request comes from, as challenges are bound to it.

    Attributes:
        ja4: "" when it is not known, or is that of a proxy in between.
    """

    __slots__ = ("ja4", "whom")

    def __init__(self, exchange: Exchange) -> None:
        peer, plan = exchange.request.peer, exchange.plan
        prints = None if peer.trusted else peer.prints
        self.ja4: str = prints.ja4n if prints is not None else ""
        self.whom: Holder = holder(plan.client, self.ja4, plan.host)


# -- rules -----------------------------------------------------------------------------------------------------------


def passes(exchange: Exchange, action: str) -> bool:
    """Whether the client has passed such a challenge; or asks whether it may ask (a preflight), which none can."""
    if asks_first(exchange.request):
        return True
    try:
        level = _level(exchange)
        if isinstance(level, str):
            exchange.gateway.stats.challenge("refused", level)
            return False
        if level < LEVELS[action]:
            return False
    except Exception as error:  # see the module
        _failed(exchange, error)
    exchange.gateway.stats.challenge("passed")
    return True


def challenge(exchange: Exchange, action: str) -> bool:
    """Answer a request with a challenge: a page, or JSON for a script. False: that failed, and the request goes on."""
    try:
        _serve(exchange, action)
    except Exception as error:  # see the module
        if exchange.sink is None or exchange.status:
            raise  # the answer had begun: this is not about challenges
        _failed(exchange, error)
        return False
    return True


def _serve(exchange: Exchange, action: str) -> None:
    request, challenger, client = exchange.request, exchange.plan.snapshot.challenger, Client(exchange)
    score = exchange.plan.facts(request, exchange.ray).cf_bot_management_score or 0
    puzzle = challenger.puzzle(client.whom, score, time.time(), LEVELS[action])
    shown = puzzle.shown(challenger.path)
    _unruled(exchange)
    if is_navigation(request, exchange.plan.route):
        content = _page(exchange, shown, puzzle.wait, press=action == "challenge", target=request.target)
        fault = edge_fault(PAGE, _REASON, "")
        fault.fields = [_MITIGATED, *FIELDS]
        exchange.gateway.stats.challenge("page")
        exchange.gateway.refuse(exchange, fault, _HTML[1], content)
    else:
        exchange.gateway.stats.challenge("json")
        message = f"This request has to pass a challenge first: browsers load {challenger.script}, which does it."
        _refuse_json(exchange, SCRIPTED, _REASON, message, shown)


def _level(exchange: Exchange) -> int | str:
    request, client = exchange.request, Client(exchange)
    found = exchange.plan.snapshot.challenger.level
    return found(request.headers, client.whom, client.ja4, time.time(), upgrade=request.upgrade)


def _page(exchange: Exchange, shown: dict[str, str | int], wait: int, *, press: bool, target: bytes, left: int = 0) -> bytes:
    request = exchange.request
    return page(
        shown,
        request.header(b"accept-language"),
        host=exchange.plan.host,
        target=target.decode("latin-1"),
        ray=exchange.ray.decode("ascii"),
        wait=wait,
        press=press,
        sent=request.method not in {b"GET", b"HEAD"},
        left=left,
    )


def _refuse_json(exchange: Exchange, status: int, reason: str, message: str, shown: dict[str, str | int]) -> None:
    """An error in the route's own dialect, with the challenge beside it."""
    route, ray = exchange.plan.route, exchange.ray.decode("ascii")
    fault = edge_fault(status, reason, message)
    fault.fields = [_MITIGATED]
    if status == SCRIPTED:
        # RFC 9110 §15.5.2: a 401 names a scheme. It is none that a browser asks a password for.
        fault.fields.append((b"www-authenticate", b'Edge-Challenge path="%b"' % str(shown["path"]).encode("ascii")))
    if route is not None and route.dialect is not None:
        error = dialects.error_body(route.dialect, fault, ray)
    else:
        error = msgspec.json.encode({"error": {"status": status, "code": reason, "message": message, "ray": ray}})
    content = b'%b,"edge_challenge":%b}' % (error[:-1], msgspec.json.encode(shown))
    exchange.gateway.refuse(exchange, fault, _JSON[1], content)


def _unruled(exchange: Exchange) -> None:
    """Rules about replies do not see ours: another policy for scripts would be a challenge that nobody passes."""
    if exchange.plan.answering is not None:
        exchange.plan = exchange.plan.copy()
        exchange.plan.answering = None


def _failed(exchange: Exchange, error: Exception) -> None:
    stats = exchange.gateway.stats
    if ("failed", "internal") not in stats.challenges:
        _log.warning("challenges fail, and such requests go on (said once): %s", type(error).__name__)
    stats.challenge("failed", "internal")


# -- the edge's own path ---------------------------------------------------------------------------------------------


def is_ours(plan: Plan, request: Request) -> bool:
    """Whether a request is for the edge's own path; then the plan has who answers it."""
    challenger = plan.snapshot.challenger
    path = challenger.serves(request.target)
    if path is None or plan.location is not None or (plan.fault is not None and plan.fault.reason != NO_ROUTE_REASON):
        return False
    plan.ruling = Desk(challenger, script=path == challenger.script)
    plan.direct = False
    return True


class Desk:
    """Answers requests for the edge's own path.

    Attributes:
        decision: none: no rule was asked.
    """

    __slots__ = ("_challenger", "_script", "decision")

    def __init__(self, challenger: Challenger, *, script: bool) -> None:
        self._challenger = challenger
        self._script = script
        self.decision = None

    def apply(self, exchange: Exchange) -> bool:
        """Answers; always True, see `Ruling.apply`."""
        gateway, method = exchange.gateway, exchange.request.method
        if method == b"POST" and not self._script:
            if not gateway.oversized(exchange, MAX_FORM):
                hold(exchange, MAX_FORM, partial(self._handed_in, exchange))
        elif method not in {b"GET", b"HEAD"}:
            fault = client_fault(405, "method", "This method is not available here.")
            fault.fields = [(b"allow", b"GET, HEAD" if self._script else b"GET, HEAD, POST")]
            gateway.fail(exchange, fault)
        elif self._script:
            gateway.answer(exchange, 200, list(_SCRIPT_FIELDS), SCRIPT)
        else:
            self._do(exchange, self._asked)
        return True

    def _do(self, exchange: Exchange, step: Callable[[Exchange], None]) -> None:
        """Nobody above would answer: a failure of ours is one."""
        try:
            step(exchange)
        except Exception as error:
            if exchange.sink is None or exchange.status:
                raise
            _failed(exchange, error)
            exchange.fail(edge_fault(500, "internal", f"The edge failed ({type(error).__name__})."))

    def _asked(self, exchange: Exchange) -> None:
        """Has this client a clearance? If not, here is a puzzle."""
        level = _level(exchange)
        if isinstance(level, int) and level:
            exchange.gateway.answer(exchange, 204, [_NO_STORE], b"")
            return
        self._again(exchange, "challenge", "There is no clearance.")

    def _handed_in(self, exchange: Exchange, content: bytes, truncated: bool) -> None:
        form = {} if truncated else _form(content)
        self._do(exchange, partial(self._judge, form))

    def _judge(self, form: dict[str, str], exchange: Exchange) -> None:
        """What was handed in."""
        client, now = Client(exchange), time.time()
        token, solution = form.get("token", "").encode(), form.get("solution")
        with_script = solution is not None
        found = self._challenger.check(token, solution.encode() if solution is not None else None, client.whom, now)
        if isinstance(found, Passed):
            self._once(exchange, found, partial(self._passed, exchange, client, found, form))
            return
        self._tell(exchange, "refused", found, {})
        if with_script:
            self._again(exchange, found, "The solution is not accepted; here is another puzzle.")
            return
        left = self._challenger.until(token, now) if found == EARLY else 0
        self._page_again(exchange, client, form, left, now)

    def _once(self, exchange: Exchange, found: Passed, passed: partial[None]) -> None:
        """Each puzzle is good for one clearance: asks the store; where that is away, by its failure mode."""
        gateway = exchange.gateway
        ttl = max(int((found.expires - time.time()) * 1e6), 1)

        def put(new: bool) -> None:
            if new:
                passed()
            else:
                gateway.store.get(found.once, there)

        def there(value: bytes | None) -> None:
            if value is not None:
                replayed()
                return
            mode = exchange.plan.snapshot.config.on_store_failure
            gateway.stats.challenge("unasked", mode)
            if mode == "closed":
                if exchange.sink is not None:
                    fault = edge_fault(503, "store_down", "The check cannot be completed now; try again shortly.")
                    gateway.fail(exchange, fault)
            elif mode == "open":
                passed()
            else:
                gateway.spent.put(found.once, b"1", ttl, once=True, done=lambda new: passed() if new else replayed())

        def replayed() -> None:
            self._tell(exchange, "refused", _REPLAYED, {})
            if exchange.sink is not None:
                self._again(exchange, _REPLAYED, "This solution was used before; here is another puzzle.")

        gateway.store.put(found.once, b"1", ttl, once=True, done=put)

    def _passed(self, exchange: Exchange, client: Client, found: Passed, form: dict[str, str]) -> None:
        numbers = {"bits": found.bits, "score": found.score, "seconds": found.seconds}
        self._tell(exchange, "solved" if found.level == SOLVED else "waited", "", numbers)
        if exchange.sink is None:
            return  # the client left while the store was asked
        cookie = (b"set-cookie", self._challenger.clear(found.level, client.whom, client.ja4, time.time()))
        if found.level == WAITED:
            fields = [(b"location", local(form.get("to", "/")).encode("ascii")), cookie, _NO_STORE]
            exchange.gateway.answer(exchange, 303, fields, b"")
        else:
            exchange.gateway.answer(exchange, 200, [_JSON, cookie, _NO_STORE], b'{"passed":true}')

    def _again(self, exchange: Exchange, reason: str, message: str) -> None:
        """Another puzzle, as JSON."""
        puzzle = self._challenger.puzzle(Client(exchange).whom, self._score(exchange), time.time())
        _refuse_json(exchange, 403, reason, message, puzzle.shown(self._challenger.path))

    def _page_again(self, exchange: Exchange, client: Client, form: dict[str, str], left: int, now: float) -> None:
        """Another page, for somebody without a script; whoever came too early keeps the token."""
        puzzle = self._challenger.puzzle(client.whom, self._score(exchange), now)
        shown = puzzle.shown(self._challenger.path)
        if left:
            shown["token"] = form["token"]
        fault = edge_fault(PAGE, _REASON, "")
        fault.fields = [_MITIGATED, *FIELDS]
        target = local(form.get("to", "/")).encode("ascii")
        content = _page(exchange, shown, puzzle.wait, press=False, target=target, left=left)
        exchange.gateway.refuse(exchange, fault, _HTML[1], content)

    def _score(self, exchange: Exchange) -> int:
        return exchange.plan.facts(exchange.request, exchange.ray).cf_bot_management_score or 0

    def _tell(self, exchange: Exchange, outcome: str, reason: str, numbers: dict[str, int]) -> None:
        gateway = exchange.gateway
        gateway.stats.challenge(outcome, reason)
        if gateway.events is not None:
            gateway.events.challenge(exchange, outcome, reason, numbers)


def _form(content: bytes) -> dict[str, str]:
    """The fields of application/x-www-form-urlencoded; none of what is none."""
    try:
        return dict(parse_qsl(content.decode("ascii"), max_num_fields=8))
    except ValueError:
        return {}
