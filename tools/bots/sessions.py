# What sessions of some requests do to a score. They are made up by rules that stand here; the edge's own code judges them.
"""`session` makes one of a `Kind`, `moved` counts it as the edge does, `draws` does both often, `after` is the score then.

Pauses are measured on walks (`data/walked.json`, by `tools.bots.walking`), a timer's, or drawn from a distribution.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

from edgeproxy.bots.behaviour import Behaviour, Keys
from edgeproxy.bots.score import Score

WALKED: Final = Path(__file__).parent / "data/walked.json"
REQUESTS: Final = 20
DRAWS: Final = 200  # sessions of a kind
SHAPE, SCALE = 0.8, 30.0  # of a reader's pauses, a Weibull's; the scale in seconds
QUICK: Final = 3.0  # the same scale for somebody who clicks on quickly
LEAST: Final = 0.3  # seconds that nobody's pause is below
TIMER: Final = 2.0  # seconds
MISSING: Final = 0.5  # of the pages that a crawler asks for
BROWSER, PROGRAM = "as fast as a driven browser can", "as fast as an impersonator can"
TIMED = f"every {TIMER:g} s by a timer"
READER, HURRIED = "random, like a reader's", "random, clicking on quickly"
_PARTS: Final = ("css", "js", "png")
_ADDRESS: Final = "192.0.2.1"


class Step(NamedTuple):
    """A request that was answered.

    Attributes:
        when: seconds since the session began.
        path: of its target.
        session: number of the session whose cookie came with it; 0: none did.
        status: of the answer.
    """

    when: float
    path: str
    session: int
    status: int

    @property
    def static(self) -> bool:
        """It is for a part of a page."""
        return "." in self.path.rpartition("/")[2]


class Kind(NamedTuple):
    """How a session goes.

    Attributes:
        pace: name of what its pauses between pages are.
        cookies: kept, none, or fresh: each page begins without one, its parts have that of the page.
        parts: pages' parts are asked for.
        missing: half of the pages are not there.
        same: it is one path all the time.
    """

    pace: str
    cookies: str = "kept"
    parts: bool = False
    missing: bool = False
    same: bool = False

    def __str__(self) -> str:
        cookies = {"kept": "cookies kept", "none": "no cookies", "fresh": "a new context for each page"}[self.cookies]
        words = [self.pace, cookies, "with parts" if self.parts else "pages alone"]
        return ", ".join([*words, "half of them 404"] if self.missing else words)


class Walks(NamedTuple):
    """What was measured.

    Attributes:
        rows: of the file.
        pauses: seconds between pages, by tier.
        parts: seconds from a page's end to that of its parts.
    """

    rows: list[dict[str, Any]]
    pauses: dict[str, list[float]]
    parts: list[float]


def walks(path: Path = WALKED) -> Walks:
    """The measured walks. Raises: OSError, ValueError or KeyError for a file that is not ours."""
    found = Walks(json.loads(path.read_text())["walks"], {"automation": [], "impersonator": []}, [])
    for row in found.rows:
        page = None
        for step in walked(row):
            if not step.path.startswith("/w/p"):
                continue
            if step.static:
                found.parts.append(max(step.when - (page or 0.0), 0.0))
                continue
            if page is not None:
                found.pauses[row["tier"]].append(round(step.when - page, 3))
            page = step.when
    return found


def walked(row: dict[str, Any]) -> list[Step]:
    """The requests of a walk."""
    return [Step(when, path, number, status) for when, path, number, status, *_ in row.get("requests", ())]


def paces(measured: Walks) -> dict[str, Callable[[random.Random], float]]:
    """Seconds between pages, by name."""
    return {
        BROWSER: lambda draw: draw.choice(measured.pauses["automation"]),
        PROGRAM: lambda draw: draw.choice(measured.pauses["impersonator"]),
        TIMED: lambda _: TIMER,
        READER: lambda draw: LEAST + draw.weibullvariate(SCALE, SHAPE),
        HURRIED: lambda draw: LEAST + draw.weibullvariate(QUICK, SHAPE),
    }


def session(kind: Kind, measured: Walks, draw: random.Random, requests: int) -> list[Step]:
    """So many requests. The first has no cookie yet; pages differ unless they are the same; parts are three a page."""
    pace = paces(measured)[kind.pace]
    steps: list[Step] = []
    page, number = 0.0, 0
    while len(steps) < requests:
        if number:
            page = max(page + pace(draw), steps[-1].when)
        path = "/chat" if kind.same else f"/page/{number}"
        gone = kind.missing and draw.random() < MISSING
        own = {"kept": 1, "fresh": number + 1, "none": 0}[kind.cookies]
        steps.append(Step(page, path, own if number and kind.cookies == "kept" else 0, 404 if gone else 200))
        if kind.parts and not gone:
            offsets = sorted(draw.choice(measured.parts) for _ in _PARTS)
            steps += [Step(page + late, f"{path}.{end}", own, 200) for late, end in zip(offsets, _PARTS, strict=True)]
        number += 1
    return steps[:requests]


def moved(steps: Iterable[Step], last: int, pause: float) -> float:
    """Log-odds for the request that comes `pause` seconds after these, with the cookie of session `last`.

    Counted as `edgeproxy.watching` does, at one worker: no store adds rates up.
    """
    behaviour, now = Behaviour(), 0.0
    for step in steps:
        now = step.when
        for track in behaviour.tracks(_keys(step.session), now):
            error = 400 <= step.status < 500
            known = step.session > 0
            given = not known and not step.static
            track.count(now, crc32(step.path.encode()), 1, static=step.static, cookie=known, error=error, given=given)
    return behaviour.moved(_keys(last), now + pause)


def _keys(number: int) -> Keys:
    return Keys(b"%d" % number if number else b"", _ADDRESS, f"{_ADDRESS} t13d")


@functools.cache
def _drawn(kind: Kind, path: Path, seed: int, requests: int) -> tuple[float, ...]:
    measured = walks(path)
    draw, pace = random.Random(f"{seed} {kind!r}"), paces(measured)[kind.pace]
    last = 1 if kind.cookies == "kept" else 0
    return tuple(round(moved(session(kind, measured, draw, requests), last, pace(draw)), 2) for _ in range(DRAWS))


def draws(kind: Kind, seed: int, requests: int = REQUESTS) -> tuple[float, ...]:
    """What DRAWS sessions of a kind move, for the page after so many requests."""
    return _drawn(kind, WALKED, seed, requests)


@functools.cache
def after(value: int, log_odds: float, passed: bool) -> int:
    """A score with evidence, as the edge makes it."""
    return Score(value, "Machine Learning").with_evidence(log_odds, passed=passed).value
