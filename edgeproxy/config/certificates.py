# Certificates, keys and CA files on disk, judged before any port opens. Time comes in; nothing here serves TLS.
"""Reads the PEM files a configuration names and says what is wrong with each, by path.

The judgement is ours, made with `cryptography`, because OpenSSL's `load_cert_chain` stops at the first fault, names no
file, and takes an expired certificate without a word.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_BYTES: Final = 1 << 20
QUIC_KEYS: Final = "h3 takes RSA, ECDSA (P-256, P-384), Ed25519 and Ed448; or go without h3: protocols: [h1, h2]"
_MIN_RSA: Final = 2048  # OpenSSL's security level 2, the default, refuses shorter keys at the handshake


class Fault(NamedTuple):
    """What is wrong with a pair, and which of its two files to point at."""

    which: Literal["cert", "key"]
    message: str
    hint: str = ""


class Unusable(ValueError):
    """A PEM file that cannot be used; the message names its path."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def check_pair(cert: Path, key: Path, now: float, *, quic: bool = False) -> list[Fault]:
    """Everything wrong with a certificate chain and its key at `now` (epoch seconds); empty when all is well.

    Args:
        quic: they are for h3, too.
    """
    faults: list[Fault] = []
    chain: list[x509.Certificate] = []
    private: PrivateKeyTypes | None = None
    try:
        chain = read_chain(cert)
    except Unusable as error:
        faults.append(Fault("cert", error.message, error.hint))
    try:
        private = read_key(key)
    except Unusable as error:
        faults.append(Fault("key", error.message, error.hint))
    if chain:
        faults += _judge(cert, chain[0], now)
    if chain and private is not None:
        faults += _match(cert, key, chain, private)
    if quic and private is not None and (fault := quic_fault(key, private)) is not None:
        faults.append(fault)
    return faults


def quic_fault(path: Path, key: PrivateKeyTypes) -> Fault | None:
    """What is wrong with a key that OpenSSL takes for h3: aioquic, which signs there, knows fewer kinds."""
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return None
        return Fault("key", f"key {path} is ECDSA on {key.curve.name}, which cannot be used for h3", QUIC_KEYS)
    return Fault("key", f"key {path} is of a kind that cannot be used for h3", QUIC_KEYS)


def check_ca(path: Path) -> list[tuple[str, str]]:
    """Message and hint for a file of CA certificates that cannot be used."""
    try:
        read_chain(path)
    except Unusable as error:
        return [(error.message, error.hint)]
    return []


def read_chain(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, in file order; at least one. Raises Unusable."""
    raw = _read(path, "certificate")
    if b"-----BEGIN CERTIFICATE" not in raw:
        if b"PRIVATE KEY-----" in raw:
            raise Unusable(f"certificate {path} holds a private key and no certificate", "are cert and key swapped?")
        if raw.startswith(b"\x30\x82"):
            hint = f"convert it: openssl x509 -inform der -in {path} -out {path}.pem"
            raise Unusable(f"certificate {path} is DER, not PEM", hint)
        raise Unusable(f"certificate {path} holds no PEM certificate", "it starts with -----BEGIN CERTIFICATE-----")
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise Unusable(f"certificate {path} cannot be parsed: {_first_line(error)}") from error


def read_key(path: Path) -> PrivateKeyTypes:
    """The private key of a PEM file. Raises Unusable, also for an encrypted one: nobody is there to type a password."""
    raw = _read(path, "key")
    if b"PRIVATE KEY-----" not in raw:
        swapped = b"BEGIN CERTIFICATE" in raw
        hint = "are cert and key swapped?" if swapped else "it starts with -----BEGIN PRIVATE KEY-----"
        raise Unusable(f"key {path} holds no PEM private key", hint)
    try:
        return serialization.load_pem_private_key(raw, password=None)
    except TypeError as error:
        # cryptography's word for "a password was needed and none was given".
        hint = f"decrypt it: openssl pkey -in {path} -out PLAIN.pem, and keep that file at mode 0600"
        raise Unusable(f"key {path} is encrypted", hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unusable(f"key {path} cannot be parsed: {_first_line(error)}") from error


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names (lower case, wildcards as `*.example.org`) and IP addresses of the SAN; empty when it has none.

    The common name is not looked at: no client does any more (RFC 9110 §4.3.4, RFC 9525 §2).
    """
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    dns = [name.lower() for name in san.get_values_for_type(x509.DNSName)]
    return (*dns, *(str(ip) for ip in san.get_values_for_type(x509.IPAddress)))


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = "relative paths start at the working directory" if not path.is_absolute() else ""
        raise Unusable(f"{what} {path} does not exist", hint) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise Unusable(f"{what} {path} cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise Unusable(f"{what} {path} is larger than 1 MiB", "is this the right file?")
    return raw


def _judge(path: Path, leaf: x509.Certificate, now: float) -> Iterator[Fault]:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if moment > leaf.not_valid_after_utc:
        yield Fault("cert", f"certificate {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "renew it")
    if moment < leaf.not_valid_before_utc:
        begin = f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield Fault("cert", f"certificate {path} is not valid before {begin}", "is the clock of this machine right?")
    if not names_of(leaf):
        hint = "clients look nowhere else: issue it with a subjectAltName"
        yield Fault("cert", f"certificate {path} has no subject alternative names", hint)


def _match(cert: Path, key: Path, chain: list[x509.Certificate], private: PrivateKeyTypes) -> Iterator[Fault]:
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < _MIN_RSA:
        yield Fault("key", f"key {key} has {private.key_size} bits", f"RSA needs at least {_MIN_RSA}")
    public = private.public_key()
    matches = [_same_key(certificate, public) for certificate in chain]
    if matches[0]:
        return
    hint = "each pair is made together: check that both files are of the same issue"
    if any(matches):
        hint = "the chain is in the wrong order: the certificate of the key comes first, then its intermediates"
    yield Fault("key", f"key {key} does not belong to certificate {cert}", hint)


def _same_key(certificate: x509.Certificate, public: object) -> bool:
    try:
        return bool(certificate.public_key() == public)
    except (ValueError, UnsupportedAlgorithm):
        return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
