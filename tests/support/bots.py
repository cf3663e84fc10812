# Requests and connections of programs, as scoring sees them: heads as browsers write them, hellos that were captured.
"""`request(…)`, `prints_of(client)`, `PAGE` (what Chromium sends for a page) and how browsers begin HTTP/2."""

from __future__ import annotations

from collections.abc import Iterable

from edgeproxy.listen.first import transport_parameters
from edgeproxy.message import Headers, Peer, Request
from edgeproxy.prints import H2Print, H3Print, Prints
from support.hellos import records, vector_of

CHROME = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
SAFARI = b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15"
CHROME_H2 = H2Print(((1, 65536), (2, 0), (4, 6291456), (6, 262144)), 15663105, (), "m,a,s,p", (1, 0, 256))
FIREFOX_H2 = H2Print(((1, 65536), (2, 0), (4, 131072), (5, 16384)), 12517377, (), "m,p,a,s", (0, 0, 42))
SAFARI_H2 = H2Print(((2, 0), (3, 100), (4, 2097152), (9, 1)), 10420225, (), "m,s,a,p")
CURL_H2 = H2Print(((3, 100), (4, 10485760), (2, 0)), 1048510465, (), "m,s,a,p")
PAGE: Headers = [
    (b"sec-ch-ua", b'"Chromium";v="156", "Not.A/Brand";v="24", "Google Chrome";v="156"'),
    (b"sec-ch-ua-mobile", b"?0"), (b"sec-ch-ua-platform", b'"Linux"'), (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", CHROME), (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
    (b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-user", b"?1"), (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"), (b"accept-language", b"en-US,en;q=0.9"), (b"priority", b"u=0, i"),
]  # fmt: skip
FIREFOX_PAGE: Headers = [
    (b"user-agent", FIREFOX), (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"), (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"), (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-site", b"none"), (b"sec-fetch-user", b"?1"),
    (b"priority", b"u=0, i"), (b"te", b"trailers"),
]  # fmt: skip
H1, H2, H3 = 0, 1, 2


def request(
    headers: Headers, prints: Prints | None = None, protocol: int = H2, *, secure: bool = True, target: bytes = b"/",
    method: bytes = b"GET", trusted: bool = False, address: str = "192.0.2.1",
) -> Request:  # fmt: skip
    """A head on a connection."""
    peer = Peer(address, trusted=trusted, secure=secure)
    peer.prints = prints
    return Request(method, b"example.org", target, headers, 0, protocol, peer)


def prints_of(client: str, h2: H2Print | None = None) -> Prints:
    """Of one of tests/data/client_hellos.json. A QUIC client's H3Print has the parameters that it sent."""
    vector = vector_of(client)
    message = bytes.fromhex(vector["client_hello"])
    if vector["transport"] == "tcp":
        made = Prints(records(message))
        made.h2 = h2
        return made
    made = Prints(message, "q")
    assert made.hello is not None
    pseudo = "m,a,s,p" if "chrom" in client else "m,s,a,p"
    made.h3 = H3Print(transport_parameters(made.hello.parameters), (), pseudo)
    return made


def but(headers: Headers, *without: bytes, **changes: bytes) -> Headers:
    """Other values (`user_agent=…`) and fields left out."""
    values = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    kept = [(name, values.pop(name, value)) for name, value in headers if name not in without]
    return [*kept, *values.items()]


def ids(found: Iterable[object]) -> set[int]:
    """Of heuristics."""
    return {each.id for each in found}  # type: ignore[attr-defined]  # Heuristic
