# Development certificates: a private CA and one leaf, made on this machine and never committed.
# A key never exists with a wider mode than 0600, and a file is either whole or absent.
"""Makes and reuses the certificates that `edgeproxy demo` and `edgeproxy certs dev` need.

Nothing here is meant for production: the CA's key lies unencrypted beside what it signs.
Profile: RFC 5280 §4.2 (extensions), RFC 9525 (names are in subjectAltName only).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeproxy.replacing import locked, replace

DEVELOPMENT_NAMES = ("localhost", "127.0.0.1", "::1")
RENEW_BEFORE = timedelta(days=7)
CA_LIFETIME = timedelta(days=730)
LEAF_LIFETIME = timedelta(days=90)
# Clocks of containers and their hosts differ a little; a certificate "from the future" is a confusing error.
BACKDATE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """Where the four PEM files are. `ca` is what clients are told to trust; the two keys have mode 0600."""

    ca: Path
    ca_key: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate with the private key that belongs to it."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_development(
    directory: Path, names: Sequence[str] = DEVELOPMENT_NAMES, now: datetime | None = None
) -> CertificatePaths:
    """Makes a development CA and a leaf for `names` (DNS names, `*.` wildcards, IP addresses) in `directory`.

    What is there is reused while it is valid for more than seven days, fits its key, its names and its CA;
    a leaf that does not fit is made anew under the same CA. Two processes may call this at the same time.
    `now` is aware (UTC by default). Raises ValueError for names that cannot be certified, OSError for the rest.
    """
    now = now or datetime.now(UTC)
    alternatives = [_general_name(name) for name in names]
    if not alternatives:
        raise ValueError("a certificate needs at least one name")
    directory.mkdir(parents=True, exist_ok=True)
    paths = CertificatePaths(
        directory / "ca.pem", directory / "ca-key.pem", directory / "edge.pem", directory / "edge-key.pem"
    )
    with locked(directory):
        ca = _load(paths.ca, paths.ca_key)
        if ca is None or not _is_usable_ca(ca.cert, now):
            ca = _make_ca(now)
            _store(ca, paths.ca, paths.ca_key)
        leaf = _load(paths.cert, paths.key)
        if leaf is None or not _is_usable_leaf(leaf.cert, ca.cert, alternatives, now):
            _store(_make_leaf(ca, alternatives, now), paths.cert, paths.key)
    return paths


def key_pin(certificate: Path) -> str:
    """SHA-256 of a certificate's public key, as browsers take it on their command line (RFC 7469 §2.4)."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


def _general_name(name: str) -> x509.GeneralName:
    """`127.0.0.1` or `::1` → an IP entry, everything else → a DNS entry (ASCII; IDNs in their `xn--` form)."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.removeprefix("*.").split(".")
    valid = all(
        0 < len(label) < 64 and label.isascii() and label.replace("-", "").isalnum() and label.strip("-") == label
        for label in labels
    )
    if not valid or len(name) > 253:
        raise ValueError(f"{name!r} is neither an IP address nor a DNS name in ASCII")
    return x509.DNSName(name.lower())


def _make_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for every CA: two of them in one trust store must not shadow each other (OpenSSL looks
    # issuers up by subject), and the person who finds it there can tell where it comes from.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "edgeproxy development"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"edgeproxy development CA {secrets.token_hex(4)}"),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    cert = (
        _builder(subject, subject, key, now, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Pair(cert, key)


def _make_leaf(ca: _Pair, names: Sequence[x509.GeneralName], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # RFC 9525 §6.3: clients read subjectAltName only. The common name is for the person who looks at it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgeproxy development")])
    authority = ca.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    cert = (
        _builder(subject, ca.cert.subject, key, now, min(now + LEAF_LIFETIME, ca.cert.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return _Pair(cert, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """RFC 5280 §4.2.1.3: a CA signs certificates and revocation lists, an ECDSA server signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_fresh(cert: x509.Certificate, now: datetime) -> bool:
    return cert.not_valid_before_utc <= now < cert.not_valid_after_utc - RENEW_BEFORE


def _is_usable_ca(cert: x509.Certificate, now: datetime) -> bool:
    try:
        constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)  # the leaf points at it
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return constraints.ca and _is_fresh(cert, now) and _is_issued_by(cert, cert)


def _is_usable_leaf(
    cert: x509.Certificate, ca: x509.Certificate, names: Iterable[x509.GeneralName], now: datetime
) -> bool:
    try:
        present = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return set(names) <= set(present) and _is_fresh(cert, now) and _is_issued_by(cert, ca)


def _is_issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(cert_path: Path, key_path: Path) -> _Pair | None:
    """The pair as it is on disk, or None when it is absent, unreadable, foreign, or was open to others."""
    try:
        if key_path.stat().st_mode & 0o077:
            return None  # somebody else could read this key: it is not a secret any more
        cert = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        return None
    return _Pair(cert, key)


def _store(pair: _Pair, cert_path: Path, key_path: Path) -> None:
    pem = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The key first: a crash in between leaves a pair that does not match, which the next call makes anew.
    replace(key_path, pem, 0o600)
    replace(cert_path, pair.cert.public_bytes(serialization.Encoding.PEM), 0o644)
