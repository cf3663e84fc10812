# One number for a request, and why. Everything that may fail fails here, into "not computed": a score never breaks a request.
"""`Scorer.score(…)` combines heuristics, model and behaviour into a `Score` of 1 (automated) to 99 (a person); 0: not computed.

As at Cloudflare: 1 automated, 2–29 likely automated, 30–99 likely a person. Verified bots are told beside the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.bots.features import vector
from edgeproxy.bots.heuristics import Heuristic, detect
from edgeproxy.bots.identity import NOBODY
from edgeproxy.bots.model import scaled
from edgeproxy.bots.view import View

if TYPE_CHECKING:
    from edgeproxy.bots.identity import Verified
    from edgeproxy.bots.model import Model
    from edgeproxy.message import Request
    from edgeproxy.prints import H2Print, H3Print, Prints

Source = Literal["Not Computed", "Heuristics", "Machine Learning", "Behavioral Analysis", "JS Fingerprinting"]
AUTOMATED: Final = 1
LIKELY_HUMAN: Final = 30  # from here on
MOST: Final = 99
TOLD: Final = 3  # names of reasons in a log line
_LEAST_MODEL: Final = 2
_OF_CONNECTION: Final = 16  # heads whose scores one connection keeps
_OF_PROXIES: Final = 4096  # and the worker, of connections whose prints nobody has
# Fields of which neither heuristics nor the model read the value; that they are there, and where, counts.
UNREAD: Final = frozenset({
    b"authorization", b"content-length", b"cookie", b"if-modified-since", b"if-none-match", b"if-range", b"range", b"referer",
    b"traceparent", b"x-api-key", b"x-request-id",
})  # fmt: skip
_METHODS: Final = {b"GET": 0, b"HEAD": 0, b"OPTIONS": 1}  # what they say of who sends them


class Score:
    """What is known of who sent a request.

    Attributes:
        value: see the module.
        source: of the value.
        detections: heuristics that were true.
        chance: the model's answer; None without one.
        identity: who a declared bot really is; None: nobody looked.
        moved: log-odds that behaviour added (below 0: towards automated); pulled: that the session's other requests added.
        passed: the client has passed a challenge.
        shown: what logs say of it, and to which JA4; kept by who writes them (`scoring`).
    """

    __slots__ = ("chance", "detections", "identity", "moved", "passed", "pulled", "shown", "source", "value")

    def __init__(
        self, value: int, source: Source, detections: tuple[Heuristic, ...] = (), chance: float | None = None,
        identity: Verified | None = None,
    ) -> None:  # fmt: skip
        self.value = value
        self.source: Source = source
        self.detections = detections
        self.chance = chance
        self.identity = identity
        self.moved = self.pulled = 0.0
        self.passed = False
        self.shown: tuple[str, bytes] = ("", b"")

    def __repr__(self) -> str:
        return f"Score({self.value}, {self.source})"

    @property
    def verified(self) -> bool:
        """It is a known bot, and has proved it."""
        return self.identity is not None and self.identity.verified

    @property
    def ids(self) -> list[int]:
        """Numbers of the heuristics."""
        return [each.id for each in self.detections]

    @property
    def names(self) -> tuple[str, ...]:
        """For logs, which requests fill: what made the value by name, the weightiest first, at most TOLD."""
        named = [each.name for each in self.detections if each.certain]
        if abs(self.moved) >= _WORTH_TELLING:
            named.append("behaviour_against" if self.moved < 0 else "behaviour_for")
        return (*named, *[each.name for each in self.detections if not each.certain])[:TOLD]

    def reasons(self) -> list[str]:
        """For people: what made the value, the weightiest first."""
        told = [each.reason for each in self.detections]
        identity = self.identity
        if identity is not None and identity.verified and identity.bot is not None:
            told.insert(0, f"It is {identity.bot.name} of {identity.bot.operator}, verified by {identity.how}.")
        if identity is not None and identity.refusal:
            told.append(f"Its signature proves nothing: {identity.refusal}.")
        if self.passed:
            told.append("The client has passed a challenge.")
        if abs(self.moved) >= _WORTH_TELLING:
            told.append(f"What the client did before speaks {'against' if self.moved < 0 else 'for'} a person.")
        if abs(self.pulled) >= _WORTH_TELLING:
            told.append(f"Other requests of its session look {'less' if self.pulled < 0 else 'more'} like a person's.")
        if self.chance is not None:
            told.append(f"The model takes its fingerprints and headers for a person's with a chance of {self.chance:.0%}.")
        return told

    def with_evidence(self, moved: float, *, passed: bool = False, pulled: float = 0.0) -> Score:
        """The same with what the client did: heuristics are certain and stay; nothing makes 1 or 99 of a guess but the model.

        Args:
            moved: log-odds of being a person, bounded by who counts them.
            passed: a challenge was solved.
            pulled: log-odds by which the session's other requests draw it towards them, likewise.
        """
        if not self.value:
            moved = pulled = 0.0  # there is nothing to move
        if not moved and not passed and not pulled:
            return self
        made = Score(self.value, self.source, self.detections, self.chance, self.identity)
        made.moved, made.passed, made.pulled = moved, passed, pulled
        if self.value < _LEAST_MODEL:
            return made
        odds = math.log(self.value / (100 - self.value)) + moved + pulled + (_PASS if passed else 0.0)
        made.value = min(MOST, max(_LEAST_MODEL, round(100 / (1 + math.exp(-odds)))))
        if made.value != self.value and (moved or passed):  # what is pulled is the model's word still
            made.source = "JS Fingerprinting" if passed and moved >= 0 else "Behavioral Analysis"
        return made


NOT_COMPUTED: Final = Score(0, "Not Computed")
_WORTH_TELLING: Final = 0.25
_PASS: Final = 1.5  # log-odds of a challenge that was passed: an automated browser passes, too


class Heads:
    """Scores of one connection's heads: those of one page differ in their paths, which say nothing of who asks.

    Attributes:
        scorer: who made them; h2, h3: what they were made of.
        scores: by `shape`. A hash and not the head: that would be a kilobyte each.
    """

    __slots__ = ("h2", "h3", "scorer", "scores")

    def __init__(self, scorer: Scorer, h2: H2Print | None = None, h3: H3Print | None = None) -> None:
        self.scorer = scorer
        self.h2 = h2
        self.h3 = h3
        self.scores: dict[int, Score] = {}


def shape(request: Request) -> int:
    """A hash of all that heuristics and model read of a head. It is made with the process's secret: none can be made to fit."""
    unread = UNREAD
    fields = [pair[0] if pair[0] in unread else pair for pair in request.headers]
    return hash((_METHODS.get(request.method, 2), request.upgrade, request.protocol, request.peer.secure, *fields))


class Scorer:
    """Scores heads of requests.

    Attributes:
        model: None: there is none; what no heuristic catches is not computed then.
    """

    __slots__ = ("_broken", "_heads", "model")

    def __init__(self, model: Model | None, broken: Callable[[Exception], None]) -> None:
        self.model = model
        self._broken = broken
        self._heads = Heads(self)

    def score(self, request: Request, now: float, identity: Verified | None = None, *, hidden: bool = False) -> Score:
        """The score of a head, by what it and its connection are made of.

        Args:
            now: seconds since the epoch.
            hidden: the connection is not the client's own, but that of a proxy: it says nothing.
        """
        prints = None if hidden else request.peer.prints
        if identity is not None and identity is not NOBODY:
            return self._made(request, now, identity, prints)
        if prints is None:
            heads, most = self._heads, _OF_PROXIES
        else:
            heads, most = self._of(prints), _OF_CONNECTION
        key = shape(request)
        score = heads.scores.get(key)
        if score is None:
            score = self._made(request, now, identity, prints)
            if score.value:
                if len(heads.scores) >= most:
                    heads.scores.clear()
                heads.scores[key] = score
        return score

    def _of(self, prints: Prints) -> Heads:
        """What the connection keeps; nothing once it has told more of itself, or the configuration is another one."""
        heads = prints.scores
        if heads is None or heads.scorer is not self or heads.h2 is not prints.h2 or heads.h3 is not prints.h3:
            heads = prints.scores = Heads(self, prints.h2, prints.h3)
        return heads

    def _made(self, request: Request, now: float, identity: Verified | None, prints: Prints | None) -> Score:
        try:
            view = View(request, prints, identity)
            found = detect(view)
            if any(each.certain for each in found):
                # Who may yet turn out to be a known bot is not certainly another one: whoever refuses scores of 1 alone waits.
                waits = identity is not None and identity.pending
                return Score(_LEAST_MODEL if waits else AUTOMATED, "Heuristics", found, None, identity)
            model = self.model
            row = vector(request, now, view.headers, hidden=prints is None) if model is not None else []
            chance = self._asked(model, row) if model is not None else None
            if model is None or chance is None:
                return Score(0, "Not Computed", found, None, identity)
            return Score(scaled(chance, model.manifest.knots), "Machine Learning", found, chance, identity)
        except Exception as error:
            self._broken(error)
            return NOT_COMPUTED

    def _asked(self, model: Model, row: list[float]) -> float | None:
        """The model's answer; None: its engine failed, and what else is known of the request stays."""
        try:
            return model.predict(row)
        except Exception as error:
            self._broken(error)
            return None
