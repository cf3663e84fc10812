from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgeproxy.config.certificates import Fault, Unusable, check_ca, check_pair, names_of, read_chain

from .samples import DAY, NOW, certificate, key_pem, pem


class Pair:
    """Two files whose contents each test decides."""

    def __init__(self, directory: Path) -> None:
        self.secret = ec.generate_private_key(ec.SECP256R1())
        self.cert = directory / "edge.pem"
        self.key = directory / "edge-key.pem"
        self.cert.write_bytes(pem(certificate(self.secret)))
        self.key.write_bytes(key_pem(self.secret))

    def only(self, now: float = NOW) -> Fault:
        (fault,) = check_pair(self.cert, self.key, now)
        assert str(self.cert if fault.which == "cert" else self.key) in fault.message
        return fault


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_good_pair_has_no_faults(pair: Pair) -> None:
    assert check_pair(pair.cert, pair.key, NOW) == []


def test_time_is_passed_in(pair: Pair) -> None:
    assert check_pair(pair.cert, pair.key, NOW + DAY) == []
    assert "expired on 2025-06-16 15:06 UTC" in pair.only(NOW + DAY + 1).message
    assert check_pair(pair.cert, pair.key, NOW - DAY) == []
    early = pair.only(NOW - DAY - 1)
    assert "is not valid before 2025-06-14 15:06 UTC" in early.message
    assert "clock" in early.hint


def test_a_missing_file_is_named(pair: Pair) -> None:
    pair.key.unlink()
    assert pair.only() == Fault("key", f"key {pair.key} does not exist", "")
    pair.cert.unlink()
    assert [fault.which for fault in check_pair(pair.cert, pair.key, NOW)] == ["cert", "key"]


def test_a_relative_path_says_where_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    faults = check_pair(Path("no.pem"), Path("no-key.pem"), NOW)
    assert all("working directory" in fault.hint for fault in faults)


def test_a_directory_is_no_certificate(pair: Pair) -> None:
    pair.cert.unlink()
    pair.cert.mkdir()
    assert "cannot be read: Is a directory" in pair.only().message


def test_a_key_of_another_pair(pair: Pair) -> None:
    pair.key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    fault = pair.only()
    assert fault.which == "key"
    assert fault.message == f"key {pair.key} does not belong to certificate {pair.cert}"


def test_a_chain_in_the_wrong_order(pair: Pair) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pair.cert.write_bytes(pem(certificate(other), certificate(pair.secret)))
    assert "wrong order" in pair.only().hint


def test_an_encrypted_key_says_how_to_decrypt_it(pair: Pair) -> None:
    pair.key.write_bytes(key_pem(pair.secret, b"password"))
    fault = pair.only()
    assert "is encrypted" in fault.message
    assert "openssl pkey" in fault.hint


def test_an_old_encrypted_key(pair: Pair) -> None:
    encryption = serialization.BestAvailableEncryption(b"password")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pair.key.write_bytes(pair.secret.private_bytes(serialization.Encoding.PEM, form, encryption))
    assert "is encrypted" in pair.only().message


def test_swapped_files(pair: Pair) -> None:
    pair.cert, pair.key = pair.key, pair.cert
    faults = check_pair(pair.cert, pair.key, NOW)
    assert [fault.which for fault in faults] == ["cert", "key"]
    assert all("swapped" in fault.hint for fault in faults)


def test_a_certificate_without_names(pair: Pair) -> None:
    pair.cert.write_bytes(pem(certificate(pair.secret, names=())))
    assert "has no subject alternative names" in pair.only().message


def test_several_faults_of_one_pair_come_together(pair: Pair) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pair.cert.write_bytes(pem(certificate(other, end=NOW - 1, names=())))
    faults = check_pair(pair.cert, pair.key, NOW)
    assert [fault.message.partition(".pem ")[2][:20] for fault in faults] == [
        "expired on 2025-06-1",
        "has no subject alter",
        "does not belong to c",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be parsed"),
        (b"-----BEGIN CERTIFICATE-----\n", "cannot be parsed"),
        (b"\x30\x82\x01\x00", "is DER, not PEM"),
        (b"x" * (1 << 20) + b"x", "is larger than 1 MiB"),
    ],
)
def test_what_is_no_certificate(pair: Pair, content: bytes, message: str) -> None:
    pair.cert.write_bytes(content)
    assert message in pair.only().message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be parsed"),
    ],
)
def test_what_is_no_key(pair: Pair, content: bytes, message: str) -> None:
    pair.key.write_bytes(content)
    assert message in pair.only().message


def test_a_short_rsa_key(pair: Pair) -> None:
    short = rsa.generate_private_key(65537, 1024)
    form = serialization.PrivateFormat.PKCS8
    pair.key.write_bytes(
        short.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()),
    )
    messages = [fault.message for fault in check_pair(pair.cert, pair.key, NOW)]
    assert f"key {pair.key} has 1024 bits" in messages


def test_names_are_those_of_the_san(pair: Pair) -> None:
    leaf = certificate(pair.secret, names=("Edge.example.org", "*.example.org"))
    assert names_of(leaf) == ("edge.example.org", "*.example.org")


def test_a_chain_is_read_in_file_order(pair: Pair) -> None:
    first, second = certificate(pair.secret), certificate(pair.secret, names=("b.example.org",))
    pair.cert.write_bytes(pem(first, second))
    assert read_chain(pair.cert) == [first, second]


def test_a_ca_file(pair: Pair) -> None:
    assert check_ca(pair.cert) == []
    ((message, _),) = check_ca(pair.cert.with_name("no-ca.pem"))
    assert "no-ca.pem does not exist" in message
    with pytest.raises(Unusable):
        read_chain(pair.key)
