# Which certificate a QUIC client gets, and with which key it is proven. The choice is the same as over TCP.
"""`QuicCertificates`: the certificates of one snapshot, parsed; aioquic takes objects where OpenSSL takes files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.config.certificates import QUIC_KEYS, Unusable, names_of, quic_fault, read_chain, read_key
from edgeproxy.sni import ByName

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from edgeproxy.config.model import Certificate, Tls


class Identity(NamedTuple):
    """What a client is shown.

    Attributes:
        chain: the intermediates, in the order of the file.
        names: those of the certificate, lower case; None when the client asked for no name (`Peer.names`).
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes
    names: frozenset[str] | None


class QuicCertificates:
    """The certificates of one snapshot.

    Attributes:
        default: for clients that ask for no name; the first certificate in the configuration.
    """

    __slots__ = ("_by_name", "_unknown", "default")

    def __init__(self, tls: Tls) -> None:
        """Load every certificate. Raises Unusable, a ValueError, naming the file."""
        identities = [_load(pair) for pair in tls.certificates]
        self._by_name: ByName[Identity] = ByName()
        for identity in identities:
            self._by_name.add(identity.names or (), identity)
        self._unknown = identities[0]
        self.default = self._unknown._replace(names=None)

    def choose(self, server_name: str | None) -> Identity:
        """The identity for the name a client asks for (SNI); an unknown name gets the default certificate."""
        if server_name is None:
            return self.default
        return self._by_name.get(server_name.lower()) or self._unknown


def _load(pair: Certificate) -> Identity:
    certificate, *chain = read_chain(pair.cert)
    key = read_key(pair.key)
    fault = quic_fault(pair.key, key)
    if fault is not None:
        raise Unusable(fault.message, QUIC_KEYS)
    return Identity(certificate, tuple(chain), key, frozenset(names_of(certificate)))
