# Who sent a request: what stays the same for its head is found out once a plan; what is done about it is botting.py's.
"""`BotSettings` (one a snapshot) scores; `Scored` (one a plan) keeps the score of a head. What it is made of, bots/ knows."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from edgeproxy.bots.model import ModelError, load_once
from edgeproxy.bots.score import NOT_COMPUTED, Score, Scorer
from edgeproxy.config.bots import model_path
from edgeproxy.lookups.identifying import known
from edgeproxy.observe.access import score_piece, with_score
from edgeproxy.observe.bot_stats import BotStats
from edgeproxy.policy.bots import Policy
from edgeproxy.policy.challenge import SOLVED, Challenger, holder
from edgeproxy.policy.session import Sessions, shareable
from edgeproxy.rules.addresses import Ranges, client_code, parse_range
from edgeproxy.watching import Marks

if TYPE_CHECKING:
    from edgeproxy.bots.identity import Identity, Verified
    from edgeproxy.bots.model import Model
    from edgeproxy.bots.ranges import Published
    from edgeproxy.bots.signals import Signal
    from edgeproxy.config.bots import Bots
    from edgeproxy.config.model import Config
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Headers, Request
    from edgeproxy.watching import Watch

_HOLDS: Final = 1.0  # seconds for which what a client did is not looked up again
_KNOWN: Final = 60.0  # and for which a client's session is not read again
_OURS: Final = frozenset({401, 403})
_SIGNALS: Final = "edge.ja4."
_CLEARANCE: Final = b"edge_clearance"  # a part of the names of cookies that clearances are in
_log = logging.getLogger("edgeproxy")


class BotSettings:
    """What scoring needs, compiled for a snapshot.

    Attributes:
        policy: where a route has none of its own; policies: by route's name.
        known: what identities are made of.
        challenger: who knows clearances; sessions: who makes session cookies, None where nobody does.
        signals: a rule or a limit reads those of fingerprints.
        stats: where failures are counted; watch: who remembers what clients did; identity: who knows declared bots; all
            three a worker's, bound when it switches to the snapshot.
    """

    __slots__ = (
        "_proxies", "challenger", "identity", "known", "policies", "policy", "scorer", "sessions", "signals", "stats", "watch",
    )  # fmt: skip

    def __init__(self, config: Config, challenger: Challenger) -> None:
        """Compile.

        Raises: ValueError (the operator's own model cannot be used).
        """
        self.stats = BotStats()
        self.watch: Watch | None = None
        self.identity: Identity | None = None
        self.known = known(config.bots.identity)
        self.scorer = Scorer(_model(config.bots), self.broken)
        self.challenger = challenger
        self.sessions = Sessions([each.reveal() for each in config.challenge.secrets]) if config.bots.session_cookie else None
        self.signals = any(_SIGNALS in each.model_dump_json() for each in (*config.rules.book.rules, *config.limits))
        ranges = (parse_range(str(network)) for network in config.bots.corporate_proxies)
        self._proxies = Ranges([found for found in ranges if not isinstance(found, str)])
        self.policy = Policy(config.bots)
        self.policies = {route.host + route.path: Policy(config.bots, route.bots) for route in config.routes}

    def publish(self, published: Published) -> None:
        """Other networks of bots: heads that are known are asked about again, on connections that are open, too."""
        if published is not self.known.published:
            self.known = self.known._replace(published=published)
            if self.identity is not None:
                self.identity = self.identity.with_published(published)

    def proxied(self, client: str) -> bool:
        """Whether a client's address is that of a proxy that opens TLS. To be asked once a plan."""
        return bool(self._proxies) and client_code(client) in self._proxies

    def broken(self, error: Exception) -> None:
        """Something raised: nothing was computed, and the request goes on."""
        if not self.stats.failures:
            _log.error("A bot score could not be computed (told once; see edgeproxy_bot_failures_total).", exc_info=error)
        self.stats.failures += 1


def _model(bots: Bots) -> Model | None:
    if bots.model == "off":
        return None
    own = model_path(bots)
    try:
        return load_once(own) if own is not None else load_once()
    except ModelError as error:
        if own is not None:
            raise ValueError(str(error)) from error
        _log.warning("Bots are scored by heuristics alone: %s; or set bots.model to off.", error)
        return None


class Client:
    """What is known of who sends heads with the same User-Agent and cookies to one host, over one connection.

    Attributes:
        session: by its cookie; None: it has none.
        marks: of its first head.
        moved: log-odds of what it did; passed: it has passed a challenge; until: when both are looked up again.
        static, score: of a head, and that with what the client did.
    """

    __slots__ = ("_made", "_settings", "_who", "marks", "moved", "passed", "score", "session", "static", "until")

    def __init__(self, settings: BotSettings, request: Request, client: str, who: int, *, proxied: bool = False) -> None:
        """Find out.

        Args:
            who: hash of what the client is told from others by: cookies may be kilobytes, and connections are many.
        """
        self._settings = settings
        self._who = who
        self._made = now = time.time()
        sessions = settings.sessions
        self.session = session = sessions.read(request.headers, now) if sessions is not None else None
        self.marks = Marks(request, client, session.id if session is not None else b"", hidden=proxied)
        self.moved = 0.0
        self.passed = False
        self.until = 0.0
        self.static: Score | None = None
        self.score: Score | None = None

    def sends(self, settings: BotSettings, who: int) -> bool:
        """Whether it sends a head, too. Sessions end, so that it is not asked for ever."""
        return self._who == who and self._settings is settings and time.time() - self._made < _KNOWN


class Scored:
    """The score of a plan's head.

    Attributes:
        client: textual address.
        found: who a declared bot is, once that was found out for its exchange alone (spending.py).
        settings: of its snapshot.
        proxied: it is that of a corporate proxy, whose handshake says nothing of who is behind it.
        signed: the request is signed: what is known of it is not known of the next one with the same head.
    """

    __slots__ = (
        "_by", "_carries", "_given", "_host", "_identity", "_line", "_marks", "_request", "_score", "_static", "_until", "_who",
        "client", "found", "proxied", "settings", "signed",
    )  # fmt: skip

    def __init__(self, settings: BotSettings, request: Request, client: str, host: str) -> None:
        """Nothing is computed yet."""
        self.settings = settings
        self._request = request
        self._static: Score | None = None
        self._identity: Identity | None = None  # by whom the head was identified
        self._marks: Marks | None = None
        self._score: Score | None = None
        self._until = 0.0
        self._who: Client | None = None
        self._host = host
        self._line: tuple[bytes, Score, bytes] | None = None
        self.client = client
        self.found: Verified | None = None
        self.proxied: bool = settings.proxied(client)
        self._given = self.signed = False
        agent = cookie = b""
        for name, value in request.headers:
            if name == b"cookie":
                cookie = cookie + b"; " + value if cookie else value
            elif name == b"user-agent":
                agent = agent or value
            elif name == b"signature-input":
                self.signed = True
        self._by = hash((agent, cookie, client, host))  # made with the process's secret: nobody can make another's
        self._carries = _CLEARANCE in cookie

    def sibling(self, request: Request) -> Scored:
        """Of a head on the same connection that differs in its target alone, which says nothing of who asks."""
        if self.signed:  # what is signed may be the target
            return Scored(self.settings, request, self.client, self._host)
        made = Scored.__new__(Scored)
        for name in _SHARED:
            setattr(made, name, getattr(self, name))
        made._request = request
        made._marks = made._line = made.found = None
        made._given = False
        who, prints = self._who, request.peer.prints
        if who is not None and not who.sends(self.settings, self._by):
            made._who = None
        if prints is not None and ((heads := prints.scores) is None or heads.h2 is not prints.h2 or heads.h3 is not prints.h3):
            made._static = made._score = None  # the connection has told more of itself
        return made

    def again(self) -> Scored:
        """The same for one exchange alone."""
        return Scored(self.settings, self._request, self.client, self._host)

    def current(self) -> Score:
        """The score as it is now."""
        score, moment = self._score, time.monotonic()
        if score is not None and moment < self._until:
            return score
        static, settings = self._static, self.settings
        # A signed head is one exchange's alone, and its nonce is spent.
        if static is None or (self._identity is not settings.identity and not self.signed):
            now = time.time()
            self._identity = settings.identity
            self._static = None
            identity = self._identified(now)
            static = settings.scorer.score(self._request, now, identity, hidden=self.proxied)
            if static is not NOT_COMPUTED and (identity is None or not identity.pending):
                self._static = static  # else it may be another one the next time
        watch = settings.watch
        if watch is None or (static.value == 0 and not self._carries):
            return static  # nothing moves it; but whether a challenge was passed is known all the same
        try:
            who = self._sender()
            if moment >= who.until:
                who.until = moment + _HOLDS
                who.moved, who.passed = watch.moved(who.marks, moment), self._carries and self._cleared()
                who.static = None
        except Exception as error:
            settings.broken(error)
            return static
        score = who.score
        if score is None or who.static is not static:
            who.static = static
            pulled = self._pulled(watch, who, static, moment)
            who.score = score = static.with_evidence(who.moved, passed=who.passed, pulled=pulled)
        if self._static is not None:
            self._score, self._until = score, who.until
        return score

    def _pulled(self, watch: Watch, who: Client, static: Score, moment: float) -> float:
        """By its session, as `Watch.pull`."""
        session = who.session
        if session is None:
            return 0.0
        try:
            return watch.pull(who.marks, session, static, moment)
        except Exception as error:
            self.settings.broken(error)
            return 0.0

    def _sender(self) -> Client:
        """Who sends the head. Its connection knows him when he has sent another one."""
        who = self._who
        if who is None:
            request, settings = self._request, self.settings
            prints = request.peer.prints
            who = prints.client if prints is not None and not request.upgrade else None
            if who is None or not who.sends(settings, self._by):
                who = Client(settings, request, self.client, self._by, proxied=self.proxied)
                if prints is not None and not request.upgrade:  # what a clearance is good for differs
                    prints.client = who
            self._who = who
        return who

    def _cleared(self) -> bool:
        """Whether the request carries a clearance that holds."""
        try:
            return cleared(self.settings.challenger, self._request, self.client, self._host)
        except Exception as error:
            self.settings.broken(error)
            return False

    def cookie(self, reply: Headers) -> bytes | None:
        """The Set-Cookie of the session, where a reply should carry it: to browsers, and not with parts of pages, nor with what
        caches share.

        Args:
            reply: its field lines.
        """
        sessions = self.settings.sessions
        if sessions is None:
            return None
        try:
            cookie = None if shareable(reply) else self._cookie(sessions)
            self._given = self._given or cookie is not None
            return cookie
        except Exception as error:
            self.settings.broken(error)
            return None

    def _cookie(self, sessions: Sessions) -> bytes | None:
        marks = self.marks()
        if not marks.browser or marks.static or self._foreign():
            return None
        now = time.time()
        session = self._sender().session or sessions.begin(now)
        if not sessions.due(session, now):
            return None
        watch = self.settings.watch
        session = session._replace(requests=session.requests + 1)
        return sessions.write(watch.kept(session) if watch is not None else session, now)

    def _foreign(self) -> bool:
        """A page of another site asks: SameSite=Lax keeps the cookie from coming back."""
        header = self._request.header
        return header(b"sec-fetch-site") == b"cross-site" and header(b"sec-fetch-mode") != b"navigate"

    def _identified(self, now: float) -> Verified | None:
        identity = self.settings.identity
        if identity is None or self.found is not None:
            return self.found
        try:
            return identity.of(self._request, self.client, now)
        except Exception as error:
            self.settings.broken(error)
            return None

    def marks(self) -> Marks:
        """What is counted of the head."""
        marks = self._marks
        if marks is None:
            marks = self._marks = self._sender().marks.of(self._request.target)
        return marks

    def signal(self) -> Signal | None:
        """How the programs of its fingerprint behave together; None: nobody knows."""
        watch = self.settings.watch
        try:
            return watch.signal(self.marks().ja4, time.monotonic()) if watch is not None else None
        except Exception as error:
            self.settings.broken(error)
            return None

    def ended(self, exchange: Exchange, now: float) -> None:
        """An exchange is over: it counts."""
        score, settings = score_of(exchange), self.settings
        if score is None:
            return
        settings.stats.scores[score.value] += 1
        for each in score.detections:
            settings.stats.detection(each.name)
        if settings.watch is not None:
            try:
                status = exchange.status
                if status in _OURS and exchange.served_by is None:
                    status = 0  # a challenge or a refusal of ours: what we thought of a client is nothing that it did
                settings.watch.ended(self.marks(), score, status, now, given=self._given)
            except Exception as error:
                settings.broken(error)

    def line(self, static: bytes, score: Score | None) -> bytes:
        """The end of a log line with the score in it; made once for each value."""
        if score is None:
            return static
        known = self._line
        if known is None or known[0] is not static or known[1] is not score:
            prints = self._request.peer.prints
            ja4 = prints.ja4 if prints is not None else ""
            if score.shown[0] != ja4 or not score.shown[1]:
                score.shown = (ja4, _piece(score, ja4))
            self._line = known = (static, score, with_score(static, score.shown[1]))
        return known[2]


def _piece(score: Score, ja4: str) -> bytes:
    bot = score.identity.bot if score.identity is not None and score.identity.verified else None
    name = bot.name if bot is not None else ""
    return score_piece(score.value, score.source, tuple(score.ids), score.names, name, score.passed, ja4)


_SHARED: Final = tuple(name for name in Scored.__slots__ if name not in {"_given", "_line", "_marks", "_request", "found"})


def score_of(exchange: Exchange) -> Score | None:
    """The score of an exchange, computed when it is first asked for; None where nobody scores."""
    if exchange.score is None and exchange.plan.scored is not None:
        exchange.score = exchange.plan.scored.current()
    return exchange.score


def cleared(challenger: Challenger, request: Request, address: str, host: str) -> bool:
    """Whether a request carries the clearance of a challenge that was solved; who only waited has shown nothing of a browser.

    Args:
        address: of the client; host: in one form.
    """
    prints = None if request.peer.trusted else request.peer.prints
    ja4 = prints.ja4n if prints is not None else ""
    level = challenger.level(request.headers, holder(address, ja4, host), ja4, time.time(), upgrade=request.upgrade)
    return isinstance(level, int) and level >= SOLVED
