# A snapshot on paper: all that decides, without what serves (certificates, connections). Made in milliseconds, from a
# configuration that was checked.
"""`PaperSnapshot`: what explanations are made by. A process that has no private keys can have one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.config.keys_shared import usable
from edgeproxy.config.snapshot import Route, Snapshot, UpstreamSettings
from edgeproxy.explaining.question import Unclear
from edgeproxy.explaining.trace import Sheet
from edgeproxy.geo import Geo
from edgeproxy.observe.metrics import RouteStats
from edgeproxy.policy.altsvc import compile_alt_svc
from edgeproxy.policy.challenge import Challenger
from edgeproxy.policy.hsts import compile_hsts
from edgeproxy.policy.keys import KeyRing
from edgeproxy.policy.limits import compile_budgets, compile_limits
from edgeproxy.policy.routing import Router
from edgeproxy.rules.compiler import Check, compile_test
from edgeproxy.rules.facts import Context
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.may import may_hold
from edgeproxy.rules.ruleset import compile_rules
from edgeproxy.scoring import BotSettings

if TYPE_CHECKING:
    from edgeproxy.config.model import Config
    from edgeproxy.explaining.trace import Veil
    from edgeproxy.rules.rule import Rule

INSTANCE = b"cdn-loop: edgeproxy;id=this-edge"  # each start of an edge has another id
# Attributes of a snapshot that a paper one has not.
ABSENT = frozenset({"contexts", "quic_certificates"})


class _Unwatched:
    """In the place of a Watch: what clients did is not known here."""

    __slots__ = ()

    def moved(self, _marks: object, _now: float) -> float:
        return 0.0

    def pull(self, _marks: object, _session: object, _score: object, _now: float) -> float:
        return 0.0

    def signal(self, _ja4: str, _now: float) -> None:
        return None


class PaperSnapshot(Snapshot):
    """See the module. `Route.pool_for` of its routes gives the name of an upstream instead of a pool."""

    __slots__ = ("_may", "_sheets")

    def __init__(self, config: Config) -> None:
        """Raises: Unclear when a file of `geo` is gone since the configuration was checked."""
        self.config = config
        self.client = config.client
        self.trusted = config.trusted_proxies
        self.hsts = compile_hsts(config.hsts)
        self.alt_svc = compile_alt_svc(config.listen)
        self.redirect_port = config.listen.redirect_port
        # Nobody connects: an empty context stands for each CA file.
        contexts = {each.ca: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for each in config.upstreams.values()}
        self.upstreams = {name: UpstreamSettings(each, contexts) for name, each in config.upstreams.items()}
        own = frozenset(name for name, each in self.upstreams.items() if each.credential)
        book = None if config.keys is None or config.keys.book is None else config.keys.book
        self.keys = None if book is None else KeyRing(usable(book, {limit.name for limit in config.limits}))
        self.routes = tuple(Route(route, config.client, own, keyed=self.keys is not None) for route in config.routes)
        names: Any = {name: name for name in config.upstreams}
        for route in self.routes:
            route.stats = RouteStats(route.name)
            route.pools, route.pool = names, names[route.upstream]
        self.router = Router(self.routes)
        self.geo = _geo(config)
        self.rules = compile_rules(config.rules.book)
        self.context = Context(self.geo, self.router.dialect)
        self.challenger = Challenger(config.challenge)
        self.limits = compile_limits(config.limits, config.rules.book)
        self.budgets = compile_budgets(() if self.keys is None else tuple(self.keys.keys.values()))
        self.prints = False  # of nobody who connects
        self.bots = BotSettings(config, self.challenger) if config.bots.enabled else None
        if self.bots is not None:
            self.bots.watch = cast("Any", _Unwatched())
        self.instance = INSTANCE
        self._sheets: dict[tuple[str, bool], Sheet] = {}
        self._may: dict[str, Check] = {}

    def sheet(self, rule: Rule, veil: Veil) -> Sheet:
        """The test of a rule, part by part; made when somebody first asks."""
        key = (rule.id, veil.show)
        sheet = self._sheets.get(key)
        if sheet is None:
            sheet = self._sheets[key] = Sheet(rule.test(), rule.lists, veil, rule.check)
        return sheet

    def may(self, rule: Rule) -> Check:
        """Whether a rule can hold, as far as the head says; kept, too."""
        check = self._may.get(rule.id)
        if check is None:
            check = self._may[rule.id] = compile_test(may_hold(rule.test(), lambda name: FIELDS[name].stable), rule.lists)
        return check


def _geo(config: Config) -> Geo | None:
    try:
        return Geo(config.geo.files) if config.geo.files else None
    except ValueError as error:
        raise Unclear(f"nothing can be explained: {error}") from None
