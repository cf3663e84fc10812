# Where a Redis store is and how one gets in: the URL, taken apart. Nothing is connected here.
"""`parse` makes a `Place` of a URL. The password is in no `repr`, no error and no label.

    redis://[user:password@]host[:6379][/db]                    one server; rediss:// with TLS
    unix://[user:password@]/path/to.sock[?db=0]
    redis+sentinel://[user:password@]host[:26379],…/name[/db]   rediss+sentinel:// with TLS, to sentinels and servers
    redis+cluster://[user:password@]host[:7000],…               rediss+cluster:// with TLS

What may follow as a query: `ca`, `cert`, `key` (files, for TLS), `db` (unix), `sentinel_user` and `sentinel_password`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

_PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_TLS_KEYS: Final = ("ca", "cert", "key")

Address = tuple[str, int]
"""A host and a port; the path of a Unix socket, and 0."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user ("" is the default user) and a password ("" is none)."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """A store.

    Attributes:
        addresses: of the server, of the sentinels, or of some of the cluster's nodes.
        name: of what the sentinels watch.
        files: ca, cert and key for TLS, each "" if not given.
    """

    kind: Literal["single", "sentinel", "cluster"]
    addresses: tuple[Address, ...]
    login: Login = Login()
    sentinel_login: Login = Login()
    name: str = ""
    db: int = 0
    tls: bool = False
    files: tuple[str, str, str] = ("", "", "")

    def context(self) -> ssl.SSLContext | None:
        """A TLS context; None without TLS.

        Raises: OSError, of a file that cannot be read or is not what it should be.
        """
        if not self.tls:
            return None
        ca, cert, key = self.files
        made = ssl.create_default_context(cafile=ca or None)
        if cert:
            made.load_cert_chain(cert, key or None)
        return made


def label(address: Address) -> str:
    """An address as people write it."""
    host, port = address
    return host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Place:
    """Take a URL apart.

    Raises: ValueError, which says what is wrong, and never quotes the URL.
    """
    scheme, mark, rest = url.partition("://")
    secure = scheme.startswith("rediss")
    kind: Literal["single", "sentinel", "cluster"]
    match scheme:
        case "redis" | "rediss" | "unix":
            kind = "single"
        case "redis+sentinel" | "rediss+sentinel":
            kind = "sentinel"
        case "redis+cluster" | "rediss+cluster":
            kind = "cluster"
        case _:
            mark = ""
    if not mark:
        raise ValueError("a store begins with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = {"sentinel_user", "sentinel_password", *_TLS_KEYS, "db"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"unknown option {unknown[0]!r} in a store's URL; there are {', '.join(sorted(known))}")
    # A raw @ or / in a password is a mistake that people make; the last @ before the path's end is the one that is meant.
    secret, _, rest = rest.rpartition("@")
    user, _, password = secret.partition(":")
    login = Login(unquote(user), unquote(password))
    files = (options.get("ca", ""), options.get("cert", ""), options.get("key", ""))
    if scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError("unix:// is followed by the path of a socket, from /")
        return Place(kind, ((unquote(rest), 0),), login, db=_number(options.get("db", "0"), "database"))
    hosts, *path = rest.split("/")
    addresses = tuple(_address(text, _PORTS[kind]) for text in hosts.split(","))
    name = ""
    if kind == "sentinel":
        if not path or not path[0]:
            raise ValueError("the hosts of sentinels are followed by /NAME of what they watch, such as /mymaster")
        name = unquote(path.pop(0))
    if kind == "single" and len(addresses) > 1:
        raise ValueError("one server has one address; several are redis+sentinel:// or redis+cluster://")
    db = _number(path[0], "database") if path and path[0] else 0
    if len(path) > 1:
        raise ValueError("what follows the hosts in a store's URL is not understood")
    if kind == "cluster" and db:
        raise ValueError("a cluster has only database 0")
    guard = Login(options.get("sentinel_user", ""), options.get("sentinel_password", ""))
    return Place(kind, addresses, login, guard, name, db, secure, files)


def _address(text: str, port: int) -> Address:
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("an IPv6 address stands in brackets, and a port behind a colon")
        digits = after[1:]
    else:
        host, _, digits = text.partition(":")
    if not host:
        raise ValueError("a store's URL names no host")
    number = _number(digits, "port") if digits else port
    if not 0 < number < 1 << 16:
        raise ValueError("a port is between 1 and 65535")
    return host, number


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"a {what} is a number")
    return int(text)
