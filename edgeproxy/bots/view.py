# What scoring looks at: one request's head and its connection, taken to pieces once. Pure; everything comes in.
"""`View`: the head of a request as heuristics and the model read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.bots import families

if TYPE_CHECKING:
    from edgeproxy.bots.identity import Verified

    from edgeproxy.message import Request
    from edgeproxy.prints import Prints

H1, H2, H3 = 0, 1, 2  # indices of observe.metrics.PROTOCOLS


class View:
    """See the module.

    Attributes:
        request: as it came.
        headers: the last line of each name.
        agent: User-Agent, b"" where there is none.
        claim: what it claims.
        prints: of the connection; None where nobody took them.
        tls, h2, h3: families of what speaks, "" unknown.
        browser: a browser is claimed, and not one that is embedded in another program.
        identity: who a declared bot really is; None: nobody looked.
    """

    __slots__ = ("agent", "browser", "claim", "h2", "h3", "headers", "identity", "prints", "request", "tls")

    def __init__(self, request: Request, prints: Prints | None, identity: Verified | None = None) -> None:
        self.request = request
        self.prints = prints
        self.identity = identity
        self.headers = dict(request.headers)
        self.agent = self.headers.get(b"user-agent", b"")
        self.claim = families.claim(self.agent)
        self.browser = self.claim.family != "" and not self.claim.embedded
        self.tls, self.h2, self.h3 = connection_families(prints)

    def get(self, name: bytes) -> bytes:
        """A header's value, b"" without one."""
        return self.headers.get(name, b"")


def connection_families(prints: Prints | None) -> tuple[str, str, str]:
    """Of TLS, HTTP/2 and HTTP/3; "" where there is nothing to tell by."""
    if prints is None:
        return "", "", ""
    return (
        families.tls_family(prints.hello) if prints.hello is not None else "",
        families.h2_family(prints.h2) if prints.h2 is not None else "",
        families.h3_family(prints.h3) if prints.h3 is not None else "",
    )
