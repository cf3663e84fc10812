# The generated configurations say what the fairness of the comparison rests on.
from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from bench import certificate, peers
from bench.children import Child, Failure
from edgeproxy.config.load import load


@pytest.fixture
def place(tmp_path: Path) -> peers.Place:
    certificate.make(tmp_path)
    return peers.place(tmp_path, 9000, tmp_path)


def test_edgeproxy_accepts_its_configuration(place: peers.Place) -> None:
    config = load(str(peers.edge_configuration(place)))
    assert config.workers == 1
    assert config.access_log is not None
    assert config.hsts.enabled
    assert len(config.routes) == 3


def test_every_peer_gets_hsts_and_the_three_routes(place: peers.Place) -> None:
    for name, peer in peers.known().items():
        if name == "edgeproxy":
            continue
        before = set(place.folder.iterdir())
        peer.launch(place)
        made = [path for path in place.folder.iterdir() if path not in before or path.name.startswith("envoy")]
        text = "".join(path.read_text() for path in made)
        assert peers.HSTS in text, name
        assert all(route in text for route in ("/v1/", "/sse/")), name
        assert str(place.port) in text, name


def test_envoy_logs_only_when_asked(place: peers.Place) -> None:
    peers.envoy_peer().launch(place)
    assert "access_log" not in json.loads((place.folder / "envoy.json").read_text())["static_resources"].__repr__()
    peers.envoy_peer(log=True).launch(place)
    assert "access.jsonl" in (place.folder / "envoy.json").read_text()


def test_added_peer(place: peers.Place) -> None:
    peer = peers.added("old=run --port {port} -c '{config}' 'two words'")
    launch = peer.launch(place)
    assert peer.name == "old"
    assert launch.command == ["run", "--port", str(place.port), "-c", str(place.folder / "edge.yaml"), "two words"]
    assert (place.folder / "edge.yaml").exists()
    with pytest.raises(Failure, match="NAME=COMMAND"):
        peers.added("nothing")


@pytest.mark.parametrize("kind", sorted(certificate.KINDS))
def test_certificate_loads(tmp_path: Path, kind: str) -> None:
    certificate.make(tmp_path, kind)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "both.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0


def test_child_ends_what_it_started(tmp_path: Path) -> None:
    with Child(["sleep", "60"], cores="0", cwd=tmp_path, log=tmp_path / "log") as child:
        assert child.alive()
    assert not child.alive()


def test_child_that_takes_too_long_is_a_failure(tmp_path: Path) -> None:
    child = Child(["sleep", "60"], cores="0", cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(Failure, match="did not end"):
        child.wait(0.05)
    assert not child.alive()
