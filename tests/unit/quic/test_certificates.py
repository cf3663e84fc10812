# The certificate a QUIC client gets is the one it would get over TCP, and every key that is let in can sign.
"""quic/certificates.py."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from aioquic.tls import Context
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from support.edge import configuration, prepared

from edgeproxy.certs import make_development
from edgeproxy.config.certificates import QUIC_KEYS, check_pair, names_of, quic_fault
from edgeproxy.config.model import Tls
from edgeproxy.listen.contexts import Contexts, EdgeSSLObject
from edgeproxy.quic.certificates import QuicCertificates

NAMES = (("edge.test", "*.edge.test", "127.0.0.1"), ("chat.edge.test", "EDGE.test"), ("*.chat.edge.test", "other.test"))

KEYS: dict[str, Any] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(2048),
}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    made = []
    for names in NAMES:
        paths = make_development(tmp_path_factory.mktemp("certs"), names)
        made.append({"cert": paths.cert, "key": paths.key})
    return Tls.model_validate({"certificates": made})


@pytest.fixture(scope="module")
def quic(tls: Tls) -> QuicCertificates:
    return QuicCertificates(tls)


def own_names(certificate: x509.Certificate) -> frozenset[str]:
    return frozenset(names_of(certificate))


@pytest.mark.parametrize(("asked", "index"), [
    ("edge.test", 0), ("EDGE.Test", 0), ("a.edge.test", 0), ("chat.edge.test", 1), ("x.chat.edge.test", 2), ("127.0.0.1", 0),
    ("other.test", 2), ("a.b.edge.test", 0), ("unknown.example", 0), ("", 0), ("*.edge.test", 0), (None, 0),
])  # fmt: skip
def test_the_choice_is_that_of_tcp(tls: Tls, quic: QuicCertificates, asked: str | None, index: int) -> None:
    identity = quic.choose(asked)
    expected = x509.load_pem_x509_certificates(tls.certificates[index].cert.read_bytes())
    assert [identity.certificate, *identity.chain] == expected
    assert identity.key.public_key() == identity.certificate.public_key()
    contexts = Contexts(tls, ("h2",), bytes(80))
    connection = contexts.default.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert isinstance(connection, EdgeSSLObject)
    contexts.default.sni_callback(connection, asked, contexts.default)  # type: ignore[operator]  # what OpenSSL calls
    assert identity.names == contexts.names(connection)
    assert identity.names == (None if asked is None else own_names(expected[0]))


def test_intermediates_follow_in_the_order_of_the_file(tls: Tls, tmp_path: Path) -> None:
    leaf, *others = (pair.cert.read_bytes() for pair in tls.certificates)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(leaf + others[0] + others[1])
    pair = {"cert": chain, "key": tls.certificates[0].key}
    identity = QuicCertificates(Tls.model_validate({"certificates": [pair]})).choose("edge.test")
    in_file = x509.load_pem_x509_certificates(chain.read_bytes())
    assert (identity.certificate, list(identity.chain)) == (in_file[0], in_file[1:])


@pytest.mark.parametrize("kind", KEYS)
def test_the_keys_that_pass_are_those_that_aioquic_signs_with(kind: str) -> None:
    """`check` says what the handshake would find."""
    key = KEYS[kind]()
    engine = Context(is_client=False)
    engine.certificate_private_key = key
    usable = bool(engine._signature_algorithms_for_private_key())
    assert usable is (kind not in {"P-521", "DSA"})
    assert (quic_fault(Path("k.pem"), key) is None) is usable


@pytest.fixture
def p521(tmp_path: Path) -> dict[str, Path]:
    paths = make_development(tmp_path, ["localhost"])
    key = ec.generate_private_key(ec.SECP521R1())
    old = x509.load_pem_x509_certificate(paths.cert.read_bytes())
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, key.public_key(), 7, old.not_valid_before_utc, old.not_valid_after_utc, list(old.extensions)
    )
    paths.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return {"cert": paths.cert, "key": paths.key}


def test_a_key_that_is_good_for_tcp_alone(p521: dict[str, Path]) -> None:
    before = x509.load_pem_x509_certificate(p521["cert"].read_bytes()).not_valid_after_utc.timestamp() - 1
    assert check_pair(p521["cert"], p521["key"], before) == []
    (fault,) = check_pair(p521["cert"], p521["key"], before, quic=True)
    assert fault == ("key", f"key {p521['key']} is ECDSA on secp521r1, which cannot be used for h3", QUIC_KEYS)
    pairs = {"certificates": [p521]}
    with pytest.raises(ValueError, match="cannot be used for h3"):
        prepared(configuration(tls=pairs))
    assert prepared(configuration(tls=pairs, listen={"protocols": ["h1"]})).quic_certificates is None


def test_a_snapshot_has_them_where_there_is_h3() -> None:
    made = prepared(configuration()).quic_certificates
    assert made is not None
    assert "localhost" in (made.choose("localhost").names or ())
    assert prepared(configuration(listen={"protocols": ["h1", "h2"]})).quic_certificates is None
    assert prepared(configuration(listen={"https": "unix:/x"})).quic_certificates is None
