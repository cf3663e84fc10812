# Questions to DNS, by c-ares, without a thread a question. What the answers mean is decided in bots/names.py.
"""`Resolver.confirmed(code)`: the names of an address that lead back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiodns
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, DNSError

from edgeproxy.bots.names import candidates, confirms, reverse_name
from edgeproxy.lookups.answers import Unanswered
from edgeproxy.rules.addresses import V6

DEADLINE: Final = 5.0  # seconds for all questions about an address
_TIMEOUT: Final = 1.5  # seconds for a question to a server
_TRIES: Final = 2


class Resolver:
    """One of a worker; it belongs to the running loop. The system's servers, unless others are given."""

    def __init__(self, suffixes: Sequence[str], servers: Sequence[str] = (), port: int | None = None) -> None:
        """Ask.

        Args:
            suffixes: of host names that are worth a second question: those of known bots.
        """
        self._suffixes = tuple(suffixes)
        ports: dict[str, Any] = {} if port is None else {"udp_port": port, "tcp_port": port}
        self._ares = aiodns.DNSResolver(list(servers) or None, timeout=_TIMEOUT, tries=_TRIES, **ports)

    async def confirmed(self, code: int) -> tuple[str, ...]:
        """The host names of an address below the suffixes whose own addresses contain it.

        Raises: Unanswered.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                pointers = await self._ask(reverse_name(code), "PTR", "dname")
                # Both kinds of address are in the contract; an address can only be among those of its own kind.
                kind = "A" if code < V6 else "AAAA"
                found = [
                    name for name in candidates(pointers, self._suffixes) if confirms(code, await self._ask(name, kind, "addr"))
                ]
        except TimeoutError as error:
            raise Unanswered from error
        return tuple(found)

    async def _ask(self, name: str, kind: str, attribute: str) -> list[str]:
        """The data of all records of a kind; none where there are none. Raises Unanswered."""
        try:
            result = await self._ares.query_dns(name, kind)
        except DNSError as error:
            if error.args and error.args[0] in (ARES_ENOTFOUND, ARES_ENODATA):
                return []
            raise Unanswered from error
        # Records of other kinds stand beside them: aliases (RFC 2317 delegates PTR so).
        return [str(getattr(record.data, attribute)) for record in result.answer if hasattr(record.data, attribute)]

    async def close(self) -> None:
        """Questions that are under way are given up."""
        await self._ares.close()
