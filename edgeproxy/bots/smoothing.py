# What the model said of a session's requests before draws the next one's score towards it. Pure: no time, only numbers.
"""`Steady` is one session's moving average of log-odds, and what they were said of: a program with one name and one fingerprint.

The heads of one browser differ (a page, a script's request, a picture), and so does what the model says of them. What it says
once in a while is less likely than what it says all the time. Only the model's own answers are averaged: never what was made of
them, so that nothing feeds itself, and time alone changes nothing.
"""

from __future__ import annotations

import math
from typing import Final

UP: Final = 0.5  # log-odds that a session gives at most: its cookie may be somebody else's, with the same program
DOWN: Final = 1.0  # and takes at most
MOST_SEEN: Final = 0xFFFF
_HALF: Final = 5  # requests after which half of the difference counts
_SHARE: Final = 0.05  # of a new answer in the average, once there are twenty
ODDS: Final = tuple(math.log(max(score, 1) / (100 - max(score, 1))) for score in range(100))
"""Log-odds by score."""


class Steady:
    """See the module.

    Attributes:
        odds: the average.
        seen: answers in it.
        whose: hash of the program that they were about; 0: of none.
    """

    __slots__ = ("odds", "seen", "whose")

    def __init__(self, odds: float = 0.0, seen: int = 0, whose: int = 0) -> None:
        self.odds = odds
        self.seen = seen
        self.whose = whose

    def pull(self, odds: float, whose: int) -> float:
        """Log-odds that are added to one more answer of the model, which is in the average from then on.

        Args:
            whose: as `whose`. Another program begins anew: the name that one made itself is not the other's.
        """
        if whose != self.whose:
            self.odds, self.seen, self.whose = odds, 1, whose
            return 0.0
        seen, difference = self.seen, self.odds - odds
        pulled = max(-DOWN, min(UP, difference * seen / (seen + _HALF)))
        self.seen = min(seen + 1, MOST_SEEN)
        self.odds -= difference * max(1 / (seen + 1), _SHARE)
        return pulled
