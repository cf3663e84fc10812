# How a connection to a target is made, and why one is not used. Which target, and for whom, is the pool's matter.
"""Opening connections to upstreams: TCP, TLS, what the name may lead to, and faults in words."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import TYPE_CHECKING

from edgeproxy.faults import Fault, upstream_fault
from edgeproxy.listen.tls import TlsConnection

if TYPE_CHECKING:
    from edgeproxy.upstream.h1 import UpstreamConnection
    from edgeproxy.upstream.pool import Target


class Connecting:
    """A connection being made for an exchange."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def pause(self) -> None:
        """Nothing is read yet."""

    def resume(self) -> None:
        """Nothing is read yet."""

    def cancel(self) -> None:
        """The client left before there was a connection."""
        self._task.cancel()


async def open_connection(
    loop: asyncio.AbstractEventLoop, target: Target, connection: UpstreamConnection
) -> Fault | None:
    """Connect to a target and, for https, do the handshake.

    Returns: None, or why it is not used. Returned, because an exception kept in a future and in the frame that awaits it
        would be a reference cycle for each failed connection.

    Raises: OSError.
    """
    settings = target.settings
    context = settings.context
    if context is None:
        transport, _ = await loop.create_connection(lambda: connection, settings.host, settings.port)
        return _link_local(transport)
    ready: asyncio.Future[OSError | None] = loop.create_future()
    client = TlsConnection.client(context, settings.host, connection, ready)
    transport, _ = await loop.create_connection(lambda: client, settings.host, settings.port)
    fault = _link_local(transport)
    if fault is not None:
        return fault
    try:
        failure = await ready
    except asyncio.CancelledError:
        transport.abort()  # the timer ran out, or the client left
        raise
    return None if failure is None else connect_fault(target, failure)


def _link_local(transport: asyncio.BaseTransport) -> Fault | None:
    """A name that resolves to 169.254.0.0/16 or fe80::/10 leads to cloud metadata services, never to a backend."""
    peer = transport.get_extra_info("peername")
    address = ipaddress.ip_address(peer[0].partition("%")[0]) if peer else None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if address is not None and (mapped or address).is_link_local:
        transport.abort()  # type: ignore[attr-defined]  # asyncio types it as BaseTransport; it is a TCP transport
        return upstream_fault(502, "link_local", "The upstream's name leads to a link-local address, which is refused.")
    return None


def connect_fault(target: Target, error: BaseException) -> Fault:
    """Why a target could not be reached, as the client is told; timeouts are counted."""
    where = target.settings.label
    if isinstance(error, TimeoutError):
        target.stats.timeouts["connect"] = target.stats.timeouts.get("connect", 0) + 1
        return upstream_fault(504, "connect_timeout", f"The upstream {where} did not accept a connection in time.")
    if isinstance(error, ssl.SSLCertVerificationError):
        return upstream_fault(502, "certificate", f"The upstream's certificate is not valid: {error.verify_message}.")
    if isinstance(error, ssl.SSLError):
        return upstream_fault(502, "tls", f"The TLS handshake with the upstream failed ({error.reason}).")
    return upstream_fault(502, "connect", f"The upstream {where} could not be reached.")
