# Fetching from other people's servers: https only, public addresses only, no redirects, bounded in size and time.
"""`Fetcher.get(url)`: the whole body of a small resource, or `NotFetched` with the reason.

Whose URL it is has been decided before (an allow-list). What is left to guard against is a name that leads into our own
networks: the addresses that were checked are the ones that are connected to, so a second answer of DNS changes nothing.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from edgeproxy.lookups.answers import NotFetched

DEADLINE: Final = 10.0  # seconds for everything
CONNECT: Final = 4.0
_CHUNK: Final = 16 << 10
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")
USER_AGENT: Final = "edgeproxy (key directories and networks of bots)"


class Fetched(NamedTuple):
    """An answer with status 200. `headers`: by name in lower case, lines of one name joined."""

    headers: Mapping[str, str]
    body: bytes


def is_public(address: str) -> bool:
    """Whether an address is out in the Internet, also where it carries an IPv4 address inside it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if "%" in address or found in _NAT64_LOCAL:
            return False
        if found.ipv4_mapped is not None or found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inner = found.sixtofour or (found.teredo or (None, None))[1]
        if inner is not None and not is_public(str(inner)):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


class _Checked(AbstractResolver):
    """Names to addresses, all of which must be public. aiohttp connects to just these."""

    def __init__(self, private: frozenset[str]) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        # In the loop's threads, as aiohttp's own: what the system knows beside DNS counts for those we fetch from.
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = [(info[0], str(info[4][0])) for info in found]
        if host not in self._private and (not addresses or not all(is_public(address) for _, address in addresses)):
            raise OSError(errno.EPERM, f"{host} leads to an address that is not public")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in addresses
        ]

    async def close(self) -> None:
        pass


class Fetcher:
    """One of a worker or of a command; it belongs to the running loop."""

    def __init__(self, context: ssl.SSLContext | None = None, private: frozenset[str] = frozenset()) -> None:
        """Fetch.

        Args:
            context: of TLS; None: the system's authorities.
            private: hosts whose addresses may be private (an operator's own directory, tests).
        """
        connector = aiohttp.TCPConnector(
            resolver=_Checked(private), use_dns_cache=False, limit=8, force_close=True, ssl=True if context is None else context
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=DEADLINE, connect=CONNECT),
            auto_decompress=False,  # a small answer stays small
            trust_env=False,  # neither proxies nor passwords of the environment
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )

    async def get(self, url: str, limit: int, accept: str = "application/json") -> Fetched:
        """The answer to a GET.

        Args:
            limit: bytes of its body.

        Raises: NotFetched.
        """
        check(url)
        try:
            async with self._session.get(url, allow_redirects=False, headers={"Accept": accept}) as reply:
                if reply.status != 200:
                    raise NotFetched(f"answered {reply.status}")
                if reply.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
                    raise NotFetched("answered with a content encoding that was not asked for")
                body = bytearray()
                async for chunk in reply.content.iter_chunked(_CHUNK):
                    body += chunk
                    if len(body) > limit:
                        raise NotFetched(f"has more than {limit} bytes")
                names = {name.lower() for name in reply.headers}
                return Fetched({name: ", ".join(reply.headers.getall(name)) for name in names}, bytes(body))
        except TimeoutError as error:
            raise NotFetched("did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL or header that it cannot read
            raise NotFetched(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Nothing is fetched any more."""
        await self._session.close()


def check(url: str) -> None:
    """Raises NotFetched for a URL that is not https, names no host by name, or carries a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018  raises for what is no port
    except ValueError as error:
        raise NotFetched("is not a URL") from error
    if parts.scheme != "https" or parts.username is not None or parts.password is not None:
        raise NotFetched("is not an https URL without user and password")
    # aiohttp does not resolve these, and so would not check them. The last label of a host name has a letter; the system
    # reads "127.1" and "0x7f.1" as addresses, too.
    label = host.rstrip(".").rpartition(".")[2]
    if not label or label[0].isdigit() or ":" in host:
        raise NotFetched("names no host, or an address")
