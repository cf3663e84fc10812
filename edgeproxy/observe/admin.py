# The admin endpoints: what they answer and whom they answer. Where the numbers come from is control.py's affair.
"""``/healthz``, ``/readyz``, ``/metrics`` and ``/api/explain`` as an aiohttp application, and what api.py adds.

There is no login, so a web page that the operator has open must not be able to read or command it: a request whose Host
is a foreign name (DNS rebinding) or whose Origin is another site gets 403.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import web

from edgeproxy.explaining.question import Busy, Unclear
from edgeproxy.observe.api import Operator, routes
from edgeproxy.observe.collector import CONTENT_TYPE, Scrape, render

_SECURITY: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_MOST: Final = 64 * 1024  # bytes of a request body
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class Source(Protocol):
    """What the endpoints show."""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether /readyz answers 200, and its JSON detail."""

    async def explain(self, content: bytes) -> bytes:
        """The JSON of an explanation of the request that the content (JSON) tells of. Raises Unclear, Busy."""

    async def scrape(self) -> Scrape:
        """Fresh numbers of all processes; takes at most the deadline for workers to report (250 ms)."""


def application(source: Source, host: str | None, operator: Operator | None = None) -> web.Application:
    """``host``: the configured host of the admin address; None for all interfaces or a Unix socket."""

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        refusal = refuse(request.headers.get("Host"), request.headers.get("Origin"), host, _local_host(request))
        if refusal is not None:
            return web.json_response({"error": refusal}, status=403, headers=_SECURITY)
        return await handler(request)

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, headers=_SECURITY)

    async def readyz(_request: web.Request) -> web.Response:
        ready, detail = source.readiness()
        return web.json_response({"ready": ready, **detail}, status=200 if ready else 503, headers=_SECURITY)

    async def metrics(_request: web.Request) -> web.Response:
        text = render(await source.scrape())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE, **_SECURITY})

    async def explain(request: web.Request) -> web.Response:
        try:
            content = await source.explain(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return web.json_response({"error": f"at most {_MOST} bytes"}, status=413, headers=_SECURITY)
        except Unclear as error:
            return web.json_response({"error": str(error)}, status=400, headers=_SECURITY)
        except Busy as error:
            return web.json_response({"error": str(error)}, status=503, headers={"Retry-After": "1", **_SECURITY})
        return web.Response(body=content, content_type="application/json", headers=_SECURITY)

    app = web.Application(middlewares=[guard], client_max_size=_MOST)
    app.add_routes([
        web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics),
        web.post("/api/explain", explain),
    ])  # fmt: skip
    if operator is not None:
        app.add_routes(routes(operator, _SECURITY, _MOST))
    return app


def refuse(host: str | None, origin: str | None, configured: str | None, local: str | None) -> str | None:
    """Why a request is not answered, or None. ``host`` and ``origin`` are the headers, ``configured`` the host of the
    admin address, ``local`` the address the connection came in on."""
    name = _host_name(host)
    if name is None:
        return "a Host header is needed"
    if not _is_own(name, configured, local):
        return f"the admin address is not known as {name!r}: use a loopback name or the configured address"
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return "requests from other sites are refused"
    return None


def _is_own(name: str, configured: str | None, local: str | None) -> bool:
    if name in _LOOPBACK_NAMES or (configured is not None and name == configured.lower()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # A name can be rebound, an address can't: the one the connection came in on is ours, whatever 0.0.0.0 stood for.
    return address.is_loopback or (local is not None and address == ipaddress.ip_address(local))


def _host_name(host: str | None) -> str | None:
    """The name of a Host header without its port and brackets, in lower case."""
    if not host:
        return None
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower() or None


def _local_host(request: web.Request) -> str | None:
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport is not None else None
    if not isinstance(name, tuple):
        return None  # a Unix socket
    address = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
