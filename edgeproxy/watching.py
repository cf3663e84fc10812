# What one worker remembers of what clients did, and how workers and edges learn from each other how much it was.
"""`Watch`: counts finished exchanges for behaviour (bots/behaviour.py) and signals (bots/signals.py).

How fast a client is must be known of all its connections together. So every two seconds what the busiest clients have done
since is counted in the store, as a charge that nothing refuses, and what remains of it says what all have counted.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from zlib import crc32

from edgeproxy.bots.agents import OTHER, read_agent
from edgeproxy.bots.behaviour import SESSION, Behaviour, Keys, Track, Weights
from edgeproxy.bots.signals import Signal, Signals
from edgeproxy.bots.smoothing import ODDS, Steady
from edgeproxy.deadlines import NEVER
from edgeproxy.rules.addresses import V6, client_code, network
from edgeproxy.rules.sources import STATIC
from edgeproxy.signalling import Signalling
from edgeproxy.state.ports import Charge, Kind, Quota

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.config.bots import BotBehaviour
    from edgeproxy.deadlines import Deadlines
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Request
    from edgeproxy.policy.session import Session
    from edgeproxy.state.ports import Admission

_EVERY: Final = 2.0  # seconds between two looks at the store
_WINDOW: Final = 10  # seconds over which all workers count together
_MANY: Final = 1 << 40  # more than anybody sends
_BUSY: Final = 64  # clients that are told of at once
_LEAST: Final = 8  # requests since the last time, from which on a client is told of
_QUOTA: Final = Quota("bots", Kind.SLIDING, _MANY, _WINDOW * 1_000_000)
_NOTHING: Final = Weights(*[0.0] * len(Weights._fields))
_MODERN: Final = 1  # from this index of observe.metrics.PROTOCOLS on


class Marks:
    """What is counted of a head, made once for all requests with it.

    Attributes:
        keys: by what the client is known.
        path, agent, address: hashes.
        static: the path is that of a part of a page.
        browser: the User-Agent claims one.
        modern: over HTTP/2 or HTTP/3.
        ja4: "" unknown.
        whose: hash of the program, by its fingerprint and its name; 0: it has no fingerprint, or no session asks.
    """

    __slots__ = ("address", "agent", "browser", "ja4", "keys", "modern", "path", "static", "whose")

    def __init__(self, request: Request, client: str, session: bytes, *, hidden: bool = False) -> None:
        """Make them.

        Args:
            client: textual address.
            session: id of its session cookie, b"" without one.
            hidden: the connection is not the client's own: its fingerprint is that of all behind one proxy.
        """
        agent = request.header(b"user-agent") or b""
        prints = None if hidden else request.peer.prints
        self.ja4: str = prints.ja4 if prints is not None else ""
        client = _place(client)
        self.keys = Keys(session, client, f"{client} {self.ja4}" if self.ja4 and client else "")
        self.agent = crc32(agent)
        self.address = crc32(client.encode())
        program = prints.ja4n if prints is not None and session else ""
        self.whose = crc32(program.encode(), self.agent) or 1 if program else 0
        self.browser = read_agent(agent).family != OTHER
        self.modern = request.protocol >= _MODERN
        self._walk(request.target)

    def _walk(self, target: bytes) -> None:
        path = target.partition(b"?")[0]
        self.path = crc32(path)
        self.static = path.rpartition(b".")[2].lower() in STATIC

    def of(self, target: bytes) -> Marks:
        """Those of another head of the same client on the same connection."""
        made = Marks.__new__(Marks)
        made.ja4 = self.ja4
        made.keys = self.keys
        made.agent = self.agent
        made.address = self.address
        made.browser = self.browser
        made.modern = self.modern
        made.whose = self.whose
        made._walk(target)
        return made


def _place(client: str) -> str:
    """The address of a client; of an IPv6 one its network: who has one has 2 to the power of 64."""
    code = client_code(client) if ":" in client else None
    return client if code is None or code < V6 else f"{network(code, 64) - V6 >> 64:x}::/64"


def weights_of(section: BotBehaviour) -> Weights:
    """As a configuration says."""
    return Weights(**section.model_dump(exclude={"enabled", "smooth"})) if section.enabled else _NOTHING


class Watch:
    """One worker's; an `Expiring`.

    Attributes:
        deadline: when the busiest are told of next.
        signalling: shares the signals.
    """

    __slots__ = ("_behaviour", "_busy", "_deadlines", "_gateway", "_signals", "_smooth", "deadline", "signalling")

    def __init__(self, gateway: Gateway, deadlines: Deadlines) -> None:
        self._gateway = gateway
        self._deadlines = deadlines
        self._behaviour = Behaviour()
        self._smooth = True
        self._signals = Signals()
        self.signalling = Signalling(gateway, deadlines, self._signals)
        self._busy: dict[str, Track] = {}
        self.deadline = NEVER

    def weigh(self, weights: BotBehaviour) -> None:
        """Count from now on as a configuration says."""
        self._behaviour.weights = weights_of(weights)
        self._smooth = weights.enabled and weights.smooth

    def moved(self, marks: Marks, now: float) -> float:
        """Log-odds of what a client did; see `Behaviour.moved`."""
        return self._behaviour.moved(marks.keys, now)

    def pull(self, marks: Marks, session: Session, score: Score, now: float) -> float:
        """Log-odds by which a session draws the model's score of one of its heads; see `Steady.pull`. The score counts for it."""
        whose = marks.whose
        if not whose or not self._smooth or score.source != "Machine Learning":
            return 0.0
        track = self._behaviour.tables[SESSION].get(session.id, now)
        steady = track.steady
        if steady is None or (session.requests > steady.seen and session.whose == whose):  # other workers know more of it
            steady = track.steady = Steady(session.odds, session.requests, session.whose)
        return steady.pull(ODDS[score.value], whose)

    def kept(self, session: Session) -> Session:
        """The session with what is known here of its requests."""
        track = self._behaviour.tables[SESSION].find(session.id)
        if track is None or track.steady is None:
            return session
        steady = track.steady
        return session._replace(requests=steady.seen, odds=steady.odds, whose=steady.whose)

    def signal(self, ja4: str, now: float) -> Signal | None:
        """How those of a fingerprint behave together."""
        return self._signals.of(ja4, now) if ja4 else None

    def ended(self, marks: Marks, score: Score, status: int, now: float, *, given: bool = False) -> None:
        """An exchange is over.

        Args:
            status: of the answer, 0: none was sent.
            now: monotonic seconds.
            given: replies to such requests carry a session cookie.
        """
        keys, error = marks.keys, 400 <= status < 500
        cookie = keys.session != b""
        for track in self._behaviour.tracks(keys, now):
            track.count(now, marks.path, marks.agent, static=marks.static, cookie=cookie, error=error, given=given)
            if not track.telling and track.requests - track.told >= _LEAST and len(self._busy) < _BUSY:
                self._tell_soon(keys, track)
        if marks.ja4:
            self._signals.count(
                marks.ja4, now, marks.address, marks.agent, marks.path, modern=marks.modern, caught=score.source == "Heuristics",
                browser=marks.browser,
            )  # fmt: skip

    def _tell_soon(self, keys: Keys, track: Track) -> None:
        name = self._behaviour.name(keys, track)
        track.telling = True  # for good where it has no name
        if name is None:
            return
        if not self._busy:
            self.deadline = self._deadlines.now + _EVERY
            self._deadlines.members.add(self)
        self._busy[name] = track

    def expire(self, now: float) -> None:
        """Time to tell of the busiest."""
        self._deadlines.members.discard(self)
        self.deadline = NEVER
        busy, self._busy = self._busy, {}
        for name, track in busy.items():
            key = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16, person=b"edge bots").digest()
            fresh, track.told = track.requests - track.told, track.requests
            track.telling = False

            def counted(admission: Admission, track: Track = track) -> None:
                verdict = admission.verdicts[0] if admission.verdicts else None
                if verdict is not None and verdict.stamp:
                    track.rate, track.heard = (_MANY - verdict.remaining) / _WINDOW, now

            self._gateway.store.admit([Charge(_QUOTA, key, fresh)], os.urandom(16), counted)
