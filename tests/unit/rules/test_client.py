# The client's place and connection as rules read them: Cloudflare's names, and nothing where nothing is known.
"""rules/client.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hellos import records, vector_of
from support.mmdb import database
from support.rules import facts

from edgeproxy.geo import Geo
from edgeproxy.message import Described
from edgeproxy.prints import Prints
from edgeproxy.rules.client import CLIENT
from edgeproxy.rules.compiler import compile_test
from edgeproxy.rules.facts import Context, Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.parser import parse

DUBLIN = {
    "city": {"names": {"en": "Dún Laoghaire"}}, "continent": {"code": "EU"},
    "country": {"iso_code": "IE", "is_in_european_union": True},
    "subdivisions": [{"iso_code": "L", "names": {"en": "Leinster"}}], "autonomous_system_number": 64500,
    "location": {"latitude": 53.29395, "longitude": -6.1, "metro_code": 635, "time_zone": "Europe/Dublin"},
    "postal": {"code": "A96"},
}  # fmt: skip


class Link:
    """A connection that counts how often it was asked."""

    def __init__(self, described: Described, rtt: float | None = 0.0204) -> None:
        self.described = described
        self.asked = 0
        self._rtt = rtt

    def describe(self) -> Described:
        self.asked += 1
        return self.described

    def rtt(self) -> float | None:
        return self._rtt


TLS = Described("TLSv1.3", "TLS_AES_128_GCM_SHA256", 517, "192.0.2.1", 8443)


def holds(text: str, given: Facts) -> bool:
    return bool(compile_test(parse(text, {}), {})(given))


def linked(described: Described = TLS, rtt: float | None = 0.0204, protocol: int = 1) -> Facts:
    made = facts(protocol=protocol)
    made.request.peer.link = Link(described, rtt)
    return made


@pytest.fixture
def geo(tmp_path: Path) -> Geo:
    path = tmp_path / "a.mmdb"
    path.write_bytes(database({"203.0.113.0/24": DUBLIN, "198.51.100.0/24": {"country": {"iso_code": "CH"}}}))
    return Geo([path])


def placed(geo: Geo | None, client: str = "203.0.113.7") -> Facts:
    made = facts(client=client)
    made.context = Context(geo)
    return made


# -- places ----------------------------------------------------------------------------------------------------------

PLACES = [
    ("ip.src.country", '"IE"', '"CH"'), ("ip.src.continent", '"EU"', '"NA"'), ("ip.src.city", '"Dún Laoghaire"', '"Dublin"'),
    ("ip.src.region", '"Leinster"', '"Munster"'), ("ip.src.region_code", '"L"', '"M"'), ("ip.src.asnum", "64500", "64501"),
    ("ip.src.lat", '"53.29395"', '"53.3"'), ("ip.src.lon", '"-6.10000"', '"-6.1"'), ("ip.src.metro_code", '"635"', '"636"'),
    ("ip.src.postal_code", '"A96"', '"A97"'), ("ip.src.timezone.name", '"Europe/Dublin"', '"Europe/Paris"'),
    ("ip.geoip.country", '"IE"', '"CH"'), ("ip.geoip.continent", '"EU"', '"NA"'), ("ip.geoip.asnum", "64500", "64501"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), PLACES)
@pytest.mark.parametrize("client", ["203.0.113.7", "::ffff:203.0.113.7"])
def test_places(geo: Geo, name: str, right: str, wrong: str, client: str) -> None:
    made = placed(geo, client)
    assert holds(f"{name} eq {right} and {name} ne {wrong}", made)
    assert not holds(f"{name} eq {wrong} or {name} ne {right}", made)
    assert FIELDS[name].stable and not FIELDS[name].always


@pytest.mark.parametrize(("name", "right", "wrong"), PLACES)
def test_places_that_nobody_knows(geo: Geo, name: str, right: str, wrong: str) -> None:
    for made in (placed(None), placed(geo, "192.0.2.1"), placed(geo, ""), placed(geo, "2001:db8::1")):
        assert not holds(f"{name} eq {right} or {name} ne {wrong}", made)


@pytest.mark.parametrize("name", ["ip.src.subdivision_{}_iso_code", "ip.geoip.subdivision_{}_iso_code"])
def test_subdivisions_are_empty_where_files_know_none(geo: Geo, name: str) -> None:
    assert holds(f'{name.format(1)} eq "IE-L" and {name.format(2)} eq ""', placed(geo))
    for client in ("198.51.100.1", "192.0.2.1"):
        assert holds(f'{name.format(1)} eq "" and {name.format(2)} ne "IE-D"', placed(geo, client))
    for made in (placed(None), placed(geo, "")):
        assert not holds(f'{name.format(1)} eq "" or {name.format(1)} ne "IE-L"', made)


def test_older_names_have_the_values_of_the_new_ones(geo: Geo) -> None:
    names = [name for name in FIELDS if name.startswith("ip.geoip.")]
    assert len(names) == 6
    for name in names:
        old, new = FIELDS[name], FIELDS[name.replace("geoip", "src")]
        assert (old.type, old.stable, old.always, old.cost) == (new.type, new.stable, new.always, new.cost)
        for made in (placed(geo), placed(geo, "198.51.100.1"), placed(None)):
            assert getattr(made, old.slot) == getattr(made, new.slot)
    assert holds("ip.geoip.is_in_european_union", placed(geo))


def test_the_european_union(geo: Geo) -> None:
    assert placed(geo).ip_src_is_in_european_union is True
    assert placed(geo, "198.51.100.1").ip_src_is_in_european_union is False
    assert placed(geo, "192.0.2.1").ip_src_is_in_european_union is None
    assert holds("ip.src.is_in_european_union", placed(geo))
    assert holds("not ip.src.is_in_european_union", placed(None))


# -- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    'cf.tls_version eq "TLSv1.3"', 'cf.tls_cipher eq "AEAD-AES128-GCM-SHA256"', "cf.tls_client_hello_length eq 517",
    "cf.edge.server_ip eq 192.0.2.1", "cf.edge.server_ip in {192.0.2.0/24}", "cf.edge.server_port in {443 8443}",
    "cf.edge.client_tcp", "cf.timings.client_tcp_rtt_msec eq 20",
])  # fmt: skip
def test_connections(text: str) -> None:
    assert holds(text, linked())
    assert not holds(f"not ({text})", linked())


@pytest.mark.parametrize(("openssl", "shown"), [
    ("TLS_AES_256_GCM_SHA384", b"AEAD-AES256-GCM-SHA384"), ("TLS_CHACHA20_POLY1305_SHA256", b"AEAD-CHACHA20-POLY1305-SHA256"),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-GCM-SHA256"), ("", None),
])  # fmt: skip
def test_ciphers(openssl: str, shown: bytes | None) -> None:
    assert linked(TLS._replace(cipher=openssl)).cf_tls_cipher == shown


def test_tcp_and_quic() -> None:
    quic, tcp = linked(protocol=2), linked()
    assert (tcp.cf_edge_client_tcp, tcp.cf_timings_client_tcp_rtt_msec, tcp.cf_timings_client_quic_rtt_msec) == (True, 20, None)
    assert (quic.cf_edge_client_tcp, quic.cf_timings_client_tcp_rtt_msec) == (False, None)
    assert quic.cf_timings_client_quic_rtt_msec == 20
    assert linked(rtt=None).cf_timings_client_tcp_rtt_msec is None
    assert linked(rtt=0.0).cf_timings_client_tcp_rtt_msec == 0


def test_what_is_not_known_of_a_connection() -> None:
    names = [name for name in CLIENT if name.startswith("cf.") and name != "cf.edge.client_tcp"]
    for made in (facts(), linked(Described("", "", 0, "", 0), None)):
        assert [name for name in names if getattr(made, FIELDS[name].slot) is not None] == []
    assert linked(TLS._replace(address="::ffff:192.0.2.1")).cf_edge_server_ip == linked().cf_edge_server_ip


def test_fingerprints() -> None:
    vector = vector_of("chromium")
    made = facts()
    made.request.peer.prints = Prints(records(bytes.fromhex(vector["client_hello"])))
    for text in (
        f'cf.bot_management.ja4 eq "{vector["ja4"]}"', f'cf.bot_management.ja3_hash eq "{vector["ja3"]}"',
        'starts_with(cf.bot_management.ja4, "t13d1517h2_")',
    ):  # fmt: skip
        assert holds(text, made)
    unread = facts()
    unread.request.peer.prints = Prints(b"no hello")
    for nothing in (unread, facts()):
        assert (nothing.cf_bot_management_ja4, nothing.cf_bot_management_ja3_hash) == (None, None)
        assert not holds('cf.bot_management.ja4 ne "x"', nothing), "a missing value"


def test_a_connection_is_asked_once_and_only_by_rules_that_read_it() -> None:
    made = linked()
    link = made.request.peer.link
    assert isinstance(link, Link)
    assert holds('http.host eq "example.org" and cf.edge.client_tcp', made)
    assert link.asked == 0
    assert holds('cf.tls_version eq "TLSv1.3" and cf.edge.server_port eq 8443 and cf.tls_client_hello_length gt 1', made)
    assert link.asked == 1


def test_round_trips_are_volatile_and_the_rest_is_stable() -> None:
    assert {name for name in CLIENT if not FIELDS[name].stable} == {
        "cf.timings.client_quic_rtt_msec", "cf.timings.client_tcp_rtt_msec",
    }  # fmt: skip
