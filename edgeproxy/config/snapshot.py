# A configuration, compiled: everything the hot path looks at is prepared here, and nothing in it changes afterwards.
"""`Snapshot`: what one generation of the configuration means for the data plane."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import ssl
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.config.keys_shared import usable
from edgeproxy.geo import Geo
from edgeproxy.listen.contexts import TICKET_KEYS, Contexts, client_context
from edgeproxy.policy import credentials
from edgeproxy.policy.altsvc import compile_alt_svc
from edgeproxy.policy.challenge import Challenger
from edgeproxy.policy.hsts import compile_hsts
from edgeproxy.policy.keys import KeyRing
from edgeproxy.policy.limits import compile_budgets, compile_limits
from edgeproxy.policy.routing import Router
from edgeproxy.quic.certificates import QuicCertificates
from edgeproxy.rules.facts import Context
from edgeproxy.rules.model import challenges
from edgeproxy.rules.ruleset import compile_rules
from edgeproxy.scoring import BotSettings

if TYPE_CHECKING:
    from edgeproxy.config.keys import KeyBook, RouteKeys, UpstreamKey
    from edgeproxy.config.model import Client, Config, Retries, Target, Upstream, UpstreamTimeouts
    from edgeproxy.config.model import Route as RouteModel
    from edgeproxy.observe.metrics import RouteStats
    from edgeproxy.upstream.pool import Pool

_PRINTS = "cf.bot_management."  # what the fields begin with
_log = logging.getLogger("edgeproxy")


class TargetSettings:
    """One address of an upstream.

    Attributes:
        key: equal when a connection to one is as good as a connection to the other.
        label: `host:port` for logs and metrics; `quoted` is the same as JSON.
        authority: the Host field of its own name.
        context: for https; None for http.
    """

    __slots__ = ("authority", "ca", "context", "host", "key", "label", "port", "quoted", "tls")

    def __init__(self, target: Target, context: ssl.SSLContext | None, ca: str) -> None:
        self.host = target.host
        self.port = target.port
        self.tls = target.tls
        self.ca = ca
        self.context = context
        self.key = (self.host, self.port, self.tls, ca)
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        self.label = f"{bracketed}:{self.port}"
        self.quoted = msgspec.json.encode(self.label)
        default = 443 if self.tls else 80
        self.authority = (bracketed if self.port == default else self.label).encode("ascii")


class UpstreamSettings:
    """One upstream; times in seconds.

    Attributes:
        credential: the field line of its own key, with its end; b"" when it has none.
        max_low: connections in use below which an exchange of low priority may begin.
    """

    __slots__ = (
        "balance", "credential", "keepalive", "max_connections", "max_low", "max_pending", "preserve_host", "retries", "targets",
        "timeouts",
    )  # fmt: skip

    def __init__(self, upstream: Upstream, contexts: dict[str, ssl.SSLContext]) -> None:
        self.balance = upstream.balance
        self.preserve_host = upstream.host == "preserve"
        self.keepalive = upstream.keepalive
        self.max_connections = upstream.max_connections
        self.max_low = upstream.max_connections - upstream.max_connections * upstream.reserved // 100
        self.max_pending = upstream.max_pending
        self.timeouts: UpstreamTimeouts = upstream.timeouts
        self.retries: Retries = upstream.retries
        self.credential = _credential(upstream.key)
        targets = []
        for target in upstream.targets:
            context = None
            if target.tls:
                if upstream.ca not in contexts:
                    contexts[upstream.ca] = client_context(upstream.ca)
                context = contexts[upstream.ca]
            targets.append(TargetSettings(target, context, upstream.ca))
        self.targets = tuple(targets)


def _credential(key: UpstreamKey | None) -> bytes:
    if key is None or key.secret is None:
        return b""
    return b"%b: %b\r\n" % (key.header.encode("ascii"), credentials.line(key.header, key.secret))


class Route:
    """One route. `stats`, `pool` and `pools` are bound when a worker switches to the snapshot.

    Attributes:
        name: host + path as configured; the label in metrics and logs.
        models: exact model names and prefixes (without the `*`) to upstream names; empty when bodies are not read.
        trailers: trailers are passed on.
        asks_usage: streams may be made to report their usage.
        keys: what it does with keys of the edge.
        swaps: clients' credentials end here, since an upstream behind it has its own.
    """

    __slots__ = (
        "asks_usage", "dialect", "host", "keys", "max_body", "model_prefixes", "models", "name", "pool", "pools", "prefix",
        "preview", "stats", "swaps", "trailers", "upstream",
    )  # fmt: skip

    def __init__(self, route: RouteModel, client: Client, own: frozenset[str] = frozenset(), *, keyed: bool = False) -> None:
        """Compile.

        Args:
            own: names of upstreams that have a key of their own.
            keyed: there are keys of the edge.
        """
        self.host = route.host
        self.prefix = route.path.encode("utf-8")
        self.name = route.host + route.path
        self.upstream = route.upstream
        self.dialect = route.dialect
        self.max_body = client.max_body if route.max_body is None else route.max_body
        self.preview = route.preview
        self.models = {name: upstream for name, upstream in route.models.items() if not name.endswith("*")}
        self.model_prefixes = tuple(
            sorted(
                ((name[:-1], upstream) for name, upstream in route.models.items() if name.endswith("*")),
                key=lambda item: -len(item[0]),
            )
        )
        self.trailers = route.trailers == "pass"
        self.keys: RouteKeys = route.keys or ("required" if keyed and route.dialect is not None else "off")
        self.swaps = bool(own & {route.upstream, *route.models.values()})
        self.asks_usage = route.stream_usage == "ask"
        self.stats: RouteStats
        self.pool: Pool
        self.pools: dict[str, Pool]

    @property
    def reads_body(self) -> bool:
        """The body must be looked at before an upstream is chosen."""
        return bool(self.models or self.model_prefixes)

    def pool_for(self, model: str | None) -> Pool | None:
        """The upstream for a model: exact name, longest prefix, then the route's own. None: a reload took it away."""
        if model is not None:
            if model in self.models:
                return self.pools.get(self.models[model])
            for prefix, upstream in self.model_prefixes:
                if model.startswith(prefix):
                    return self.pools.get(upstream)
        return self.pool


class Snapshot:
    """One generation of the configuration. Building it reads certificates and takes milliseconds: never on a loop.

    Attributes:
        prints: somebody asks for fingerprints of clients; nothing of them is kept or computed otherwise.
    """

    __slots__ = (
        "alt_svc", "bots", "budgets", "challenger", "client", "config", "context", "contexts", "geo", "hsts", "instance", "keys",
        "limits", "prints", "quic_certificates", "redirect_port", "router", "routes", "rules", "trusted", "upstreams",
    )  # fmt: skip

    def __init__(self, config: Config, ticket_keys: bytes, instance: str | None = None) -> None:
        """Compile.

        Args:
            ticket_keys: 80 random bytes, the same in all workers of a generation; b"" for keys of this process alone.
            instance: this edge's CDN-Loop id; a random one when None.

        Raises: OSError, ssl.SSLError or ValueError when a file cannot be used.
        """
        protocols = tuple(name for name in ("h2", "h1") if name in config.listen.protocols)
        if "h2" in protocols and not _has_ngh2():
            _log.warning("h2 is not offered: the package ngh2 has no wheel for this platform.")
            protocols = ("h1",)
        self.config = config
        self.client: Client = config.client
        self.trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = config.trusted_proxies
        self.hsts = compile_hsts(config.hsts)
        self.alt_svc = compile_alt_svc(config.listen)
        self.redirect_port = config.listen.redirect_port
        self.contexts = Contexts(config.tls, protocols, ticket_keys or secrets.token_bytes(TICKET_KEYS))
        self.quic_certificates = QuicCertificates(config.tls) if config.listen.quic else None
        contexts: dict[str, ssl.SSLContext] = {}
        self.upstreams = {name: UpstreamSettings(each, contexts) for name, each in config.upstreams.items()}
        own = frozenset(name for name, each in self.upstreams.items() if each.credential)
        self.keys = None if config.keys is None or config.keys.book is None else _ring(config, config.keys.book)
        self.routes = tuple(Route(route, config.client, own, keyed=self.keys is not None) for route in config.routes)
        self.router = Router(self.routes)
        self.geo = Geo(config.geo.files) if config.geo.files else None
        self.rules = compile_rules(config.rules.book)  # None: there are none
        self.context = Context(self.geo, self.router.dialect)
        self.challenger = Challenger(config.challenge)
        self.limits = compile_limits(config.limits, config.rules.book)
        self.budgets = compile_budgets(() if self.keys is None else tuple(self.keys.keys.values()))
        self.prints = _wants_prints(config)
        self.bots = BotSettings(config, self.challenger) if config.bots.enabled else None
        self.instance = f"cdn-loop: edgeproxy;id={instance or secrets.token_hex(6)}".encode("ascii")

    def with_keys(self, book: KeyBook) -> Snapshot:
        """The same with other keys of the edge; everything else is shared. With thousands of keys it takes
        milliseconds: not on a loop."""
        made = Snapshot.__new__(Snapshot)
        for name in Snapshot.__slots__:
            setattr(made, name, getattr(self, name))
        made.keys = _ring(self.config, book)
        made.budgets = compile_budgets(tuple(made.keys.keys.values()))
        made.prints = self.prints or any(key.ja4 for key in book.keys)
        return made


def _ring(config: Config, book: KeyBook) -> KeyRing:
    return KeyRing(usable(book, {limit.name for limit in config.limits}))


def _wants_prints(config: Config) -> bool:
    """Whether bots are scored, a key is bound to prints, or a rule or limit names one (in a description, too); and who
    challenges, since clearances are bound to them."""
    book = config.keys.book if config.keys is not None else None
    if config.bots.enabled:
        return True
    if (book is not None and any(key.ja4 for key in book.keys)) or challenges(config.rules.book):
        return True
    return any(_PRINTS in each.model_dump_json() for each in (*config.rules.book.rules, *config.limits))


def _has_ngh2() -> bool:
    try:
        import ngh2  # noqa: F401  only whether it can be imported
    except ImportError:
        return False
    return True
