"""Development certificates: what is in them, what OpenSSL thinks of them, when they are made anew."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgeproxy.certs import CA_LIFETIME, LEAF_LIFETIME, CertificatePaths, make_development

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def contents(paths: CertificatePaths) -> tuple[bytes, bytes, bytes, bytes]:
    return paths.ca.read_bytes(), paths.ca_key.read_bytes(), paths.cert.read_bytes(), paths.key.read_bytes()


def test_openssl_verifies_the_chain_for_every_name(tmp_path: Path) -> None:
    paths = make_development(tmp_path)
    base = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(paths.ca)]
    for check in (["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"]):
        done = subprocess.run([*base, *check, str(paths.cert)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = subprocess.run(
        [*base, "-verify_hostname", "example.org", str(paths.cert)], capture_output=True, text=True, check=False
    )
    assert wrong.returncode != 0


@pytest.mark.parametrize(("name", "good"), [("localhost", True), ("127.0.0.1", True), ("example.org", False)])
def test_python_ssl_accepts_it_for_its_names_only(tmp_path: Path, name: str, good: bool) -> None:
    paths = make_development(tmp_path)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(paths.cert, paths.key)
    client_context = ssl.create_default_context(cafile=str(paths.ca))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server_context.wrap_socket(near, server_side=True).close()
        except (ssl.SSLError, OSError):
            near.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        if good:
            client_context.wrap_socket(far, server_hostname=name).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                client_context.wrap_socket(far, server_hostname=name)
    finally:
        far.close()
        server.join()


def test_extensions_are_those_of_a_ca_and_a_server(tmp_path: Path) -> None:
    paths = make_development(tmp_path, names=("localhost", "*.edge.test", "10.1.2.3"), now=NOW)
    ca, leaf = read(paths.ca), read(paths.cert)
    for cert in (ca, leaf):
        public = cert.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        assert cert.extensions.get_extension_for_class(x509.BasicConstraints).critical
        assert cert.extensions.get_extension_for_class(x509.KeyUsage).critical
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "*.edge.test"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.1.2.3")]
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == identifier
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != identifier
    assert leaf.not_valid_after_utc == NOW + LEAF_LIFETIME


def test_keys_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    paths = make_development(tmp_path / "deep" / "certs")
    assert {stat.S_IMODE(p.stat().st_mode) for p in (paths.ca_key, paths.key)} == {0o600}
    assert sorted(p.name for p in paths.ca.parent.iterdir()) == ["ca-key.pem", "ca.pem", "edge-key.pem", "edge.pem"]


def test_what_is_valid_is_reused(tmp_path: Path) -> None:
    first = contents(make_development(tmp_path, now=NOW))
    assert contents(make_development(tmp_path, now=NOW + LEAF_LIFETIME - timedelta(days=7, seconds=1))) == first
    assert contents(make_development(tmp_path, names=["localhost"], now=NOW)) == first


def test_a_leaf_near_its_end_is_renewed_under_the_same_ca(tmp_path: Path) -> None:
    first = contents(make_development(tmp_path, now=NOW))
    second = contents(make_development(tmp_path, now=NOW + LEAF_LIFETIME - timedelta(days=7)))
    assert second[:2] == first[:2]
    assert second[2] != first[2] and second[3] != first[3]


def test_a_ca_near_its_end_is_replaced_with_its_leaf(tmp_path: Path) -> None:
    first = contents(make_development(tmp_path, now=NOW))
    second = contents(make_development(tmp_path, now=NOW + CA_LIFETIME - timedelta(days=7)))
    assert all(new != old for new, old in zip(second, first, strict=True))


def test_certificates_from_the_future_are_not_reused(tmp_path: Path) -> None:
    first = contents(make_development(tmp_path, now=NOW))
    assert contents(make_development(tmp_path, now=NOW - timedelta(days=2))) != first


def test_another_name_makes_another_leaf(tmp_path: Path) -> None:
    first = contents(make_development(tmp_path, now=NOW))
    second = contents(make_development(tmp_path, names=("localhost", "chat.test"), now=NOW))
    assert second[:2] == first[:2] and second[2] != first[2]


def test_a_leaf_of_another_ca_is_replaced(tmp_path: Path) -> None:
    paths = make_development(tmp_path / "a", now=NOW)
    other = make_development(tmp_path / "b", now=NOW)
    paths.ca.write_bytes(other.ca.read_bytes())
    paths.ca_key.write_bytes(other.ca_key.read_bytes())
    make_development(tmp_path / "a", now=NOW)
    read(paths.cert).verify_directly_issued_by(read(paths.ca))
    assert paths.ca.read_bytes() == other.ca.read_bytes()


@pytest.mark.parametrize("damage", ["ca.pem", "ca-key.pem", "edge.pem", "edge-key.pem"])
@pytest.mark.parametrize("how", ["missing", "garbage", "truncated", "swapped"])
def test_damaged_files_are_made_anew(tmp_path: Path, damage: str, how: str) -> None:
    paths = make_development(tmp_path, now=NOW)
    victim = tmp_path / damage
    if how == "missing":
        victim.unlink()
    elif how == "garbage":
        victim.write_bytes(b"\x00not a pem")
    elif how == "truncated":
        victim.write_bytes(victim.read_bytes()[:-90])
    else:
        other = make_development(tmp_path / "other", now=NOW)
        victim.write_bytes((other.ca.parent / damage).read_bytes())
    make_development(tmp_path, now=NOW)
    ca, leaf = read(paths.ca), read(paths.cert)
    leaf.verify_directly_issued_by(ca)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths.cert, paths.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths.ca, paths.ca_key)


def test_a_key_that_was_open_to_others_is_replaced(tmp_path: Path) -> None:
    paths = make_development(tmp_path, now=NOW)
    old = paths.key.read_bytes()
    paths.key.chmod(0o640)
    make_development(tmp_path, now=NOW)
    assert paths.key.read_bytes() != old
    assert stat.S_IMODE(paths.key.stat().st_mode) == 0o600


def test_makers_at_the_same_time_leave_one_matching_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: make_development(tmp_path), range(4)))
    assert len(set(results)) == 1
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(results[0].cert, results[0].key)
    read(results[0].cert).verify_directly_issued_by(read(results[0].ca))


@pytest.mark.parametrize("name", ["", "bücher.example", "-a.test", "a b", "a..b", "x" * 64, "under_score"])
def test_names_that_cannot_be_certified_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a DNS name"):
        make_development(tmp_path / "none", names=[name])
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="at least one name"):
        make_development(tmp_path / "none", names=[])
