# What a client's connection gave away of the program behind it. Plain data; no socket, no protocol, no policy.
"""`Prints`: one per client connection, on `Peer.prints`, where somebody wants to know; names are made when first asked for.

Nothing in here is secret, and nothing proves anything: a client may imitate another's, and those who share a program share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edgeproxy.listen import hello as hellos

if TYPE_CHECKING:
    from edgeproxy.bots.score import Heads
    from edgeproxy.listen.hello import Hello, Kind

# Transport parameters that are one integer (RFC 9000 §18.2, RFC 9221 §3): their values tell programs apart.
_INTEGERS: Final = frozenset({0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0E, 0x20})


class H2Print(NamedTuple):
    """How a client begins HTTP/2.

    Attributes:
        settings: of its first SETTINGS frame, in order.
        window: increment of the connection's window before the first request, 0 without.
        priorities: PRIORITY frames before the first request: stream, exclusive, what it depends on, weight (1..256).
        pseudo: order of the first request's pseudo-header fields, `m,a,s,p`.
        priority: what the first HEADERS frame itself says: exclusive, dependency, weight; None without.
    """

    settings: tuple[tuple[int, int], ...]
    window: int
    priorities: tuple[tuple[int, int, int, int], ...]
    pseudo: str
    priority: tuple[int, int, int] | None = None

    def text(self) -> str:
        """The form that Akamai published: `1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p`."""
        settings = ";".join([f"{name}:{value}" for name, value in self.settings])
        priorities = ",".join([":".join(map(str, each)) for each in self.priorities]) or "0"
        return f"{settings}|{self.window or '00'}|{priorities}|{self.pseudo}"


class H3Print(NamedTuple):
    """How a client begins QUIC and HTTP/3, without GREASE.

    Attributes:
        parameters: of the transport, by id (Chromium permutes them); values as sent.
        settings: in order; empty while they have not come: they may come after the first request.
        pseudo: as of HTTP/2.
    """

    parameters: tuple[tuple[int, bytes], ...]
    settings: tuple[tuple[int, int], ...]
    pseudo: str

    def text(self) -> str:
        """`1:30000;4:15728640;15#0|1:65536;6:262144|m,a,s,p`; `#` and a length stand for a value that is no integer."""
        parameters = ";".join([_shown(name, value) for name, value in self.parameters])
        settings = ";".join([f"{name}:{value}" for name, value in self.settings])
        return f"{parameters}|{settings}|{self.pseudo}"


def _shown(name: int, value: bytes) -> str:
    if name in _INTEGERS and len(value) in {1, 2, 4, 8}:
        return f"{name}:{int.from_bytes(value, 'big') & ((1 << (8 * len(value) - 2)) - 1)}"
    return f"{name}#{len(value)}"


class Prints:
    """See the module.

    Attributes:
        hello: None where it could not be read.
        ja4, ja4n, ja3: names of it (`listen.hello`); "" where it could not be read.
        h2, h3: None on connections of another kind, and before the first request.
        numbers: what the bot model reads of them, and what of h2 and h3 it was made from (`bots.wire`).
        scores: of heads that came over the connection (`bots.score`); client: who sent the last one of them (`scoring`).
    """

    __slots__ = ("_first", "_kind", "client", "h2", "h3", "hello", "ja3", "ja4", "ja4n", "numbers", "scores")

    hello: Hello | None
    ja3: str
    ja4: str
    ja4n: str

    def __init__(self, first: bytes, kind: Kind = "t") -> None:
        """Keep what there is until it is asked for.

        Args:
            first: over TCP the connection's first bytes, in QUIC the ClientHello message.
        """
        self._first = first
        self._kind: Kind = kind
        self.h2: H2Print | None = None
        self.h3: H3Print | None = None
        self.numbers: tuple[H2Print | None, H3Print | None, tuple[float, ...]] | None = None
        self.scores: Heads | None = None
        self.client: Any = None  # a scoring.Client; what it is, is not known here

    def __getattr__(self, name: str) -> Any:
        """Asked for the first time; a slot that is filled does not come here."""
        make = _MADE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value


def _hello(prints: Prints) -> Hello | None:
    first, prints._first = prints._first, b""
    return hellos.read_hello(first if prints._kind == "q" else hellos.from_records(first))


def _ja4(prints: Prints) -> str:
    return hellos.ja4(prints.hello, prints._kind) if prints.hello is not None else ""


def _ja4n(prints: Prints) -> str:
    return hellos.ja4_normal(prints.hello, prints._kind) if prints.hello is not None else ""


def _ja3(prints: Prints) -> str:
    return hellos.ja3(prints.hello) if prints.hello is not None else ""


_MADE: Final[dict[str, Callable[[Prints], Any]]] = {"hello": _hello, "ja3": _ja3, "ja4": _ja4, "ja4n": _ja4n}
