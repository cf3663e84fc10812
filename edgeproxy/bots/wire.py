# What a connection looks like, as numbers: TLS, HTTP/2 and HTTP/3. Pure; once per connection, kept on its Prints.
"""`connection(prints)`: the first part of the model's vector. Names in `NAMES`, same order."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Final

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, OTHER, SAFARI
from edgeproxy.bots.stacks import h2_strange, tls_strange
from edgeproxy.listen.hello import GREASE

if TYPE_CHECKING:
    from edgeproxy.listen.hello import Hello
    from edgeproxy.prints import H2Print, H3Print, Prints

NAMES: Final = (
    "tls_known", "tls_13", "tls_ciphers", "tls_extensions", "tls_sigalgs", "tls_groups", "tls_grease_ciphers",
    "tls_grease_extensions",
    "tls_grease_groups", "tls_pq_group", "tls_pq_share", "tls_shares", "tls_alps_new", "tls_alps_old", "tls_ech",
    "tls_trust_anchors",
    "tls_compress_zlib", "tls_compress_brotli", "tls_compress_zstd", "tls_delegated", "tls_record_limit", "tls_sct", "tls_ticket",
    "tls_etm", "tls_scsv", "tls_weak_ciphers", "tls_formats", "tls_ed25519", "tls_alpn", "tls_strange", "tls_family",
    "h2", "h2_settings", "h2_table", "h2_push_off", "h2_window", "h2_streams", "h2_list", "h2_frame", "h2_no_priorities",
    "h2_increment", "h2_tree", "h2_pseudo", "h2_strange", "h2_family",
    "h3", "h3_parameters", "h3_settings", "h3_datagram", "h3_google", "h3_data", "h3_stream_data", "h3_idle", "h3_pseudo",
    "h3_family",
)  # fmt: skip
UNKNOWN: Final = -1.0  # a number that cannot be had
_PQ: Final = frozenset({0x11EB, 0x11EC, 0x11ED, 0x6399, 0x639A})  # ML-KEM and Kyber hybrids
_WEAK: Final = frozenset({0x0004, 0x0005, 0x000A, 0x0013, 0x0016, 0xC008, 0xC012, 0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F})
_UNSTABLE: Final = frozenset({0x15, 0x29, 0x2A})
_SCSV: Final = 0x00FF
_PSEUDO: Final = {"m,a,s,p": 1.0, "m,p,a,s": 2.0, "m,s,p,a": 3.0, "m,s,a,p": 4.0}
_GOOGLE: Final = frozenset({0x3127, 0x3128, 0x3129, 0x4752, 0xFF04DE1B, 0xFF73DB})  # transport parameters of Chromium's own
_MAX_ACK_DELAY, _DATAGRAM, _LARGEST = 0x0B, 0x20, 65_535
_NO_H2: Final = (0.0, *[UNKNOWN] * 12, 0.0)
_NO_H3: Final = (0.0, *[UNKNOWN] * 8, 0.0)


def connection(prints: Prints) -> tuple[float, ...]:
    """Numbers of NAMES. Computed again only when the connection has told more of itself since."""
    kept = prints.numbers
    h2, h3 = prints.h2, prints.h3
    if kept is not None and kept[0] is h2 and kept[1] is h3:
        return kept[2]
    hello = prints.hello
    made = (
        *(_tls(hello) if hello is not None else (0.0, *[UNKNOWN] * 29, 0.0)),
        *(_h2(h2) if h2 is not None else _NO_H2),
        *(_h3(h3) if h3 is not None else _NO_H3),
    )
    prints.numbers = (h2, h3, made)
    return made


def _tls(hello: Hello) -> tuple[float, ...]:
    ciphers = [each for each in hello.ciphers if each not in GREASE]
    extensions = [each for each in hello.extensions if each not in GREASE and each not in _UNSTABLE]
    groups = [each for each in hello.groups if each not in GREASE]
    shares = [each for each in hello.shares if each not in GREASE]
    has = frozenset(extensions)
    family = tls_family(hello)
    return (
        1.0,
        float(0x0304 in hello.versions),
        float(len(ciphers)),
        float(len(extensions)),
        float(len(hello.sigalgs)),
        float(len(groups)),
        float(len(hello.ciphers) - len(ciphers)),
        float(sum(each in GREASE for each in hello.extensions)),
        float(len(hello.groups) - len(groups)),
        float(not _PQ.isdisjoint(groups)),
        float(not _PQ.isdisjoint(shares)),
        float(len(shares)),
        float(0x44CD in has),
        float(0x4469 in has),
        float(0xFE0D in has),
        float(0xCA34 in has),
        float(1 in hello.compressions),
        float(2 in hello.compressions),
        float(3 in hello.compressions),
        float(0x22 in has),
        float(0x1C in has),
        float(0x12 in has),
        float(0x23 in has),
        float(0x16 in has),
        float(_SCSV in ciphers),
        float(sum(each in _WEAK for each in ciphers)),
        float(len(hello.formats)),
        float(0x0807 in hello.sigalgs),
        float(len(hello.alpn)) if b"h3" not in hello.alpn else 5.0,
        float(tls_strange(hello, family)),
        float(family),
    )


def tls_family(hello: Hello) -> int:
    """Whose stack a hello is built like. By what versions of a browser have in common, not by a list of hashes."""
    has = frozenset(hello.extensions)
    alps = 0x44CD in has or 0x4469 in has
    if alps and 0x39 in has:
        return CHROMIUM  # in QUIC it sends no GREASE here
    if not GREASE.isdisjoint(hello.ciphers):
        if alps:
            return CHROMIUM
        if 1 in hello.compressions or (not {0xC008, 0xC012}.isdisjoint(hello.ciphers) and 0x23 not in has):
            return SAFARI
        return CHROMIUM if 2 in hello.compressions else OTHER
    if 0x22 in has and 0x1C in has:
        return FIREFOX
    return OTHER


def _h2(h2: H2Print) -> tuple[float, ...]:
    settings = dict(h2.settings)
    family = h2_family(h2)
    return (
        1.0,
        float(len(h2.settings)),
        _log(settings.get(1)),
        float(settings[2] == 0) if 2 in settings else UNKNOWN,
        _log(settings.get(4)),
        _log(settings.get(3)),
        _log(settings.get(6)),
        _log(settings.get(5)),
        float(settings.get(9, UNKNOWN)) if settings.get(9, 0) < 2 else 2.0,
        _log(h2.window or None),
        float(len(h2.priorities)),
        _PSEUDO.get(h2.pseudo, 0.0),
        float(h2_strange(h2, family)),
        float(family),
    )


def h2_family(h2: H2Print) -> int:
    """Whose HTTP/2 it is: window, increment and the order of pseudo-header fields; other settings come and go with versions."""
    window = dict(h2.settings).get(4)
    if window == 6_291_456 and h2.window == 15_663_105 and h2.pseudo == "m,a,s,p":
        return CHROMIUM
    if window == 131_072 and h2.window == 12_517_377 and h2.pseudo == "m,p,a,s":
        return FIREFOX
    if window in {2_097_152, 4_194_304} and h2.window in {10_485_760, 10_420_225} and h2.pseudo in {"m,s,p,a", "m,s,a,p"}:
        return SAFARI
    return OTHER


def _h3(h3: H3Print) -> tuple[float, ...]:
    parameters = dict(h3.parameters)
    return (
        1.0,
        float(len(parameters)),
        float(len(h3.settings)) if h3.settings else UNKNOWN,
        float(0x20 in parameters),
        float(not _GOOGLE.isdisjoint(parameters)),
        _log(_integer(parameters.get(4))),
        _log(_integer(parameters.get(5))),
        _log(_integer(parameters.get(1))),
        _PSEUDO.get(h3.pseudo, 0.0),
        float(h3_family(h3)),
    )


def h3_family(h3: H3Print) -> int:
    """Whose QUIC it is. Of Safari's nothing was measured: OTHER."""
    parameters = dict(h3.parameters)
    if not _GOOGLE.isdisjoint(parameters) and h3.pseudo == "m,a,s,p":
        return CHROMIUM
    if h3.pseudo == "m,s,a,p" and _MAX_ACK_DELAY in parameters and _integer(parameters.get(_DATAGRAM)) == _LARGEST:
        return FIREFOX
    return OTHER


def _log(value: int | None) -> float:
    """Its logarithm to base 2, 0 for 0."""
    if value is None:
        return UNKNOWN
    return log2(value) if value > 0 else 0.0


def _integer(value: bytes | None) -> int | None:
    """RFC 9000 §16."""
    if value is None or len(value) not in {1, 2, 4, 8}:
        return None
    return int.from_bytes(value, "big") & ((1 << (8 * len(value) - 2)) - 1)
