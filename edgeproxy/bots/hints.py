# What Chromium's client hints say, and whether Chromium would say it so. Pure; results are kept per text.
"""`hinted`: three agreements of sec-ch-ua with the User-Agent. `hints_order`: where Chromium puts its hints.

Chromium makes its list of brands by its major version (components/embedder_support/user_agent_utils.cc): which characters the
false brand has, its version, and the order of the brands. Who copies a list and changes the number gets it wrong.
"""

from __future__ import annotations

from typing import Final

from edgeproxy.bots.agents import Agent

AGREES, CONTRADICTS, UNSAID = 1.0, 0.0, 0.5
_CHARACTERS: Final = (b" ", b"(", b":", b"-", b".", b"/", b")", b";", b"=", b"?", b"_")
_VERSIONS: Final = (b"8", b"99", b"24")
_SINCE: Final = 115  # before, the false brand was made in other ways
_LONGEST: Final = 512  # bytes of a list that is read
_KEPT: Final = 2048  # texts that are remembered; more, and all are forgotten
_BRANDS: Final = ((b"Microsoft Edge", "edge"), (b"Opera", "opera"), (b"Samsung Internet", "samsung"), (b"Headless", "headless"))
_NAVIGATION: Final = (b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform")
_known: dict[tuple[bytes, int, str], tuple[float, float, float]] = {}


def hinted(hints: bytes, agent: Agent) -> tuple[float, float, float]:
    """Whether its version, its false brand and its brand are those of the User-Agent (a Chromium).

    Args:
        hints: `sec-ch-ua` as sent.
    """
    if len(hints) > _LONGEST:
        return CONTRADICTS, CONTRADICTS, CONTRADICTS  # no list of a browser's is half as long
    key = (hints, agent.major, agent.brand)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        found = _known[key] = (_version(hints, agent), _grease(hints, agent), _brand(hints, agent))
    return found


def _version(hints: bytes, agent: Agent) -> float:
    return AGREES if b'Chromium";v="%d"' % agent.major in hints else CONTRADICTS


def _grease(hints: bytes, agent: Agent) -> float:
    major = agent.major
    if major < _SINCE:
        return UNSAID
    one, other = _CHARACTERS[major % 11], _CHARACTERS[(major + 1) % 11]
    return AGREES if b'"Not%sA%sBrand";v="%s"' % (one, other, _VERSIONS[major % 3]) in hints else CONTRADICTS


def _brand(hints: bytes, agent: Agent) -> float:
    for words, brand in _BRANDS:
        if (words in hints) is not (agent.brand == brand):
            return CONTRADICTS
    return AGREES


def hints_order(names: tuple[bytes, ...], navigates: bool) -> float:
    """Whether the hints stand where they stand in that kind of request: in a row before the User-Agent when a person goes
    somewhere, scattered when a script or a page asks.

    Args:
        names: of the fields, in order.
    """
    return AGREES if _in_a_row(names) is navigates else CONTRADICTS


def _in_a_row(names: tuple[bytes, ...]) -> bool:
    if b"sec-ch-ua" not in names or b"user-agent" not in names:
        return False
    at = names.index(b"sec-ch-ua")
    return names[at : at + 3] == _NAVIGATION and at < names.index(b"user-agent")
