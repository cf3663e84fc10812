# Heuristics that are not asked of others than browsers could not have been true of them.
"""bots/heuristics.py: `OF_BROWSERS`; bots/view.py: families."""

from __future__ import annotations

import random

from bench.bots import CHROME, HEADS, prints_of
from bench.hellos import VECTORS
from edgeproxy.bots import wire
from edgeproxy.bots.heuristics import BY_ID, HEURISTICS, OF_BROWSERS, detect
from edgeproxy.bots.view import NONE, View, connection_families
from edgeproxy.message import Headers, Peer, Request

AGENTS = (
    b"", b"curl/8.5.0", b"AcmeDesk/2.1", b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15",
)  # fmt: skip
CLIENTS = [each["client"] for each in VECTORS]


def test_what_is_not_asked_would_be_false() -> None:
    dice = random.Random(3)
    assert set(BY_ID) >= OF_BROWSERS
    others = found = 0
    for _ in range(2_000):
        headers: Headers = [pair for pair in CHROME if dice.random() < 0.7 and pair[0] != b"user-agent"]
        headers.append((b"user-agent", dice.choice(AGENTS)))
        dice.shuffle(headers)
        peer = Peer("192.0.2.1", trusted=False, secure=dice.random() < 0.8)
        peer.prints = prints_of(dice.choice(CLIENTS)) if dice.random() < 0.8 else None
        request = Request(b"GET", b"localhost", b"/", headers, 0, dice.randrange(3), peer)
        view = View(request, peer.prints)
        asked = tuple(each for each in HEURISTICS if each.test(view))
        assert detect(view) == asked
        others += not view.browser
        found += bool(asked)
    assert others > 200
    assert found > 200


def test_families_are_those_of_the_wire() -> None:
    assert connection_families(None) == (NONE, NONE, NONE)
    for client in CLIENTS:
        prints = prints_of(client)
        assert prints.hello is not None
        assert connection_families(prints) == (
            wire.tls_family(prints.hello),
            wire.h2_family(prints.h2) if prints.h2 is not None else NONE,
            wire.h3_family(prints.h3) if prints.h3 is not None else NONE,
        )
    assert len({connection_families(prints_of(head.client)) for head in HEADS}) == 2
