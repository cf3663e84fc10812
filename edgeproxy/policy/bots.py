# What a score means for a request, as the configuration says it. Pure: who carries it out is botting.py.
"""`Policy.verdict(score, keyed=…)`: `block`, `challenge`, `slow`, `log`, or "" where nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.config.bots import BotPolicy, RouteBots, Slow

Act = Literal["block", "challenge", "slow", "log", ""]
ACTS: Final[tuple[Act, ...]] = ("block", "challenge", "slow", "log")


class Policy:
    """One route's.

    Attributes:
        acts: false: it is on trial, and only told.
        slow: what is done to who is slowed.
    """

    __slots__ = ("_block", "_challenge", "_keyed", "_log", "_slow", "_verified", "acts", "slow")

    def __init__(self, whole: BotPolicy, route: RouteBots | None = None) -> None:
        """Compile.

        Args:
            whole: of the edge.
            route: what is different on the route.
        """

        def said(name: str) -> object:
            own = getattr(route, name) if route is not None else None
            return getattr(whole, name) if own is None else own

        on = route is None or route.enabled
        self.acts = said("mode") == "act"
        self.slow: Slow | None = said("slow")  # type: ignore[assignment]  # of the model's own type
        self._block = int(said("block")) if on else 0  # type: ignore[call-overload]  # an integer of the model
        self._challenge = int(said("challenge")) if on else 0  # type: ignore[call-overload]  # the same
        self._log = int(said("log")) if on else 0  # type: ignore[call-overload]  # the same
        self._slow = self.slow.score if on and self.slow is not None else 0
        self._verified = said("verified") == "allow"
        self._keyed = said("keyed") == "allow"

    @property
    def idle(self) -> bool:
        """Nothing is ever done."""
        return not (self._block or self._challenge or self._log or self._slow)

    def verdict(self, score: Score, *, keyed: bool) -> Act:
        """What is done about a request.

        Args:
            keyed: it carries a valid key of the edge.
        """
        value = score.value
        if value == 0 or (keyed and self._keyed) or (self._verified and score.verified):
            return ""
        if value <= self._block:
            return "block"
        if value <= self._challenge and not score.passed:
            return "challenge"
        if value <= self._slow:
            return "slow"
        return "log" if value <= self._log else ""
