# Which certificate and which TLS settings a client gets; contexts are made here and nowhere else.
"""Server-side SSLContexts: several certificates chosen by SNI, Mozilla intermediate 5.7, shared ticket keys."""

from __future__ import annotations

import ctypes
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from cryptography import x509

from edgeproxy.sni import ByName

if TYPE_CHECKING:
    from edgeproxy.config.model import Tls

_log = logging.getLogger("edgeproxy")

# Mozilla intermediate 5.7: TLS 1.2 with forward secrecy and AEAD only. TLS 1.3's suites are OpenSSL's own three.
CIPHERS = ":".join((
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
))  # fmt: skip
TICKET_KEYS = 80  # bytes: 16 of name, 32 of HMAC key, 32 of AES key
_DEFAULT = "default"  # stands for the first context in tables of names
_GET_TICKET_KEYS, _SET_TICKET_KEYS = 58, 59  # SSL_CTRL_GET/SET_TLSEXT_TICKET_KEYS in openssl/ssl.h


class EdgeSSLObject(ssl.SSLObject):
    """An SSLObject that remembers the name the client asked for (None without SNI)."""

    server_name: str | None = None


class Contexts:
    """The contexts of one snapshot.

    Attributes:
        default: for clients without SNI or with an unknown name; the first certificate in the configuration.
    """

    __slots__ = ("_contexts", "_names", "default")

    def __init__(self, tls: Tls, protocols: tuple[str, ...], ticket_keys: bytes) -> None:
        """Load every certificate.

        Raises: OSError or ssl.SSLError when a file cannot be used (configuration loading has said so by path before).
        """
        self._names: dict[int, frozenset[str]] = {}
        self._contexts: list[ssl.SSLContext] = []  # kept, or their ids would be somebody else's
        table: ByName[ssl.SSLContext | str] = ByName()
        for certificate in tls.certificates:
            context = _context(tls.min_version, protocols)
            context.load_cert_chain(certificate.cert, certificate.key)
            names = certificate_names(certificate.cert.read_bytes())
            self._names[id(context)] = names
            # The default one holds this table by its callback: were it in there, the two would never be freed.
            table.add(names, context if self._contexts else _DEFAULT)
            self._contexts.append(context)
        self.default = self._contexts[0]
        # OpenSSL takes ticket keys from the context a connection began with, which is always the default one.
        share_ticket_keys(self.default, ticket_keys)
        self.default.sni_callback = _chooser(table)

    def names(self, connection: ssl.SSLObject) -> frozenset[str] | None:
        """Names of the certificate this connection was served, None when the client sent no SNI."""
        if not isinstance(connection, EdgeSSLObject) or connection.server_name is None:
            return None
        return self._names.get(id(connection.context))


def _chooser(table: ByName[ssl.SSLContext | str]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """OpenSSL asks, in the middle of the handshake. An unknown name gets the default certificate."""
        if name is None or not isinstance(connection, EdgeSSLObject):
            return None
        name = name.lower()
        connection.server_name = name
        chosen = table.get(name)
        if isinstance(chosen, ssl.SSLContext):
            connection.context = chosen
        return None

    return choose


def covers(names: frozenset[str], host: str) -> bool:
    """Whether a certificate with these names is good for a host (RFC 6125 §6.4.3: one label for a wildcard)."""
    return host in names or "*." + host.partition(".")[2] in names


def certificate_names(pem: bytes) -> frozenset[str]:
    """Lower-case DNS names and IP addresses of the subjectAltName of the first certificate in a PEM file."""
    certificate = x509.load_pem_x509_certificates(pem)[0]
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    names = {name.lower() for name in alternative.get_values_for_type(x509.DNSName)}
    names |= {str(address) for address in alternative.get_values_for_type(x509.IPAddress)}
    return frozenset(names)


def _context(min_version: str, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = EdgeSSLObject
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # Mozilla: the client's order of ciphers is better when all of ours are good (it knows whether it has AES in hardware).
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    alpn = [{"h1": "http/1.1"}.get(protocol, protocol) for protocol in protocols]
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def client_context(ca: str) -> ssl.SSLContext:
    """For https targets: certificates and names are verified.

    Args:
        ca: `"system"` or the path of a PEM file with the only authorities to trust.
    """
    context = ssl.create_default_context(cafile=None if ca == "system" else ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def share_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """Give a context the session-ticket keys that all workers of this generation share.

    CPython has no call for it, OpenSSL has. The pointer is read where CPython keeps it (the first field behind the
    object's head in 3.11 to 3.14) and is proven before it is used: asking it for its ticket keys' size must give 80.
    When anything is different tickets resume only at the worker that issued them, which costs handshakes, not safety.

    Args:
        keys: TICKET_KEYS random bytes.

    Returns: whether the keys were taken.
    """
    import _ssl

    try:
        library = ctypes.CDLL(_ssl.__file__)
        control = library.SSL_CTX_ctrl
    except (OSError, AttributeError):
        _log.warning("TLS tickets resume only at the worker that issued them: this Python's OpenSSL is out of reach.")
        return False
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    control.restype = ctypes.c_long
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if control(pointer, _GET_TICKET_KEYS, 0, None) != TICKET_KEYS:
        _log.warning("TLS tickets resume only at the worker that issued them: unknown layout of SSLContext.")
        return False
    return bool(control(pointer, _SET_TICKET_KEYS, TICKET_KEYS, ctypes.create_string_buffer(keys, TICKET_KEYS)))
