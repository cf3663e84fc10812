# What rules read of the client beside its request: where it is, and the connection that it came by. Both are asked when a
# rule wants to know, and not before.
"""`CLIENT`: sources of `ip.src.*` (by their older names: `ip.geoip.*`), `cf.tls_*`, `cf.edge.*`, `cf.timings.client_*`,
and of the fingerprints in `cf.bot_management.*`, with Cloudflare's names and units."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.rules.addresses import client_code, show_ip

if TYPE_CHECKING:
    from edgeproxy.geo import Place
    from edgeproxy.message import Described
    from edgeproxy.rules.facts import Facts

_QUIC: Final = 2  # index of HTTP/3 in observe.metrics.PROTOCOLS
# BoringSSL's names, which Cloudflare shows, where they are not OpenSSL's: those of TLS 1.3.
_CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": "AEAD-AES128-GCM-SHA256",
    "TLS_AES_256_GCM_SHA384": "AEAD-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256": "AEAD-CHACHA20-POLY1305-SHA256",
}


def place(facts: Facts) -> Place | None:
    """Where the client is; None where nobody can know."""
    geo = facts.context.geo
    if geo is None or facts.ip_src is None:
        return None
    return geo.place(show_ip(facts.ip_src))


def link(facts: Facts) -> Described | None:
    """The client's connection; None where there is none (golden cases)."""
    link = facts.request.peer.link
    return link.describe() if link is not None else None


def _text(pick: Callable[[Place], str | None]) -> Callable[[Facts], bytes | None]:
    def source(facts: Facts) -> bytes | None:
        found = pick(facts.place) if facts.place is not None else None
        return found.encode("utf-8", "replace") if found is not None else None

    return source


def _degrees(index: int) -> Callable[[Facts], bytes | None]:
    """One of latitude and longitude as Cloudflare writes them: `37.78044`."""

    def source(facts: Facts) -> bytes | None:
        found = facts.place.position() if facts.place is not None else None
        return b"%.5f" % found[index] if found is not None else None

    return source


def _metro_code(facts: Facts) -> bytes | None:
    found = facts.place.metro_code() if facts.place is not None else None
    return b"%d" % found if found is not None else None


def _subdivision(level: int) -> Callable[[Facts], bytes | None]:
    """Where files know none, the string is empty, as Cloudflare's page says of these two fields alone."""

    def source(facts: Facts) -> bytes | None:
        place = facts.place
        return (place.subdivision(level) or "").encode("utf-8", "replace") if place is not None else None

    return source


def _of_link(pick: Callable[[Described], Any]) -> Callable[[Facts], Any]:
    """Something of the connection; what is empty or 0 is not known."""
    return lambda facts: (pick(facts.link) or None) if facts.link is not None else None


def _cipher(described: Described) -> bytes:
    return _CIPHERS.get(described.cipher, described.cipher).encode("ascii", "replace")


def _print(name: str) -> Callable[[Facts], bytes | None]:
    """A name of the connection's ClientHello; missing where there was none, or none that could be read."""

    def source(facts: Facts) -> bytes | None:
        prints = facts.request.peer.prints
        return (getattr(prints, name).encode("ascii") or None) if prints is not None else None

    return source


def _rtt(quic: bool) -> Callable[[Facts], int | None]:
    """Milliseconds; missing on connections of the other kind."""

    def source(facts: Facts) -> int | None:
        request = facts.request
        link = request.peer.link
        seconds = link.rtt() if link is not None and (request.protocol == _QUIC) is quic else None
        return round(seconds * 1000) if seconds is not None else None

    return source


_CLIENT: Final[dict[str, Callable[[Facts], Any]]] = {
    "cf.bot_management.ja3_hash": _print("ja3"),
    "cf.bot_management.ja4": _print("ja4"),
    "cf.edge.client_tcp": lambda facts: facts.request.protocol != _QUIC,
    "cf.edge.server_ip": _of_link(lambda described: client_code(described.address)),
    "cf.edge.server_port": _of_link(lambda described: described.port),
    "cf.timings.client_quic_rtt_msec": _rtt(quic=True),
    "cf.timings.client_tcp_rtt_msec": _rtt(quic=False),
    "cf.tls_cipher": _of_link(_cipher),
    "cf.tls_client_hello_length": _of_link(lambda described: described.hello),
    "cf.tls_version": _of_link(lambda described: described.version.encode("ascii")),
    "ip.src.asnum": lambda facts: facts.place.asnum() if facts.place is not None else None,
    "ip.src.city": _text(lambda place: place.city()),
    "ip.src.continent": _text(lambda place: place.continent()),
    "ip.src.country": _text(lambda place: place.country()),
    "ip.src.is_in_european_union": lambda facts: facts.place.is_in_european_union() if facts.place is not None else None,
    "ip.src.lat": _degrees(0),
    "ip.src.lon": _degrees(1),
    "ip.src.metro_code": _metro_code,
    "ip.src.postal_code": _text(lambda place: place.postal_code()),
    "ip.src.region": _text(lambda place: place.region()),
    "ip.src.region_code": _text(lambda place: place.region_code()),
    "ip.src.subdivision_1_iso_code": _subdivision(0),
    "ip.src.subdivision_2_iso_code": _subdivision(1),
    "ip.src.timezone.name": _text(lambda place: place.timezone()),
}
# The older names, which Cloudflare still takes.
_OLDER: Final = {
    f"ip.geoip.{name}": f"ip_src_{name}"
    for name in ("asnum", "continent", "country", "is_in_european_union", "subdivision_1_iso_code", "subdivision_2_iso_code")
}
CLIENT: Final[dict[str, Callable[[Facts], Any]]] = {
    **_CLIENT,
    **{name: attrgetter(slot) for name, slot in _OLDER.items()},
}
