"""Configurations and certificates that the tests of this directory start from."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeproxy.config.load import load
from edgeproxy.config.problems import ConfigError, Problem

NOW = 1_750_000_000.0  # 2025-06-15 15:06:40 UTC: every test's clock
DAY = 86400.0


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def certificate(
    key: ec.EllipticCurvePrivateKey,
    *,
    start: float = NOW - DAY,
    end: float = NOW + DAY,
    names: tuple[str, ...] = ("edge.example.org",),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge.example.org")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(utc(start))
        .not_valid_after(utc(end))
    )
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(san, critical=False)
    return builder.sign(key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def write_pair(directory: Path) -> tuple[Path, Path]:
    """A certificate that is valid at NOW, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    cert_path, key_path = directory / "edge.pem", directory / "edge-key.pem"
    cert_path.write_bytes(pem(certificate(key)))
    key_path.write_bytes(key_pem(key))
    return cert_path, key_path


class Writer:
    """Writes configurations below one directory, with a good certificate beside them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cert, self.key = write_pair(directory)
        self.path = directory / "edge.yaml"

    def text(self, **sections: str) -> str:
        """The smallest configuration, with sections replaced, added or (empty text) left out. Values are flow YAML."""
        whole = {
            "listen": '{https: "127.0.0.1:8443"}',
            "tls": f'{{certificates: [{{cert: "{self.cert}", key: "{self.key}"}}]}}',
            "upstreams": '{chat: {targets: [{url: "http://127.0.0.1:9000"}]}}',
            "routes": "[{upstream: chat}]",
        } | sections
        return "".join(f"{name}: {value}\n" for name, value in whole.items() if value)

    def write(self, content: str | bytes) -> Path:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.path

    def problems(self, content: str | bytes) -> list[Problem]:
        """What is wrong with a file of this content; empty when it is right."""
        try:
            load(self.write(content), now=NOW)
        except ConfigError as error:
            found = error.problems
        else:
            return []
        assert found, "an error without a problem says nothing"
        return found

    def only(self, **sections: str) -> Problem:
        """The one problem of the smallest configuration with these sections."""
        found = self.problems(self.text(**sections))
        assert len(found) == 1, "\n".join(problem.headline() for problem in found)
        return found[0]
