# What scoring looks at: one request's head and its connection, taken to pieces once. Pure; everything comes in.
"""`View`: the head of a request as heuristics and the model read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.bots import wire
from edgeproxy.bots.agents import OTHER, read_agent

if TYPE_CHECKING:
    from edgeproxy.bots.identity import Verified
    from edgeproxy.message import Request
    from edgeproxy.prints import Prints

NONE: Final = -1  # of a family
# Other programs with an engine inside, that leave out some of what browsers send; and forks of Firefox that have left it long
# ago and say its versions all the same (Pale Moon).
EMBEDDED: Final = frozenset({"webview", "qt", "goanna", "seamonkey"})
H1, H2, H3 = 0, 1, 2  # indices of observe.metrics.PROTOCOLS


class View:
    """See the module.

    Attributes:
        request: as it came.
        headers: the last line of each name.
        text: User-Agent, b"" where there is none.
        agent: what it claims.
        prints: of the connection; None where nobody took them.
        tls, h2, h3: families (agents.py) of what speaks; NONE where there is nothing to tell by.
        browser: a browser is claimed, and not one that is embedded in another program.
        identity: who a declared bot really is; None: nobody looked.
    """

    __slots__ = ("agent", "browser", "h2", "h3", "headers", "identity", "prints", "request", "text", "tls")

    def __init__(self, request: Request, prints: Prints | None, identity: Verified | None = None) -> None:
        self.request = request
        self.prints = prints
        self.identity = identity
        self.headers = dict(request.headers)
        self.text = self.headers.get(b"user-agent", b"")
        self.agent = agent = read_agent(self.text)
        self.browser = agent.family != OTHER and agent.mozilla and agent.brand not in EMBEDDED and b"compatible;" not in self.text
        self.tls, self.h2, self.h3 = connection_families(prints)

    def get(self, name: bytes) -> bytes:
        """A header's value, b"" without one."""
        return self.headers.get(name, b"")


def connection_families(prints: Prints | None) -> tuple[int, int, int]:
    """Of TLS, HTTP/2 and HTTP/3."""
    if prints is None:
        return NONE, NONE, NONE
    numbers = wire.connection(prints)
    return (
        int(numbers[_TLS[1]]) if numbers[_TLS[0]] else NONE,
        int(numbers[_H2[1]]) if numbers[_H2[0]] else NONE,
        int(numbers[_H3[1]]) if numbers[_H3[0]] else NONE,
    )


# Where the numbers of a connection say whether there is something to tell by, and the family.
_PAIRS: Final = (("tls_known", "tls_family"), ("h2", "h2_family"), ("h3", "h3_family"))
_TLS, _H2, _H3 = (tuple(map(wire.NAMES.index, pair)) for pair in _PAIRS)
