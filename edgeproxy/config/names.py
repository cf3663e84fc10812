# How addresses, networks, hosts, paths and URLs of the configuration are written; each function reads one notation.
"""Notations inside values. Each function takes what the file says, returns it normalised, or raises Invalid."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from edgeproxy.config.problems import Invalid, quote
from edgeproxy.config.units import describe

# RFC 1123 §2.1 labels, with `_` as in internal service names; at most 253 octets in all (RFC 1035 §2.3.4).
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_PORT_RANGE: Final = re.compile(r".*:[0-9]+\s*-\s*[0-9]+")
_UPSTREAM_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# RFC 3986 §3.3 pchar and "/"; everything else has to be percent-encoded.
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
# sockaddr_un.sun_path is 108 bytes on Linux, its closing NUL included.
_UNIX_PATH: Final = 107


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: `host` and `port` (host None: all interfaces), or the `path` of a unix socket."""

    host: str | None
    port: int | None
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def overlaps(self, other: Address) -> bool:
        """Whether both cannot be different doors: equal, or one is all interfaces of the other's port and family."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        if self.port != other.port or self.port == 0:  # port 0: the kernel picks, never the same one
            return False
        if self.host == other.host or self.host is None or other.host is None:
            return True
        for wild, host in ((self.host, other.host), (other.host, self.host)):
            if wild in ("0.0.0.0", "::") and (":" in host) == (":" in wild):
                return True
        return False


def address(value: Any) -> Address:
    """`0.0.0.0:8443`, `[::1]:8443`, `localhost:8443`, `:8443` (all interfaces), `unix:/path`."""
    if isinstance(value, Address):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise Invalid(f"{value} is not an address", f'write ":{value}" for all interfaces, or "127.0.0.1:{value}"')
    if not isinstance(value, str):
        raise Invalid(f"expected an address, not {describe(value)}", 'like "0.0.0.0:8443", "[::1]:8443", "unix:/path"')
    if value.startswith("unix:"):
        return _unix(value)
    if "://" in value:
        raise Invalid(f"{quote(value)} is a URL", "an address is host:port, without a scheme")
    if _PORT_RANGE.fullmatch(value):
        raise Invalid(f"{quote(value)} names a range of ports", "list each address on its own")
    try:
        IPv6Address(value)
    except ValueError:
        pass
    else:
        raise Invalid(f"{quote(value)} has no port, or no brackets", f'an IPv6 address is written "[{value}]:8443"')
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise Invalid(f"{quote(value)} is not an address", _port_hint(value))
    if int(port) > 65535:
        raise Invalid(f"{quote(value)} is not an address", "a port is at most 65535")
    if not host:
        return Address(None, int(port))
    if host == "*":
        raise Invalid(f"{quote(value)} is not an address", f'all interfaces are written ":{port}"')
    return Address(_listen_host(value, host, port), int(port))


def network(value: Any) -> IPv4Network | IPv6Network:
    """`10.0.0.0/8`, `2001:db8::/32`, or one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise Invalid(f"expected a network, not {describe(value)}", "like 10.0.0.0/8 or 2001:db8::/32")
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        wider = ip_network(value, strict=False)
    except ValueError:
        raise Invalid(f"{quote(value)} is not a network", "like 10.0.0.0/8 or 2001:db8::/32") from None
    alone = value.partition("/")[0]
    raise Invalid(f"{quote(value)} has bits set beyond its prefix", f"'{wider}' is the network, '{alone}' the address")


def target_url(value: str) -> str:
    """`http://127.0.0.1:9000`, `https://api.example.org`: scheme and authority, lower case, nothing else."""
    # urlsplit drops tabs and line breaks without a word, and would lower-case what a resolver then reads otherwise.
    if not re.fullmatch("[!-~]+", value):
        raise Invalid(
            f"{quote(value)} is not a URL", "ASCII without blanks; a name with other letters in its xn-- form"
        )
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise Invalid(f"{quote(value)} is not a URL", "like http://127.0.0.1:9000") from None
    if url.scheme not in ("http", "https") or not value.lower().startswith(f"{url.scheme}://"):
        bare = "://" not in value
        hint = f"write 'http://{value}'" if bare and _HOST.match(value) else "a target is http:// or https://"
        raise Invalid(f"{quote(value)} is not the URL of a target", hint)
    if "@" in url.netloc:
        raise Invalid("a target carries no user name or password", "credentials do not belong into a URL")
    bare_url = f"{url.scheme}://{url.netloc}"
    if url.path not in ("", "/") or "?" in value or "#" in value:
        hint = f"the path of the request is kept; write {quote(bare_url)}"
        raise Invalid(f"{quote(value)} has a path or a query", hint)
    if port == 0 or url.netloc.endswith(":"):
        raise Invalid(f"{quote(value)} has no usable port", "a port is 1 to 65535")
    _target_host(value, url)
    return bare_url.lower()


def route_host(value: str) -> str:
    """`*`, `chat.example.org`, `*.example.org`, an IP literal; lower case, IPv6 compressed and without brackets."""
    if value == "*":
        return value
    if not value.isascii():
        raise Invalid(f"{quote(value)} is not ASCII", "write the name in its xn-- form")
    if "://" in value or "/" in value:
        raise Invalid(f"{quote(value)} is not a host", "only the host stands here; the path has its own key")
    if value.startswith("[") and value.endswith("]"):
        return _ip(value[1:-1], value)
    name = value.removeprefix("*.")
    if ":" in value:
        try:
            return IPv6Address(value).compressed
        except ValueError:
            pass
        host, _, port = value.rpartition(":")
        hint = f"without the port: {quote(host)}" if port.isdigit() and _HOST.fullmatch(host) else "IPv6 is '[::1]'"
        raise Invalid(f"{quote(value)} is not a host", hint)
    if "*" in name:
        raise Invalid(f"{quote(value)} is not a host", "a '*' stands alone or as the first label: '*.example.org'")
    if name.endswith("."):
        raise Invalid(f"{quote(value)} is not a host", f"without the final dot: {quote(value.rstrip('.'))}")
    if not _HOST.fullmatch(name):
        raise Invalid(f"{quote(value)} is not a host", "like chat.example.org, *.example.org or *")
    return value.lower()


def route_path(value: str) -> str:
    """A path prefix in the form that requests are normalised to: `/`, `/v1/`."""
    if not value.startswith("/"):
        raise Invalid(f"{quote(value)} is not a path", f"a path starts with '/': {quote('/' + value)}")
    if value.endswith("*"):
        raise Invalid(f"{quote(value)} has a '*'", f"a path is a prefix already: {quote(value.rstrip('*'))}")
    if "?" in value or "#" in value:
        raise Invalid(f"{quote(value)} has a query or fragment", "routes match on the path alone")
    if not _PATH.fullmatch(value):
        hint = "percent-encode what is not a letter, a digit or one of -._~!$&'()*+,;=:@/"
        raise Invalid(f"{quote(value)} is not a path", hint)
    if "//" in value or any(part in (".", "..") for part in value.split("/")):
        hint = "request paths are normalised: no '//', '.' or '..' is left in them"
        raise Invalid(f"{quote(value)} can never match", hint)
    return value


def model_pattern(value: str) -> str:
    """`gpt-4o`, or a prefix `gpt-*`; `*` alone would be what 'upstream' says already."""
    if not value:
        raise Invalid("a model name is empty")
    if "*" in value[:-1]:
        raise Invalid(f"{quote(value)} has a '*' inside", "a '*' stands at the end only: 'gpt-*'")
    if value == "*":
        raise Invalid("'*' is every model", "that is what the route's 'upstream' is for")
    return value


def upstream_name(value: str) -> str:
    """A short name: it becomes a label of metrics and a field of the access log."""
    if not _UPSTREAM_NAME.fullmatch(value):
        raise Invalid(f"{quote(value)} is not a name", "letters, digits, '-', '_' and '.', at most 64")
    return value


def _unix(value: str) -> Address:
    path = value.removeprefix("unix:")
    if not path.startswith("/"):
        hint = "the path of a unix socket is absolute: 'unix:/run/edge.sock'"
        raise Invalid(f"{quote(value)} is not an address", hint)
    if len(path.encode()) > _UNIX_PATH:
        raise Invalid(f"{quote(value)} is too long", f"the path of a unix socket has at most {_UNIX_PATH} bytes")
    return Address(None, None, path)


def _port_hint(value: str) -> str:
    if value.isdigit():
        return f'write ":{value}" for all interfaces'
    if value.startswith("/"):
        return f"a unix socket is written 'unix:{value}'"
    if ":" not in value and _HOST.fullmatch(value):
        return f'the port is missing: "{value}:8443"'
    return 'like "0.0.0.0:8443", "[::1]:8443", ":8443" or "unix:/path"'


def _listen_host(value: str, host: str, port: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _ip(host[1:-1], value)
    if ":" in host:
        raise Invalid(f"{quote(value)} is not an address", f'IPv6 stands in brackets: "[{host}]:{port}"')
    if host.isdigit():
        # `8:30`, `1:8443`: a number is no host, and older YAML readers make 510 of `8:30`.
        hint = f"'{host}' is no host; all interfaces are written \":{port}\""
        raise Invalid(f"{quote(value)} is not an address", hint)
    if _is_numeric(host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Invalid(f"{quote(value)} is not an address", f"{quote(host)} is no IPv4 address") from None
    if not _HOST.fullmatch(host):
        raise Invalid(f"{quote(value)} is not an address", f"{quote(host)} is neither an IP address nor a host name")
    return host.lower()


def _ip(text: str, value: str) -> str:
    try:
        return IPv6Address(text).compressed
    except ValueError:
        raise Invalid(f"{quote(value)} is not an address", f"{quote(text)} is no IPv6 address") from None


def _is_numeric(host: str) -> bool:
    """Whether the last label reads as a number, so that the resolver would take the whole for an IPv4 address."""
    return re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", host.rpartition(".")[2]) is not None


def _target_host(value: str, url: SplitResult) -> None:
    host = url.hostname or ""
    if not host:
        raise Invalid(f"{quote(value)} has no host", "like http://127.0.0.1:9000")
    if _is_numeric(host) or ":" in host:
        try:
            ip = ip_address(host)
        except ValueError:
            # `http://2852039166/` is 169.254.169.254 to inet_aton: only the dotted form is let through.
            raise Invalid(f"{quote(value)} has no valid IP address", f"{quote(host)}: {_spelled_ip(host)}") from None
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_link_local:
            raise Invalid(f"{quote(value)} is link-local", "refused: cloud metadata services live there")
        if ip.is_multicast or ip.is_unspecified:
            raise Invalid(f"{quote(value)} cannot be connected to", "name the address of the server, like 127.0.0.1")
    elif not _HOST.fullmatch(host):
        raise Invalid(f"{quote(value)} has no valid host", f"{quote(host)} is neither an IP address nor a host name")


def _spelled_ip(host: str) -> str:
    try:
        return f"write it as {socket.inet_ntoa(socket.inet_aton(host))}"
    except (OSError, ValueError):
        return "four numbers up to 255, or IPv6 in brackets"
